//! CustomResourceDefinitions and APIServices as objects; serving what they define is elsewhere.

use keelson_api_types::{FieldError, names};
use serde_json::{Value, json};

use super::check::{At, Errors};
use super::edit::{self, default, default_zero};
use super::{Ctx, Strategy};

pub struct CustomResourceDefinition;

impl Strategy for CustomResourceDefinition {
    fn default(&self, object: &mut Value) {
        let Some(spec) = edit::ensure(object, "spec") else { return };
        default_zero(spec, "scope", "Namespaced");
        if let Some(conversion) = edit::ensure(spec, "conversion") {
            default_zero(conversion, "strategy", "None");
            if let Some(service) = edit::dig(conversion, &["webhook", "clientConfig", "service"]) {
                default(service, "port", 443);
            }
        }
        if let Some(names) = edit::ensure(spec, "names")
            && let Some(kind) = names.get("kind").and_then(Value::as_str).map(str::to_owned)
        {
            default_zero(names, "singular", kind.to_lowercase());
            default_zero(names, "listKind", format!("{kind}List"));
        }
    }

    fn prepare_create(&self, _ctx: &Ctx<'_>, object: &mut Value) {
        let stored: Vec<Value> = At::root(object)
            .dig(&["spec", "versions"])
            .each()
            .filter(|version| version.f("storage").b())
            .map(|version| version.f("name").value.clone())
            .collect();
        let accepted = json!({"plural": "", "kind": ""});
        let status = json!({"conditions": [], "acceptedNames": accepted, "storedVersions": stored});
        edit::set(object, "status", status);
    }

    /// A version that becomes the storage version is remembered as one that objects may be stored in.
    fn prepare_update(&self, _ctx: &Ctx<'_>, object: &mut Value, old: &Value) {
        super::carry(object, old, "status");
        let storage = At::root(object).dig(&["spec", "versions"]).each().find(|v| v.f("storage").b());
        let Some(name) = storage.map(|version| version.f("name").value.clone()) else { return };
        let Some(status) = edit::ensure(object, "status") else { return };
        let mut stored = status["storedVersions"].as_array().cloned().unwrap_or_default();
        if !stored.contains(&name) {
            stored.push(name);
            edit::set(status, "storedVersions", stored);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (at, mut e) = (At::root(object), Errors::new());
        let spec = at.f("spec");
        let (group, plural) = (spec.f("group"), spec.dig(&["names", "plural"]));
        let expected = format!("{}.{}", plural.s(), group.s());
        let name = at.dig(&["metadata", "name"]);
        if name.s() != expected {
            e.invalid(&name, "must be spec.names.plural+\".\"+spec.group");
        }
        definition(&spec, &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let (spec, before, mut e) = (At::root(object).f("spec"), At::root(old).f("spec"), Errors::new());
        definition(&spec, &mut e);
        e.immutable(&spec.f("group"), &before.f("group"));
        let established = At::root(old)
            .dig(&["status", "conditions"])
            .each()
            .any(|c| c.f("type").s() == "Established" && c.f("status").s() == "True");
        if established {
            e.immutable(&spec.f("scope"), &before.f("scope"));
            for field in ["plural", "kind"] {
                e.immutable(&spec.dig(&["names", field]), &before.dig(&["names", field]));
            }
        }
        for stored in At::root(old).dig(&["status", "storedVersions"]).each() {
            if !spec.f("versions").each().any(|version| version.f("name").s() == stored.s()) {
                let detail = "missing from spec.versions; must remain in spec.versions until removed from \
                              status.storedVersions";
                e.invalid(&stored, detail);
            }
        }
        e.into_vec()
    }
}

fn definition(spec: &At<'_>, e: &mut Errors) {
    let group = spec.f("group");
    if e.required_string(&group) {
        e.dns_subdomain(&group);
        if !group.s().contains('.') {
            e.invalid(&group, "should be a domain with at least one dot");
        }
    }
    if !["Cluster", "Namespaced"].contains(&spec.f("scope").s()) {
        e.not_supported(&spec.f("scope"), &["Cluster", "Namespaced"]);
    }
    definition_names(&spec.f("names"), e);
    let versions = spec.f("versions");
    if versions.is_empty() {
        e.required(&versions.path, "");
        return;
    }
    let mut seen = Vec::new();
    for version in versions.each() {
        let (name, schema) = (version.f("name"), version.dig(&["schema", "openAPIV3Schema"]));
        e.text(&name, names::dns1035_label(name.s()));
        if seen.contains(&name.s()) {
            e.invalid(&versions, "must contain unique version names");
        }
        seen.push(name.s());
        if !schema.has() {
            e.required(&schema.path, "schemas are required");
        } else if schema.f("type").s() != "object" {
            let at = schema.f("type");
            if at.is_empty() {
                e.required(&at.path, "must not be empty at the root");
            } else {
                e.invalid(&at, "must be object at the root");
            }
        }
        for column in version.f("additionalPrinterColumns").each() {
            e.required_string(&column.f("name"));
            e.one_of(&column.f("type"), &["boolean", "date", "integer", "number", "string"]);
            e.required_string(&column.f("jsonPath"));
        }
    }
    let stored = versions.each().filter(|version| version.f("storage").b()).count();
    if stored != 1 {
        e.invalid(&versions, "must have exactly one version marked as storage version");
    }
    let conversion = spec.f("conversion");
    e.optional_one_of(&conversion.f("strategy"), &["None", "Webhook"]);
    if conversion.f("strategy").s() == "Webhook" && !conversion.f("webhook").has() {
        e.required(&conversion.path.field("webhook"), "required when strategy is set to Webhook");
    }
}

fn definition_names(at: &At<'_>, e: &mut Errors) {
    for field in ["plural", "singular"].iter().map(|field| at.f(field)) {
        if e.required_string(&field) {
            e.messages(&field, names::dns1035_label(field.s()));
        }
    }
    for field in ["kind", "listKind"].iter().map(|field| at.f(field)) {
        if e.required_string(&field) {
            let messages = names::dns1035_label(&field.s().to_lowercase());
            if !messages.is_empty() {
                e.invalid(
                    &field,
                    "may have mixed case, but should otherwise match: ".to_owned() + &messages.join(","),
                );
            }
        }
    }
    for name in at.f("shortNames").each().chain(at.f("categories").each()) {
        e.messages(&name, names::dns1035_label(name.s()));
    }
    if !at.f("kind").is_empty() && at.f("kind").s() == at.f("listKind").s() {
        e.invalid(&at.f("listKind"), "kind and listKind may not be the same");
    }
}

pub struct ApiService;

impl Strategy for ApiService {
    fn default(&self, object: &mut Value) {
        edit::ensure(object, "status");
        if let Some(service) = edit::dig(object, &["spec", "service"]) {
            default(service, "port", 443);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (at, mut e) = (At::root(object), Errors::new());
        let (spec, name) = (at.f("spec"), at.dig(&["metadata", "name"]));
        let expected = format!("{}.{}", spec.f("version").s(), spec.f("group").s());
        if name.s() != expected && !spec.f("group").is_empty() {
            let detail = "must be `spec.version+\".\"+spec.group`: ".to_owned() + &format!("{expected:?}");
            e.invalid(&name, detail);
        }
        e.text(&spec.f("version"), names::dns1035_label(spec.f("version").s()));
        for field in ["groupPriorityMinimum", "versionPriority"].iter().map(|field| spec.f(field)) {
            if field.i() <= 0 {
                e.invalid_value(&field.path, field.i(), "must be positive");
            }
        }
        if let Some(service) = spec.get("service") {
            e.required_string(&service.f("name"));
            e.required_string(&service.f("namespace"));
        }
        e.into_vec()
    }
}
