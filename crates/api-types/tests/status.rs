use keelson_api_types::{FieldError, GroupKind, GroupResource, StatusError};
use serde_json::json;

#[test]
fn not_found_has_upstreams_shape() {
    let e = StatusError::not_found(&GroupResource::new("apps", "deployments"), "web");
    let text = String::from_utf8(e.to_json()).expect("utf-8");
    assert_eq!(
        text,
        r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"deployments.apps \"web\" not found","reason":"NotFound","details":{"name":"web","group":"apps","kind":"deployments"},"code":404}"#
    );
}

#[test]
fn invalid_lists_causes() {
    let errs = vec![
        FieldError::invalid("spec.replicas", -1, "must be greater than or equal to 0"),
        FieldError::required("spec.selector", ""),
        FieldError::not_supported("spec.type", "X", &["A", "B"]),
        FieldError::invalid("spec.selector", json!({"matchLabels": {"a": "b"}}), "field is immutable"),
    ];
    let e = StatusError::invalid(&GroupKind::new("apps", "Deployment"), "web", errs);
    assert_eq!(
        e.message(),
        "Deployment.apps \"web\" is invalid: [spec.replicas: Invalid value: -1: must be greater than or equal to 0, spec.selector: Required value, spec.type: Unsupported value: \"X\": supported values: \"A\", \"B\", spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: field is immutable]"
    );
    let causes = &e.details.as_ref().expect("details").causes;
    assert_eq!(causes[0].reason, "FieldValueInvalid");
    assert_eq!(causes[1].message, "Required value");
    let back: keelson_api_types::Status = serde_json::from_slice(&e.to_json()).expect("round trip");
    assert_eq!(&back, e.status());
}
