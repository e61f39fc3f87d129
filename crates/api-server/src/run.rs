//! Starting the server: store, caches, security, listener, and what has to be done once they are up.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use keelson_daemon::{Daemon, Metrics};
use keelson_store::Store;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::aggregation::{self, Aggregation};
use crate::alloc::{self, Allocators, StorePorts};
use crate::app::App;
use crate::audit::Audit;
use crate::backend::Backends;
use crate::body::BoxError;
use crate::bootstrap::presence::Presence;
use crate::cache::Caches;
use crate::config::Config;
use crate::encrypt::{EncryptedStore, Encryption};
use crate::event_leases::EventLeases;
use crate::fairness::{self, Fairness};
use crate::identity;
use crate::metrics::{self, ConversionMetrics, Metered, Requests};
use crate::registry::Registry;
use crate::security::advertise_address;
use crate::server::{Error, Listener};
use crate::spans;
use crate::types::{Objects, Security};
use crate::weak::WeakObjects;

/// What upstream's checks call the parts of the bootstrap, which here is one.
const BOOTSTRAP: [&str; 6] = [
    "rbac/bootstrap-roles",
    "scheduling/bootstrap-system-priority-classes",
    "priority-and-fairness-config-producer",
    "start-system-namespaces-controller",
    "start-kubernetes-service-cidr-controller",
    "start-cluster-authentication-info-controller",
];

/// A server that is up.
pub struct Running {
    pub address: SocketAddr,
    pub app: Arc<App>,
    serving: JoinHandle<()>,
    /// Ends when the last spans have been sent.
    tracing: Option<JoinHandle<()>>,
}

impl Running {
    /// Waits until shutdown has closed the last connection.
    pub async fn wait(self) {
        let _ = self.serving.await;
        if let Some(tracing) = self.tracing {
            let _ = tracing.await;
        }
    }
}

/// Builds the security side over the objects of a server that will listen at the address.
pub type BuildSecurity = Box<
    dyn FnOnce(&Config, Arc<dyn Objects>, SocketAddr, &Metrics) -> Result<Arc<dyn Security>, BoxError> + Send,
>;

/// What the product is secured by.
pub fn product_security() -> BuildSecurity {
    Box::new(|config, objects, address, metrics| {
        let security = crate::security::build(config, objects, address, metrics)?;
        Ok(security as Arc<dyn Security>)
    })
}

/// Starts a server; it serves until the daemon's shutdown.
pub async fn start(
    config: Config,
    daemon: Daemon,
    store: Arc<dyn Store>,
    security: BuildSecurity,
) -> Result<Running, Error> {
    let listener = Listener::bind(&config).await?;
    let address =
        listener.address().map_err(|source| Error::Listen { address: config.listen_address(), source })?;
    if config.enable_profiling {
        keelson_daemon::heap::enable();
    }
    let mut store: Arc<dyn Store> = Metered::new(store, &daemon.metrics);
    let mut encrypted = None;
    if let Some(source) = &config.encryption {
        let encryption =
            Encryption::start(source, daemon.shutdown.clone()).await.map_err(Error::Encryption)?;
        let weak = Arc::downgrade(&encryption);
        daemon.health.add("kms-providers", move || weak.upgrade().map_or(Ok(()), |e| e.health()));
        let layer = Arc::new(EncryptedStore::new(store, encryption));
        store = layer.clone();
        encrypted = Some(layer);
    }
    metrics::x509::register(&daemon.metrics);
    let caches = Caches::new(store);
    let registry = Registry::new(&caches, &config.runtime_config);
    let backends = Backends::new(&config).map_err(Error::Tls)?;
    let aggregation = Aggregation::new(&config).map_err(Error::Tls)?;
    let delay = Duration::from_secs(config.shutdown_delay);
    let closing = CancellationToken::new();
    let ports = Arc::new(StorePorts(caches.store().clone()));
    let allocators = Allocators::new(&[config.service_cidr], config.node_port_range, ports);
    let ended = CancellationToken::new();
    let (tracer, tracing) = spans::start(&config, &ended).map_err(Error::Tracing)?.unzip();
    let app = Arc::new(App {
        allocators,
        requests: Requests::new(&daemon.metrics),
        openapi: Default::default(),
        conversions: ConversionMetrics::new(&daemon.metrics),
        fairness: Fairness::new(&daemon.metrics, config.max_requests_in_flight),
        audit: OnceLock::new(),
        tracer,
        event_leases: EventLeases::new(caches.store().clone(), Duration::from_secs(config.event_ttl)),
        started: jiff::Timestamp::now(),
        config,
        caches: caches.clone(),
        encrypted,
        registry,
        security: OnceLock::new(),
        health: daemon.health.clone(),
        metrics: daemon.metrics.clone(),
        shutdown: closing.clone(),
        ended,
        backends,
        aggregation,
        emptying: Default::default(),
    });
    caches.start(app.ended.clone()).await.map_err(Error::Load)?;
    app.allocators.load(&*app);
    let built = security(&app.config, app.clone(), address, &app.metrics).map_err(Error::Security)?;
    let _ = app.security.set(built);
    let objects = Arc::new(WeakObjects(Arc::downgrade(&(app.clone() as Arc<dyn Objects>))));
    let own = SocketAddr::new(advertise_address(&app.config), address.port());
    let presence = Arc::new(Presence::new(objects.clone(), app.caches.store().clone(), own));
    tokio::spawn(close_after(daemon.shutdown.clone(), presence.clone(), delay, closing.clone()));
    add_checks(&app, &daemon, presence);
    tokio::spawn(crate::crd::run(app.clone()));
    metrics::collect_objects(&daemon.metrics, &app);
    if let Some(config) = &app.config.audit {
        let audit = Audit::start(config, &daemon.metrics, objects.clone(), &closing);
        let _ = app.audit.set(audit.map_err(Error::Audit)?);
    }
    let host = hostname();
    tokio::spawn(identity::run(objects.clone(), host, address.port(), closing.clone()));
    tokio::spawn(fairness::run(app.fairness.clone(), objects.clone(), closing.clone()));
    tokio::spawn(alloc::run(app.allocators.clone(), objects, closing.clone()));
    tokio::spawn(aggregation::run(app.clone()));
    let serving = tokio::spawn(listener.serve(app.clone()));
    tracing::info!(%address, "serving");
    Ok(Running { address, app, serving, tracing })
}

pub(crate) fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// At shutdown only `/readyz` and the other servers say that this one is about to end; `closing` is cancelled when it no
/// longer takes requests.
async fn close_after(
    shutdown: CancellationToken,
    presence: Arc<Presence>,
    delay: Duration,
    closing: CancellationToken,
) {
    shutdown.cancelled().await;
    let deadline = tokio::time::Instant::now() + delay;
    presence.withdraw().await;
    tokio::time::sleep_until(deadline).await;
    closing.cancel();
}

/// The checks behind `/livez` and `/readyz`, and the work that some of them wait for.
fn add_checks(app: &Arc<App>, daemon: &Daemon, presence: Arc<Presence>) {
    let weak = Arc::downgrade(app);
    let following = move || match weak.upgrade() {
        Some(app) if app.caches.is_following() => Ok(()),
        _ => Err("the watch of the store is down".to_owned()),
    };
    daemon.health.add("log", || Ok(()));
    daemon.health.add("etcd", following.clone());
    daemon.health.add_ready("etcd-readiness", following.clone());
    daemon.health.add_ready("informer-sync", following);
    let shutdown = daemon.shutdown.clone();
    let ending = shutdown.clone();
    daemon.health.add_ready("shutdown", move || match ending.is_cancelled() {
        true => Err("the server shuts down".to_owned()),
        false => Ok(()),
    });
    let done = Arc::new(AtomicBool::new(false));
    for hook in BOOTSTRAP {
        let check = done.clone();
        daemon.health.add_ready(format!("poststarthook/{hook}"), move || {
            check.load(Ordering::Acquire).then_some(()).ok_or_else(|| "not finished".to_owned())
        });
    }
    tokio::spawn(bootstrap(app.clone(), presence, shutdown, done));
}

async fn bootstrap(
    app: Arc<App>,
    presence: Arc<Presence>,
    shutdown: CancellationToken,
    done: Arc<AtomicBool>,
) {
    let mut wait = Duration::from_millis(100);
    while !app.shutdown.is_cancelled() {
        let outcome = match app.security() {
            Ok(security) => match aggregation::local::reconcile(&app, true).await {
                Ok(()) => security.bootstrap().await,
                failed => failed,
            },
            Err(error) => Err(error),
        };
        let outcome = match outcome {
            Ok(()) => presence.announce().await,
            failed => failed,
        };
        match outcome {
            Ok(()) => {
                done.store(true, Ordering::Release);
                drop(app);
                return presence.run(shutdown).await;
            }
            Err(error) => tracing::warn!(error = error.message(), "bootstrap failed; trying again"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(5));
    }
}
