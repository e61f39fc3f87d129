//! What the server counts about its requests, under upstream's names.

mod admission;
mod conversion;
mod store;
pub mod x509;

pub use admission::{AdmissionMetrics, Called};
pub use conversion::ConversionMetrics;
pub use store::Metered;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};
use std::time::Instant;

use http::{HeaderMap, Method};
use hyper::body::Body as _;
use keelson_daemon::Metrics;
use parking_lot::{Mutex, RwLock};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::app::App;
use crate::body::Response;
use crate::request::{Query, RequestInfo};
use crate::types::Operation;

/// Upstream's, with finer ones below: most answers here take less than its first.
const DURATIONS: [f64; 25] = [
    0.0005, 0.001, 0.0025, 0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0,
    6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 60.0,
];
const ADMISSION: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const COMPONENT: &str = "apiserver";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RunLabels {
    verb: &'static str,
    dry_run: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    verb: &'static str,
    dry_run: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    request_kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabels {
    group: String,
    version: String,
    resource: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    operation: &'static str,
    rejected: &'static str,
    r#type: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Counters of requests. A request finds its own by one look-up, without making a string.
pub struct Requests {
    total: Family<CodeLabels, Counter>,
    duration: Histograms<RunLabels>,
    sizes: Histograms<Labels>,
    long_running: Family<Labels, Gauge>,
    watch_events: Family<WatchLabels, Counter>,
    admission: Histograms<StepLabels>,
    in_flight: [Gauge; 2],
    hasher: RandomState,
    found: RwLock<HashMap<u64, Arc<Counters>>>,
}

/// The counters of all requests that have the same labels.
struct Counters {
    run: RunLabels,
    codes: Mutex<Vec<(u16, Counter)>>,
    duration: Histogram,
    sizes: Histogram,
    long_running: Gauge,
}

/// A request that is being served.
pub struct Started {
    counters: Arc<Counters>,
    at: Instant,
    /// Counted until dropped: among those in flight, or those that last.
    under_way: Option<UnderWay>,
    lasts: bool,
}

/// Counts something that goes on.
pub struct UnderWay(Gauge);

impl UnderWay {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Requests {
    pub fn new(metrics: &Metrics) -> Self {
        let in_flight: Family<KindLabels, Gauge> = Family::default();
        let kind = |request_kind| in_flight.get_or_create_owned(&KindLabels { request_kind });
        let this = Self {
            total: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            sizes: Family::new_with_constructor(|| Histogram::new(exponential_buckets(1000.0, 10.0, 7))),
            long_running: Family::default(),
            watch_events: Family::default(),
            admission: Family::new_with_constructor(|| Histogram::new(ADMISSION)),
            in_flight: [kind("readOnly"), kind("mutating")],
            hasher: RandomState::new(),
            found: RwLock::default(),
        };
        metrics.register(|all| {
            let api = all.sub_registry_with_prefix("apiserver");
            api.register("request", "Requests by what they ask for and how they end", this.total.clone());
            api.register(
                "request_duration_seconds",
                "Time to the start of the response",
                this.duration.clone(),
            );
            api.register("response_sizes", "Bytes of answers to reads", this.sizes.clone());
            api.register("longrunning_requests", "Watches and streams", this.long_running.clone());
            api.register("current_inflight_requests", "Requests that are being served", in_flight.clone());
            api.register("watch_events", "Events sent to watches", this.watch_events.clone());
            let help = "Time that a step of admission took";
            api.register("admission_step_admission_duration_seconds", help, this.admission.clone());
        });
        this
    }

    /// `known` says whether what the request names exists: what does not would let clients make up labels without end.
    pub fn begin(
        &self,
        method: &Method,
        headers: &HeaderMap,
        info: &RequestInfo,
        query: &Query,
        known: impl FnOnce() -> bool,
    ) -> Started {
        let (verb, scope) = (verb(method, headers, info), scope(info));
        let dry_run = if query.get("dryRun").is_some_and(|v| !v.is_empty()) { "All" } else { "" };
        let names = (&*info.group, &*info.version, &*info.resource, &*info.subresource);
        let key = self.hasher.hash_one((verb, scope, dry_run, names));
        let found = self.found.read().get(&key).cloned();
        let counters = found.unwrap_or_else(|| {
            let keep = known();
            let text = |text: &str| if keep { text.to_owned() } else { String::new() };
            let run = RunLabels {
                verb,
                dry_run,
                group: text(&info.group),
                version: text(&info.version),
                resource: text(&info.resource),
                subresource: text(&info.subresource),
                scope,
                component: COMPONENT,
            };
            let counters = Arc::new(self.counters(run));
            if keep {
                self.found.write().insert(key, counters.clone());
            }
            counters
        });
        let lasts = info.is_long_running();
        let gauge = match (lasts, matches!(&*info.verb, "get" | "list" | "watch")) {
            (true, _) => &counters.long_running,
            (false, reads) => &self.in_flight[usize::from(!reads)],
        };
        Started { under_way: Some(UnderWay::new(gauge)), at: Instant::now(), lasts, counters }
    }

    fn counters(&self, run: RunLabels) -> Counters {
        let RunLabels { verb, group, version, resource, subresource, scope, component, .. } = run.clone();
        let labels = Labels { verb, group, version, resource, subresource, scope, component };
        Counters {
            codes: Mutex::default(),
            duration: self.duration.get_or_create_owned(&run),
            sizes: self.sizes.get_or_create_owned(&labels),
            long_running: self.long_running.get_or_create_owned(&labels),
            run,
        }
    }

    /// Counts the answer; what lasts is held by its body and counted until that ends.
    pub fn end(&self, mut started: Started, response: Response) -> Response {
        let (code, counters) = (response.status().as_u16(), &started.counters);
        let mut codes = counters.codes.lock();
        match codes.iter().find(|(known, _)| *known == code) {
            Some((_, counter)) => drop(counter.inc()),
            None => {
                let RunLabels { verb, dry_run, group, version, resource, subresource, scope, component } =
                    counters.run.clone();
                let labels = CodeLabels {
                    verb,
                    dry_run,
                    group,
                    version,
                    resource,
                    subresource,
                    scope,
                    component,
                    code,
                };
                let counter = self.total.get_or_create_owned(&labels);
                counter.inc();
                codes.push((code, counter));
            }
        }
        drop(codes);
        if started.lasts {
            let under_way = started.under_way.take();
            return response.map(|body| body.hold(under_way));
        }
        counters.duration.observe(started.at.elapsed().as_secs_f64());
        if matches!(counters.run.verb, "GET" | "LIST")
            && let Some(size) = response.body().size_hint().exact()
        {
            counters.sizes.observe(size as f64);
        }
        response
    }

    /// The counter of events that watches of a resource are sent.
    pub fn watch_events(&self, group: &str, version: &str, resource: &str) -> Counter {
        let labels = WatchLabels { group: group.into(), version: version.into(), resource: resource.into() };
        self.watch_events.get_or_create_owned(&labels)
    }

    /// Notes how long one of admission's two steps took.
    pub fn admitted(&self, operation: Operation, mutates: bool, rejected: bool, since: Instant) {
        let labels = StepLabels {
            operation: operation.as_str(),
            rejected: if rejected { "true" } else { "false" },
            r#type: if mutates { "admit" } else { "validate" },
        };
        self.admission.get_or_create(&labels).observe(since.elapsed().as_secs_f64());
    }
}

/// Upstream's name of what a request does: mostly the method.
fn verb(method: &Method, headers: &HeaderMap, info: &RequestInfo) -> &'static str {
    let applies = || {
        let kind = headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        kind.is_some_and(|kind| kind.starts_with("application/apply-patch"))
    };
    match (&*info.verb, &*info.subresource) {
        (_, "exec" | "attach" | "portforward" | "proxy") => "CONNECT",
        ("list", _) => "LIST",
        ("watch", _) => "WATCH",
        ("deletecollection", _) => "DELETECOLLECTION",
        _ => match *method {
            Method::GET | Method::HEAD => "GET",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::DELETE => "DELETE",
            Method::PATCH if applies() => "APPLY",
            Method::PATCH => "PATCH",
            _ => "other",
        },
    }
}

fn scope(info: &RequestInfo) -> &'static str {
    match (info.is_resource, &*info.name, &*info.namespace) {
        (false, ..) => "",
        (true, "", _) if info.verb == "create" => "resource",
        (true, "", "") => "cluster",
        (true, "", _) => "namespace",
        (true, ..) => "resource",
    }
}

/// Shows how many objects there are.
pub fn collect_objects(metrics: &Metrics, app: &Arc<App>) {
    let collector = Objects(Arc::downgrade(app));
    metrics.register(|registry| registry.register_collector(Box::new(collector)));
}

struct Objects(Weak<App>);

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Objects")
    }
}

impl Collector for Objects {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(app) = self.0.upgrade() else { return Ok(()) };
        let mut seen: HashMap<Arc<str>, (String, String, usize, usize)> = HashMap::new();
        for resource in app.registry.all().into_iter().filter(|r| r.is_stored()) {
            let (count, bytes) = resource.cache.size();
            let (group, name) = (resource.gvr.group.clone(), resource.gvr.resource.clone());
            seen.entry(resource.storage.clone()).or_insert((group, name, count, bytes));
        }
        let mut family = encoder.encode_descriptor(
            "apiserver_resource_objects",
            "Objects stored",
            None,
            MetricType::Gauge,
        )?;
        for (group, resource, count, _) in seen.values() {
            let labels = [("group", group.as_str()), ("resource", resource.as_str())];
            family.encode_family(&labels)?.encode_gauge(&(*count as i64))?;
        }
        let mut family = encoder.encode_descriptor(
            "apiserver_storage_objects",
            "Objects stored",
            None,
            MetricType::Gauge,
        )?;
        for (group, resource, count, _) in seen.values() {
            let name = if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
            family.encode_family(&[("resource", name.as_str())])?.encode_gauge(&(*count as i64))?;
        }
        let (name, help) = ("apiserver_resource_size_estimate_bytes", "Bytes of objects stored");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (group, resource, _, bytes) in seen.values() {
            let labels = [("group", group.as_str()), ("resource", resource.as_str())];
            family.encode_family(&labels)?.encode_gauge(&(*bytes as i64))?;
        }
        Ok(())
    }
}
