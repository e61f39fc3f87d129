//! Types as OpenAPI schemas.

use keelson_schema::{Definition, Field, ListKind, Patch, Shape, Type, builtin, full_name};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    V2,
    V3,
}

/// The definitions that a document refers to: each is handed out once.
#[derive(Default)]
pub(super) struct Refs {
    waiting: BTreeSet<String>,
    done: BTreeSet<String>,
}

const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const RAW: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
const FIELDS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";
const ANY: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// What the fields of every object mean.
const COMMON: [(&str, &str); 5] = [
    ("apiVersion", "APIVersion defines the group and version of the schema that this object follows."),
    ("kind", "Kind is the name of the REST resource that this object represents, in CamelCase."),
    ("metadata", "Standard object's metadata."),
    ("spec", "What is wanted."),
    ("status", "What was last observed. Read-only."),
];

impl Refs {
    pub(super) fn add(&mut self, name: &str) {
        if !self.done.contains(name) {
            self.waiting.insert(name.to_owned());
        }
    }

    /// Marks a name as written elsewhere.
    pub(super) fn written(&mut self, name: &str) {
        self.waiting.remove(name);
        self.done.insert(name.to_owned());
    }

    pub(super) fn next(&mut self) -> Option<String> {
        let name = self.waiting.pop_first()?;
        self.done.insert(name.clone());
        Some(name)
    }
}

impl Style {
    pub(super) fn pointer(self, name: &str) -> String {
        match self {
            Style::V2 => format!("#/definitions/{name}"),
            Style::V3 => format!("#/components/schemas/{name}"),
        }
    }

    pub(super) fn reference(self, name: &str, refs: &mut Refs) -> Value {
        refs.add(name);
        json!({"$ref": self.pointer(name)})
    }
}

/// A definition by its full name.
pub(super) fn definition(name: &str, style: Style, refs: &mut Refs) -> Option<Value> {
    if let Some(schema) = scalar_definition(name, style) {
        return Some(schema);
    }
    let short = SHORTER.iter().find_map(|p| name.strip_prefix(p))?;
    let def = builtin().definition(short)?;
    Some(object(def, style, refs))
}

const SHORTER: [&str; 5] = [
    "io.k8s.apimachinery.pkg.apis.",
    "io.k8s.apiextensions-apiserver.pkg.apis.",
    "io.k8s.kube-aggregator.pkg.apis.",
    "io.k8s.apimachinery.pkg.",
    "io.k8s.api.",
];

fn scalar_definition(name: &str, style: Style) -> Option<Value> {
    Some(match (name, style) {
        (TIME | MICRO_TIME, _) => json!({"type": "string", "format": "date-time"}),
        (QUANTITY, Style::V2) => json!({"type": "string"}),
        (QUANTITY, Style::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        (INT_OR_STRING, Style::V2) => json!({"type": "string", "format": "int-or-string"}),
        (INT_OR_STRING, Style::V3) => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        (RAW | FIELDS | PATCH, _) => json!({"type": "object"}),
        (ANY, _) => json!({}),
        _ => return None,
    })
}

fn object(def: &'static Definition, style: Style, refs: &mut Refs) -> Value {
    let mut out = Map::new();
    let kinds: Vec<Value> =
        def.kinds().map(|(g, v, k)| json!({"group": g, "version": v, "kind": k})).collect();
    let Some(object) = def.ty().as_object() else { return Value::Object(out) };
    out.insert("type".to_owned(), json!("object"));
    let describe = format!("{} of the {} API.", object.go_struct(), api_name(def.name));
    out.insert("description".to_owned(), json!(describe));
    let mut properties = Map::new();
    for field in &object.fields {
        properties.insert(field.name.clone().into_owned(), property(def.name, field, style, refs));
    }
    if !properties.is_empty() {
        out.insert("properties".to_owned(), Value::Object(properties));
    }
    let required: Vec<&str> = object.fields.iter().filter(|f| f.required).map(|f| &*f.name).collect();
    if !required.is_empty() {
        out.insert("required".to_owned(), json!(required));
    }
    if object.atomic {
        out.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
    }
    if !kinds.is_empty() {
        out.insert("x-kubernetes-group-version-kind".to_owned(), Value::Array(kinds));
    }
    Value::Object(out)
}

/// `apps.v1.DeploymentSpec` → `apps/v1`.
fn api_name(name: &str) -> Cow<'_, str> {
    let mut parts = name.split('.');
    match (parts.next(), parts.next()) {
        (Some(group), Some(version)) => Cow::Owned(format!("{group}/{version}")),
        _ => Cow::Borrowed(name),
    }
}

fn property(owner: &str, field: &Field, style: Style, refs: &mut Refs) -> Value {
    let mut schema = of_type(&field.ty, style, refs);
    let reference = schema.get("$ref").is_some();
    if reference && style == Style::V3 {
        schema = json!({"allOf": [schema]});
    }
    let Value::Object(out) = &mut schema else { return schema };
    if let Some(description) = description(owner, &field.name) {
        out.insert("description".to_owned(), json!(description));
    }
    if style == Style::V3 {
        let zero = field.default.as_deref().cloned().or_else(|| zero(field));
        if let Some(default) = zero {
            out.insert("default".to_owned(), default);
        }
    }
    if field.atomic {
        out.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
    }
    strategies(field.patch, out);
    schema
}

fn description(owner: &str, field: &str) -> Option<&'static str> {
    if owner == "meta.v1.ObjectMeta" {
        return match field {
            "creationTimestamp" => {
                Some("CreationTimestamp is a timestamp that says when the server made this object.")
            }
            "name" => Some("Name is unique within a namespace."),
            "labels" => Some("Keys and values by which objects are organised and selected."),
            "annotations" => Some("Keys and values that tools keep with an object; not for selecting."),
            _ => None,
        };
    }
    COMMON.iter().find(|(name, _)| *name == field).map(|(_, text)| *text)
}

fn zero(field: &Field) -> Option<Value> {
    if !field.emit_zero {
        return None;
    }
    Some(match field.ty.shape {
        Shape::Object(_) => json!({}),
        Shape::String => json!(""),
        Shape::Int32 | Shape::Int64 => json!(0),
        Shape::Bool => json!(false),
        _ => return None,
    })
}

fn strategies(patch: Patch, out: &mut Map<String, Value>) {
    let names = [(patch.merge, "merge"), (patch.retain_keys, "retainKeys"), (patch.replace, "replace")];
    let set: Vec<&str> = names.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect();
    if !set.is_empty() {
        out.insert("x-kubernetes-patch-strategy".to_owned(), json!(set.join(",")));
    }
    if !patch.key.is_empty() {
        out.insert("x-kubernetes-patch-merge-key".to_owned(), json!(patch.key));
    }
}

pub(super) fn of_type(ty: &Type, style: Style, refs: &mut Refs) -> Value {
    match &ty.shape {
        Shape::Object(o) => style.reference(&full_name(&o.name), refs),
        Shape::Map(m) => json!({"type": "object", "additionalProperties": of_type(&m.value, style, refs)}),
        Shape::List(l) => {
            let mut out = json!({"type": "array", "items": of_type(&l.item, style, refs)});
            match &l.kind {
                ListKind::Atomic => out["x-kubernetes-list-type"] = json!("atomic"),
                ListKind::Set => out["x-kubernetes-list-type"] = json!("set"),
                ListKind::Map(keys) => {
                    out["x-kubernetes-list-type"] = json!("map");
                    out["x-kubernetes-list-map-keys"] = json!(keys);
                }
            }
            out
        }
        Shape::String | Shape::Duration => json!({"type": "string"}),
        Shape::Int32 => json!({"type": "integer", "format": "int32"}),
        Shape::Int64 => json!({"type": "integer", "format": "int64"}),
        Shape::Float => json!({"type": "number", "format": "double"}),
        Shape::Bool => json!({"type": "boolean"}),
        Shape::Bytes => json!({"type": "string", "format": "byte"}),
        Shape::Quantity => style.reference(QUANTITY, refs),
        Shape::IntOrString => style.reference(INT_OR_STRING, refs),
        Shape::Time => style.reference(TIME, refs),
        Shape::MicroTime => style.reference(MICRO_TIME, refs),
        Shape::RawExtension => style.reference(RAW, refs),
        Shape::FieldsV1 => style.reference(FIELDS, refs),
        Shape::Any => style.reference(ANY, refs),
    }
}
