//! Object metadata on its way to the store: what the server fills in, what may not change, what is valid.

use keelson_api_types::meta::now_rfc3339;
use keelson_api_types::{FieldError, StatusError, names};
use rand::seq::IndexedRandom;
use serde_json::{Map, Value, json};

use crate::registry::Resource;

const ANNOTATIONS_LIMIT: usize = 256 << 10;
pub const ORPHAN: &str = "orphan";
pub const FOREGROUND: &str = "foregroundDeletion";

/// `metadata` as a map, made if it is missing.
pub fn meta_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let metadata = &mut object["metadata"];
    if !metadata.is_object() {
        *metadata = json!({});
    }
    match metadata {
        Value::Object(map) => map,
        _ => unreachable!("metadata was just made an object"),
    }
}

fn field<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object.get("metadata")?.get(name).filter(|v| !v.is_null())
}

/// A text field of any value, empty when it is absent or no text.
pub fn string<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// A text field of the metadata.
pub fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    keelson_api_types::meta::string(object, name)
}

pub fn is_deleting(object: &Value) -> bool {
    field(object, "deletionTimestamp").is_some()
}

pub fn finalizers(object: &Value) -> Vec<&str> {
    field(object, "finalizers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

pub fn set_finalizers(object: &mut Value, finalizers: &[String]) {
    let meta = meta_mut(object);
    if finalizers.is_empty() {
        meta.remove("finalizers");
    } else {
        meta.insert("finalizers".into(), json!(finalizers));
    }
}

pub fn grace_seconds(object: &Value) -> Option<i64> {
    field(object, "deletionGracePeriodSeconds").and_then(Value::as_i64)
}

pub fn generation(object: &Value) -> i64 {
    field(object, "generation").and_then(Value::as_i64).unwrap_or(0)
}

/// Counts a change for the kinds that count.
pub fn bump_generation(object: &mut Value) {
    let next = generation(object) + 1;
    meta_mut(object).insert("generation".into(), next.into());
}

/// The namespace of the request becomes the object's; another one in the object is refused.
pub fn match_namespace(object: &mut Value, namespaced: bool, namespace: &str) -> Result<(), StatusError> {
    let given = text(object, "namespace");
    if !given.is_empty() && (given != namespace || !namespaced) {
        return Err(StatusError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if namespaced && given.is_empty() {
        meta_mut(object).insert("namespace".into(), namespace.into());
    }
    Ok(())
}

/// Fills in what only the server decides about a new object.
pub fn prepare_create(object: &mut Value, has_generation: bool) {
    let meta = meta_mut(object);
    for server_side in
        ["selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "generation"]
    {
        meta.remove(server_side);
    }
    meta.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    meta.insert("creationTimestamp".into(), now_rfc3339().into());
    if has_generation {
        meta.insert("generation".into(), 1.into());
    }
}

/// A name from `generateName` with five characters that cannot spell words.
pub fn generate_name(base: &str) -> String {
    const CHARACTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    let mut name: String = base.chars().take(58).collect();
    name.extend((0..5).filter_map(|_| CHARACTERS.choose(&mut rng).map(|c| char::from(*c))));
    name
}

/// Takes over from the stored object what a client may leave out and never changes.
pub fn prepare_update(object: &mut Value, old: &Value) {
    let meta = meta_mut(object);
    meta.remove("selfLink");
    for fixed in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if meta.get(fixed).is_none_or(Value::is_null)
            && let Some(value) = field(old, fixed)
        {
            meta.insert(fixed.into(), value.clone());
        }
    }
    match field(old, "generation") {
        Some(generation) => meta.insert("generation".into(), generation.clone()),
        None => meta.remove("generation"),
    };
}

/// What a status update leaves as it is.
pub fn prepare_status_update(object: &mut Value, old: &Value, only_managed_fields: bool) {
    let fixed = |key: &str| {
        matches!(key, "ownerReferences" | "generateName") || only_managed_fields && key != "managedFields"
    };
    let Some(before) = old.get("metadata").and_then(Value::as_object) else { return };
    let meta = meta_mut(object);
    meta.retain(|key, _| !fixed(key) || before.contains_key(key));
    for (key, value) in before.iter().filter(|(key, _)| fixed(key)) {
        meta.insert(key.clone(), value.clone());
    }
}

/// Takes owner references away that stand there twice, and warns of it: once for what the client sent, and once for
/// what admission made of it.
pub fn dedup_owners(object: &mut Value, after_admission: bool) -> Option<String> {
    let owners = object.get_mut("metadata")?.get_mut("ownerReferences")?.as_array_mut()?;
    let mut twice: Vec<String> = Vec::new();
    let mut kept: Vec<Value> = Vec::with_capacity(owners.len());
    for owner in std::mem::take(owners) {
        if kept.contains(&owner) {
            twice.push(string(&owner, "uid").to_owned());
        } else {
            kept.push(owner);
        }
    }
    *owners = kept;
    let when = if after_admission { " after mutating admission happens" } else { "" };
    (!twice.is_empty()).then(|| {
        format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, \
             and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            twice.join(", ")
        )
    })
}

/// Whether anything but metadata (and, if asked, status) differs.
pub fn spec_changed(new: &Value, old: &Value, status_counts: bool) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return true };
    let counts = |key: &str| match key {
        "metadata" | "apiVersion" | "kind" => false,
        "status" => status_counts,
        _ => true,
    };
    new.iter().any(|(k, v)| counts(k) && old.get(k) != Some(v))
        || old.keys().any(|k| counts(k) && !new.contains_key(k))
}

/// What is wrong with an object's metadata.
pub fn validate(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let prefix = text(object, "generateName");
    if !prefix.is_empty() {
        for problem in (resource.traits.names)(prefix, true) {
            errors.push(FieldError::invalid("metadata.generateName", prefix, problem));
        }
    }
    let name = text(object, "name");
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else {
        for problem in (resource.traits.names)(name, false) {
            errors.push(FieldError::invalid("metadata.name", name, problem));
        }
    }
    let namespace = text(object, "namespace");
    if resource.namespaced {
        if namespace.is_empty() {
            errors.push(FieldError::required("metadata.namespace", ""));
        } else {
            for problem in names::dns1123_label(namespace) {
                errors.push(FieldError::invalid("metadata.namespace", namespace, problem));
            }
        }
    } else if !namespace.is_empty() {
        errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type"));
    }
    validate_maps(object, &mut errors);
    validate_owners(object, &mut errors);
    // Definitions and custom objects may carry any qualified name; the built-in kinds' finalizers have a domain.
    let strict = resource.custom.is_none() && resource.gvr.group != "apiextensions.k8s.io";
    validate_finalizers(object, strict, &mut errors);
    errors
}

/// What is wrong with the metadata of a resource inside of another, at `path`.
pub fn validate_embedded(resource: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (field, messages) in [
        ("generateName", names::path_segment_prefix(text(resource, "generateName"))),
        ("name", names::path_segment_name(text(resource, "name"))),
        ("namespace", names::dns1123_label(text(resource, "namespace"))),
    ] {
        let value = text(resource, field);
        let messages = messages.into_iter().filter(|_| !value.is_empty());
        errors.extend(messages.map(|m| FieldError::invalid(format!("metadata.{field}"), value, m)));
    }
    validate_maps(resource, &mut errors);
    validate_owners(resource, &mut errors);
    validate_finalizers(resource, false, &mut errors);
    for error in &mut errors {
        error.path = error.path.replacen("metadata", path, 1);
    }
    errors
}

fn validate_maps(object: &Value, errors: &mut Vec<FieldError>) {
    let map = |name| field(object, name).and_then(Value::as_object).into_iter().flatten();
    for (key, value) in map("labels") {
        for problem in names::qualified_name(key) {
            errors.push(FieldError::invalid("metadata.labels", key.as_str(), problem));
        }
        let value = value.as_str().unwrap_or_default();
        for problem in names::label_value(value) {
            errors.push(FieldError::invalid("metadata.labels", value, problem));
        }
    }
    let mut size = 0;
    for (key, value) in map("annotations") {
        for problem in names::qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::invalid("metadata.annotations", key.as_str(), problem));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_LIMIT {
        errors.push(FieldError::too_long("metadata.annotations", ANNOTATIONS_LIMIT));
    }
}

fn validate_owners(object: &Value, errors: &mut Vec<FieldError>) {
    let owners = field(object, "ownerReferences").and_then(Value::as_array).into_iter().flatten();
    let mut controller: Option<String> = None;
    for (at, owner) in owners.enumerate() {
        let path = format!("metadata.ownerReferences[{at}]");
        let get = |key| string(owner, key);
        let api_version = get("apiVersion");
        let (_, version) = keelson_api_types::gvk::split_api_version(api_version);
        if version.is_empty() {
            let detail = "version must not be empty";
            errors.push(FieldError::invalid(format!("{path}.apiVersion"), api_version, detail));
        }
        for key in ["kind", "name", "uid"] {
            if get(key).is_empty() {
                errors.push(FieldError::invalid(format!("{path}.{key}"), "", "must not be empty"));
            }
        }
        if owner.get("controller") == Some(&Value::Bool(true)) {
            let this = format!("{}/{}", get("kind"), get("name"));
            if let Some(other) = &controller {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {other} and {this}"
                );
                errors.push(FieldError::invalid("metadata.ownerReferences", owner.clone(), detail));
            }
            controller = Some(this);
        }
    }
}

fn validate_finalizers(object: &Value, strict: bool, errors: &mut Vec<FieldError>) {
    let all = finalizers(object);
    for name in &all {
        let problems = names::qualified_name(name);
        let known = name.contains('/') || matches!(*name, ORPHAN | FOREGROUND | "kubernetes");
        if strict && problems.is_empty() && !known {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid("metadata.finalizers", *name, detail));
        }
        for problem in problems {
            errors.push(FieldError::invalid("metadata.finalizers", *name, problem));
        }
    }
    if all.contains(&ORPHAN) && all.contains(&FOREGROUND) {
        let detail = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        errors.push(FieldError::invalid("metadata.finalizers", json!(all), detail));
    }
}

/// What a change does to metadata that it must not.
pub fn validate_update(resource: &Resource, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate(resource, new);
    for fixed in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        let value = field(new, fixed);
        if value != field(old, fixed) {
            let value = value.cloned().unwrap_or(Value::Null);
            errors.push(FieldError::invalid(format!("metadata.{fixed}"), value, "field is immutable"));
        }
    }
    if is_deleting(old) {
        let before = finalizers(old);
        let added: Vec<&str> = finalizers(new).into_iter().filter(|f| !before.contains(f)).collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ")
            );
            errors.push(FieldError::forbidden("metadata.finalizers", detail));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_decides_over_its_own_fields() {
        let mut object =
            json!({"metadata": {"uid": "mine", "resourceVersion": "1", "deletionTimestamp": "x"}});
        prepare_create(&mut object, true);
        assert_ne!(text(&object, "uid"), "mine");
        assert_eq!(generation(&object), 1);
        assert!(!is_deleting(&object) && text(&object, "resourceVersion").is_empty());
        let old = json!({"metadata": {"uid": "u", "creationTimestamp": "t", "generation": 4}});
        let mut new = json!({"metadata": {"generation": 9}});
        prepare_update(&mut new, &old);
        assert_eq!(new, old);
    }

    #[test]
    fn generated_names_have_their_base() {
        let name = generate_name(&"x".repeat(80));
        assert_eq!(name.len(), 63);
        assert!(generate_name("web-").starts_with("web-"));
    }

    #[test]
    fn only_what_is_outside_metadata_and_status_counts_as_a_change() {
        let old = json!({"metadata": {"a": 1}, "spec": {"x": 1}, "status": {"y": 1}});
        let new = json!({"metadata": {"a": 2}, "spec": {"x": 1}, "status": {"y": 2}});
        assert!(!spec_changed(&new, &old, false));
        assert!(spec_changed(&new, &old, true));
        assert!(spec_changed(&json!({"metadata": {}}), &old, false));
    }
}
