//! Groups that extension API servers answer: which there are, whether they can be reached, what they tell of
//! themselves, and how requests go on to them.
//!
//! [`run`] follows the APIService objects; for each that names a Service a task probes the server, writes the
//! `Available` condition and fetches its discovery and OpenAPI documents. Extension servers offer no watch on their
//! health or their documents: they are asked again whenever their Service or its endpoints change, and at intervals.

mod availability;
mod documents;
pub mod local;
pub mod openapi;
mod proxy;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keelson_api_types::Gvr;
use keelson_daemon::tls::rustls::client::ResolvesClientCert;
use keelson_daemon::tls::rustls::pki_types::ServerName;
use keelson_daemon::tls::{self, Trust};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::app::App;
use crate::backend::Transport;
use crate::config::Config;
use crate::meta::{self, string};
use crate::metrics::x509::AGGREGATED;
use crate::types::{Change, Objects};

pub use documents::{Documents, V2};
pub use proxy::proxy;

pub const GROUP: &str = "apiregistration.k8s.io";
/// How long what an extension server said is believed.
const RESYNC: Duration = Duration::from_secs(30);
/// The first and the longest pause after a failed probe.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

pub fn gvr() -> Gvr {
    Gvr::new(GROUP, "v1", "apiservices")
}

/// A group's rank among groups and a version's in its group; the greater comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Priority {
    pub group: i64,
    pub version: i64,
}

/// A group and version that has an APIService.
#[derive(Debug, Clone)]
pub struct Served {
    pub group: String,
    pub version: String,
    pub priority: Priority,
}

/// The Service behind an APIService, and how its server is to be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    pub namespace: String,
    pub service: String,
    pub port: i64,
    ca_bundle: Vec<u8>,
    insecure: bool,
}

/// A group and version that another server answers.
pub struct Remote {
    pub name: String,
    pub group: String,
    pub version: String,
    pub backend: Backend,
    /// The error is told to clients.
    transport: Result<Transport, String>,
    available: AtomicBool,
    documents: ArcSwap<Documents>,
    wake: Notify,
}

#[derive(Default)]
struct Table {
    served: Vec<Served>,
    remotes: Vec<Arc<Remote>>,
}

/// What the APIService objects say.
pub struct Aggregation {
    table: ArcSwap<Table>,
    /// The front proxy's certificate, which extension servers know us by.
    identity: Option<Arc<dyn ResolvesClientCert>>,
}

impl Aggregation {
    pub fn new(config: &Config) -> Result<Self, tls::Error> {
        let (cert, key) = (config.front_proxy_client_cert(), config.front_proxy_client_key());
        let identity = cert.exists().then(|| tls::client_identity(&cert, &key)).transpose()?;
        Ok(Self { table: ArcSwap::default(), identity })
    }

    /// Who answers below a path, if it is not this server.
    pub fn remote_at(&self, path: &str) -> Option<Arc<Remote>> {
        let table = self.table.load();
        if table.remotes.is_empty() {
            return None;
        }
        let mut parts = path.strip_prefix("/apis/")?.split('/');
        let (group, version) = (parts.next()?, parts.next()?);
        table.remotes.iter().find(|r| r.group == group && r.version == version).cloned()
    }

    pub fn remotes(&self) -> Vec<Arc<Remote>> {
        self.table.load().remotes.clone()
    }

    pub fn served(&self) -> Vec<Served> {
        self.table.load().served.clone()
    }

    /// What extension servers add to the v2 document.
    pub fn v2_parts(&self) -> Vec<V2> {
        self.remotes().iter().filter_map(|r| r.documents().v2.clone()).collect()
    }

    fn remote(&self, object: &Value) -> Option<Remote> {
        let spec = &object["spec"];
        let backend = Backend::of(spec)?;
        let trust = match backend.insecure {
            true => Trust::Anyone,
            false => Trust::Pem(backend.ca_bundle.clone()),
        };
        let transport = || {
            let name = format!("{}.{}.svc", backend.service, backend.namespace);
            let name = ServerName::try_from(name).map_err(|e| e.to_string())?;
            let tls = tls::verifier(&trust)
                .and_then(|verifier| tls::verified_by(AGGREGATED.counting(verifier), self.identity.clone()))
                .map_err(|e| format!("unable to load root certificates: {e}"))?;
            Ok(Transport::new(&tls, Some(name), true))
        };
        Some(Remote {
            name: meta::text(object, "name").to_owned(),
            group: string(spec, "group").to_owned(),
            version: string(spec, "version").to_owned(),
            transport: transport(),
            backend,
            available: AtomicBool::new(false),
            documents: ArcSwap::default(),
            wake: Notify::new(),
        })
    }
}

impl Backend {
    fn of(spec: &Value) -> Option<Self> {
        let service = spec.get("service").filter(|s| s.is_object())?;
        Some(Self {
            namespace: string(service, "namespace").to_owned(),
            service: string(service, "name").to_owned(),
            port: service["port"].as_i64().unwrap_or(443),
            ca_bundle: STANDARD.decode(string(spec, "caBundle")).unwrap_or_default(),
            insecure: spec["insecureSkipTLSVerify"] == true,
        })
    }
}

impl Remote {
    /// What it last told of itself.
    pub fn documents(&self) -> Arc<Documents> {
        self.documents.load_full()
    }

    pub fn is_available(&self) -> bool {
        self.available.load(Ordering::Relaxed)
    }
}

/// Follows the APIServices, and for each with a Service its server, until shutdown.
pub async fn run(app: Arc<App>) {
    let mut objects = app.subscribe(&gvr());
    let mut services = app.subscribe(&Gvr::new("", "v1", "services"));
    let mut slices = app.subscribe(&Gvr::new("discovery.k8s.io", "v1", "endpointslices"));
    let mut tasks: HashMap<String, AbortHandle> = HashMap::new();
    loop {
        tokio::select! {
            change = objects.recv() => {
                if change.is_none() {
                    break;
                }
                // One look at all of them answers every change that has come in so far.
                while objects.try_recv().is_ok() {}
                rebuild(&app, &mut tasks);
                if let Err(error) = local::reconcile(&app, false).await {
                    tracing::warn!(error = error.message(), "could not write the APIServices");
                }
            }
            Some(change) = services.recv() => wake(&app, &change, |object| Some(object.name.to_string())),
            Some(change) = slices.recv() => wake(&app, &change, |object| {
                let slice: Value = object.parse().ok()?;
                Some(string(&slice["metadata"]["labels"], "kubernetes.io/service-name").to_owned())
            }),
            () = app.shutdown.cancelled() => break,
        }
    }
    for task in tasks.values() {
        task.abort();
    }
}

/// Asks the servers again whose Service has changed.
fn wake(app: &App, change: &Change, service: impl Fn(&crate::types::Object) -> Option<String>) {
    let remotes = &app.aggregation.table.load().remotes;
    let (Change::Put(object) | Change::Delete(object), false) = (change, remotes.is_empty()) else { return };
    for remote in remotes.iter().filter(|r| *r.backend.namespace == *object.namespace) {
        if service(object).is_some_and(|name| name == remote.backend.service) {
            remote.wake.notify_one();
        }
    }
}

/// Takes over what the objects say; servers whose backend stays keep what is known of them.
fn rebuild(app: &Arc<App>, tasks: &mut HashMap<String, AbortHandle>) {
    let before = app.aggregation.table.load_full();
    let mut table = Table::default();
    for object in app.list(&gvr(), "") {
        let spec = &object["spec"];
        let number = |field: &str| spec[field].as_i64().unwrap_or_default();
        table.served.push(Served {
            group: string(spec, "group").to_owned(),
            version: string(spec, "version").to_owned(),
            priority: Priority { group: number("groupPriorityMinimum"), version: number("versionPriority") },
        });
        let name = meta::text(&object, "name");
        let same = |remote: &&Arc<Remote>| {
            remote.name == name && Backend::of(spec).is_some_and(|backend| backend == remote.backend)
        };
        let remote = match before.remotes.iter().find(same) {
            Some(known) => known.clone(),
            None => match app.aggregation.remote(&object) {
                Some(remote) => {
                    let remote = Arc::new(remote);
                    let task = tokio::spawn(follow(app.clone(), remote.clone())).abort_handle();
                    if let Some(old) = tasks.insert(name.to_owned(), task) {
                        old.abort();
                    }
                    remote
                }
                None => continue,
            },
        };
        remote.available.store(availability::is_available(&object), Ordering::Relaxed);
        table.remotes.push(remote);
    }
    tasks.retain(|name, task| {
        let stays = table.remotes.iter().any(|r| r.name == *name);
        if !stays {
            task.abort();
        }
        stays
    });
    app.aggregation.table.store(Arc::new(table));
}

/// Probes one server for as long as its APIService stays as it is.
async fn follow(app: Arc<App>, remote: Arc<Remote>) {
    let mut pause = BACKOFF.0;
    loop {
        let verdict = availability::check(&app, &remote).await;
        let reported = availability::report(&app, &remote.name, &verdict).await;
        if let Err(error) = &reported {
            tracing::warn!(
                service = remote.name,
                error = error.message(),
                "could not report an APIService's state"
            );
        }
        let told = documents::refresh(&app, &remote, verdict.is_available()).await;
        let wait = match told && verdict.is_available() && reported.is_ok() {
            true => RESYNC,
            false => pause,
        };
        pause = if wait == RESYNC { BACKOFF.0 } else { (pause * 2).min(BACKOFF.1) };
        tokio::select! {
            () = remote.wake.notified() => pause = BACKOFF.0,
            () = tokio::time::sleep(wait) => {}
        }
    }
}
