//! Taking a number for a Service so that no other server can: an IPAddress object, or a key for a node port.

use std::net::IpAddr;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use keelson_api_types::{Gvr, Reason, StatusError, meta};
use keelson_store::{Expect, RangeOptions, Store, Write, WriteError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Family, Held};
use crate::cache::storage_error;
use crate::types::Objects;
use crate::verbs::write::write_error;

/// Among the objects though they are none: reads wait until the caches have seen the store's latest revision, and
/// they see only those of this part of it.
const PREFIX: &str = "/registry/ranges/servicenodeports/";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
/// Upstream's name of who makes these objects; its tools look for it.
const MANAGER: &str = "ipallocator.k8s.io";

/// The Service that a number is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    pub namespace: String,
    pub name: String,
}

impl Owner {
    pub fn of(service: &Value) -> Self {
        Self { namespace: meta::namespace(service).into(), name: meta::name(service).into() }
    }
}

/// A number that is claimed, as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim<N> {
    pub number: N,
    /// None where it is not for a Service.
    pub owner: Option<Owner>,
    pub since: Timestamp,
}

pub fn address_gvr() -> Gvr {
    Gvr::new("networking.k8s.io", "v1", "ipaddresses")
}

/// Claims an address; `false` if it is somebody's.
pub async fn address(objects: &dyn Objects, ip: IpAddr, owner: &Owner) -> Result<bool, StatusError> {
    let object = json!({
        "metadata": {"name": ip, "labels": {FAMILY: Family::of(ip).as_str(), MANAGED_BY: MANAGER}},
        "spec": {"parentRef": {"resource": "services", "namespace": owner.namespace, "name": owner.name}},
    });
    match objects.create(&address_gvr(), "", object).await {
        Ok(_) => Ok(true),
        Err(error) if error.reason() == Reason::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// The claim that an IPAddress object is, and whether it was made here.
pub fn address_claim(object: &Value) -> Option<(Claim<IpAddr>, bool)> {
    let parent = &object["spec"]["parentRef"];
    let text = |field: &str| parent[field].as_str().unwrap_or_default().to_owned();
    let is_service = text("group").is_empty() && text("resource") == "services";
    let claim = Claim {
        number: meta::name(object).parse().ok()?,
        owner: is_service.then(|| Owner { namespace: text("namespace"), name: text("name") }),
        since: meta::parse_time(meta::string(object, "creationTimestamp")).unwrap_or_else(Timestamp::now),
    };
    let managed = meta::labels(object).and_then(|labels| labels.get(MANAGED_BY));
    Some((claim, managed.is_some_and(|by| by == MANAGER)))
}

/// Gives numbers back. What cannot be given back now is found later, for it is then no Service's.
pub async fn release(objects: &dyn Objects, ports: &dyn PortClaims, held: &Held) {
    for ip in &held.addresses {
        let outcome = objects.delete(&address_gvr(), "", &ip.to_string()).await;
        if let Err(error) = outcome.or_else(|e| if e.reason() == Reason::NotFound { Ok(()) } else { Err(e) })
        {
            tracing::warn!(%ip, error = error.message(), "cannot give back a cluster address");
        }
    }
    for port in &held.ports {
        if let Err(error) = ports.release(*port).await {
            tracing::warn!(port, error = error.message(), "cannot give back a node port");
        }
    }
}

/// Where node ports are claimed.
pub trait PortClaims: Send + Sync {
    /// `false` if it is somebody's.
    fn claim<'a>(&'a self, port: u16, owner: &'a Owner) -> BoxFuture<'a, Result<bool, StatusError>>;
    fn release(&self, port: u16) -> BoxFuture<'_, Result<(), StatusError>>;
    fn list(&self) -> BoxFuture<'_, Result<Vec<Claim<u16>>, StatusError>>;
}

/// A key per port in the store.
pub struct StorePorts(pub Arc<dyn Store>);

#[derive(Serialize, Deserialize)]
struct Stored {
    service: Owner,
    since: Timestamp,
}

fn key(port: u16) -> String {
    format!("{PREFIX}{port}")
}

impl PortClaims for StorePorts {
    fn claim<'a>(&'a self, port: u16, owner: &'a Owner) -> BoxFuture<'a, Result<bool, StatusError>> {
        async move {
            let stored = Stored { service: owner.clone(), since: Timestamp::now() };
            let value = serde_json::to_vec(&stored).map_err(StatusError::internal)?;
            match self.0.write(Write::create(key(port), value)).await {
                Ok(_) => Ok(true),
                Err(WriteError::Conflict { .. }) => Ok(false),
                Err(error) => Err(write_error(&error)),
            }
        }
        .boxed()
    }

    fn release(&self, port: u16) -> BoxFuture<'_, Result<(), StatusError>> {
        async move {
            let deleted = self.0.write(Write::delete(key(port), Expect::Any)).await;
            deleted.map(drop).map_err(|e| write_error(&e))
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Claim<u16>>, StatusError>> {
        async move {
            let found = self.0.range(PREFIX, RangeOptions::default()).await.map_err(|e| storage_error(&e))?;
            let claims = found.kvs.iter().filter_map(|kv| {
                let number = kv.key.strip_prefix(PREFIX)?.parse().ok()?;
                let stored: Stored = serde_json::from_slice(&kv.value).ok()?;
                Some(Claim { number, owner: Some(stored.service), since: stored.since })
            });
            Ok(claims.collect())
        }
        .boxed()
    }
}
