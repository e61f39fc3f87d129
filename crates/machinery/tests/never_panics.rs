//! No input, however odd, brings a decoder, a patch or a selector down. `corpus.txt` keeps inputs worth trying
//! again, one JSON string a line whose characters are bytes.

use keelson_api_types::quantity::Quantity;
use keelson_api_types::{FieldSelector, LabelSelector, duration, meta};
use keelson_machinery::apply::{Manager, apply, parent_managed, scale_managed, track_update};
use keelson_machinery::prune::{FieldValidation, check, fill_zero};
use keelson_machinery::{decode, encode, patch, proto};
use keelson_schema::{Type, builtin};
use proptest::prelude::*;
use serde_json::{Value, json};

const CORPUS: &str = include_str!("corpus.txt");

fn types() -> impl Iterator<Item = &'static Type> {
    let kinds = [
        ("", "v1", "Pod"),
        ("", "v1", "Secret"),
        ("", "v1", "EventList"),
        ("apps", "v1", "Deployment"),
        ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
    ];
    kinds
        .into_iter()
        .map(|(group, version, kind)| builtin().for_kind(group, version, kind).expect("built in"))
}

fn bytes_are_survived(bytes: &[u8]) {
    let decoded = decode::json_strict(bytes).or_else(|_| decode::yaml(bytes));
    let _ = proto::open(bytes);
    let _ = decode::strict::problems(None, bytes);
    for ty in types() {
        let _ = decode::strict::problems(Some(ty), bytes);
        if let Ok(object) = proto::decode(ty, bytes) {
            let _ = proto::encode_message(ty, &object);
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = (LabelSelector::parse(text), FieldSelector::parse(text), Quantity::parse(text));
        let _ = (meta::parse_time(text), duration::parse_go(text), decode::yaml_documents(text));
    }
    if let Ok((value, _)) = decoded {
        values_are_survived(&value, &json!({"metadata": {"name": "x"}, "spec": {"replicas": 1}}));
        values_are_survived(&json!({"spec": {"containers": [{"name": "c"}]}}), &value);
    }
}

fn values_are_survived(old: &Value, new: &Value) {
    let manager = Manager {
        name: "m",
        api_version: "v1",
        subresource: "",
        resets: &[],
        versions: None,
        now: "2026-01-02T03:04:05Z",
    };
    let _ = (
        patch::json_patch(old, new),
        patch::merge_patch(old, new),
        encode::yaml(new),
        encode::canonical(new),
    );
    let managed = new.get("metadata").and_then(|m| m.get("managedFields"));
    let replicas = |_: &str| Some(vec!["spec", "replicas"]);
    let _ =
        parent_managed(managed, scale_managed(managed, &replicas).as_ref(), "v1", &|_| Some(vec!["spec"]));
    for ty in types() {
        let _ = patch::strategic(ty, old, new);
        let _ = apply(ty, Some(old), new, &manager, true);
        let _ = proto::encode_message(ty, new);
        let mut copy = new.clone();
        let _ = track_update(ty, Some(old), &mut copy, &manager);
        crate::apply::is_owned_alike(ty, new);
        let _ = check(ty, &mut copy, FieldValidation::Strict);
        fill_zero(ty, &mut copy);
    }
}

#[test]
fn what_is_kept_in_the_corpus_is_survived() {
    for line in CORPUS.lines() {
        let text: String = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        bytes_are_survived(text.as_bytes());
        let latin: Vec<u8> = text.chars().filter_map(|c| u8::try_from(u32::from(c)).ok()).collect();
        bytes_are_survived(&latin);
    }
}

/// Names that mean something somewhere, so that random objects get past the surface.
const KEYS: &[&str] = &[
    "metadata",
    "spec",
    "status",
    "template",
    "containers",
    "name",
    "labels",
    "replicas",
    "ports",
    "containerPort",
    "protocol",
    "managedFields",
    "fieldsV1",
    "f:spec",
    "k:{\"name\":\"c\"}",
    "$patch",
    "$retainKeys",
    "$setElementOrder/containers",
    "$deleteFromPrimitiveList/finalizers",
    "finalizers",
    "data",
    "items",
    "versions",
    "schema",
    "op",
    "path",
    "from",
    "value",
];

fn odd() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|f| json!(f)),
        "[a-zA-Z0-9./:%*_ $-]{0,12}".prop_map(Value::from),
        prop::sample::select(
            &["delete", "replace", "merge", "Apply", "FieldsV1", "v1", "/spec/0", "1Gi", "c"][..]
        )
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(KEYS), inner, 0..6)
                .prop_map(|map| map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

/// Kept inputs with some of their bytes changed.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let lines: Vec<&'static str> = CORPUS.lines().collect();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (prop::sample::select(lines), changes).prop_map(|(line, changes)| {
        let text: String = serde_json::from_str(line).unwrap_or_default();
        let mut bytes = text.into_bytes();
        for (at, byte) in changes.iter().filter(|_| !bytes.is_empty()).cloned().collect::<Vec<_>>() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn odd_values_are_survived(old in odd(), new in odd()) {
        values_are_survived(&old, &new);
    }

    #[test]
    fn odd_bytes_are_survived(random in prop::collection::vec(any::<u8>(), 0..64), changed in mutated()) {
        bytes_are_survived(&random);
        bytes_are_survived(&changed);
    }
}
