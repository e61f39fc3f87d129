//! `ctl patch` and `ctl replace`.

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::client::{Call, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH};
use crate::context::Context;
use crate::failure::{self, on_source};
use crate::files::FileArgs;
use crate::output::{DryRun, DryRunArgs, OutputArgs};
use crate::resources::{SelectorArgs, Wanted, from_files};

#[derive(Debug, Args)]
pub struct PatchArgs {
    /// TYPE NAME or TYPE/NAME
    words: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
    /// The patch, in JSON or YAML
    #[arg(short = 'p', long)]
    patch: Option<String>,
    /// File with the patch
    #[arg(long)]
    patch_file: Option<std::path::PathBuf>,
    /// strategic, merge or json
    #[arg(long = "type", default_value = "strategic")]
    kind: String,
    /// Patch this subresource, such as status or scale
    #[arg(long)]
    subresource: Option<String>,
    /// Name under which fields are owned
    #[arg(long, default_value = "kubectl-patch")]
    field_manager: String,
}

pub async fn run(context: &Context, args: PatchArgs) -> anyhow::Result<()> {
    let content_type = match args.kind.as_str() {
        "strategic" => STRATEGIC_PATCH,
        "merge" => MERGE_PATCH,
        "json" => JSON_PATCH,
        other => bail!("--type must be one of [json merge strategic], not {other:?}"),
    };
    let text = match (&args.patch, &args.patch_file) {
        (Some(patch), None) => patch.clone(),
        (None, Some(file)) => std::fs::read_to_string(file)
            .with_context(|| format!("unable to read patch file {}", file.display()))?,
        _ => bail!("must specify --patch or --patch-file containing the contents of the patch"),
    };
    let (patch, _) = keelson_machinery::decode::yaml(text.as_bytes()).context("unable to parse the patch")?;
    let dry_run = args.dry_run.get()?;
    let printer = args.output.printer()?;
    let selectors = SelectorArgs::default();
    let wanted = Wanted { words: &args.words, files: &args.files, selectors: &selectors, all: false };
    let (found, mut errors) = wanted.find(context).await?;
    for one in found {
        if dry_run == DryRun::Client {
            printer.change(&one.mapping, &one.object, "patched", dry_run);
            continue;
        }
        let path = match &args.subresource {
            Some(subresource) => format!("{}/{subresource}", one.path()),
            None => one.path(),
        };
        let call = Call::patch(path, content_type, &patch)
            .query("fieldManager", args.field_manager.as_str())
            .query("dryRun", dry_run.parameter());
        match context.rest.json(call).await {
            Ok(object) => {
                let changed = version(&object) != version(&one.object);
                let done = if changed || dry_run != DryRun::None { "patched" } else { "patched (no change)" };
                printer.change(&one.mapping, &object, done, dry_run);
            }
            Err(error) => errors.push(error),
        }
    }
    failure::all(errors)
}

fn version(object: &Value) -> &str {
    crate::value::text(object, "/metadata/resourceVersion")
}

#[derive(Debug, Args)]
pub struct ReplaceArgs {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
    /// Delete and create again
    #[arg(long)]
    force: bool,
    /// Seconds to end in; for --force
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// Replace this subresource, such as status or scale
    #[arg(long)]
    subresource: Option<String>,
    /// Remember the object as applied, so that `apply` may continue
    #[arg(long)]
    save_config: bool,
    /// strict, warn or ignore: what happens with unknown and duplicate fields
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "strict", default_value = "strict")]
    validate: String,
}

pub async fn replace(context: &Context, args: ReplaceArgs) -> anyhow::Result<()> {
    if args.files.is_empty() {
        bail!("must specify -f with a file, a folder or - for standard input");
    }
    let validation = super::apply::field_validation(&args.validate)?;
    let dry_run = args.dry_run.get()?;
    let printer = args.output.printer()?;
    let mut errors = Vec::new();
    for wanted in from_files(context, &args.files).await? {
        let source = wanted.source.clone().unwrap_or_default();
        let object =
            if args.save_config { super::apply::annotated(&wanted.object) } else { wanted.object.clone() };
        let replaced = async {
            if dry_run == DryRun::Client {
                return Ok(object);
            }
            let path = match &args.subresource {
                Some(subresource) => format!("{}/{subresource}", wanted.path()),
                None => wanted.path(),
            };
            let mut call = Call::put(path, &object);
            if args.force {
                delete(context, &wanted, args.grace_period).await?;
                call = Call::post(wanted.mapping.collection(wanted.namespace.as_deref()), &object);
            }
            let call = call.query("fieldManager", "kubectl-replace").query("fieldValidation", validation);
            context.rest.json(call.query("dryRun", dry_run.parameter())).await
        };
        match replaced.await {
            Ok(object) => printer.change(&wanted.mapping, &object, "replaced", dry_run),
            Err(error) => errors.push(on_source(error, "replacing", &source)),
        }
    }
    failure::all(errors)
}

async fn delete(context: &Context, wanted: &crate::resources::Found, grace: i64) -> anyhow::Result<()> {
    let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
    if grace >= 0 {
        options["gracePeriodSeconds"] = grace.into();
    }
    match context.rest.json(Call::delete(wanted.path(), &options)).await {
        Ok(_) => super::wait::gone(context, wanted, std::time::Duration::from_secs(300)).await,
        Err(error) if failure::is(&error, "NotFound") => Ok(()),
        Err(error) => Err(error),
    }
}
