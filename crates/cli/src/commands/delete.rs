//! `ctl delete`.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::{Map, Value, json};

use crate::client::Call;
use crate::context::Context;
use crate::failure;
use crate::files::FileArgs;
use crate::output::{DryRun, DryRunArgs};
use crate::resources::{Found, SelectorArgs, Wanted, from_files, parse};

#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// TYPE NAME… or TYPE/NAME…
    words: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    selectors: SelectorArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
    /// All objects of the types given
    #[arg(long)]
    all: bool,
    /// What happens to dependents: background, foreground or orphan
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "background", default_value = "background")]
    cascade: String,
    /// Seconds to end in; -1 leaves it to the object
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// End at once (a grace period of 1)
    #[arg(long)]
    now: bool,
    /// Remove without waiting for confirmation; for pods together with --grace-period=0
    #[arg(long)]
    force: bool,
    /// Wait until the objects are gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    wait: bool,
    /// How long to wait, such as 30s; 0 waits as long as it takes
    #[arg(long, default_value = "0s")]
    timeout: String,
    /// Objects that are not there are no failure
    #[arg(long)]
    ignore_not_found: bool,
    /// name prints only TYPE/NAME
    #[arg(short = 'o', long)]
    output: Option<String>,
}

pub async fn run(context: &Context, args: DeleteArgs) -> anyhow::Result<()> {
    let dry_run = args.dry_run.get()?;
    let options = options(&args)?;
    if args.force {
        eprintln!(
            "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may continue to run on the cluster indefinitely."
        );
    }
    let (wanted, mut errors) = find(context, &args).await?;
    if wanted.is_empty() && errors.is_empty() {
        crate::outln!("No resources found");
        return Ok(());
    }
    let mut gone = Vec::new();
    for found in wanted {
        if dry_run != DryRun::Client {
            let call = Call::delete(found.path(), &options).query("dryRun", dry_run.parameter());
            match context.rest.json(call).await {
                Ok(_) => {}
                Err(error) if failure::is(&error, "NotFound") && ignores_absent(&args) => continue,
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            }
        }
        report(&args, &found, dry_run);
        gone.push(found);
    }
    if args.wait && dry_run == DryRun::None {
        let timeout = super::wait::timeout(&args.timeout)?.unwrap_or(Duration::from_secs(7 * 24 * 3600));
        for found in &gone {
            if let Err(error) = super::wait::gone(context, found, timeout).await {
                errors.push(error);
            }
        }
    }
    failure::all(errors)
}

/// Deleting everything that fits means nothing is missing when someone else was faster.
fn ignores_absent(args: &DeleteArgs) -> bool {
    args.ignore_not_found || args.all || args.selectors.selector.is_some()
}

fn options(args: &DeleteArgs) -> anyhow::Result<Value> {
    let policy = match args.cascade.as_str() {
        "background" | "true" => "Background",
        "foreground" => "Foreground",
        "orphan" | "false" => "Orphan",
        other => {
            bail!("invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\"")
        }
    };
    if args.now && args.grace_period != -1 {
        bail!("--now and --grace-period cannot be specified together");
    }
    let grace = match () {
        () if args.now => 1,
        () if args.grace_period == 0 && !args.force => 1,
        () if args.grace_period < 0 && args.force => 0,
        () => args.grace_period,
    };
    let mut options = Map::new();
    options.insert("kind".to_owned(), json!("DeleteOptions"));
    options.insert("apiVersion".to_owned(), json!("v1"));
    options.insert("propagationPolicy".to_owned(), json!(policy));
    if grace >= 0 {
        options.insert("gracePeriodSeconds".to_owned(), json!(grace));
    }
    Ok(options.into())
}

async fn find(context: &Context, args: &DeleteArgs) -> anyhow::Result<(Vec<Found>, Vec<anyhow::Error>)> {
    if !args.files.is_empty() {
        return Ok((from_files(context, &args.files).await?, Vec::new()));
    }
    let mapper = context.mapper().await?;
    let selections = parse(&mapper, &args.words)?;
    if args.all && selections.iter().any(|s| !s.names.is_empty()) {
        bail!("name cannot be provided when --all is specified");
    }
    let named = selections.iter().all(|s| !s.names.is_empty()) && !selections.is_empty();
    if named && args.selectors.labels().is_empty() && !args.selectors.all_namespaces {
        let found = selections.iter().flat_map(|selection| {
            let namespace = crate::resources::namespace_for(context, &selection.mapping, false);
            selection.names.iter().map(move |name| Found {
                mapping: selection.mapping.clone(),
                namespace: namespace.clone(),
                name: name.clone(),
                object: Value::Null,
                source: None,
            })
        });
        return Ok((found.collect(), Vec::new()));
    }
    let wanted = Wanted { words: &args.words, files: &args.files, selectors: &args.selectors, all: args.all };
    wanted.find(context).await
}

fn report(args: &DeleteArgs, found: &Found, dry_run: DryRun) {
    if args.output.as_deref() == Some("name") {
        crate::outln!("{}", found.label());
        return;
    }
    let operation = if args.grace_period == 0 || args.force { "force deleted" } else { "deleted" };
    let place = match &found.namespace {
        Some(namespace) => format!(" from {namespace} namespace"),
        None => String::new(),
    };
    crate::outln!("{} \"{}\" {operation}{place}{}", found.mapping.kind_name(), found.name, dry_run.suffix());
}
