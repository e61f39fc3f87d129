//! What reviews answer.

use keelson_api_types::Gvr;

use super::*;
use crate::authz::Authorizers;
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

const OWN: &str = "selfsubjectaccessreviews";
const SUBJECT: &str = "subjectaccessreviews";
const LOCAL: &str = "localsubjectaccessreviews";
const RULES: &str = "selfsubjectrulesreviews";

async fn ask(resource: &str, namespace: &str, spec: Value) -> Result<Value, StatusError> {
    let jane = user("jane", &[]);
    let gvr = Gvr::new("authorization.k8s.io", "v1", resource);
    let request = ReviewRequest {
        user: &jane,
        gvr: &gvr,
        subresource: "",
        namespace,
        name: "",
        object: json!({"spec": spec}),
        dry_run: false,
    };
    let authorizers = Authorizers::new(Default::default(), rbac());
    access::review(&authorizers, request).await.map(|o| o["status"].clone())
}

#[tokio::test]
async fn access_reviews_ask_for_the_named_subject_or_for_the_caller() {
    let pods = json!({"verb": "get", "resource": "pods", "namespace": "ns"});
    let granted = r#"RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "reader" to User "jane""#;
    let yes = json!({"allowed": true, "reason": granted});
    let no = json!({"allowed": false});
    assert_eq!(ask(OWN, "", json!({"resourceAttributes": pods})).await, Ok(yes.clone()));
    assert_eq!(ask(SUBJECT, "", json!({"user": "joe", "resourceAttributes": pods})).await, Ok(no.clone()));
    assert_eq!(ask(LOCAL, "ns", json!({"user": "jane", "resourceAttributes": pods})).await, Ok(yes.clone()));
    let path = json!({"verb": "get", "path": "/healthz"});
    assert_eq!(ask(OWN, "", json!({"nonResourceAttributes": path})).await, Ok(yes));
    let secrets = json!({"verb": "get", "resource": "secrets"});
    assert_eq!(ask(OWN, "", json!({"resourceAttributes": secrets})).await, Ok(no));
}

#[tokio::test]
async fn a_review_that_asks_nothing_or_too_much_is_invalid() {
    let code = |r: Result<Value, StatusError>| r.err().map(|e| e.code());
    let pods = json!({"verb": "get", "resource": "pods", "namespace": "ns"});
    let path = json!({"verb": "get", "path": "/"});
    assert_eq!(code(ask(OWN, "", json!({})).await), Some(422));
    let both = json!({"resourceAttributes": pods, "nonResourceAttributes": path});
    assert_eq!(code(ask(OWN, "", both).await), Some(422));
    assert_eq!(code(ask(SUBJECT, "", json!({"resourceAttributes": pods})).await), Some(422));
    let other = json!({"user": "jane", "resourceAttributes": pods});
    assert_eq!(code(ask(LOCAL, "other", other).await), Some(422));
    assert_eq!(code(ask(RULES, "", json!({})).await), Some(400));
}

#[tokio::test]
async fn a_rules_review_lists_what_the_caller_holds() {
    let status = ask(RULES, "", json!({"namespace": "ns"})).await.expect("a status");
    assert_eq!(status["resourceRules"][0]["resources"], json!(["pods"]));
    assert_eq!(status["nonResourceRules"][0]["nonResourceURLs"], json!(["/healthz"]));
    assert_eq!(status["incomplete"], false);
}
