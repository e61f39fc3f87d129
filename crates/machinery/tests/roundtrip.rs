//! Fully populated objects of every kind pass through unchanged.

use keelson_api_types::Gvk;
use keelson_machinery::prune::{FieldValidation, check};
use keelson_machinery::{decode, encode};
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

fn passes_unchanged(value: &Value, duplicates: &[String], path: &PathBuf) -> bool {
    let Some(ty) = Gvk::of(value).and_then(|gvk| builtin().for_gvk(&gvk)) else { return false };
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
fn every_kind_in_protobuf() {
    let Some(paths) = files("pb") else { return };
    let mut known = 0;
    for path in paths {
        let body = std::fs::read(&path).expect("readable");
        let envelope = keelson_machinery::proto::open(&body).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let gvk = Gvk::from_api_version(&envelope.api_version, &envelope.kind);
        let Some(ty) = builtin().for_gvk(&gvk) else { continue };
        let mut object =
            keelson_machinery::proto::decode(ty, envelope.raw).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        object["apiVersion"] = envelope.api_version.into();
        object["kind"] = envelope.kind.into();
        let json = std::fs::read(path.with_extension("json")).expect("readable");
        let json: Value = serde_json::from_slice(&json).expect("json");
        assert_eq!(without_nulls(object), without_nulls(json), "{path:?}");
        known += 1;
    }
    assert!(known > 70);
}
