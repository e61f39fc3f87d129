//! What may change in a pod once it exists: through itself, `ephemeralcontainers` and `resize`.

use serde_json::{Value, json};

use super::{resources, scheduling, security, spec};
use crate::strategies::check::{At, Errors, Path};
use crate::strategies::common::inclusive_range;
use crate::strategies::edit::{self, same};

const UPDATABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const MIRROR: &str = "kubernetes.io/config.mirror";

pub fn validate(new: &At<'_>, old: &At<'_>, e: &mut Errors) {
    spec::pod(new, e);
    annotations(new, old, e);
    let (spec, before) = (new.f("spec"), old.f("spec"));
    for list in ["containers", "initContainers"] {
        if !containers(&spec.f(list), &before.f(list), e) {
            return;
        }
    }
    if !deadline(&spec.f("activeDeadlineSeconds"), &before.f("activeDeadlineSeconds"), e) {
        return;
    }
    added_tolerations(&spec.f("tolerations"), &before.f("tolerations"), e);
    removed_gates(&spec.f("schedulingGates"), &before.f("schedulingGates"), e);
    if same(spec.value, before.value) {
        return;
    }
    let mut allowed = spec.value.clone();
    take_back(&mut allowed, before.value);
    if !before.f("schedulingGates").is_empty() {
        gated(&mut allowed, &spec, &before, e);
    }
    if !same(&allowed, before.value) {
        let diff = difference(before.value, &allowed);
        e.forbidden(&spec.path, format!("{UPDATABLE}\n{diff}"));
    }
}

pub fn annotations(new: &At<'_>, old: &At<'_>, e: &mut Errors) {
    let (now, before) = (new.dig(&["metadata", "annotations"]), old.dig(&["metadata", "annotations"]));
    let guarded = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        _ if key.starts_with("container.apparmor.security.beta.kubernetes.io/") => {
            Some("AppArmor annotations")
        }
        _ => None,
    };
    for (key, value) in before.entries() {
        if let Some(what) = guarded(key).filter(|_| now.f(key).value != value.value) {
            e.forbidden(&now.path.key(key), format!("may not remove or update {what}"));
        }
    }
    for (key, _) in now.entries() {
        if let Some(what) = guarded(key).filter(|_| !before.f(key).has()) {
            e.forbidden(&now.path.key(key), format!("may not add {what}"));
        }
    }
    security::annotations(&now, &new.f("spec"), e);
}

/// Whether the lists still correspond.
fn containers(now: &At<'_>, before: &At<'_>, e: &mut Errors) -> bool {
    if now.len() != before.len() {
        e.forbidden(&now.path, "pod updates may not add or remove containers");
        return false;
    }
    true
}

fn deadline(now: &At<'_>, before: &At<'_>, e: &mut Errors) -> bool {
    match (now.opt_i(), before.opt_i()) {
        (Some(value), _) if !(0..=i64::from(i32::MAX)).contains(&value) => {
            e.invalid(now, inclusive_range(0, i64::from(i32::MAX)));
            return false;
        }
        (Some(value), Some(old)) if old < value => {
            e.invalid(now, "must be less than or equal to previous value");
            return false;
        }
        (None, Some(_)) => e.invalid(now, "must not update from a positive integer to nil value"),
        _ => {}
    }
    true
}

fn added_tolerations(now: &At<'_>, before: &At<'_>, e: &mut Errors) {
    let without_seconds = |at: &At<'_>| {
        let mut value = at.value.clone();
        edit::unset(&mut value, "tolerationSeconds");
        value
    };
    let kept = |old: At<'_>| now.each().any(|new| same(&without_seconds(&new), &without_seconds(&old)));
    if !before.each().all(kept) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        e.forbidden(&now.path, detail);
        return;
    }
    scheduling::tolerations(now, e);
}

fn removed_gates(now: &At<'_>, before: &At<'_>, e: &mut Errors) {
    for gate in now.each() {
        let name = gate.f("name");
        if !before.each().any(|old| old.f("name").s() == name.s()) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", name.s());
            e.forbidden(&name.path, detail);
        }
    }
}

/// Undoes the changes that are allowed, so that the rest can be compared.
fn take_back(spec: &mut Value, before: &Value) {
    for list in ["containers", "initContainers"] {
        let images: Vec<Value> =
            At::root(before).f(list).each().map(|container| container.f("image").value.clone()).collect();
        for (container, image) in edit::each(spec, list).zip(images) {
            edit::set(container, "image", image);
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        edit::carry(spec, before, &[field]);
    }
    let grace = |spec: &Value| spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if grace(before).is_some_and(|g| g < 0) && grace(spec) == Some(1) {
        edit::carry(spec, before, &["terminationGracePeriodSeconds"]);
    }
}

/// While a pod is gated its node selection may be narrowed.
fn gated(allowed: &mut Value, spec: &At<'_>, before: &At<'_>, e: &mut Errors) {
    let (now, was) = (spec.f("nodeSelector"), before.f("nodeSelector"));
    if was.entries().any(|(key, value)| now.f(key).value != value.value) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        e.invalid(&now, detail);
    }
    edit::carry(allowed, before.value, &["nodeSelector"]);
    let terms = |at: &At<'_>| -> Vec<Value> {
        let path = [
            "affinity",
            "nodeAffinity",
            "requiredDuringSchedulingIgnoredDuringExecution",
            "nodeSelectorTerms",
        ];
        path.iter()
            .try_fold(at.value, |value, name| value.get(*name))
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let path = Path::of(&[
        "spec",
        "affinity",
        "nodeAffinity",
        "requiredDuringSchedulingIgnoredDuringExecution",
        "nodeSelectorTerms",
    ]);
    let (new_terms, old_terms) = (terms(spec), terms(before));
    if !old_terms.is_empty() && old_terms.len() != new_terms.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        e.invalid_value(&path, new_terms, detail);
    } else {
        for (i, (new, old)) in new_terms.iter().zip(&old_terms).enumerate() {
            if !only_adds(new, old) {
                let detail = "only additions are allowed (no mutations or deletions)";
                e.invalid_value(&path.index(i), new.clone(), detail);
            }
        }
    }
    edit::carry(allowed, before.value, &["affinity", "nodeAffinity"]);
    if !before.f("affinity").has() && allowed.get("affinity").is_some_and(edit::is_zero) {
        edit::unset(allowed, "affinity");
    }
}

fn only_adds(new: &Value, old: &Value) -> bool {
    let list =
        |term: &Value, name: &str| term.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let fields = ["matchExpressions", "matchFields"];
    if fields.iter().all(|name| list(old, name).is_empty()) {
        return fields.iter().all(|name| list(new, name).is_empty());
    }
    fields.iter().all(|name| {
        let (new, old) = (list(new, name), list(old, name));
        new.len() >= old.len() && new.iter().zip(&old).all(|(a, b)| same(a, b))
    })
}

/// The differing members, one line each, as a hint to the user.
pub fn difference(old: &Value, new: &Value) -> String {
    fn walk(path: &str, old: &Value, new: &Value, out: &mut Vec<String>) {
        if same(old, new) || out.len() > 20 {
            return;
        }
        match (old, new) {
            (Value::Object(a), Value::Object(b)) => {
                let keys = a.keys().chain(b.keys().filter(|k| !a.contains_key(*k)));
                for key in keys {
                    let side =
                        |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                    walk(&format!("{path}.{key}"), &side(a), &side(b), out);
                }
            }
            (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
                for (i, (a, b)) in a.iter().zip(b).enumerate() {
                    walk(&format!("{path}[{i}]"), a, b, out);
                }
            }
            _ => out.push(format!("- {path}: {old}\n+ {path}: {new}")),
        }
    }
    let mut lines = Vec::new();
    walk("", old, new, &mut lines);
    lines.join("\n")
}

/// The `ephemeralcontainers` subresource: containers may be added, never changed or removed.
pub fn validate_ephemeral(new: &At<'_>, old: &At<'_>, e: &mut Errors) {
    if old.dig(&["metadata", "annotations", MIRROR]).has() {
        e.forbidden(&Path::default(), "static pods do not support ephemeral containers");
        return;
    }
    spec::pod(new, e);
    annotations(new, old, e);
    let now = new.dig(&["spec", "ephemeralContainers"]);
    for was in old.dig(&["spec", "ephemeralContainers"]).each() {
        let name = was.f("name").s();
        match now.each().find(|c| c.f("name").s() == name) {
            None => {
                let detail = format!("existing ephemeral containers {name:?} may not be removed\n");
                e.forbidden(&now.path, detail);
            }
            Some(found) if !same(found.value, was.value) => {
                let diff = difference(was.value, found.value);
                let detail = format!("existing ephemeral containers {name:?} may not be changed\n{diff}");
                e.forbidden(&now.path, detail);
            }
            Some(_) => {}
        }
    }
}

/// The `resize` subresource: cpu and memory, and nothing else.
pub fn validate_resize(new: &At<'_>, old: &At<'_>, e: &mut Errors) {
    if old.dig(&["metadata", "annotations", MIRROR]).has() {
        e.forbidden(&Path::default(), "static pods cannot be resized");
        return;
    }
    let (spec, before) = (new.f("spec"), old.f("spec"));
    if before.dig(&["os", "name"]).s() == "windows" {
        e.forbidden(&Path::default(), "windows pods cannot be resized");
        return;
    }
    spec::pod(new, e);
    if resources::qos_class(spec.value) != resources::qos_class(before.value) {
        let qos = new.dig(&["status", "qosClass"]).s();
        e.invalid_value(&spec.path, qos, "Pod QOS Class may not change as a result of resizing");
    }
    let running =
        old.dig(&["status", "containerStatuses"]).each().find(|s| s.dig(&["state", "running"]).has());
    if running.is_some_and(|status| !status.f("resources").has()) {
        e.forbidden(&spec.path, "Pod running on node without support for resize");
    }
    if !same_order(&spec, &before, e) {
        return;
    }
    for list in ["initContainers", "containers"] {
        for (now, was) in spec.f(list).each().zip(before.f(list).each()) {
            for side in ["requests", "limits"] {
                let (now, was) = (now.dig(&["resources", side]), was.dig(&["resources", side]));
                if was.entries().any(|(name, _)| !now.f(name).has()) {
                    e.forbidden(&now.path, format!("resource {side} cannot be removed"));
                }
            }
        }
    }
    let mut rest = spec.value.clone();
    keep_cpu_and_memory(&mut rest, before.value);
    if !same(&rest, before.value) {
        e.forbidden(&spec.path, "only cpu and memory resources are mutable");
    }
}

fn same_order(spec: &At<'_>, before: &At<'_>, e: &mut Errors) -> bool {
    let found = e.len();
    for list in ["containers", "initContainers"] {
        let (now, was) = (spec.f(list), before.f(list));
        if now.len() != was.len() {
            e.forbidden(&now.path, format!("{list} may not be added or removed on resize"));
            continue;
        }
        for (now, was) in now.each().zip(was.each()) {
            if now.f("name").s() != was.f("name").s() {
                e.forbidden(
                    &now.path.field("name"),
                    format!("{list} may not be renamed or reordered on resize"),
                );
            }
        }
    }
    e.len() == found
}

/// Puts the old amounts of what may be resized back.
fn keep_cpu_and_memory(spec: &mut Value, before: &Value) {
    let restore = |target: &mut Value, source: &Value| {
        for side in ["requests", "limits"] {
            for name in ["cpu", "memory"] {
                edit::carry(target, source, &["resources", side, name]);
            }
        }
    };
    restore(spec, before);
    for list in ["containers", "initContainers"] {
        let old: Vec<Value> = before.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
        for (container, source) in edit::each(spec, list).zip(old) {
            restore(container, &source);
        }
    }
}

/// Makes an update of `resize` one of resources and resize policies alone.
pub fn prepare_resize(new: &mut Value, old: &Value) {
    let wanted = new.get("spec").cloned().unwrap_or_default();
    let matches = ["containers", "initContainers"].iter().all(|list| {
        let names = |spec: &Value| -> Vec<String> {
            At::root(spec).f(list).each().map(|c| c.f("name").s().to_owned()).collect()
        };
        names(&wanted) == names(&old["spec"])
    });
    if !matches {
        return;
    }
    let mut spec = old.get("spec").cloned().unwrap_or_else(|| json!({}));
    edit::carry(&mut spec, &wanted, &["resources"]);
    for list in ["containers", "initContainers"] {
        let sources: Vec<Value> = wanted.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
        for (container, source) in edit::each(&mut spec, list).zip(sources) {
            edit::carry(container, &source, &["resources"]);
            edit::carry(container, &source, &["resizePolicy"]);
        }
    }
    edit::set(new, "spec", spec);
}
