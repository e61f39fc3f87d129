//! Every namespace has the certificate authority's certificate, so that its pods can verify the API server.

use std::sync::Arc;

use anyhow::Context as _;
use keelson_client::{Key, WorkQueue};
use serde_json::{Value, json};

use crate::context::{Context, enqueue};
use crate::kit::Error;
use crate::views::ConfigMap;

/// The ConfigMap that service account tokens' volumes are projected with.
pub const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
     internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of \
     Kubernetes clusters.",
);

/// Reads the certificate that is handed out.
pub fn certificate(context: &crate::config::Config) -> anyhow::Result<String> {
    let path = context.pki_dir.join(KEY);
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

pub async fn run(context: Arc<Context>, certificate: String) {
    let queue = WorkQueue::new();
    enqueue(&context.informers.namespaces, &queue);
    let changed = queue.clone();
    context.informers.root_cas.on_change(move |change| {
        changed.add(Key::cluster(change.object().metadata.namespace.clone().unwrap_or_default()));
    });
    let certificate: Arc<str> = certificate.into();
    let this = context.clone();
    let reconcile = move |key| sync(this.clone(), certificate.clone(), key);
    context.work("root-ca-cert-publisher", queue, 1, reconcile).await;
}

fn config_map(certificate: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": NAME, "annotations": { DESCRIPTION.0: DESCRIPTION.1 } },
        "data": { KEY: certificate },
    })
}

async fn sync(context: Arc<Context>, certificate: Arc<str>, key: Key) -> Result<(), Error> {
    let informers = &context.informers;
    let Some(namespace) = informers.namespaces.get(&key) else { return Ok(()) };
    if namespace.metadata.is_deleting() {
        return Ok(());
    }
    let wanted = config_map(&certificate);
    let result = match informers.root_cas.get(&Key::new(&key.name, NAME)) {
        Some(map) => {
            let annotated = map.metadata.annotations.contains_key(DESCRIPTION.0);
            if annotated && map.data.len() == 1 && map.data.get(KEY).is_some_and(|c| **c == *certificate) {
                return Ok(());
            }
            let patch = json!([
                { "op": "add", "path": "/data", "value": wanted["data"] },
                { "op": "add", "path": "/metadata/annotations", "value": wanted["metadata"]["annotations"] },
            ]);
            let kind = keelson_client::rest::patch::JSON;
            context.requests.patch_as::<ConfigMap>(&map.metadata, None, kind, &patch).await
        }
        None => context.requests.create::<ConfigMap>(&key.name, &wanted).await,
    };
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.is_namespace_terminating() || error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}
