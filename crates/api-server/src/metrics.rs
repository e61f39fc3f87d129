//! What the server counts about its requests, under upstream's names.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use keelson_api_types::StatusError;
use keelson_daemon::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::request::RequestInfo;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct VerbLabels {
    verb: String,
    resource: String,
}

/// Counters of requests, and the limit of those under way.
pub struct Requests {
    total: Family<RequestLabels, Counter>,
    duration: Family<VerbLabels, Histogram>,
    watches: Gauge,
    in_flight: Arc<AtomicUsize>,
    limit: usize,
}

/// What is known of a request before it is served.
pub struct Label {
    pub path: String,
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
}

/// A place among the requests under way, given back when dropped.
pub struct InFlight(Arc<AtomicUsize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Requests {
    pub fn new(metrics: &Metrics, limit: usize) -> Self {
        let duration: Family<VerbLabels, Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0005, 2.5, 10)));
        let this = Self {
            total: Family::default(),
            duration,
            watches: Gauge::default(),
            in_flight: Arc::default(),
            limit,
        };
        metrics.register(|registry| {
            registry.register("apiserver_request", "Requests by verb, resource and code", this.total.clone());
            registry.register(
                "apiserver_request_duration_seconds",
                "Time to the start of the response, watches aside",
                this.duration.clone(),
            );
            registry.register("apiserver_longrunning_requests", "Watches and streams", this.watches.clone());
        });
        this
    }

    pub fn begin(&self, info: &RequestInfo) -> Label {
        Label {
            path: info.path.clone(),
            verb: info.verb.to_ascii_uppercase(),
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
        }
    }

    pub fn end(&self, label: &Label, status: StatusCode, took: Duration) {
        // What does not exist would let clients make up labels without end.
        let known = status != StatusCode::NOT_FOUND;
        let keep = |text: &String| if known { text.clone() } else { String::new() };
        let labels = RequestLabels {
            verb: label.verb.clone(),
            group: keep(&label.group),
            version: keep(&label.version),
            resource: keep(&label.resource),
            subresource: keep(&label.subresource),
            code: status.as_u16(),
        };
        self.total.get_or_create(&labels).inc();
        if label.verb != "WATCH" {
            let labels = VerbLabels { verb: labels.verb, resource: labels.resource };
            self.duration.get_or_create(&labels).observe(took.as_secs_f64());
        }
    }

    /// Refuses when too many requests are under way.
    pub fn slot(&self) -> Result<InFlight, StatusError> {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) >= self.limit {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            return Err(StatusError::too_many_requests("Too many requests, please try again later.", 1));
        }
        Ok(InFlight(self.in_flight.clone()))
    }
}
