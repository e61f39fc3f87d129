//! Custom resources: what a CustomResourceDefinition adds to the table of resources, and the strategy that
//! its schema makes.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use crate::meta::string;
use keelson_api_types::{FieldError, Gvk, Gvr};
use keelson_machinery::openapi::CrdSchema;
use keelson_machinery::{prune, validate_schema};
use keelson_schema::{Link, Object, Shape, Type, from_json_schema};
use serde_json::Value;

use crate::cache::{Caches, Index, Indexer};
use crate::convert::Conversion;
use crate::registry::{Resource, StrategyRef, Subresource};
use crate::strategies::{Ctx, Strategy, Traits, keep_only};

const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

/// A served version of a definition.
#[derive(Debug)]
pub struct Custom {
    columns: Vec<Value>,
    scale: Option<ScalePaths>,
    /// The schema of the stored version.
    pub stored_type: Link,
    /// For the OpenAPI documents.
    pub schema: CrdSchema,
}

/// Where a custom resource keeps its replicas: JSON pointers.
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

    pub fn scale(&self) -> Option<ScalePaths> {
        self.scale.clone()
    }
}

/// The names of a definition.
pub struct Names<'a>(pub &'a Value);

impl<'a> Names<'a> {
    pub fn of(definition: &'a Value) -> Self {
        Self(&definition["spec"]["names"])
    }

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
        let all = self.0.get(field).and_then(Value::as_array).into_iter().flatten();
        all.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// All names in the group that no other definition may have, kinds and resources apart.
    pub fn claims(&self) -> (HashSet<String>, HashSet<String>) {
        let mut resources: HashSet<String> = self.list("shortNames").into_iter().collect();
        resources.extend([self.plural().to_owned(), self.singular().into_owned()]);
        (resources, HashSet::from([self.kind().to_owned(), self.list_kind().into_owned()]))
    }
}

/// The served versions of a definition as resources.
pub fn resources(definition: &Value, caches: &Caches) -> Vec<Resource> {
    let spec = &definition["spec"];
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(stored) = versions.iter().find(|v| v["storage"] == Value::Bool(true)) else { return Vec::new() };
    let stored_type = Link::Owned(Arc::new(type_of(spec, stored)));
    let storage = storage_of(definition);
    let selectable = selectable_fields(stored);
    let pointers = selectable.iter().map(|path| pointer(path)).collect();
    let names: Vec<String> = selectable.iter().map(|p| p.trim_start_matches('.').to_owned()).collect();
    let index = Index::new(Arc::new(FieldIndexer { pointers, names: names.clone() }));
    caches.set_index(&storage, index.clone());
    let served = versions.iter().filter(|v| v["served"] == Value::Bool(true));
    let one = |version| {
        let part = Part { spec, version, stored, stored_type: &stored_type };
        resource(&part, caches, &storage, &index, &names)
    };
    served.map(one).collect()
}

/// Where a definition's objects lie.
pub fn storage_of(definition: &Value) -> String {
    format!("{}/{}", string(&definition["spec"], "group"), Names::of(definition).plural())
}

struct Part<'a> {
    spec: &'a Value,
    version: &'a Value,
    stored: &'a Value,
    stored_type: &'a Link,
}

fn resource(
    part: &Part<'_>,
    caches: &Caches,
    storage: &str,
    index: &Arc<Index>,
    selectable: &[String],
) -> Resource {
    let names = Names(&part.spec["names"]);
    let group = string(part.spec, "group");
    let version = string(part.version, "name");
    let stored_version = string(part.stored, "name");
    let is_stored = version == stored_version;
    let ty = if is_stored {
        part.stored_type.clone()
    } else {
        Link::Owned(Arc::new(type_of(part.spec, part.version)))
    };
    let gvk = Gvk::new(group, version, names.kind());
    let namespaced = string(part.spec, "scope") == "Namespaced";
    let subresources = subresources(part.version, &gvk);
    let has = |name: &str| subresources.iter().any(|s| s.name == name);
    let conversion = match is_stored {
        true => Conversion::Identity,
        false => Conversion::Rename {
            served: keelson_api_types::gvk::api_version(group, version),
            stored: keelson_api_types::gvk::api_version(group, stored_version),
        },
    };
    let strategy = CustomStrategy { ty: part.stored_type.clone() };
    let schema = CrdSchema {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: names.kind().to_owned(),
        list_kind: names.list_kind().into_owned(),
        plural: names.plural().to_owned(),
        namespaced,
        schema: part.version["schema"]["openAPIV3Schema"].clone(),
        has_status: has("status"),
        has_scale: has("scale"),
    };
    Resource {
        gvr: Gvr::new(group, version, names.plural()),
        list_kind: names.list_kind().into_owned(),
        singular: names.singular().into_owned(),
        namespaced,
        verbs: VERBS.map(str::to_owned).to_vec(),
        short_names: names.list("shortNames"),
        categories: names.list("categories"),
        subresources,
        strategy: StrategyRef::Custom(Arc::new(strategy)),
        traits: Traits::custom(!part.stored["subresources"]["status"].is_null()),
        ty,
        storage: storage.into(),
        cache: caches.cache(storage),
        conversion,
        selectable: selectable.to_vec(),
        index: index.clone(),
        custom: Some(Arc::new(Custom {
            columns: part.version["additionalPrinterColumns"].as_array().cloned().unwrap_or_default(),
            scale: scale_paths(&part.version["subresources"]["scale"]),
            stored_type: part.stored_type.clone(),
            schema,
        })),
        gvk,
    }
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

fn selectable_fields(version: &Value) -> Vec<String> {
    let fields = version["selectableFields"].as_array().into_iter().flatten();
    fields.map(|f| string(f, "jsonPath").to_owned()).collect()
}

/// The type of a version; what has no usable schema keeps all of its fields.
fn type_of(spec: &Value, version: &Value) -> Type {
    let schema = &version["schema"]["openAPIV3Schema"];
    let parsed = match schema.is_null() || spec["preserveUnknownFields"] == Value::Bool(true) {
        true => None,
        false => from_json_schema(schema)
            .inspect_err(|error| tracing::warn!(%error, "the schema of a definition is not structural"))
            .ok(),
    };
    let anything = || {
        from_json_schema(&serde_json::json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}))
            .ok()
    };
    parsed.or_else(anything).unwrap_or_else(|| Type::new(Shape::Object(Object::default())))
}

struct FieldIndexer {
    pointers: Vec<String>,
    names: Vec<String>,
}

impl Indexer for FieldIndexer {
    fn fields(&self, object: &Value) -> Box<[Box<str>]> {
        let text = |pointer: &String| match object.pointer(pointer) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        self.pointers.iter().map(|p| text(p).into()).collect()
    }

    fn sources(&self) -> Vec<String> {
        self.names.clone()
    }
}

/// What a schema says, as a strategy.
struct CustomStrategy {
    ty: Link,
}

impl Strategy for CustomStrategy {
    fn default(&self, object: &mut Value) {
        prune::default(&self.ty, object);
    }

    fn prepare_status_update(&self, _ctx: &Ctx<'_>, object: &mut Value, old: &Value) {
        keep_only(object, old, &["status"]);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        validate_schema(&self.ty, object)
    }

    fn validate_status_update(&self, object: &Value, _old: &Value) -> Vec<FieldError> {
        validate_schema(&self.ty, object)
    }
}
