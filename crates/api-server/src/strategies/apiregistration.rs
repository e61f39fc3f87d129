//! APIServices as objects; what they make of requests is in [`crate::aggregation`].

use keelson_api_types::meta::now_rfc3339;
use keelson_api_types::{FieldError, names};
use serde_json::{Value, json};

use super::check::{At, Errors};
use super::edit::{self, default};
use super::{Ctx, Strategy};

pub struct ApiService;

impl Strategy for ApiService {
    fn default(&self, object: &mut Value) {
        edit::ensure(object, "status");
        if let Some(service) = edit::dig(object, &["spec", "service"]) {
            default(service, "port", 443);
        }
    }

    /// What this server answers itself is available as long as anybody can ask.
    fn prepare_create(&self, _ctx: &Ctx<'_>, object: &mut Value) {
        let mut status = json!({});
        if object.pointer("/spec/service").is_none_or(Value::is_null) {
            status["conditions"] = json!([{
                "type": "Available",
                "status": "True",
                "lastTransitionTime": now_rfc3339(),
                "reason": "Local",
                "message": "Local APIServices are always available",
            }]);
        }
        if let Some(object) = object.as_object_mut() {
            object.insert("status".into(), status);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (at, mut e) = (At::root(object), Errors::new());
        let (spec, name) = (at.f("spec"), at.dig(&["metadata", "name"]));
        let (group, version) = (spec.f("group"), spec.f("version"));
        let expected = format!("{}.{}", version.s(), group.s());
        if name.s() != expected {
            let detail = "must be `spec.version+\".\"+spec.group`: ".to_owned() + &format!("{expected:?}");
            e.invalid(&name, detail);
        }
        match group.s() {
            "" if version.s() != "v1" => {
                e.required(&group.path, "only v1 may have an empty group and it better be legacy kube");
            }
            "" => {}
            name => e.messages(&group, names::dns1123_subdomain(name)),
        }
        e.text(&version, names::dns1035_label(version.s()));
        for (field, most) in [("groupPriorityMinimum", 20000), ("versionPriority", 1000)] {
            let field = spec.f(field);
            if !(1..=most).contains(&field.i()) {
                let detail = format!("must be positive and less than {most}");
                e.invalid_value(&field.path, field.i(), detail);
            }
        }
        backend(&spec, &mut e);
        e.into_vec()
    }

    fn validate_status_update(&self, object: &Value, _old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        for condition in At::root(object).dig(&["status", "conditions"]).each() {
            e.one_of(&condition.f("status"), &["True", "False", "Unknown"]);
        }
        e.into_vec()
    }
}

/// The Service, and how its server is to be trusted.
fn backend(spec: &At<'_>, e: &mut Errors) {
    let (bundle, insecure) = (spec.f("caBundle"), spec.f("insecureSkipTLSVerify"));
    let Some(service) = spec.get("service") else {
        if !bundle.is_empty() {
            let size = format!("{} bytes", bundle.len() / 4 * 3);
            e.invalid_value(&bundle.path, size, "local APIServices may not have a caBundle");
        }
        if insecure.b() {
            e.invalid(&insecure, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    };
    e.required_string(&service.f("namespace"));
    e.required_string(&service.f("name"));
    let port = service.f("port");
    if !(1..=65535).contains(&port.i()) {
        let detail = "port is not valid: must be between 1 and 65535, inclusive";
        e.invalid_value(&port.path, port.i(), detail);
    }
    if insecure.b() && !bundle.is_empty() {
        e.invalid(&insecure, "may not be true if caBundle is present");
    }
}
