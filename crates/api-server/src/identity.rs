//! This server's Lease in `kube-system`, by which others see which API servers there are.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use keelson_api_types::{Gvr, Reason, StatusError, meta};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::types::Objects;

const NAMESPACE: &str = "kube-system";
const LABEL: &str = "apiserver.kubernetes.io/identity";
const COMPONENT: &str = "kube-apiserver";
/// How long a lease is good: a server is taken for gone after this.
const LIFETIME: i64 = 3600;
/// Rarer than upstream's ten seconds: each renewal is a write, and the lease is good for an hour.
const RENEW: Duration = Duration::from_secs(300);
const RETRY: Duration = Duration::from_secs(5);

fn gvr() -> Gvr {
    Gvr::new("coordination.k8s.io", "v1", "leases")
}

/// The lease's name, which is the same after a restart on the same host and port.
pub fn name(host: &str, port: u16) -> String {
    let hash = Sha256::digest(format!("{host}:{port}"));
    let hex: String = hash.iter().take(16).map(|b| format!("{b:02x}")).collect();
    format!("apiserver-{hex}")
}

/// Holds the lease until shutdown, and removes those of servers that are gone.
pub async fn run(objects: Arc<dyn Objects>, host: String, port: u16, shutdown: CancellationToken) {
    let name = name(&host, port);
    let holder = format!("{name}_{}", uuid::Uuid::new_v4());
    loop {
        let wait = match hold(objects.as_ref(), &name, &holder, &host).await {
            Ok(()) => {
                remove_expired(objects.as_ref()).await;
                RENEW
            }
            Err(error) => {
                tracing::debug!(error = error.message(), "cannot renew the server's lease");
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn hold(objects: &dyn Objects, name: &str, holder: &str, host: &str) -> Result<(), StatusError> {
    let now = meta::now_micro();
    let Some(stored) = objects.get_fresh(&gvr(), NAMESPACE, name).await? else {
        let lease = json!({
            "metadata": {"namespace": NAMESPACE, "name": name,
                "labels": {LABEL: COMPONENT, "kubernetes.io/hostname": host}},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": LIFETIME, "renewTime": now},
        });
        return objects.create(&gvr(), NAMESPACE, lease).await.map(drop);
    };
    let mut lease = Value::clone(&stored);
    lease["spec"]["holderIdentity"] = holder.into();
    lease["spec"]["renewTime"] = now.into();
    objects.update(&gvr(), NAMESPACE, "", lease).await.map(drop)
}

async fn remove_expired(objects: &dyn Objects) {
    for lease in objects.list(&gvr(), NAMESPACE).iter().filter(|l| is_expired(l, Timestamp::now())) {
        let name = meta::name(lease);
        match objects.delete(&gvr(), NAMESPACE, name).await {
            Err(error) if error.reason() != Reason::NotFound => {
                tracing::warn!(
                    name,
                    error = error.message(),
                    "cannot remove the lease of a server that is gone"
                );
            }
            _ => {}
        }
    }
}

fn is_expired(lease: &Value, now: Timestamp) -> bool {
    let ours = meta::labels(lease).and_then(|l| l.get(LABEL)).is_some_and(|v| v == COMPONENT);
    let renewed = lease["spec"]["renewTime"].as_str().and_then(meta::parse_time);
    let seconds = lease["spec"]["leaseDurationSeconds"].as_i64().unwrap_or(0);
    ours && renewed.is_none_or(|at| at + SignedDuration::from_secs(seconds) < now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::MapObjects;

    #[tokio::test]
    async fn a_lease_is_made_then_renewed_and_those_of_the_gone_are_removed() {
        let gone = json!({"metadata": {"namespace": NAMESPACE, "name": "apiserver-gone", "labels": {LABEL: COMPONENT}},
            "spec": {"leaseDurationSeconds": LIFETIME, "renewTime": "2020-01-01T00:00:00.000000Z"}});
        let other = json!({"metadata": {"namespace": NAMESPACE, "name": "kube-scheduler"},
            "spec": {"leaseDurationSeconds": 15, "renewTime": "2020-01-01T00:00:00.000000Z"}});
        let group = "coordination.k8s.io";
        let objects = MapObjects::default().with(group, "leases", gone).with(group, "leases", other);
        for holder in ["a", "b"] {
            hold(&objects, "apiserver-x", holder, "host").await.unwrap();
        }
        remove_expired(&objects).await;
        let left = objects.list(&gvr(), NAMESPACE);
        let names: Vec<&str> = left.iter().map(|l| meta::name(l)).collect();
        assert_eq!(names, ["apiserver-x", "kube-scheduler"]);
        assert_eq!(left[0]["spec"]["holderIdentity"], "b");
    }
}
