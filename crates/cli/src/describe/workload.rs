//! Deployments, replica sets, stateful sets, daemon sets, jobs and cron jobs.

use serde_json::Value;

use super::pod::describe_template;
use super::{Page, Related, conditions, controller, time};
use crate::commands::selector_text;
use crate::value::{flag, list, map, number, shown, text};

const REASON: [(&str, &str); 2] = [("Status", "status"), ("Reason", "reason")];

fn template(page: &mut Page, object: &Value) {
    describe_template(page, object.pointer("/spec/template").unwrap_or(&Value::Null));
}

pub(super) fn deployment(object: &Value, related: &Related) -> String {
    let mut page = Page::default();
    page.head(object);
    page.field(0, "CreationTimestamp", time(text(object, "/metadata/creationTimestamp")));
    page.meta(object);
    page.field(0, "Selector", selector_text(object));
    let status = |field: &str| number(object, &format!("/status/{field}"));
    page.field(
        0,
        "Replicas",
        format!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            number(object, "/spec/replicas"),
            status("updatedReplicas"),
            status("replicas"),
            status("availableReplicas"),
            status("unavailableReplicas")
        ),
    );
    page.field(0, "StrategyType", text(object, "/spec/strategy/type"));
    page.field(0, "MinReadySeconds", number(object, "/spec/minReadySeconds"));
    if let Some(rolling) = object.pointer("/spec/strategy/rollingUpdate") {
        let (unavailable, surge) = (shown(rolling.get("maxUnavailable")), shown(rolling.get("maxSurge")));
        page.field(0, "RollingUpdateStrategy", format!("{unavailable} max unavailable, {surge} max surge"));
    }
    template(&mut page, object);
    conditions(&mut page, object, &REASON, 1);
    replica_sets(&mut page, object, related.of("replicasets"));
    page.finish(related)
}

/// The set of the present template, and the older ones that still have pods.
fn replica_sets(page: &mut Page, object: &Value, sets: &[Value]) {
    if sets.is_empty() {
        return;
    }
    let revision = |o: &Value| {
        keelson_api_types::meta::annotation(o, "deployment.kubernetes.io/revision").map(str::to_owned)
    };
    let present = revision(object);
    let (new, mut old): (Vec<&Value>, Vec<&Value>) =
        sets.iter().partition(|set| revision(set) == present && present.is_some());
    old.sort_by_key(|set| text(set, "/metadata/creationTimestamp"));
    let shown = |sets: &[&Value]| {
        let texts: Vec<String> = sets
            .iter()
            .map(|set| {
                let name = text(set, "/metadata/name");
                format!(
                    "{name} ({}/{} replicas created)",
                    number(set, "/status/replicas"),
                    number(set, "/spec/replicas")
                )
            })
            .collect();
        if texts.is_empty() { "<none>".to_owned() } else { texts.join(", ") }
    };
    page.field(0, "OldReplicaSets", shown(&old));
    page.field(0, "NewReplicaSet", shown(&new));
}

fn pods_status(page: &mut Page, pods: &[Value]) {
    let count = |phase: &str| pods.iter().filter(|p| text(p, "/status/phase") == phase).count();
    page.field(
        0,
        "Pods Status",
        format!(
            "{} Running / {} Waiting / {} Succeeded / {} Failed",
            count("Running"),
            count("Pending"),
            count("Succeeded"),
            count("Failed")
        ),
    );
}

pub(super) fn replica_set(object: &Value, related: &Related) -> String {
    let mut page = Page::default();
    page.head(object);
    page.field(0, "Selector", selector_text(object));
    page.meta(object);
    page.field_if(0, "Controlled By", &controller(object));
    let (current, desired) = (number(object, "/status/replicas"), number(object, "/spec/replicas"));
    page.field(0, "Replicas", format!("{current} current / {desired} desired"));
    pods_status(&mut page, related.of("pods"));
    template(&mut page, object);
    conditions(&mut page, object, &REASON, 1);
    page.finish(related)
}

pub(super) fn stateful_set(object: &Value, related: &Related) -> String {
    let mut page = Page::default();
    page.head(object);
    page.field(0, "CreationTimestamp", time(text(object, "/metadata/creationTimestamp")));
    page.field(0, "Selector", selector_text(object));
    page.meta(object);
    let (desired, total) = (number(object, "/spec/replicas"), number(object, "/status/replicas"));
    page.field(0, "Replicas", format!("{desired} desired | {total} total"));
    page.field(0, "Update Strategy", text(object, "/spec/updateStrategy/type"));
    if let Some(partition) = object.pointer("/spec/updateStrategy/rollingUpdate/partition") {
        page.field(1, "Partition", partition);
    }
    pods_status(&mut page, related.of("pods"));
    template(&mut page, object);
    let claims = list(object, "/spec/volumeClaimTemplates");
    if claims.is_empty() {
        page.field(0, "Volume Claims", "<none>");
    } else {
        page.line(0, "Volume Claims:");
        for claim in claims {
            page.field(1, "Name", text(claim, "/metadata/name"));
            page.field(1, "StorageClass", text(claim, "/spec/storageClassName"));
            page.field(1, "Capacity", shown(claim.pointer("/spec/resources/requests/storage")));
            let modes: Vec<&str> =
                list(claim, "/spec/accessModes").iter().filter_map(Value::as_str).collect();
            page.field(1, "Access Modes", format!("[{}]", modes.join(" ")));
        }
    }
    page.finish(related)
}

pub(super) fn daemon_set(object: &Value, related: &Related) -> String {
    let mut page = Page::default();
    page.head(object);
    page.field(0, "Selector", selector_text(object));
    page.labels("Node-Selector", map(object, "/spec/template/spec/nodeSelector"));
    page.meta(object);
    for (title, field) in [
        ("Desired Number of Nodes Scheduled", "desiredNumberScheduled"),
        ("Current Number of Nodes Scheduled", "currentNumberScheduled"),
        ("Number of Nodes Scheduled with Up-to-date Pods", "updatedNumberScheduled"),
        ("Number of Nodes Scheduled with Available Pods", "numberAvailable"),
        ("Number of Nodes Misscheduled", "numberMisscheduled"),
    ] {
        page.line(0, &format!("{title}: {}", number(object, &format!("/status/{field}"))));
    }
    pods_status(&mut page, related.of("pods"));
    template(&mut page, object);
    page.finish(related)
}

pub(super) fn job(object: &Value, related: &Related) -> String {
    let mut page = Page::default();
    page.head(object);
    page.field(0, "Selector", selector_text(object));
    page.meta(object);
    page.field_if(0, "Controlled By", &controller(object));
    let mut optional = |title: &str, field: &str| {
        if let Some(value) = object.pointer(&format!("/spec/{field}")) {
            page.field(0, title, shown(Some(value)));
        }
    };
    optional("Parallelism", "parallelism");
    optional("Completions", "completions");
    optional("Completion Mode", "completionMode");
    optional("Suspend", "suspend");
    optional("Backoff Limit", "backoffLimit");
    optional("TTL Seconds After Finished", "ttlSecondsAfterFinished");
    let (start, end) = (text(object, "/status/startTime"), text(object, "/status/completionTime"));
    if !start.is_empty() {
        page.field(0, "Start Time", time(start));
    }
    if !end.is_empty() {
        page.field(0, "Completed At", time(end));
        let parse = keelson_api_types::meta::parse_time;
        if let (Some(start), Some(end)) = (parse(start), parse(end)) {
            let seconds = end.duration_since(start).as_secs_f64();
            page.field(0, "Duration", keelson_api_types::duration::human(seconds));
        }
    }
    if let Some(limit) = object.pointer("/spec/activeDeadlineSeconds") {
        page.field(0, "Active Deadline Seconds", format!("{limit}s"));
    }
    let status = |field: &str| number(object, &format!("/status/{field}"));
    let ready = match object.pointer("/status/ready") {
        Some(ready) => format!(" ({ready} Ready)"),
        None => String::new(),
    };
    let (active, succeeded, failed) = (status("active"), status("succeeded"), status("failed"));
    page.field(
        0,
        "Pods Statuses",
        format!("{active} Active{ready} / {succeeded} Succeeded / {failed} Failed"),
    );
    if text(object, "/spec/completionMode") == "Indexed" {
        let done = text(object, "/status/completedIndexes");
        page.field(0, "Completed Indexes", if done.is_empty() { "<none>" } else { done });
    }
    template(&mut page, object);
    page.finish(related)
}

pub(super) fn cron_job(object: &Value, related: &Related) -> String {
    let mut page = Page::default();
    page.head(object);
    page.meta(object);
    page.field(0, "Schedule", text(object, "/spec/schedule"));
    page.field(0, "Concurrency Policy", text(object, "/spec/concurrencyPolicy"));
    page.field(0, "Suspend", if flag(object, "/spec/suspend") { "True" } else { "False" });
    let limit = |field: &str| shown(object.pointer(&format!("/spec/{field}")));
    page.field(0, "Successful Job History Limit", limit("successfulJobsHistoryLimit"));
    page.field(0, "Failed Job History Limit", limit("failedJobsHistoryLimit"));
    page.field(0, "Starting Deadline Seconds", limit("startingDeadlineSeconds").replace("<none>", "<unset>"));
    describe_template(&mut page, object.pointer("/spec/jobTemplate/spec/template").unwrap_or(&Value::Null));
    let last = text(object, "/status/lastScheduleTime");
    page.field(0, "Last Schedule Time", if last.is_empty() { "<unset>".to_owned() } else { time(last) });
    let active: Vec<&str> = list(object, "/status/active").iter().map(|j| text(j, "/name")).collect();
    page.field(0, "Active Jobs", if active.is_empty() { "<none>".to_owned() } else { active.join(", ") });
    page.finish(related)
}
