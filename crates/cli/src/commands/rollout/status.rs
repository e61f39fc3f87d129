//! One sentence on how far a rollout is.

use anyhow::bail;
use serde_json::Value;

use crate::value::{list, number, text};

/// The sentence, and whether the rollout is done.
pub fn of(kind: &str, object: &Value, revision: i64) -> anyhow::Result<(String, bool)> {
    match kind {
        "Deployment" => deployment(object, revision),
        "DaemonSet" => daemon_set(object),
        "StatefulSet" => stateful_set(object),
        _ => bail!("no status viewer has been implemented for {kind}"),
    }
}

/// Whether the controller has seen the specification as it is.
fn observed(object: &Value) -> bool {
    number(object, "/metadata/generation") <= number(object, "/status/observedGeneration")
}

fn deployment(object: &Value, revision: i64) -> anyhow::Result<(String, bool)> {
    let name = text(object, "/metadata/name");
    if revision > 0 {
        let running = keelson_api_types::meta::annotation(object, "deployment.kubernetes.io/revision")
            .and_then(|r| r.parse::<i64>().ok());
        match running {
            None => bail!("cannot get the revision of deployment {name:?}"),
            Some(running) if running != revision => {
                bail!("desired revision ({revision}) is different from the running revision ({running})")
            }
            Some(_) => {}
        }
    }
    if !observed(object) {
        return Ok(("Waiting for deployment spec update to be observed...\n".to_owned(), false));
    }
    let overdue = list(object, "/status/conditions")
        .iter()
        .any(|c| text(c, "/type") == "Progressing" && text(c, "/reason") == "ProgressDeadlineExceeded");
    if overdue {
        bail!("deployment {name:?} exceeded its progress deadline");
    }
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let status = |field: &str| number(object, &format!("/status/{field}"));
    let (total, updated, available) =
        (status("replicas"), status("updatedReplicas"), status("availableReplicas"));
    let waiting =
        |what: String| (format!("Waiting for deployment {name:?} rollout to finish: {what}...\n"), false);
    Ok(if updated < wanted {
        waiting(format!("{updated} out of {wanted} new replicas have been updated"))
    } else if total > updated {
        waiting(format!("{} old replicas are pending termination", total - updated))
    } else if available < updated {
        waiting(format!("{available} of {updated} updated replicas are available"))
    } else {
        (format!("deployment {name:?} successfully rolled out\n"), true)
    })
}

fn daemon_set(object: &Value) -> anyhow::Result<(String, bool)> {
    let name = text(object, "/metadata/name");
    if text(object, "/spec/updateStrategy/type") != "RollingUpdate" {
        bail!("rollout status is only available for RollingUpdate strategy type");
    }
    if !observed(object) {
        return Ok(("Waiting for daemon set spec update to be observed...\n".to_owned(), false));
    }
    let status = |field: &str| number(object, &format!("/status/{field}"));
    let (wanted, updated, available) =
        (status("desiredNumberScheduled"), status("updatedNumberScheduled"), status("numberAvailable"));
    let waiting =
        |what: String| (format!("Waiting for daemon set {name:?} rollout to finish: {what}...\n"), false);
    Ok(if updated < wanted {
        waiting(format!("{updated} out of {wanted} new pods have been updated"))
    } else if available < wanted {
        waiting(format!("{available} of {wanted} updated pods are available"))
    } else {
        (format!("daemon set {name:?} successfully rolled out\n"), true)
    })
}

fn stateful_set(object: &Value) -> anyhow::Result<(String, bool)> {
    if text(object, "/spec/updateStrategy/type") != "RollingUpdate" {
        bail!("rollout status is only available for RollingUpdate strategy type");
    }
    if number(object, "/status/observedGeneration") == 0 || !observed(object) {
        return Ok(("Waiting for statefulset spec update to be observed...\n".to_owned(), false));
    }
    let status = |field: &str| number(object, &format!("/status/{field}"));
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64);
    let (updated, ready) = (status("updatedReplicas"), status("readyReplicas"));
    if let Some(wanted) = wanted.filter(|wanted| ready < *wanted) {
        return Ok((format!("Waiting for {} pods to be ready...\n", wanted - ready), false));
    }
    let partition = number(object, "/spec/updateStrategy/rollingUpdate/partition");
    if let Some(wanted) = wanted.filter(|_| partition > 0) {
        let due = wanted - partition;
        return Ok(if updated < due {
            let text = format!(
                "Waiting for partitioned roll out to finish: {updated} out of {due} new pods have been updated...\n"
            );
            (text, false)
        } else {
            (format!("partitioned roll out complete: {updated} new pods have been updated...\n"), true)
        });
    }
    let (next, current) = (text(object, "/status/updateRevision"), text(object, "/status/currentRevision"));
    if next != current {
        let text = format!(
            "waiting for statefulset rolling update to complete {updated} pods at revision {next}...\n"
        );
        return Ok((text, false));
    }
    let pods = status("currentReplicas");
    Ok((format!("statefulset rolling update complete {pods} pods at revision {current}...\n"), true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(kind: &str, spec: Value, status: Value, expected: &str, done: bool) {
        let object = json!({"metadata": {"name": "web", "generation": 2}, "spec": spec, "status": status});
        assert_eq!(of(kind, &object, 0).expect("a status"), (expected.to_owned(), done));
    }

    #[test]
    fn deployments_say_how_far_they_are() {
        let spec = json!({"replicas": 3});
        let status = |total: i64, updated: i64, available: i64| json!({"observedGeneration": 2, "replicas": total, "updatedReplicas": updated, "availableReplicas": available});
        let waiting = |text: &str| format!("Waiting for deployment \"web\" rollout to finish: {text}...\n");
        check(
            "Deployment",
            spec.clone(),
            json!({"observedGeneration": 1}),
            "Waiting for deployment spec update to be observed...\n",
            false,
        );
        check(
            "Deployment",
            spec.clone(),
            status(3, 1, 3),
            &waiting("1 out of 3 new replicas have been updated"),
            false,
        );
        check(
            "Deployment",
            spec.clone(),
            status(4, 3, 3),
            &waiting("1 old replicas are pending termination"),
            false,
        );
        check(
            "Deployment",
            spec.clone(),
            status(3, 3, 2),
            &waiting("2 of 3 updated replicas are available"),
            false,
        );
        check("Deployment", spec, status(3, 3, 3), "deployment \"web\" successfully rolled out\n", true);
    }

    #[test]
    fn an_overdue_deployment_is_a_failure() {
        let object = json!({"metadata": {"name": "web"}, "status": {"conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]}});
        let error = of("Deployment", &object, 0).expect_err("overdue").to_string();
        assert_eq!(error, "deployment \"web\" exceeded its progress deadline");
    }

    #[test]
    fn stateful_sets_and_daemon_sets_say_how_far_they_are() {
        let rolling = json!({"replicas": 2, "updateStrategy": {"type": "RollingUpdate"}});
        check(
            "StatefulSet",
            rolling.clone(),
            json!({"observedGeneration": 2, "readyReplicas": 1}),
            "Waiting for 1 pods to be ready...\n",
            false,
        );
        check(
            "StatefulSet",
            rolling.clone(),
            json!({"observedGeneration": 2, "readyReplicas": 2, "currentReplicas": 2, "updateRevision": "a", "currentRevision": "a"}),
            "statefulset rolling update complete 2 pods at revision a...\n",
            true,
        );
        check(
            "DaemonSet",
            rolling,
            json!({"observedGeneration": 2, "desiredNumberScheduled": 1, "updatedNumberScheduled": 1, "numberAvailable": 1}),
            "daemon set \"web\" successfully rolled out\n",
            true,
        );
    }
}
