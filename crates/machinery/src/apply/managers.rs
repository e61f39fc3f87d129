//! `metadata.managedFields`, decoded.

use super::atom::{Ref, with_whole_atoms};
use super::compare::Changes;
use super::fields::FieldSet;
use super::{Conflict, Manager, printed};
use crate::prune::is_custom;
use keelson_api_types::StatusError;
use keelson_schema::Type;
use serde_json::{Map, Value, json};
use std::cell::OnceCell;

/// Upstream folds the oldest updaters into one entry beyond this number.
const MAX_UPDATERS: usize = 10;
const ANCIENT: &str = "ancient-changes";

#[derive(Clone, Debug, Default)]
pub(super) struct Managers {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) manager: String,
    pub(super) applied: bool,
    pub(super) api_version: String,
    pub(super) subresource: String,
    pub(super) time: Option<String>,
    pub(super) owned: Owned,
}

/// What an entry owns. Most writes change little of it: what was decoded stays as it was encoded until it changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Owned {
    set: OnceCell<FieldSet>,
    /// The canonical `fieldsV1` of the same set.
    encoded: Option<Value>,
}

impl From<FieldSet> for Owned {
    fn from(set: FieldSet) -> Owned {
        Owned { set: set.into(), encoded: None }
    }
}

impl Owned {
    fn decode(fields: Value) -> Option<Owned> {
        if FieldSet::is_canonical(&fields) {
            return Some(Owned { set: OnceCell::new(), encoded: Some(fields) });
        }
        FieldSet::from_value(&fields).map(Owned::from)
    }

    pub(super) fn set(&self) -> &FieldSet {
        self.set.get_or_init(|| self.encoded.as_ref().and_then(FieldSet::from_value).unwrap_or_default())
    }

    fn take(&mut self) -> FieldSet {
        self.set();
        std::mem::take(self).set.into_inner().unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        match &self.encoded {
            Some(encoded) => encoded.as_object().is_none_or(Map::is_empty),
            None => self.set().is_empty(),
        }
    }

    pub(super) fn add(&mut self, set: FieldSet) {
        if !self.encoded.as_ref().is_some_and(|encoded| set.is_within(encoded)) {
            *self = self.take().union(set).into();
        }
    }

    pub(super) fn remove(&mut self, set: &FieldSet) {
        if self.encoded.as_ref().is_none_or(|encoded| set.meets(encoded)) {
            *self = self.take().difference(set).into();
        }
    }

    fn into_value(self) -> Value {
        self.encoded.unwrap_or_else(|| self.set.get().map_or_else(|| json!({}), FieldSet::to_value))
    }
}

impl Entry {
    /// Applied entries are one per manager whatever the version; updates are one per version too.
    fn is(&self, manager: &Manager, applied: bool) -> bool {
        let name = if manager.name.is_empty() { "unknown" } else { manager.name };
        self.manager == name
            && self.applied == applied
            && self.subresource == manager.subresource
            && (applied || self.api_version == manager.api_version)
    }

    fn is_same(&self, other: &Entry) -> bool {
        (&self.manager, self.applied, &self.subresource)
            == (&other.manager, other.applied, &other.subresource)
            && (self.applied || self.api_version == other.api_version)
    }
}

impl Managers {
    /// What cannot be decoded counts as nothing, as upstream treats it.
    pub(super) fn decode(managed: Option<&Value>) -> Managers {
        managed.and_then(Managers::try_decode).unwrap_or_default()
    }

    pub(super) fn try_decode(managed: &Value) -> Option<Managers> {
        let fields = |entry: &Value| entry.get("fieldsV1").map(FieldSet::from_value);
        let entries = managed.as_array()?.iter();
        let entries = entries.map(|entry| {
            let set = fields(entry).unwrap_or_else(|| Some(FieldSet::default()))?;
            decode_entry(entry, set.into())
        });
        Managers::distinct(entries)
    }

    /// The same, keeping what stays as it is encoded.
    pub(super) fn from_encoded(managed: Value) -> Option<Managers> {
        let Value::Array(entries) = managed else { return None };
        let entries = entries.into_iter().map(|mut entry| {
            let fields = entry.as_object_mut().and_then(|map| map.remove("fieldsV1"));
            let owned = fields.map_or_else(|| Some(Owned::default()), Owned::decode)?;
            decode_entry(&entry, owned)
        });
        Managers::distinct(entries)
    }

    /// Of several entries of one manager the last counts, as upstream has it; none if one is missing.
    fn distinct(entries: impl Iterator<Item = Option<Entry>>) -> Option<Managers> {
        let mut out = Managers::default();
        for entry in entries {
            let entry = entry?;
            match out.entries.iter_mut().find(|known| known.is_same(&entry)) {
                Some(known) => *known = entry,
                None => out.entries.push(entry),
            }
        }
        Some(out)
    }

    pub(super) fn from_entries(entries: impl IntoIterator<Item = Entry>) -> Managers {
        Managers { entries: entries.into_iter().collect() }
    }

    pub(super) fn into_entries(self) -> impl Iterator<Item = Entry> {
        self.entries.into_iter()
    }

    /// Entries of one manager in one.
    pub(super) fn merged(self) -> Managers {
        let mut out = Managers::default();
        for entry in self.entries {
            let same = |e: &&mut Entry| {
                (&e.manager, e.applied, &e.subresource, &e.api_version)
                    == (&entry.manager, entry.applied, &entry.subresource, &entry.api_version)
            };
            match out.entries.iter_mut().find(same) {
                Some(known) => {
                    known.time = known.time.take().max(entry.time);
                    known.owned.add(entry.owned.set().clone());
                }
                None => out.entries.push(entry),
            }
        }
        out
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn find(&self, manager: &Manager, applied: bool) -> Option<&Entry> {
        self.entries.iter().find(|e| e.is(manager, applied))
    }

    /// The manager's entry, made when missing.
    pub(super) fn entry(&mut self, manager: &Manager, applied: bool) -> &mut Entry {
        let at = self.entries.iter().position(|e| e.is(manager, applied)).unwrap_or(self.entries.len());
        if at == self.entries.len() {
            self.entries.push(Entry {
                manager: if manager.name.is_empty() { "unknown" } else { manager.name }.to_owned(),
                applied,
                api_version: manager.api_version.to_owned(),
                subresource: manager.subresource.to_owned(),
                time: None,
                owned: Owned::default(),
            });
        }
        let entry = &mut self.entries[at];
        entry.api_version = manager.api_version.to_owned();
        entry
    }

    /// The versions of the entries, with repetitions.
    pub(super) fn versions(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.api_version.as_str())
    }

    /// What is owned in a version; everything if there is none.
    pub(super) fn fields_of(&self, version: Option<&str>) -> FieldSet {
        let here = self.entries.iter().filter(|e| version.is_none_or(|version| e.api_version == version));
        here.fold(FieldSet::default(), |all, e| all.union(e.owned.set().clone()))
    }

    /// What the change takes from managers other than the one that applies.
    pub(super) fn conflicts(&self, applier: &Manager, changes: &Changes<'_>) -> Vec<Conflict> {
        let mut out = Vec::new();
        for entry in self.entries.iter().filter(|e| !e.is(applier, true)) {
            let Some(change) = changes.of(&entry.api_version) else { continue };
            let changed = change.modified.clone().union(change.added.clone());
            let mut manager = printed(entry);
            if let Some(time) = entry.time.as_ref().filter(|_| !entry.applied) {
                manager.push_str(&format!(" at {time}"));
            }
            let paths = entry.owned.set().intersection(&changed).paths();
            out.extend(paths.into_iter().map(|path| Conflict { manager: manager.clone(), path }));
        }
        out.sort_by(|a, b| a.manager.cmp(&b.manager));
        out
    }

    /// Takes changed and removed fields from everyone but the applier.
    pub(super) fn release(&mut self, applier: Option<&Manager>, changes: &Changes<'_>) {
        for entry in &mut self.entries {
            if applier.is_some_and(|a| entry.is(a, true)) {
                continue;
            }
            match changes.of(&entry.api_version) {
                Some(change) => {
                    for set in [&change.modified, &change.added, &change.removed] {
                        entry.owned.remove(set);
                    }
                }
                None => entry.owned = Owned::default(),
            }
        }
        self.entries.retain(|e| !e.owned.is_empty() || applier.is_some_and(|a| e.is(a, true)));
    }

    /// Brings what is owned up to the types of now. Those of built-in kinds do not change.
    pub(super) fn follow_types(
        &mut self,
        ty: &Type,
        live: &Value,
        manager: &Manager<'_>,
    ) -> Result<(), StatusError> {
        for entry in self.entries.iter_mut().filter(|_| is_custom(ty)) {
            let Some((_, there)) = manager.view(ty, live, &entry.api_version)? else { continue };
            let set = with_whole_atoms(Ref::new(there), entry.owned.set());
            if set != *entry.owned.set() {
                entry.owned = set.into();
            }
        }
        Ok(())
    }

    pub(super) fn drop_empty(&mut self) {
        self.entries.retain(|e| !e.owned.is_empty());
    }

    /// Folds the oldest updaters of one version into one entry while there are too many.
    pub(super) fn cap(&mut self) {
        loop {
            let mut updaters: Vec<usize> =
                (0..self.entries.len()).filter(|i| !self.entries[*i].applied).collect();
            if updaters.len() <= MAX_UPDATERS {
                return;
            }
            updaters.sort_by(|a, b| {
                let (a, b) = (&self.entries[*a], &self.entries[*b]);
                (a.manager != ANCIENT, &a.time, &a.manager).cmp(&(b.manager != ANCIENT, &b.time, &b.manager))
            });
            let same = |a: &Entry, b: &Entry| a.api_version == b.api_version;
            let pair = updaters.iter().enumerate().find_map(|(n, first)| {
                let second =
                    updaters[n + 1..].iter().find(|s| same(&self.entries[*first], &self.entries[**s]))?;
                Some((*first, *second))
            });
            let Some((first, second)) = pair else { return };
            let taken = self.entries[second].clone();
            let bucket = &mut self.entries[first];
            bucket.manager = ANCIENT.to_owned();
            bucket.subresource = String::new();
            bucket.time = taken.time.clone().max(bucket.time.take());
            bucket.owned.add(taken.owned.set().clone());
            self.entries.remove(second);
        }
    }

    /// The list in upstream's order; None when there is nothing to say.
    pub(super) fn encode(mut self) -> Option<Value> {
        self.drop_empty();
        if self.entries.is_empty() {
            return None;
        }
        let key = |e: &Entry| {
            (!e.applied, e.time.clone(), e.manager.clone(), e.api_version.clone(), e.subresource.clone())
        };
        self.entries.sort_by_cached_key(key);
        Some(Value::Array(self.entries.into_iter().map(encode_entry).collect()))
    }
}

fn decode_entry(value: &Value, owned: Owned) -> Option<Entry> {
    let text = |k: &str| value.get(k).and_then(Value::as_str).unwrap_or_default().to_owned();
    let applied = match text("operation").as_str() {
        "Apply" => true,
        "Update" => false,
        _ => return None,
    };
    if text("apiVersion").is_empty() || text("fieldsType") != "FieldsV1" {
        return None;
    }
    Some(Entry {
        manager: text("manager"),
        applied,
        api_version: text("apiVersion"),
        subresource: text("subresource"),
        time: value.get("time").and_then(Value::as_str).map(str::to_owned),
        owned,
    })
}

fn encode_entry(entry: Entry) -> Value {
    let mut map = Map::new();
    map.insert("manager".to_owned(), entry.manager.into());
    map.insert("operation".to_owned(), if entry.applied { "Apply" } else { "Update" }.into());
    map.insert("apiVersion".to_owned(), entry.api_version.into());
    map.insert("fieldsType".to_owned(), "FieldsV1".into());
    map.insert("fieldsV1".to_owned(), entry.owned.into_value());
    if let Some(time) = entry.time {
        map.insert("time".to_owned(), time.into());
    }
    if !entry.subresource.is_empty() {
        map.insert("subresource".to_owned(), entry.subresource.into());
    }
    Value::Object(map)
}
