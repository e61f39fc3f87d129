//! The built-in table is whole, and a CRD's schema becomes the same model.

use keelson_api_types::resources;
use keelson_schema::{Link, ListKind, Shape, builtin, from_json_schema, full_name, violations};
use serde_json::json;

#[test]
fn every_stored_resource_has_a_type() {
    for r in resources::ALL.iter().filter(|r| r.kind != "NodeProxyOptions") {
        let ty = builtin().for_gvk(&r.gvk());
        assert!(ty.is_some(), "{:?}", r.gvk());
        if r.has_verb("list") {
            let list = builtin().for_kind(r.group, r.version, &format!("{}List", r.kind));
            assert!(list.is_some_and(|l| l.field("items").is_some()), "{}List", r.kind);
        }
    }
}

#[test]
fn every_reference_resolves() {
    fn check(link: &Link, at: &str) {
        match &link.shape {
            Shape::List(l) => check(&l.item, at),
            Shape::Map(m) => check(&m.value, at),
            Shape::Object(o) => assert!(!o.name.is_empty(), "{at}"),
            _ => {}
        }
    }
    let mut fields = 0;
    for def in builtin().definitions() {
        for f in &def.ty().as_object().expect("definitions are objects").fields {
            check(&f.ty, &format!("{}.{}", def.name, f.name));
            fields += 1;
        }
    }
    assert!(fields > 2000, "{fields}");
}

#[test]
fn markers_are_carried() {
    let pod = builtin().for_kind("", "v1", "Pod").expect("pod");
    let ports = pod.at(&["spec", "containers", "ports"]).and_then(|t| t.as_list()).expect("ports");
    assert_eq!(ports.kind, ListKind::Map(["containerPort".into(), "protocol".into()].into()));
    let protocol = ports.item.field("protocol").expect("protocol");
    assert_eq!(protocol.default.as_deref(), Some(&json!("TCP")));
    assert_eq!(protocol.go_type, "v1.Protocol");
    let volumes = pod.at(&["spec"]).and_then(|t| t.field("volumes")).expect("volumes");
    assert!(volumes.patch.merge && volumes.patch.retain_keys && volumes.patch.key == "name");
    assert!(pod.at(&["spec"]).and_then(|t| t.field("nodeSelector")).expect("nodeSelector").atomic);
    let secret = pod.at(&["spec", "volumes"]).and_then(|t| t.as_list()).and_then(|l| l.item.field("secret"));
    assert_eq!(secret.map(|f| f.proto), Some("2.6"));
    assert_eq!(full_name("meta.v1.ObjectMeta"), "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
}

#[test]
fn a_crd_schema_becomes_a_type() {
    let ty = from_json_schema(&json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {"type": "object", "required": ["size"], "properties": {
                "size": {"type": "integer", "minimum": 1, "default": 3},
                "port": {"x-kubernetes-int-or-string": true},
                "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "rules": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
                "labels": {"type": "object", "additionalProperties": {"type": "string", "nullable": true}}
            }}
        }
    }))
    .expect("valid");
    assert!(ty.field("metadata").is_some_and(|f| f.ty.field("labels").is_some()));
    let spec = ty.field("spec").expect("spec");
    assert!(spec.required);
    let size = spec.ty.field("size").expect("size");
    assert_eq!(size.default.as_deref(), Some(&json!(3)));
    assert_eq!(size.ty.rules.as_ref().and_then(|r| r.minimum), Some(1.0));
    assert!(matches!(spec.ty.field("port").expect("port").ty.shape, Shape::IntOrString));
    assert!(spec.ty.field("raw").and_then(|f| f.ty.as_object()).expect("raw").preserve_unknown);
    assert_eq!(ty.at(&["spec", "rules"]).and_then(|t| t.as_list()).map(|l| l.keys().len()), Some(1));
    assert!(ty.at(&["spec", "labels", "x"]).expect("labels").nullable);
}

#[test]
fn a_bad_schema_names_the_place() {
    let e = from_json_schema(&json!({"type": "object", "properties": {"a": {"type": "text"}}})).unwrap_err();
    assert_eq!(e.to_string(), "schema at openAPIV3Schema.properties[a].type: unsupported type \"text\"");
    assert!(from_json_schema(&json!({"type": "string"})).is_err());
    assert!(from_json_schema(&json!([])).is_err());
}

#[test]
fn what_a_junctor_speaks_of_stands_outside_as_well() {
    let schema = json!({"type": "object", "properties": {"b": {"type": "string"}},
        "anyOf": [{"properties": {"a": {"minLength": 1}}}, {"properties": {"b": {"minLength": 1}}}]});
    let found: Vec<String> = violations(&schema, "schema").iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        ["schema.properties[a]: Required value: because it is defined in schema.anyOf[0].properties[a]"]
    );
    let either = json!({"type": "object", "properties": {"a": {"x-kubernetes-int-or-string": true,
        "anyOf": [{"type": "integer"}, {"type": "string"}]}}});
    assert!(violations(&either, "schema").is_empty());
}
