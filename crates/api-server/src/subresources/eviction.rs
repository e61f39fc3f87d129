//! Eviction: a delete that disruption budgets have a say in.

use std::sync::Arc;

use crate::meta::string;
use http::StatusCode;
use keelson_api_types::{Cause, GroupResource, Gvr, LabelSelector, Status, StatusError};
use serde_json::{Value, json};

use super::binding::set_condition;
use super::decode;
use crate::app::{App, Call};
use crate::body::Response;
use crate::codec;
use crate::meta;
use crate::negotiate::Accepted;
use crate::options::{DeleteOptions, WriteOptions};
use crate::registry::{Resource, Subresource};
use crate::response;
use crate::types::{Operation, UserInfo};
use crate::verbs::admit::{Action, admit};
use crate::verbs::delete;
use crate::verbs::write::{Change, Writer};

const REFUSAL: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
/// Evictions that a budget remembers until its controller has seen them.
const DISRUPTED_MAX: usize = 2000;

pub async fn serve(
    app: &Arc<App>,
    call: &mut Call,
    pods: &Arc<Resource>,
    subresource: &Subresource,
) -> Result<Response, StatusError> {
    let options = codec::write_options(call, "CreateOptions")?;
    let mut eviction = decode(app, call, subresource, &options).await?;
    let name = call.info.name.clone();
    let given = meta::text(&eviction, "name");
    if !given.is_empty() && given != name {
        return Err(StatusError::bad_request("name in URL does not match name in Eviction object"));
    }
    let (gvk, dry_run) = (&subresource.gvk, options.dry_run);
    let action = Action { op: Operation::Create, gvk, options: &options.object, dry_run };
    admit(app, call, pods, action, &mut eviction).await?;
    let mut delete_options = eviction.get("deleteOptions").cloned().unwrap_or_else(|| json!({}));
    if options.dry_run {
        delete_options["dryRun"] = json!(["All"]);
    }
    let delete_options = DeleteOptions::parse(Some(delete_options), &call.query)?;
    let evictor = Evictor { app, pods, user: &call.user, namespace: &call.info.namespace, name: &name };
    evictor.evict(delete_options).await?;
    let mut status = Status::success();
    status.code = 201;
    let status = serde_json::to_value(status).map_err(StatusError::internal)?;
    Ok(response::value(
        &call.headers,
        StatusCode::CREATED,
        call.accepted().unwrap_or(Accepted::JSON),
        &status,
    ))
}

struct Evictor<'a> {
    app: &'a Arc<App>,
    pods: &'a Arc<Resource>,
    user: &'a UserInfo,
    namespace: &'a str,
    name: &'a str,
}

impl Evictor<'_> {
    async fn evict(&self, mut options: DeleteOptions) -> Result<(), StatusError> {
        self.app.caches.fresh().await?;
        let entry = self.pods.cache.get(&self.pods.key(self.namespace, self.name));
        let entry = entry.ok_or_else(|| StatusError::not_found(&self.pods.group_resource(), self.name))?;
        let pod: Value = entry.decode().map_err(StatusError::internal)?;
        let asked = options.precondition_revision.is_some();
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        let over = matches!(phase, "Succeeded" | "Failed") || meta::is_deleting(&pod);
        if over || phase == "Pending" {
            if !over && !asked {
                options.precondition_revision = Some(meta::text(&pod, "resourceVersion").to_owned());
            }
            return self.delete(options).await;
        }
        let budgets = self.budgets(&pod);
        let budget = match budgets.as_slice() {
            [] => return self.delete(options).await,
            [one] => one,
            _ => {
                return Err(StatusError::new(
                    500,
                    keelson_api_types::Reason::Unknown,
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                ));
            }
        };
        let unhealthy_passes = !is_ready(&pod) && lets_unhealthy_go(budget);
        if unhealthy_passes {
            if !asked {
                options.precondition_revision = Some(meta::text(&pod, "resourceVersion").to_owned());
            }
        } else {
            self.take_one(meta::text(budget, "name"), options.dry_run).await?;
        }
        match self.delete(options).await {
            Err(error) if error.code() == 409 && unhealthy_passes && !asked => {
                Err(still_processed(meta::text(budget, "name")))
            }
            outcome => outcome,
        }
    }

    /// The budgets that select the pod.
    fn budgets(&self, pod: &Value) -> Vec<Value> {
        let gvr = Gvr::new("policy", "v1", "poddisruptionbudgets");
        let Some(resource) = self.app.registry.get(&gvr) else { return Vec::new() };
        let all = resource.cache.list(&format!("{}/", self.namespace), None, 0, |_| true);
        let labels = &pod["metadata"]["labels"];
        let selects = |budget: &Value| {
            let selector = LabelSelector::from_object(budget["spec"].get("selector"));
            selector.is_ok_and(|s| s.matches(labels))
        };
        all.entries.iter().filter_map(|e| e.decode().ok()).filter(selects).collect()
    }

    /// Counts the eviction against the budget, or refuses it.
    async fn take_one(&self, budget: &str, dry_run: bool) -> Result<(), StatusError> {
        let gvr = Gvr::new("policy", "v1", "poddisruptionbudgets");
        let resource =
            self.app.registry.get(&gvr).ok_or_else(|| StatusError::internal("no poddisruptionbudgets"))?;
        let user = UserInfo::loopback();
        let options = WriteOptions::server(dry_run, &json!({}));
        let writer = Writer::new(self.app, &resource, &user, self.namespace, "status", &options).admitted();
        writer
            .update(budget, false, &mut Vec::new(), |old| {
                let old = old.unwrap_or(&Value::Null);
                Ok(Change { object: decremented(old, self.name)?, tracked: true })
            })
            .await?;
        Ok(())
    }

    /// Says in the pod why it goes, then deletes it.
    async fn delete(&self, mut options: DeleteOptions) -> Result<(), StatusError> {
        if !options.dry_run {
            let user = UserInfo::loopback();
            let write_options = WriteOptions::server(false, &json!({}));
            let writer =
                Writer::new(self.app, self.pods, &user, self.namespace, "status", &write_options).admitted();
            let updated = writer
                .update(self.name, false, &mut Vec::new(), |old| {
                    let old = old.unwrap_or(&Value::Null);
                    Ok(Change { object: self.marked(old, &options)?, tracked: true })
                })
                .await?;
            if options.precondition_revision.is_some() {
                options.precondition_revision = Some(updated.stored.revision.to_string());
            }
        }
        let (app, pods) = (self.app, self.pods);
        // What was admitted is the eviction.
        delete::delete(app, pods, self.user, self.namespace, self.name, &options, true, &mut Vec::new())
            .await?;
        Ok(())
    }

    fn marked(&self, old: &Value, options: &DeleteOptions) -> Result<Value, StatusError> {
        for (what, field, wanted) in [
            ("UID", "uid", &options.precondition_uid),
            ("ResourceVersion", "resourceVersion", &options.precondition_revision),
        ] {
            let actual = meta::text(old, field);
            if let Some(wanted) = wanted.as_deref().filter(|w| *w != actual) {
                let cause = format!(
                    "the {what} in the precondition ({wanted}) does not match the {what} in record ({actual})"
                );
                return Err(StatusError::conflict(&GroupResource::new("", "Pod"), self.name, cause));
            }
        }
        let mut pod = old.clone();
        if !pod["status"]["conditions"].is_array() {
            pod["status"]["conditions"] = json!([]);
        }
        if let Some(conditions) = pod["status"]["conditions"].as_array_mut() {
            let condition = json!({
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "EvictionByEvictionAPI",
                "message": "Eviction API: evicting",
            });
            set_condition(conditions, condition);
        }
        Ok(pod)
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| string(c, "type") == "Ready" && string(c, "status") == "True")
}

fn number(budget: &Value, field: &str) -> i64 {
    budget["status"][field].as_i64().unwrap_or(0)
}

fn lets_unhealthy_go(budget: &Value) -> bool {
    let desired = number(budget, "desiredHealthy");
    string(&budget["spec"], "unhealthyPodEvictionPolicy") == "AlwaysAllow"
        || number(budget, "currentHealthy") >= desired && desired > 0
}

fn refused(message: String, retry_after: u32) -> StatusError {
    let mut status = StatusError::too_many_requests(REFUSAL, retry_after).into_status();
    if let Some(details) = &mut status.details {
        details.causes.push(Cause { reason: "DisruptionBudget".into(), message, field: String::new() });
    }
    StatusError::from(status)
}

fn still_processed(budget: &str) -> StatusError {
    refused(format!("The disruption budget {budget} is still being processed by the server."), 10)
}

/// The budget after one more eviction, or why there may be none.
fn decremented(budget: &Value, pod: &str) -> Result<Value, StatusError> {
    let name = meta::text(budget, "name");
    let forbidden = |cause: &str| {
        let kind = GroupResource::new("policy", "poddisruptionbudget");
        Err(StatusError::forbidden(&kind, name, cause))
    };
    if number(budget, "observedGeneration") < meta::generation(budget) {
        return Err(still_processed(name));
    }
    let allowed = number(budget, "disruptionsAllowed");
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    if budget["status"]["disruptedPods"].as_object().is_some_and(|d| d.len() > DISRUPTED_MAX) {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        let (desired, current) = (number(budget, "desiredHealthy"), number(budget, "currentHealthy"));
        let message = if current <= desired {
            format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently")
        } else {
            format!("The disruption budget {name} does not allow evicting pods currently")
        };
        return Err(refused(message, 0));
    }
    let mut budget = budget.clone();
    let left = allowed - 1;
    budget["status"]["disruptionsAllowed"] = left.into();
    if left == 0
        && let Some(conditions) = budget["status"]["conditions"].as_array_mut()
    {
        let condition = json!({"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods"});
        set_condition(conditions, condition);
    }
    budget["status"]["disruptedPods"][pod] = keelson_api_types::meta::now_rfc3339().into();
    Ok(budget)
}
