//! Starting the server: store, caches, security, listener, and what has to be done once they are up.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use keelson_api_types::Gvr;
use keelson_daemon::Daemon;
use keelson_store::Store;
use tokio::task::JoinHandle;

use crate::alloc::Allocators;
use crate::app::App;
use crate::body::BoxError;
use crate::cache::Caches;
use crate::config::Config;
use crate::metrics::Requests;
use crate::node::NodeClient;
use crate::registry::Registry;
use crate::server::{Error, Listener};
use crate::types::{Objects, Security};

/// A server that is up.
pub struct Running {
    pub address: SocketAddr,
    pub app: Arc<App>,
    serving: JoinHandle<()>,
}

impl Running {
    /// Waits until shutdown has closed the last connection.
    pub async fn wait(self) {
        let _ = self.serving.await;
    }
}

/// Builds the security side over the objects of a server that will listen at the address.
pub type BuildSecurity =
    Box<dyn FnOnce(&Config, Arc<dyn Objects>, SocketAddr) -> Result<Arc<dyn Security>, BoxError> + Send>;

/// What the product is secured by.
pub fn product_security() -> BuildSecurity {
    Box::new(|config, objects, address| {
        let security = crate::security::build(config, objects, address)?;
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
    let caches = Caches::new(store);
    let registry = Registry::new(&caches);
    let node = NodeClient::new(&config).map_err(Error::Tls)?;
    let allocators = Allocators::new(&[config.service_cidr], config.node_port_range);
    let app = Arc::new(App {
        allocators,
        requests: Requests::new(&daemon.metrics, config.max_requests_in_flight),
        config,
        caches: caches.clone(),
        registry,
        security: OnceLock::new(),
        health: daemon.health.clone(),
        metrics: daemon.metrics.clone(),
        shutdown: daemon.shutdown.clone(),
        node,
        emptying: Default::default(),
    });
    caches.start(daemon.shutdown.clone()).await.map_err(Error::Load)?;
    load_allocators(&app);
    let built = security(&app.config, app.clone(), address).map_err(Error::Security)?;
    let _ = app.security.set(built);
    add_checks(&app, &daemon);
    tokio::spawn(crate::crd::run(app.clone()));
    let serving = tokio::spawn(listener.serve(app.clone()));
    tracing::info!(%address, "serving");
    Ok(Running { address, app, serving })
}

/// What the stored Services hold is taken.
fn load_allocators(app: &App) {
    let services = app.list(&Gvr::new("", "v1", "services"), "");
    app.allocators.load(services.iter().map(|s| &**s));
}

/// The checks behind `/livez` and `/readyz`, and the work that some of them wait for.
fn add_checks(app: &Arc<App>, daemon: &Daemon) {
    let weak = Arc::downgrade(app);
    let following = move || match weak.upgrade() {
        Some(app) if app.caches.is_following() => Ok(()),
        _ => Err("the watch of the store is down".to_owned()),
    };
    daemon.health.add("etcd", following.clone());
    daemon.health.add_ready("informer-sync", following);
    let shutdown = daemon.shutdown.clone();
    daemon.health.add_ready("shutdown", move || match shutdown.is_cancelled() {
        true => Err("the server shuts down".to_owned()),
        false => Ok(()),
    });
    let done = Arc::new(AtomicBool::new(false));
    let check = done.clone();
    daemon.health.add_ready("poststarthook/rbac/bootstrap-roles", move || {
        match check.load(Ordering::Acquire) {
            true => Ok(()),
            false => Err("not finished".to_owned()),
        }
    });
    tokio::spawn(bootstrap(app.clone(), done));
}

async fn bootstrap(app: Arc<App>, done: Arc<AtomicBool>) {
    let mut wait = Duration::from_millis(100);
    while !app.shutdown.is_cancelled() {
        let outcome = match app.security() {
            Ok(security) => match crate::apiservices::reconcile(&app).await {
                Ok(()) => security.bootstrap().await,
                failed => failed,
            },
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => {
                done.store(true, Ordering::Release);
                return;
            }
            Err(error) => tracing::warn!(error = error.message(), "bootstrap failed; trying again"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(5));
    }
}
