//! `ctl expose`: a Service for the pods of something that is there.

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use super::create::submit;
use crate::context::Context;
use crate::files::FileArgs;
use crate::output::{DryRunArgs, OutputArgs};
use crate::resources::{SelectorArgs, Wanted};
use crate::value::{list, map, set, text};

#[derive(Debug, Args)]
pub struct ExposeArgs {
    /// TYPE NAME or TYPE/NAME
    words: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
    /// The Service's name [default: the object's]
    #[arg(long)]
    name: Option<String>,
    /// The Service's port [default: the container's ports]
    #[arg(long)]
    port: Option<String>,
    /// Port or port name of the pods [default: --port]
    #[arg(long)]
    target_port: Option<String>,
    /// TCP, UDP or SCTP
    #[arg(long)]
    protocol: Option<String>,
    /// ClusterIP, NodePort, LoadBalancer or ExternalName
    #[arg(long = "type")]
    kind: Option<String>,
    /// The Service's address; None makes it headless
    #[arg(long)]
    cluster_ip: Option<String>,
    #[arg(long)]
    external_ip: Vec<String>,
    /// None or ClientIP
    #[arg(long)]
    session_affinity: Option<String>,
    /// Pods with these labels instead of the object's
    #[arg(long)]
    selector: Option<String>,
    /// Labels of the Service
    #[arg(short = 'l', long, value_delimiter = ',')]
    labels: Vec<String>,
}

pub async fn run(context: &Context, args: ExposeArgs) -> anyhow::Result<()> {
    let printer = args.output.printer()?;
    let dry_run = args.dry_run.get()?;
    let selectors = SelectorArgs::default();
    let wanted = Wanted { words: &args.words, files: &args.files, selectors: &selectors, all: false };
    for found in wanted.find_all(context).await? {
        let mut service = service(&args, &found.object, &found.name, &found.mapping.kind)?;
        let namespace = found.namespace.clone().unwrap_or_else(|| context.namespace.clone());
        set(&mut service, &["metadata", "namespace"], namespace.into());
        let mapping = context.mapping("services").await?;
        submit(context, &mapping, service, "exposed", &printer, dry_run, "kubectl-expose").await?;
    }
    Ok(())
}

fn service(args: &ExposeArgs, object: &Value, name: &str, kind: &str) -> anyhow::Result<Value> {
    let selector = match &args.selector {
        Some(text) => super::create::pairs(text.split(','))?,
        None => selector_of(object, kind)?,
    };
    let labels = match args.labels.is_empty() {
        true => map(object, "/metadata/labels").cloned().unwrap_or_default(),
        false => super::create::pairs(args.labels.iter().map(String::as_str))?,
    };
    let mut spec = json!({"selector": selector, "ports": ports(args, object, kind)?});
    let mut optional = |field: &str, value: &Option<String>| {
        if let Some(value) = value {
            spec[field] = value.clone().into();
        }
    };
    optional("type", &args.kind);
    optional("clusterIP", &args.cluster_ip);
    optional("sessionAffinity", &args.session_affinity);
    if !args.external_ip.is_empty() {
        spec["externalIPs"] = json!(args.external_ip);
    }
    let mut metadata = json!({"name": args.name.as_deref().unwrap_or(name)});
    if !labels.is_empty() {
        metadata["labels"] = labels.into();
    }
    Ok(json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}))
}

fn selector_of(object: &Value, kind: &str) -> anyhow::Result<serde_json::Map<String, Value>> {
    let selector = match kind {
        "Pod" => {
            map(object, "/metadata/labels").context("the pod has no labels and cannot be exposed")?.clone()
        }
        "Service" | "ReplicationController" => map(object, "/spec/selector").cloned().unwrap_or_default(),
        "Deployment" | "ReplicaSet" => {
            if !list(object, "/spec/selector/matchExpressions").is_empty() {
                bail!("couldn't convert expressions to a map: give --selector");
            }
            map(object, "/spec/selector/matchLabels").cloned().unwrap_or_default()
        }
        _ => bail!("cannot expose a {kind}"),
    };
    if selector.is_empty() {
        bail!(
            "couldn't retrieve selectors via --selector flag or introspection: the {} has none",
            kind.to_lowercase()
        );
    }
    Ok(selector)
}

fn ports(args: &ExposeArgs, object: &Value, kind: &str) -> anyhow::Result<Vec<Value>> {
    let protocol = |default: &str| args.protocol.clone().unwrap_or_else(|| default.to_owned());
    let target = |port: i64| match &args.target_port {
        None => json!(port),
        Some(text) => text.parse::<i64>().map_or_else(|_| json!(text), |n| json!(n)),
    };
    let mut found: Vec<(i64, String)> = Vec::new();
    match &args.port {
        Some(text) => {
            for port in text.split(',') {
                let number = port.parse().with_context(|| format!("--port: {port:?} is no port"))?;
                found.push((number, protocol("TCP")));
            }
        }
        None => {
            let containers = match kind {
                "Pod" => list(object, "/spec/containers"),
                _ => list(object, "/spec/template/spec/containers"),
            };
            let of = |port: &Value, field: &str| {
                let name = text(port, "/protocol");
                let number = port.get(field).and_then(Value::as_i64).unwrap_or_default();
                (number, protocol(if name.is_empty() { "TCP" } else { name }))
            };
            found.extend(containers.iter().flat_map(|c| list(c, "/ports")).map(|p| of(p, "containerPort")));
            found.extend(
                list(object, "/spec/ports").iter().filter(|_| kind == "Service").map(|p| of(p, "port")),
            );
        }
    }
    if found.is_empty() {
        bail!("couldn't find port via --port flag or introspection");
    }
    let many = found.len() > 1;
    let port = |(index, (number, protocol)): (usize, (i64, String))| {
        let mut port = json!({"port": number, "protocol": protocol, "targetPort": target(number)});
        if many {
            port["name"] = format!("port-{}", index + 1).into();
        }
        port
    };
    Ok(found.into_iter().enumerate().map(port).collect())
}
