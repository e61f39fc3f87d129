//! What the parts of the server say to one another: who asks, what they ask, what is decided.
//!
//! The core (routing, verbs, cache) knows authentication, authorization and admission only through
//! these traits, and they know the core only through [`Objects`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use futures::future::BoxFuture;
use keelson_api_types::{Gvk, Gvr, StatusError};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

use crate::cache::Json;

pub use crate::admission::reinvocation::Reinvocation;

/// The identity of a caller, as every authenticator yields it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserInfo {
    #[serde(rename = "username")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// The server acting for itself: bootstrap, establishing definitions, allocators.
    pub fn loopback() -> Self {
        Self {
            name: "system:apiserver".into(),
            groups: vec!["system:masters".into(), "system:authenticated".into()],
            ..Self::default()
        }
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// The certificate chain a client presented, verified against the client CA by the TLS layer.
#[derive(Debug, Clone)]
pub struct PeerCert {
    /// DER, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// SHA-256 of the leaf, once for all requests of the connection.
    pub fingerprint: Vec<u8>,
}

impl PeerCert {
    pub fn new(chain: Vec<CertificateDer<'static>>) -> Self {
        let leaf = chain.first().map_or(&[][..], AsRef::as_ref);
        Self { fingerprint: digest(&SHA256, leaf).as_ref().to_vec(), chain }
    }
}

/// What the connection says about its other end; in every request's extensions.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: SocketAddr,
    pub certificate: Option<Arc<PeerCert>>,
}

/// One request as an authorizer sees it. Empty strings mean "none", as on the wire.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    pub user: &'a UserInfo,
    /// `get`, `list`, `watch`, `create`, … for resources, the lower-case HTTP method otherwise.
    pub verb: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: &'a str,
    pub is_resource: bool,
    pub field_selector: Option<&'a str>,
    pub label_selector: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    /// What is asked of all objects of a resource in all namespaces; what is narrower is put in by the caller.
    pub fn resource(
        user: &'a UserInfo,
        verb: &'a str,
        group: &'a str,
        version: &'a str,
        resource: &'a str,
    ) -> Self {
        Self {
            user,
            verb,
            group,
            version,
            resource,
            subresource: "",
            namespace: "",
            name: "",
            path: "",
            is_resource: true,
            field_selector: None,
            label_selector: None,
        }
    }
}

/// An authorizer's answer with its reason, which a refusal shows to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Allow(String),
    Deny(String),
    NoOpinion(String),
}

/// A decision, and what went wrong on the way to it; empty if nothing did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub decision: Decision,
    pub error: String,
}

impl Verdict {
    pub fn is_allowed(&self) -> bool {
        matches!(self.decision, Decision::Allow(_))
    }

    /// Why, for whoever was not allowed.
    pub fn reason(&self) -> &str {
        match &self.decision {
            Decision::Allow(reason) | Decision::Deny(reason) | Decision::NoOpinion(reason) => reason,
        }
    }
}

impl From<Decision> for Verdict {
    fn from(decision: Decision) -> Self {
        Self { decision, error: String::new() }
    }
}

pub trait Authorizer: Send + Sync {
    /// The decision where memory has it; `None` where a webhook is to be asked.
    fn known(&self, attributes: &Attributes<'_>) -> Option<Decision>;

    fn decide<'a>(&'a self, attributes: &'a Attributes<'_>) -> BoxFuture<'a, Verdict>;

    /// The rules that apply to a user in a namespace, for SelfSubjectRulesReview: a
    /// `SubjectRulesReviewStatus`.
    fn rules_for(&self, _user: &UserInfo, _namespace: &str) -> Value {
        serde_json::json!({"resourceRules": [], "nonResourceRules": [], "incomplete": true})
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AuthnError {
    /// A credential was presented and is wrong. The reason is logged, never sent.
    #[error("the presented credential is not valid: {0}")]
    Invalid(String),
}

/// `Ok(None)` when the request carries no credential that this authenticator knows.
pub trait Authenticator: Send + Sync {
    fn authenticate<'a>(
        &'a self,
        parts: &'a http::request::Parts,
        peer: Option<&'a PeerCert>,
    ) -> BoxFuture<'a, Result<Option<UserInfo>, AuthnError>>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// One write on its way to the store, or one action on a stored object.
pub struct AdmissionRequest<'a> {
    pub op: Operation,
    pub user: &'a UserInfo,
    /// The kind of what the client sends: that of the subresource, where it has one of its own.
    pub gvk: &'a Gvk,
    pub gvr: &'a Gvr,
    pub subresource: &'a str,
    pub namespace: &'a str,
    /// Empty on a create whose name is still to be generated.
    pub name: &'a str,
    /// The object as it will be stored; `None` on delete. `admit` may change it, `validate` must not.
    pub object: Option<&'a mut Value>,
    /// The stored object, on update and delete.
    pub old: Option<&'a Value>,
    /// CreateOptions, UpdateOptions, DeleteOptions or the connect options.
    pub options: &'a Value,
    pub dry_run: bool,
    /// Sent to the client as `Warning` headers.
    pub warnings: Vec<String>,
    /// For the audit log: what plug-ins, policies and webhooks note about the request.
    pub annotations: BTreeMap<String, String>,
    /// Which mutating webhooks and policies run once more.
    pub reinvocation: Reinvocation,
}

impl AdmissionRequest<'_> {
    /// Notes something for the audit log; the first note of a key stays.
    pub fn annotate(&mut self, key: String, value: String) {
        crate::audit::annotate(&key, || value.clone());
        self.annotations.entry(key).or_insert(value);
    }
}

/// The chain: `admit` mutates, then the core validates, then `validate` has the last word.
pub trait Admission: Send + Sync {
    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), StatusError>>;
    fn validate<'a>(
        &'a self,
        request: &'a mut AdmissionRequest<'_>,
    ) -> BoxFuture<'a, Result<(), StatusError>>;
    /// Whether webhooks or policies may be shown objects: they are whole then, `managedFields` included.
    fn shows_objects(&self) -> bool;
}

/// A stored object by reference: identity and its encoded form, parsed by whoever needs it.
#[derive(Debug, Clone)]
pub struct Object {
    /// Empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub revision: u64,
    /// Canonical JSON, `metadata.resourceVersion` included.
    pub json: Json,
}

impl Object {
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.json.bytes())
    }
}

/// What happened to a resource's objects, in revision order.
#[derive(Debug, Clone)]
pub enum Change {
    /// The first message of a subscription, and after a gap: all that exists now.
    Snapshot(Vec<Object>),
    Put(Object),
    /// Carries the last state.
    Delete(Object),
}

/// The server's own objects for its parts: reads from the watch cache, writes as the loopback user
/// through the generic path (defaults, validation, no authorization).
pub trait Objects: Send + Sync {
    /// From memory; may lag the store by a few milliseconds. Custom objects are in the version they are stored in.
    fn get(&self, gvr: &Gvr, namespace: &str, name: &str) -> Option<Arc<Value>>;
    /// From the store: what every acknowledged write made of it.
    fn get_fresh<'a>(
        &'a self,
        gvr: &'a Gvr,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<Value>>, StatusError>>;
    /// From memory; an empty namespace lists all.
    fn list(&self, gvr: &Gvr, namespace: &str) -> Vec<Arc<Value>>;
    fn create<'a>(
        &'a self,
        gvr: &'a Gvr,
        namespace: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<Value, StatusError>>;
    /// Replaces; compares the revision if the object names one. `subresource` may be empty.
    fn update<'a>(
        &'a self,
        gvr: &'a Gvr,
        namespace: &'a str,
        subresource: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<Value, StatusError>>;
    fn delete<'a>(
        &'a self,
        gvr: &'a Gvr,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<(), StatusError>>;
    /// The revision of the last change to a resource's objects, now and as it moves on: while it is the
    /// same, so are they.
    fn changes(&self, gvr: &Gvr) -> watch::Receiver<u64>;
    /// The versions that serve the same objects, with their kinds (of the subresource, if one is named).
    fn versions(&self, gvr: &Gvr, subresource: &str) -> Vec<(Gvr, Gvk)>;
    /// The resource and scope of a kind: true if its objects are in namespaces.
    fn resource_of(&self, gvk: &Gvk) -> Option<(Gvr, bool)>;
    /// What a version shows of the object of that name, or of all in the namespace: from memory, converted once.
    fn shown<'a>(
        &'a self,
        gvr: &'a Gvr,
        namespace: &'a str,
        name: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<Arc<Value>>, StatusError>>;
    /// A stored object as a version shows it.
    fn as_served<'a>(&'a self, gvr: &'a Gvr, object: Value) -> BoxFuture<'a, Result<Value, StatusError>>;
    /// A version's object as the admission of a request sees it: without unknown fields, with the defaults of that
    /// version, and then stored or, a custom one, in the version of the request.
    fn as_admitted<'a>(
        &'a self,
        gvr: &'a Gvr,
        object: Value,
        request: &'a Gvr,
    ) -> BoxFuture<'a, Result<Value, StatusError>>;
    /// The kind of a resource and its schema, without references.
    fn schema(&self, gvr: &Gvr) -> Option<(Gvk, Value)>;
    /// A version's object with what `applied` sets of it; why that cannot be.
    fn overlay(&self, gvr: &Gvr, object: &Value, applied: &Value) -> Result<Value, String>;
    /// The present state, then every change. Dropping the receiver ends the subscription.
    fn subscribe(&self, gvr: &Gvr) -> UnboundedReceiver<Change>;
}

/// A create of a resource that is computed and never stored: the review kinds and TokenRequest.
pub struct ReviewRequest<'a> {
    pub user: &'a UserInfo,
    pub gvr: &'a Gvr,
    /// `token` for `serviceaccounts/token`, else empty.
    pub subresource: &'a str,
    pub namespace: &'a str,
    /// The service account's name for `serviceaccounts/token`.
    pub name: &'a str,
    /// Decoded, pruned and defaulted.
    pub object: Value,
    pub dry_run: bool,
}

/// Everything the security side gives to the core, built once per server from its configuration and
/// [`Objects`]; `security::build` in `lib.rs` wires the product's, tests may wire their own.
pub trait Security: Send + Sync {
    fn authenticator(&self) -> &dyn Authenticator;
    fn authorizer(&self) -> &dyn Authorizer;
    fn admission(&self) -> &dyn Admission;
    fn review<'a>(&'a self, request: ReviewRequest<'a>) -> BoxFuture<'a, Result<Value, StatusError>>;
    /// A public document such as `/.well-known/openid-configuration` or `/openid/v1/jwks`: content type and body.
    fn document(&self, path: &str) -> Option<(&'static str, Bytes)>;
    /// Writes what a cluster must hold; runs once the caches are filled, before `/readyz` says yes
    /// (check `poststarthook/rbac/bootstrap-roles` and friends), and is repeated until it succeeds.
    fn bootstrap(&self) -> BoxFuture<'_, Result<(), StatusError>>;
}
