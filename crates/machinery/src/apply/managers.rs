//! `metadata.managedFields`, decoded.

use super::compare::Changes;
use super::fields::FieldSet;
use super::{Conflict, Manager, printed};
use serde_json::{Map, Value, json};

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
    pub(super) set: FieldSet,
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
}

impl Managers {
    /// What cannot be decoded counts as nothing, as upstream treats it.
    pub(super) fn decode(managed: Option<&Value>) -> Managers {
        managed.and_then(Managers::try_decode).unwrap_or_default()
    }

    pub(super) fn try_decode(managed: &Value) -> Option<Managers> {
        let entries = managed.as_array()?.iter().map(decode_entry).collect::<Option<Vec<_>>>()?;
        Some(Managers { entries })
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
                    known.set = std::mem::take(&mut known.set).union(entry.set);
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
                set: FieldSet::default(),
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
        here.fold(FieldSet::default(), |all, e| all.union(e.set.clone()))
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
            let paths = entry.set.intersection(&changed).paths();
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
            let set = std::mem::take(&mut entry.set);
            if let Some(change) = changes.of(&entry.api_version) {
                entry.set =
                    set.difference(&change.modified).difference(&change.added).difference(&change.removed);
            }
        }
        self.entries.retain(|e| !e.set.is_empty() || applier.is_some_and(|a| e.is(a, true)));
    }

    pub(super) fn drop_empty(&mut self) {
        self.entries.retain(|e| !e.set.is_empty());
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
            bucket.set = std::mem::take(&mut bucket.set).union(taken.set);
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
        Some(Value::Array(self.entries.iter().map(encode_entry).collect()))
    }
}

fn decode_entry(value: &Value) -> Option<Entry> {
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
        set: value.get("fieldsV1").map_or_else(|| Some(FieldSet::default()), FieldSet::from_value)?,
    })
}

fn encode_entry(entry: &Entry) -> Value {
    let mut map = Map::new();
    map.insert("manager".to_owned(), json!(entry.manager));
    map.insert("operation".to_owned(), json!(if entry.applied { "Apply" } else { "Update" }));
    map.insert("apiVersion".to_owned(), json!(entry.api_version));
    map.insert("fieldsType".to_owned(), json!("FieldsV1"));
    map.insert("fieldsV1".to_owned(), entry.set.to_value());
    if let Some(time) = &entry.time {
        map.insert("time".to_owned(), json!(time));
    }
    if !entry.subresource.is_empty() {
        map.insert("subresource".to_owned(), json!(entry.subresource));
    }
    Value::Object(map)
}
