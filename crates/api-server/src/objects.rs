//! The server's own access to its objects.

use std::sync::Arc;

use futures::future::BoxFuture;
use keelson_api_types::{Gvk, Gvr, StatusError};
use keelson_machinery::{FieldValidation, apply, prune};
use keelson_schema::Type;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use crate::admission::policy::type_check;
use crate::app::App;
use crate::cache::{Caches, ChangeKind, Entry, ResourceCache};
use crate::convert;
use crate::custom::Custom;
use crate::meta;
use crate::options::{DeleteOptions, WriteOptions};
use crate::registry::Resource;
use crate::types::{Change, Object, Objects, UserInfo};
use crate::verbs::delete;
use crate::verbs::write::{self, Writer};

impl App {
    fn known(&self, gvr: &Gvr) -> Result<Arc<Resource>, StatusError> {
        self.registry.get(gvr).ok_or_else(|| StatusError::internal(format!("no resource {gvr}")))
    }

    fn writes(&self) -> WriteOptions {
        WriteOptions::server(false, &json!({}))
    }
}

impl Objects for App {
    fn get(&self, gvr: &Gvr, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let resource = self.registry.get(gvr)?;
        resource.cache.get(&resource.key(namespace, name))?.parsed()
    }

    fn get_fresh<'a>(
        &'a self,
        gvr: &'a Gvr,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<Value>>, StatusError>> {
        Box::pin(async move {
            let resource = self.known(gvr)?;
            self.caches.fresh().await?;
            let entry = resource.cache.get(&resource.key(namespace, name));
            Ok(entry.and_then(|e| e.parsed()))
        })
    }

    fn list(&self, gvr: &Gvr, namespace: &str) -> Vec<Arc<Value>> {
        let Some(resource) = self.registry.get(gvr) else { return Vec::new() };
        resource.entries(namespace).iter().filter_map(|e| e.parsed()).collect()
    }

    fn create<'a>(
        &'a self,
        gvr: &'a Gvr,
        namespace: &'a str,
        mut object: Value,
    ) -> BoxFuture<'a, Result<Value, StatusError>> {
        Box::pin(async move {
            let resource = self.known(gvr)?;
            identify(&resource, &mut object);
            let (user, options) = (UserInfo::loopback(), self.writes());
            let writer = own(self, &resource, &user, namespace, "", &options);
            writer.create(object, &mut Vec::new()).await?.parse()
        })
    }

    fn update<'a>(
        &'a self,
        gvr: &'a Gvr,
        namespace: &'a str,
        subresource: &'a str,
        mut object: Value,
    ) -> BoxFuture<'a, Result<Value, StatusError>> {
        Box::pin(async move {
            let resource = self.known(gvr)?;
            identify(&resource, &mut object);
            let (user, options) = (UserInfo::loopback(), self.writes());
            let writer = own(self, &resource, &user, namespace, subresource, &options);
            let name = meta::text(&object, "name").to_owned();
            let updated = writer
                .update(&name, false, &mut Vec::new(), |old| {
                    crate::verbs::update::check_version(&resource, &name, &object, old)?;
                    Ok(write::Change { object: object.clone(), tracked: false })
                })
                .await?;
            updated.stored.parse()
        })
    }

    fn delete<'a>(
        &'a self,
        gvr: &'a Gvr,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<(), StatusError>> {
        Box::pin(async move {
            let resource = self.known(gvr)?;
            let user = UserInfo::loopback();
            let options = DeleteOptions::default();
            delete::delete(self, &resource, &user, namespace, name, &options, true, &mut Vec::new()).await?;
            Ok(())
        })
    }

    fn changes(&self, gvr: &Gvr) -> watch::Receiver<u64> {
        self.registry.get(gvr).map_or_else(|| watch::channel(0).1, |r| r.cache.changed())
    }

    fn versions(&self, gvr: &Gvr, subresource: &str) -> Vec<(Gvr, Gvk)> {
        let Some(resource) = self.registry.get(gvr) else { return Vec::new() };
        let kind = |r: &Resource| match subresource {
            "" => Some(r.gvk.clone()),
            part => r.subresource(part).map(|s| s.gvk.clone()),
        };
        let same = self.registry.all().into_iter().filter(|r| r.storage == resource.storage);
        same.filter_map(|r| Some((r.gvr.clone(), kind(&r)?))).collect()
    }

    fn resource_of(&self, gvk: &Gvk) -> Option<(Gvr, bool)> {
        self.registry.find_kind(gvk).map(|r| (r.gvr.clone(), r.namespaced))
    }

    fn shown<'a>(
        &'a self,
        gvr: &'a Gvr,
        namespace: &'a str,
        name: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<Arc<Value>>, StatusError>> {
        Box::pin(async move {
            let resource = self.known(gvr)?;
            let entries = match name {
                Some(name) => resource.cache.get(&resource.key(namespace, name)).into_iter().collect(),
                None => resource.entries(namespace),
            };
            let parsed =
                convert::shown(self, &resource, entries).await?.into_iter().filter_map(|e| e.parsed());
            Ok(match resource.conversion.is_identity() {
                true => parsed.collect(),
                false => parsed.map(|o| Arc::new(resource.conversion.to_served(Value::clone(&o)))).collect(),
            })
        })
    }

    fn as_served<'a>(&'a self, gvr: &'a Gvr, object: Value) -> BoxFuture<'a, Result<Value, StatusError>> {
        Box::pin(async move {
            let resource = self.known(gvr)?;
            match &resource.custom {
                Some(custom) => in_version(self, custom, object, gvr).await,
                None => Ok(resource.conversion.to_served(object)),
            }
        })
    }

    fn as_admitted<'a>(
        &'a self,
        gvr: &'a Gvr,
        mut object: Value,
        request: &'a Gvr,
    ) -> BoxFuture<'a, Result<Value, StatusError>> {
        Box::pin(async move {
            let mut resource = self.known(gvr)?;
            if gvr != request
                && is_own_kind(&resource, &object)
                && let Some(custom) = resource.custom.clone()
            {
                resource.strategy.default(&mut object);
                object = in_version(self, &custom, object, request).await?;
                resource = self.known(request)?;
            }
            // The options of connections are in no schema.
            let known = Gvk::of(&object).is_none_or(|gvk| keelson_schema::builtin().for_gvk(&gvk).is_some());
            if known || is_own_kind(&resource, &object) {
                prune::check(type_of(&resource, &object), &mut object, FieldValidation::Ignore)
                    .map_err(StatusError::internal)?;
            }
            if is_own_kind(&resource, &object) {
                object = resource.conversion.to_stored(object);
                resource.strategy.default(&mut object);
            }
            Ok(object)
        })
    }

    fn schema(&self, gvr: &Gvr) -> Option<(Gvk, Value)> {
        let resource = self.registry.get(gvr)?;
        Some((resource.gvk.clone(), type_check::schema(&resource.ty)))
    }

    fn overlay(&self, gvr: &Gvr, object: &Value, applied: &Value) -> Result<Value, String> {
        let resource = self.known(gvr).map_err(|e| e.message().to_owned())?;
        apply::overlay(type_of(&resource, object), object, applied)
    }

    fn subscribe(&self, gvr: &Gvr) -> UnboundedReceiver<Change> {
        let (sender, receiver) = unbounded_channel();
        if let Some(resource) = self.registry.get(gvr) {
            let following = follow(self.caches.clone(), resource.cache.clone(), sender);
            // Whoever subscribes may outlive the server, which must let go of its store.
            tokio::spawn(self.shutdown.clone().run_until_cancelled_owned(following));
        }
        receiver
    }
}

impl Resource {
    /// Those of a namespace; all, if it is empty.
    fn entries(&self, namespace: &str) -> Vec<Arc<Entry>> {
        let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        self.cache.list(&prefix, None, 0, |_| true).entries
    }
}

/// Whether it is an object of the resource, and not what a subresource takes (Scale, Binding).
fn is_own_kind(resource: &Resource, object: &Value) -> bool {
    object["kind"] == resource.gvk.kind.as_str()
}

fn type_of<'a>(resource: &'a Resource, object: &Value) -> &'a Type {
    let other = Gvk::of(object).filter(|_| !is_own_kind(resource, object));
    other.and_then(|gvk| keelson_schema::builtin().for_gvk(&gvk)).unwrap_or(&resource.ty)
}

/// Fills in what the table knows about an object's kind.
fn identify(resource: &Resource, object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".into(), resource.gvk.api_version().into());
        map.insert("kind".into(), resource.gvk.kind.as_str().into());
    }
}

fn own<'a>(
    app: &'a App,
    resource: &'a Arc<Resource>,
    user: &'a UserInfo,
    namespace: &'a str,
    subresource: &'a str,
    options: &'a WriteOptions,
) -> Writer<'a> {
    Writer::new(app, resource, user, namespace, subresource, options).admitted()
}

fn object(entry: &Entry) -> Object {
    Object {
        namespace: entry.namespace().into(),
        name: entry.name().into(),
        revision: entry.revision,
        json: entry.json.clone(),
    }
}

/// Sends a snapshot, then the changes after it; starts over when it has fallen behind the history.
async fn follow(caches: Arc<Caches>, cache: Arc<ResourceCache>, sender: UnboundedSender<Change>) {
    loop {
        let mut changed = cache.changed();
        let applied = caches.applied();
        let snapshot = cache.list("", None, 0, |_| true);
        let mut cursor = applied.max(snapshot.last_change);
        let all = snapshot.entries.iter().map(|e| object(e)).collect();
        if sender.send(Change::Snapshot(all)).is_err() {
            return;
        }
        while let Ok(changes) = cache.changes_after(cursor, usize::MAX) {
            for change in &changes {
                cursor = change.revision;
                let message = match change.kind {
                    ChangeKind::Deleted => Change::Delete(object(&change.entry)),
                    _ => Change::Put(object(&change.entry)),
                };
                if sender.send(message).is_err() {
                    return;
                }
            }
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
            }
        }
    }
}

/// A custom object in another of its versions, with what that may not know: it may be on its way there and back. Its
/// subresources of another kind have none.
async fn in_version(app: &App, custom: &Custom, object: Value, gvr: &Gvr) -> Result<Value, StatusError> {
    if object["kind"] != *custom.versions.kind {
        return Ok(object);
    }
    let converted = custom.versions.convert_whole(app, vec![object], &gvr.api_version()).await?;
    Ok(converted.into_iter().next().unwrap_or_default())
}
