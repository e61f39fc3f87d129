//! What create, update, patch and the subresources that change an object have in common: from a decoded
//! object to durable bytes.

mod insert;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use keelson_api_types::{FieldError, StatusError};
use keelson_machinery::apply::Versions;
use keelson_store::{Expect, KeyValue, LeaseId, Write, WriteError};
use serde_json::Value;

use super::stored::Stored;
use crate::alloc::Reservation;
use crate::app::App;
use crate::authz::allow;
use crate::cache::splice_revision;
use crate::codec;
use crate::convert::{BuiltinVersions, Conversions};
use crate::meta;
use crate::options::WriteOptions;
use crate::registry::Resource;
use crate::strategies::{Ctx, Reserving};
use crate::subresources::scale;
use crate::types::{AdmissionRequest, Attributes, Operation, UserInfo};

/// The largest object the store takes in one request, as etcd's default has it.
const OBJECT_LIMIT: usize = 1_500_000;
const UPDATE_ATTEMPTS: usize = 64;

/// Where a write goes and on whose behalf.
pub struct Writer<'a> {
    pub app: &'a App,
    pub resource: &'a Arc<Resource>,
    pub user: &'a UserInfo,
    pub namespace: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub options: &'a WriteOptions,
    /// The server's own writes pass by admission.
    admitted: bool,
    /// Of a custom resource.
    conversions: Option<Conversions<'a>>,
}

/// What an update wants the object to be.
pub struct Change {
    pub object: Value,
    /// `managedFields` are as they shall be: the change has entered itself (apply has), or is nobody's.
    pub tracked: bool,
}

/// How an update ended.
pub struct Updated {
    pub stored: Stored,
    pub created: bool,
    /// The update took away the last finalizer of a deleted object.
    pub deleted: bool,
}

impl<'a> Writer<'a> {
    pub fn new(
        app: &'a App,
        resource: &'a Arc<Resource>,
        user: &'a UserInfo,
        namespace: &'a str,
        subresource: &'a str,
        options: &'a WriteOptions,
    ) -> Self {
        let conversions = resource.custom.as_ref().map(|custom| Conversions::new(&custom.versions));
        Self { app, resource, user, namespace, subresource, options, admitted: false, conversions }
    }

    /// For what admission has seen already, or need not see.
    pub fn admitted(self) -> Self {
        Self { admitted: true, ..self }
    }

    /// The kind's versions, where their objects differ by more than `apiVersion`.
    pub fn versions(&self) -> Option<&dyn Versions> {
        match &self.conversions {
            Some(conversions) => Some(conversions),
            None => BuiltinVersions::of(&self.resource.storage).map(|versions| versions as &dyn Versions),
        }
    }

    /// What `act`, which may convert objects, comes to.
    async fn converting<T>(&self, mut act: impl FnMut() -> T) -> T {
        match &self.conversions {
            Some(conversions) => conversions.settle(self.app, act).await,
            None => act(),
        }
    }

    /// Enters a write into `managedFields`. Where those of others cannot be compared in their versions, nobody owns
    /// anything any more, as upstream has it.
    async fn track(&self, old: Option<&Value>, new: &mut Value) {
        if let Err(error) = self.converting(|| codec::track(self, old, new)).await {
            tracing::warn!(%error, resource = %self.resource.gvr, "cannot track who owns an object's fields");
            meta::meta_mut(new).remove("managedFields");
        }
    }
}

impl Writer<'_> {
    fn ctx<'b>(&'b self, name: &'b str) -> Ctx<'b> {
        Ctx {
            gvr: &self.resource.gvr,
            kind: &self.resource.gvk.kind,
            traits: &self.resource.traits,
            namespaced: self.resource.namespaced,
            subresource: self.subresource,
            namespace: self.namespace,
            name,
            user: self.user,
            dry_run: self.options.dry_run,
            objects: self.app,
            allocators: &self.app.allocators,
        }
    }

    /// One of admission's two passes. `name` is empty while it is still to be generated.
    async fn admission(
        &self,
        op: Operation,
        name: &str,
        object: &mut Value,
        old: Option<&Value>,
        mutate: bool,
        warnings: &mut Vec<String>,
    ) -> Result<(), StatusError> {
        if self.admitted {
            return Ok(());
        }
        if self.subresource != "scale" {
            return self.admission_of(op, name, object, old, mutate, warnings).await;
        }
        // What is admitted is the Scale, not what it scales.
        let mut scale = scale::scale_of(self.resource, object);
        let old = old.map(|old| scale::scale_of(self.resource, old));
        self.admission_of(op, name, &mut scale, old.as_ref(), mutate, warnings).await?;
        if mutate {
            scale::set_replicas(self.resource, name, object, &scale)?;
        }
        Ok(())
    }

    async fn admission_of(
        &self,
        op: Operation,
        name: &str,
        object: &mut Value,
        old: Option<&Value>,
        mutate: bool,
        warnings: &mut Vec<String>,
    ) -> Result<(), StatusError> {
        let admission = self.app.security()?.admission();
        let own_kind = self.resource.subresource(self.subresource).map(|s| &s.gvk);
        let mut request = AdmissionRequest {
            op,
            user: self.user,
            gvk: own_kind.unwrap_or(&self.resource.gvk),
            gvr: &self.resource.gvr,
            subresource: self.subresource,
            namespace: self.namespace,
            name,
            object: Some(object),
            old,
            options: &options_of(op, &self.options.object),
            dry_run: self.options.dry_run,
            warnings: Vec::new(),
            annotations: Default::default(),
            reinvocation: Default::default(),
        };
        let since = std::time::Instant::now();
        let outcome = match mutate {
            true => admission.admit(&mut request).await,
            false => admission.validate(&mut request).await,
        };
        self.app.requests.admitted(op, mutate, outcome.is_err(), since);
        warnings.append(&mut request.warnings);
        outcome
    }

    /// Keeps or gives back what a write has reserved.
    async fn settle(&self, reservation: Option<Reservation>, done: bool) {
        match reservation {
            Some(reservation) if done && !self.options.dry_run => reservation.commit(self.app).await,
            Some(reservation) => drop(reservation.roll_back(self.app).await),
            None => {}
        }
    }

    /// What the object hangs on in the store: Events are forgotten in time.
    pub async fn lease(&self) -> Result<Option<LeaseId>, StatusError> {
        match &*self.resource.storage {
            "events" => self.app.event_leases.get().await.map(Some),
            _ => Ok(None),
        }
    }

    /// Gives back what an object held that is gone.
    pub async fn release(&self, old: &Value) {
        if let Some(released) = self.resource.strategy.released(&self.app.allocators, self.app, old) {
            released.await;
        }
    }

    fn check_size(&self, bytes: &Bytes) -> Result<(), StatusError> {
        if bytes.len() > OBJECT_LIMIT {
            return Err(StatusError::request_too_large(format!("limit is {OBJECT_LIMIT}")));
        }
        Ok(())
    }

    fn refuse(&self, name: &str, errors: Vec<FieldError>) -> Result<(), StatusError> {
        if errors.is_empty() {
            return Ok(());
        }
        Err(StatusError::invalid(&self.resource.group_kind(), name, errors))
    }

    pub fn not_found(&self, name: &str) -> StatusError {
        StatusError::not_found(&self.resource.group_resource(), name)
    }

    /// Changes an object: `change` makes the new one from the stored one, and is asked again when that was
    /// not the latest. With `creates`, it is asked with `None` for an object that does not exist.
    pub async fn update(
        &self,
        name: &str,
        creates: bool,
        warnings: &mut Vec<String>,
        mut change: impl FnMut(Option<&Value>) -> Result<Change, StatusError> + Send,
    ) -> Result<Updated, StatusError> {
        let mut latest = false;
        let mut current = self.current(name, latest).await?;
        for _ in 0..UPDATE_ATTEMPTS {
            let Some(stored) = &current else {
                if !creates {
                    return Err(self.not_found(name));
                }
                let new = self.converting(|| change(None)).await?;
                self.may_create(name).await?;
                let stored = self.create_change(new, warnings).await?;
                return Ok(Updated { stored, created: true, deleted: false });
            };
            let mut said = Vec::new();
            match self.attempt(name, stored, &mut said, &mut change).await {
                Ok(Attempt::Done(updated)) => {
                    warnings.append(&mut said);
                    return Ok(updated);
                }
                Ok(Attempt::Lost(now)) => {
                    current = self.found(name, now.as_ref()).await?;
                    latest = true;
                }
                Ok(Attempt::Failed(error)) => {
                    warnings.append(&mut said);
                    return Err(error);
                }
                // What was refused may have been right for the latest state.
                Err(error) if !latest => {
                    latest = true;
                    let now = self.current(name, true).await?;
                    if now.as_ref().map(|s| s.revision) == Some(stored.revision) {
                        warnings.append(&mut said);
                        return Err(error);
                    }
                    current = now;
                }
                Err(error) => {
                    warnings.append(&mut said);
                    return Err(error);
                }
            }
        }
        Err(StatusError::stale(&self.resource.group_resource(), name))
    }

    /// Who may update or patch may not therefore create.
    async fn may_create(&self, name: &str) -> Result<(), StatusError> {
        if self.admitted {
            return Ok(());
        }
        let gvr = &self.resource.gvr;
        let attributes = Attributes {
            subresource: self.subresource,
            namespace: self.namespace,
            name,
            ..Attributes::resource(self.user, "create", &gvr.group, &gvr.version, &gvr.resource)
        };
        allow(self.app.authorizer()?, &attributes).await
    }

    async fn attempt(
        &self,
        name: &str,
        stored: &Stored,
        warnings: &mut Vec<String>,
        change: &mut (impl FnMut(Option<&Value>) -> Result<Change, StatusError> + Send),
    ) -> Result<Attempt, StatusError> {
        let old = stored.parse()?;
        let Change { object: mut new, tracked } = self.converting(|| change(Some(&old))).await?;
        self.resource.strategy.default(&mut new);
        self.prepare_meta(name, &mut new, &old)?;
        warnings.extend(meta::dedup_owners(&mut new, false));
        if !tracked {
            self.track(Some(&old), &mut new).await;
        }
        self.prepare(name, &mut new, &old);
        self.admission(Operation::Update, name, &mut new, Some(&old), true, warnings).await?;
        warnings.extend(meta::dedup_owners(&mut new, true));
        self.resource.strategy.default(&mut new);
        // A pod's node is assigned, not changed by its user.
        if self.subresource != "binding" {
            self.count_generation(&mut new, &old);
        }
        self.refuse(name, self.validate(&new, &old))?;
        warnings.extend(self.resource.strategy.warnings(&new, Some(&old)));
        let ctx = self.ctx(name);
        let reservation = match self.subresource {
            "" => reserved(self.resource.strategy.reserve_update(&ctx, &mut new, &old)).await?,
            _ => None,
        };
        let write = async {
            self.admission(Operation::Update, name, &mut new, Some(&old), false, warnings).await?;
            self.replace(name, stored, &new, &old).await
        };
        let outcome = write.await;
        self.settle(reservation, matches!(outcome, Ok(Attempt::Done(_)))).await;
        outcome
    }

    fn prepare_meta(&self, name: &str, new: &mut Value, old: &Value) -> Result<(), StatusError> {
        let meta = meta::meta_mut(new);
        meta.entry("name").or_insert_with(|| name.into());
        meta.remove("resourceVersion");
        meta::match_namespace(new, self.resource.namespaced, self.namespace)?;
        meta::prepare_update(new, old);
        Ok(())
    }

    /// Takes over from the old object what this kind of update may not touch.
    fn prepare(&self, name: &str, new: &mut Value, old: &Value) {
        let (strategy, ctx) = (&self.resource.strategy, self.ctx(name));
        match self.subresource {
            "" | "scale" => strategy.prepare_update(&ctx, new, old),
            "status" => {
                meta::prepare_status_update(new, old, self.resource.custom.is_some());
                strategy.prepare_status_update(&ctx, new, old);
            }
            _ => strategy.prepare_subresource_update(&ctx, new, old),
        }
    }

    fn count_generation(&self, new: &mut Value, old: &Value) {
        let traits = &self.resource.traits;
        let beside = self.subresource.is_empty() && self.resource.strategy.also_changes_generation(new, old);
        if traits.generation && (beside || meta::spec_changed(new, old, !traits.status)) {
            bump(new, old);
        }
    }

    fn validate(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = meta::validate_update(self.resource, new, old);
        let strategy = &self.resource.strategy;
        errors.extend(match self.subresource {
            "" | "scale" => strategy.validate_update(new, old),
            "status" => strategy.validate_status_update(new, old),
            other => strategy.validate_subresource_update(other, new, old),
        });
        errors
    }

    /// Writes the new state over the old one, or deletes an object whose last finalizer is gone.
    async fn replace(
        &self,
        name: &str,
        stored: &Stored,
        new: &Value,
        old: &Value,
    ) -> Result<Attempt, StatusError> {
        let bytes = self.encode(new).await?;
        let gone = meta::is_deleting(old)
            && meta::grace_seconds(old).unwrap_or(0) == 0
            && super::delete::is_finalized(self.resource, new);
        let done = |stored, deleted| Ok(Attempt::Done(Updated { stored, created: false, deleted }));
        let key = self.resource.store_key(self.namespace, name);
        let same = splice_revision(&bytes, stored.revision) == stored.raw;
        if !gone && same && self.is_current(&key, stored.revision).await {
            return done(stored.clone(), false);
        }
        self.check_size(&bytes)?;
        if self.options.dry_run {
            let bytes = Bytes::from(codec::encode(new));
            return done(Stored::new(splice_revision(&bytes, stored.revision), stored.revision), gone);
        }
        let write = Write {
            key,
            expect: Expect::Revision(stored.revision),
            value: (!gone).then(|| bytes.clone()),
            lease: self.lease().await?,
        };
        match self.app.caches.store().write(write).await {
            Ok(written) => {
                if gone {
                    self.release(old).await;
                }
                done(self.written(name, &bytes, written.revision).await?, gone)
            }
            Err(WriteError::Conflict { current }) => Ok(Attempt::Lost(current)),
            Err(error) => Ok(Attempt::Failed(write_error(&error))),
        }
    }
}

async fn reserved(reserving: Reserving<'_>) -> Result<Option<Reservation>, StatusError> {
    match reserving {
        Some(reserving) => reserving.await.map(Some),
        None => Ok(None),
    }
}

/// The options as those of the operation that it came to: a patch is a create or an update.
fn options_of(op: Operation, options: &Value) -> Cow<'_, Value> {
    let kind = if op == Operation::Create { "CreateOptions" } else { "UpdateOptions" };
    if options["kind"] == kind {
        return Cow::Borrowed(options);
    }
    let mut options = options.clone();
    if let Some(map) = options.as_object_mut() {
        map.insert("kind".into(), kind.into());
        map.remove("force");
    }
    Cow::Owned(options)
}

impl Writer<'_> {
    /// Whether writing what the store had at a revision would change nothing. What another has changed since, or would
    /// be stored otherwise now (with another key, say), is written.
    async fn is_current(&self, key: &str, revision: u64) -> bool {
        match &self.app.encrypted {
            Some(store) => store.is_current(key, revision).await,
            None => {
                let got = self.app.caches.store().get(key).await;
                got.is_ok_and(|got| got.kv.is_some_and(|kv| kv.mod_revision == revision))
            }
        }
    }
}

fn bump(new: &mut Value, old: &Value) {
    let next = meta::generation(old) + 1;
    meta::meta_mut(new).insert("generation".into(), next.into());
}

enum Attempt {
    Done(Updated),
    /// Someone else was faster; the state they left.
    Lost(Option<KeyValue>),
    /// It may have happened: another attempt might do it twice.
    Failed(StatusError),
}

/// The store's refusals as a client sees them.
pub fn write_error(error: &WriteError) -> StatusError {
    match error {
        WriteError::TooLarge { limit, .. } => StatusError::request_too_large(format!("limit is {limit}")),
        other => {
            tracing::error!(error = other as &dyn std::error::Error, "a write failed");
            match other {
                // It may have happened: nothing invites to send it again.
                WriteError::Unavailable(_) => StatusError::service_unavailable(other.to_string()),
                _ => StatusError::internal(other),
            }
        }
    }
}
