//! `ctl taint`.

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::client::{Call, MERGE_PATCH};
use crate::context::Context;
use crate::files::FileArgs;
use crate::output::{DryRun, DryRunArgs, OutputArgs};
use crate::resources::{SelectorArgs, Wanted};
use crate::value::{list, text};

#[derive(Debug, Args)]
pub struct TaintArgs {
    /// nodes NAME… KEY[=VALUE]:EFFECT… KEY[:EFFECT]-…; with a minus it is removed
    words: Vec<String>,
    #[command(flatten)]
    selectors: SelectorArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
    /// Change taints that are there
    #[arg(long)]
    overwrite: bool,
    /// All nodes
    #[arg(long)]
    all: bool,
}

#[derive(Debug, PartialEq)]
struct Taint {
    key: String,
    value: String,
    effect: String,
    removed: bool,
}

fn parse(word: &str) -> anyhow::Result<Option<Taint>> {
    let (body, removed) = word.strip_suffix('-').map_or((word, false), |body| (body, true));
    if !removed && !body.contains(':') {
        return Ok(None);
    }
    let (pair, effect) = body.split_once(':').unwrap_or((body, ""));
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect);
    let any = removed && effect.is_empty();
    if !known && !any {
        bail!(
            "invalid taint effect: {effect}, unsupported taint effect: NoSchedule, PreferNoSchedule or NoExecute is expected"
        );
    }
    Ok(Some(Taint { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned(), removed }))
}

pub async fn run(context: &Context, args: TaintArgs) -> anyhow::Result<()> {
    let (mut words, mut taints) = (Vec::new(), Vec::new());
    for word in &args.words {
        match parse(word)? {
            Some(taint) => taints.push(taint),
            None => words.push(word.clone()),
        }
    }
    if taints.is_empty() {
        bail!("at least one taint update is required");
    }
    let dry_run = args.dry_run.get()?;
    let printer = args.output.printer()?;
    let files = FileArgs::default();
    let wanted = Wanted { words: &words, files: &files, selectors: &args.selectors, all: args.all };
    for node in wanted.find_all(context).await? {
        if node.mapping.kind != "Node" {
            bail!("invalid resource type {}, only node(s) is supported", node.mapping.resource);
        }
        let after = changed(list(&node.object, "/spec/taints"), &taints, args.overwrite)
            .with_context(|| format!("node {}", node.name))?;
        let done = if taints.iter().all(|t| t.removed) { "untainted" } else { "tainted" };
        let object = if dry_run == DryRun::Client {
            node.object.clone()
        } else {
            let version = text(&node.object, "/metadata/resourceVersion");
            let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": after}});
            let call = Call::patch(node.path(), MERGE_PATCH, &patch).query("dryRun", dry_run.parameter());
            context.rest.json(call.query("fieldManager", "kubectl-taint")).await?
        };
        printer.change(&node.mapping, &object, done, dry_run);
    }
    Ok(())
}

fn changed(present: &[Value], taints: &[Taint], overwrite: bool) -> anyhow::Result<Vec<Value>> {
    let mut after = present.to_vec();
    for taint in taints {
        let same = |t: &Value| {
            text(t, "/key") == taint.key && (taint.effect.is_empty() || text(t, "/effect") == taint.effect)
        };
        let known = after.iter().any(&same);
        if taint.removed && !known {
            bail!("taint {:?} not found", format!("{}:{}", taint.key, taint.effect).trim_end_matches(':'));
        }
        if !taint.removed && known && !overwrite {
            bail!("already has {} taint(s) with same effect(s) and --overwrite is false", taint.key);
        }
        after.retain(|t| !same(t));
        if !taint.removed {
            let mut added = json!({"key": taint.key, "effect": taint.effect});
            if !taint.value.is_empty() {
                added["value"] = taint.value.clone().into();
            }
            after.push(added);
        }
    }
    Ok(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_added_and_removed() {
        let taint = |word: &str| parse(word).expect("taint").expect("a taint");
        assert_eq!(parse("node-1").expect("a word"), None);
        assert!(parse("a=b:Never").is_err());
        let present = [json!({"key": "a", "effect": "NoSchedule"})];
        let after = changed(&present, &[taint("b=1:NoExecute")], false).expect("added");
        assert_eq!(after.len(), 2);
        assert!(changed(&present, &[taint("a=1:NoSchedule")], false).is_err());
        assert_eq!(changed(&present, &[taint("a:NoSchedule-")], false).expect("removed").len(), 0);
        assert_eq!(changed(&present, &[taint("a-")], false).expect("removed").len(), 0);
        assert!(changed(&present, &[taint("z-")], false).is_err());
    }
}
