//! Paths and operations of a resource.

use super::root_path;
use super::schemas::{PATCH, Refs, Style};
use keelson_api_types::resources::ResourceInfo;
use keelson_schema::{builtin, full_name};
use serde_json::{Map, Value, json};

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const OBJECT_TYPES: [&str; 3] =
    ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const WATCH_TYPES: [&str; 2] =
    ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

type Parameter = (&'static str, &'static str);
const LIST: [Parameter; 10] = [
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const WRITE: [Parameter; 3] =
    [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const FORCE: Parameter = ("force", "boolean");
const DELETE: [Parameter; 5] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

/// One resource with its subresources, built in or custom.
pub(super) struct PathItem {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) plural: String,
    pub(super) kind: Kind,
    /// Definition of the list kind.
    pub(super) list: String,
    pub(super) namespaced: bool,
    pub(super) verbs: Vec<String>,
    /// Name, kind and verbs of each subresource.
    pub(super) subresources: Vec<(String, Kind, Vec<String>)>,
    pub(super) custom: bool,
}

/// A kind and the definition of its schema; empty for kinds that are no objects (exec options).
#[derive(Clone)]
pub(super) struct Kind {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) kind: String,
    pub(super) definition: String,
}

pub(super) struct Operations {
    pub(super) style: Style,
}

/// One operation's ingredients.
struct Call<'a> {
    action: &'a str,
    id: String,
    kind: &'a Kind,
    /// Definition of the answer; empty for text and streams.
    answer: &'a str,
    codes: &'a [u16],
    body: Option<&'a str>,
    parameters: Vec<Parameter>,
    custom: bool,
}

impl Kind {
    pub(super) fn builtin(group: &str, version: &str, kind: &str) -> Kind {
        let definition = builtin().definition_for_kind(group, version, kind);
        Kind {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            definition: definition.map(|d| full_name(d.name)).unwrap_or_default(),
        }
    }
}

impl PathItem {
    pub(super) fn builtin(r: &'static ResourceInfo) -> PathItem {
        let owned = |verbs: &[&str]| verbs.iter().map(|v| (*v).to_owned()).collect();
        let list = Kind::builtin(r.group, r.version, &format!("{}List", r.kind));
        let sub = |s: &keelson_api_types::resources::SubresourceInfo| {
            (s.name.to_owned(), Kind::builtin(s.group, s.version, s.kind), owned(&s.verbs))
        };
        PathItem {
            group: r.group.to_owned(),
            version: r.version.to_owned(),
            plural: r.resource.to_owned(),
            kind: Kind::builtin(r.group, r.version, r.kind),
            list: list.definition,
            namespaced: r.namespaced,
            verbs: owned(&r.verbs),
            subresources: r.subresources.iter().map(sub).collect(),
            custom: false,
        }
    }

    fn has(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// Every path of the resource with its operations.
    pub(super) fn paths(&self, ops: &Operations, refs: &mut Refs) -> Vec<(String, Value)> {
        let root = root_path(&self.group, &self.version);
        let middle = if self.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("{root}{middle}/{}", self.plural);
        let mut out = Vec::new();
        let operations = self.collection(ops, refs);
        if !operations.is_empty() {
            out.push((collection.clone(), ops.path(operations, self.namespaced, false)));
        }
        if self.namespaced && self.has("list") {
            let call = self.list_call("ForAllNamespaces", false);
            let operations = vec![("get", ops.operation(self, call, refs))];
            out.push((format!("{root}/{}", self.plural), ops.path(operations, false, false)));
        }
        let operations = self.item(ops, refs);
        if !operations.is_empty() {
            out.push((format!("{collection}/{{name}}"), ops.path(operations, self.namespaced, true)));
        }
        for (name, kind, verbs) in &self.subresources {
            let operations = self.subresource(name, kind, verbs, ops, refs);
            let path = format!("{collection}/{{name}}/{name}");
            out.push((path, ops.path(operations, self.namespaced, true)));
        }
        out
    }

    fn collection(&self, ops: &Operations, refs: &mut Refs) -> Vec<(&'static str, Value)> {
        let mut out = Vec::new();
        if self.has("list") {
            out.push(("get", ops.operation(self, self.list_call("", self.namespaced), refs)));
        }
        if self.has("create") {
            let call = self.call("post", "create", &self.kind, "", &[200, 201, 202], WRITE.to_vec());
            let call = Call { body: Some(&self.kind.definition), ..call };
            out.push(("post", ops.operation(self, call, refs)));
        }
        if self.has("deletecollection") {
            let parameters = DELETE.iter().chain(&LIST[1..8]).copied().collect();
            let mut call =
                self.call("deletecollection", "deleteCollection", &self.kind, "", &[200], parameters);
            call.answer = STATUS;
            call.body = Some(DELETE_OPTIONS);
            out.push(("delete", ops.operation(self, call, refs)));
        }
        out
    }

    fn item(&self, ops: &Operations, refs: &mut Refs) -> Vec<(&'static str, Value)> {
        let mut out = Vec::new();
        let kind = &self.kind;
        if self.has("get") {
            out.push((
                "get",
                ops.operation(self, self.call("get", "read", kind, "", &[200], Vec::new()), refs),
            ));
        }
        if self.has("update") {
            let call = self.call("put", "replace", kind, "", &[200, 201], WRITE.to_vec());
            out.push(("put", ops.operation(self, Call { body: Some(&kind.definition), ..call }, refs)));
        }
        if self.has("patch") {
            out.push(("patch", ops.operation(self, self.patch_call(kind, ""), refs)));
        }
        if self.has("delete") {
            let mut call = self.call("delete", "delete", kind, "", &[200, 202], DELETE.to_vec());
            call.answer = STATUS;
            call.body = Some(DELETE_OPTIONS);
            out.push(("delete", ops.operation(self, call, refs)));
        }
        out
    }

    fn subresource(
        &self,
        name: &str,
        kind: &Kind,
        verbs: &[String],
        ops: &Operations,
        refs: &mut Refs,
    ) -> Vec<(&'static str, Value)> {
        let suffix = pascal(name);
        let connect = matches!(name, "exec" | "attach" | "portforward" | "proxy");
        let mut out = Vec::new();
        for verb in verbs {
            let (method, action, prefix, codes): (&str, &str, &str, &[u16]) = match verb.as_str() {
                "get" => ("get", "get", "read", &[200]),
                "create" => ("post", "post", "create", &[200, 201, 202]),
                "update" => ("put", "put", "replace", &[200, 201]),
                "patch" => ("patch", "patch", "patch", &[200, 201]),
                "delete" => ("delete", "delete", "delete", &[200]),
                _ => continue,
            };
            let call = match method {
                "patch" if !connect => self.patch_call(kind, &suffix),
                _ => {
                    let writes = !connect && matches!(method, "post" | "put");
                    let parameters = if writes { WRITE.to_vec() } else { Vec::new() };
                    let mut call = self.call(action, prefix, kind, &suffix, codes, parameters);
                    call.body = writes.then_some(kind.definition.as_str());
                    if connect {
                        call.action = "connect";
                        call.id = call.id.replacen(prefix, &format!("connect{}", pascal(method)), 1);
                    }
                    if name == "log" {
                        call.answer = "";
                    }
                    call
                }
            };
            out.push((method, ops.operation(self, call, refs)));
        }
        out
    }

    fn list_call(&self, suffix: &str, scoped: bool) -> Call<'_> {
        let mut call = self.call("list", "list", &self.kind, suffix, &[200], LIST.to_vec());
        call.answer = &self.list;
        if self.namespaced && !scoped {
            call.id = call.id.replacen("Namespaced", "", 1);
        }
        call
    }

    fn patch_call<'a>(&'a self, kind: &'a Kind, suffix: &str) -> Call<'a> {
        let parameters = WRITE.into_iter().chain([FORCE]).collect();
        let call = self.call("patch", "patch", kind, suffix, &[200, 201], parameters);
        Call { body: Some(PATCH), ..call }
    }

    fn call<'a>(
        &'a self,
        action: &'a str,
        prefix: &str,
        kind: &'a Kind,
        suffix: &str,
        codes: &'a [u16],
        parameters: Vec<Parameter>,
    ) -> Call<'a> {
        let group = if self.group.is_empty() { "Core".to_owned() } else { pascal(short_group(&self.group)) };
        let scope = if self.namespaced { "Namespaced" } else { "" };
        let id = format!("{prefix}{group}{}{scope}{}{suffix}", pascal(&self.version), self.kind.kind);
        Call {
            action,
            id,
            kind,
            answer: &kind.definition,
            codes,
            body: None,
            parameters,
            custom: self.custom,
        }
    }
}

impl Operations {
    fn operation(&self, item: &PathItem, call: Call<'_>, refs: &mut Refs) -> Value {
        let mut out = Map::new();
        let group = if item.group.is_empty() { "core" } else { short_group(&item.group) };
        out.insert("tags".to_owned(), json!([format!("{}_{}", group.replace('.', "_"), item.version)]));
        out.insert("operationId".to_owned(), json!(call.id));
        let mut parameters: Vec<Value> =
            call.parameters.iter().map(|(name, kind)| self.parameter("query", name, kind, false)).collect();
        let body = call.body.filter(|b| !b.is_empty());
        let consumes: Vec<&str> = match (call.action, call.custom) {
            // A custom resource has no strategic merge.
            ("patch", true) => PATCH_TYPES.into_iter().filter(|t| !t.contains("strategic")).collect(),
            ("patch", false) => PATCH_TYPES.to_vec(),
            _ => vec!["*/*"],
        };
        if let Some(body) = body {
            let schema = self.style.reference(body, refs);
            let required = body != DELETE_OPTIONS;
            match self.style {
                Style::V2 => {
                    parameters
                        .push(json!({"in": "body", "name": "body", "required": required, "schema": schema}));
                }
                Style::V3 => {
                    let content = content(&consumes, &schema);
                    out.insert("requestBody".to_owned(), json!({"content": content, "required": required}));
                }
            }
        }
        if self.style == Style::V2 {
            out.insert("consumes".to_owned(), json!(consumes));
            out.insert("produces".to_owned(), json!(produces(&call)));
            out.insert("schemes".to_owned(), json!(["https"]));
        }
        if !parameters.is_empty() {
            out.insert("parameters".to_owned(), Value::Array(parameters));
        }
        out.insert("responses".to_owned(), self.responses(&call, refs));
        out.insert("x-kubernetes-action".to_owned(), json!(call.action));
        let k = call.kind;
        let gvk = json!({"group": k.group, "version": k.version, "kind": k.kind});
        out.insert("x-kubernetes-group-version-kind".to_owned(), gvk);
        Value::Object(out)
    }

    fn responses(&self, call: &Call<'_>, refs: &mut Refs) -> Value {
        let mut out = Map::new();
        for code in call.codes {
            let text = match code {
                201 => "Created",
                202 => "Accepted",
                _ => "OK",
            };
            let mut response = json!({"description": text});
            let schema = match call.answer {
                "" => json!({"type": "string"}),
                name => self.style.reference(name, refs),
            };
            match self.style {
                Style::V2 => response["schema"] = schema,
                Style::V3 => response["content"] = content(&produces(call), &schema),
            }
            out.insert(code.to_string(), response);
        }
        out.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        Value::Object(out)
    }

    fn path(&self, operations: Vec<(&'static str, Value)>, namespaced: bool, named: bool) -> Value {
        let mut out = Map::new();
        let mut parameters = Vec::new();
        for (present, name) in [(named, "name"), (namespaced, "namespace")] {
            if present {
                parameters.push(self.parameter("path", name, "string", true));
            }
        }
        parameters.push(self.parameter("query", "pretty", "string", false));
        out.insert("parameters".to_owned(), Value::Array(parameters));
        for (method, operation) in operations {
            out.insert(method.to_owned(), operation);
        }
        Value::Object(out)
    }

    fn parameter(&self, place: &str, name: &str, kind: &str, required: bool) -> Value {
        let mut out = match self.style {
            Style::V2 => json!({"in": place, "name": name, "type": kind, "uniqueItems": true}),
            Style::V3 => json!({"in": place, "name": name, "schema": {"type": kind, "uniqueItems": true}}),
        };
        if required {
            out["required"] = json!(true);
        }
        out
    }
}

fn produces(call: &Call<'_>) -> Vec<&'static str> {
    match call.action {
        "connect" => vec!["*/*"],
        _ if call.answer.is_empty() => vec!["text/plain"],
        "list" => OBJECT_TYPES.into_iter().chain(WATCH_TYPES).collect(),
        _ if call.custom => OBJECT_TYPES[..2].to_vec(),
        _ => OBJECT_TYPES.to_vec(),
    }
}

fn content(types: &[&str], schema: &Value) -> Value {
    Value::Object(types.iter().map(|t| ((*t).to_owned(), json!({"schema": schema}))).collect())
}

/// Upstream leaves the common domain out of names: `rbac.authorization.k8s.io` → `rbac.authorization`.
fn short_group(group: &str) -> &str {
    group.strip_suffix(".k8s.io").unwrap_or(group)
}

fn pascal(text: &str) -> String {
    let capital = |part: &str| {
        let mut chars = part.chars();
        chars.next().map(|c| c.to_uppercase().chain(chars).collect::<String>()).unwrap_or_default()
    };
    text.split(['.', '-']).map(capital).collect()
}
