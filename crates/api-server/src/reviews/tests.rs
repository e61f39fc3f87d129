//! What reviews answer.

use keelson_api_types::Gvr;

use super::*;
use crate::authz::rbac::Rbac;
use crate::authz::testing::{binding, role, user};

fn rbac() -> Rbac {
    let rbac = Rbac::default();
    rbac.write(|i| {
        let rules = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
            {"verbs": ["get"], "nonResourceURLs": ["/healthz"]}]);
        i.put_role(role("", "reader", rules));
        i.put_binding(binding("", "b", "ClusterRole", "reader", &[("User", "jane", "")]));
    });
    rbac
}

fn ask(
    f: fn(&dyn Authorizer, ReviewRequest<'_>) -> Result<Value, StatusError>,
    namespace: &str,
    spec: Value,
) -> Result<Value, StatusError> {
    let jane = user("jane", &[]);
    let gvr = Gvr::new("authorization.k8s.io", "v1", "x");
    let request = ReviewRequest {
        user: &jane,
        gvr: &gvr,
        subresource: "",
        namespace,
        name: "",
        object: json!({"spec": spec}),
        dry_run: false,
    };
    f(&rbac(), request).map(|o| o["status"].clone())
}

#[test]
fn access_reviews_ask_for_the_named_subject_or_for_the_caller() {
    let pods = json!({"verb": "get", "resource": "pods", "namespace": "ns"});
    let granted = r#"RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "reader" to User "jane""#;
    let yes = json!({"allowed": true, "reason": granted});
    let no = json!({"allowed": false});
    assert_eq!(ask(access::own, "", json!({"resourceAttributes": pods})), Ok(yes.clone()));
    assert_eq!(ask(access::subject, "", json!({"user": "joe", "resourceAttributes": pods})), Ok(no.clone()));
    assert_eq!(
        ask(access::local, "ns", json!({"user": "jane", "resourceAttributes": pods})),
        Ok(yes.clone())
    );
    let path = json!({"verb": "get", "path": "/healthz"});
    assert_eq!(ask(access::own, "", json!({"nonResourceAttributes": path})), Ok(yes));
    let secrets = json!({"verb": "get", "resource": "secrets"});
    assert_eq!(ask(access::own, "", json!({"resourceAttributes": secrets})), Ok(no));
}

#[test]
fn a_review_that_asks_nothing_or_too_much_is_invalid() {
    let code = |r: Result<Value, StatusError>| r.err().map(|e| e.code());
    let pods = json!({"verb": "get", "resource": "pods", "namespace": "ns"});
    let path = json!({"verb": "get", "path": "/"});
    assert_eq!(code(ask(access::own, "", json!({}))), Some(422));
    let both = json!({"resourceAttributes": pods, "nonResourceAttributes": path});
    assert_eq!(code(ask(access::own, "", both)), Some(422));
    assert_eq!(code(ask(access::subject, "", json!({"resourceAttributes": pods}))), Some(422));
    let other = json!({"user": "jane", "resourceAttributes": pods});
    assert_eq!(code(ask(access::local, "other", other)), Some(422));
    assert_eq!(code(ask(access::rules, "", json!({}))), Some(400));
}

#[test]
fn a_rules_review_lists_what_the_caller_holds() {
    let status = ask(access::rules, "", json!({"namespace": "ns"})).expect("a status");
    assert_eq!(status["resourceRules"][0]["resources"], json!(["pods"]));
    assert_eq!(status["nonResourceRules"][0]["nonResourceURLs"], json!(["/healthz"]));
    assert_eq!(status["incomplete"], false);
}
