//! What an informer holds of an object: the fields that its daemon reads.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::{ClusterResourceScope, Metadata, NamespaceResourceScope, Resource};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

/// The parts of an object's metadata that reconcilers read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    pub name: String,
    pub namespace: Option<String>,
    pub uid: String,
    pub resource_version: String,
    pub generation: i64,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub owner_references: Vec<OwnerReference>,
    pub finalizers: Vec<String>,
    pub creation_timestamp: Option<Time>,
    pub deletion_timestamp: Option<Time>,
    pub deletion_grace_period_seconds: Option<i64>,
}

impl Meta {
    pub fn key(&self) -> Key {
        Key { namespace: self.namespace.clone().unwrap_or_default(), name: self.name.clone() }
    }

    /// The owner that manages the object (`controller: true`), if it has one.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|o| o.controller == Some(true))
    }

    /// Whether deletion has begun.
    pub fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }
}

impl From<&ObjectMeta> for Meta {
    fn from(m: &ObjectMeta) -> Meta {
        Meta {
            name: m.name.clone().unwrap_or_default(),
            namespace: m.namespace.clone(),
            uid: m.uid.clone().unwrap_or_default(),
            resource_version: m.resource_version.clone().unwrap_or_default(),
            generation: m.generation.unwrap_or_default(),
            labels: m.labels.clone().unwrap_or_default(),
            annotations: m.annotations.clone().unwrap_or_default(),
            owner_references: m.owner_references.clone().unwrap_or_default(),
            finalizers: m.finalizers.clone().unwrap_or_default(),
            creation_timestamp: m.creation_timestamp.clone(),
            deletion_timestamp: m.deletion_timestamp.clone(),
            deletion_grace_period_seconds: m.deletion_grace_period_seconds,
        }
    }
}

/// The name of an object within its resource; `namespace` is empty for cluster-scoped ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Key {
        Key { namespace: namespace.into(), name: name.into() }
    }

    /// The key of a cluster-scoped object.
    pub fn cluster(name: impl Into<String>) -> Key {
        Key::new("", name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.is_empty() {
            true => f.write_str(&self.name),
            false => write!(f, "{}/{}", self.namespace, self.name),
        }
    }
}

/// A type that holds what a daemon reads of a kind, deserialised from the whole object. See
/// [`projection!`](crate::projection) for the constants.
pub trait Projected: DeserializeOwned + Send + Sync + 'static {
    /// Empty for the core group.
    const GROUP: &'static str;
    const VERSION: &'static str;
    const PLURAL: &'static str;
    const KIND: &'static str;
    const NAMESPACED: bool;

    fn meta(&self) -> &Meta;

    fn key(&self) -> Key {
        self.meta().key()
    }
}

/// Implements [`Projected`] for a type that has a field `metadata: Meta`:
/// `projection!(Pod, "", "v1", "pods", "Pod", namespaced)`, or `cluster` instead of `namespaced`.
#[macro_export]
macro_rules! projection {
    ($type:ty, $group:expr, $version:expr, $plural:expr, $kind:expr, namespaced) => {
        $crate::projection!(@ $type, $group, $version, $plural, $kind, true);
    };
    ($type:ty, $group:expr, $version:expr, $plural:expr, $kind:expr, cluster) => {
        $crate::projection!(@ $type, $group, $version, $plural, $kind, false);
    };
    (@ $type:ty, $group:expr, $version:expr, $plural:expr, $kind:expr, $namespaced:expr) => {
        impl $crate::Projected for $type {
            const GROUP: &'static str = $group;
            const VERSION: &'static str = $version;
            const PLURAL: &'static str = $plural;
            const KIND: &'static str = $kind;
            const NAMESPACED: bool = $namespaced;

            fn meta(&self) -> &$crate::Meta {
                &self.metadata
            }
        }
    };
}

/// A whole object of k8s-openapi, for a reconciler that needs it. A Pod costs ten times its projection.
#[derive(Clone, Debug)]
pub struct Whole<K> {
    meta: Meta,
    pub object: K,
}

impl<K: Metadata<Ty = ObjectMeta>> From<K> for Whole<K> {
    fn from(object: K) -> Whole<K> {
        Whole { meta: Meta::from(object.metadata()), object }
    }
}

impl<K> Deref for Whole<K> {
    type Target = K;

    fn deref(&self) -> &K {
        &self.object
    }
}

impl<'de, K> Deserialize<'de> for Whole<K>
where
    K: Deserialize<'de> + Metadata<Ty = ObjectMeta>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Whole<K>, D::Error> {
        K::deserialize(deserializer).map(Whole::from)
    }
}

/// Whether a scope of k8s-openapi has namespaces.
pub trait ScopeKind {
    const NAMESPACED: bool;
}

impl ScopeKind for NamespaceResourceScope {
    const NAMESPACED: bool = true;
}

impl ScopeKind for ClusterResourceScope {
    const NAMESPACED: bool = false;
}

impl<K> Projected for Whole<K>
where
    K: Resource + Metadata<Ty = ObjectMeta> + DeserializeOwned + Send + Sync + 'static,
    K::Scope: ScopeKind,
{
    const GROUP: &'static str = K::GROUP;
    const VERSION: &'static str = K::VERSION;
    const PLURAL: &'static str = K::URL_PATH_SEGMENT;
    const KIND: &'static str = K::KIND;
    const NAMESPACED: bool = <K::Scope as ScopeKind>::NAMESPACED;

    fn meta(&self) -> &Meta {
        &self.meta
    }
}
