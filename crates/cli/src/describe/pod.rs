//! Pods, and the pod templates of workloads.

use serde_json::Value;

use super::{Page, Related, controller, time};
use crate::commands::age;
use crate::value::{flag, list, map, number, shown, text};

pub(super) fn describe(pod: &Value, related: &Related) -> String {
    let mut page = Page::default();
    page.head(pod);
    if let Some(priority) = pod.pointer("/spec/priority") {
        page.field(0, "Priority", priority);
    }
    page.field_if(0, "Priority Class Name", text(pod, "/spec/priorityClassName"));
    page.field_if(0, "Runtime Class Name", text(pod, "/spec/runtimeClassName"));
    page.field_if(0, "Service Account", text(pod, "/spec/serviceAccountName"));
    match text(pod, "/spec/nodeName") {
        "" => page.field(0, "Node", "<none>"),
        node => page.field(0, "Node", format!("{node}/{}", text(pod, "/status/hostIP"))),
    }
    if let Some(start) = pod.pointer("/status/startTime").and_then(Value::as_str) {
        page.field(0, "Start Time", time(start));
    }
    page.meta(pod);
    status(&mut page, pod);
    page.field(0, "IP", text(pod, "/status/podIP"));
    let addresses = list(pod, "/status/podIPs");
    if addresses.is_empty() {
        page.field(0, "IPs", "<none>");
    } else {
        page.line(0, "IPs:");
        addresses.iter().for_each(|ip| page.field(1, "IP", text(ip, "/ip")));
    }
    page.field_if(0, "Controlled By", &controller(pod));
    page.field_if(0, "NominatedNodeName", text(pod, "/status/nominatedNodeName"));
    let groups = [
        ("Init Containers", "/spec/initContainers", "/status/initContainerStatuses"),
        ("Containers", "/spec/containers", "/status/containerStatuses"),
        ("Ephemeral Containers", "/spec/ephemeralContainers", "/status/ephemeralContainerStatuses"),
    ];
    for (title, specs, statuses) in groups {
        if title == "Containers" || !list(pod, specs).is_empty() {
            page.line(0, &format!("{title}:"));
            for container in list(pod, specs) {
                let name = text(container, "/name");
                let status = list(pod, statuses).iter().find(|s| text(s, "/name") == name);
                describe_container(&mut page, container, status, Some(pod));
            }
        }
    }
    let conditions = list(pod, "/status/conditions");
    if !conditions.is_empty() {
        page.line(0, "Conditions:\n  Type\tStatus");
        for condition in conditions {
            page.line(1, &format!("{} \t{} ", text(condition, "/type"), text(condition, "/status")));
        }
    }
    volumes(&mut page, 0, list(pod, "/spec/volumes"));
    page.field(0, "QoS Class", text(pod, "/status/qosClass"));
    placement(&mut page, "", pod.pointer("/spec"));
    page.finish(related)
}

fn status(page: &mut Page, pod: &Value) {
    let phase = text(pod, "/status/phase");
    let deleted = text(pod, "/metadata/deletionTimestamp");
    if !deleted.is_empty() && phase != "Failed" && phase != "Succeeded" {
        page.field(0, "Status", format!("Terminating (lasts {})", age(deleted)));
        let grace = number(pod, "/metadata/deletionGracePeriodSeconds");
        page.field(0, "Termination Grace Period", format!("{grace}s"));
    } else {
        page.field(0, "Status", phase);
    }
    page.field_if(0, "Reason", text(pod, "/status/reason"));
    page.field_if(0, "Message", text(pod, "/status/message"));
    page.field_if(0, "SeccompProfile", text(pod, "/spec/securityContext/seccompProfile/type"));
}

/// A pod template alone, for `rollout history`, which upstream leaves unaligned.
pub fn template_text(template: &Value) -> String {
    let mut page = Page::default();
    describe_template(&mut page, template);
    page.lines
}

pub(super) fn describe_template(page: &mut Page, template: &Value) {
    page.line(0, "Pod Template:");
    page.labels("  Labels", map(template, "/metadata/labels"));
    if map(template, "/metadata/annotations").is_some_and(|a| !a.is_empty()) {
        let pairs = map(template, "/metadata/annotations").into_iter().flatten();
        let pairs: Vec<String> = pairs.map(|(k, v)| format!("{k}: {}", shown(Some(v)))).collect();
        page.several("  Annotations", &pairs);
    }
    page.field_if(1, "Service Account", text(template, "/spec/serviceAccountName"));
    for (title, specs) in [("Init Containers", "/spec/initContainers"), ("Containers", "/spec/containers")] {
        let containers = list(template, specs);
        if containers.is_empty() {
            continue;
        }
        page.line(1, &format!("{title}:"));
        for container in containers {
            describe_container(page, container, None, None);
        }
    }
    volumes(page, 1, list(template, "/spec/volumes"));
    page.field_if(1, "Priority Class Name", text(template, "/spec/priorityClassName"));
    placement(page, "  ", template.pointer("/spec"));
}

fn describe_container(page: &mut Page, container: &Value, status: Option<&Value>, pod: Option<&Value>) {
    let indent = if pod.is_some() { "" } else { " " };
    page.line(1, &format!("{indent}{}:", text(container, "/name")));
    if let Some(status) = status {
        page.field(2, "Container ID", text(status, "/containerID"));
    }
    page.field(2, "Image", text(container, "/image"));
    if let Some(status) = status {
        page.field(2, "Image ID", text(status, "/imageID"));
    }
    ports(page, container);
    for (title, field) in [("Command", "/command"), ("Args", "/args")] {
        let words = list(container, field);
        if !words.is_empty() {
            page.line(2, &format!("{title}:"));
            words.iter().flat_map(|w| w.as_str().unwrap_or_default().lines()).for_each(|l| page.line(3, l));
        }
    }
    if let Some(status) = status {
        state(page, "State", status.get("state"));
        if status.pointer("/lastState/terminated").is_some() {
            state(page, "Last State", status.get("lastState"));
        }
        page.field(2, "Ready", if flag(status, "/ready") { "True" } else { "False" });
        page.field(2, "Restart Count", number(status, "/restartCount"));
    }
    for (title, field) in [("Limits", "/resources/limits"), ("Requests", "/resources/requests")] {
        if let Some(amounts) = map(container, field).filter(|a| !a.is_empty()) {
            page.line(2, &format!("{title}:"));
            amounts.iter().for_each(|(name, amount)| page.field(3, name, shown(Some(amount))));
        }
    }
    for (title, field) in
        [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")]
    {
        if let Some(probe) = container.get(field) {
            page.field(2, title, probe_text(probe));
        }
    }
    environment(page, container, pod);
    mounts(page, container);
}

fn ports(page: &mut Page, container: &Value) {
    let ports = |field: &str| -> Vec<String> {
        let shown = |port: &Value| {
            let name = text(port, "/name");
            let suffix = if name.is_empty() { String::new() } else { format!(" ({name})") };
            format!("{}/{}{suffix}", number(port, &format!("/{field}")), text(port, "/protocol"))
        };
        list(container, "/ports").iter().map(shown).collect()
    };
    for (title, field) in [("Port", "containerPort"), ("Host Port", "hostPort")] {
        match ports(field).as_slice() {
            [] => page.field(2, title, "<none>"),
            [one] => page.field(2, title, one),
            many => page.field(2, &format!("{title}s"), many.join(", ")),
        }
    }
}

fn state(page: &mut Page, title: &str, state: Option<&Value>) {
    let state = state.unwrap_or(&Value::Null);
    if let Some(running) = state.get("running") {
        page.field(2, title, "Running");
        page.field(3, "Started", time(text(running, "/startedAt")));
    } else if let Some(ended) = state.get("terminated") {
        page.field(2, title, "Terminated");
        page.field_if(3, "Reason", text(ended, "/reason"));
        page.field_if(3, "Message", text(ended, "/message"));
        page.field(3, "Exit Code", number(ended, "/exitCode"));
        if number(ended, "/signal") > 0 {
            page.field(3, "Signal", number(ended, "/signal"));
        }
        page.field(3, "Started", time(text(ended, "/startedAt")));
        page.field(3, "Finished", time(text(ended, "/finishedAt")));
    } else {
        page.field(2, title, "Waiting");
        page.field_if(3, "Reason", text(state, "/waiting/reason"));
    }
}

fn probe_text(probe: &Value) -> String {
    let seconds = |field: &str| number(probe, &format!("/{field}"));
    let attributes = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        seconds("initialDelaySeconds"),
        seconds("timeoutSeconds"),
        seconds("periodSeconds"),
        seconds("successThreshold"),
        seconds("failureThreshold")
    );
    if let Some(http) = probe.get("httpGet") {
        let scheme = text(http, "/scheme").to_lowercase();
        let (host, path) = (text(http, "/host"), text(http, "/path"));
        return format!("http-get {scheme}://{host}:{}{path} {attributes}", shown(http.get("port")));
    }
    if let Some(tcp) = probe.get("tcpSocket") {
        return format!("tcp-socket {}:{} {attributes}", text(tcp, "/host"), shown(tcp.get("port")));
    }
    if let Some(grpc) = probe.get("grpc") {
        return format!("grpc <pod>:{} {} {attributes}", number(grpc, "/port"), text(grpc, "/service"));
    }
    if probe.get("exec").is_some() {
        let words: Vec<&str> = list(probe, "/exec/command").iter().filter_map(Value::as_str).collect();
        return format!("exec [{}] {attributes}", words.join(" "));
    }
    format!("unknown {attributes}")
}

fn environment(page: &mut Page, container: &Value, pod: Option<&Value>) {
    let from = list(container, "/envFrom");
    if !from.is_empty() {
        page.line(2, "Environment Variables from:");
        for source in from {
            for (field, kind) in [("configMapRef", "ConfigMap"), ("secretRef", "Secret")] {
                if let Some(reference) = source.get(field) {
                    let optional = flag(reference, "/optional");
                    let prefix = match text(source, "/prefix") {
                        "" => String::new(),
                        prefix => format!(" with prefix '{prefix}'"),
                    };
                    let name = text(reference, "/name");
                    page.line(3, &format!("{name}\t{kind}{prefix}\tOptional: {optional}"));
                }
            }
        }
    }
    let variables = list(container, "/env");
    if variables.is_empty() {
        page.field(2, "Environment", "<none>");
        return;
    }
    page.line(2, "Environment:");
    for variable in variables {
        page.field(3, text(variable, "/name"), variable_text(variable, pod));
    }
}

fn variable_text(variable: &Value, pod: Option<&Value>) -> String {
    let Some(source) = variable.get("valueFrom") else {
        return text(variable, "/value").replace('\n', "\n      \t");
    };
    if let Some(field) = source.get("fieldRef") {
        let path = text(field, "/fieldPath");
        let value = pod.map(|pod| text(pod, &format!("/{}", path.replace('.', "/")))).unwrap_or_default();
        let version = match text(field, "/apiVersion") {
            "" => "v1",
            version => version,
        };
        return format!("{value} ({version}:{path})");
    }
    if let Some(resource) = source.get("resourceFieldRef") {
        return format!(" ({})", text(resource, "/resource"));
    }
    for (field, words, kind) in [("secretKeyRef", "in secret", ""), ("configMapKeyRef", "of config map", "")]
    {
        if let Some(reference) = source.get(field) {
            let (key, name) = (text(reference, "/key"), text(reference, "/name"));
            let optional = flag(reference, "/optional");
            return format!("<set to the key '{key}' {words} '{name}'>{kind}\tOptional: {optional}");
        }
    }
    String::new()
}

fn mounts(page: &mut Page, container: &Value) {
    let mounts = list(container, "/volumeMounts");
    if mounts.is_empty() {
        page.field(2, "Mounts", "<none>");
        return;
    }
    page.line(2, "Mounts:");
    let mut lines: Vec<String> = mounts
        .iter()
        .map(|mount| {
            let mut flags = vec![if flag(mount, "/readOnly") { "ro".to_owned() } else { "rw".to_owned() }];
            match text(mount, "/subPath") {
                "" => {}
                path => flags.push(format!("path={path:?}")),
            }
            format!("{} from {} ({})", text(mount, "/mountPath"), text(mount, "/name"), flags.join(","))
        })
        .collect();
    lines.sort();
    lines.iter().for_each(|line| page.line(3, line));
}

fn volumes(page: &mut Page, level: usize, volumes: &[Value]) {
    if volumes.is_empty() {
        page.field(level, "Volumes", "<none>");
        return;
    }
    page.line(level, "Volumes:");
    for volume in volumes {
        page.line(1, &format!("{}{}:", if level > 0 { " " } else { "" }, text(volume, "/name")));
        volume_source(page, volume);
    }
}

fn volume_source(page: &mut Page, volume: &Value) {
    let kinds = [
        ("emptyDir", "EmptyDir (a temporary directory that shares a pod's lifetime)"),
        ("hostPath", "HostPath (bare host directory volume)"),
        ("configMap", "ConfigMap (a volume populated by a ConfigMap)"),
        ("secret", "Secret (a volume populated by a Secret)"),
        (
            "persistentVolumeClaim",
            "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
        ),
        ("projected", "Projected (a volume that contains injected data from multiple sources)"),
        ("downwardAPI", "DownwardAPI (a volume populated by information about the pod)"),
        ("nfs", "NFS (an NFS mount that lasts the lifetime of a pod)"),
        ("csi", "CSI (a Container Storage Interface (CSI) volume source)"),
        (
            "ephemeral",
            "EphemeralVolume (an inline specification for a volume that gets created and deleted with the pod)",
        ),
        ("image", "Image (a container image or OCI artifact)"),
    ];
    let Some((field, title)) = kinds.iter().find(|(field, _)| volume.get(*field).is_some()) else {
        page.line(2, "<unknown>");
        return;
    };
    page.field(2, "Type", title);
    let source = &volume[*field];
    match *field {
        "emptyDir" => {
            page.field(2, "Medium", text(source, "/medium"));
            let limit = shown(source.get("sizeLimit"));
            page.field(2, "SizeLimit", if limit == "<none>" { "<unset>".to_owned() } else { limit });
        }
        "hostPath" => {
            page.field(2, "Path", text(source, "/path"));
            page.field(2, "HostPathType", text(source, "/type"));
        }
        "configMap" => {
            page.field(2, "Name", text(source, "/name"));
            page.field(2, "Optional", flag(source, "/optional"));
        }
        "secret" => {
            page.field(2, "SecretName", text(source, "/secretName"));
            page.field(2, "Optional", flag(source, "/optional"));
        }
        "persistentVolumeClaim" => {
            page.field(2, "ClaimName", text(source, "/claimName"));
            page.field(2, "ReadOnly", flag(source, "/readOnly"));
        }
        "projected" => projected(page, source),
        "downwardAPI" => downward(page, source),
        _ => {
            for (name, value) in source.as_object().into_iter().flatten().filter(|(_, v)| !v.is_object()) {
                page.field(2, &super::generic::title(name), shown(Some(value)));
            }
        }
    }
}

fn projected(page: &mut Page, source: &Value) {
    for part in list(source, "/sources") {
        if let Some(token) = part.get("serviceAccountToken") {
            page.field(2, "TokenExpirationSeconds", number(token, "/expirationSeconds"));
        } else if let Some(config) = part.get("configMap") {
            page.field(2, "ConfigMapName", text(config, "/name"));
            page.field(2, "Optional", flag(config, "/optional"));
        } else if let Some(secret) = part.get("secret") {
            page.field(2, "SecretName", text(secret, "/name"));
            page.field(2, "Optional", flag(secret, "/optional"));
        } else if part.get("downwardAPI").is_some() {
            page.field(2, "DownwardAPI", "true");
        }
    }
}

fn downward(page: &mut Page, source: &Value) {
    page.line(2, "Items:");
    for item in list(source, "/items") {
        let from = match text(item, "/fieldRef/fieldPath") {
            "" => text(item, "/resourceFieldRef/resource"),
            path => path,
        };
        page.line(3, &format!("{from} -> {}", text(item, "/path")));
    }
}

fn placement(page: &mut Page, indent: &str, spec: Option<&Value>) {
    let spec = spec.unwrap_or(&Value::Null);
    page.labels(&format!("{indent}Node-Selectors"), map(spec, "/nodeSelector"));
    let tolerations: Vec<String> = list(spec, "/tolerations").iter().map(toleration).collect();
    page.several(&format!("{indent}Tolerations"), &tolerations);
    let spread: Vec<String> = list(spec, "/topologySpreadConstraints")
        .iter()
        .map(|c| {
            format!(
                "{}:{} when max skew {} is exceeded",
                text(c, "/topologyKey"),
                text(c, "/whenUnsatisfiable"),
                number(c, "/maxSkew")
            )
        })
        .collect();
    if !spread.is_empty() {
        page.several(&format!("{indent}Topology Spread Constraints"), &spread);
    }
}

fn toleration(toleration: &Value) -> String {
    let mut out = text(toleration, "/key").to_owned();
    let value = text(toleration, "/value");
    if !value.is_empty() {
        out += &format!("={value}");
    }
    let effect = text(toleration, "/effect");
    if !effect.is_empty() {
        out += &format!(":{effect}");
    }
    // A toleration of everything has neither key nor value.
    if text(toleration, "/operator") == "Exists" && value.is_empty() {
        out +=
            if text(toleration, "/key").is_empty() && effect.is_empty() { "op=Exists" } else { " op=Exists" };
    }
    if let Some(seconds) = toleration.get("tolerationSeconds") {
        out += &format!(" for {seconds}s");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn probes_and_tolerations_read_as_upstream_prints_them() {
        let probe = json!({"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3});
        assert_eq!(
            probe_text(&probe),
            "http-get http://:80/ delay=0s timeout=1s period=10s #success=1 #failure=3"
        );
        let not_ready = json!({"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
        assert_eq!(toleration(&not_ready), "node.kubernetes.io/not-ready:NoExecute op=Exists for 300s");
        assert_eq!(toleration(&json!({"operator": "Exists"})), "op=Exists");
    }
}
