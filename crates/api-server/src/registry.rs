//! The table of what this server serves: a row per group, version and resource, built-in or custom.

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;
use keelson_api_types::resources::{self, ResourceInfo};
use keelson_api_types::{GroupKind, GroupResource, Gvk, Gvr};
use keelson_schema::Link;
use serde_json::Value;

use crate::cache::{Caches, Index, Indexer, PREFIX, ResourceCache, Texts};
use crate::convert::Conversion;
use crate::custom::Custom;
use crate::runtime_config::RuntimeConfig;
use crate::strategies::{self, Strategy, Traits};

/// One resource in one version.
pub struct Resource {
    pub gvr: Gvr,
    pub gvk: Gvk,
    pub list_kind: String,
    pub singular: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub subresources: Vec<Subresource>,
    pub strategy: StrategyRef,
    pub traits: Traits,
    /// The schema of this version.
    pub ty: Link,
    /// Where its objects lie: `pods`, `stable.example.com/crontabs`.
    pub storage: Arc<str>,
    pub cache: Arc<ResourceCache>,
    /// Between this version and the one that is stored.
    pub conversion: Conversion,
    /// Fields beyond metadata's that select.
    pub selectable: Vec<String>,
    /// Reads those fields.
    pub index: Arc<Index>,
    pub custom: Option<Arc<Custom>>,
}

#[derive(Debug, Clone)]
pub struct Subresource {
    pub name: String,
    pub gvk: Gvk,
    pub verbs: Vec<String>,
}

/// Built-in strategies live forever, those of custom resources as long as their definition.
#[derive(Clone)]
pub enum StrategyRef {
    Builtin(&'static dyn Strategy),
    Custom(Arc<dyn Strategy>),
}

impl Deref for StrategyRef {
    type Target = dyn Strategy;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Builtin(strategy) => *strategy,
            Self::Custom(strategy) => &**strategy,
        }
    }
}

impl Indexer for StrategyRef {
    fn fields(&self, object: &Value) -> Texts {
        let values = self.selectable_fields(object);
        let value_of = |name: &str| values.iter().find(|(n, _)| *n == name).map_or("", |(_, v)| v);
        self.selectable_names().iter().map(|name| value_of(name)).collect()
    }

    fn sources(&self) -> Vec<String> {
        self.selectable_sources().iter().map(|path| (*path).to_owned()).collect()
    }
}

impl Resource {
    pub fn group_resource(&self) -> GroupResource {
        self.gvr.group_resource()
    }

    pub fn group_kind(&self) -> GroupKind {
        self.gvk.group_kind()
    }

    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Whether objects of it are kept; the others are computed on create.
    pub fn is_stored(&self) -> bool {
        self.has_verb("get") && self.has_verb("create")
    }

    /// The `apiVersion` of stored objects.
    pub fn stored_api_version(&self) -> String {
        self.conversion.stored_api_version(&self.gvr.api_version()).to_owned()
    }

    /// The schema of stored objects.
    pub fn stored_type(&self) -> &keelson_schema::Type {
        let builtin = |group, version| keelson_schema::builtin().for_kind(group, version, &self.gvk.kind);
        let other = match self.conversion {
            Conversion::Events => builtin("", "v1"),
            Conversion::Autoscaling => builtin("autoscaling", "v2"),
            _ => None,
        };
        other.unwrap_or(&self.ty)
    }

    /// The cache's key of an object.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced { format!("{namespace}/{name}") } else { name.to_owned() }
    }

    /// By which it is found: few resources share their first part.
    fn place(&self) -> (&str, &str, &str) {
        (&self.gvr.resource, &self.gvr.group, &self.gvr.version)
    }

    /// The store's key of an object.
    pub fn store_key(&self, namespace: &str, name: &str) -> String {
        format!("{PREFIX}{}/{}", self.storage, self.key(namespace, name))
    }

    /// The prefix of all of the resource's keys in the store.
    pub fn store_prefix(&self) -> String {
        format!("{PREFIX}{}/", self.storage)
    }
}

/// All resources. Readers see one consistent table; definitions that come and go swap it.
pub struct Registry {
    served: Vec<&'static ResourceInfo>,
    builtin: Vec<Arc<Resource>>,
    table: ArcSwap<Tables>,
}

#[derive(Default)]
struct Tables {
    /// Sorted by [`Resource::place`].
    all: Vec<Arc<Resource>>,
    /// In discovery's order.
    custom: Vec<Arc<Resource>>,
}

impl Tables {
    fn new(builtin: &[Arc<Resource>], custom: Vec<Arc<Resource>>) -> Self {
        let mut all: Vec<_> = builtin.iter().chain(&custom).cloned().collect();
        all.sort_by(|a, b| a.place().cmp(&b.place()));
        // What is built in comes first, and is what is served.
        all.dedup_by(|later, first| later.place() == first.place());
        Self { all, custom }
    }
}

impl Registry {
    /// A table of the built-in resources that the configuration turns on.
    pub fn new(caches: &Caches, config: &RuntimeConfig) -> Self {
        let served: Vec<_> = resources::ALL.iter().filter(|info| config.serves(info)).collect();
        let builtin: Vec<Arc<Resource>> =
            served.iter().filter_map(|info| builtin(info, caches)).map(Arc::new).collect();
        for resource in builtin.iter().filter(|r| r.is_stored() && r.conversion.is_identity()) {
            caches.set_index(&resource.storage, resource.index.clone());
        }
        let table = ArcSwap::from_pointee(Tables::new(&builtin, Vec::new()));
        Self { served, builtin, table }
    }

    pub fn find(&self, group: &str, version: &str, resource: &str) -> Option<Arc<Resource>> {
        let all = &self.table.load().all;
        let found = all.binary_search_by(|known| known.place().cmp(&(resource, group, version)));
        found.ok().map(|at| all[at].clone())
    }

    pub fn get(&self, gvr: &Gvr) -> Option<Arc<Resource>> {
        self.find(&gvr.group, &gvr.version, &gvr.resource)
    }

    /// The resource whose objects have this kind.
    pub fn find_kind(&self, gvk: &Gvk) -> Option<Arc<Resource>> {
        self.all().into_iter().find(|r| r.gvk == *gvk)
    }

    /// Built-in resources in discovery's order, then the custom ones.
    pub fn all(&self) -> Vec<Arc<Resource>> {
        self.builtin.iter().chain(&self.table.load().custom).cloned().collect()
    }

    /// What is known of the built-in resources.
    pub fn served(&self) -> &[&'static ResourceInfo] {
        &self.served
    }

    pub fn builtin(&self) -> &[Arc<Resource>] {
        &self.builtin
    }

    /// Replaces all custom resources.
    pub fn set_custom(&self, custom: Vec<Arc<Resource>>) {
        self.table.store(Arc::new(Tables::new(&self.builtin, custom)));
    }
}

fn builtin(info: &'static ResourceInfo, caches: &Caches) -> Option<Resource> {
    let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let Some(ty) = keelson_schema::builtin().for_gvk(&info.gvk()) else {
        tracing::error!(kind = %info.gvk(), "a resource of the table has no schema");
        return None;
    };
    let row = strategies::for_resource(info.group, info.resource);
    let strategy = row.strategy;
    Some(Resource {
        gvr: Gvr::new(info.group, info.version, info.resource),
        gvk: info.gvk(),
        list_kind: format!("{}List", info.kind),
        singular: info.singular.to_owned(),
        namespaced: info.namespaced,
        verbs: owned(&info.verbs),
        short_names: owned(&info.short_names),
        categories: owned(&info.categories),
        subresources: info
            .subresources
            .iter()
            .map(|s| Subresource {
                name: s.name.to_owned(),
                gvk: Gvk::new(s.group, s.version, s.kind),
                verbs: owned(&s.verbs),
            })
            .collect(),
        strategy: StrategyRef::Builtin(strategy),
        traits: row.traits,
        ty: Link::Static(ty),
        storage: info.resource.into(),
        cache: caches.cache(info.resource),
        conversion: Conversion::of_builtin(info.group, info.version, info.resource),
        selectable: strategy.selectable_names().iter().map(|s| (*s).to_owned()).collect(),
        index: Index::new(Arc::new(StrategyRef::Builtin(strategy))),
        custom: None,
    })
}
