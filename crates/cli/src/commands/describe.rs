//! `ctl describe`: fetches an object and what belongs to it.

use anyhow::bail;
use clap::Args;
use serde_json::Value;

use super::selector_text;
use crate::context::Context;
use crate::describe::{Related, text as describe};
use crate::failure;
use crate::files::FileArgs;
use crate::resources::{Found, SelectorArgs, Wanted, namespace_for, parse};
use crate::value::{list, text};

#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// TYPE [NAME…] or TYPE/NAME…; a name may be the beginning of one
    words: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    selectors: SelectorArgs,
    /// Show events [default: for a single object]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    show_events: Option<bool>,
    /// List in pages of this many objects
    #[arg(long, hide = true, default_value_t = 500)]
    chunk_size: u32,
}

pub async fn run(context: &Context, args: DescribeArgs) -> anyhow::Result<()> {
    let wanted = Wanted { words: &args.words, files: &args.files, selectors: &args.selectors, all: true };
    let (mut found, mut errors) = wanted.find(context).await?;
    let mut by_prefix = false;
    if found.is_empty() && !errors.is_empty() && args.files.is_empty() {
        let similar = with_prefix(context, &args).await?;
        if !similar.is_empty() {
            (found, errors, by_prefix) = (similar, Vec::new(), true);
        }
    }
    if found.is_empty() && errors.is_empty() {
        if args.selectors.all_namespaces {
            bail!("No resources found");
        }
        eprintln!("No resources found in {} namespace.", context.namespace);
        return Ok(());
    }
    let show_events = args.show_events.unwrap_or(found.len() == 1 && !by_prefix);
    for (index, one) in found.iter().enumerate() {
        if index > 0 {
            crate::io::print("\n\n");
        }
        let related = related(context, one, show_events).await?;
        crate::io::print(&describe(&one.mapping.group, &one.mapping.kind, &one.object, &related));
    }
    failure::all(errors)
}

/// Names that are the beginning of others'.
async fn with_prefix(context: &Context, args: &DescribeArgs) -> anyhow::Result<Vec<Found>> {
    let mapper = context.mapper().await?;
    let mut found = Vec::new();
    for selection in parse(&mapper, &args.words)? {
        let namespace = namespace_for(context, &selection.mapping, args.selectors.all_namespaces);
        for object in context.list(&selection.mapping, namespace.as_deref(), "", "").await? {
            let name = text(&object, "/metadata/name");
            if selection.names.iter().any(|prefix| name.starts_with(prefix.as_str())) {
                found.push(Found::new(selection.mapping.clone(), object));
            }
        }
    }
    Ok(found)
}

async fn related(context: &Context, found: &Found, show_events: bool) -> anyhow::Result<Related> {
    let mut related = Related::default();
    let namespace = found.namespace.as_deref();
    let uid = text(&found.object, "/metadata/uid");
    let owned = |objects: Vec<Value>| -> Vec<Value> {
        let by_us = |o: &Value| list(o, "/metadata/ownerReferences").iter().any(|r| text(r, "/uid") == uid);
        objects.into_iter().filter(by_us).collect()
    };
    match found.mapping.kind.as_str() {
        "Deployment" => {
            let sets = fetch(context, "replicasets.apps", namespace, &selector_text(&found.object), "").await;
            related.objects.insert("replicasets", owned(sets));
        }
        "ReplicaSet" | "ReplicationController" | "StatefulSet" | "DaemonSet" => {
            let pods = fetch(context, "pods", namespace, &selector_text(&found.object), "").await;
            related.objects.insert("pods", owned(pods));
        }
        "Service" => {
            let selector = format!("kubernetes.io/service-name={}", found.name);
            let slices = fetch(context, "endpointslices.discovery.k8s.io", namespace, &selector, "").await;
            related.objects.insert("endpointslices", slices);
        }
        "Node" => {
            let on_node = format!("spec.nodeName={}", found.name);
            related.objects.insert("pods", fetch(context, "pods", None, "", &on_node).await);
            let named = format!("metadata.name={}", found.name);
            let lease =
                fetch(context, "leases.coordination.k8s.io", Some("kube-node-lease"), "", &named).await;
            related.objects.insert("leases", lease);
        }
        "Namespace" => {
            let inside = Some(found.name.as_str());
            related.objects.insert("resourcequotas", fetch(context, "resourcequotas", inside, "", "").await);
            related.objects.insert("limitranges", fetch(context, "limitranges", inside, "", "").await);
        }
        "PersistentVolumeClaim" => {
            let mut pods = fetch(context, "pods", namespace, "", "").await;
            pods.retain(|pod| {
                let volumes = list(pod, "/spec/volumes").iter();
                volumes.into_iter().any(|v| text(v, "/persistentVolumeClaim/claimName") == found.name)
            });
            related.objects.insert("pods", pods);
        }
        _ => {}
    }
    if show_events {
        let mut fields =
            format!("involvedObject.name={},involvedObject.kind={}", found.name, found.mapping.kind);
        if let Some(namespace) = namespace {
            fields += &format!(",involvedObject.namespace={namespace}");
        }
        // Nodes report their events under their name as uid.
        if !uid.is_empty() && found.mapping.kind != "Node" {
            fields += &format!(",involvedObject.uid={uid}");
        }
        related.events = Some(fetch(context, "events", namespace, "", &fields).await);
    }
    Ok(related)
}

/// What helps to describe; a description without it is better than none.
async fn fetch(
    context: &Context,
    word: &str,
    namespace: Option<&str>,
    labels: &str,
    fields: &str,
) -> Vec<Value> {
    match context.mapping(word).await {
        Ok(mapping) => context.list(&mapping, namespace, labels, fields).await.unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}
