//! The server's objects for a part that the server itself owns.

use std::sync::{Arc, Weak};

use futures::FutureExt;
use futures::future::BoxFuture;
use keelson_api_types::{Gvk, Gvr, StatusError};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;

use crate::types::{Change, Objects};

/// Empty, and refusing writes, once the server is gone.
pub struct WeakObjects(pub Weak<dyn Objects>);

impl WeakObjects {
    fn server(&self) -> Result<Arc<dyn Objects>, StatusError> {
        self.0.upgrade().ok_or_else(|| StatusError::service_unavailable("the server has shut down"))
    }
}

impl Objects for WeakObjects {
    fn get(&self, gvr: &Gvr, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.0.upgrade()?.get(gvr, namespace, name)
    }

    fn get_fresh<'a>(
        &'a self,
        gvr: &'a Gvr,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<Value>>, StatusError>> {
        async move { self.server()?.get_fresh(gvr, namespace, name).await }.boxed()
    }

    fn list(&self, gvr: &Gvr, namespace: &str) -> Vec<Arc<Value>> {
        self.0.upgrade().map(|server| server.list(gvr, namespace)).unwrap_or_default()
    }

    fn create<'a>(
        &'a self,
        gvr: &'a Gvr,
        namespace: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<Value, StatusError>> {
        async move { self.server()?.create(gvr, namespace, object).await }.boxed()
    }

    fn update<'a>(
        &'a self,
        gvr: &'a Gvr,
        namespace: &'a str,
        subresource: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<Value, StatusError>> {
        async move { self.server()?.update(gvr, namespace, subresource, object).await }.boxed()
    }

    fn delete<'a>(
        &'a self,
        gvr: &'a Gvr,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<(), StatusError>> {
        async move { self.server()?.delete(gvr, namespace, name).await }.boxed()
    }

    fn changes(&self, gvr: &Gvr) -> watch::Receiver<u64> {
        self.0.upgrade().map_or_else(|| watch::channel(0).1, |server| server.changes(gvr))
    }

    fn versions(&self, gvr: &Gvr, subresource: &str) -> Vec<(Gvr, Gvk)> {
        self.0.upgrade().map(|server| server.versions(gvr, subresource)).unwrap_or_default()
    }

    fn resource_of(&self, gvk: &Gvk) -> Option<(Gvr, bool)> {
        self.0.upgrade()?.resource_of(gvk)
    }

    fn shown<'a>(
        &'a self,
        gvr: &'a Gvr,
        namespace: &'a str,
        name: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<Arc<Value>>, StatusError>> {
        async move { self.server()?.shown(gvr, namespace, name).await }.boxed()
    }

    fn as_served<'a>(&'a self, gvr: &'a Gvr, object: Value) -> BoxFuture<'a, Result<Value, StatusError>> {
        async move { self.server()?.as_served(gvr, object).await }.boxed()
    }

    fn as_admitted<'a>(
        &'a self,
        gvr: &'a Gvr,
        object: Value,
        request: &'a Gvr,
    ) -> BoxFuture<'a, Result<Value, StatusError>> {
        async move { self.server()?.as_admitted(gvr, object, request).await }.boxed()
    }

    fn schema(&self, gvr: &Gvr) -> Option<(Gvk, Value)> {
        self.0.upgrade()?.schema(gvr)
    }

    fn overlay(&self, gvr: &Gvr, object: &Value, applied: &Value) -> Result<Value, String> {
        self.server().map_err(|e| e.message().to_owned())?.overlay(gvr, object, applied)
    }

    fn subscribe(&self, gvr: &Gvr) -> UnboundedReceiver<Change> {
        match self.0.upgrade() {
            Some(server) => server.subscribe(gvr),
            None => unbounded_channel().1,
        }
    }
}
