//! The standards on single pods, and what namespaces' labels mean.

use serde_json::json;

use super::*;

fn hardened() -> Value {
    json!({"runAsNonRoot": true, "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}})
}

fn pod(context: Value) -> Value {
    json!({"spec": {"containers": [{"name": "c", "securityContext": context}]}})
}

fn told(level: Level, minor: Option<u32>, pod: &Value) -> String {
    detail(Standard { level, minor }, pod).unwrap_or_default()
}

#[test]
fn each_level_refuses_what_its_standard_forbids() {
    let with = |key: &str, value: Value| {
        let mut context = hardened();
        context[key] = value;
        pod(context)
    };
    let spec = |spec: Value| json!({"spec": spec});
    let cases = [
        (pod(hardened()), "", ""),
        (
            pod(json!({})),
            "",
            "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
        ),
        (
            with("privileged", json!(true)),
            "privileged (container \"c\" must not set securityContext.privileged=true)",
            "privileged (container \"c\" must not set securityContext.privileged=true)",
        ),
        (
            with("capabilities", json!({"drop": ["ALL"], "add": ["SYS_ADMIN"]})),
            "non-default capabilities (container \"c\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add)",
            "unrestricted capabilities (container \"c\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            with("seLinuxOptions", json!({"type": "spc_t", "user": "u"})),
            "seLinuxOptions (container \"c\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set)",
            "seLinuxOptions (container \"c\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set)",
        ),
        (
            with("seccompProfile", json!({"type": "Unconfined"})),
            "seccompProfile (container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
            "seccompProfile (container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            with("appArmorProfile", json!({"type": "Unconfined"})),
            "forbidden AppArmor profile (container \"c\" must not set AppArmor profile type to \"Unconfined\")",
            "forbidden AppArmor profile (container \"c\" must not set AppArmor profile type to \"Unconfined\")",
        ),
        (with("runAsUser", json!(0)), "", "runAsUser=0 (container \"c\" must not set runAsUser=0)"),
        (
            spec(json!({"hostNetwork": true, "hostPID": true})),
            "host namespaces (hostNetwork=true, hostPID=true)",
            "host namespaces (hostNetwork=true, hostPID=true)",
        ),
        (
            spec(json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]})),
            "hostPath volumes (volume \"v\")",
            "restricted volume types (volume \"v\" uses restricted volume type \"hostPath\")",
        ),
        (
            spec(json!({"containers": [{"name": "c", "securityContext": hardened(),
                "ports": [{"hostPort": 80}, {"hostPort": 443}]}]})),
            "hostPort (container \"c\" uses hostPorts 443, 80)",
            "hostPort (container \"c\" uses hostPorts 443, 80)",
        ),
        (
            spec(json!({"containers": [{"name": "c", "securityContext": hardened(),
                "livenessProbe": {"httpGet": {"host": "h"}}}]})),
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"h\")",
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"h\")",
        ),
        (
            spec(json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}]}})),
            "forbidden sysctls (kernel.msgmax)",
            "forbidden sysctls (kernel.msgmax)",
        ),
    ];
    for (pod, baseline, restricted) in cases {
        assert_eq!(told(Level::Baseline, None, &pod), baseline, "{pod}");
        assert_eq!(told(Level::Restricted, None, &pod), restricted, "{pod}");
        assert_eq!(told(Level::Privileged, None, &pod), "");
    }
}

#[test]
fn an_older_standard_forbids_what_it_did_then() {
    let tcp = json!({"spec": {"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}}});
    let probe =
        json!({"spec": {"containers": [{"name": "c", "livenessProbe": {"tcpSocket": {"host": "h"}}}]}});
    let root = json!({"spec": {"hostUsers": false, "containers": [{"name": "c", "securityContext": {
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsUser": 0,
        "seccompProfile": {"type": "RuntimeDefault"}}}]}});
    let windows = json!({"spec": {"os": {"name": "windows"}, "containers": [{"name": "c",
        "securityContext": {"runAsNonRoot": true}}]}});
    for (pod, level, minor, fine) in [
        (&tcp, Level::Baseline, 31, false),
        (&tcp, Level::Baseline, 32, true),
        (&probe, Level::Baseline, 33, true),
        (&probe, Level::Baseline, 34, false),
        (&root, Level::Restricted, 34, false),
        (&root, Level::Restricted, 35, true),
        (&windows, Level::Restricted, 24, false),
        (&windows, Level::Restricted, 25, true),
        (&pod(json!({"runAsNonRoot": true})), Level::Restricted, 7, true),
    ] {
        assert_eq!(told(level, Some(minor), pod).is_empty(), fine, "{pod} {minor}");
    }
}

#[test]
fn labels_make_the_policy_and_wrong_ones_fail_safe() {
    let of = |labels: Value| {
        let labels: serde_json::Map<String, Value> = labels
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| (format!("{PREFIX}{k}"), v.clone()))
            .collect();
        let (policy, errors) = Policy::of(&json!({"metadata": {"labels": labels}}));
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        (format!("{} {} {}", policy.enforce, policy.audit, policy.warn), errors.join("; "))
    };
    for (labels, policy, error) in [
        (json!({}), "privileged:latest privileged:latest privileged:latest", ""),
        (
            json!({"enforce": "baseline", "enforce-version": "v1.30"}),
            "baseline:v1.30 privileged:latest baseline:v1.30",
            "",
        ),
        (
            json!({"enforce": "baseline", "warn": "privileged"}),
            "baseline:latest privileged:latest privileged:latest",
            "",
        ),
        (
            json!({"enforce": "strict"}),
            "restricted:latest privileged:latest privileged:latest",
            "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted",
        ),
        (
            json!({"warn": "x", "warn-version": "v1.030"}),
            "privileged:latest privileged:latest privileged:latest",
            "metadata.labels[pod-security.kubernetes.io/warn]: Invalid value: \"x\": must be one of privileged, baseline, restricted; metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"v1.030\": must be \"latest\" or \"v1.x\"",
        ),
    ] {
        assert_eq!(of(labels.clone()), (policy.to_owned(), error.to_owned()), "{labels}");
    }
}
