//! Custom resources: what a CustomResourceDefinition adds to the table of resources, and the strategy that
//! its schema makes.

mod strategy;
mod versions;
mod webhook;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::meta::{string, text};
use crate::metrics::ConversionMetrics;
use keelson_api_types::gvk::api_version;
use keelson_api_types::{Gvk, Gvr};
use keelson_machinery::Rules;
use keelson_machinery::openapi::CrdSchema;
use keelson_schema::{Link, Object, Shape, Type, from_json_schema};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::cache::{Caches, Index, Json};
use crate::convert::Conversion;
use crate::discovery::version_rank;
use crate::registry::{Resource, StrategyRef, Subresource};
use crate::strategies::Traits;
use strategy::CustomStrategy;
pub use strategy::embedded_errors;
pub use versions::{Version, Versions, failed};
use webhook::Webhook;

const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
/// What discovery shows of a definition that is being deleted.
const LAST_VERBS: [&str; 5] = ["delete", "deletecollection", "get", "list", "watch"];

/// A version of a definition.
pub struct Custom {
    /// Tells this row from those of other versions and of earlier states of the definition.
    pub id: u64,
    columns: Vec<Value>,
    scale: Option<ScalePaths>,
    pub versions: Arc<Versions>,
    /// Names the storage version in discovery.
    pub stored_version: String,
    /// What clients of a deprecated version are told.
    pub deprecation: Option<String>,
    /// For the OpenAPI documents.
    pub schema: Arc<CrdSchema>,
    /// How the bytes of objects in this version begin.
    head: String,
}

/// Where a custom resource keeps its replicas, as written and as JSON pointers.
#[derive(Debug, Clone)]
pub struct ScalePaths {
    pub spec: String,
    pub status: String,
    pub selector: Option<String>,
}

impl Custom {
    /// `additionalPrinterColumns`, as written.
    pub fn columns(&self) -> &[Value] {
        &self.columns
    }

    pub fn scale(&self) -> Option<&ScalePaths> {
        self.scale.as_ref()
    }

    /// Whether an object, given by its canonical bytes, is in this version.
    pub fn is_own(&self, object: &Json) -> bool {
        object.starts_with(self.head.as_bytes())
    }

    pub fn is_terminating(&self) -> bool {
        self.versions.terminating.load(Ordering::Relaxed)
    }

    /// The verbs that discovery shows.
    pub fn verbs(&self) -> &'static [&'static str] {
        if self.is_terminating() { &LAST_VERBS } else { &VERBS }
    }
}

/// The names of a definition.
pub struct Names<'a>(pub &'a Value);

impl<'a> Names<'a> {
    pub fn kind(&self) -> &'a str {
        string(self.0, "kind")
    }

    pub fn plural(&self) -> &'a str {
        string(self.0, "plural")
    }

    pub fn singular(&self) -> Cow<'a, str> {
        match string(self.0, "singular") {
            "" => self.kind().to_lowercase().into(),
            given => given.into(),
        }
    }

    pub fn list_kind(&self) -> Cow<'a, str> {
        match string(self.0, "listKind") {
            "" => format!("{}List", self.kind()).into(),
            given => given.into(),
        }
    }

    pub fn list(&self, field: &str) -> Vec<String> {
        strings(&self.0[field])
    }
}

/// A definition as it is served: rows for its served versions, and one in which its objects are deleted.
pub struct Served {
    pub rows: Vec<Arc<Resource>>,
    /// Of the storage version, served or not.
    pub storage: Option<Arc<Resource>>,
    pub versions: Arc<Versions>,
}

/// Makes the rows of a definition under its accepted names. Its objects' cache is read anew.
pub fn serve(definition: &Value, names: &Value, caches: &Caches, conversions: &ConversionMetrics) -> Served {
    let spec = &definition["spec"];
    let all = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let versions = versions(spec, Names(names).kind(), all);
    let webhook = webhook(definition, conversions);
    let versions = Arc::new(Versions { webhook, ..versions });
    let storage = storage_of(definition);
    let index = Index::new(versions.clone());
    caches.set_index(&storage, index.clone());
    let stored = all.iter().find(|v| v["storage"] == Value::Bool(true));
    let part = Part {
        spec,
        names: Names(names),
        versions: &versions,
        index: &index,
        storage: &storage,
        stored_version: stored.map(|v| string(v, "name")).unwrap_or_default(),
    };
    let rows: Vec<Arc<Resource>> = all
        .iter()
        .filter(|v| v["served"] == Value::Bool(true) || v["storage"] == Value::Bool(true))
        .map(|version| Arc::new(resource(&part, version, caches)))
        .collect();
    let storage = rows.iter().find(|r| r.gvr.version == part.stored_version).cloned();
    let is_served = |row: &Arc<Resource>| {
        all.iter().any(|v| string(v, "name") == row.gvr.version && v["served"] == Value::Bool(true))
    };
    Served { rows: rows.into_iter().filter(is_served).collect(), storage, versions }
}

fn versions(spec: &Value, kind: &str, all: &[Value]) -> Versions {
    let group = string(spec, "group");
    let mut stored = String::new();
    let mut types = HashMap::new();
    for version in all {
        let name = api_version(group, string(version, "name"));
        let selectable = selectable_fields(version).map(pointer).collect();
        let ty = Link::Owned(Arc::new(type_of(spec, version)));
        if version["storage"] == Value::Bool(true) {
            stored = name.clone();
        }
        let replicas = scale_paths(&version["subresources"]["scale"]).map(|paths| paths.spec);
        types.insert(name, Version { ty, selectable, replicas });
    }
    Versions {
        kind: kind.to_owned(),
        types,
        stored,
        webhook: None,
        closed: CancellationToken::new(),
        terminating: AtomicBool::new(false),
    }
}

fn webhook(definition: &Value, metrics: &ConversionMetrics) -> Option<Webhook> {
    let conversion = &definition["spec"]["conversion"];
    (string(conversion, "strategy") == "Webhook").then(|| Webhook {
        config: conversion["webhook"]["clientConfig"].clone(),
        review_versions: strings(&conversion["webhook"]["conversionReviewVersions"]),
        crd: text(definition, "name").to_owned(),
        metrics: metrics.clone(),
    })
}

/// Where a definition's objects lie.
pub fn storage_of(definition: &Value) -> String {
    format!("{}/{}", string(&definition["spec"], "group"), string(&definition["spec"]["names"], "plural"))
}

struct Part<'a> {
    spec: &'a Value,
    names: Names<'a>,
    versions: &'a Arc<Versions>,
    index: &'a Arc<Index>,
    storage: &'a str,
    stored_version: &'a str,
}

fn resource(part: &Part<'_>, version: &Value, caches: &Caches) -> Resource {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let names = &part.names;
    let group = string(part.spec, "group");
    let name = string(version, "name");
    let served = api_version(group, name);
    let gvk = Gvk::new(group, name, names.kind());
    let namespaced = string(part.spec, "scope") == "Namespaced";
    let subresources = subresources(version, &gvk);
    let has = |name: &str| subresources.iter().any(|s| s.name == name);
    let has_status = has("status");
    let known = part.versions.types.get(&served);
    let ty = known.map_or_else(|| Link::Owned(Arc::new(anything())), |v| v.ty.clone());
    let scale = scale_paths(&version["subresources"]["scale"]);
    let strategy = CustomStrategy {
        ty: ty.clone(),
        scale: version["subresources"]["scale"].clone(),
        rules: Rules::compile(&version["schema"]["openAPIV3Schema"]),
    };
    let schema = CrdSchema {
        group: group.to_owned(),
        version: name.to_owned(),
        kind: names.kind().to_owned(),
        list_kind: names.list_kind().into_owned(),
        plural: names.plural().to_owned(),
        namespaced,
        schema: version["schema"]["openAPIV3Schema"].clone(),
        has_status,
        has_scale: has("scale"),
        selectable: selectable_fields(version).map(field_name).collect(),
        ..CrdSchema::default()
    };
    Resource {
        gvr: Gvr::new(group, name, names.plural()),
        list_kind: names.list_kind().into_owned(),
        singular: names.singular().into_owned(),
        namespaced,
        verbs: VERBS.map(str::to_owned).to_vec(),
        short_names: names.list("shortNames"),
        categories: names.list("categories"),
        subresources,
        strategy: StrategyRef::Custom(Arc::new(strategy)),
        traits: Traits::custom(has_status),
        ty,
        storage: part.storage.into(),
        cache: caches.cache(part.storage),
        conversion: Conversion::Identity,
        selectable: selectable_fields(version).map(field_name).collect(),
        index: part.index.clone(),
        custom: Some(Arc::new(Custom {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            columns: version["additionalPrinterColumns"].as_array().cloned().unwrap_or_default(),
            scale,
            versions: part.versions.clone(),
            stored_version: part.stored_version.to_owned(),
            deprecation: deprecation(part.spec, version, names.kind()),
            schema: Arc::new(schema),
            head: format!("{{\"apiVersion\":\"{served}\","),
        })),
        gvk,
    }
}

/// The warning of a deprecated version; without one of its own it names the best version to go to.
fn deprecation(spec: &Value, version: &Value, kind: &str) -> Option<String> {
    if version["deprecated"] != Value::Bool(true) {
        return None;
    }
    if let Some(own) = version["deprecationWarning"].as_str() {
        return Some(own.to_owned());
    }
    let (group, name) = (string(spec, "group"), string(version, "name"));
    let better = spec["versions"].as_array().into_iter().flatten().filter(|v| {
        v["served"] == Value::Bool(true)
            && v["deprecated"] != Value::Bool(true)
            && version_rank(string(v, "name")) < version_rank(name)
    });
    let best = better.map(|v| string(v, "name")).min_by_key(|name| version_rank(name));
    let instead = best.map(|best| format!("; use {group}/{best} {kind}")).unwrap_or_default();
    Some(format!("{group}/{name} {kind} is deprecated{instead}"))
}

fn subresources(version: &Value, gvk: &Gvk) -> Vec<Subresource> {
    let verbs = || ["get", "patch", "update"].map(str::to_owned).to_vec();
    let declared = &version["subresources"];
    let mut all = Vec::new();
    if !declared["status"].is_null() {
        all.push(Subresource { name: "status".into(), gvk: gvk.clone(), verbs: verbs() });
    }
    if !declared["scale"].is_null() {
        all.push(Subresource {
            name: "scale".into(),
            gvk: Gvk::new("autoscaling", "v1", "Scale"),
            verbs: verbs(),
        });
    }
    all
}

fn scale_paths(scale: &Value) -> Option<ScalePaths> {
    if scale.is_null() {
        return None;
    }
    let path = |field| pointer(string(scale, field));
    Some(ScalePaths {
        spec: path("specReplicasPath"),
        status: path("statusReplicasPath"),
        selector: scale.get("labelSelectorPath").and_then(Value::as_str).map(pointer),
    })
}

/// `.spec.replicas` as a JSON pointer.
fn pointer(path: &str) -> String {
    path.replace('.', "/")
}

fn selectable_fields(version: &Value) -> impl Iterator<Item = &str> {
    version["selectableFields"].as_array().into_iter().flatten().map(|f| string(f, "jsonPath"))
}

/// `.spec.color` as a field selector names it.
fn field_name(path: &str) -> String {
    path.trim_start_matches('.').to_owned()
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The type of a version; what has no usable schema keeps all of its fields.
fn type_of(spec: &Value, version: &Value) -> Type {
    let schema = &version["schema"]["openAPIV3Schema"];
    if schema.is_null() || spec["preserveUnknownFields"] == Value::Bool(true) {
        return anything();
    }
    from_json_schema(schema)
        .inspect_err(|error| tracing::warn!(%error, "the schema of a definition is not structural"))
        .unwrap_or_else(|_| anything())
}

fn anything() -> Type {
    from_json_schema(&serde_json::json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}))
        .unwrap_or_else(|_| Type::new(Shape::Object(Object::default())))
}
