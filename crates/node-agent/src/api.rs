//! What the agent asks of the API server, behind a trait so that pods can be tested without one.

use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec, TokenRequestStatus};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::api::node::v1::RuntimeClass;
use keelson_client::rest::{self, patch};
use keelson_client::{EventRecorder, EventType, Informer, Key, Meta, ObjectRef, Projected, Whole};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How long a first read of a ConfigMap or Secret may take before the pod's start is tried again.
const SYNC_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{operation} {subject}")]
    Request {
        operation: &'static str,
        subject: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("failed to sync {kind} cache: timed out waiting for the condition")]
    NotSynced { kind: &'static str },
}

impl Error {
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Request { source, .. } => rest::code(source),
            Self::NotSynced { .. } => None,
        }
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
type Answer<'a, T> = BoxFuture<'a, Result<T>>;

/// What a Service shows to pods in their environment.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Service {
    pub metadata: Meta,
    pub spec: ServiceSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ServiceSpec {
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    pub ports: Vec<ServicePort>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ServicePort {
    pub name: String,
    pub port: i32,
    pub protocol: String,
}

keelson_client::projection!(Service, "", "v1", "services", "Service", namespaced);

/// Everything that a pod's worker needs of the API. Reads come from memory where they can.
pub trait Api: Send + Sync + 'static {
    /// `None` where there is no such object. From then on the pod is woken when it changes.
    fn config_map<'a>(&'a self, pod: &'a Pod, name: &'a str) -> Answer<'a, Option<Arc<Whole<ConfigMap>>>>;
    fn secret<'a>(&'a self, pod: &'a Pod, name: &'a str) -> Answer<'a, Option<Arc<Whole<Secret>>>>;
    /// The pod is gone: what it referred to need not be watched for it.
    fn release(&self, uid: &str);
    fn services(&self) -> Vec<Arc<Service>>;
    fn token<'a>(
        &'a self,
        namespace: &'a str,
        account: &'a str,
        spec: TokenRequestSpec,
    ) -> Answer<'a, TokenRequestStatus>;
    fn claim<'a>(&'a self, namespace: &'a str, name: &'a str) -> Answer<'a, PersistentVolumeClaim>;
    fn volume<'a>(&'a self, name: &'a str) -> Answer<'a, PersistentVolume>;
    /// The runtime's handler that a RuntimeClass stands for.
    fn runtime_handler<'a>(&'a self, class: &'a str) -> Answer<'a, String>;
    fn patch_status<'a>(&'a self, namespace: &'a str, name: &'a str, body: Value) -> Answer<'a, ()>;
    /// Deletes with grace 0, this very pod only.
    fn delete_pod<'a>(&'a self, namespace: &'a str, name: &'a str, uid: &'a str) -> Answer<'a, ()>;
    fn event(&self, about: ObjectRef, kind: EventType, reason: &str, message: &str);
}

/// Wakes the worker of a pod, by uid.
pub type Waker = Arc<dyn Fn(&str) + Send + Sync>;

/// The API server.
pub struct Server {
    client: kube::Client,
    recorder: EventRecorder,
    services: Arc<Informer<Service>>,
    config_maps: Watched<Whole<ConfigMap>>,
    secrets: Watched<Whole<Secret>>,
}

impl Server {
    pub fn new(
        client: kube::Client,
        recorder: EventRecorder,
        services: Arc<Informer<Service>>,
        waker: Waker,
    ) -> Self {
        Self {
            config_maps: Watched::new(client.clone(), waker.clone()),
            secrets: Watched::new(client.clone(), waker),
            client,
            recorder,
            services,
        }
    }
}

fn request(operation: &'static str, subject: impl ToString) -> impl FnOnce(kube::Error) -> Error {
    let subject = subject.to_string();
    move |source| Error::Request { operation, subject, source: Box::new(source) }
}

impl Api for Server {
    fn config_map<'a>(&'a self, pod: &'a Pod, name: &'a str) -> Answer<'a, Option<Arc<Whole<ConfigMap>>>> {
        Box::pin(self.config_maps.get(pod, name, "configmap"))
    }

    fn secret<'a>(&'a self, pod: &'a Pod, name: &'a str) -> Answer<'a, Option<Arc<Whole<Secret>>>> {
        Box::pin(self.secrets.get(pod, name, "secret"))
    }

    fn release(&self, uid: &str) {
        self.config_maps.release(uid);
        self.secrets.release(uid);
    }

    fn services(&self) -> Vec<Arc<Service>> {
        self.services.list()
    }

    fn token<'a>(
        &'a self,
        namespace: &'a str,
        account: &'a str,
        spec: TokenRequestSpec,
    ) -> Answer<'a, TokenRequestStatus> {
        Box::pin(async move {
            let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
            let body =
                json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec });
            let subject = format!("{namespace}/{account}");
            let answer: TokenRequest = rest::create(&self.client, &path, &body)
                .await
                .map_err(request("request a token of", subject))?;
            Ok(answer.status.unwrap_or_default())
        })
    }

    fn claim<'a>(&'a self, namespace: &'a str, name: &'a str) -> Answer<'a, PersistentVolumeClaim> {
        Box::pin(async move {
            let path = rest::path::<Whole<PersistentVolumeClaim>>(namespace, Some(name), None);
            rest::get(&self.client, &path).await.map_err(request("read persistentvolumeclaim", name))
        })
    }

    fn volume<'a>(&'a self, name: &'a str) -> Answer<'a, PersistentVolume> {
        Box::pin(async move {
            let path = rest::path::<Whole<PersistentVolume>>("", Some(name), None);
            rest::get(&self.client, &path).await.map_err(request("read persistentvolume", name))
        })
    }

    fn runtime_handler<'a>(&'a self, class: &'a str) -> Answer<'a, String> {
        Box::pin(async move {
            let path = rest::path::<Whole<RuntimeClass>>("", Some(class), None);
            let found: RuntimeClass =
                rest::get(&self.client, &path).await.map_err(request("read runtimeclass", class))?;
            Ok(found.handler)
        })
    }

    fn patch_status<'a>(&'a self, namespace: &'a str, name: &'a str, body: Value) -> Answer<'a, ()> {
        Box::pin(async move {
            let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/status");
            rest::patch::<serde::de::IgnoredAny>(&self.client, &path, patch::STRATEGIC, &body)
                .await
                .map(drop)
                .map_err(request("report the status of pod", format!("{namespace}/{name}")))
        })
    }

    fn delete_pod<'a>(&'a self, namespace: &'a str, name: &'a str, uid: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
            let options = json!({
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "gracePeriodSeconds": 0,
                "preconditions": { "uid": uid },
            });
            rest::delete(&self.client, &path, &options)
                .await
                .map_err(request("remove pod", format!("{namespace}/{name}")))
        })
    }

    fn event(&self, about: ObjectRef, kind: EventType, reason: &str, message: &str) {
        self.recorder.event(&about, kind, reason, message);
    }
}

/// Objects that pods refer to by name, each watched alone: a node may read only what its pods use.
struct Watched<P: Projected> {
    client: kube::Client,
    waker: Waker,
    entries: Mutex<HashMap<Key, Entry<P>>>,
}

struct Entry<P: Projected> {
    informer: Arc<Informer<P>>,
    users: Arc<Mutex<HashSet<String>>>,
}

impl<P: Projected> Watched<P> {
    fn new(client: kube::Client, waker: Waker) -> Self {
        Self { client, waker, entries: Mutex::default() }
    }

    async fn get(&self, pod: &Pod, name: &str, kind: &'static str) -> Result<Option<Arc<P>>> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let key = Key::new(pod.metadata.namespace.clone().unwrap_or_default(), name);
        let informer = {
            let mut entries = self.entries.lock();
            let entry = entries.entry(key.clone()).or_insert_with(|| self.watch(&key));
            entry.users.lock().insert(uid);
            entry.informer.clone()
        };
        match tokio::time::timeout(SYNC_WITHIN, informer.synced()).await {
            Ok(()) => Ok(informer.get(&key)),
            Err(_) => Err(Error::NotSynced { kind }),
        }
    }

    fn watch(&self, key: &Key) -> Entry<P> {
        let informer = Informer::<P>::new(&self.client)
            .namespace(&key.namespace)
            .fields(format!("metadata.name={}", key.name))
            .start();
        let users: Arc<Mutex<HashSet<String>>> = Arc::default();
        let (waker, listeners) = (self.waker.clone(), users.clone());
        informer.on_change(move |_| {
            for uid in listeners.lock().iter() {
                waker(uid);
            }
        });
        Entry { informer, users }
    }

    fn release(&self, uid: &str) {
        self.entries.lock().retain(|_, entry| {
            let mut users = entry.users.lock();
            users.remove(uid);
            !users.is_empty()
        });
    }
}

/// A reference to the pod, or to one of its containers.
pub fn reference(pod: &Pod, field: Option<String>) -> ObjectRef {
    ObjectRef {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: field,
    }
}

/// Shared by a worker and whoever wakes it.
pub type Wake = Arc<Notify>;
