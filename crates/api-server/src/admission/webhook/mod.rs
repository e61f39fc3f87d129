//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook: the cluster's configurations say who else has a
//! say in a write.

mod hook;
mod review;

use std::time::{Duration, Instant};

use futures::future::join_all;
use keelson_api_types::StatusError;
use keelson_api_types::gofmt::quote;
use serde_json::{Value, json};

use self::hook::Hook;
use self::review::Answer;
pub use self::review::request;
use super::expressions::{Asker, Facts};
use super::matching::Target;
use super::memo::Memo;
use super::versioned::Versioned;
use super::{Chain, GROUP, is_admission_configuration};
use crate::metrics::Called;
use crate::spans;
use crate::types::{AdmissionRequest, Operation};
use crate::webhook as client;

const DEFAULT_TIMEOUT: u64 = 10;
const MUTATION: &str = "mutation.webhook.admission.k8s.io";
const PATCH: &str = "patch.webhook.admission.k8s.io";
const VALIDATION: &str = "validating.webhook.admission.k8s.io";

/// The webhooks of both kinds, as long as their configurations stay the same.
pub struct Webhooks {
    mutating: Memo<Vec<Hook>>,
    validating: Memo<Vec<Hook>>,
}

impl Default for Webhooks {
    fn default() -> Self {
        let of = |resource: &str| Memo::of([keelson_api_types::Gvr::new(GROUP, "v1", resource)]);
        Self { mutating: of(MUTATING), validating: of(VALIDATING) }
    }
}

const MUTATING: &str = "mutatingwebhookconfigurations";
const VALIDATING: &str = "validatingwebhookconfigurations";

/// How a call ended without leave to go on.
enum Failure {
    /// The webhook says no.
    Rejected(StatusError),
    /// The request is refused, whatever the failure policy says.
    Refused(StatusError),
    /// The webhook could not be asked; its failure policy decides. With the HTTP status that it counts as.
    Call(u16, String),
}

impl Failure {
    fn called(&self, hook: &Hook) -> Called {
        match self {
            Self::Rejected(status) => Called::Rejected(status.code()),
            Self::Refused(_) => Called::Internal,
            Self::Call(code, _) => Called::Failed { code: *code, tolerated: hook.ignores_failure() },
        }
    }
}

/// Counts the call of a webhook.
fn count<T>(
    chain: &Chain,
    hook: &Hook,
    mutating: bool,
    op: Operation,
    outcome: &Result<T, Failure>,
    took: Duration,
) {
    let ended = outcome.as_ref().map_or_else(|failure| failure.called(hook), |_| Called::Allowed);
    chain.metrics.webhook(&hook.name, mutating, op, ended, took);
}

/// Runs the mutating webhooks one after another.
pub async fn mutate(chain: &Chain, r: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
    let hooks = chain.webhooks.mutating.get(chain.objects(), || hook::all(chain.objects(), MUTATING));
    if hooks.is_empty() || is_admission_configuration(r) {
        return Ok(());
    }
    let again = r.reinvocation.again;
    r.reinvocation.webhooks.begin(again, r.object.as_deref());
    for (index, hook) in hooks.iter().enumerate() {
        let Some(target) = wanted(chain, hook, r).await? else { continue };
        if !r.reinvocation.webhooks.runs(again, &hook.key) {
            continue;
        }
        let at = format!("round_{}_index_{index}", u8::from(again));
        let since = Instant::now();
        let outcome = change(chain, hook, &target, r, &at).await;
        count(chain, hook, true, r.op, &outcome, since.elapsed());
        let changed = *outcome.as_ref().unwrap_or(&false);
        let note = json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": changed})
            .to_string();
        r.annotate(format!("{MUTATION}/{at}"), note);
        if changed {
            r.reinvocation.webhooks.changed();
            r.reinvocation.wanted = true;
        }
        if hook.reinvocation_policy == "IfNeeded" {
            r.reinvocation.webhooks.ran(&hook.key);
        }
        if let Err(failure) = outcome {
            tolerate(hook, failure)?;
            r.annotate(format!("failed-open.{MUTATION}/{at}"), hook.name.clone());
        }
    }
    r.reinvocation.webhooks.end(r.object.as_deref());
    Ok(())
}

/// Calls one webhook and applies its patch; true if that changed the object.
async fn change(
    chain: &Chain,
    hook: &Hook,
    target: &Target,
    r: &mut AdmissionRequest<'_>,
    at: &str,
) -> Result<bool, Failure> {
    let answer = ask(chain, hook, target, r, true).await?;
    let (patch, patch_type) = (answer.patch.clone(), answer.patch_type.clone());
    accept(hook, answer, r)?;
    if patch.is_empty() {
        return Ok(false);
    }
    let parsed: Value = serde_json::from_slice(&patch)
        .map_err(|e| Failure::Call(503, format!("received undecodable patch in webhook response: {e}")))?;
    if parsed.as_array().is_some_and(Vec::is_empty) {
        return Ok(false);
    }
    let internal = |e: &dyn std::fmt::Display| Failure::Refused(StatusError::internal(e));
    if r.object.is_none() {
        let why = "attempted to modify the object, which is not supported for this operation";
        return Err(internal(&format!("admission webhook {} {why}", quote(&hook.name))));
    }
    if patch_type != "JSONPatch" {
        return Err(Failure::Call(503, format!("unsupported patch type {}", quote(&patch_type))));
    }
    let seen = Versioned::new(chain.objects(), r, target).await.map_err(Failure::Refused)?;
    let patched =
        keelson_machinery::patch::json_patch(seen.object.as_deref().unwrap_or(&Value::Null), &parsed)
            .map_err(|e| internal(&e))?;
    let stored = chain.objects().as_admitted(&target.gvr, patched, r.gvr).await.map_err(Failure::Refused)?;
    let note = json!({"configuration": hook.configuration, "webhook": hook.name, "patch": parsed,
        "patchType": "JSONPatch"});
    r.annotate(format!("{PATCH}/{at}"), note.to_string());
    let Some(object) = r.object.as_deref_mut() else { return Ok(false) };
    let changed = *object != stored;
    *object = stored;
    Ok(changed)
}

/// Asks the validating webhooks, all at once; the first refusal in their order counts.
pub async fn validate(chain: &Chain, r: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
    let hooks = chain.webhooks.validating.get(chain.objects(), || hook::all(chain.objects(), VALIDATING));
    if hooks.is_empty() || is_admission_configuration(r) {
        return Ok(());
    }
    let mut relevant = Vec::new();
    for hook in hooks.iter() {
        if let Some(target) = wanted(chain, hook, r).await? {
            relevant.push((hook, target));
        }
    }
    let request = &*r;
    let answers = relevant.iter().map(async |(hook, target)| {
        let since = Instant::now();
        (ask(chain, hook, target, request, false).await, since.elapsed())
    });
    let answers = join_all(answers).await;
    let mut verdict = Ok(());
    for (index, ((hook, _), (answer, took))) in relevant.into_iter().zip(answers).enumerate() {
        let outcome = answer.and_then(|answer| accept(hook, answer, r));
        count(chain, hook, false, r.op, &outcome, took);
        let outcome = match outcome {
            Ok(()) => Ok(()),
            Err(failure) => tolerate(hook, failure).map(|()| {
                r.annotate(format!("failed-open.{VALIDATION}/round_0_index_{index}"), hook.name.clone());
            }),
        };
        verdict = verdict.and(outcome);
    }
    verdict
}

/// In which version the webhook wants to see the request, if at all.
async fn wanted(chain: &Chain, hook: &Hook, r: &AdmissionRequest<'_>) -> Result<Option<Target>, StatusError> {
    let Some(target) = hook.constraints.target(chain.objects(), r).await? else { return Ok(None) };
    if hook.conditions.is_empty() {
        return Ok(Some(target));
    }
    let seen = Versioned::new(chain.objects(), r, &target).await?;
    let (facts, asker) = (Facts::of(r, &target), Asker::new(chain.authorizer(), r.user));
    let holds = asker.settle(|| hook.conditions.hold_for(&facts, &seen, &asker)).await;
    let holds = holds.map_err(|why| StatusError::forbidden(&r.gvr.group_resource(), r.name, why))?;
    Ok(Some(target).filter(|_| holds))
}

/// Takes over what the answer says beside yes or no.
fn accept(hook: &Hook, answer: Answer, r: &mut AdmissionRequest<'_>) -> Result<(), Failure> {
    r.warnings.extend(answer.warnings);
    for (key, value) in answer.annotations {
        r.annotate(format!("{}/{key}", hook.name), value);
    }
    if answer.allowed {
        return Ok(());
    }
    Err(Failure::Rejected(review::rejection(&hook.name, answer.status.as_ref())))
}

fn tolerate(hook: &Hook, failure: Failure) -> Result<(), StatusError> {
    match failure {
        Failure::Rejected(status) | Failure::Refused(status) => Err(status),
        Failure::Call(_, why) => {
            let message = format!("failed calling webhook {}: {why}", quote(&hook.name));
            if hook.ignores_failure() {
                tracing::warn!(message, "failing open");
                return Ok(());
            }
            Err(StatusError::internal(message))
        }
    }
}

async fn ask(
    chain: &Chain,
    hook: &Hook,
    target: &Target,
    r: &AdmissionRequest<'_>,
    mutating: bool,
) -> Result<Answer, Failure> {
    if r.dry_run && !matches!(hook.side_effects.as_str(), "None" | "NoneOnDryRun") {
        let why = format!("admission webhook {} does not support dry run", quote(&hook.name));
        return Err(Failure::Refused(StatusError::bad_request(why)));
    }
    let uid = uuid::Uuid::new_v4().to_string();
    let version = review::version(&hook.admission_review_versions).map_err(|why| Failure::Call(400, why))?;
    let seen = Versioned::new(chain.objects(), r, target).await.map_err(Failure::Refused)?;
    let body = review::encode(&uid, version, request(r, target), &seen);
    let timeout = Duration::from_secs(hook.timeout_seconds.unwrap_or(DEFAULT_TIMEOUT));
    let mut span = spans::child(if mutating { "Call mutating webhook" } else { "Call validating webhook" });
    if let Some(span) = &mut span {
        span.set("configuration", &*hook.configuration);
        span.set("webhook", &*hook.name);
        span.set("resource", &*r.gvr.to_string());
        span.set("subresource", r.subresource);
        span.set("operation", r.op.as_str());
        span.set("UID", &*uid);
    }
    let call = client::post(chain.objects(), &hook.client_config, timeout, body);
    let body = spans::within(span.as_ref(), call)
        .await
        .map_err(|e| Failure::Call(e.code(), format!("failed to call webhook: {e}")))?;
    review::read(&body, &uid, version, mutating)
        .map_err(|e| Failure::Call(503, format!("received invalid webhook response: {e}")))
}
