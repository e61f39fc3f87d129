//! Workloads: apps, batch, autoscaling and policy.

use super::core::quantity_at;
use super::object::{Obj, title_bool};
use super::plain;
use serde_json::{Value, json};

pub(super) fn cells(resource: &str, o: &Obj) -> Vec<Value> {
    let template = || o.containers("spec.template.spec.containers");
    match resource {
        "scales" => vec![o.name(), json!(o.int("spec.replicas")), json!(o.int("status.replicas")), o.age()],
        "deployments" => {
            let [names, images] = template();
            let ready = format!("{}/{}", o.int("status.readyReplicas"), o.int("spec.replicas"));
            let (updated, available) = (o.int("status.updatedReplicas"), o.int("status.availableReplicas"));
            let selector = o.selector("spec.selector");
            vec![
                o.name(),
                json!(ready),
                json!(updated),
                json!(available),
                o.age(),
                names,
                images,
                json!(selector),
            ]
        }
        "replicasets" => {
            let [names, images] = template();
            vec![
                o.name(),
                json!(o.int("spec.replicas")),
                json!(o.int("status.replicas")),
                json!(o.int("status.readyReplicas")),
                o.age(),
                names,
                images,
                json!(o.selector("spec.selector")),
            ]
        }
        "statefulsets" => {
            let [names, images] = template();
            let ready = format!("{}/{}", o.int("status.readyReplicas"), o.int("spec.replicas"));
            vec![o.name(), json!(ready), o.age(), names, images]
        }
        "daemonsets" => {
            let [names, images] = template();
            let count = |k: &str| json!(o.int(&format!("status.{k}")));
            vec![
                o.name(),
                count("desiredNumberScheduled"),
                count("currentNumberScheduled"),
                count("numberReady"),
                count("updatedNumberScheduled"),
                count("numberAvailable"),
                json!(o.labels("spec.template.spec.nodeSelector")),
                o.age(),
                names,
                images,
                json!(o.selector("spec.selector")),
            ]
        }
        "controllerrevisions" => vec![o.name(), json!(controller(o)), json!(o.int("revision")), o.age()],
        "jobs" => job(o),
        "cronjobs" => cron_job(o),
        "horizontalpodautoscalers" => autoscaler(o),
        "poddisruptionbudgets" => vec![
            o.name(),
            json!(o.or("spec.minAvailable", "N/A")),
            json!(o.or("spec.maxUnavailable", "N/A")),
            json!(o.int("status.disruptionsAllowed")),
            o.age(),
        ],
        _ => plain(o),
    }
}

fn controller(o: &Obj) -> String {
    let Some(owner) = o.list("metadata.ownerReferences").find(|r| r.flag("controller")) else {
        return "<none>".to_owned();
    };
    let (group, _) = keelson_api_types::gvk::split_api_version(owner.text("apiVersion"));
    let dot = if group.is_empty() { "" } else { "." };
    format!("{}{dot}{group}/{}", owner.text("kind"), owner.text("name")).to_lowercase()
}

fn job(o: &Obj) -> Vec<Value> {
    let done = o.int("status.succeeded");
    let completions = match (o.get("spec.completions"), o.int("spec.parallelism")) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{done}/1 of {parallelism}"),
        _ => format!("{done}/1"),
    };
    let status = if o.has_true_condition("Complete") {
        "Complete"
    } else if o.has_true_condition("Failed") {
        "Failed"
    } else if o.has("metadata.deletionTimestamp") {
        "Terminating"
    } else {
        let others = ["Suspended", "FailureTarget", "SuccessCriteriaMet"];
        others.into_iter().find(|c| o.has_true_condition(c)).unwrap_or("Running")
    };
    let [names, images] = o.containers("spec.template.spec.containers");
    vec![
        o.name(),
        json!(status),
        json!(completions),
        json!(o.between("status.startTime", "status.completionTime")),
        o.age(),
        names,
        images,
        json!(o.selector("spec.selector")),
    ]
}

fn cron_job(o: &Obj) -> Vec<Value> {
    let last = if o.has("status.lastScheduleTime") {
        o.since("status.lastScheduleTime")
    } else {
        "<none>".to_owned()
    };
    let suspend = if o.has("spec.suspend") { title_bool(o.flag("spec.suspend")) } else { "<unset>" };
    let [names, images] = o.containers("spec.jobTemplate.spec.template.spec.containers");
    vec![
        o.name(),
        json!(o.text("spec.schedule")),
        json!(o.or("spec.timeZone", "<none>")),
        json!(suspend),
        json!(o.len("status.active")),
        json!(last),
        o.age(),
        names,
        images,
        json!(o.selector("spec.jobTemplate.spec.selector")),
    ]
}

fn autoscaler(o: &Obj) -> Vec<Value> {
    let reference = format!("{}/{}", o.text("spec.scaleTargetRef.kind"), o.text("spec.scaleTargetRef.name"));
    vec![
        o.name(),
        json!(reference),
        json!(metrics(o)),
        json!(o.or("spec.minReplicas", "<unset>")),
        json!(o.int("spec.maxReplicas")),
        json!(o.int("status.currentReplicas")),
        o.age(),
    ]
}

fn metrics(o: &Obj) -> String {
    if o.has("spec.targetCPUUtilizationPercentage") {
        let current = match o.get("status.currentCPUUtilizationPercentage") {
            Some(n) => format!("{n}%"),
            None => "<unknown>".to_owned(),
        };
        return format!("cpu: {current}/{}%", o.int("spec.targetCPUUtilizationPercentage"));
    }
    let mut current = o.list("status.currentMetrics");
    let all: Vec<String> =
        o.list("spec.metrics").map(|spec| metric(&spec, current.next().as_ref())).collect();
    match all.len() {
        0 => "<none>".to_owned(),
        n if n > 2 => format!("{} + {} more...", all[..2].join(", "), n - 2),
        _ => all.join(", "),
    }
}

/// One metric as `current/target`.
fn metric(spec: &Obj, status: Option<&Obj>) -> String {
    let source = match spec.text("type") {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        _ => return "<unknown type>".to_owned(),
    };
    let target = spec.at(&format!("{source}.target"));
    let now = status.map(|s| s.at(&format!("{source}.current")));
    let unknown = || "<unknown>".to_owned();
    let current = |key: &str| match &now {
        Some(now) if now.has(key) => quantity_at(now, key),
        _ => unknown(),
    };
    let named = source == "resource" || source == "containerResource";
    if named {
        let name = spec.text(&format!("{source}.name"));
        if target.has("averageValue") {
            return format!("{name}: {}/{}", current("averageValue"), quantity_at(&target, "averageValue"));
        }
        let percent = |o: &Obj, otherwise: &str| match o.get("averageUtilization") {
            Some(n) => format!("{n}%"),
            None => otherwise.to_owned(),
        };
        let now = now.as_ref().map_or_else(unknown, |now| percent(now, "<unknown>"));
        return format!("{name}: {now}/{}", percent(&target, "<auto>"));
    }
    if source == "pods" {
        return format!("{}/{}", current("averageValue"), quantity_at(&target, "averageValue"));
    }
    if target.has("averageValue") {
        return format!("{}/{} (avg)", current("averageValue"), quantity_at(&target, "averageValue"));
    }
    format!("{}/{}", current("value"), quantity_at(&target, "value"))
}
