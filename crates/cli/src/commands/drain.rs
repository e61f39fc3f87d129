//! `ctl cordon`, `uncordon` and `drain`: a node without new pods, or without any.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::client::{Call, MERGE_PATCH};
use crate::context::Context;
use crate::failure;
use crate::files::FileArgs;
use crate::output::{DryRun, DryRunArgs, OutputArgs};
use crate::resources::{Found, SelectorArgs, Wanted};
use crate::value::{flag, list, text};

#[derive(Debug, Args)]
pub struct CordonArgs {
    /// NODE…
    nodes: Vec<String>,
    #[arg(short = 'l', long)]
    selector: Option<String>,
    #[command(flatten)]
    dry_run: DryRunArgs,
}

#[derive(Debug, Args)]
pub struct DrainArgs {
    #[command(flatten)]
    cordon: CordonArgs,
    /// Leave pods of daemon sets where they are
    #[arg(long)]
    ignore_daemonsets: bool,
    /// Also end pods that lose data in emptyDir volumes
    #[arg(long)]
    delete_emptydir_data: bool,
    /// Also end pods that nobody will start again
    #[arg(long)]
    force: bool,
    /// Delete instead of evicting, past disruption budgets
    #[arg(long)]
    disable_eviction: bool,
    /// Seconds that pods have to end; -1 leaves it to them
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// How long to wait; 0 waits without end
    #[arg(long, default_value = "0s")]
    timeout: String,
    /// Only pods with these labels
    #[arg(long)]
    pod_selector: Option<String>,
}

async fn nodes(context: &Context, args: &CordonArgs) -> anyhow::Result<Vec<Found>> {
    if args.nodes.is_empty() && args.selector.is_none() {
        bail!("USAGE: ctl cordon NODE, or -l SELECTOR");
    }
    let names = args.nodes.iter().map(|name| name.strip_prefix("node/").unwrap_or(name).to_owned());
    let words: Vec<String> = std::iter::once("nodes".to_owned()).chain(names).collect();
    let selectors = SelectorArgs { selector: args.selector.clone(), ..SelectorArgs::default() };
    let files = FileArgs::default();
    Wanted { words: &words, files: &files, selectors: &selectors, all: false }.find_all(context).await
}

pub async fn cordon(context: &Context, args: CordonArgs, closed: bool) -> anyhow::Result<()> {
    let dry_run = args.dry_run.get()?;
    for node in nodes(context, &args).await? {
        set_schedulable(context, &node, closed, dry_run).await?;
    }
    Ok(())
}

async fn set_schedulable(
    context: &Context,
    node: &Found,
    closed: bool,
    dry_run: DryRun,
) -> anyhow::Result<()> {
    let done = if closed { "cordoned" } else { "uncordoned" };
    let printer = OutputArgs::default().printer()?;
    if flag(&node.object, "/spec/unschedulable") == closed {
        printer.change(&node.mapping, &node.object, &format!("already {done}"), dry_run);
        return Ok(());
    }
    if dry_run != DryRun::Client {
        let patch = json!({"spec": {"unschedulable": if closed { json!(true) } else { Value::Null }}});
        context
            .rest
            .json(Call::patch(node.path(), MERGE_PATCH, &patch).query("dryRun", dry_run.parameter()))
            .await?;
    }
    printer.change(&node.mapping, &node.object, done, dry_run);
    Ok(())
}

pub async fn drain(context: &Context, args: DrainArgs) -> anyhow::Result<()> {
    let dry_run = args.cordon.dry_run.get()?;
    let deadline = super::wait::timeout(&args.timeout)?.map(|limit| Instant::now() + limit);
    for node in nodes(context, &args.cordon).await? {
        set_schedulable(context, &node, true, dry_run).await?;
        let on_node = format!("spec.nodeName={}", node.name);
        let mapping = context.mapping("pods").await?;
        let labels = args.pod_selector.as_deref().unwrap_or_default();
        let pods = context.list(&mapping, None, labels, &on_node).await?;
        let chosen = choose(&args, pods).map_err(|problems| {
            anyhow::anyhow!(
                "unable to drain node {:?} due to error: {problems}, continuing command...\nThere are pending nodes to be drained:\n {}",
                node.name,
                node.name
            )
        })?;
        let evicted = chosen.into_iter().map(|pod| {
            let pod = Found::new(mapping.clone(), pod);
            evict(context, &args, pod, dry_run, deadline)
        });
        futures::future::try_join_all(evicted).await?;
        OutputArgs::default().printer()?.change(&node.mapping, &node.object, "drained", dry_run);
    }
    Ok(())
}

/// The pods to end, or why not.
fn choose(args: &DrainArgs, pods: Vec<Value>) -> Result<Vec<Value>, String> {
    let (mut chosen, mut ignored) = (Vec::new(), Vec::new());
    let (mut daemons, mut local, mut orphans) = (Vec::new(), Vec::new(), Vec::new());
    for pod in pods {
        let name = format!("{}/{}", text(&pod, "/metadata/namespace"), text(&pod, "/metadata/name"));
        let owner = list(&pod, "/metadata/ownerReferences").iter().find(|o| flag(o, "/controller"));
        let ended = matches!(text(&pod, "/status/phase"), "Succeeded" | "Failed");
        if keelson_api_types::meta::annotation(&pod, "kubernetes.io/config.mirror").is_some() {
            continue;
        }
        if owner.is_some_and(|o| text(o, "/kind") == "DaemonSet") && !ended {
            if args.ignore_daemonsets {
                ignored.push(name)
            } else {
                daemons.push(name)
            }
            continue;
        }
        let volumes = list(&pod, "/spec/volumes");
        if volumes.iter().any(|v| v.get("emptyDir").is_some()) && !ended && !args.delete_emptydir_data {
            local.push(name);
            continue;
        }
        if owner.is_none() && !ended && !args.force {
            orphans.push(name);
            continue;
        }
        chosen.push(pod);
    }
    let mut problems = Vec::new();
    let mut problem = |pods: Vec<String>, text: &str| {
        if !pods.is_empty() {
            problems.push(format!("{text}: {}", pods.join(", ")));
        }
    };
    problem(local, "cannot delete Pods with local storage (use --delete-emptydir-data to override)");
    problem(daemons, "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)");
    problem(orphans, "cannot delete Pods that declare no controller (use --force to override)");
    if !problems.is_empty() {
        return Err(format!("[{}]", problems.join(", ")));
    }
    if !ignored.is_empty() {
        eprintln!("Warning: ignoring DaemonSet-managed Pods: {}", ignored.join(", "));
    }
    Ok(chosen)
}

async fn evict(
    context: &Context,
    args: &DrainArgs,
    pod: Found,
    dry_run: DryRun,
    deadline: Option<Instant>,
) -> anyhow::Result<()> {
    let (namespace, name) = (pod.namespace.clone().unwrap_or_default(), &pod.name);
    eprintln!("evicting pod {namespace}/{name}");
    if dry_run == DryRun::Client {
        return Ok(());
    }
    let mut options = json!({});
    if args.grace_period >= 0 {
        options["gracePeriodSeconds"] = args.grace_period.into();
    }
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace}, "deleteOptions": options});
    loop {
        let call = match args.disable_eviction {
            true => Call::delete(pod.path(), &options),
            false => Call::post(format!("{}/eviction", pod.path()), &eviction),
        };
        match context.rest.json(call.query("dryRun", dry_run.parameter())).await {
            Ok(_) => break,
            Err(error) if failure::is(&error, "NotFound") => return Ok(()),
            // A disruption budget says: later.
            Err(error) if failure::is(&error, "TooManyRequests") => {
                if deadline.is_some_and(|d| Instant::now() > d) {
                    bail!("error when evicting pods/{name:?} -n {namespace:?}: global timeout reached");
                }
                let text = failure::explain(&error);
                eprintln!("error when evicting pods/{name:?} -n {namespace:?} (will retry after 5s): {text}");
                sleep(Duration::from_secs(5)).await;
            }
            Err(error) => return Err(error),
        }
    }
    if dry_run != DryRun::None {
        return Ok(());
    }
    let left =
        deadline.map_or(Duration::from_secs(7 * 24 * 3600), |d| d.saturating_duration_since(Instant::now()));
    super::wait::gone(context, &pod, left).await?;
    crate::outln!("pod/{name} evicted");
    Ok(())
}
