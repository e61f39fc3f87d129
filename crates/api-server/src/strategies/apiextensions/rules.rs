//! The CEL rules of a definition's schemas.

use keelson_api_types::FieldError;
use keelson_machinery::check_rules;
use serde_json::Value;

use crate::meta::string;

/// The errors of a definition with those of its rules, which only proper schemas can be asked for.
pub fn check_if(mut errors: Vec<FieldError>, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    if errors.is_empty() {
        errors = check(object, old);
    }
    errors
}

fn check(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let versions = schemas(object);
    let before = old.map(schemas).unwrap_or_default();
    let is_unchanged = |name: &str, schema: &Value| before.iter().any(|(n, s)| *n == name && *s == schema);
    // One schema for all versions is upstream's `spec.validation`, and checked once.
    if let [(name, first), rest @ ..] = &versions[..]
        && rest.iter().all(|(_, schema)| schema == first)
    {
        return check_rules(first, "spec.validation.openAPIV3Schema", is_unchanged(name, first));
    }
    let each = versions.iter().enumerate().map(|(i, (name, schema))| {
        let path = format!("spec.versions[{i}].schema.openAPIV3Schema");
        check_rules(schema, &path, is_unchanged(name, schema))
    });
    each.flatten().collect()
}

/// The versions' names and schemas.
fn schemas(definition: &Value) -> Vec<(&str, &Value)> {
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    let one = |version| Some((string(version, "name"), Value::pointer(version, "/schema/openAPIV3Schema")?));
    versions.filter_map(one).collect()
}
