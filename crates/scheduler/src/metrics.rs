//! The scheduler's metrics, under upstream's names.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::state::State;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Attempt {
    /// `scheduled`, `unschedulable` or `error`.
    result: &'static str,
    profile: String,
}

#[derive(Clone)]
pub struct Metrics {
    attempts: Family<Attempt, Counter>,
    duration: Histogram,
    preemptions: Counter,
}

impl Metrics {
    pub fn new(metrics: &keelson_daemon::Metrics, state: Arc<State>) -> Self {
        let seconds = (0..15).map(|i| 0.0001 * f64::from(1 << i));
        let new = Self {
            attempts: Family::default(),
            duration: Histogram::new(seconds),
            preemptions: Counter::default(),
        };
        metrics.register(|registry| {
            let help = "Attempts to place pods, by result";
            registry.register("scheduler_schedule_attempts", help, new.attempts.clone());
            let help = "Seconds from taking a pod from the queue to the decision";
            registry.register("scheduler_scheduling_algorithm_duration_seconds", help, new.duration.clone());
            let help = "Times that room was made by evicting pods";
            registry.register("scheduler_preemption_attempts", help, new.preemptions.clone());
            registry.register_collector(Box::new(Pending(state)));
        });
        new
    }

    pub fn attempt(&self, result: &'static str, profile: &str, took: std::time::Duration) {
        self.attempts.get_or_create(&Attempt { result, profile: profile.to_owned() }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    pub fn preempted(&self) {
        self.preemptions.inc();
    }
}

/// Counted when asked for.
struct Pending(Arc<State>);

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pending")
    }
}

impl Collector for Pending {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Pods that wait to be placed, by queue";
        let gauge = ConstGauge::new(0_i64);
        let mut family =
            encoder.encode_descriptor("scheduler_pending_pods", help, None, gauge.metric_type())?;
        for (queue, count) in self.0.lock().queue.lengths() {
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(family.encode_family(&[("queue", queue)])?)?;
        }
        Ok(())
    }
}
