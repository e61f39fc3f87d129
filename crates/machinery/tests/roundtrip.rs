//! Fully populated objects of every kind pass through unchanged.

use keelson_api_types::Gvk;
use keelson_machinery::prune::{FieldValidation, check};
use keelson_machinery::{decode, encode, proto};
use keelson_schema::builtin;
use serde_json::Value;
use std::path::PathBuf;

fn files(extension: &str) -> Option<Vec<PathBuf>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let dirs = [root.join("../shared"), root.join("../../shared")];
    let Some(dir) = dirs.iter().map(|d| d.join("testdata/roundtrip")).find(|d| d.is_dir()) else {
        println!("skipped: ../shared/testdata is not here");
        return None;
    };
    let entries = std::fs::read_dir(dir).expect("readable").filter_map(Result::ok).map(|e| e.path());
    Some(entries.filter(|p| p.extension().is_some_and(|e| e == extension)).collect())
}

/// Kinds that this server never sees: versions that 1.36 does not serve by default, and what only travels as
/// query parameters, to webhooks or between components.
fn is_foreign(gvk: &Gvk) -> bool {
    let served = keelson_api_types::resources::ALL
        .iter()
        .any(|r| (r.group, r.version) == (&*gvk.group, &*gvk.version));
    let parameters = gvk.kind.ends_with("Options") && gvk.kind != "DeleteOptions";
    let internal = ["PodStatusResult", "RangeAllocation", "SerializedReference"].contains(&&*gvk.kind);
    !served || parameters || internal
}

/// The type of a kind, which every kind has that is not foreign.
fn type_of(gvk: &Gvk) -> Option<&'static keelson_schema::Type> {
    let found = builtin().for_gvk(gvk);
    assert!(found.is_some() || is_foreign(gvk), "{gvk} is served and has no type");
    found
}

fn passes_unchanged(value: &Value, duplicates: &[String], path: &PathBuf) -> bool {
    let Some(ty) = Gvk::of(value).and_then(|gvk| type_of(&gvk)) else { return false };
    let mut again = value.clone();
    let unknown = check(ty, &mut again, FieldValidation::Strict).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    assert!(unknown.is_empty() && duplicates.is_empty(), "{path:?}: {unknown:?} {duplicates:?}");
    let back: Value = serde_json::from_slice(&encode::canonical(&again)).expect("encodes");
    assert_eq!(without_nulls(value.clone()), without_nulls(back), "{path:?}");
    true
}

/// Nil pointers, slices and times are written as null by upstream where they have no `omitempty`.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[test]
fn every_kind_in_json() {
    let Some(paths) = files("json") else { return };
    let known = paths.iter().filter(|path| {
        let (value, dups) = decode::json_strict(&std::fs::read(path).expect("readable")).expect("json");
        passes_unchanged(&value, &dups, path)
    });
    assert!(known.count() > 70);
}

#[test]
fn every_kind_in_yaml() {
    let Some(paths) = files("yaml") else { return };
    let known = paths.iter().filter(|path| {
        let bytes = std::fs::read(path).expect("readable");
        let (value, dups) = decode::yaml(&bytes).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        passes_unchanged(&value, &dups, path)
    });
    assert!(known.count() > 70);
}

#[test]
fn filling_zeros_adds_nothing_to_a_full_object() {
    let Some(paths) = files("json") else { return };
    for path in paths {
        let value: Value = serde_json::from_slice(&std::fs::read(&path).expect("readable")).expect("json");
        let Some(ty) = Gvk::of(&value).and_then(|gvk| builtin().for_gvk(&gvk)) else { continue };
        let mut filled = without_nulls(value.clone());
        let before = filled.clone();
        keelson_machinery::prune::fill_zero(ty, &mut filled);
        assert_eq!(filled, before, "{path:?}");
    }
}

#[test]
fn every_kind_is_owned_alike_by_its_creator() {
    let Some(paths) = files("json") else { return };
    for path in paths {
        let value: Value = serde_json::from_slice(&std::fs::read(&path).expect("readable")).expect("json");
        let Some(ty) = Gvk::of(&value).and_then(|gvk| builtin().for_gvk(&gvk)) else { continue };
        crate::apply::is_owned_alike(ty, &value);
    }
}

#[test]
fn every_kind_in_protobuf() {
    let Some(paths) = files("pb") else { return };
    let mut known = 0;
    for path in paths {
        let body = std::fs::read(&path).expect("readable");
        let envelope = proto::open(&body).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let gvk = Gvk::from_api_version(&envelope.api_version, &envelope.kind);
        let Some(ty) = type_of(&gvk) else { continue };
        let object = proto::decode_object(ty, &body).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let json = std::fs::read(path.with_extension("json")).expect("readable");
        let json: Value = serde_json::from_slice(&json).expect("json");
        assert_eq!(without_nulls(object), without_nulls(json), "{path:?}");
        known += 1;
    }
    assert!(known > 70);
}

#[test]
fn every_kind_into_the_same_protobuf() {
    let Some(paths) = files("pb") else { return };
    let mut known = 0;
    let mut different = Vec::new();
    for path in paths {
        let json = std::fs::read(path.with_extension("json")).expect("readable");
        let object: Value = serde_json::from_slice(&json).expect("json");
        if Gvk::of(&object).and_then(|gvk| builtin().for_gvk(&gvk)).is_none() {
            continue;
        }
        let encoded = proto::encode(&object);
        if encoded.as_deref().ok() != Some(&std::fs::read(&path).expect("readable")[..]) {
            different.push((path, encoded.err()));
        }
        known += 1;
    }
    assert!(different.is_empty(), "{different:#?}");
    assert!(known > 70);
}

fn through_protobuf(object: &Value) -> Value {
    let body = proto::encode(object).expect("encodes");
    let ty = Gvk::of(object).and_then(|gvk| builtin().for_gvk(&gvk)).expect("known");
    proto::decode_object(ty, &body).expect("decodes")
}

#[test]
fn a_definition_passes_through_protobuf_unchanged() {
    let definition = serde_json::json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com",
            "scope": "Namespaced",
            "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"]},
            "conversion": {"strategy": "Webhook", "webhook": {
                "conversionReviewVersions": ["v1"],
                "clientConfig": {"service": {"namespace": "n", "name": "s", "path": "/c", "port": 9443},
                    "caBundle": "AQID"}}},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "additionalPrinterColumns": [{"name": "Age", "type": "date", "jsonPath": ".a", "priority": 1}],
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": false,
                    "properties": {
                        "spec": {"type": "object", "required": ["size"],
                            "additionalProperties": {"type": "string"},
                            "x-kubernetes-validations": [{"rule": "self.size > 1", "message": "small",
                                "optionalOldSelf": false}]},
                        "size": {"type": "integer", "minimum": 1, "maximum": 2.5, "default": {"a": [1, null]},
                            "enum": [1, "two", null], "exclusiveMinimum": true},
                        "list": {"type": "array", "items": {"type": "string", "maxLength": 0},
                            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]},
                        "closed": {"additionalProperties": false, "items": [{"type": "string"}]},
                        "anything": {}
                    },
                    "dependencies": {"a": ["b"], "c": {"type": "object"}}
                }}
            }]
        },
        "status": {"acceptedNames": {"plural": "", "kind": ""}, "storedVersions": ["v1"], "conditions": [
            {"type": "Established", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"}]}
    });
    let back = through_protobuf(&definition);
    let mut expected = definition;
    // Empty strings, which JSON may leave out.
    expected["status"]["acceptedNames"] = serde_json::json!(null);
    assert_eq!(without_empty(back), without_empty(expected));
}

/// Structs that are no pointers are written empty, and empty strings are left out.
fn without_empty(value: Value) -> Value {
    let kept = |v: &Value| !v.is_null();
    match value {
        Value::Object(map) => {
            map.into_iter().map(|(k, v)| (k, without_empty(v))).filter(|(_, v)| kept(v)).collect()
        }
        Value::Array(items) => items.into_iter().map(without_empty).collect(),
        other => other,
    }
}

#[test]
fn options_and_lists_pass_through_protobuf_unchanged() {
    let options = serde_json::json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
        "orphanDependents": false, "propagationPolicy": "Background",
        "preconditions": {"uid": "", "resourceVersion": "7"}, "dryRun": ["All"]});
    assert_eq!(through_protobuf(&options), options);
    let head = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "9"}});
    let items =
        serde_json::json!([{"metadata": {"name": "a"}, "data": {"k": ""}}, {"metadata": {"name": "b"}}]);
    let whole = {
        let mut whole = head.clone();
        whole["items"] = items.clone();
        whole
    };
    let ty = builtin().for_kind("", "v1", "ConfigMap").expect("known");
    let messages: Vec<Vec<u8>> = items
        .as_array()
        .expect("items")
        .iter()
        .map(|item| proto::encode_message(ty, item).expect("encodes"))
        .collect();
    let mut body = proto::list_head(&head, messages.iter().map(Vec::len)).expect("encodes");
    for message in &messages {
        body.extend(proto::list_item(message.len()));
        body.extend(message);
    }
    body.extend(proto::ENVELOPE_TAIL);
    assert_eq!(body, proto::encode(&whole).expect("encodes"));
    assert_eq!(through_protobuf(&whole), whole);
}
