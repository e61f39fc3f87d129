//! PodSecurity: a namespace's labels say how much its pods may ask of the node (the Pod Security
//! Standards: privileged, baseline, restricted), and whether a breach is refused, warned about or audited.

mod checks;
mod policy;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use keelson_api_types::{GroupKind, StatusError, field, meta};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::policy::Level;
use self::policy::{PREFIX, Policy, Standard};
use super::{Verdict, core, items, text};
use crate::types::{AdmissionRequest, Objects, Operation};

/// Pods that a changed namespace is checked against.
const MAX_PODS: usize = 3000;
const OTHER_SUBRESOURCES: [&str; 8] =
    ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// Whom the standards do not bind: `podSecurityExemptions` of the configuration.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Exemptions {
    pub usernames: Vec<String>,
    pub namespaces: Vec<String>,
    pub runtime_classes: Vec<String>,
}

impl Exemptions {
    fn reason(&self, r: &AdmissionRequest<'_>) -> Option<&'static str> {
        if self.namespaces.iter().any(|n| n == r.namespace) {
            return Some("namespace");
        }
        self.usernames.contains(&r.user.name).then_some("user")
    }

    fn covers_class_of(&self, pod: &Value) -> bool {
        let class = text(pod, "/spec/runtimeClassName");
        !class.is_empty() && self.runtime_classes.iter().any(|c| c == class)
    }
}

pub fn validate(objects: &dyn Objects, exemptions: &Exemptions, r: &mut AdmissionRequest<'_>) -> Verdict {
    if !matches!(r.op, Operation::Create | Operation::Update) {
        return Ok(());
    }
    if r.is("", "namespaces", "") {
        return namespace(objects, exemptions, r);
    }
    let Some(pointer) = template(&r.gvr.group, &r.gvr.resource) else { return Ok(()) };
    let is_pod = pointer.is_empty();
    let passes = match is_pod {
        true => OTHER_SUBRESOURCES.contains(&r.subresource),
        false => !r.subresource.is_empty(),
    };
    if passes {
        return Ok(());
    }
    if let Some(reason) = exemptions.reason(r) {
        r.annotate(format!("{PREFIX}exempt"), reason.into());
        return Ok(());
    }
    let Some(namespace) = objects.get(&core("namespaces"), "", r.namespace) else {
        let why = format!("failed to lookup namespace {:?}", r.namespace);
        return if is_pod { Err(StatusError::internal(why)) } else { Ok(()) };
    };
    let (policy, errors) = Policy::of(&namespace);
    if errors.is_empty() && policy.is_privileged() {
        if is_pod {
            r.annotate(format!("{PREFIX}enforce-policy"), policy.enforce.to_string());
        }
        return Ok(());
    }
    let Some(pod) = r.object.as_deref().and_then(|o| meta::at(o, pointer)) else { return Ok(()) };
    if is_pod && r.op == Operation::Update && !r.old.is_some_and(|old| is_significant(pod, old)) {
        return Ok(());
    }
    if exemptions.covers_class_of(pod) {
        r.annotate(format!("{PREFIX}exempt"), "runtimeClass".into());
        return Ok(());
    }
    let found = |standard: Standard| {
        let detail = detail(standard, pod)?;
        Some(format!("PodSecurity \"{standard}\": {detail}"))
    };
    // Pods themselves are refused; what makes pods is only told about.
    let refused = if is_pod { found(policy.enforce) } else { None };
    let (audited, warned) = (found(policy.audit), found(policy.warn));
    if !errors.is_empty() {
        let why = format!("Failed to parse policy: {}", field::aggregate(&errors));
        r.annotate(format!("{PREFIX}error"), why);
    }
    if is_pod {
        r.annotate(format!("{PREFIX}enforce-policy"), policy.enforce.to_string());
    }
    if let Some(why) = audited {
        r.annotate(format!("{PREFIX}audit-violations"), format!("would violate {why}"));
    }
    if let Some(why) = refused {
        return Err(r.forbidden(format!("violates {why}")));
    }
    if let Some(why) = warned {
        r.warnings.push(format!("would violate {why}"));
    }
    Ok(())
}

fn detail(standard: Standard, pod: &Value) -> Option<String> {
    let found = checks::breaches(standard.level, standard.effective_minor(), pod);
    let texts: Vec<String> = found
        .into_iter()
        .map(|(reason, detail)| if detail.is_empty() { reason } else { format!("{reason} ({detail})") })
        .collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

/// An update that runs no other images is not judged anew.
fn is_significant(pod: &Value, old: &Value) -> bool {
    let images = |pod: &Value, list: &str| -> Vec<Value> {
        items(&pod["spec"][list]).iter().map(|c| c["image"].clone()).collect()
    };
    let changed = |list: &str| images(pod, list) != images(old, list);
    let debuggers = |pod: &Value| -> Vec<(Value, Value)> {
        let all = items(&pod["spec"]["ephemeralContainers"]).iter();
        all.map(|c| (c["name"].clone(), c["image"].clone())).collect()
    };
    let before = debuggers(old);
    changed("containers") || changed("initContainers") || debuggers(pod).iter().any(|d| !before.contains(d))
}

fn namespace(objects: &dyn Objects, exemptions: &Exemptions, r: &mut AdmissionRequest<'_>) -> Verdict {
    let Some(object) = r.object.as_deref() else { return Ok(()) };
    let (new, errors) = Policy::of(object);
    let (old, old_errors) = r.old.map(Policy::of).unwrap_or_default();
    if !errors.is_empty() && errors != old_errors {
        return Err(StatusError::invalid(&GroupKind::new("", "Namespace"), &r.display_name(), errors));
    }
    let name = meta::name(object).to_owned();
    let updates = r.op == Operation::Update;
    let unchanged = new.enforce == old.enforce
        || new.enforce.level == Level::Privileged
        || (new.enforce.minor == old.enforce.minor && new.enforce.level <= old.enforce.level);
    if updates && unchanged {
        return Ok(());
    }
    if exemptions.namespaces.contains(&name) {
        r.warnings.extend(exemption_warning(&name, &new, object));
    } else if updates {
        r.warnings.extend(existing_pods(objects, exemptions, &name, new.enforce));
    }
    Ok(())
}

/// Labels on an exempt namespace say what does not happen.
fn exemption_warning(name: &str, policy: &Policy, namespace: &Value) -> Option<String> {
    let labelled = |mode: &str| {
        let has = |key: String| meta::labels(namespace).is_some_and(|l| l.contains_key(&key));
        has(format!("{PREFIX}{mode}")) || has(format!("{PREFIX}{mode}-version"))
    };
    let modes = [("enforce", policy.enforce), ("audit", policy.audit), ("warn", policy.warn)];
    let set: Vec<String> = modes
        .iter()
        .filter(|(mode, standard)| standard.level != Level::Privileged && labelled(mode))
        .map(|(mode, standard)| format!("{mode}={standard}"))
        .collect();
    let list = set.join(", ");
    (!policy.is_privileged()).then(|| {
        format!("namespace {name:?} is exempt from Pod Security, and the policy ({list}) will be ignored")
    })
}

/// What a stricter level would have said to the pods that are there already.
fn existing_pods(
    objects: &dyn Objects,
    exemptions: &Exemptions,
    namespace: &str,
    standard: Standard,
) -> Vec<String> {
    let pods = one_of_each_first(objects.list(&core("pods"), namespace), exemptions);
    let mut found: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for pod in pods.iter().take(MAX_PODS) {
        let breaches = checks::breaches(standard.level, standard.effective_minor(), pod);
        if !breaches.is_empty() {
            let reasons: Vec<String> = breaches.into_iter().map(|(reason, _)| reason).collect();
            found.entry(reasons.join(", ")).or_default().push(meta::name(pod));
        }
    }
    let mut warnings = Vec::new();
    if pods.len() > MAX_PODS {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {MAX_PODS} of {} existing pods",
            pods.len()
        ));
    }
    if !found.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{standard}\""
        ));
    }
    let mut told: Vec<String> = found
        .into_iter()
        .map(|(reasons, names)| {
            let first = names.iter().min().copied().unwrap_or_default();
            match names.len() - 1 {
                0 => format!("{first}: {reasons}"),
                1 => format!("{first} (and 1 other pod): {reasons}"),
                more => format!("{first} (and {more} other pods): {reasons}"),
            }
        })
        .collect();
    told.sort();
    warnings.extend(told);
    warnings
}

/// One pod of every controller comes before the others like it.
fn one_of_each_first(pods: Vec<Arc<Value>>, exemptions: &Exemptions) -> Vec<Arc<Value>> {
    let mut seen = HashSet::new();
    let bound = pods.into_iter().filter(|pod| !exemptions.covers_class_of(pod));
    let (mut first, rest): (Vec<_>, Vec<_>) = bound.partition(|pod| {
        let owners = items(&pod["metadata"]["ownerReferences"]);
        match owners.iter().find(|o| o["controller"] == true) {
            Some(owner) => seen.insert(text(owner, "/uid").to_owned()),
            None => true,
        }
    });
    first.extend(rest);
    first
}

/// Where a kind holds its pod (an object with `metadata` and `spec`).
fn template(group: &str, resource: &str) -> Option<&'static str> {
    Some(match (group, resource) {
        ("", "pods") => "",
        ("", "podtemplates") => "/template",
        ("", "replicationcontrollers") => "/spec/template",
        ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets") => "/spec/template",
        ("batch", "jobs") => "/spec/template",
        ("batch", "cronjobs") => "/spec/jobTemplate/spec/template",
        _ => return None,
    })
}
