//! `ctl run`: one pod from an image.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;

use super::create::{CommonArgs, object, pairs, submit};
use super::exec::{StreamArgs, attach_to};
use crate::client::Call;
use crate::context::Context;
use crate::output::{DryRun, OutputArgs};
use crate::resources::Found;
use crate::value::{list, text};

#[derive(Debug, Args)]
pub struct RunArgs {
    /// The pod's name
    name: String,
    /// Arguments after --
    #[arg(last = true)]
    args: Vec<String>,
    #[arg(long)]
    image: String,
    /// The words after -- are the command, not its arguments
    #[arg(long)]
    command: bool,
    /// NAME=VALUE; repeat it for several
    #[arg(long)]
    env: Vec<String>,
    /// Port that the container listens on
    #[arg(long)]
    port: Option<u16>,
    /// Also make a Service for the port
    #[arg(long)]
    expose: bool,
    /// KEY=VALUE,…
    #[arg(short = 'l', long)]
    labels: Option<String>,
    /// KEY=VALUE; repeat it for several
    #[arg(long)]
    annotations: Vec<String>,
    /// Always, OnFailure or Never
    #[arg(long, default_value = "Always")]
    restart: String,
    /// Always, IfNotPresent or Never
    #[arg(long)]
    image_pull_policy: Option<String>,
    /// JSON to merge into the pod
    #[arg(long)]
    overrides: Option<String>,
    /// merge, strategic or json
    #[arg(long, default_value = "merge")]
    override_type: String,
    #[arg(long)]
    privileged: bool,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the process a terminal
    #[arg(short = 't', long)]
    tty: bool,
    /// Attach to the pod once it runs [default: with -i]
    #[arg(long)]
    attach: bool,
    /// Delete the pod when one leaves it
    #[arg(long)]
    rm: bool,
    /// Say nothing beside the output
    #[arg(short = 'q', long)]
    quiet: bool,
    /// How long to wait for the pod to run
    #[arg(long, default_value = "1m0s")]
    pod_running_timeout: String,
    #[command(flatten)]
    common: CommonArgs,
}

pub async fn run(context: &Context, args: RunArgs) -> anyhow::Result<()> {
    let attach = args.attach || args.stdin;
    if args.rm && !attach {
        bail!("--rm should only be used for attached containers");
    }
    if args.tty && !args.stdin {
        bail!("-i/--stdin is required for containers with -t/--tty=true");
    }
    if args.expose && args.port.is_none() {
        bail!("--port must be set when exposing a service");
    }
    let mapping = context.mapping("pods").await?;
    let mut pod = object(&mapping, &args.name);
    let labels = match &args.labels {
        Some(text) => pairs(text.split(','))?,
        None => pairs([format!("run={}", args.name).as_str()])?,
    };
    pod["metadata"]["labels"] = labels.clone().into();
    if !args.annotations.is_empty() {
        pod["metadata"]["annotations"] = pairs(args.annotations.iter().map(String::as_str))?.into();
    }
    pod["spec"] = json!({"containers": [container(&args)?], "restartPolicy": args.restart});
    if let Some(text) = &args.overrides {
        pod = overridden(&args, &pod, text)?;
    }
    let dry_run = args.common.dry_run.get()?;
    let mut printer = args.common.output.printer()?;
    if attach && dry_run == DryRun::None {
        // What is attached speaks for itself.
        printer =
            OutputArgs { output: Some("jsonpath={''}".to_owned()), ..OutputArgs::default() }.printer()?;
    }
    let created = submit(context, &mapping, pod, "created", &printer, dry_run, "kubectl-run").await?;
    if let Some(port) = args.port.filter(|_| args.expose) {
        let services = context.mapping("services").await?;
        let mut service = object(&services, &args.name);
        service["spec"] =
            json!({"selector": labels, "ports": [{"port": port, "protocol": "TCP", "targetPort": port}]});
        submit(context, &services, service, "created", &printer, dry_run, "kubectl-run").await?;
    }
    if !attach || dry_run != DryRun::None {
        return Ok(());
    }
    let attached = follow(context, &args, Found::new(mapping.clone(), created.clone())).await;
    if args.rm {
        let found = Found::new(mapping, created);
        context.rest.json(Call::delete(found.path(), &json!({}))).await?;
        if !args.quiet {
            let namespace = found.namespace.as_deref().unwrap_or("default");
            crate::outln!("pod \"{}\" deleted from {namespace} namespace", found.name);
        }
    }
    attached
}

fn container(args: &RunArgs) -> anyhow::Result<serde_json::Value> {
    let mut container = json!({"name": args.name, "image": args.image});
    if !args.args.is_empty() {
        container[if args.command { "command" } else { "args" }] = json!(args.args);
    }
    if !args.env.is_empty() {
        let env = pairs(args.env.iter().map(String::as_str))?;
        container["env"] =
            env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    }
    if let Some(port) = args.port {
        container["ports"] = json!([{"containerPort": port}]);
    }
    if let Some(policy) = &args.image_pull_policy {
        container["imagePullPolicy"] = policy.clone().into();
    }
    if args.privileged {
        container["securityContext"] = json!({"privileged": true});
    }
    if args.stdin {
        container["stdin"] = true.into();
        container["stdinOnce"] = (!args.attach || args.rm).into();
    }
    if args.tty {
        container["tty"] = true.into();
    }
    Ok(container)
}

fn overridden(args: &RunArgs, pod: &serde_json::Value, text: &str) -> anyhow::Result<serde_json::Value> {
    let patch: serde_json::Value = serde_json::from_str(text).context("--overrides is no JSON")?;
    Ok(match args.override_type.as_str() {
        "merge" => keelson_machinery::patch::merge_patch(pod, &patch),
        "json" => keelson_machinery::patch::json_patch(pod, &patch).context("--overrides")?,
        "strategic" => {
            let ty = keelson_schema::builtin().for_kind("", "v1", "Pod").context("the schema of pods")?;
            keelson_machinery::patch::strategic(ty, pod, &patch).context("--overrides")?
        }
        other => bail!("invalid --override-type {other:?}: json, merge or strategic is expected"),
    })
}

/// Attaches as soon as the container runs; of one that was faster than that, the log tells all.
async fn follow(context: &Context, args: &RunArgs, pod: Found) -> anyhow::Result<()> {
    let limit = super::wait::timeout(&args.pod_running_timeout)?.unwrap_or(Duration::from_secs(60));
    let started = |object: Option<&serde_json::Value>| {
        object.is_some_and(|pod| {
            matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
                || list(pod, "/status/containerStatuses")
                    .iter()
                    .any(|s| s.pointer("/state/running").is_some())
        })
    };
    let deadline = tokio::time::Instant::now() + limit;
    let running =
        super::wait::until(context, &pod, deadline, started).await?.context("the pod was deleted")?;
    if matches!(text(&running, "/status/phase"), "Succeeded" | "Failed") {
        crate::io::print(&context.rest.text(Call::get(format!("{}/log", pod.path())).accept("*/*")).await?);
        return exit_of(&running);
    }
    let streams = StreamArgs {
        container: Some(args.name.clone()),
        stdin: args.stdin,
        tty: args.tty,
        quiet: args.quiet,
    };
    attach_to(context, &Found { object: running, ..pod }, &streams).await
}

fn exit_of(pod: &serde_json::Value) -> anyhow::Result<()> {
    let statuses = list(pod, "/status/containerStatuses").iter();
    let code = statuses.map(|s| crate::value::number(s, "/state/terminated/exitCode")).find(|c| *c != 0);
    match code {
        Some(code) => Err(crate::failure::Failure::Command((code & 0xff) as u8).into()),
        None => Ok(()),
    }
}
