//! What all controllers share: the client, one informer per resource, metrics.

use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use keelson_client::{CancellationToken, EventRecorder, Informer, Key, Projected, WorkQueue, controller};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::config::Config;
use crate::discovery::Discovery;
use crate::kit::{CONTROLLER, Error, Requests, by_controller};
use crate::views::*;

/// The name of the index of pods by node; those without one are under the empty name.
pub const NODE: &str = "node";

pub struct Context {
    pub config: Config,
    pub requests: Requests,
    pub informers: Informers,
    pub discovery: Discovery,
    pub shutdown: CancellationToken,
    metrics: Metrics,
    host: String,
}

/// One informer per resource whose objects are read; the garbage collector watches the others' metadata.
pub struct Informers {
    pub pods: Arc<Informer<Pod>>,
    pub nodes: Arc<Informer<Node>>,
    pub leases: Arc<Informer<Lease>>,
    pub namespaces: Arc<Informer<Namespace>>,
    pub service_accounts: Arc<Informer<ServiceAccount>>,
    /// Only the authority's, one per namespace.
    pub root_cas: Arc<Informer<ConfigMap>>,
    pub services: Arc<Informer<Service>>,
    pub slices: Arc<Informer<EndpointSlice>>,
    pub endpoints: Arc<Informer<Endpoints>>,
    pub replica_sets: Arc<Informer<ReplicaSet>>,
    pub replication_controllers: Arc<Informer<ReplicationController>>,
    pub deployments: Arc<Informer<Deployment>>,
    pub daemon_sets: Arc<Informer<DaemonSet>>,
    pub stateful_sets: Arc<Informer<StatefulSet>>,
    pub revisions: Arc<Informer<ControllerRevision>>,
    pub jobs: Arc<Informer<Job>>,
    pub cron_jobs: Arc<Informer<CronJob>>,
    pub budgets: Arc<Informer<DisruptionBudget>>,
    pub quotas: Arc<Informer<ResourceQuota>>,
    pub claims: Arc<Informer<PersistentVolumeClaim>>,
    pub volumes: Arc<Informer<PersistentVolume>>,
    pub attribute_classes: Arc<Informer<VolumeAttributesClass>>,
    pub certificate_requests: Arc<Informer<CertificateRequest>>,
    pub cluster_roles: Arc<Informer<ClusterRole>>,
    pub definitions: Arc<Informer<CustomResourceDefinition>>,
    /// Where the feature is on.
    pub migrations: Option<Arc<Informer<StorageVersionMigration>>>,
}

fn owned<P: Projected>(client: &kube::Client) -> Arc<Informer<P>> {
    Informer::<P>::new(client).index(CONTROLLER, |p| by_controller(p.meta())).start()
}

fn plain<P: Projected>(client: &kube::Client) -> Arc<Informer<P>> {
    Informer::<P>::new(client).start()
}

impl Informers {
    pub fn start(client: &kube::Client, config: &Config) -> Informers {
        let pods = Informer::<Pod>::new(client)
            .index(CONTROLLER, |p| by_controller(&p.metadata))
            .index(NODE, |p| vec![p.spec.node_name.clone()])
            .start();
        let root_cas = Informer::<ConfigMap>::new(client)
            .fields(format!("metadata.name={}", crate::controllers::root_ca::NAME))
            .start();
        Informers {
            pods,
            nodes: plain(client),
            leases: Informer::<Lease>::new(client)
                .namespace(crate::controllers::node_lifecycle::LEASES)
                .start(),
            namespaces: plain(client),
            service_accounts: plain(client),
            root_cas,
            services: plain(client),
            slices: plain(client),
            endpoints: plain(client),
            replica_sets: owned(client),
            replication_controllers: plain(client),
            deployments: plain(client),
            daemon_sets: plain(client),
            stateful_sets: plain(client),
            revisions: owned(client),
            jobs: owned(client),
            cron_jobs: plain(client),
            budgets: plain(client),
            quotas: plain(client),
            claims: plain(client),
            volumes: plain(client),
            attribute_classes: plain(client),
            certificate_requests: plain(client),
            cluster_roles: plain(client),
            definitions: plain(client),
            migrations: config.feature_gates.storage_version_migrator.then(|| plain(client)),
        }
    }

    /// Whether all that controllers count in has been listed once.
    pub fn waiting_for(&self) -> Option<&'static str> {
        let all = [
            ("pods", self.pods.has_synced()),
            ("nodes", self.nodes.has_synced()),
            ("leases", self.leases.has_synced()),
            ("namespaces", self.namespaces.has_synced()),
            ("serviceaccounts", self.service_accounts.has_synced()),
            ("configmaps", self.root_cas.has_synced()),
            ("services", self.services.has_synced()),
            ("endpointslices", self.slices.has_synced()),
            ("endpoints", self.endpoints.has_synced()),
            ("replicasets", self.replica_sets.has_synced()),
            ("replicationcontrollers", self.replication_controllers.has_synced()),
            ("deployments", self.deployments.has_synced()),
            ("daemonsets", self.daemon_sets.has_synced()),
            ("statefulsets", self.stateful_sets.has_synced()),
            ("controllerrevisions", self.revisions.has_synced()),
            ("jobs", self.jobs.has_synced()),
            ("cronjobs", self.cron_jobs.has_synced()),
            ("poddisruptionbudgets", self.budgets.has_synced()),
            ("resourcequotas", self.quotas.has_synced()),
            ("persistentvolumeclaims", self.claims.has_synced()),
            ("persistentvolumes", self.volumes.has_synced()),
            ("volumeattributesclasses", self.attribute_classes.has_synced()),
            ("certificatesigningrequests", self.certificate_requests.has_synced()),
            ("clusterroles", self.cluster_roles.has_synced()),
        ];
        all.into_iter().find(|(_, synced)| !synced).map(|(name, _)| name)
    }

    pub async fn synced(&self) {
        tokio::join!(
            self.pods.synced(),
            self.nodes.synced(),
            self.leases.synced(),
            self.namespaces.synced(),
            self.service_accounts.synced(),
            self.root_cas.synced(),
            self.services.synced(),
            self.slices.synced(),
            self.endpoints.synced(),
            self.replica_sets.synced(),
            self.replication_controllers.synced(),
            self.deployments.synced(),
        );
        tokio::join!(
            self.daemon_sets.synced(),
            self.stateful_sets.synced(),
            self.revisions.synced(),
            self.jobs.synced(),
            self.cron_jobs.synced(),
            self.budgets.synced(),
            self.quotas.synced(),
            self.claims.synced(),
            self.volumes.synced(),
            self.attribute_classes.synced(),
            self.certificate_requests.synced(),
            self.cluster_roles.synced(),
        );
    }
}

impl Context {
    pub fn new(
        config: Config,
        client: &kube::Client,
        informers: Informers,
        metrics: Metrics,
        shutdown: CancellationToken,
    ) -> Context {
        Context {
            config,
            requests: Requests::new(client),
            informers,
            discovery: Discovery::new(client),
            shutdown,
            metrics,
            host: crate::host_name(),
        }
    }

    /// Events whose source is `component`.
    pub fn events(&self, component: &str) -> EventRecorder {
        EventRecorder::new(self.requests.client().clone(), component, &self.host)
    }

    /// Reconciles the queue's keys until shutdown, counting what it does.
    pub async fn work<K, F, Fut>(&self, name: &'static str, queue: WorkQueue<K>, workers: usize, reconcile: F)
    where
        K: Clone + Eq + Hash + std::fmt::Display + Send + Sync + 'static,
        F: Fn(K) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let label = Controller { name };
        let depth = self.metrics.depth.get_or_create(&label).clone();
        let (reconciles, errors) = (
            self.metrics.reconciles.get_or_create(&label).clone(),
            self.metrics.errors.get_or_create(&label).clone(),
        );
        let waiting = queue.clone();
        let counted = move |key: K| {
            depth.set(waiting.len() as i64);
            reconciles.inc();
            let (work, errors) = (reconcile(key), errors.clone());
            async move {
                let result = work.await;
                if result.is_err() {
                    errors.inc();
                }
                result
            }
        };
        controller::run(name, queue, workers, counted, self.shutdown.clone()).await;
    }
}

/// Queues the key of each object that is added, changed or deleted.
pub fn enqueue<P: Projected>(informer: &Informer<P>, queue: &WorkQueue<Key>) {
    let queue = queue.clone();
    informer.on_change(move |change| queue.add(change.object().key()));
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Controller {
    name: &'static str,
}

/// The work queues' metrics, under upstream's names.
#[derive(Clone, Default)]
pub struct Metrics {
    depth: Family<Controller, Gauge>,
    reconciles: Family<Controller, Counter>,
    errors: Family<Controller, Counter>,
}

impl Metrics {
    pub fn new(metrics: &keelson_daemon::Metrics) -> Metrics {
        let new = Metrics::default();
        metrics.register(|registry| {
            registry.register("workqueue_depth", "Keys that wait", new.depth.clone());
            registry.register("workqueue_adds", "Keys that were worked on", new.reconciles.clone());
            registry.register("workqueue_retries", "Reconciles that failed", new.errors.clone());
        });
        new
    }
}
