//! Whoever writes a policy or a binding must be able to read the parameters that it has the server read.

use keelson_api_types::{FieldError, Gvk, Gvr, StatusError};
use serde_json::Value;

use super::super::{Chain, GROUP, Verdict, text};
use crate::authz::MASTERS;
use crate::types::{AdmissionRequest, Attributes, Operation, UserInfo};

/// What has to be readable: all of a kind by default, which is also asked for where the kind is not known.
struct Parameters {
    group: String,
    version: String,
    resource: String,
    /// Why the kind is not known.
    unknown: Option<String>,
}

impl Parameters {
    fn any(unknown: Option<String>) -> Self {
        let any = || "*".to_owned();
        Self { group: any(), version: any(), resource: any(), unknown }
    }

    fn of(chain: &Chain, kind: &Value) -> Self {
        let (version, name) = (text(kind, "/apiVersion"), text(kind, "/kind"));
        let gvk = Gvk::from_api_version(version, name);
        let shown = format!("&ParamKind{{APIVersion:{version},Kind:{name},}}");
        if version.split('/').count() > 2 {
            return Self::any(Some(format!("unable to parse paramKind {shown}")));
        }
        match chain.objects().resource_of(&gvk) {
            Some((gvr, _)) => {
                Self { group: gvk.group, version: gvk.version, resource: gvr.resource, unknown: None }
            }
            None => Self {
                group: gvk.group,
                version: gvk.version,
                ..Self::any(Some(format!("unable to resolve paramKind {shown}")))
            },
        }
    }

    async fn readable(
        &self,
        chain: &Chain,
        user: &UserInfo,
        (verb, namespace, name): (&str, &str, &str),
    ) -> Result<bool, String> {
        let question = Attributes {
            namespace,
            name,
            ..Attributes::resource(user, verb, &self.group, &self.version, &self.resource)
        };
        let verdict = chain.authorizer().decide(&question).await;
        if verdict.is_allowed() || verdict.error.is_empty() {
            return Ok(verdict.is_allowed());
        }
        Err(verdict.error)
    }
}

/// Refuses a create or update of a policy or binding with parameters that its author may not read.
pub async fn check(chain: &Chain, r: &AdmissionRequest<'_>) -> Verdict {
    let concerned = r.gvr.group == GROUP && r.subresource.is_empty();
    let writes = matches!(r.op, Operation::Create | Operation::Update);
    if !concerned || !writes || r.user.in_group(MASTERS) {
        return Ok(());
    }
    let (Some(spec), old) = (r.object.as_deref().map(|o| &o["spec"]), r.old.map(|o| &o["spec"])) else {
        return Ok(());
    };
    let same = |field: &str| old.is_some_and(|old| old[field] == spec[field]);
    let (field, verdict) = match r.gvr.resource.as_str() {
        "validatingadmissionpolicies" | "mutatingadmissionpolicies"
            if spec["paramKind"].is_object() && !same("paramKind") =>
        {
            ("spec.paramKind", policy(chain, r.user, &spec["paramKind"]).await)
        }
        "validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings"
            if spec["paramRef"].is_object() && !(same("paramRef") && same("policyName")) =>
        {
            let policies = r.gvr.resource.replace("policybindings", "policies");
            ("spec.paramRef", binding(chain, r.user, &policies, spec).await)
        }
        _ => return Ok(()),
    };
    verdict.map_err(|why| {
        let error = FieldError::forbidden(field, why);
        StatusError::invalid(&r.gvk.group_kind(), &r.display_name(), vec![error])
    })
}

async fn policy(chain: &Chain, user: &UserInfo, kind: &Value) -> Result<(), String> {
    if Parameters::of(chain, kind).readable(chain, user, ("get", "*", "*")).await? {
        return Ok(());
    }
    let (kind, version) = (text(kind, "/kind"), text(kind, "/apiVersion"));
    let whom = shown(user);
    Err(format!(
        r#"user {whom} must have "get" permission on all objects of the referenced paramKind (kind={kind}, apiVersion={version})"#
    ))
}

async fn binding(chain: &Chain, user: &UserInfo, policies: &str, spec: &Value) -> Result<(), String> {
    let (reference, policy) = (&spec["paramRef"], text(spec, "/policyName"));
    let parameters = match chain.objects().get(&Gvr::new(GROUP, "v1", policies), "", policy) {
        Some(policy) if policy["spec"]["paramKind"].is_object() => {
            Parameters::of(chain, &policy["spec"]["paramKind"])
        }
        Some(_) => Parameters::any(None),
        None => Parameters::any(Some(format!("unable to get policy {policy}"))),
    };
    let (namespace, name) = (text(reference, "/namespace"), text(reference, "/name"));
    let verb = if name.is_empty() { "list" } else { "get" };
    let readable = parameters.readable(chain, user, (verb, namespace, name)).await;
    if readable.map_err(|why| format!("failed to authorize request: {why}"))? {
        return Ok(());
    }
    let whom = shown(user);
    Err(match parameters.unknown {
        None => {
            format!(r#"user {whom} does not have "{verb}" permission on the object referenced by paramRef"#)
        }
        Some(why) => format!(
            r#"{why} to determine minimum required permissions and user {whom} does not have "{verb}" permission for all groups, versions and resources"#
        ),
    })
}

/// A user as upstream's messages print one: name, UID, groups, extra.
fn shown(user: &UserInfo) -> String {
    let extra: Vec<String> = user.extra.iter().map(|(k, v)| format!("{k}:[{}]", v.join(" "))).collect();
    format!("&{{{} {} [{}] map[{}]}}", user.name, user.uid, user.groups.join(" "), extra.join(" "))
}
