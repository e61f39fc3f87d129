//! Networking and discovery.

use super::core::load_balancer;
use super::object::{Obj, shortened};
use super::plain;
use keelson_api_types::meta;
use serde_json::{Value, json};

pub(super) fn cells(resource: &str, o: &Obj) -> Vec<Value> {
    match resource {
        "ingresses" => vec![
            o.name(),
            json!(o.or("spec.ingressClassName", "<none>")),
            json!(hosts(o)),
            json!(load_balancer(o)),
            json!(if o.len("spec.tls") == 0 { "80" } else { "80, 443" }),
            o.age(),
        ],
        "ingressclasses" => {
            let default =
                meta::annotation(o.value(), "ingressclass.kubernetes.io/is-default-class") == Some("true");
            let name = format!("{}{}", meta::name(o.value()), if default { " (default)" } else { "" });
            vec![json!(name), json!(o.text("spec.controller")), json!(parameters(o)), o.age()]
        }
        "networkpolicies" => vec![o.name(), json!(o.selector("spec.podSelector")), o.age()],
        "servicecidrs" => vec![o.name(), json!(o.join("spec.cidrs", ",")), o.age()],
        "ipaddresses" => vec![o.name(), json!(parent(o)), o.age()],
        "endpointslices" => vec![
            o.name(),
            json!(o.text("addressType")),
            json!(shortened(o.list("ports").map(|p| port(&p)).collect(), 3, "<unset>")),
            json!(shortened(addresses(o), 3, "<unset>")),
            o.age(),
        ],
        _ => plain(o),
    }
}

fn addresses(o: &Obj) -> Vec<String> {
    let each = |e: Obj| e.join("addresses", "\n").lines().map(str::to_owned).collect::<Vec<_>>();
    o.list("endpoints").flat_map(each).collect()
}

fn port(p: &Obj) -> String {
    match p.get("port") {
        Some(number) => number.to_string(),
        None => p.get("name").and_then(Value::as_str).unwrap_or("*").to_owned(),
    }
}

fn hosts(o: &Obj) -> String {
    let named: Vec<&str> = o.list("spec.rules").map(|r| r.text("host")).filter(|h| !h.is_empty()).collect();
    if named.is_empty() {
        return "*".to_owned();
    }
    let rules = o.len("spec.rules");
    let shown = named[..named.len().min(3)].join(",");
    if named.len() >= 3 && rules > 3 { format!("{shown} + {} more...", rules - 3) } else { shown }
}

fn parameters(o: &Obj) -> String {
    if !o.has("spec.parameters") {
        return "<none>".to_owned();
    }
    let p = o.at("spec.parameters");
    let group = if p.has("apiGroup") { format!(".{}", p.text("apiGroup")) } else { String::new() };
    format!("{}{group}/{}", p.text("kind"), p.text("name"))
}

fn parent(o: &Obj) -> String {
    if !o.has("spec.parentRef") {
        return "<none>".to_owned();
    }
    let p = o.at("spec.parentRef");
    let mut out = p.text("resource").to_lowercase();
    for part in [".group", "/namespace", "/name"] {
        let value = p.text(&part[1..]);
        if !value.is_empty() || part == "/name" {
            out.push_str(&part[..1]);
            out.push_str(value);
        }
    }
    out
}
