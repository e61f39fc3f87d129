//! Server-side apply: who owns which field (`metadata.managedFields`), merging what a manager applies, and
//! tracking what other writes change.
//!
//! The rules are those of structured-merge-diff: lists merge by their keys or as sets, atomic values are owned
//! whole, a field that a manager no longer applies and nobody else owns is removed, and changing a field that
//! another manager owns is a conflict unless forced.

mod atom;
mod compare;
mod fields;
mod fresh;
mod managers;
mod merge;
mod remove;
mod scale;

use crate::prune;
use atom::Ref;
use compare::{Changes, Comparison};
use keelson_api_types::gofmt::quote;
use keelson_api_types::{Cause, StatusError, meta};
use keelson_schema::Type;
use managers::{Entry, Managers};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::sync::LazyLock;

pub use fields::{FieldSet, PathElement};
pub use fresh::owner_of_new;
pub use scale::{ReplicasIn, parent_managed, scale_managed};

/// The annotation in which client-side apply keeps what it applied.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object in a version, and that version's type.
pub type Converted<'a, T> = Result<Option<(T, &'a Type)>, StatusError>;

/// The versions of a kind whose objects differ by more than their `apiVersion`.
pub trait Versions: std::fmt::Debug {
    /// An object of version `from` as one of version `to`, with that version's type; `None` if there is no such version.
    ///
    /// # Errors
    /// It cannot be converted: an apply fails with this.
    fn convert(&self, object: &Value, from: &str, to: &str) -> Converted<'_, Value>;
}

/// Who writes, in which version, through which subresource (empty for none), and when (RFC 3339).
#[derive(Clone, Copy, Debug)]
pub struct Manager<'a> {
    pub name: &'a str,
    pub api_version: &'a str,
    pub subresource: &'a str,
    /// Fields that a write through this subresource does not change, and so cannot own.
    pub resets: &'a [&'a [&'a str]],
    /// Where the kind has several versions: what others own in theirs is compared there.
    pub versions: Option<&'a dyn Versions>,
    pub now: &'a str,
}

impl<'a> Manager<'a> {
    /// The object, which is of this manager's version, in the version of an entry; `None` if that is no more.
    fn view<'v>(&self, ty: &'v Type, object: &'v Value, version: &str) -> Converted<'v, Cow<'v, Value>>
    where
        'a: 'v,
    {
        match self.versions.filter(|_| version != self.api_version) {
            None => Ok(Some((Cow::Borrowed(object), ty))),
            Some(versions) => {
                let converted = versions.convert(object, self.api_version, version)?;
                Ok(converted.map(|(object, ty)| (Cow::Owned(object), ty)))
            }
        }
    }

    fn resets(&self) -> FieldSet {
        let mut set = FieldSet::default();
        self.resets.iter().for_each(|path| set.insert_names(path));
        set
    }
}

/// A field that another manager owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The owner in upstream's words: `"kubectl" using apps/v1 at 2026-01-02T03:04:05Z`.
    pub manager: String,
    pub path: String,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApplyError {
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The applied object is not one that can be applied.
    #[error("{0}")]
    BadRequest(String),
    /// The applied object does not fit the schema.
    #[error("failed to create typed patch object ({object}): {problem}")]
    Typed { object: String, problem: String },
    /// What others own cannot be compared in their version.
    #[error(transparent)]
    Conversion(#[from] StatusError),
}

impl ApplyError {
    /// The Status that upstream answers with.
    pub fn to_status(&self) -> StatusError {
        match self {
            ApplyError::Conflicts(conflicts) => {
                let cause = |c: &Conflict| Cause {
                    reason: "FieldManagerConflict".to_owned(),
                    message: format!("conflict with {}", c.manager),
                    field: c.path.clone(),
                };
                StatusError::apply_conflict(conflicts.iter().map(cause).collect(), self.to_string())
            }
            ApplyError::BadRequest(message) => StatusError::bad_request(message.as_str()),
            ApplyError::Conversion(error) => error.clone(),
            ApplyError::Typed { .. } => {
                StatusError::new(500, keelson_api_types::Reason::Unknown, self.to_string())
            }
        }
    }
}

/// Applies `applied` to the live object (None when there is none yet) and returns the merged object with its
/// `managedFields`. The caller prunes, defaults and validates the result. An apply that changes nothing returns
/// the live object as it was, apart from ownership.
pub fn apply(
    ty: &Type,
    live: Option<&Value>,
    applied: &Value,
    manager: &Manager,
    force: bool,
) -> Result<Value, ApplyError> {
    if !applied["metadata"]["managedFields"].is_null() {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".to_owned()));
    }
    let wrong = applied["apiVersion"].as_str().filter(|v| *v != manager.api_version);
    if let Some(wrong) = wrong {
        return Err(ApplyError::BadRequest(format!(
            "Incorrect version specified in apply patch. Specified patch version: {wrong}, expected: {}",
            manager.api_version
        )));
    }
    typed(ty, applied).map_err(|problem| ApplyError::Typed { object: describe(applied), problem })?;
    let live = without_managed(ty, live);
    let mut managers = Managers::decode(live.1);
    let live = &*live.0;
    if managers.is_empty() {
        let before = Manager { name: "before-first-apply", ..*manager };
        let empty = zero(ty);
        update(ty, &empty, live, &mut managers, &before)?;
    }
    managers.follow_types(ty, live, manager)?;
    match apply_with(ty, live, applied, managers.clone(), manager, force) {
        Err(ApplyError::Conflicts(conflicts)) if manager.name == "kubectl" => {
            let mine = last_applied_fields(ty, live, manager.api_version);
            let rest: Vec<Conflict> = conflicts.into_iter().filter(|c| !mine.contains(&c.path)).collect();
            if !rest.is_empty() {
                return Err(ApplyError::Conflicts(rest));
            }
            apply_with(ty, live, applied, managers, manager, true)
        }
        other => other,
    }
}

/// Whether an object fits its schema: whoever applies may not leave that to pruning.
///
/// # Errors
/// Upstream's words for what does not fit.
pub fn typed(ty: &Type, object: &Value) -> Result<(), String> {
    atom::validate(Ref::new(ty), object)
}

/// `live` with everything that `applied` sets, whoever owns it, as a mutating admission policy applies its
/// configuration.
///
/// # Errors
/// `applied` does not fit the schema, or sets something atomic: what it does not name would be lost.
pub fn overlay(ty: &Type, live: &Value, applied: &Value) -> Result<Value, String> {
    let at = Ref::new(ty);
    atom::validate(at, applied)
        .map_err(|e| format!("failed to convert patch object to typed object: {e}"))?;
    let mut atomic = Vec::new();
    atom::atomic_parts(at, applied, &mut String::new(), &mut atomic);
    if !atomic.is_empty() {
        let list = atomic.join(", ");
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {list}"
        ));
    }
    Ok(merge::merge(at, live, applied))
}

/// Records in `new`'s `managedFields` what this create, update or patch changed since `old` (None on create).
/// The entry keeps its time when nothing changed. A request that sends an empty list resets all ownership.
///
/// # Errors
/// What others own cannot be compared in their version; `new` is as it was.
pub fn track_update(
    ty: &Type,
    old: Option<&Value>,
    new: &mut Value,
    manager: &Manager,
) -> Result<(), StatusError> {
    let sent = new.get_mut("metadata").and_then(Value::as_object_mut).and_then(|m| m.remove("managedFields"));
    let stored = old.and_then(|o| o.get("metadata")).and_then(|m| m.get("managedFields"));
    // Only comparing in another version can fail.
    let kept = manager.versions.and_then(|_| sent.clone());
    let mut managers = match sent {
        Some(sent) if manager.subresource.is_empty() || Some(&sent) == stored => match &sent {
            Value::Array(list) if list.is_empty() || list == &[json!({})] => Managers::default(),
            _ => Managers::from_encoded(sent)
                .filter(|m| !m.is_empty())
                .unwrap_or_else(|| Managers::decode(stored)),
        },
        _ => Managers::decode(stored),
    };
    // An object that existed without ownership stays so until the first apply.
    if !managers.is_empty() || old.is_none() {
        let before = old.filter(|o| o.as_object().is_some_and(|m| !m.is_empty()));
        let before = before.map_or_else(|| Cow::Owned(zero(ty)), Cow::Borrowed);
        if let Err(error) = update(ty, &before, new, &mut managers, manager) {
            set_managed(new, kept);
            return Err(error);
        }
        managers.cap();
    }
    set_managed(new, managers.encode());
    Ok(())
}

/// The ownership side of a plain write from `old` to `new`.
fn update(
    ty: &Type,
    old: &Value,
    new: &Value,
    managers: &mut Managers,
    manager: &Manager,
) -> Result<(), StatusError> {
    let compared = compare::compare(Ref::new(ty), old, new).without(&manager.resets());
    if compared.is_same() {
        return Ok(());
    }
    managers.follow_types(ty, old, manager)?;
    managers.release(None, &Changes::new(ty, old, new, manager, managers, &compared)?);
    let set = compared.modified.union(compared.added).difference(&STRIPPED);
    if set.is_empty() {
        return Ok(());
    }
    let entry = managers.entry(manager, false);
    entry.owned.add(set);
    entry.time = Some(manager.now.to_owned());
    Ok(())
}

fn apply_with(
    ty: &Type,
    live: &Value,
    applied: &Value,
    mut managers: Managers,
    manager: &Manager,
    force: bool,
) -> Result<Value, ApplyError> {
    let root = Ref::new(ty);
    let reset = manager.resets();
    let merged = merge::merge(root, live, applied);
    let set = atom::field_set(root, applied).recursive_difference(&reset);
    let last = managers.find(manager, true).cloned();
    let was_there = last.is_some();
    managers.entry(manager, true).owned = set.into();
    let merged = match last {
        Some(last) => remove::prune(ty, merged, &managers, manager, &last)?,
        None => merged,
    };
    let compared = compare::compare(root, live, &merged).without(&reset);
    let changes = Changes::new(ty, live, &merged, manager, &managers, &compared)?;
    let conflicts = managers.conflicts(manager, &changes);
    if !force && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    managers.release(Some(manager), &changes);
    let unchanged = *live == merged;
    let entry = managers.entry(manager, true);
    entry.owned.remove(&STRIPPED);
    if !unchanged || !was_there {
        entry.time = Some(manager.now.to_owned());
    }
    managers.drop_empty();
    let mut out = if unchanged { live.clone() } else { merged };
    set_managed(&mut out, managers.encode());
    if manager.name == "kubectl" && meta::annotation(&out, LAST_APPLIED).is_some_and(|a| !a.is_empty()) {
        renew_last_applied(&mut out, applied);
    }
    Ok(out)
}

/// Fields that nobody owns.
static STRIPPED: LazyLock<FieldSet> = LazyLock::new(|| {
    let mut set = FieldSet::default();
    for path in [&["apiVersion"][..], &["kind"], &["metadata"]] {
        set.insert_names(path);
    }
    for name in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ] {
        set.insert_names(&["metadata", name]);
    }
    set
});

/// Paths that client-side apply set and nobody changed since: `kubectl apply --server-side` may take them over.
fn last_applied_fields(ty: &Type, live: &Value, api_version: &str) -> Vec<String> {
    let parsed =
        meta::annotation(live, LAST_APPLIED).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let Some(last) = parsed.filter(|v| v["apiVersion"] == api_version) else { return Vec::new() };
    let root = Ref::new(ty);
    let Comparison { removed, modified, added } = compare::compare(root, &last, live);
    let set = atom::field_set(root, &last).difference(&modified).difference(&added).difference(&removed);
    set.paths()
}

fn renew_last_applied(object: &mut Value, applied: &Value) {
    let mut applied = applied.clone();
    if let Some(annotations) = applied["metadata"]["annotations"].as_object_mut() {
        annotations.remove(LAST_APPLIED);
    }
    let text = format!("{}\n", keelson_api_types::gofmt::json(&applied));
    object["metadata"]["annotations"][LAST_APPLIED] = Value::String(text);
}

/// The live object without its managed fields, and those.
fn without_managed<'a>(ty: &Type, live: Option<&'a Value>) -> (Cow<'a, Value>, Option<&'a Value>) {
    let Some(live) = live.filter(|v| v.as_object().is_some_and(|m| !m.is_empty())) else {
        return (Cow::Owned(zero(ty)), None);
    };
    let managed = live.get("metadata").and_then(|m| m.get("managedFields"));
    if managed.is_none() {
        return (Cow::Borrowed(live), None);
    }
    let mut copy = Map::new();
    for (key, value) in live.as_object().into_iter().flatten() {
        let value = match value.as_object() {
            Some(fields) if key == "metadata" => {
                let kept = fields.iter().filter(|(k, _)| *k != "managedFields");
                Value::Object(kept.map(|(k, v)| (k.clone(), v.clone())).collect())
            }
            _ => value.clone(),
        };
        copy.insert(key.clone(), value);
    }
    (Cow::Owned(Value::Object(copy)), managed)
}

/// What an object of the type is before anything is set, nulls included.
fn zero(ty: &Type) -> Value {
    let mut value = json!({});
    prune::fill_zero(ty, &mut value);
    fill_null(ty, &mut value);
    value
}

/// Lists and maps that upstream writes as null exist before they have anything in them, so that whoever adds the
/// first item owns the item and not the list.
fn fill_null(ty: &Type, value: &mut Value) {
    let (Some(object), Some(map)) = (ty.as_object(), value.as_object_mut()) else { return };
    for field in &object.fields {
        match map.get_mut(&*field.name) {
            Some(child) => fill_null(&field.ty, child),
            None if field.emit_zero => {
                map.insert(field.name.clone().into_owned(), Value::Null);
            }
            None => {}
        }
    }
}

fn set_managed(object: &mut Value, managed: Option<Value>) {
    let Some(map) = object.as_object_mut() else { return };
    let metadata = map.entry("metadata").or_insert_with(|| json!({}));
    let Some(metadata) = metadata.as_object_mut() else { return };
    match managed {
        Some(list) => metadata.insert("managedFields".to_owned(), list),
        None => metadata.remove("managedFields"),
    };
}

fn describe(object: &Value) -> String {
    let gvk = keelson_api_types::Gvk::of(object).map(|g| g.to_string()).unwrap_or_default();
    let or_empty = |name: &str| meta::string(object, name).to_owned();
    format!("{}/{}; {gvk}", or_empty("namespace"), or_empty("name"))
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", only.manager, only.path);
    }
    let mut lines: Vec<String> = Vec::new();
    let mut current = None;
    for conflict in conflicts {
        if current != Some(&conflict.manager) {
            lines.push(format!("conflicts with {}:", conflict.manager));
            current = Some(&conflict.manager);
        }
        lines.push(format!("- {}", conflict.path));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// A manager as conflicts name it.
fn printed(entry: &Entry) -> String {
    let mut out = quote(&entry.manager);
    if !entry.subresource.is_empty() {
        out.push_str(&format!(" with subresource {}", quote(&entry.subresource)));
    }
    if !entry.applied {
        out.push_str(&format!(" using {}", entry.api_version));
    }
    out
}
