//! Nodes.

use keelson_api_types::FieldError;
use serde_json::Value;

use crate::strategies::check::{At, Errors, Path};
use crate::strategies::common::{cidr_warnings, parse_cidr};
use crate::strategies::pod::{resources, scheduling};
use crate::strategies::{Ctx, Selectable, Strategy, carry, edit};

const POD_CIDR_FIXED: &str = "node updates may not change podCIDR except from \"\" to valid";

pub struct Node;

impl Strategy for Node {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = edit::ensure(object, "spec") {
            edit::omit_zero(spec, &["unschedulable", "podCIDR", "providerID"]);
            pod_cidrs(spec);
        }
        if let Some(status) = edit::ensure(object, "status")
            && let Some(capacity) = status.get("capacity").filter(|c| c.is_object()).cloned()
        {
            edit::default(status, "allocatable", capacity);
        }
    }

    /// Nodes register with their status.
    fn prepare_create(&self, _ctx: &Ctx<'_>, object: &mut Value) {
        for field in ["spec", "status"] {
            if let Some(part) = edit::some(object, field) {
                edit::unset(part, if field == "spec" { "configSource" } else { "config" });
            }
        }
    }

    fn prepare_update(&self, _ctx: &Ctx<'_>, object: &mut Value, old: &Value) {
        carry(object, old, "status");
        if !At::root(old).dig(&["spec", "configSource"]).has()
            && let Some(spec) = edit::some(object, "spec")
        {
            edit::unset(spec, "configSource");
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        node(&At::root(object), &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        node(&At::root(object), &mut e);
        update(&At::root(object), &At::root(old), &mut e);
        e.into_vec()
    }

    fn validate_status_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        amounts(&At::root(object), &mut e);
        update(&At::root(object), &At::root(old), &mut e);
        e.into_vec()
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let spec = At::root(object).f("spec");
        let mut out = Vec::new();
        if spec.f("configSource").has() {
            out.push("spec.configSource: the feature is removed".to_owned());
        }
        if !spec.f("externalID").is_empty() {
            out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
        }
        for range in spec.f("podCIDRs").each() {
            out.extend(cidr_warnings(&range.path, range.s()));
        }
        out
    }

    fn selectable_names(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn selectable_fields<'a>(&self, object: &'a Value) -> Selectable<'a> {
        vec![("spec.unschedulable", At::root(object).dig(&["spec", "unschedulable"]).b().to_string().into())]
    }
}

/// `podCIDR` is the first of `podCIDRs`; clients may set either.
fn pod_cidrs(spec: &mut Value) {
    let one = spec.get("podCIDR").and_then(Value::as_str).unwrap_or_default().to_owned();
    let first = spec["podCIDRs"].get(0).and_then(Value::as_str).unwrap_or_default().to_owned();
    match (one.is_empty(), first.is_empty()) {
        (false, true) => edit::set(spec, "podCIDRs", vec![one]),
        (true, false) => edit::set(spec, "podCIDR", first),
        _ => {}
    }
}

fn node(at: &At<'_>, e: &mut Errors) {
    let spec = at.f("spec");
    // Upstream reports taints under the metadata.
    scheduling::taints(&spec.f("taints"), &Path::of(&["metadata", "taints"]), e);
    amounts(at, e);
    let ranges = spec.f("podCIDRs");
    ranges.each().for_each(|range| e.cidr(&range, &[]));
    let parsed: Vec<_> = ranges.strings().into_iter().filter_map(parse_cidr).collect();
    let fours = parsed.iter().filter(|(ip, _)| ip.is_ipv4()).count();
    if ranges.len() > 2 || (parsed.len() == 2 && fours != 1) {
        e.invalid(&ranges, "may specify no more than one CIDR for each IP family");
    }
}

fn amounts(at: &At<'_>, e: &mut Errors) {
    for field in ["capacity", "allocatable"] {
        let list = at.dig(&["status", field]);
        for (name, amount) in list.entries() {
            resources::amount(name, &amount.under(list.path.field(name)), e);
        }
    }
}

fn update(at: &At<'_>, old: &At<'_>, e: &mut Errors) {
    let mut seen = Vec::new();
    for address in at.dig(&["status", "addresses"]).each() {
        if seen.contains(&address.value) {
            e.duplicate(&address.path, address.value.clone());
        }
        seen.push(address.value);
    }
    let (spec, before) = (at.f("spec"), old.f("spec"));
    let (now, was) = (spec.f("podCIDRs"), before.f("podCIDRs"));
    if !was.is_empty() && now.strings() != was.strings() {
        e.forbidden(&now.path, POD_CIDR_FIXED);
    }
    let (now, was) = (spec.f("providerID"), before.f("providerID"));
    if !was.is_empty() && now.s() != was.s() {
        e.forbidden(&now.path, "node updates may not change providerID except from \"\" to valid");
    }
    if spec.f("externalID").s() != before.f("externalID").s() {
        e.forbidden(&spec.path.field("externalID"), "may not be updated");
    }
}
