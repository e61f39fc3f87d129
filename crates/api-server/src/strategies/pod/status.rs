//! Validation of a pod's status as the node agent and the scheduler write it.

use super::update;
use crate::strategies::check::{At, Errors};
use crate::strategies::edit::same;

const LISTS: [&str; 3] = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];

pub fn validate(new: &At<'_>, old: &At<'_>, e: &mut Errors) {
    update::annotations(new, old, e);
    let (status, before) = (new.f("status"), old.f("status"));
    for condition in status.f("conditions").each() {
        if condition.f("observedGeneration").i() < 0 {
            e.invalid(&condition.f("observedGeneration"), "must be a non-negative integer");
        }
        let kind = condition.f("type");
        if !["PodScheduled", "Ready", "Initialized"].contains(&kind.s()) {
            e.qualified_name(&kind.under(condition.path.field("Type")));
        }
    }
    let nominated = status.f("nominatedNodeName");
    if !nominated.is_empty() && nominated.s() != before.f("nominatedNodeName").s() {
        e.dns_subdomain(&nominated);
        if !old.dig(&["spec", "nodeName"]).is_empty() {
            e.forbidden(&nominated.path, "may not be set on pods that are already bound to a node");
        }
    }
    if status.f("observedGeneration").i() < 0 {
        e.invalid(&status.f("observedGeneration"), "must be a non-negative integer");
    }
    e.immutable(&status.f("qosClass"), &before.f("qosClass"));
    for list in LISTS {
        restarts(&status.f(list), &before.f(list), &old.f("spec"), list, e);
    }
    claims(&status.f("resourceClaimStatuses"), &new.f("spec"), e);
    addresses(&status, &before, e);
}

/// A container that ended for good stays ended.
fn restarts(now: &At<'_>, before: &At<'_>, spec: &At<'_>, list: &str, e: &mut Errors) {
    for (i, was) in before.each().enumerate() {
        let Some(ended) = was.f("state").get("terminated") else { continue };
        let name = was.f("name").s();
        let running =
            |status: &At<'_>| status.f("name").s() == name && !status.dig(&["state", "terminated"]).has();
        if now.each().any(|status| running(&status))
            && !may_restart(spec, list, name, ended.f("exitCode").i())
        {
            let path = now.path.index(i).field("state");
            e.forbidden(&path, "may not be transitioned to non-terminated state");
        }
    }
}

fn may_restart(spec: &At<'_>, list: &str, name: &str, exit_code: i64) -> bool {
    let source = match list {
        "containerStatuses" => "containers",
        "initContainerStatuses" => "initContainers",
        _ => return false,
    };
    let everywhere = ["containers", "initContainers"].iter().flat_map(|list| spec.f(list).each());
    let restarts_all =
        |c: At<'_>| c.f("restartPolicyRules").each().any(|r| r.f("action").s() == "RestartAllContainers");
    if everywhere.into_iter().any(restarts_all) {
        return true;
    }
    let Some(container) = spec.f(source).each().find(|c| c.f("name").s() == name) else { return false };
    for rule in container.f("restartPolicyRules").each() {
        let codes = rule.f("exitCodes");
        let listed = codes.f("values").each().any(|code| code.i() == exit_code);
        if listed == (codes.f("operator").s() == "In") {
            return true;
        }
    }
    let policy = match container.f("restartPolicy").s() {
        "" => spec.f("restartPolicy").s(),
        own => own,
    };
    match policy {
        "Always" => true,
        "OnFailure" => exit_code != 0,
        _ => false,
    }
}

fn claims(at: &At<'_>, spec: &At<'_>, e: &mut Errors) {
    let mut seen = Vec::new();
    for status in at.each() {
        let name = status.f("name");
        if !spec.f("resourceClaims").each().any(|claim| claim.f("name").s() == name.s()) {
            e.invalid(&name, "must match the name of an entry in `spec.resourceClaims`");
        }
        if seen.contains(&name.s()) {
            e.duplicate(&name.path, name.s());
        }
        seen.push(name.s());
        if let Some(claim) = status.get("resourceClaimName") {
            e.dns_subdomain(&claim);
        }
    }
}

fn addresses(status: &At<'_>, before: &At<'_>, e: &mut Errors) {
    let hosts = status.f("hostIPs");
    if !hosts.is_empty() && status.f("hostIP").s() != hosts.at(0).f("ip").s() {
        e.invalid(&hosts.at(0).f("ip"), "must be equal to `hostIP`");
    }
    for field in ["podIPs", "hostIPs"] {
        let list = status.f(field);
        if same(list.value, before.f(field).value) {
            continue;
        }
        for entry in list.each() {
            e.ip(&entry.f("ip").under(entry.path), &[]);
        }
        let sixes = list.each().filter(|entry| entry.f("ip").s().contains(':')).count();
        if list.len() > 2 || (list.len() == 2 && sixes != 1) {
            e.invalid(&list, "may specify no more than one IP for each IP family");
        }
    }
}
