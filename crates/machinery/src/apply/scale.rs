//! Ownership of replicas, as an object's entries say it and as those of its `Scale` do.

use serde_json::Value;

use super::fields::FieldSet;
use super::managers::{Entry, Managers};

const SCALE: &str = "autoscaling/v1";

fn set_of(path: &[&str]) -> FieldSet {
    let mut set = FieldSet::default();
    set.insert_names(path);
    set
}

fn owns(entry: &Entry, path: &FieldSet) -> bool {
    entry.owned.set().intersection(path) == *path
}

/// The entries of a `Scale`, given its object's: one for each manager that owns the replicas.
pub fn scale_managed(object: Option<&Value>, replicas: &[&str]) -> Option<Value> {
    let (there, here) = (set_of(replicas), set_of(&["spec", "replicas"]));
    let entries = Managers::decode(object).into_entries().filter(|entry| owns(entry, &there));
    Managers::from_entries(entries.map(|entry| Entry {
        api_version: SCALE.into(),
        owned: here.clone().into(),
        ..entry
    }))
    .encode()
}

/// The entries of an object in `api_version` after its `Scale` was written, given both of before and after. Who no
/// longer owns the scale's replicas loses the object's.
pub fn parent_managed(
    object: Option<&Value>,
    scale: Option<&Value>,
    api_version: &str,
    replicas: &[&str],
) -> Option<Value> {
    let (there, here) = (set_of(replicas), set_of(&["spec", "replicas"]));
    let mut scaled: Vec<Entry> = Managers::decode(scale).into_entries().filter(|e| owns(e, &here)).collect();
    let mut entries = Vec::new();
    for mut entry in Managers::decode(object).into_entries() {
        if owns(&entry, &there) {
            let same = |e: &Entry| {
                (&e.manager, e.applied, &e.subresource, &e.time)
                    == (&entry.manager, entry.applied, &entry.subresource, &entry.time)
            };
            match scaled.iter().position(same) {
                Some(at) => drop(scaled.remove(at)),
                None => entry.owned.remove(&there),
            }
        }
        entries.push(entry);
    }
    let new = scaled.into_iter().map(|e| Entry {
        api_version: api_version.into(),
        owned: there.clone().into(),
        ..e
    });
    Managers::from_entries(entries.into_iter().chain(new)).merged().encode()
}
