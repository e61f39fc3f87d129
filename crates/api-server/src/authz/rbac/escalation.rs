//! Nobody hands out rights they do not have: the check on writes of roles and bindings, which the
//! verbs `escalate` (on roles) and `bind` (on the role that a binding refers to) lift.

use keelson_api_types::StatusError;
use keelson_api_types::gofmt::quote;
use serde_json::Value;

use super::index::RoleRef;
use super::rule::{Rule, missing, quoted};
use super::{GROUP, Rbac};
use crate::types::{AdmissionRequest, Attributes, Authorizer, Operation};

/// Refuses a create or update of a role or binding that grants more than its author holds.
pub async fn check(
    rbac: &Rbac,
    authorizer: &dyn Authorizer,
    request: &AdmissionRequest<'_>,
) -> Result<(), StatusError> {
    if request.gvr.group != GROUP
        || !request.subresource.is_empty()
        || !matches!(request.op, Operation::Create | Operation::Update)
        || request.user.in_group("system:masters")
    {
        return Ok(());
    }
    let Some(object) = request.object.as_deref() else {
        return Ok(());
    };
    if request.old.is_some_and(|old| only_garbage_collection_fields_differ(object, old)) {
        return Ok(());
    }
    let verdict = match request.gvr.resource.as_str() {
        "roles" | "clusterroles" => role(rbac, authorizer, request, object).await,
        "rolebindings" | "clusterrolebindings" => binding(rbac, authorizer, request, object).await,
        _ => Ok(()),
    };
    verdict.map_err(|message| {
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or(request.name);
        StatusError::forbidden(&request.gvr.group_resource(), name, message)
    })
}

async fn role(
    rbac: &Rbac,
    authorizer: &dyn Authorizer,
    request: &AdmissionRequest<'_>,
    object: &Value,
) -> Result<(), String> {
    let question =
        Attributes { verb: "escalate", name: request.name, ..attributes(request, &request.gvr.resource) };
    if authorizer.decide(&question).await.is_allowed() {
        return Ok(());
    }
    let rules: Vec<Rule> =
        object.get("rules").and_then(|r| serde_json::from_value(r.clone()).ok()).unwrap_or_default();
    held(rbac, request, &rules)?;
    let aggregates = |o: &Value| {
        o.pointer("/aggregationRule/clusterRoleSelectors")
            .and_then(Value::as_array)
            .is_some_and(|s| !s.is_empty())
    };
    if aggregates(object) || request.old.is_some_and(aggregates) {
        held(rbac, request, &full_authority())
            .map_err(|_| "must have cluster-admin privileges to use the aggregationRule".to_owned())?;
    }
    Ok(())
}

async fn binding(
    rbac: &Rbac,
    authorizer: &dyn Authorizer,
    request: &AdmissionRequest<'_>,
    object: &Value,
) -> Result<(), String> {
    let reference: RoleRef =
        object.get("roleRef").and_then(|r| serde_json::from_value(r.clone()).ok()).unwrap_or_default();
    let resource = if reference.kind == "Role" { "roles" } else { "clusterroles" };
    let question = Attributes {
        verb: "bind",
        group: &reference.api_group,
        name: &reference.name,
        ..attributes(request, resource)
    };
    if authorizer.decide(&question).await.is_allowed() {
        return Ok(());
    }
    let rules = rbac.read(|i| i.role_rules(&reference.kind, &reference.name, request.namespace))?;
    held(rbac, request, &rules)
}

fn held(rbac: &Rbac, request: &AdmissionRequest<'_>, wanted: &[Rule]) -> Result<(), String> {
    let (own, errors) = rbac.read(|i| i.rules_for(request.user, request.namespace));
    let missing = missing(&own, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let mut message = format!(
        "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        quote(&request.user.name),
        quoted(&request.user.groups),
        missing.join("\n")
    );
    if !errors.is_empty() {
        message.push_str(&format!("; resolution errors: [{}]", errors.join(", ")));
    }
    Err(message)
}

fn attributes<'a>(request: &'a AdmissionRequest<'_>, resource: &'a str) -> Attributes<'a> {
    Attributes {
        namespace: request.namespace,
        ..Attributes::resource(request.user, "", GROUP, "*", resource)
    }
}

fn full_authority() -> Vec<Rule> {
    let star = || vec!["*".to_owned()];
    vec![
        Rule { verbs: star(), api_groups: star(), resources: star(), ..Rule::default() },
        Rule { verbs: star(), non_resource_urls: star(), ..Rule::default() },
    ]
}

/// True when an update touches owner references and finalizers alone: the garbage collector must be
/// able to finish what it could never have created.
fn only_garbage_collection_fields_differ(new: &Value, old: &Value) -> bool {
    let strip = |v: &Value| {
        let mut v = v.clone();
        if let Some(meta) = v.get_mut("metadata").and_then(Value::as_object_mut) {
            for key in ["ownerReferences", "finalizers", "managedFields", "resourceVersion", "selfLink"] {
                meta.remove(key);
            }
        }
        v
    };
    strip(new) == strip(old)
}
