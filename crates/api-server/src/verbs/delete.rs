//! DELETE of an object and of a collection: grace, finalizers and preconditions as upstream has them.

use std::sync::Arc;

use futures::TryStreamExt;
use http::StatusCode;
use keelson_api_types::meta::{parse_time, rfc3339};
use keelson_api_types::status::Details;
use keelson_api_types::{Status, StatusError};
use keelson_store::{Expect, Write, WriteError};
use serde_json::Value;

use super::list;
use super::stored::Stored;
use super::write::{Writer, write_error};
use crate::app::{App, Call};
use crate::body::Response;
use crate::cache::replace_revision;
use crate::codec;
use crate::meta::{self, FOREGROUND, ORPHAN};
use crate::options::{DeleteOptions, ListOptions, Propagation, WriteOptions};
use crate::registry::Resource;
use crate::response;
use crate::strategies::Grace;
use crate::types::{AdmissionRequest, Operation, UserInfo};

const ATTEMPTS: usize = 64;
/// Deletes of one deletecollection under way at a time.
const WORKERS: usize = 16;

pub async fn serve(
    app: &Arc<App>,
    call: &mut Call,
    resource: &Arc<Resource>,
) -> Result<Response, StatusError> {
    let presenter = call.presenter(resource)?;
    let options = codec::delete_options(call).await?;
    let name = call.info.name.clone();
    let namespace = if resource.namespaced { call.info.namespace.clone() } else { String::new() };
    let mut warnings = Vec::new();
    let outcome = delete(app, resource, &call.user, &namespace, &name, &options, false, &mut warnings).await;
    call.warnings.append(&mut warnings);
    let outcome = outcome?;
    if outcome.gone && !resource.traits.returns_deleted {
        let status = deleted_status(resource, &name, outcome.uid)?;
        return Ok(response::value(&call.headers, StatusCode::OK, presenter.accepted, &status));
    }
    Ok(presenter.respond(&call.headers, StatusCode::OK, &outcome.stored.entry()))
}

fn deleted_status(resource: &Resource, name: &str, uid: String) -> Result<Value, StatusError> {
    let mut status = Status::success();
    status.details = Some(Details {
        name: name.to_owned(),
        group: resource.gvr.group.clone(),
        kind: resource.gvr.resource.clone(),
        uid,
        ..Details::default()
    });
    serde_json::to_value(&status).map_err(StatusError::internal)
}

pub struct Deleted {
    /// The last state, or the one it ends in.
    pub stored: Stored,
    pub uid: String,
    /// Out of the store; otherwise the object lingers until its finalizers or its grace end.
    pub gone: bool,
}

/// What one attempt decides to do with the stored object.
enum Step {
    Remove,
    /// Store it marked, and remove it as well if nothing holds it (a graceful kind deleted with 0).
    Mark {
        object: Value,
        remove: bool,
    },
    /// It is being deleted already and this changes nothing.
    Pending,
}

/// Deletes an object or starts its deletion.
#[allow(clippy::too_many_arguments)]
pub async fn delete(
    app: &App,
    resource: &Arc<Resource>,
    user: &UserInfo,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
    admitted: bool,
    warnings: &mut Vec<String>,
) -> Result<Deleted, StatusError> {
    let write_options = WriteOptions::server(options.dry_run, &options.object);
    let writer = Writer::new(app, resource, user, namespace, "", &write_options).admitted();
    let not_found = || writer.not_found(name);
    let mut current = writer.current(name, false).await?;
    let mut latest = false;
    let mut asked = admitted;
    for _ in 0..ATTEMPTS {
        let stored = match &current {
            Some(stored) => stored.clone(),
            None => return Err(not_found()),
        };
        let old = stored.parse()?;
        if let Err(error) = preconditions(resource, name, &old, options) {
            if latest {
                return Err(error);
            }
            latest = true;
            current = writer.current(name, true).await?;
            continue;
        }
        if !asked {
            admit(app, resource, user, namespace, name, &old, options, warnings).await?;
            asked = true;
        }
        let ended = |stored, gone| Deleted { stored, uid: meta::text(&old, "uid").to_owned(), gone };
        let lost = match decide(resource, old.clone(), options) {
            Step::Pending => return Ok(ended(stored, false)),
            Step::Remove => match remove(&writer, name, &stored, &old).await? {
                Ok(last) => return Ok(ended(last, true)),
                Err(now) => now,
            },
            Step::Mark { object, remove: then_remove } => {
                match mark(&writer, name, &stored, &object).await? {
                    Ok(marked) if !then_remove => return Ok(ended(marked, false)),
                    Ok(marked) => match remove(&writer, name, &marked, &object).await? {
                        Ok(last) => return Ok(ended(last, true)),
                        // Someone else has removed it in between, which is what was asked for.
                        Err(None) => return Ok(ended(marked, true)),
                        Err(now) => now,
                    },
                    Err(now) => now,
                }
            }
        };
        latest = true;
        current = lost;
    }
    Err(StatusError::stale(&resource.group_resource(), name))
}

#[allow(clippy::too_many_arguments)]
async fn admit(
    app: &App,
    resource: &Resource,
    user: &UserInfo,
    namespace: &str,
    name: &str,
    old: &Value,
    options: &DeleteOptions,
    warnings: &mut Vec<String>,
) -> Result<(), StatusError> {
    let admission = app.security()?.admission();
    let mut request = AdmissionRequest {
        op: Operation::Delete,
        user,
        gvk: &resource.gvk,
        gvr: &resource.gvr,
        subresource: "",
        namespace,
        name,
        object: None,
        old: Some(old),
        options: &options.object,
        dry_run: options.dry_run,
        warnings: Vec::new(),
        annotations: Default::default(),
        reinvocation: Default::default(),
    };
    let outcome = match admission.admit(&mut request).await {
        Ok(()) => admission.validate(&mut request).await,
        refused => refused,
    };
    warnings.append(&mut request.warnings);
    outcome
}

fn preconditions(
    resource: &Resource,
    name: &str,
    old: &Value,
    options: &DeleteOptions,
) -> Result<(), StatusError> {
    let check = |what: &str, field: &str, wanted: &Option<String>| {
        let actual = meta::text(old, field);
        match wanted {
            Some(wanted) if wanted != actual => {
                let cause = format!(
                    "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {actual}"
                );
                Err(StatusError::conflict(&resource.group_resource(), name, cause))
            }
            _ => Ok(()),
        }
    };
    check("UID", "uid", &options.precondition_uid)?;
    check("ResourceVersion", "resourceVersion", &options.precondition_revision)
}

fn decide(resource: &Resource, mut object: Value, options: &DeleteOptions) -> Step {
    meta::meta_mut(&mut object).remove("resourceVersion");
    let requested = options.grace_period_seconds.map(|s| if s < 0 { 1 } else { s });
    let finalizers = wanted_finalizers(resource, &object, options);
    let changed = finalizers.as_ref().is_some();
    let deleting = meta::is_deleting(&object);
    let mut graceful = None;
    if deleting {
        let pending = meta::grace_seconds(&object).unwrap_or(0);
        if pending > 0 {
            match requested {
                Some(seconds) if seconds < pending => {
                    shorten(&mut object, pending, seconds);
                    graceful = Some(seconds);
                }
                _ => return Step::Pending,
            }
        }
    } else if let Grace::Seconds(seconds) = resource.strategy.grace(&object, requested) {
        mark_deleting(&mut object, seconds);
        graceful = Some(seconds);
    }
    if let Some(finalizers) = &finalizers {
        meta::set_finalizers(&mut object, finalizers);
    }
    if !deleting {
        resource.strategy.prepare_delete(&mut object);
    }
    let emptying = begin_namespace(resource, &mut object);
    let held = emptying || !meta::finalizers(&object).is_empty();
    match graceful {
        Some(seconds) => Step::Mark { object, remove: seconds == 0 && !held },
        None if held && deleting && !changed => Step::Pending,
        None if held => {
            if !deleting {
                mark_deleting(&mut object, 0);
            }
            Step::Mark { object, remove: false }
        }
        None => Step::Remove,
    }
}

/// A namespace is emptied first: it ends as Terminating until its own finalizers are gone.
fn begin_namespace(resource: &Resource, object: &mut Value) -> bool {
    if is_finalized(resource, object) || &*resource.storage != "namespaces" {
        return false;
    }
    if let Some(map) = object.as_object_mut() {
        let status = map.entry("status").or_insert_with(|| serde_json::json!({}));
        status["phase"] = "Terminating".into();
    }
    object["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty())
}

/// Whether nothing holds a deleted object any longer.
pub fn is_finalized(resource: &Resource, object: &Value) -> bool {
    let empty = |part: &str| {
        let finalizers = object.get(part).and_then(|p| p.get("finalizers")).and_then(Value::as_array);
        finalizers.is_none_or(Vec::is_empty)
    };
    empty("metadata") && (&*resource.storage != "namespaces" || empty("spec"))
}

fn mark_deleting(object: &mut Value, seconds: i64) {
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    let meta = meta::meta_mut(object);
    meta.insert("deletionTimestamp".into(), rfc3339(at).into());
    meta.insert("deletionGracePeriodSeconds".into(), seconds.into());
    if meta::generation(object) > 0 {
        meta::bump_generation(object);
    }
}

/// Moves the end of a pending deletion closer.
fn shorten(object: &mut Value, pending: i64, seconds: i64) {
    let ends = parse_time(meta::text(object, "deletionTimestamp")).unwrap_or_else(jiff::Timestamp::now);
    let at = ends - jiff::SignedDuration::from_secs(pending - seconds);
    let meta = meta::meta_mut(object);
    meta.insert("deletionTimestamp".into(), rfc3339(at).into());
    meta.insert("deletionGracePeriodSeconds".into(), seconds.into());
}

/// The finalizers that the options' propagation asks for, if they differ from what is there.
fn wanted_finalizers(resource: &Resource, object: &Value, options: &DeleteOptions) -> Option<Vec<String>> {
    let present = meta::finalizers(object);
    let orphan = match (options.orphan_dependents, options.propagation) {
        (Some(orphan), _) => orphan,
        (None, Some(policy)) => policy == Propagation::Orphan,
        (None, None) if present.contains(&ORPHAN) => true,
        (None, None) if present.contains(&FOREGROUND) => false,
        (None, None) => resource.traits.orphans,
    };
    let foreground = match (options.orphan_dependents, options.propagation) {
        (Some(_), _) => false,
        (None, Some(policy)) => policy == Propagation::Foreground,
        (None, None) => present.contains(&FOREGROUND) && !present.contains(&ORPHAN),
    };
    let mut wanted: Vec<String> =
        present.iter().filter(|f| !matches!(**f, ORPHAN | FOREGROUND)).map(|f| (*f).to_owned()).collect();
    wanted.extend(orphan.then(|| ORPHAN.to_owned()));
    wanted.extend(foreground.then(|| FOREGROUND.to_owned()));
    let same = wanted.len() == present.len() && present.iter().all(|f| wanted.iter().any(|w| w == f));
    (!same).then_some(wanted)
}

/// What the store holds instead, when someone else was faster.
type Lost = Option<Stored>;

async fn remove(
    writer: &Writer<'_>,
    name: &str,
    stored: &Stored,
    old: &Value,
) -> Result<Result<Stored, Lost>, StatusError> {
    if writer.options.dry_run {
        return Ok(Ok(stored.clone()));
    }
    let key = writer.resource.store_key(writer.namespace, name);
    let write = Write { key, expect: Expect::Revision(stored.revision), value: None, lease: None };
    match writer.app.caches.store().write(write).await {
        Ok(written) => {
            writer.release(old).await;
            let bytes = replace_revision(&stored.bytes, written.revision);
            Ok(Ok(Stored::new(bytes, written.revision)))
        }
        Err(WriteError::Conflict { current }) => Ok(Err(writer.found(name, current.as_ref()).await?)),
        Err(error) => Err(write_error(&error)),
    }
}

async fn mark(
    writer: &Writer<'_>,
    name: &str,
    stored: &Stored,
    object: &Value,
) -> Result<Result<Stored, Lost>, StatusError> {
    let bytes = writer.encode(object).await?;
    if writer.options.dry_run {
        let bytes = bytes::Bytes::from(codec::encode(object));
        let revision = stored.revision;
        return Ok(Ok(Stored::new(crate::cache::splice_revision(&bytes, revision), revision)));
    }
    let write = Write {
        key: writer.resource.store_key(writer.namespace, name),
        expect: Expect::Revision(stored.revision),
        value: Some(bytes.clone()),
        lease: writer.lease().await?,
    };
    match writer.app.caches.store().write(write).await {
        Ok(written) => Ok(Ok(writer.written(name, &bytes, written.revision).await?)),
        Err(WriteError::Conflict { current }) => Ok(Err(writer.found(name, current.as_ref()).await?)),
        Err(error) => Err(write_error(&error)),
    }
}

/// Deletes all that the selectors select, and answers with the list of it.
pub async fn serve_collection(
    app: &Arc<App>,
    call: &mut Call,
    resource: &Arc<Resource>,
) -> Result<Response, StatusError> {
    let presenter = call.presenter(resource)?;
    let options = codec::delete_options(call).await?;
    let mut list_options = ListOptions::parse(&call.query, &call.info)?;
    list_options.limit = 0;
    let namespace = if resource.namespaced { call.info.namespace.clone() } else { String::new() };
    let (meta, entries) = list::read(app, resource, &namespace, &list_options).await?;
    let user = &call.user;
    let said = parking_lot::Mutex::new(Vec::new());
    let outcome = futures::stream::iter(entries.iter().cloned().map(Ok::<_, StatusError>))
        .try_for_each_concurrent(WORKERS, |entry| {
            let options = &options;
            let said = &said;
            async move {
                let mut warnings = Vec::new();
                let (namespace, name) = (entry.namespace(), entry.name());
                let outcome =
                    delete(app, resource, user, namespace, name, options, false, &mut warnings).await;
                said.lock().append(&mut warnings);
                match outcome {
                    Err(error) if error.code() != 404 => Err(error),
                    _ => Ok(()),
                }
            }
        })
        .await;
    call.warnings.append(&mut said.into_inner());
    outcome?;
    Ok(presenter.list(&call.headers, &meta, entries))
}
