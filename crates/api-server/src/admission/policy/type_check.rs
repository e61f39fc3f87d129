//! `status.typeChecking` of validating policies: their expressions checked against the kinds that they match.
//! What it finds are warnings; a policy is evaluated all the same.

use std::sync::Arc;

use keelson_api_types::{Gvk, Gvr};
use keelson_cel::Declared;
use keelson_schema::{ListKind, Shape, Type};
use serde_json::{Map, Value, json};

use super::super::expressions::{Compiler, Names, Returns, environment};
use super::super::{GROUP, items, text};
use crate::types::{Change, Objects};

/// Kinds that one policy is checked against at most.
const MAX_KINDS: usize = 10;
/// Schemas that contain themselves end here.
const MAX_DEPTH: usize = 12;

/// Keeps the status of all policies; ends with the server.
pub async fn follow(objects: Arc<dyn Objects>) {
    let gvr = Gvr::new(GROUP, "v1", "validatingadmissionpolicies");
    let mut changes = objects.subscribe(&gvr);
    while let Some(change) = changes.recv().await {
        let changed = match change {
            Change::Snapshot(all) => all,
            Change::Put(one) => vec![one],
            Change::Delete(_) => continue,
        };
        for policy in changed {
            let Ok(mut policy) = policy.parse::<Value>() else { continue };
            let generation = policy["metadata"]["generation"].clone();
            if policy["status"]["observedGeneration"] == generation {
                continue;
            }
            let warnings = check(objects.as_ref(), &policy["spec"]);
            policy["status"]["observedGeneration"] = generation;
            policy["status"]["typeChecking"] = match warnings.is_empty() {
                true => json!({}),
                false => json!({"expressionWarnings": warnings}),
            };
            // Who changed it in between has made another change to act on.
            if let Err(error) = objects.update(&gvr, "", "status", policy).await {
                tracing::debug!(%error, "cannot write a policy's status");
            }
        }
    }
}

fn check(objects: &dyn Objects, spec: &Value) -> Vec<Value> {
    let kinds = matched_kinds(objects, &spec["matchConstraints"]);
    let params = &spec["paramKind"];
    let gvk = Gvk::from_api_version(text(params, "/apiVersion"), text(params, "/kind"));
    let param_schema = objects.resource_of(&gvk).and_then(|(gvr, _)| objects.schema(&gvr)).map(|(_, s)| s);
    let names = Names { params: params.is_object(), authorizer: true, mutation: false };
    let problems = |source: &str| -> String {
        let of = |(gvk, schema): &(Gvk, Value)| {
            let declared = |schema: &Value, name: &str| {
                Declared::from_schema(schema, name, true).unwrap_or_else(Declared::dynamic)
            };
            let env = || {
                let param =
                    || param_schema.as_ref().map_or_else(Declared::dynamic, |s| declared(s, "params"));
                environment(names, || declared(schema, &gvk.kind), param)
            };
            let mut compiler = Compiler::default();
            for variable in items(&spec["variables"]) {
                compiler.add_in(env(), text(variable, "/name"), text(variable, "/expression"));
            }
            let expression = compiler.compile_in(env(), source, &Returns::Anything);
            let problem = expression.problem()?;
            Some(format!("{gvk}: {}\n", problem.strip_prefix("compilation failed: ").unwrap_or(problem)))
        };
        kinds.iter().filter_map(of).collect::<Vec<_>>().join("\n")
    };
    let mut warnings = Vec::new();
    for (i, validation) in items(&spec["validations"]).iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let Some(source) = validation[field].as_str().filter(|s| !s.is_empty()) else { continue };
            let warning = problems(source);
            if !warning.is_empty() {
                let at = format!("spec.validations[{i}].{field}");
                warnings.push(json!({"fieldRef": at, "warning": warning}));
            }
        }
    }
    warnings
}

/// The kinds that rules name without wildcards, with their schemas.
fn matched_kinds(objects: &dyn Objects, constraints: &Value) -> Vec<(Gvk, Value)> {
    let mut found: Vec<(Gvk, Value)> = Vec::new();
    for rule in items(&constraints["resourceRules"]) {
        let list = |key: &str| -> Vec<&str> {
            let mut all: Vec<&str> = items(&rule[key]).iter().filter_map(Value::as_str).collect();
            all.sort_unstable();
            all
        };
        let (groups, versions) = (list("apiGroups"), list("apiVersions"));
        if groups.iter().chain(&versions).any(|name| name.contains('*')) {
            continue;
        }
        let resources: Vec<&str> =
            list("resources").into_iter().filter(|r| !r.contains(['*', '/'])).collect();
        for group in groups {
            for version in &versions {
                for resource in &resources {
                    let kind = objects.schema(&Gvr::new(group, *version, *resource));
                    found.extend(kind.filter(|(gvk, _)| found.iter().all(|(known, _)| known != gvk)));
                }
            }
        }
    }
    found.truncate(MAX_KINDS);
    found.sort_by(|(a, _), (b, _)| (&a.group, &a.version, &a.kind).cmp(&(&b.group, &b.version, &b.kind)));
    found
}

/// A type as a schema without references.
pub fn schema(ty: &Type) -> Value {
    nested(ty, 0)
}

fn nested(ty: &Type, depth: usize) -> Value {
    if depth > MAX_DEPTH {
        return json!({"x-kubernetes-preserve-unknown-fields": true});
    }
    let below = |ty: &Type| nested(ty, depth + 1);
    match &ty.shape {
        Shape::Object(object) => {
            let properties: Map<String, Value> =
                object.fields.iter().map(|f| (f.name.to_string(), below(&f.ty))).collect();
            let required: Vec<&str> = object.fields.iter().filter(|f| f.required).map(|f| &*f.name).collect();
            let mut schema = json!({"type": "object", "properties": properties, "required": required});
            if object.preserve_unknown {
                schema["x-kubernetes-preserve-unknown-fields"] = true.into();
            }
            schema
        }
        Shape::Map(map) => json!({"type": "object", "additionalProperties": below(&map.value)}),
        Shape::List(list) => {
            let mut schema = json!({"type": "array", "items": below(&list.item)});
            match &list.kind {
                ListKind::Atomic => {}
                ListKind::Set => schema["x-kubernetes-list-type"] = "set".into(),
                ListKind::Map(keys) => {
                    schema["x-kubernetes-list-type"] = "map".into();
                    schema["x-kubernetes-list-map-keys"] = keys.iter().map(|k| k.to_string()).collect();
                }
            }
            schema
        }
        Shape::String | Shape::Quantity | Shape::Duration => json!({"type": "string"}),
        Shape::Int32 | Shape::Int64 => json!({"type": "integer"}),
        Shape::Float => json!({"type": "number"}),
        Shape::Bool => json!({"type": "boolean"}),
        Shape::Bytes => json!({"type": "string", "format": "byte"}),
        Shape::IntOrString => json!({"x-kubernetes-int-or-string": true}),
        Shape::Time | Shape::MicroTime => json!({"type": "string", "format": "date-time"}),
        Shape::RawExtension | Shape::Any | Shape::FieldsV1 => {
            json!({"x-kubernetes-preserve-unknown-fields": true})
        }
    }
}
