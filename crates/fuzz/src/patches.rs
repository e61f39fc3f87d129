//! Patches: a line with the object, then the patch.

use keelson_machinery::apply::{FieldSet, Manager, apply as merge_applied, owner_of_new, track_update};
use keelson_machinery::patch;
use serde_json::Value;

use crate::{deployment, size, two};

pub(crate) fn json(data: &[u8]) {
    let Some((object, change)) = two(data) else { return };
    if let Ok(out) = patch::json_patch(&object, &change) {
        assert!(size(&out) <= 2 * data.len() + (4 << 20), "{} of {}", size(&out), data.len());
    }
}

pub(crate) fn merge(data: &[u8]) {
    let Some((object, change)) = two(data) else { return };
    let once = patch::merge_patch(&object, &change);
    assert_eq!(patch::merge_patch(&once, &change), once, "a merge patch is idempotent");
}

pub(crate) fn strategic(data: &[u8]) {
    let Some((object, change)) = two(data) else { return };
    if let Ok(out) = patch::strategic(deployment(), &object, &change) {
        assert!(size(&out) <= 4 * data.len() + 4096, "{} of {}", size(&out), data.len());
    }
}

pub(crate) fn apply(data: &[u8]) {
    let Some((live, applied)) = two(data) else { return };
    let manager = Manager {
        name: "fuzz",
        api_version: "apps/v1",
        subresource: "",
        resets: &[],
        versions: None,
        now: "2026-01-02T03:04:05Z",
    };
    is_owned_alike(applied.clone(), &manager);
    let live = live.is_object().then_some(&live);
    let Ok(once) = merge_applied(deployment(), live, &applied, &manager, true) else { return };
    let twice = merge_applied(deployment(), Some(&once), &applied, &manager, false);
    assert_eq!(twice.as_ref().ok(), Some(&once), "applying again changes nothing: {twice:?}");
}

/// A create takes a shorter way to who owns what.
fn is_owned_alike(mut object: Value, manager: &Manager) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    metadata.remove("managedFields");
    let short = owner_of_new(deployment(), &object, manager);
    track_update(deployment(), None, &mut object, manager).expect("one version");
    let long = object["metadata"].get("managedFields").map(Value::to_string);
    assert_eq!(String::from_utf8_lossy(&short), long.unwrap_or_default());
}

pub(crate) fn managed_fields(data: &[u8]) {
    let Ok(value) = serde_json::from_slice(data) else { return };
    let Some(fields) = FieldSet::from_value(&value) else { return };
    let _ = fields.paths();
    let again = FieldSet::from_value(&fields.to_value()).expect("what was encoded is a set");
    assert_eq!(again, fields);
    assert!(again.clone().difference(&fields).is_empty());
    assert_eq!(again.clone().union(fields.clone()), fields);
    assert_eq!(again.intersection(&fields), fields);
}
