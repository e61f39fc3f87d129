//! The API server in memory, for tests of what pods do.

use crate::api::{Api, Error, Service};
use crate::pods::manager::Feed;
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenRequestSpec, TokenRequestStatus};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use keelson_client::{EventType, ObjectRef, Whole};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// An API server of maps: what is written to it can be looked at.
#[derive(Default)]
pub struct FakeApi {
    pub config_maps: Mutex<HashMap<String, ConfigMap>>,
    /// The last status of any pod.
    pub status: Mutex<Value>,
    /// All of them.
    pub statuses: Mutex<Vec<Value>>,
    pub deleted: Mutex<Vec<String>>,
    /// Reason and message.
    pub events: Mutex<Vec<(String, String)>>,
    /// Where a removal is told.
    pub feed: Mutex<Option<mpsc::UnboundedSender<Feed>>>,
}

type Answer<'a, T> = BoxFuture<'a, Result<T, Error>>;

fn ready<'a, T: Send + 'a>(value: Result<T, Error>) -> Answer<'a, T> {
    Box::pin(std::future::ready(value))
}

impl Api for FakeApi {
    fn config_map<'a>(&'a self, _: &'a Pod, name: &'a str) -> Answer<'a, Option<Arc<Whole<ConfigMap>>>> {
        ready(Ok(self.config_maps.lock().get(name).cloned().map(|m| Arc::new(m.into()))))
    }

    fn secret<'a>(&'a self, _: &'a Pod, _: &'a str) -> Answer<'a, Option<Arc<Whole<Secret>>>> {
        ready(Ok(None))
    }

    fn release(&self, _: &str) {}

    fn services(&self) -> Vec<Arc<Service>> {
        Vec::new()
    }

    fn token<'a>(&'a self, _: &'a str, _: &'a str, _: TokenRequestSpec) -> Answer<'a, TokenRequestStatus> {
        ready(Ok(TokenRequestStatus::default()))
    }

    fn claim<'a>(&'a self, _: &'a str, _: &'a str) -> Answer<'a, PersistentVolumeClaim> {
        ready(Ok(PersistentVolumeClaim::default()))
    }

    fn volume<'a>(&'a self, _: &'a str) -> Answer<'a, PersistentVolume> {
        ready(Ok(PersistentVolume::default()))
    }

    fn runtime_handler<'a>(&'a self, class: &'a str) -> Answer<'a, String> {
        ready(Ok(class.to_owned()))
    }

    fn patch_status<'a>(&'a self, _: &'a str, _: &'a str, body: Value) -> Answer<'a, ()> {
        *self.status.lock() = body["status"].clone();
        self.statuses.lock().push(body["status"].clone());
        ready(Ok(()))
    }

    fn delete_pod<'a>(&'a self, _: &'a str, name: &'a str, uid: &'a str) -> Answer<'a, ()> {
        self.deleted.lock().push(name.to_owned());
        if let Some(feed) = self.feed.lock().as_ref() {
            let _ = feed.send(Feed::Gone(uid.to_owned()));
        }
        ready(Ok(()))
    }

    fn event(&self, _: ObjectRef, _: EventType, reason: &str, message: &str) {
        self.events.lock().push((reason.to_owned(), message.to_owned()));
    }
}
