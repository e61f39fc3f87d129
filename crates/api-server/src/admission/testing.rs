//! Objects in a map, for tests of what reads and writes through [`Objects`].

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use keelson_api_types::{Gvk, Gvr, StatusError, meta};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;

use crate::types::{Change, Objects};

type Key = (String, String, String, String);

/// Stores what it is given, without defaults or validation; updates need no resourceVersion.
#[derive(Default)]
pub struct MapObjects {
    map: Mutex<BTreeMap<Key, Arc<Value>>>,
    pub writes: Mutex<usize>,
    revision: watch::Sender<u64>,
}

fn key(gvr: &Gvr, namespace: &str, name: &str) -> Key {
    (gvr.group.clone(), gvr.resource.clone(), namespace.to_owned(), name.to_owned())
}

impl MapObjects {
    pub fn with(self, group: &str, resource: &str, object: Value) -> Self {
        let gvr = Gvr::new(group, "v1", resource);
        let key = key(&gvr, meta::namespace(&object), meta::name(&object));
        self.map.lock().insert(key, Arc::new(object));
        self
    }

    fn put(&self, gvr: &Gvr, namespace: &str, object: Value) -> Value {
        *self.writes.lock() += 1;
        self.revision.send_modify(|revision| *revision += 1);
        let object = Arc::new(object);
        self.map.lock().insert(key(gvr, namespace, meta::name(&object)), object.clone());
        Value::clone(&object)
    }
}

impl Objects for MapObjects {
    fn get(&self, gvr: &Gvr, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.map.lock().get(&key(gvr, namespace, name)).cloned()
    }

    fn get_fresh<'a>(
        &'a self,
        gvr: &'a Gvr,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<Value>>, StatusError>> {
        async move { Ok(self.get(gvr, namespace, name)) }.boxed()
    }

    fn list(&self, gvr: &Gvr, namespace: &str) -> Vec<Arc<Value>> {
        let map = self.map.lock();
        let ours = map.iter().filter(|((group, resource, ns, _), _)| {
            *group == gvr.group && *resource == gvr.resource && (namespace.is_empty() || ns == namespace)
        });
        ours.map(|(_, v)| v.clone()).collect()
    }

    fn create<'a>(
        &'a self,
        gvr: &'a Gvr,
        namespace: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<Value, StatusError>> {
        async move {
            let name = meta::name(&object);
            match self.get(gvr, namespace, name) {
                Some(_) => Err(StatusError::already_exists(&gvr.group_resource(), name)),
                None => Ok(self.put(gvr, namespace, object)),
            }
        }
        .boxed()
    }

    fn update<'a>(
        &'a self,
        gvr: &'a Gvr,
        namespace: &'a str,
        _subresource: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<Value, StatusError>> {
        async move { Ok(self.put(gvr, namespace, object)) }.boxed()
    }

    fn delete<'a>(
        &'a self,
        gvr: &'a Gvr,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<(), StatusError>> {
        async move {
            self.map.lock().remove(&key(gvr, namespace, name));
            Ok(())
        }
        .boxed()
    }

    fn changes(&self, _gvr: &Gvr) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Every resource has one version.
    fn versions(&self, gvr: &Gvr, _subresource: &str) -> Vec<(Gvr, Gvk)> {
        vec![(gvr.clone(), Gvk::new(gvr.group.as_str(), gvr.version.as_str(), "X"))]
    }

    fn resource_of(&self, _gvk: &Gvk) -> Option<(Gvr, bool)> {
        None
    }

    fn shown<'a>(
        &'a self,
        gvr: &'a Gvr,
        namespace: &'a str,
        name: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<Arc<Value>>, StatusError>> {
        let found = match name {
            Some(name) => self.get(gvr, namespace, name).into_iter().collect(),
            None => self.list(gvr, namespace),
        };
        async move { Ok(found) }.boxed()
    }

    fn as_served<'a>(&'a self, _gvr: &'a Gvr, object: Value) -> BoxFuture<'a, Result<Value, StatusError>> {
        async move { Ok(object) }.boxed()
    }

    fn as_admitted<'a>(
        &'a self,
        _gvr: &'a Gvr,
        object: Value,
        _request: &'a Gvr,
    ) -> BoxFuture<'a, Result<Value, StatusError>> {
        async move { Ok(object) }.boxed()
    }

    fn schema(&self, _gvr: &Gvr) -> Option<(Gvk, Value)> {
        None
    }

    fn overlay(&self, _gvr: &Gvr, _object: &Value, applied: &Value) -> Result<Value, String> {
        Ok(applied.clone())
    }

    /// What exists now and nothing after.
    fn subscribe(&self, _gvr: &Gvr) -> UnboundedReceiver<Change> {
        unbounded_channel().1
    }
}
