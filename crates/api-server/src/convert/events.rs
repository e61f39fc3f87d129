//! Events have two faces over one storage: core `v1` and `events.k8s.io/v1`.

use serde_json::Value;

use super::rename;

/// Fields as core and as `events.k8s.io` name them.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

pub(super) fn to_core(mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        for (core, other) in NAMES {
            rename(map, other, core);
        }
        map.insert("apiVersion".into(), "v1".into());
    }
    object
}

pub(super) fn to_events_group(mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        for (core, other) in NAMES {
            rename(map, core, other);
        }
        map.insert("apiVersion".into(), "events.k8s.io/v1".into());
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_survives_the_way_there_and_back() {
        let core = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": {"name": "p"},
            "message": "m", "reportingComponent": "c", "reportingInstance": "i", "count": 2, "type": "Normal"
        });
        let other = to_events_group(core.clone());
        assert_eq!(other["regarding"], json!({"name": "p"}));
        assert_eq!(other["reportingController"], "c");
        assert_eq!(to_core(other), core);
    }
}
