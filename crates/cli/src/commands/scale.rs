//! `ctl scale`.

use anyhow::bail;
use clap::Args;
use serde_json::json;

use crate::client::{Call, MERGE_PATCH};
use crate::context::Context;
use crate::failure;
use crate::files::FileArgs;
use crate::output::{DryRun, DryRunArgs, OutputArgs};
use crate::resources::{SelectorArgs, Wanted};
use crate::value::{number, text};

#[derive(Debug, Args)]
pub struct ScaleArgs {
    /// TYPE NAME… or TYPE/NAME…
    words: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    selectors: SelectorArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
    /// How many replicas there shall be
    #[arg(long, allow_negative_numbers = true)]
    replicas: i64,
    /// Only if there are this many now
    #[arg(long)]
    current_replicas: Option<i64>,
    /// Only if the object has this version
    #[arg(long)]
    resource_version: Option<String>,
    /// All objects of the types given
    #[arg(long)]
    all: bool,
    /// Wait until the replicas are there, for no longer than this
    #[arg(long, default_value = "0s")]
    timeout: String,
}

pub async fn run(context: &Context, args: ScaleArgs) -> anyhow::Result<()> {
    if args.replicas < 0 {
        bail!("the --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0");
    }
    let dry_run = args.dry_run.get()?;
    let printer = args.output.printer()?;
    let wanted = Wanted { words: &args.words, files: &args.files, selectors: &args.selectors, all: args.all };
    let (found, mut errors) = wanted.find(context).await?;
    if found.is_empty() && errors.is_empty() {
        bail!("no objects passed to scale");
    }
    for one in found {
        if !one.mapping.subresources.iter().any(|s| s == "scale") {
            errors.push(anyhow::anyhow!("cannot scale {}: the resource has no scale", one.label()));
            continue;
        }
        if let Err(error) = expect(&args, &one.object) {
            errors.push(error);
            continue;
        }
        if dry_run != DryRun::Client {
            let mut patch = json!({"spec": {"replicas": args.replicas}});
            if let Some(version) = &args.resource_version {
                patch["metadata"] = json!({"resourceVersion": version});
            }
            let call = Call::patch(format!("{}/scale", one.path()), MERGE_PATCH, &patch);
            let call = call.query("dryRun", dry_run.parameter()).query("fieldManager", "kubectl-scale");
            if let Err(error) = context.rest.json(call).await {
                errors.push(error);
                continue;
            }
        }
        printer.change(&one.mapping, &one.object, "scaled", dry_run);
        if let Some(limit) = super::wait::timeout(&args.timeout)?.filter(|_| dry_run == DryRun::None) {
            let deadline = tokio::time::Instant::now() + limit;
            let done = |object: Option<&serde_json::Value>| {
                object.is_some_and(|o| {
                    number(o, "/status/replicas") == args.replicas
                        && number(o, "/status/observedGeneration") >= number(o, "/metadata/generation")
                })
            };
            super::wait::until(context, &one, deadline, done).await?;
        }
    }
    failure::all(errors)
}

fn expect(args: &ScaleArgs, object: &serde_json::Value) -> anyhow::Result<()> {
    let present = number(object, "/spec/replicas");
    if let Some(expected) = args.current_replicas.filter(|e| *e >= 0 && *e != present) {
        bail!("Expected replicas to be {expected}, was {present}");
    }
    let version = text(object, "/metadata/resourceVersion");
    match &args.resource_version {
        Some(expected) if expected != version => {
            bail!("Expected resource version to be {expected}, was {version}")
        }
        _ => Ok(()),
    }
}
