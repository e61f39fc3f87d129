//! What is counted of the webhooks that convert custom resources, under upstream's names.

use std::time::Duration;

use keelson_daemon::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::Histograms;

const CALLS: [f64; 15] =
    [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Conversion {
    crd_name: String,
    from_version: String,
    to_version: String,
    succeeded: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    result: &'static str,
    failure_type: &'static str,
}

/// Cheap to clone: all clones count together.
#[derive(Clone)]
pub struct ConversionMetrics {
    durations: Histograms<Conversion>,
    calls: Family<Call, Counter>,
    call_durations: Histograms<Call>,
}

impl ConversionMetrics {
    pub fn new(metrics: &Metrics) -> Self {
        let this = Self {
            durations: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 15))),
            calls: Family::default(),
            call_durations: Family::new_with_constructor(|| Histogram::new(CALLS)),
        };
        metrics.register(|all| {
            let api = all.sub_registry_with_prefix("apiserver");
            let help = "Time that conversions of a definition's objects took";
            api.register("crd_conversion_webhook_duration_seconds", help, this.durations.clone());
            let help = "Calls of conversion webhooks by how they end";
            api.register("conversion_webhook_request", help, this.calls.clone());
            let help = "Time that calls of conversion webhooks took";
            api.register("conversion_webhook_duration_seconds", help, this.call_durations.clone());
        });
        this
    }

    /// Notes a call; versions are names without their group. `failure` is upstream's name of its kind.
    pub fn converted(&self, crd: &str, from: &str, to: &str, failure: Option<&'static str>, took: Duration) {
        let (took, failed) = (took.as_secs_f64(), failure.is_some());
        let labels = Conversion {
            crd_name: crd.to_owned(),
            from_version: from.to_owned(),
            to_version: to.to_owned(),
            succeeded: if failed { "false" } else { "true" },
        };
        self.durations.get_or_create(&labels).observe(took);
        let result = if failed { "failure" } else { "success" };
        let labels = Call { result, failure_type: failure.unwrap_or_default() };
        self.calls.get_or_create(&labels).inc();
        self.call_durations.get_or_create(&labels).observe(took);
    }
}
