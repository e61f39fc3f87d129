//! Ownership of replicas, as an object's entries say it and as those of its `Scale` do.

use serde_json::Value;

use super::fields::FieldSet;
use super::managers::{Entry, Managers};

const SCALE: &str = "autoscaling/v1";

/// Where objects of a version keep the replicas that their `Scale` shows: nowhere if the version has no `scale`, `None`
/// if there is no such version.
pub type ReplicasIn<'a> = dyn Fn(&str) -> Option<Vec<&'a str>> + 'a;

fn set_of(path: &[&str]) -> FieldSet {
    let mut set = FieldSet::default();
    set.insert_names(path);
    set
}

fn owns(entry: &Entry, path: &FieldSet) -> bool {
    !path.is_empty() && entry.owned.set().intersection(path) == *path
}

/// The entries of a `Scale`, given its object's: one for each manager that owns the replicas.
pub fn scale_managed(object: Option<&Value>, replicas: &ReplicasIn<'_>) -> Option<Value> {
    let here = set_of(&["spec", "replicas"]);
    let entries = Managers::decode(object)
        .into_entries()
        .filter(|entry| replicas(&entry.api_version).is_some_and(|path| owns(entry, &set_of(&path))));
    Managers::from_entries(entries.map(|entry| Entry {
        api_version: SCALE.into(),
        owned: here.clone().into(),
        ..entry
    }))
    .encode()
}

/// The entries of an object after its `Scale` was written in the object's `api_version`, given both of before and after.
/// Who no longer owns the scale's replicas loses the object's; entries of versions that are no more go. As upstream has
/// it, an entry that is new tells no time.
pub fn parent_managed(
    object: Option<&Value>,
    scale: Option<&Value>,
    api_version: &str,
    replicas: &ReplicasIn<'_>,
) -> Option<Value> {
    let here = set_of(&["spec", "replicas"]);
    let mut scaled: Vec<Entry> = Managers::decode(scale).into_entries().filter(|e| owns(e, &here)).collect();
    let mut entries = Vec::new();
    for mut entry in Managers::decode(object).into_entries() {
        let Some(path) = replicas(&entry.api_version) else { continue };
        let there = set_of(&path);
        if owns(&entry, &there) {
            let same = |e: &Entry| {
                (&e.manager, e.applied, &e.subresource) == (&entry.manager, entry.applied, &entry.subresource)
                    && (entry.applied || e.time == entry.time)
            };
            match scaled.iter().position(same) {
                Some(at) => drop(scaled.remove(at)),
                None => entry.owned.remove(&there),
            }
        }
        entries.push(entry);
    }
    let there = set_of(&replicas(api_version).unwrap_or_default());
    let new = scaled.into_iter().map(|e| Entry {
        api_version: api_version.into(),
        owned: there.clone().into(),
        time: None,
        ..e
    });
    let entries = entries.into_iter().filter(|e| !e.owned.is_empty()).chain(new);
    Managers::from_entries(entries).merged().encode()
}
