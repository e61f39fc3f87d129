//! `ctl logs`.

use anyhow::{Context as _, bail};
use clap::Args;
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;

use super::pods;
use crate::client::Call;
use crate::context::Context;
use crate::value::{list, text};

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// POD or TYPE/NAME, and a container
    words: Vec<String>,
    /// Go on as the container writes
    #[arg(short = 'f', long)]
    follow: bool,
    /// The container
    #[arg(short = 'c', long)]
    container: Option<String>,
    /// The container's instance before the present one
    #[arg(short = 'p', long)]
    previous: bool,
    /// All containers of the pod
    #[arg(long)]
    all_containers: bool,
    /// All pods of the workload
    #[arg(long)]
    all_pods: bool,
    /// Only the last lines; -1 means all
    #[arg(long, allow_negative_numbers = true)]
    tail: Option<i64>,
    /// Only lines younger than this, such as 5m
    #[arg(long)]
    since: Option<String>,
    /// Only lines after this time (RFC 3339)
    #[arg(long)]
    since_time: Option<String>,
    /// A time before each line
    #[arg(long)]
    timestamps: bool,
    /// No more than this many bytes
    #[arg(long)]
    limit_bytes: Option<u64>,
    /// Pods with these labels
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Pod and container before each line
    #[arg(long)]
    prefix: bool,
    /// Skip pods whose logs cannot be had
    #[arg(long)]
    ignore_errors: bool,
    /// How many logs may be followed at once
    #[arg(long, default_value_t = 5)]
    max_log_requests: usize,
    /// Do not verify the node's certificate
    #[arg(long, hide = true)]
    insecure_skip_tls_verify_backend: bool,
}

/// One container's log.
struct Source {
    path: String,
    prefix: String,
}

pub async fn run(context: &Context, args: LogsArgs) -> anyhow::Result<()> {
    let sources = sources(context, &args).await?;
    if !args.follow || sources.len() == 1 {
        for source in &sources {
            tolerate(copy(context, &args, source).await, &args)?;
        }
        return Ok(());
    }
    if sources.len() > args.max_log_requests {
        bail!(
            "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use --max-log-requests to increase the limit",
            sources.len(),
            args.max_log_requests
        );
    }
    let copies = sources.iter().map(|source| async { tolerate(copy(context, &args, source).await, &args) });
    futures::future::try_join_all(copies).await?;
    Ok(())
}

fn tolerate(result: anyhow::Result<()>, args: &LogsArgs) -> anyhow::Result<()> {
    match result {
        Err(error) if args.ignore_errors => {
            eprintln!("{}", crate::failure::explain(&error));
            Ok(())
        }
        other => other,
    }
}

async fn sources(context: &Context, args: &LogsArgs) -> anyhow::Result<Vec<Source>> {
    if let Some(selector) = &args.selector {
        if !args.words.is_empty() {
            bail!("only a selector (-l) or a POD name is allowed");
        }
        let found = context.pods(&context.namespace, selector, "").await?;
        if found.is_empty() {
            eprintln!("No resources found in {} namespace.", context.namespace);
        }
        let per_pod: anyhow::Result<Vec<_>> = found.iter().map(|pod| pod_sources(args, pod)).collect();
        return Ok(per_pod?.into_iter().flatten().collect());
    }
    let (word, container) = match args.words.as_slice() {
        [] => bail!("POD or TYPE/NAME is a required argument for the logs command"),
        [word] => (word, None),
        [word, container] if args.container.is_none() => (word, Some(container.clone())),
        _ => bail!(
            "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command"
        ),
    };
    let (found, mut pods) = pods::of(context, word).await?;
    if pods.is_empty() {
        bail!("no pods found for {}", found.label());
    }
    if !args.all_pods {
        if pods.len() > 1 {
            eprintln!("Found {} pods, using pod/{}", pods.len(), text(&pods[0], "/metadata/name"));
        }
        pods.truncate(1);
    }
    let mut all = Vec::new();
    for pod in &pods {
        all.extend(match &container {
            Some(name) => vec![source(pod, &pods::container(pod, Some(name), false)?, args)],
            None => pod_sources(args, pod)?,
        });
    }
    Ok(all)
}

fn pod_sources(args: &LogsArgs, pod: &Value) -> anyhow::Result<Vec<Source>> {
    if args.all_containers {
        let kinds = ["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers"];
        let names = kinds.iter().flat_map(|kind| list(pod, kind)).map(|c| text(c, "/name"));
        return Ok(names.map(|name| source(pod, name, args)).collect());
    }
    let container = pods::container(pod, args.container.as_deref(), false)?;
    Ok(vec![source(pod, &container, args)])
}

fn source(pod: &Value, container: &str, args: &LogsArgs) -> Source {
    let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
    Source {
        path: format!("/api/v1/namespaces/{namespace}/pods/{name}/log?container={container}"),
        prefix: if args.prefix { format!("[pod/{name}/{container}] ") } else { String::new() },
    }
}

async fn copy(context: &Context, args: &LogsArgs, source: &Source) -> anyhow::Result<()> {
    let mut call = Call::get(source.path.as_str()).accept("*/*");
    let yes = |on: bool| if on { "true" } else { "" };
    call = call
        .query("follow", yes(args.follow))
        .query("previous", yes(args.previous))
        .query("timestamps", yes(args.timestamps))
        .query("sinceTime", args.since_time.clone().unwrap_or_default())
        .query("limitBytes", args.limit_bytes.map(|n| n.to_string()).unwrap_or_default());
    if let Some(since) = &args.since {
        let nanos = keelson_api_types::duration::parse_go(since)
            .with_context(|| format!("--since: invalid duration {since:?}"))?;
        call = call.query("sinceSeconds", (nanos / 1_000_000_000).max(1).to_string());
    }
    // With a selector a little of each is more useful than all of one.
    let tail = args.tail.or(args.selector.as_ref().map(|_| 10)).filter(|tail| *tail >= 0);
    call = call.query("tailLines", tail.map(|n| n.to_string()).unwrap_or_default());
    let mut chunks = context.rest.stream(call).await?;
    if source.prefix.is_empty() {
        while let Some(chunk) = chunks.next().await {
            write(&chunk?);
        }
        return Ok(());
    }
    let mut line = Vec::new();
    while let Some(chunk) = chunks.try_next().await? {
        for byte in chunk.iter() {
            line.push(*byte);
            if *byte == b'\n' {
                write(&[source.prefix.as_bytes(), &line].concat());
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        write(&[source.prefix.as_bytes(), &line, b"\n"].concat());
    }
    Ok(())
}

/// Logs are bytes, not always text.
fn write(bytes: &[u8]) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
        std::process::exit(141);
    }
}
