//! A definition's spec: names, versions, subresources, columns, selectable fields, conversion.
//!
//! Paths are upstream's, whose internal form keeps what all versions share beside the versions: `spec.validation`,
//! `spec.subresources`, `spec.additionalPrinterColumns`, `spec.selectableFields`, `spec.conversion.webhookClientConfig`.

use std::collections::HashSet;

use keelson_api_types::field::{child, index};
use keelson_api_types::{FieldError, meta, names as grammar};
use serde_json::Value;

use super::{conversion, defaults, schema};
use crate::crd::{Approval, approval, is_established};
use crate::meta::string;

const MAX_SELECTABLE: usize = 8;
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
/// What may stand at the root of a schema whose status is written alone; the names are those of messages.
const ROOT_FIELDS: [(&str, &str); 22] = [
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
    ("x-kubernetes-validations", "XValidations"),
];

/// What an update is spared because the old definition had it already.
#[derive(Debug, Clone)]
pub struct Options {
    pub schemas: bool,
    pub structural: bool,
    pub types: bool,
    pub pruned_defaults: bool,
    pub atomic_sets: bool,
    pub map_keys: bool,
    pub known_review: bool,
    pub ca_bundle: bool,
    /// Versions with as many selectable fields as they like.
    pub many_fields: Vec<String>,
}

impl Options {
    pub fn of_new() -> Self {
        Self {
            schemas: true,
            structural: true,
            types: true,
            pruned_defaults: true,
            atomic_sets: true,
            map_keys: true,
            known_review: true,
            // Until it is established, a definition may still wait for its certificate.
            ca_bundle: false,
            many_fields: Vec::new(),
        }
    }

    pub fn of_update(spec: &Value, old: &Value) -> Self {
        let before = &old["spec"];
        let schemas: Vec<&Value> = versions(before).iter().map(schema_of).collect();
        let none = |bad: &dyn Fn(&Value) -> bool| !schemas.iter().any(|s| schema::any(s, bad));
        let structural = |s: &&Value| {
            s.is_null()
                || keelson_schema::unsupported(s).is_none() && keelson_schema::violations(s, "").is_empty()
        };
        let conversion = &before["conversion"]["webhook"];
        let reviews = list(&conversion["conversionReviewVersions"]);
        let bundle = &conversion["clientConfig"]["caBundle"];
        let same_fields = |v: &&Value| {
            let fields = &v["selectableFields"];
            let then =
                versions(before).iter().find(|b| b["name"] == v["name"]).map(|b| &b["selectableFields"]);
            fields.as_array().is_some_and(|f| f.len() > MAX_SELECTABLE) && then == Some(fields)
        };
        Self {
            schemas: schemas.iter().all(|s| !s.is_null()),
            structural: schemas.iter().all(structural),
            types: none(&schema::has_bad_type),
            pruned_defaults: !schemas.iter().any(|s| defaults::any_unpruned(s)),
            atomic_sets: none(&schema::has_open_set),
            map_keys: none(&schema::has_bad_keys),
            known_review: reviews.is_empty() || reviews.iter().any(|r| conversion::REVIEWS.contains(r)),
            ca_bundle: is_established(old) && (bundle.is_null() || conversion::ca_error(bundle).is_none()),
            many_fields: versions(spec)
                .iter()
                .filter(same_fields)
                .map(|v| string(v, "name").to_owned())
                .collect(),
        }
    }
}

pub fn check(spec: &Value, options: &Options, e: &mut Vec<FieldError>) {
    let group = string(spec, "group");
    if group.is_empty() {
        e.push(FieldError::required("spec.group", ""));
    } else if let messages = grammar::dns1123_subdomain(group)
        && !messages.is_empty()
    {
        e.push(FieldError::invalid("spec.group", group, messages.join(",")));
    } else if !group.contains('.') {
        e.push(FieldError::invalid("spec.group", group, "should be a domain with at least one dot"));
    }
    match string(spec, "scope") {
        "" => e.push(FieldError::required("spec.scope", "")),
        "Cluster" | "Namespaced" => {}
        other => e.push(FieldError::not_supported("spec.scope", other, &["Cluster", "Namespaced"])),
    }
    let all = versions(spec);
    check_versions(spec, all, options, e);
    for required in ["plural", "singular", "kind", "listKind"] {
        if string(&spec["names"], required).is_empty() {
            e.push(FieldError::required(format!("spec.names.{required}"), ""));
        }
    }
    names(&spec["names"], "spec.names", e);
    if let Some(first) = all.first() {
        // Of what all versions share, each has it.
        let shared = Shared::of(all);
        let status = all.iter().any(has_status);
        parts(first, "spec", &shared, status, options, e);
    }
    let conversion = &spec["conversion"];
    if string(conversion, "strategy") != "None"
        && conversion.is_object()
        && spec["preserveUnknownFields"] == true
    {
        let detail = "must be None if spec.preserveUnknownFields is true";
        e.push(FieldError::invalid("spec.conversion.strategy", string(conversion, "strategy"), detail));
    }
    conversion::check(conversion, options, e);
}

/// Which parts all versions have alike: these are reported once, beside the versions.
struct Shared {
    schema: bool,
    subresources: bool,
    columns: bool,
    fields: bool,
}

impl Shared {
    fn of(all: &[Value]) -> Self {
        let alike = |part: &str| all.windows(2).all(|pair| pair[0][part] == pair[1][part]);
        Self {
            schema: alike("schema"),
            subresources: alike("subresources"),
            columns: alike("additionalPrinterColumns"),
            fields: alike("selectableFields"),
        }
    }

    fn others(&self) -> Self {
        Self {
            schema: !self.schema,
            subresources: !self.subresources,
            columns: !self.columns,
            fields: !self.fields,
        }
    }
}

fn check_versions(spec: &Value, all: &[Value], options: &Options, e: &mut Vec<FieldError>) {
    let versions = || spec["versions"].clone();
    for (i, version) in all.iter().enumerate() {
        let missing = schema_of(version).is_null();
        let at = format!("spec.versions[{i}].schema.openAPIV3Schema");
        if missing && options.schemas {
            e.push(FieldError::required(at, ""));
        } else if missing && version["served"] == true && spec["preserveUnknownFields"] != true {
            e.push(FieldError::required(at, "because otherwise all fields are pruned"));
        }
    }
    let defaulted =
        all.iter().any(|v| schema::any(schema_of(v), &|s| s.get("default").is_some_and(|d| !d.is_null())));
    if defaulted && spec["preserveUnknownFields"] == true {
        let detail = "must be false in order to use defaults in the schema";
        e.push(FieldError::invalid("spec.preserveUnknownFields", true, detail));
    }
    let own = Shared::of(all).others();
    let mut seen = HashSet::new();
    let mut unique = true;
    for (i, version) in all.iter().enumerate() {
        let path = index("spec.versions", i);
        let name = string(version, "name");
        unique &= seen.insert(name);
        text(name, &child(&path, "name"), grammar::dns1035_label(name), e);
        deprecation(version, &path, e);
        parts(version, &path, &own, has_status(version), options, e);
    }
    if !unique {
        e.push(FieldError::invalid("spec.versions", versions(), "must contain unique version names"));
    }
    if all.iter().filter(|v| v["storage"] == true).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        e.push(FieldError::invalid("spec.versions", versions(), detail));
    }
    if let Some(first) = all.first().map(|v| string(v, "name")).filter(|name| !name.is_empty()) {
        text(first, "spec.version", grammar::dns1035_label(first), e);
    }
}

/// The parts of a version that are to be reported below `path`.
fn parts(
    version: &Value,
    path: &str,
    which: &Shared,
    status: bool,
    options: &Options,
    e: &mut Vec<FieldError>,
) {
    let nested = path != "spec";
    if which.schema && !schema_of(version).is_null() {
        let at = child(path, if nested { "schema" } else { "validation" });
        check_schema(schema_of(version), &child(&at, "openAPIV3Schema"), status, options, e);
    }
    if which.subresources {
        check_scale(&version["subresources"]["scale"], &child(path, "subresources"), e);
    }
    let columns = version["additionalPrinterColumns"].as_array().filter(|_| which.columns);
    for (i, column) in columns.into_iter().flatten().enumerate() {
        check_column(column, &index(&child(path, "additionalPrinterColumns"), i), e);
    }
    let fields = version["selectableFields"].as_array().filter(|f| which.fields && !f.is_empty());
    if let Some(fields) = fields {
        let name = string(version, "name").to_owned();
        let many = options.many_fields.contains(&name);
        check_fields(fields, schema_of(version), &child(path, "selectableFields"), many, e);
    }
}

fn check_schema(s: &Value, path: &str, status: bool, options: &Options, e: &mut Vec<FieldError>) {
    let before = e.len();
    if status {
        check_root(s, path, e);
    }
    if s["nullable"] == true {
        e.push(FieldError::forbidden(child(path, "nullable"), "nullable cannot be true at the root"));
    }
    let unsupported = keelson_schema::unsupported(s);
    if options.structural && unsupported.is_none() {
        let violations = keelson_schema::violations(s, path);
        match violations.is_empty() {
            true => defaults::check(s, path, options.pruned_defaults, e),
            false => e.extend(violations),
        }
    }
    schema::check(s, path, options, e);
    if let Some(problem) = unsupported.filter(|_| options.structural && e.len() == before) {
        e.push(FieldError::invalid(path, "", problem));
    }
}

fn check_root(s: &Value, path: &str, e: &mut Vec<FieldError>) {
    let zero = |v: &Value| crate::strategies::edit::is_zero(v);
    for (name, value) in s.as_object().into_iter().flatten().filter(|(_, v)| !zero(v)) {
        if name == "type" {
            if value != "object" {
                let detail = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
                return e.push(FieldError::invalid(child(path, "type"), value.clone(), detail));
            }
        } else if !ROOT_FIELDS.iter().any(|(json, _)| json == name) {
            let names: Vec<&str> = ROOT_FIELDS.iter().map(|(_, go)| *go).collect();
            let detail = format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                names.join(" ")
            );
            return e.push(FieldError::invalid(path, s.clone(), detail));
        }
    }
}

fn deprecation(version: &Value, path: &str, e: &mut Vec<FieldError>) {
    let Some(warning) = version["deprecationWarning"].as_str() else { return };
    let mut fail = |detail: String| {
        e.push(FieldError::invalid(child(path, "deprecationWarning"), warning, detail));
    };
    if version["deprecated"] != true {
        return fail("can only be set for deprecated versions".to_owned());
    }
    if warning.len() > 256 {
        fail("must be <= 256 characters long".to_owned());
    }
    if warning.is_empty() {
        fail("must not be an empty string".to_owned());
    }
    if let Some((at, _)) =
        warning.char_indices().find(|(_, c)| c.is_control() || c.is_whitespace() && *c != ' ')
    {
        fail(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {at}"
        ));
    }
}

/// Names as a spec asks for them or a status accepts them.
pub fn names(names: &Value, path: &str, e: &mut Vec<FieldError>) {
    for field in ["plural", "singular"] {
        let name = string(names, field);
        if !name.is_empty() {
            text(name, &child(path, field), grammar::dns1035_label(name), e);
        }
    }
    for field in ["kind", "listKind"] {
        let name = string(names, field);
        let messages = grammar::dns1035_label(&name.to_lowercase());
        if !name.is_empty() && !messages.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {}", messages.join(","));
            e.push(FieldError::invalid(child(path, field), name, detail));
        }
    }
    for (i, name) in list(&names["shortNames"]).into_iter().enumerate() {
        text(name, &index(&child(path, "shortNames"), i), grammar::dns1035_label(name), e);
    }
    let kind = string(names, "kind");
    if !kind.is_empty() && kind == string(names, "listKind") {
        e.push(FieldError::invalid(child(path, "listKind"), kind, "kind and listKind may not be the same"));
    }
    for (i, name) in list(&names["categories"]).into_iter().enumerate() {
        text(name, &index(&child(path, "categories"), i), grammar::dns1035_label(name), e);
    }
}

fn check_scale(scale: &Value, path: &str, e: &mut Vec<FieldError>) {
    if !scale.is_object() {
        return;
    }
    for (field, roots, detail) in [
        ("specReplicasPath", &[".spec."][..], "should be a json path under .spec"),
        ("statusReplicasPath", &[".status."], "should be a json path under .status"),
        ("labelSelectorPath", &[".spec.", ".status."], "should be a json path under either .spec or .status"),
    ] {
        let (value, at) = (string(scale, field), format!("{path}.scale.{field}"));
        if value.is_empty() {
            if field != "labelSelectorPath" {
                e.push(FieldError::required(at, ""));
            }
        } else if !json_path(value, &at, e) && !roots.iter().any(|r| value.starts_with(r)) {
            e.push(FieldError::invalid(at, value, detail));
        }
    }
}

/// Whether a path is none, which is then reported.
fn json_path(value: &str, at: &str, e: &mut Vec<FieldError>) -> bool {
    let bad = !value.starts_with('.');
    if bad {
        e.push(FieldError::invalid(at, value, "must be a simple json path starting with ."));
    }
    bad
}

fn check_column(column: &Value, path: &str, e: &mut Vec<FieldError>) {
    if string(column, "name").is_empty() {
        e.push(FieldError::required(child(path, "name"), ""));
    }
    let types = format!("must be one of {}", COLUMN_TYPES.join(","));
    match string(column, "type") {
        "" => e.push(FieldError::required(child(path, "type"), types)),
        other if !COLUMN_TYPES.contains(&other) => {
            e.push(FieldError::invalid(child(path, "type"), other, types));
        }
        _ => {}
    }
    let format = string(column, "format");
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        let detail = format!("must be one of {}", COLUMN_FORMATS.join(","));
        e.push(FieldError::invalid(child(path, "format"), format, detail));
    }
    match string(column, "jsonPath") {
        "" => e.push(FieldError::required(child(path, "JSONPath"), "")),
        value => drop(json_path(value, &child(path, "JSONPath"), e)),
    }
}

fn check_fields(fields: &[Value], schema: &Value, path: &str, many: bool, e: &mut Vec<FieldError>) {
    if schema.is_null() {
        return e.push(FieldError::invalid(path, "", "may only be set when validations.schema is included"));
    }
    let mut unique = HashSet::new();
    for (i, field) in fields.iter().enumerate() {
        let (value, at) = (string(field, "jsonPath"), child(&index(path, i), "jsonPath"));
        if value.is_empty() {
            e.push(FieldError::required(at, ""));
            continue;
        }
        let found = match follow(value, schema) {
            Ok(found) => found,
            Err(why) => {
                e.push(FieldError::invalid(at, value, format!("is an invalid path: {why}")));
                continue;
            }
        };
        if value.split('.').nth(1) == Some("metadata") {
            e.push(FieldError::invalid(at.as_str(), value, "must not point to fields in metadata"));
        }
        if !matches!(string(found, "type"), "string" | "boolean" | "integer") {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            e.push(FieldError::invalid(at.as_str(), value, detail));
        }
        if !unique.insert(value) {
            e.push(FieldError::duplicate(at, value));
        }
    }
    if unique.len() > MAX_SELECTABLE && !many {
        e.push(FieldError::too_many(path, unique.len(), MAX_SELECTABLE));
    }
}

/// The schema at a path of fields and map keys.
fn follow<'a>(path: &str, schema: &'a Value) -> Result<&'a Value, String> {
    if path.contains('[') {
        return Err("array notation is not allowed".to_owned());
    }
    let Some(rest) = path.strip_prefix('.') else {
        let token = path.split('.').next().unwrap_or_default();
        return Err(format!("expected [ or . but got: {token}"));
    };
    if rest.is_empty() || rest.ends_with('.') {
        return Err("unexpected end of JSON path".to_owned());
    }
    let unknown = || "does not refer to a valid field".to_owned();
    rest.split('.').try_fold(schema, |schema, name| {
        match (schema.get("properties"), schema.get("additionalProperties")) {
            (Some(properties), _) => properties.get(name).ok_or_else(unknown),
            (None, Some(values)) if values.is_object() => Ok(values),
            _ => Err(unknown()),
        }
    })
}

/// Objects may be stored in any of these versions: none may vanish.
pub fn stored_versions(definition: &Value, e: &mut Vec<FieldError>) {
    let (path, stored) = ("status.storedVersions", &definition["status"]["storedVersions"]);
    let names = list(stored);
    if names.is_empty() {
        let detail = "must have at least one stored version";
        return e.push(FieldError::invalid(path, stored.clone(), detail));
    }
    let all = versions(&definition["spec"]);
    for name in all.iter().filter(|v| v["storage"] == true).map(|v| string(v, "name")) {
        if !names.contains(&name) {
            let detail = format!("must have the storage version {name}");
            e.push(FieldError::invalid(path, stored.clone(), detail));
        }
    }
    for (i, name) in names.iter().enumerate().filter(|(_, n)| !all.iter().any(|v| string(v, "name") == **n)) {
        let detail = format!(
            "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
        );
        e.push(FieldError::invalid(index(path, i), *name, detail));
    }
}

/// The project's own groups need an approval; one that has not changed is not asked for again.
pub fn approved(definition: &Value, old: Option<&Value>, e: &mut Vec<FieldError>) {
    let Some((state, reason)) = approval(definition) else { return };
    if old.and_then(approval).is_some_and(|(before, _)| before == state) {
        return;
    }
    let path = "metadata.annotations[api-approved.kubernetes.io]";
    match state {
        Approval::Missing => e.push(FieldError::required(path, reason)),
        Approval::Invalid => {
            let text = meta::annotation(definition, "api-approved.kubernetes.io").unwrap_or_default();
            e.push(FieldError::invalid(path, text, reason));
        }
        Approval::Approved | Approval::Bypassed => {}
    }
}

fn versions(spec: &Value) -> &[Value] {
    spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn schema_of(version: &Value) -> &Value {
    &version["schema"]["openAPIV3Schema"]
}

fn has_status(version: &Value) -> bool {
    !version["subresources"]["status"].is_null()
}

pub(super) fn list(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn text(value: &str, path: &str, messages: Vec<String>, e: &mut Vec<FieldError>) {
    if !messages.is_empty() {
        e.push(FieldError::invalid(path, value, messages.join(",")));
    }
}
