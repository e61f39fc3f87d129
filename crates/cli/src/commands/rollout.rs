//! `ctl rollout`: what becomes of a change to a workload.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::client::{Call, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH};
use crate::context::Context;
use crate::failure;
use crate::files::FileArgs;
use crate::output::{DryRun, DryRunArgs, OutputArgs};
use crate::resources::{Found, SelectorArgs, Wanted};
use crate::value::{flag, list, number, remove, text};

mod status;

const REVISION: &str = "deployment.kubernetes.io/revision";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// Show how a rollout proceeds until it is done
    Status(StatusArgs),
    /// List the revisions
    History(HistoryArgs),
    /// Go back to an earlier revision
    Undo(UndoArgs),
    /// Stop rolling out changes
    Pause(TargetArgs),
    /// Go on rolling out changes
    Resume(TargetArgs),
    /// Replace all pods
    Restart(TargetArgs),
}

#[derive(Debug, Args)]
pub struct TargetArgs {
    /// TYPE NAME or TYPE/NAME
    words: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    selectors: SelectorArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl TargetArgs {
    async fn find(&self, context: &Context) -> anyhow::Result<Vec<Found>> {
        if self.words.is_empty() && self.files.is_empty() {
            bail!("required resource not specified");
        }
        let wanted =
            Wanted { words: &self.words, files: &self.files, selectors: &self.selectors, all: false };
        wanted.find_all(context).await
    }
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Follow until the rollout is done
    #[arg(short = 'w', long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    watch: bool,
    /// How long to wait; 0 waits without end
    #[arg(long, default_value = "0s")]
    timeout: String,
    /// Fail when another revision becomes the current one
    #[arg(long, default_value_t = 0)]
    revision: i64,
}

#[derive(Debug, Args)]
pub struct HistoryArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Show this revision's pod template
    #[arg(long, default_value_t = 0)]
    revision: i64,
}

#[derive(Debug, Args)]
pub struct UndoArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
    /// The revision to go back to; 0 means the one before
    #[arg(long, default_value_t = 0)]
    to_revision: i64,
}

pub async fn run(context: &Context, command: RolloutCommand) -> anyhow::Result<()> {
    match command {
        RolloutCommand::Status(args) => follow(context, args).await,
        RolloutCommand::History(args) => history(context, args).await,
        RolloutCommand::Undo(args) => undo(context, args).await,
        RolloutCommand::Pause(args) => pause(context, args, true).await,
        RolloutCommand::Resume(args) => pause(context, args, false).await,
        RolloutCommand::Restart(args) => restart(context, args).await,
    }
}

async fn follow(context: &Context, args: StatusArgs) -> anyhow::Result<()> {
    let deadline = super::wait::timeout(&args.timeout)?.map(|limit| tokio::time::Instant::now() + limit);
    for found in args.target.find(context).await? {
        let followed = follow_one(context, &found, &args);
        match deadline {
            None => followed.await?,
            Some(deadline) => match tokio::time::timeout_at(deadline, followed).await {
                Ok(done) => done?,
                Err(_) => bail!("timed out waiting for the condition"),
            },
        }
    }
    Ok(())
}

async fn follow_one(context: &Context, found: &Found, args: &StatusArgs) -> anyhow::Result<()> {
    let mut said = String::new();
    let mut say = |object: &Value| -> anyhow::Result<bool> {
        let (text, done) = status::of(&found.mapping.kind, object, args.revision)?;
        if text != said {
            crate::io::print(&text);
            said = text;
        }
        Ok(done)
    };
    loop {
        let call = Call::get(found.mapping.collection(found.namespace.as_deref()))
            .query("fieldSelector", format!("metadata.name={}", found.name));
        let listed = context.rest.json(call.clone()).await?;
        let Some(object) = list(&listed, "/items").first() else {
            bail!("object has been deleted");
        };
        if say(object)? || !args.watch {
            return Ok(());
        }
        let watch =
            call.query("watch", "true").query("resourceVersion", text(&listed, "/metadata/resourceVersion"));
        let mut events = context.rest.watch(watch).await?;
        while let Some(Ok(event)) = events.next().await {
            match text(&event, "/type") {
                "DELETED" => bail!("object has been deleted"),
                "ADDED" | "MODIFIED" => {
                    if say(&event["object"])? {
                        return Ok(());
                    }
                }
                _ => break,
            }
        }
    }
}

/// A workload's past: revision, cause of the change, pod template.
struct Revision {
    number: i64,
    cause: String,
    template: Value,
}

/// The revisions of a workload, oldest first.
async fn revisions(context: &Context, found: &Found) -> anyhow::Result<Vec<Revision>> {
    let uid = text(&found.object, "/metadata/uid");
    let owned =
        |object: &&Value| list(object, "/metadata/ownerReferences").iter().any(|o| text(o, "/uid") == uid);
    let selector = super::selector_text(&found.object);
    let mut all: BTreeMap<i64, Revision> = BTreeMap::new();
    let cause = |object: &Value| {
        keelson_api_types::meta::annotation(object, CHANGE_CAUSE).unwrap_or("<none>").to_owned()
    };
    match found.mapping.kind.as_str() {
        "Deployment" => {
            let sets = context.mapping("replicasets.apps").await?;
            let items = context.list(&sets, found.namespace.as_deref(), &selector, "").await?;
            for set in items.iter().filter(owned) {
                let Some(number) =
                    keelson_api_types::meta::annotation(set, REVISION).and_then(|r| r.parse().ok())
                else {
                    continue;
                };
                let template = set.pointer("/spec/template").cloned().unwrap_or_default();
                all.insert(number, Revision { number, cause: cause(set), template });
            }
        }
        "DaemonSet" | "StatefulSet" => {
            let kept = context.mapping("controllerrevisions.apps").await?;
            let items = context.list(&kept, found.namespace.as_deref(), &selector, "").await?;
            for revision in items.iter().filter(owned) {
                let number = number(revision, "/revision");
                let mut template = revision.pointer("/data/spec/template").cloned().unwrap_or_default();
                remove(&mut template, &["$patch"]);
                all.insert(number, Revision { number, cause: cause(revision), template });
            }
        }
        kind => bail!("no history viewer has been implemented for {kind:?}"),
    }
    Ok(all.into_values().collect())
}

async fn history(context: &Context, args: HistoryArgs) -> anyhow::Result<()> {
    for found in args.target.find(context).await? {
        let revisions = revisions(context, &found).await?;
        if args.revision > 0 {
            let Some(revision) = revisions.iter().find(|r| r.number == args.revision) else {
                bail!("unable to find the specified revision");
            };
            crate::outln!("{} with revision #{}", found.label(), args.revision);
            crate::io::print(&crate::describe::pod_template_text(&revision.template));
            continue;
        }
        crate::outln!("{} ", found.label());
        let mut lines = "REVISION\tCHANGE-CAUSE\n".to_owned();
        for revision in &revisions {
            lines += &format!("{}\t{}\n", revision.number, revision.cause);
        }
        let tabs = crate::tabs::Tabs { min_width: 0, padding: 2 };
        crate::outln!("{}", tabs.align(&lines));
    }
    Ok(())
}

async fn undo(context: &Context, args: UndoArgs) -> anyhow::Result<()> {
    let dry_run = args.dry_run.get()?;
    let printer = args.target.output.printer()?;
    for found in args.target.find(context).await? {
        if flag(&found.object, "/spec/paused") {
            bail!(
                "you cannot rollback a paused deployment; resume it first with 'ctl rollout resume {}' and try again",
                found.label()
            );
        }
        let mut revisions = revisions(context, &found).await?;
        let wanted = if args.to_revision > 0 {
            revisions.iter().position(|r| r.number == args.to_revision).with_context(|| {
                format!("unable to find specified revision {} in history", args.to_revision)
            })?
        } else if revisions.len() >= 2 {
            revisions.len() - 2
        } else {
            bail!("no rollout history found for {} {:?}", found.mapping.kind.to_lowercase(), found.name);
        };
        let mut revision = revisions.swap_remove(wanted);
        remove(&mut revision.template, &["metadata", "labels", "pod-template-hash"]);
        let present = found.object.pointer("/spec/template").cloned().unwrap_or_default();
        if present == revision.template {
            printer.change(
                &found.mapping,
                &found.object,
                &format!("skipped rollback (current template already matches revision {})", revision.number),
                dry_run,
            );
            continue;
        }
        let object = if dry_run == DryRun::Client {
            found.object.clone()
        } else {
            // Replaced whole: a merge would keep what the later revision added.
            let patch = json!([{"op": "replace", "path": "/spec/template", "value": revision.template}]);
            let call = Call::patch(found.path(), JSON_PATCH, &patch).query("dryRun", dry_run.parameter());
            context.rest.json(call.query("fieldManager", "kubectl-rollout")).await?
        };
        printer.change(&found.mapping, &object, "rolled back", dry_run);
    }
    Ok(())
}

async fn pause(context: &Context, args: TargetArgs, paused: bool) -> anyhow::Result<()> {
    let printer = args.output.printer()?;
    let mut errors = Vec::new();
    for found in args.find(context).await? {
        if found.mapping.kind != "Deployment" {
            let what = if paused { "pausing" } else { "resuming" };
            errors.push(anyhow::anyhow!(
                "{}s {:?} {what} is not supported",
                found.mapping.kind_name(),
                found.name
            ));
            continue;
        }
        if flag(&found.object, "/spec/paused") == paused {
            let what = if paused { "already paused" } else { "not paused" };
            errors.push(anyhow::anyhow!("{}s {:?} is {what}", "deployment", found.name));
            continue;
        }
        let patch = json!({"spec": {"paused": if paused { json!(true) } else { Value::Null }}});
        let call = Call::patch(found.path(), MERGE_PATCH, &patch).query("fieldManager", "kubectl-rollout");
        let object = context.rest.json(call).await?;
        printer.change(&found.mapping, &object, if paused { "paused" } else { "resumed" }, DryRun::None);
    }
    failure::all(errors)
}

async fn restart(context: &Context, args: TargetArgs) -> anyhow::Result<()> {
    let printer = args.output.printer()?;
    for found in args.find(context).await? {
        if !matches!(found.mapping.kind.as_str(), "Deployment" | "DaemonSet" | "StatefulSet") {
            bail!("{} {:?} restarting is not supported", found.mapping.kind_name(), found.name);
        }
        if flag(&found.object, "/spec/paused") {
            bail!("can't restart paused deployment (run rollout resume first)");
        }
        let now = keelson_api_types::meta::now_rfc3339();
        let patch = json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}}}});
        let call =
            Call::patch(found.path(), STRATEGIC_PATCH, &patch).query("fieldManager", "kubectl-rollout");
        let object = context.rest.json(call).await?;
        printer.change(&found.mapping, &object, "restarted", DryRun::None);
    }
    Ok(())
}
