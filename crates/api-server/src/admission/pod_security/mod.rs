//! PodSecurity: a namespace's labels say how much its pods may ask of the node (the Pod Security
//! Standards: privileged, baseline, restricted), and whether a breach is refused or only warned about.

mod checks;

use keelson_api_types::{StatusError, meta};
use serde_json::Value;

use super::core;
use crate::types::{AdmissionRequest, Objects, Operation};

const PREFIX: &str = "pod-security.kubernetes.io/";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

pub fn validate(objects: &dyn Objects, r: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
    let writes = matches!(r.op, Operation::Create | Operation::Update);
    let Some(pointer) = template(&r.gvr.group, &r.gvr.resource) else { return Ok(()) };
    let is_pod = pointer.is_empty();
    let subresource = r.subresource.is_empty() || (is_pod && r.subresource == "ephemeralcontainers");
    if !writes || !subresource || r.namespace.is_empty() {
        return Ok(());
    }
    let Some(namespace) = objects.get(&core("namespaces"), "", r.namespace) else { return Ok(()) };
    let Some(pod) = r.object.as_deref().and_then(|o| o.pointer(pointer)) else { return Ok(()) };
    // An update of metadata alone breaches nothing that was not breached before.
    let unchanged = r.old.and_then(|o| o.pointer(pointer)).is_some_and(|old| old["spec"] == pod["spec"]);
    if unchanged {
        return Ok(());
    }
    let breach = |mode: &str| {
        let (level, version) = level(&namespace, mode);
        let found = breaches(level, pod);
        (!found.is_empty())
            .then(|| format!("violates PodSecurity \"{}:{version}\": {}", name(level), found.join(", ")))
    };
    let (refused, warned) = (is_pod.then(|| breach("enforce")).flatten(), breach("warn"));
    if let Some(why) = refused {
        return Err(r.forbidden(why));
    }
    if let Some(why) = warned {
        r.warnings.push(format!("would {}", why.replacen("violates", "violate", 1)));
    }
    Ok(())
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

fn level(namespace: &Value, mode: &str) -> (Level, String) {
    let label = |key: String| {
        meta::labels(namespace).and_then(|l| l.get(&key)).and_then(Value::as_str).map(str::to_owned)
    };
    let level = match label(format!("{PREFIX}{mode}")).as_deref() {
        None | Some("privileged") => Level::Privileged,
        Some("baseline") => Level::Baseline,
        // An unknown level is taken for the strictest.
        Some(_) => Level::Restricted,
    };
    (level, label(format!("{PREFIX}{mode}-version")).unwrap_or_else(|| "latest".into()))
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Privileged => "privileged",
        Level::Baseline => "baseline",
        Level::Restricted => "restricted",
    }
}

/// Reason and detail of every breach, in the order of the checks' names as upstream prints them.
fn breaches(level: Level, pod: &Value) -> Vec<String> {
    if level == Level::Privileged {
        return Vec::new();
    }
    let checks = if level == Level::Restricted { checks::RESTRICTED } else { checks::BASELINE };
    let found = checks.iter().filter_map(|check| check(pod));
    found.map(|b| if b.1.is_empty() { b.0 } else { format!("{} ({})", b.0, b.1) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hardened() -> Value {
        json!({"runAsNonRoot": true, "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}})
    }

    #[test]
    fn each_level_refuses_what_its_standard_forbids() {
        let pod =
            |context: Value| json!({"spec": {"containers": [{"name": "c", "securityContext": context}]}});
        let cases = [
            (pod(hardened()), 0, 0),
            (pod(json!({})), 0, 4),
            (pod(json!({"privileged": true})), 1, 5),
            (json!({"spec": {"hostNetwork": true, "containers": []}}), 1, 3),
            (
                json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}], "containers": []}}),
                1,
                3,
            ),
            (
                json!({"spec": {"containers": [{"name": "c", "ports": [{"hostPort": 80}], "securityContext": hardened()}]}}),
                1,
                1,
            ),
            (pod(json!({"capabilities": {"add": ["SYS_ADMIN"]}})), 1, 4),
        ];
        for (pod, baseline, restricted) in cases {
            let found = (breaches(Level::Baseline, &pod), breaches(Level::Restricted, &pod));
            assert_eq!((found.0.len(), found.1.len()), (baseline, restricted), "{pod}: {found:?}");
            assert!(breaches(Level::Privileged, &pod).is_empty());
        }
    }

    #[test]
    fn a_breach_reads_like_upstream() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(
            breaches(Level::Restricted, &pod)[0],
            r#"allowPrivilegeEscalation != false (containers "a", "b" must set securityContext.allowPrivilegeEscalation=false)"#
        );
        let pod = json!({"spec": {"hostNetwork": true, "hostPID": true, "containers": []}});
        assert_eq!(breaches(Level::Baseline, &pod)[0], "host namespaces (hostNetwork=true, hostPID=true)");
    }
}
