//! An authorizer somewhere else: it is sent a SubjectAccessReview, and its answer is believed for a while.

use std::time::Duration;

use keelson_api_types::selector::Operator;
use keelson_api_types::{FieldSelector, LabelSelector};
use serde_json::{Value, json};

use super::conditions::Conditions;
use super::config::WebhookConfiguration;
use crate::remote::{RemoteError, Webhook};
use crate::ttl::TtlCache;
use crate::types::{Attributes, Decision, Verdict};

const REMEMBERED: usize = 8192;
/// Larger questions are not remembered: who asks chooses their size.
const MAX_REMEMBERED: usize = 10_000;

pub struct WebhookAuthorizer {
    name: String,
    webhook: Webhook,
    api_version: String,
    authorized_ttl: Duration,
    unauthorized_ttl: Duration,
    denies_on_failure: bool,
    conditions: Conditions,
    answers: TtlCache<String, Verdict>,
}

impl WebhookAuthorizer {
    pub fn new(name: &str, config: &WebhookConfiguration) -> Result<Self, RemoteError> {
        Ok(Self {
            name: name.to_owned(),
            webhook: Webhook::from_kubeconfig(&config.kubeconfig(), config.timeout())?,
            api_version: format!("authorization.k8s.io/{}", config.subject_access_review_version),
            authorized_ttl: config.authorized_ttl(),
            unauthorized_ttl: config.unauthorized_ttl(),
            denies_on_failure: config.denies_on_failure(),
            conditions: Conditions::compile(&config.match_conditions).unwrap_or_default(),
            answers: TtlCache::new(REMEMBERED),
        })
    }

    pub async fn decide(&self, a: &Attributes<'_>) -> Verdict {
        let spec = spec(a);
        match self.conditions.hold(&spec) {
            Ok(true) => {}
            Ok(false) => return Decision::NoOpinion(String::new()).into(),
            Err(error) => return self.failed(error),
        }
        let key = spec.to_string();
        if let Some(known) = self.answers.get(&key) {
            return known;
        }
        let version = self.api_version.as_str();
        let review = json!({"apiVersion": version, "kind": "SubjectAccessReview", "spec": spec, "status": {"allowed": false}});
        let verdict = match self.webhook.review(&review).await {
            Ok(answer) => verdict(&answer["status"]),
            Err(error) => {
                let text = crate::errors::chain(&error);
                tracing::error!(webhook = self.name, error = text, "an authorizer failed");
                return self.failed(text);
            }
        };
        let ttl = match verdict.decision {
            Decision::Allow(_) => self.authorized_ttl,
            _ => self.unauthorized_ttl,
        };
        if key.len() < MAX_REMEMBERED {
            self.answers.put(key, verdict.clone(), ttl);
        }
        verdict
    }

    fn failed(&self, error: String) -> Verdict {
        let none = String::new();
        let decision = if self.denies_on_failure { Decision::Deny(none) } else { Decision::NoOpinion(none) };
        Verdict { decision, error }
    }
}

/// What a `SubjectAccessReviewStatus` says.
fn verdict(status: &Value) -> Verdict {
    let reason = status["reason"].as_str().unwrap_or_default().to_owned();
    let mut error = String::new();
    let decision = match (status["allowed"] == true, status["denied"] == true) {
        (true, true) => {
            error = "webhook subject access review returned both allow and deny response".to_owned();
            Decision::Deny(reason)
        }
        (false, true) => Decision::Deny(reason),
        (true, false) => Decision::Allow(reason),
        (false, false) => Decision::NoOpinion(reason),
    };
    Verdict { decision, error }
}

/// The `SubjectAccessReviewSpec` of a question.
pub fn spec(a: &Attributes<'_>) -> Value {
    let mut spec = json!({});
    let mut put = |key: &str, value: Value| {
        let empty = value == "" || value.as_array().is_some_and(Vec::is_empty) || value == json!({});
        if !empty {
            spec[key] = value;
        }
    };
    put("user", a.user.name.as_str().into());
    put("groups", a.user.groups.clone().into());
    put("uid", a.user.uid.as_str().into());
    put("extra", json!(a.user.extra));
    if !a.is_resource {
        put("nonResourceAttributes", json!({"path": a.path, "verb": a.verb}));
        return spec;
    }
    let mut resource = json!({});
    for (key, value) in [
        ("namespace", a.namespace),
        ("verb", a.verb),
        ("group", a.group),
        ("version", a.version),
        ("resource", a.resource),
        ("subresource", a.subresource),
        ("name", a.name),
    ] {
        if !value.is_empty() {
            resource[key] = value.into();
        }
    }
    let selectors = [
        ("fieldSelector", a.field_selector.map(field_requirements)),
        ("labelSelector", a.label_selector.map(label_requirements)),
    ];
    for (key, requirements) in selectors {
        if let Some(requirements) = requirements.filter(|r| !r.is_empty()) {
            resource[key] = json!({"requirements": requirements});
        }
    }
    spec["resourceAttributes"] = resource;
    spec
}

/// Selectors only narrow: what is not understood may be left out.
fn field_requirements(selector: &str) -> Vec<Value> {
    let terms = FieldSelector::parse(selector).unwrap_or_default().terms;
    let operator = |equal| if equal { "In" } else { "NotIn" };
    terms
        .into_iter()
        .map(|t| json!({"key": t.field, "operator": operator(t.equal), "values": [t.value]}))
        .collect()
}

fn label_requirements(selector: &str) -> Vec<Value> {
    let parsed = LabelSelector::parse(selector).unwrap_or_default();
    let requirement = |r: &keelson_api_types::selector::Requirement| {
        let operator = match r.op {
            Operator::Equals | Operator::In => "In",
            Operator::NotEquals | Operator::NotIn => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            Operator::GreaterThan | Operator::LessThan => return None,
        };
        let mut requirement = json!({"key": r.key, "operator": operator});
        if !r.values.is_empty() {
            requirement["values"] = json!(r.values);
        }
        Some(requirement)
    };
    parsed.requirements().iter().filter_map(requirement).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::testing::{path, resource, user};

    #[test]
    fn the_question_is_sent_whole() {
        let u = user("jane", &["devs"]);
        assert_eq!(
            spec(&path(&u, "get", "/")),
            json!({"user": "jane", "groups": ["devs"], "nonResourceAttributes": {"path": "/", "verb": "get"}})
        );
        let mut a = resource(&u, "list", "", "pods", "ns", "");
        (a.field_selector, a.label_selector) =
            (Some("spec.nodeName=n1,status.phase!=Failed"), Some("a in (x,y),!b"));
        assert_eq!(
            spec(&a)["resourceAttributes"],
            json!({"namespace": "ns", "verb": "list", "version": "v1", "resource": "pods",
                "fieldSelector": {"requirements": [
                    {"key": "spec.nodeName", "operator": "In", "values": ["n1"]},
                    {"key": "status.phase", "operator": "NotIn", "values": ["Failed"]}]},
                "labelSelector": {"requirements": [
                    {"key": "a", "operator": "In", "values": ["x", "y"]},
                    {"key": "b", "operator": "DoesNotExist"}]}})
        );
    }

    #[test]
    fn an_answer_that_says_both_denies() {
        let both = verdict(&json!({"allowed": true, "denied": true, "reason": "r"}));
        assert_eq!(both.decision, Decision::Deny("r".into()));
        assert!(both.error.contains("both allow and deny"));
        assert_eq!(verdict(&json!({})).decision, Decision::NoOpinion(String::new()));
    }
}
