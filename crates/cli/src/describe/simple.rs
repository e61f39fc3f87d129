//! Kinds that are told in a few lines.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::{Page, Related, conditions};
use crate::output::table::labels_text;
use crate::value::{list, map, number, shown, text};

pub(super) fn service(object: &Value, related: &Related) -> String {
    let mut page = Page::default();
    page.head(object);
    page.meta(object);
    page.field(0, "Selector", labels_text(map(object, "/spec/selector")));
    page.field(0, "Type", text(object, "/spec/type"));
    page.field_if(0, "IP Family Policy", text(object, "/spec/ipFamilyPolicy"));
    let joined = |pointer: &str| {
        let items: Vec<&str> = list(object, pointer).iter().filter_map(Value::as_str).collect();
        items.join(",")
    };
    let or_none = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
    page.field(0, "IP Families", or_none(joined("/spec/ipFamilies")));
    page.field(0, "IP", text(object, "/spec/clusterIP"));
    page.field(0, "IPs", or_none(joined("/spec/clusterIPs")));
    page.field_if(0, "External IPs", &joined("/spec/externalIPs"));
    page.field_if(0, "External Name", text(object, "/spec/externalName"));
    let ingress: Vec<String> = list(object, "/status/loadBalancer/ingress")
        .iter()
        .map(|i| if text(i, "/ip").is_empty() { text(i, "/hostname") } else { text(i, "/ip") }.to_owned())
        .collect();
    page.field_if(0, "LoadBalancer Ingress", &ingress.join(", "));
    for port in list(object, "/spec/ports") {
        let (name, protocol) = (text(port, "/name"), text(port, "/protocol"));
        let shown_name = if name.is_empty() { "<unset>" } else { name };
        page.field(0, "Port", format!("{shown_name}\t{}/{protocol}", number(port, "/port")));
        page.field(0, "TargetPort", format!("{}/{protocol}", shown(port.get("targetPort"))));
        page.field_if(0, "AppProtocol", text(port, "/appProtocol"));
        if number(port, "/nodePort") > 0 {
            page.field(0, "NodePort", format!("{shown_name}\t{}/{protocol}", number(port, "/nodePort")));
        }
        page.field(0, "Endpoints", endpoints(related.of("endpointslices"), name));
    }
    page.field(0, "Session Affinity", text(object, "/spec/sessionAffinity"));
    page.field_if(0, "External Traffic Policy", text(object, "/spec/externalTrafficPolicy"));
    page.field_if(0, "Internal Traffic Policy", text(object, "/spec/internalTrafficPolicy"));
    page.field_if(0, "Traffic Distribution", text(object, "/spec/trafficDistribution"));
    page.finish(related)
}

/// The ready addresses of a named port, three of them and how many more.
fn endpoints(slices: &[Value], name: &str) -> String {
    let mut all = Vec::new();
    for slice in slices {
        for port in list(slice, "/ports").iter().filter(|p| text(p, "/name") == name) {
            for endpoint in list(slice, "/endpoints") {
                if endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true) {
                    let addresses = list(endpoint, "/addresses").iter().filter_map(Value::as_str);
                    all.extend(addresses.map(|a| format!("{a}:{}", number(port, "/port"))));
                }
            }
        }
    }
    match all.len() {
        0 => String::new(),
        1..=3 => all.join(","),
        more => format!("{} + {} more...", all[..3].join(","), more - 3),
    }
}

pub(super) fn namespace(object: &Value, related: &Related) -> String {
    let mut page = Page::default();
    page.field(0, "Name", text(object, "/metadata/name"));
    page.meta(object);
    page.field(0, "Status", text(object, "/status/phase"));
    let columns = [
        ("Status", "status"),
        ("LastTransitionTime", "lastTransitionTime"),
        ("Reason", "reason"),
        ("Message", "message"),
    ];
    conditions(&mut page, object, &columns, 0);
    let quotas = related.of("resourcequotas");
    if quotas.is_empty() {
        page.line(0, "\nNo resource quota.");
    } else {
        page.line(0, "\nResource Quotas");
        for quota in quotas {
            page.field(1, "Name", text(quota, "/metadata/name"));
            page.line(1, "Resource\tUsed\tHard");
            page.line(1, "--------\t---\t---");
            for (name, hard) in map(quota, "/status/hard").into_iter().flatten() {
                let used = shown(map(quota, "/status/used").and_then(|u| u.get(name)));
                page.line(1, &format!("{name}\t{used}\t{}", shown(Some(hard))));
            }
        }
    }
    let ranges = related.of("limitranges");
    if ranges.is_empty() {
        page.line(0, "\nNo LimitRange resource.");
    } else {
        page.line(0, "\nResource Limits");
        page.line(1, "Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio");
        page.line(1, "----\t--------\t---\t---\t---------------\t-------------\t-----------------------");
        for limit in ranges.iter().flat_map(|range| list(range, "/spec/limits")) {
            limits(&mut page, limit);
        }
    }
    page.finish(&Related::default())
}

fn limits(page: &mut Page, limit: &Value) {
    const FIELDS: [&str; 5] = ["min", "max", "defaultRequest", "default", "maxLimitRequestRatio"];
    let mut names: Vec<&String> =
        FIELDS.iter().filter_map(|f| limit.get(*f)?.as_object()).flat_map(|amounts| amounts.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let cells = FIELDS.iter().map(|field| {
            let cell = shown(limit.get(*field).and_then(|amounts| amounts.get(name)));
            if cell == "<none>" { "-".to_owned() } else { cell }
        });
        page.line(1, &format!("{}\t{name}\t{}", text(limit, "/type"), cells.collect::<Vec<_>>().join("\t")));
    }
}

pub(super) fn quota(object: &Value) -> String {
    let mut page = Page::default();
    page.head(object);
    let scopes: Vec<&str> = list(object, "/spec/scopes").iter().filter_map(Value::as_str).collect();
    page.field_if(0, "Scopes", &scopes.join(", "));
    page.line(0, "Resource\tUsed\tHard");
    page.line(0, "--------\t----\t----");
    for (name, hard) in map(object, "/status/hard").into_iter().flatten() {
        let used = shown(map(object, "/status/used").and_then(|used| used.get(name)));
        page.line(0, &format!("{name}\t{used}\t{}", shown(Some(hard))));
    }
    page.finish(&Related::default())
}

pub(super) fn config_map(object: &Value, related: &Related) -> String {
    let mut page = Page::default();
    page.head(object);
    page.meta(object);
    page.flush();
    page.done += "\nData\n====\n";
    for (key, value) in map(object, "/data").into_iter().flatten() {
        page.done += &format!("{key}:\n----\n{}\n\n", value.as_str().unwrap_or_default());
    }
    page.done += "\nBinaryData\n====\n";
    for (key, value) in map(object, "/binaryData").into_iter().flatten() {
        page.done += &format!("{key}: {} bytes\n", decoded_len(value));
    }
    page.done += "\n";
    page.finish(related)
}

fn decoded_len(value: &Value) -> usize {
    BASE64.decode(value.as_str().unwrap_or_default()).map_or(0, |bytes| bytes.len())
}

pub(super) fn secret(object: &Value) -> String {
    let mut page = Page::default();
    page.head(object);
    page.meta(object);
    page.flush();
    let kind = text(object, "/type");
    page.done += &format!("\nType:  {kind}\n\nData\n====\n");
    for (key, value) in map(object, "/data").into_iter().flatten() {
        // The one value that people come here to copy.
        if kind == "kubernetes.io/service-account-token" && key == "token" {
            let bytes = BASE64.decode(value.as_str().unwrap_or_default()).unwrap_or_default();
            page.field(0, key, String::from_utf8_lossy(&bytes));
        } else {
            page.field(0, key, format!("{} bytes", decoded_len(value)));
        }
    }
    page.finish(&Related::default())
}

pub(super) fn service_account(object: &Value, related: &Related) -> String {
    let mut page = Page::default();
    page.head(object);
    page.meta(object);
    let names = |pointer: &str| -> Vec<String> {
        list(object, pointer).iter().map(|r| text(r, "/name").to_owned()).collect()
    };
    page.several("Image pull secrets", &names("/imagePullSecrets"));
    if !list(object, "/secrets").is_empty() {
        page.several("Mountable secrets", &names("/secrets"));
    }
    page.finish(related)
}

pub(super) fn claim(object: &Value, related: &Related) -> String {
    let mut page = Page::default();
    page.head(object);
    page.field(0, "StorageClass", text(object, "/spec/storageClassName"));
    page.field(0, "Status", text(object, "/status/phase"));
    page.field(0, "Volume", text(object, "/spec/volumeName"));
    page.meta(object);
    let items = |pointer: &str| -> String {
        list(object, pointer).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
    };
    page.field(0, "Finalizers", format!("[{}]", items("/metadata/finalizers").replace(',', " ")));
    page.field(0, "Capacity", shown(object.pointer("/status/capacity/storage")).replace("<none>", ""));
    page.field(0, "Access Modes", items("/status/accessModes"));
    page.field(0, "VolumeMode", text(object, "/spec/volumeMode"));
    let users: Vec<String> =
        related.of("pods").iter().map(|p| text(p, "/metadata/name").to_owned()).collect();
    page.several("Used By", &users);
    page.finish(related)
}

fn words(value: &Value, field: &str) -> String {
    let items: Vec<&str> = list(value, field).iter().filter_map(Value::as_str).collect();
    format!("[{}]", items.join(" "))
}

pub(super) fn role(object: &Value) -> String {
    let mut page = Page::default();
    page.field(0, "Name", text(object, "/metadata/name"));
    page.meta(object);
    page.line(0, "PolicyRule:");
    page.line(1, "Resources\tNon-Resource URLs\tResource Names\tVerbs");
    page.line(1, "---------\t-----------------\t--------------\t-----");
    for rule in single_rules(object) {
        let name = match rule.resource.split_once('/') {
            Some((plural, sub)) => format!("{}/{sub}", crate::mapper::qualified(plural, &rule.group)),
            None => crate::mapper::qualified(&rule.resource, &rule.group),
        };
        page.line(1, &format!("{name}\t{}\t{}\t[{}]", rule.urls, rule.names, rule.verbs.join(" ")));
    }
    page.finish(&Related::default())
}

/// A rule about one resource or about paths.
struct SingleRule {
    group: String,
    resource: String,
    names: String,
    urls: String,
    verbs: Vec<String>,
}

/// The rules taken apart by resource, those about the same one joined, in upstream's order.
fn single_rules(object: &Value) -> Vec<SingleRule> {
    let strings = |value: &Value, field: &str| -> Vec<String> {
        list(value, field).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let mut rules: Vec<SingleRule> = Vec::new();
    for rule in list(object, "/rules") {
        let (names, urls) = (words(rule, "/resourceNames"), words(rule, "/nonResourceURLs"));
        let (groups, resources) = (strings(rule, "/apiGroups"), strings(rule, "/resources"));
        let mut pairs: Vec<(String, String)> =
            groups.iter().flat_map(|g| resources.iter().map(move |r| (g.clone(), r.clone()))).collect();
        if pairs.is_empty() {
            pairs.push(Default::default());
        }
        for (group, resource) in pairs {
            let same = |r: &&mut SingleRule| {
                (&r.group, &r.resource, &r.names, &r.urls) == (&group, &resource, &names, &urls)
            };
            let verbs = strings(rule, "/verbs");
            match rules.iter_mut().find(same) {
                Some(known) => known.verbs.extend(verbs),
                None => rules.push(SingleRule {
                    group,
                    resource,
                    names: names.clone(),
                    urls: urls.clone(),
                    verbs,
                }),
            }
        }
    }
    rules.sort_by_key(|r| {
        format!("[{}][{}][{}]{}{}", r.verbs.join(" "), r.group, r.resource, r.names, r.urls)
    });
    rules
}

pub(super) fn binding(object: &Value) -> String {
    let mut page = Page::default();
    page.field(0, "Name", text(object, "/metadata/name"));
    page.meta(object);
    page.line(0, "Role:");
    page.field(1, "Kind", text(object, "/roleRef/kind"));
    page.field(1, "Name", text(object, "/roleRef/name"));
    page.line(0, "Subjects:");
    page.line(1, "Kind\tName\tNamespace");
    page.line(1, "----\t----\t---------");
    for subject in list(object, "/subjects") {
        let (kind, name, namespace) =
            (text(subject, "/kind"), text(subject, "/name"), text(subject, "/namespace"));
        page.line(1, &format!("{kind}\t{name}\t{namespace}"));
    }
    page.finish(&Related::default())
}

pub(super) fn ingress(object: &Value, related: &Related) -> String {
    let mut page = Page::default();
    page.field(0, "Name", text(object, "/metadata/name"));
    page.labels("Labels", map(object, "/metadata/labels"));
    page.field(0, "Namespace", text(object, "/metadata/namespace"));
    let addresses: Vec<&str> =
        list(object, "/status/loadBalancer/ingress").iter().map(|i| text(i, "/ip")).collect();
    page.field(0, "Address", addresses.join(","));
    let class = text(object, "/spec/ingressClassName");
    page.field(0, "Ingress Class", if class.is_empty() { "<none>" } else { class });
    let backend = |backend: Option<&Value>| match backend {
        None => "<default>".to_owned(),
        Some(backend) => {
            let port = backend.pointer("/service/port/number").or(backend.pointer("/service/port/name"));
            format!("{}:{}", text(backend, "/service/name"), shown(port))
        }
    };
    page.field(0, "Default backend", backend(object.pointer("/spec/defaultBackend")));
    let tls = list(object, "/spec/tls");
    if !tls.is_empty() {
        page.line(0, "TLS:");
        for entry in tls {
            let hosts: Vec<&str> = list(entry, "/hosts").iter().filter_map(Value::as_str).collect();
            page.line(1, &format!("{} terminates {}", text(entry, "/secretName"), hosts.join(",")));
        }
    }
    page.line(0, "Rules:");
    page.line(1, "Host\tPath\tBackends");
    page.line(1, "----\t----\t--------");
    for rule in list(object, "/spec/rules") {
        let host = text(rule, "/host");
        page.line(1, &format!("{}\t", if host.is_empty() { "*" } else { host }));
        for path in list(rule, "/http/paths") {
            page.line(1, &format!("\t{} \t{}", text(path, "/path"), backend(path.get("backend"))));
        }
    }
    page.annotations(object);
    page.finish(related)
}
