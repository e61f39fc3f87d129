//! `ctl set`: the fields of a workload that change most often.

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::client::{Call, STRATEGIC_PATCH};
use crate::context::Context;
use crate::failure;
use crate::files::FileArgs;
use crate::output::{DryRun, DryRunArgs, OutputArgs};
use crate::resources::{Found, SelectorArgs, Wanted};
use crate::value::{list, text};

#[derive(Debug, Subcommand)]
pub enum SetCommand {
    /// Change images: CONTAINER=IMAGE
    Image(SetArgs),
    /// Change environment variables: NAME=VALUE, NAME-
    Env(EnvArgs),
    /// Change what containers ask for: --requests, --limits
    Resources(ResourcesArgs),
    /// Change the service account
    #[command(visible_alias = "sa")]
    Serviceaccount(SetArgs),
}

#[derive(Debug, Args)]
pub struct SetArgs {
    /// TYPE NAME… or TYPE/NAME…, then what is set
    words: Vec<String>,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, Args)]
pub struct TargetArgs {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    selectors: SelectorArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
    /// All objects of the types given
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
pub struct EnvArgs {
    words: Vec<String>,
    #[command(flatten)]
    target: TargetArgs,
    /// Only these containers; * stands for any letters
    #[arg(short = 'c', long, default_value = "*")]
    containers: String,
    /// NAME=VALUE; repeat it for several
    #[arg(short = 'e', long)]
    env: Vec<String>,
    /// Take all keys of configmap/NAME or secret/NAME
    #[arg(long)]
    from: Option<String>,
    /// Before each name that --from gives
    #[arg(long, default_value = "")]
    prefix: String,
    /// Show what is there
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Args)]
pub struct ResourcesArgs {
    words: Vec<String>,
    #[command(flatten)]
    target: TargetArgs,
    #[arg(short = 'c', long, default_value = "*")]
    containers: String,
    /// cpu=100m,memory=64Mi
    #[arg(long)]
    requests: Option<String>,
    #[arg(long)]
    limits: Option<String>,
}

pub async fn run(context: &Context, command: SetCommand) -> anyhow::Result<()> {
    match command {
        SetCommand::Image(args) => image(context, args).await,
        SetCommand::Env(args) => env(context, args).await,
        SetCommand::Resources(args) => resources(context, args).await,
        SetCommand::Serviceaccount(mut args) => {
            let account = args.words.pop().context("serviceaccount is required")?;
            let done = "serviceaccount updated";
            change(context, &args.words, &args.target, done, |_| {
                Ok(json!({"serviceAccountName": account, "serviceAccount": account}))
            })
            .await
        }
    }
}

/// Where an object keeps its pod specification.
fn pod_spec_path(kind: &str) -> &'static [&'static str] {
    match kind {
        "Pod" => &["spec"],
        "CronJob" => &["spec", "jobTemplate", "spec", "template", "spec"],
        _ => &["spec", "template", "spec"],
    }
}

fn pod_spec(found: &Found) -> Value {
    let pointer = format!("/{}", pod_spec_path(&found.mapping.kind).join("/"));
    found.object.pointer(&pointer).cloned().unwrap_or_default()
}

/// Patches the pod specification of each object with what `edit` makes of it.
async fn change(
    context: &Context,
    words: &[String],
    target: &TargetArgs,
    done: &str,
    edit: impl Fn(&Value) -> anyhow::Result<Value>,
) -> anyhow::Result<()> {
    let dry_run = target.dry_run.get()?;
    let printer = target.output.printer()?;
    let wanted = Wanted { words, files: &target.files, selectors: &target.selectors, all: target.all };
    let (found, mut errors) = wanted.find(context).await?;
    for one in found {
        let present = pod_spec(&one);
        let changed = async {
            let patch = edit(&present)?;
            if patch.is_null() || dry_run == DryRun::Client {
                return Ok((one.object.clone(), !patch.is_null()));
            }
            let path = pod_spec_path(&one.mapping.kind);
            let patch = path.iter().rev().fold(patch, |inner, key| json!({*key: inner}));
            let call = Call::patch(one.path(), STRATEGIC_PATCH, &patch).query("fieldManager", "kubectl-set");
            let object = context.rest.json(call.query("dryRun", dry_run.parameter())).await?;
            anyhow::Ok((object, true))
        };
        match changed.await {
            Ok((object, true)) => printer.change(&one.mapping, &object, done, dry_run),
            // What is as it should be needs no word.
            Ok((_, false)) => {}
            Err(error) => errors.push(error),
        }
    }
    failure::all(errors)
}

fn split(words: &[String]) -> (Vec<String>, Vec<String>) {
    words.iter().cloned().partition(|word| !word.contains('=') && !word.ends_with('-'))
}

async fn image(context: &Context, args: SetArgs) -> anyhow::Result<()> {
    let (words, changes) = split(&args.words);
    if changes.is_empty() {
        bail!("at least one image update is required");
    }
    let changes = super::create::pairs(changes.iter().map(String::as_str))?;
    change(context, &words, &args.target, "image updated", |spec| images(spec, &changes)).await
}

/// The patch for new images; null when they are there already.
fn images(spec: &Value, changes: &Map<String, Value>) -> anyhow::Result<Value> {
    let mut patch = json!({});
    for (name, image) in changes {
        let mut known = name == "*";
        for kind in ["containers", "initContainers"] {
            for container in
                list(spec, &format!("/{kind}")).iter().filter(|c| name == "*" || text(c, "/name") == name)
            {
                known = true;
                if container.get("image") != Some(image) {
                    append(&mut patch, kind, json!({"name": text(container, "/name"), "image": image}));
                }
            }
        }
        if !known {
            bail!("unable to find container named {name:?}");
        }
    }
    Ok(if patch == json!({}) { Value::Null } else { patch })
}

fn append(patch: &mut Value, field: &str, item: Value) {
    match patch.get_mut(field).and_then(Value::as_array_mut) {
        Some(items) => items.push(item),
        None => patch[field] = json!([item]),
    }
}

/// `web*` fits `web-1`.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|tail| {
            (0..=tail.len()).filter(|i| tail.is_char_boundary(*i)).any(|i| fits(rest, &tail[i..]))
        }),
    }
}

async fn env(context: &Context, args: EnvArgs) -> anyhow::Result<()> {
    let (words, mut changes) = split(&args.words);
    changes.extend(args.env.iter().cloned());
    if args.list {
        let wanted = Wanted {
            words: &words,
            files: &args.target.files,
            selectors: &args.target.selectors,
            all: args.target.all,
        };
        for one in wanted.find_all(context).await? {
            for container in list(&pod_spec(&one), "/containers") {
                crate::outln!(
                    "# {} {}, container {}",
                    one.mapping.resource,
                    one.name,
                    text(container, "/name")
                );
                for variable in list(container, "/env") {
                    crate::outln!("{}={}", text(variable, "/name"), text(variable, "/value"));
                }
            }
        }
        return Ok(());
    }
    let mut variables = Vec::new();
    if let Some(from) = &args.from {
        variables.extend(from_keys(context, from, &args.prefix).await?);
    }
    for item in &changes {
        variables.push(match item.split_once('=') {
            // A reference gives way to a plain value.
            Some((name, value)) => json!({"name": name, "value": value, "valueFrom": null}),
            None => json!({"name": item.trim_end_matches('-'), "$patch": "delete"}),
        });
    }
    if variables.is_empty() {
        bail!("at least one environment variable must be provided");
    }
    change(context, &words, &args.target, "env updated", |spec| {
        let chosen = list(spec, "/containers").iter().filter(|c| fits(&args.containers, text(c, "/name")));
        let patched: Vec<Value> =
            chosen.map(|c| json!({"name": text(c, "/name"), "env": variables})).collect();
        if patched.is_empty() {
            bail!("no container fits {:?}", args.containers);
        }
        Ok(json!({"containers": patched}))
    })
    .await
}

async fn from_keys(context: &Context, from: &str, prefix: &str) -> anyhow::Result<Vec<Value>> {
    let mapper = context.mapper().await?;
    let selections = crate::resources::parse(&mapper, &[from.to_owned()])?;
    let selection = selections.first().context("--from is configmap/NAME or secret/NAME")?;
    let name = selection.names.first().context("--from is configmap/NAME or secret/NAME")?;
    let field = match selection.mapping.kind.as_str() {
        "ConfigMap" => "configMapKeyRef",
        "Secret" => "secretKeyRef",
        kind => bail!("unsupported resource specified in --from: {kind}"),
    };
    let object = context.get(&selection.mapping, Some(&context.namespace), name).await?;
    let keys = crate::value::map(&object, "/data").into_iter().flatten().map(|(key, _)| key);
    Ok(keys
        .map(|key| {
            let variable: String = key
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
                .collect();
            json!({"name": format!("{prefix}{variable}"), "valueFrom": {field: {"name": name, "key": key}}})
        })
        .collect())
}

async fn resources(context: &Context, args: ResourcesArgs) -> anyhow::Result<()> {
    let mut amounts = json!({});
    for (field, value) in [("requests", &args.requests), ("limits", &args.limits)] {
        if let Some(value) = value {
            amounts[field] = super::create::pairs(value.split(','))?.into();
        }
    }
    if amounts == json!({}) {
        bail!("you must specify an update to requests or limits (in the form of --requests/--limits)");
    }
    change(context, &args.words, &args.target, "resource requirements updated", |spec| {
        let chosen = list(spec, "/containers").iter().filter(|c| fits(&args.containers, text(c, "/name")));
        let patched: Vec<Value> =
            chosen.map(|c| json!({"name": text(c, "/name"), "resources": amounts})).collect();
        Ok(json!({"containers": patched}))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_change_only_where_they_differ() {
        let spec = json!({"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "x:2"}]});
        let changes = |name: &str| json!({name: "x:2"}).as_object().cloned().expect("map");
        assert_eq!(
            images(&spec, &changes("a")).expect("a patch"),
            json!({"containers": [{"name": "a", "image": "x:2"}]})
        );
        assert_eq!(images(&spec, &changes("b")).expect("a patch"), Value::Null);
        assert_eq!(
            images(&spec, &changes("*")).expect("a patch"),
            json!({"containers": [{"name": "a", "image": "x:2"}]})
        );
        assert!(images(&spec, &changes("z")).is_err());
    }

    #[test]
    fn patterns_fit_names() {
        assert!(fits("*", "any") && fits("a*c", "abc") && fits("a", "a") && !fits("a*", "b"));
    }
}
