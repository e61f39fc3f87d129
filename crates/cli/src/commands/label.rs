//! `ctl label` and `ctl annotate`.

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::client::{Call, MERGE_PATCH};
use crate::context::Context;
use crate::failure;
use crate::files::FileArgs;
use crate::output::{DryRun, DryRunArgs, OutputArgs};
use crate::resources::{SelectorArgs, Wanted};

#[derive(Debug, Args)]
pub struct LabelArgs {
    /// TYPE NAME… KEY=VALUE… KEY-…; a key with a minus is removed
    words: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    selectors: SelectorArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
    /// Change values that are there
    #[arg(long)]
    overwrite: bool,
    /// All objects of the types given
    #[arg(long)]
    all: bool,
    /// Show what is there
    #[arg(long)]
    list: bool,
    /// Only if the object has this version
    #[arg(long)]
    resource_version: Option<String>,
}

/// The field of metadata that is changed, and what one says of a change.
#[derive(Clone, Copy)]
pub struct Kind {
    field: &'static str,
    done: &'static str,
    undone: &'static str,
    manager: &'static str,
}

pub const LABELS: Kind =
    Kind { field: "labels", done: "labeled", undone: "unlabeled", manager: "kubectl-label" };
pub const ANNOTATIONS: Kind =
    Kind { field: "annotations", done: "annotated", undone: "annotated", manager: "kubectl-annotate" };

pub async fn run(context: &Context, args: LabelArgs, kind: Kind) -> anyhow::Result<()> {
    let (words, changes) = split(&args.words);
    let changes = parse(&changes)?;
    if changes.is_empty() && !args.list {
        bail!("at least one {} update is required", kind.field.trim_end_matches('s'));
    }
    let dry_run = args.dry_run.get()?;
    let printer = args.output.printer()?;
    let wanted = Wanted { words: &words, files: &args.files, selectors: &args.selectors, all: args.all };
    let (found, mut errors) = wanted.find(context).await?;
    for one in found {
        let present =
            crate::value::map(&one.object, &format!("/metadata/{}", kind.field)).cloned().unwrap_or_default();
        if args.list {
            for (key, value) in &present {
                crate::outln!("{key}={}", value.as_str().unwrap_or_default());
            }
            continue;
        }
        if let Err(error) = allowed(&present, &changes, args.overwrite, kind) {
            errors.push(error);
            continue;
        }
        for key in changes
            .iter()
            .filter(|(key, value)| value.is_null() && !present.contains_key(*key))
            .map(|(k, _)| k)
        {
            eprintln!("{} {key:?} not found.", kind.field.trim_end_matches('s'));
        }
        let mut patch = json!({"metadata": {kind.field: changes}});
        if let Some(version) = &args.resource_version {
            patch["metadata"]["resourceVersion"] = version.clone().into();
        }
        let changed = changes.iter().any(|(key, value)| present.get(key).unwrap_or(&Value::Null) != value);
        let done = match () {
            () if !changed => format!("not {}", kind.done),
            () if changes.values().all(Value::is_null) => kind.undone.to_owned(),
            () => kind.done.to_owned(),
        };
        let object = if dry_run == DryRun::Client || !changed {
            one.object.clone()
        } else {
            let call = Call::patch(one.path(), MERGE_PATCH, &patch)
                .query("dryRun", dry_run.parameter())
                .query("fieldManager", kind.manager);
            match context.rest.json(call).await {
                Ok(object) => object,
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            }
        };
        printer.change(&one.mapping, &object, &done, dry_run);
    }
    failure::all(errors)
}

/// What names objects, and what changes them.
fn split(words: &[String]) -> (Vec<String>, Vec<String>) {
    words.iter().cloned().partition(|word| !word.contains('=') && !word.ends_with('-'))
}

/// Null removes a key.
fn parse(changes: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut map = Map::new();
    for change in changes {
        let (key, value) = match change.split_once('=') {
            Some((key, value)) => (key, value.into()),
            None => (change.strip_suffix('-').context("a change is KEY=VALUE or KEY-")?, Value::Null),
        };
        if map.insert(key.to_owned(), value).is_some() {
            bail!("can not both modify and remove {key:?} in the same command");
        }
    }
    Ok(map)
}

fn allowed(
    present: &Map<String, Value>,
    changes: &Map<String, Value>,
    overwrite: bool,
    kind: Kind,
) -> anyhow::Result<()> {
    for (key, value) in changes.iter().filter(|(_, value)| !value.is_null() && !overwrite) {
        match present.get(key) {
            Some(old) if old != value && kind.field == "labels" => bail!(
                "'{key}' already has a value ({}), and --overwrite is false",
                old.as_str().unwrap_or_default()
            ),
            Some(old) if old != value => bail!(
                "--overwrite is false but found the following declared annotation(s): '{key}' already has a value ({})",
                old.as_str().unwrap_or_default()
            ),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_split_into_names_and_changes() {
        let words: Vec<String> = ["pods", "x", "a=1", "b-"].map(str::to_owned).into();
        let (names, changes) = split(&words);
        assert_eq!(names, ["pods", "x"]);
        assert_eq!(Value::from(parse(&changes).expect("changes")), json!({"a": "1", "b": null}));
        assert!(parse(&["a=1".into(), "a-".into()]).is_err());
    }

    #[test]
    fn present_values_are_kept_without_overwrite() {
        let present = json!({"a": "1"}).as_object().cloned().expect("map");
        let change = json!({"a": "2"}).as_object().cloned().expect("map");
        assert!(allowed(&present, &change, false, LABELS).is_err());
        assert!(allowed(&present, &change, true, LABELS).is_ok());
        assert!(allowed(&present, &present, false, LABELS).is_ok());
    }
}
