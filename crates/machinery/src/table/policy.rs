//! Access control, admission, certificates, scheduling, flow control and the like.

use super::object::Obj;
use super::plain;
use keelson_api_types::duration;
use serde_json::{Value, json};

pub(super) fn cells(resource: &str, o: &Obj) -> Vec<Value> {
    match resource {
        "rolebindings" | "clusterrolebindings" => binding(o),
        "certificatesigningrequests" => signing_request(o),
        "priorityclasses" => vec![
            o.name(),
            json!(o.int("value")),
            json!(o.flag("globalDefault")),
            o.age(),
            json!(o.text("preemptionPolicy")),
        ],
        "leases" => vec![o.name(), json!(o.text("spec.holderIdentity")), o.age()],
        "runtimeclasses" => vec![o.name(), json!(o.text("handler")), o.age()],
        "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => {
            vec![o.name(), json!(o.len("webhooks")), o.age()]
        }
        "validatingadmissionpolicies" => admission(o, "spec.validations"),
        "mutatingadmissionpolicies" => admission(o, "spec.mutations"),
        "validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings" => {
            vec![o.name(), json!(o.text("spec.policyName")), json!(parameter(o)), o.age()]
        }
        "apiservices" => api_service(o),
        "flowschemas" => flow_schema(o),
        "prioritylevelconfigurations" => priority_level(o),
        "storageversionmigrations" => migration(o),
        "deviceclasses" | "resourceclaimtemplates" => vec![o.name(), o.age()],
        "resourceclaims" => vec![o.name(), json!(claim_state(o)), o.age()],
        "resourceslices" => vec![
            o.name(),
            json!(o.text("spec.nodeName")),
            json!(o.text("spec.driver")),
            json!(o.text("spec.pool.name")),
            o.age(),
        ],
        _ => plain(o),
    }
}

fn binding(o: &Obj) -> Vec<Value> {
    let subjects = |kind: &str| {
        let names = o.list("subjects").filter(|s| s.text("kind") == kind).map(|s| match kind {
            "ServiceAccount" if !s.text("namespace").is_empty() => {
                format!("{}/{}", s.text("namespace"), s.text("name"))
            }
            _ => s.text("name").to_owned(),
        });
        json!(names.collect::<Vec<_>>().join(", "))
    };
    let role = format!("{}/{}", o.text("roleRef.kind"), o.text("roleRef.name"));
    vec![o.name(), json!(role), o.age(), subjects("User"), subjects("Group"), subjects("ServiceAccount")]
}

fn signing_request(o: &Obj) -> Vec<Value> {
    let has = |kind: &str| o.condition(kind).is_some();
    let mut status = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (_, true) => "Approved",
        _ => "Pending",
    }
    .to_owned();
    if has("Failed") {
        status.push_str(",Failed");
    }
    if !o.text("status.certificate").is_empty() {
        status.push_str(",Issued");
    }
    let wanted = match o.get("spec.expirationSeconds") {
        Some(_) => duration::human(o.int("spec.expirationSeconds") as f64),
        None => "<none>".to_owned(),
    };
    let signer = o.or("spec.signerName", "<none>");
    vec![o.name(), o.age(), json!(signer), json!(o.text("spec.username")), json!(wanted), json!(status)]
}

fn admission(o: &Obj, rules: &str) -> Vec<Value> {
    let kind = match o.has("spec.paramKind") {
        true => format!("{}/{}", o.text("spec.paramKind.apiVersion"), o.text("spec.paramKind.kind")),
        false => "<unset>".to_owned(),
    };
    vec![o.name(), json!(o.len(rules)), json!(kind), o.age()]
}

fn parameter(o: &Obj) -> String {
    let p = o.at("spec.paramRef");
    if !p.text("name").is_empty() {
        return format!("{}/{}", p.or("namespace", "*"), p.text("name"));
    }
    if p.has("selector") { p.selector("selector") } else { "<unset>".to_owned() }
}

fn api_service(o: &Obj) -> Vec<Value> {
    let service = match o.has("spec.service") {
        true => format!("{}/{}", o.text("spec.service.namespace"), o.text("spec.service.name")),
        false => "Local".to_owned(),
    };
    let available = match o.condition("Available") {
        Some(c) if c.text("status") == "True" => "True".to_owned(),
        Some(c) => format!("{} ({})", c.text("status"), c.text("reason")),
        None => "Unknown".to_owned(),
    };
    vec![o.name(), json!(service), json!(available), o.age()]
}

fn migration(o: &Obj) -> Vec<Value> {
    let (group, resource) = (o.text("spec.resource.group"), o.text("spec.resource.resource"));
    let name = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    let states = ["Running", "Failed", "Succeeded"];
    let mut latest = o.list("status.conditions").rev();
    let state = latest.find(|c| c.text("status") == "True" && states.contains(&c.text("type")));
    vec![o.name(), json!(name), json!(state.map_or("Unknown", |c| c.text("type")))]
}

fn flow_schema(o: &Obj) -> Vec<Value> {
    vec![
        o.name(),
        json!(o.text("spec.priorityLevelConfiguration.name")),
        json!(o.int("spec.matchingPrecedence")),
        json!(o.or("spec.distinguisherMethod.type", "<none>")),
        o.age(),
        json!(o.condition("Dangling").map_or("?", |c| c.text("status"))),
    ]
}

fn priority_level(o: &Obj) -> Vec<Value> {
    let or_none = |path: &str| o.get(path).cloned().unwrap_or_else(|| json!("<none>"));
    let queuing = |k: &str| or_none(&format!("spec.limited.limitResponse.queuing.{k}"));
    vec![
        o.name(),
        json!(o.text("spec.type")),
        or_none("spec.limited.nominalConcurrencyShares"),
        queuing("queues"),
        queuing("handSize"),
        queuing("queueLengthLimit"),
        o.age(),
    ]
}

fn claim_state(o: &Obj) -> String {
    let deleted = o.has("metadata.deletionTimestamp");
    let mut states = Vec::new();
    if deleted {
        states.push("deleted");
    }
    if o.has("status.allocation") {
        states.push("allocated");
        if o.len("status.reservedFor") > 0 {
            states.push("reserved");
        }
    } else if !deleted {
        states.push("pending");
    }
    states.join(",")
}
