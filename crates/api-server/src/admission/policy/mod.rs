//! Admission policies: expressions in the cluster that judge or change what is written, bound to where they
//! apply and to their parameters.

pub mod authorize;
pub mod mutating;
mod params;
pub mod type_check;
pub mod validating;

use std::sync::Arc;

use keelson_api_types::{Gvk, Gvr, StatusError, meta};
use serde::Deserialize;
use serde_json::Value;

use self::params::ParamRef;
use super::matching::{Constraints, Target};
use super::{Chain, GROUP, core, is_admission_configuration, lookup};
use crate::types::{AdmissionRequest, Objects};

/// A policy with its bindings; `E` is what its own expressions were compiled to.
pub struct Policy<E> {
    pub name: String,
    pub ignores_failure: bool,
    constraints: Constraints,
    param_kind: Option<Gvk>,
    bindings: Vec<Binding>,
    pub evaluator: E,
}

pub struct Binding {
    pub name: String,
    /// Everything that the policy matches, if there are none.
    constraints: Option<Constraints>,
    params: Option<ParamRef>,
    /// `Deny`, `Warn`, `Audit`; of a validating policy.
    pub actions: Vec<String>,
}

/// One thing to do for a request, in the policies' order.
pub enum Step<'p, E> {
    Evaluate {
        policy: &'p Policy<E>,
        binding: &'p Binding,
        target: Target,
        /// One evaluation for each; `None` where the binding names none.
        params: Vec<Option<Arc<Value>>>,
    },
    /// The failure policy decides.
    Misconfigured { policy: &'p Policy<E>, binding: Option<&'p Binding>, why: String },
}

/// All policies that have bindings, by name.
fn load<E>(
    objects: &dyn Objects,
    policies: &str,
    bindings: &str,
    compile: impl Fn(&Value, bool) -> E,
) -> Vec<Policy<E>> {
    let list = |resource: &str| {
        let mut all = objects.list(&Gvr::new(GROUP, "v1", resource), "");
        all.sort_by(|a, b| meta::name(a).cmp(meta::name(b)));
        all
    };
    let bindings = list(bindings);
    let one = |policy: &Arc<Value>| {
        let (name, spec) = (meta::name(policy).to_owned(), &policy["spec"]);
        let ours = bindings.iter().filter(|b| b["spec"]["policyName"] == name.as_str());
        let bindings: Vec<Binding> = ours.map(|b| Binding::read(b)).collect();
        if bindings.is_empty() {
            return None;
        }
        let ignores_failure = spec["failurePolicy"] == "Ignore";
        let text = |key: &str| spec["paramKind"][key].as_str().unwrap_or_default();
        let kind = Gvk::from_api_version(text("apiVersion"), text("kind"));
        Some(Policy {
            name,
            ignores_failure,
            constraints: Constraints::deserialize(&spec["matchConstraints"]).unwrap_or_default(),
            param_kind: Some(kind).filter(|k| !k.kind.is_empty()),
            bindings,
            evaluator: compile(spec, ignores_failure),
        })
    };
    list(policies).iter().filter_map(one).collect()
}

impl Binding {
    fn read(binding: &Value) -> Self {
        let spec = &binding["spec"];
        let given = |key: &str| Some(&spec[key]).filter(|v| v.is_object());
        Self {
            name: meta::name(binding).to_owned(),
            constraints: given("matchResources").map(|v| Constraints::deserialize(v).unwrap_or_default()),
            params: given("paramRef").map(ParamRef::read),
            actions: crate::token::request::string_list(&spec["validationActions"]),
        }
    }
}

/// What the policies have to say about a request.
async fn steps<'p, E>(
    chain: &Chain,
    policies: &'p [Policy<E>],
    r: &AdmissionRequest<'_>,
) -> Vec<Step<'p, E>> {
    let mut steps = Vec::new();
    for policy in policies {
        let misconfigured = |binding, why: String| Step::Misconfigured { policy, binding, why };
        let target = match policy.constraints.target(chain.objects(), r).await {
            Ok(Some(target)) => target,
            Ok(None) => continue,
            Err(error) => {
                steps.push(misconfigured(None, error.message().to_owned()));
                continue;
            }
        };
        let kind = match params::kind(chain.objects(), policy.param_kind.as_ref()) {
            Ok(kind) => kind,
            Err(why) => {
                steps.push(misconfigured(None, why));
                continue;
            }
        };
        for binding in &policy.bindings {
            match binding.params(chain, kind.as_ref(), r).await {
                Ok(params) if params.is_empty() => {}
                Ok(params) => {
                    steps.push(Step::Evaluate { policy, binding, target: target.clone(), params });
                }
                Err(why) => steps.push(misconfigured(Some(binding), why)),
            }
        }
    }
    steps
}

impl Binding {
    /// What the policy is evaluated with; nothing if the binding is not about the request.
    async fn params(
        &self,
        chain: &Chain,
        kind: Option<&params::Kind>,
        r: &AdmissionRequest<'_>,
    ) -> Result<Vec<Option<Arc<Value>>>, String> {
        if let Some(constraints) = &self.constraints {
            let target = constraints.target(chain.objects(), r).await;
            if target.map_err(|e| e.message().to_owned())?.is_none() {
                return Ok(Vec::new());
            }
        }
        match (kind, &self.params) {
            (Some(kind), Some(reference)) => reference.find(chain.objects(), kind, r.namespace).await,
            _ => Ok(vec![None]),
        }
    }
}

/// Reviews are asked about before anything may be refused, so no policy sees them.
fn is_exempt(r: &AdmissionRequest<'_>) -> bool {
    let review = matches!(r.gvr.group.as_str(), "authentication.k8s.io" | "authorization.k8s.io")
        && r.gvr.resource.ends_with("reviews");
    review || is_admission_configuration(r)
}

/// The namespace of a request as expressions see it; none of what is in no namespace, or one itself.
async fn namespace_of(chain: &Chain, r: &AdmissionRequest<'_>) -> Result<Option<Value>, StatusError> {
    let is_namespace = r.gvr.group.is_empty() && r.gvr.resource == "namespaces";
    if r.namespace.is_empty() || is_namespace {
        return Ok(None);
    }
    let gvr = core("namespaces");
    match lookup(chain.objects(), &gvr, "", r.namespace).await? {
        Some(namespace) => Ok(Some(super::expressions::visible_namespace(&namespace))),
        None => Err(StatusError::not_found(&gvr.group_resource(), r.namespace)),
    }
}
