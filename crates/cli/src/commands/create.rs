//! `ctl create`: objects from files, or from a few words.

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::client::Call;
use crate::context::Context;
use crate::failure::{self, on_source};
use crate::files::FileArgs;
use crate::mapper::Mapping;
use crate::output::{DryRun, DryRunArgs, OutputArgs, Printer};
use crate::resources::{from_files, settle_namespace};
use crate::value::set;

mod generators;
mod secrets;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct CreateArgs {
    #[command(subcommand)]
    generator: Option<generators::Generator>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    common: CommonArgs,
    /// strict, warn or ignore: what happens with unknown and duplicate fields
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "strict", default_value = "strict")]
    validate: String,
    /// Only objects with these labels
    #[arg(short = 'l', long)]
    selector: Option<String>,
}

/// Flags of everything that makes objects.
#[derive(Debug, Clone, Default, Args)]
pub struct CommonArgs {
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    /// Remember the object as applied, so that `apply` may continue
    #[arg(long)]
    pub save_config: bool,
    /// Name under which fields are owned
    #[arg(long, default_value = "kubectl-create")]
    pub field_manager: String,
}

pub async fn run(context: &Context, args: CreateArgs) -> anyhow::Result<()> {
    if let Some(generator) = args.generator {
        return generators::run(context, generator).await;
    }
    if args.files.is_empty() {
        bail!("must specify -f with a file, a folder or - for standard input, or what to create");
    }
    let printer = args.common.output.printer()?;
    let dry_run = args.common.dry_run.get()?;
    let validation = super::apply::field_validation(&args.validate)?;
    let selector =
        keelson_api_types::selector::LabelSelector::parse(args.selector.as_deref().unwrap_or_default())
            .context("--selector")?;
    let none = Map::new();
    let mut errors = Vec::new();
    for wanted in from_files(context, &args.files).await? {
        if !selector.matches(crate::value::map(&wanted.object, "/metadata/labels").unwrap_or(&none)) {
            continue;
        }
        let object =
            if args.common.save_config { super::apply::annotated(&wanted.object) } else { wanted.object };
        let created = if dry_run == DryRun::Client {
            Ok(object)
        } else {
            let call = Call::post(wanted.mapping.collection(wanted.namespace.as_deref()), &object)
                .query("fieldManager", args.common.field_manager.as_str())
                .query("fieldValidation", validation)
                .query("dryRun", dry_run.parameter());
            context.rest.json(call).await
        };
        match created {
            Ok(object) => printer.change(&wanted.mapping, &object, "created", dry_run),
            Err(error) => {
                errors.push(on_source(error, "creating", wanted.source.as_deref().unwrap_or("STDIN")));
            }
        }
    }
    failure::all(errors)
}

/// Sends a generated object and says what became of it.
pub async fn submit(
    context: &Context,
    mapping: &Mapping,
    mut object: Value,
    done: &str,
    printer: &Printer,
    dry_run: DryRun,
    manager: &str,
) -> anyhow::Result<Value> {
    let created = if dry_run == DryRun::Client {
        if context.enforced {
            settle_namespace(context, mapping, &mut object)?;
        }
        object
    } else {
        settle_namespace(context, mapping, &mut object)?;
        let namespace = crate::value::text(&object, "/metadata/namespace");
        let call = Call::post(mapping.collection(Some(namespace)), &object)
            .query("fieldManager", manager)
            .query("dryRun", dry_run.parameter());
        context.rest.json(call).await.map_err(|error| prefix(error, mapping))?
    };
    printer.change(mapping, &created, done, dry_run);
    Ok(created)
}

/// `failed to create configmap: …`, as the generators say it.
fn prefix(error: anyhow::Error, mapping: &Mapping) -> anyhow::Error {
    match error.downcast::<failure::Failure>() {
        Ok(failure::Failure::Status(status)) if failure_is_plain(&mapping.kind) => {
            let text = crate::value::text(&status, "/message").to_owned();
            anyhow::anyhow!("failed to create {}: {text}", mapping.kind.to_lowercase())
        }
        Ok(other) => other.into(),
        Err(error) => error,
    }
}

fn failure_is_plain(kind: &str) -> bool {
    matches!(kind, "ConfigMap" | "Secret" | "Deployment" | "Job" | "CronJob" | "Ingress")
}

/// `a=1`, `b=2` as a map.
pub fn pairs<'a>(items: impl IntoIterator<Item = &'a str>) -> anyhow::Result<Map<String, Value>> {
    let mut map = Map::new();
    for item in items.into_iter().filter(|i| !i.is_empty()) {
        let (key, value) = item
            .split_once('=')
            .with_context(|| format!("unexpected pair {item:?}: KEY=VALUE is expected"))?;
        map.insert(key.to_owned(), value.into());
    }
    Ok(map)
}

/// The head of an object.
pub fn object(mapping: &Mapping, name: &str) -> Value {
    json!({"apiVersion": mapping.api_version(), "kind": mapping.kind, "metadata": {"name": name}})
}

/// An object of a built-in kind made from a few words.
pub async fn make(
    context: &Context,
    word: &str,
    name: &str,
    common: &CommonArgs,
    fill: impl FnOnce(&mut Value) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mapping = context.mapping(word).await?;
    let mut object = object(&mapping, name);
    fill(&mut object)?;
    if common.save_config {
        object = super::apply::annotated(&object);
    }
    let (printer, dry_run) = (common.output.printer()?, common.dry_run.get()?);
    if context.enforced && mapping.namespaced {
        set(&mut object, &["metadata", "namespace"], context.namespace.clone().into());
    }
    submit(context, &mapping, object, "created", &printer, dry_run, &common.field_manager).await?;
    Ok(())
}
