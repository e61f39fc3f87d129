//! What is counted.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Default)]
pub struct Metrics {
    queries: Family<Outcome, Counter>,
}

impl Metrics {
    pub fn new(metrics: &keelson_daemon::Metrics) -> Self {
        let new = Self::default();
        metrics.register(|registry| {
            registry.register("dns_queries", "Queries, by who answered them", new.queries.clone());
        });
        new
    }

    /// `cluster`, `forwarded` or `failed`.
    pub fn answered(&self, outcome: &'static str) {
        self.queries.get_or_create(&Outcome { outcome }).inc();
    }
}
