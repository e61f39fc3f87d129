//! What sets a kind apart from the generic path: defaults, validation, which part is status,
//! what may not change, which fields select.
//!
//! Everything here works on objects in memory. Object metadata (names, labels, annotations, owner
//! references, finalizers, uid, timestamps, generation, resourceVersion) is the generic path's own and
//! checked there for every kind alike: a strategy says only how a name has to look.

use std::borrow::Cow;

use futures::future::BoxFuture;
use keelson_api_types::{FieldError, Gvr, StatusError};
use serde_json::Value;

use crate::alloc::{Allocators, Reservation};
use crate::types::{Objects, UserInfo};

pub mod admissionregistration;
pub mod apiextensions;
pub mod apiregistration;
pub mod apps;
pub mod autoscaling;
pub mod batch;
pub mod certificates;
pub mod check;
pub mod common;
pub mod core;
pub mod edit;
pub mod flowcontrol;
pub mod networking;
pub mod pod;
pub mod policy;
pub mod rbac;
pub mod resource;
pub mod service;
pub mod storage;
mod storagemigration;
mod table;
#[cfg(test)]
mod tests;

pub use table::{FieldPaths, Row, Traits, for_resource};

/// Where and for whom a write happens.
pub struct Ctx<'a> {
    pub gvr: &'a Gvr,
    pub kind: &'a str,
    pub traits: &'a Traits,
    pub namespaced: bool,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub user: &'a UserInfo,
    pub dry_run: bool,
    pub objects: &'a dyn Objects,
    /// The server's cluster addresses and node ports.
    pub allocators: &'a Allocators,
}

/// A reservation that is being made; none for kinds that need nothing.
pub type Reserving<'a> = Option<BoxFuture<'a, Result<Reservation, StatusError>>>;

/// The names of fields that select, and their values.
pub type Selectable<'a> = Vec<(&'static str, Cow<'a, str>)>;

/// How long a deletion waits, as the strategy decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grace {
    /// Delete at once.
    Now,
    /// Set `deletionTimestamp` so many seconds ahead and wait for a second delete with 0.
    Seconds(i64),
}

/// One kind's peculiarities. Every method has the default that suits a kind without any.
pub trait Strategy: Send + Sync {
    /// Fills in what the user left out, on create, update and on reading older objects.
    fn default(&self, _object: &mut Value) {}

    /// Before admission on create; the default drops `status` when the kind has a status subresource.
    fn prepare_create(&self, ctx: &Ctx<'_>, object: &mut Value) {
        if ctx.traits.status {
            remove(object, "status");
        }
    }

    /// Before admission on update; the default keeps the stored `status`.
    fn prepare_update(&self, ctx: &Ctx<'_>, object: &mut Value, old: &Value) {
        if ctx.traits.status {
            carry(object, old, "status");
        }
    }

    /// Before admission on an update of `status`; the default keeps everything else but metadata.
    /// The generic path has already carried over the metadata a status update may not change.
    fn prepare_status_update(&self, _ctx: &Ctx<'_>, object: &mut Value, old: &Value) {
        keep_only(object, old, &["status"]);
    }

    /// The same for the other subresources that are updates of the object: `ephemeralcontainers`, `resize`,
    /// `approval`, `finalize`.
    fn prepare_subresource_update(&self, _ctx: &Ctx<'_>, _object: &mut Value, _old: &Value) {}

    /// As a deletion begins: finalizers and conditions that go with it.
    fn prepare_delete(&self, _object: &mut Value) {}

    /// Field errors of a new object, metadata aside.
    fn validate(&self, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// Field errors of a change, including whatever of [`Self::validate`] still applies.
    fn validate_update(&self, object: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate(object)
    }

    fn validate_status_update(&self, _object: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    fn validate_subresource_update(
        &self,
        _subresource: &str,
        _object: &Value,
        _old: &Value,
    ) -> Vec<FieldError> {
        Vec::new()
    }

    /// Deprecations and likely mistakes; sent as `Warning` headers.
    fn warnings(&self, _object: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// Fields beyond `metadata.name` and `metadata.namespace` that a field selector may name, with
    /// their values in this object. Every name must be present for every object.
    fn selectable_fields<'a>(&self, _object: &'a Value) -> Selectable<'a> {
        Vec::new()
    }

    /// The names of [`Self::selectable_fields`], to refuse the others.
    fn selectable_names(&self) -> &'static [&'static str] {
        &[]
    }

    /// The paths that [`Self::selectable_fields`] looks at, where they are not its names: nothing else of an object is
    /// read for it.
    fn selectable_sources(&self) -> &'static [&'static str] {
        self.selectable_names()
    }

    /// Changes outside the spec that count as well.
    fn also_changes_generation(&self, _object: &Value, _old: &Value) -> bool {
        false
    }

    /// The grace a delete gets; `requested` is `gracePeriodSeconds` of the options.
    fn grace(&self, _object: &Value, _requested: Option<i64>) -> Grace {
        Grace::Now
    }

    /// Takes what a new object needs from an allocator and writes it into the object.
    fn reserve_create<'a>(&self, _ctx: &'a Ctx<'_>, _object: &'a mut Value) -> Reserving<'a> {
        None
    }

    fn reserve_update<'a>(
        &self,
        _ctx: &'a Ctx<'_>,
        _object: &'a mut Value,
        _old: &'a Value,
    ) -> Reserving<'a> {
        None
    }

    /// After the object is gone from the store: gives back what it held.
    fn released<'a>(
        &self,
        _allocators: &'a Allocators,
        _objects: &'a dyn Objects,
        _old: &'a Value,
    ) -> Option<BoxFuture<'a, ()>> {
        None
    }
}

/// A kind without peculiarities.
pub struct Plain;

impl Strategy for Plain {}

/// Takes a top-level field away.
pub fn remove(object: &mut Value, field: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(field);
    }
}

/// Makes a top-level field of `object` what it is in `old`, absence included.
pub fn carry(object: &mut Value, old: &Value, field: &str) {
    let Some(map) = object.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => {
            map.insert(field.to_owned(), value.clone());
        }
        None => {
            map.remove(field);
        }
    }
}

/// Makes all of `object` but identity, metadata and `fields` what it is in `old`.
pub fn keep_only(object: &mut Value, old: &Value, fields: &[&str]) {
    let kept = |k: &str| matches!(k, "apiVersion" | "kind" | "metadata") || fields.contains(&k);
    let (Some(map), Some(before)) = (object.as_object_mut(), old.as_object()) else { return };
    map.retain(|k, _| kept(k));
    for (key, value) in before {
        if !kept(key) {
            map.insert(key.clone(), value.clone());
        }
    }
}
