//! CustomResourceDefinitions as objects; serving what they define is elsewhere.

mod conversion;
mod defaults;
mod definition;
mod rules;
mod schema;

use keelson_api_types::FieldError;
use serde_json::{Value, json};

use super::check::At;
use super::edit::{self, default, default_zero};
use super::{Ctx, Strategy};
use crate::meta::string;
use definition::Options;

pub struct CustomResourceDefinition;

impl Strategy for CustomResourceDefinition {
    fn default(&self, object: &mut Value) {
        let Some(spec) = edit::ensure(object, "spec") else { return };
        if spec["preserveUnknownFields"] == Value::Bool(false) {
            edit::unset(spec, "preserveUnknownFields");
        }
        default(spec, "conversion", json!({"strategy": "None"}));
        if let Some(service) = edit::dig(spec, &["conversion", "webhook", "clientConfig", "service"]) {
            default(service, "port", 443);
        }
        if let Some(names) = edit::ensure(spec, "names")
            && let Some(kind) = names.get("kind").and_then(Value::as_str).map(str::to_owned)
            && !kind.is_empty()
        {
            default_zero(names, "singular", kind.to_lowercase());
            default_zero(names, "listKind", format!("{kind}List"));
        }
        let storage = At::root(object).dig(&["spec", "versions"]).each().find(|v| v.f("storage").b());
        let storage = storage.map(|version| version.f("name").value.clone());
        if let (Some(name), Some(status)) = (storage, edit::ensure(object, "status")) {
            default_zero(status, "storedVersions", vec![name]);
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

    fn prepare_delete(&self, object: &mut Value) {
        crate::crd::begin_deletion(object);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = &object["spec"];
        let name = keelson_api_types::meta::name(object);
        if name != format!("{}.{}", string(&spec["names"], "plural"), string(spec, "group")) {
            let detail = "must be spec.names.plural+\".\"+spec.group";
            errors.push(FieldError::invalid("metadata.name", name, detail));
        }
        definition::check(spec, &Options::of_new(), &mut errors);
        definition::stored_versions(object, &mut errors);
        definition::approved(object, None, &mut errors);
        if spec["preserveUnknownFields"] == Value::Bool(true) {
            errors.push(preserving());
        }
        rules::check_if(errors, object, None)
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (spec, before) = (&object["spec"], &old["spec"]);
        definition::check(spec, &Options::of_update(spec, old), &mut errors);
        let established = crate::crd::is_established(old);
        for (pointer, fixed) in
            [("/scope", established), ("/names/kind", established), ("/group", true), ("/names/plural", true)]
        {
            let (now, then) = (spec.pointer(pointer), before.pointer(pointer));
            if fixed && now != then {
                let value = now.cloned().unwrap_or_default();
                let path = format!("spec{}", pointer.replace('/', "."));
                errors.push(FieldError::invalid(path, value, "field is immutable"));
            }
        }
        definition::stored_versions(object, &mut errors);
        definition::approved(object, Some(old), &mut errors);
        if spec["preserveUnknownFields"] == true && before["preserveUnknownFields"] != true {
            errors.push(preserving());
        }
        rules::check_if(errors, object, Some(old))
    }

    fn validate_status_update(&self, object: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        definition::names(&object["status"]["acceptedNames"], "status.acceptedNames", &mut errors);
        errors
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let known = old.map(|old| schema::unknown_formats(&old["spec"])).unwrap_or_default();
        let new = schema::unknown_formats(&object["spec"]).into_iter().filter(|f| !known.contains(f));
        new.map(|format| format!("unrecognized format {format:?}")).collect()
    }
}

fn preserving() -> FieldError {
    let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
    FieldError::invalid("spec.preserveUnknownFields", true, detail)
}
