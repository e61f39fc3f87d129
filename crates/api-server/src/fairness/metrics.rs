//! What flow control counts, under upstream's names.

use std::collections::HashMap;
use std::fmt::Error;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::Fairness;
use super::level::{Level, Schema};
use super::queueset::Refusal;

const DURATIONS: [f64; 16] =
    [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0];
const WIDTHS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];
const WATCHES: [f64; 6] = [0.0, 1.0, 10.0, 100.0, 1000.0, 10000.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    priority_level: String,
    flow_schema: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    priority_level: String,
    flow_schema: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WaitLabels {
    priority_level: String,
    flow_schema: String,
    execute: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// The families; a schema holds its own members of them, so that a request looks nothing up.
pub struct FlowMetrics {
    rejected: Family<RefusalLabels, Counter>,
    dispatched: Family<Labels, Counter>,
    waited: Histograms<WaitLabels>,
    executed: Histograms<Labels>,
    width: Histograms<Labels>,
    watches: Histograms<Labels>,
    pub fair_fraction: Gauge<f64, AtomicU64>,
}

/// A schema's own counters.
#[derive(Debug)]
pub struct SchemaStats {
    pub dispatched: Counter,
    pub waited: Histogram,
    pub waited_in_vain: Histogram,
    pub executed: Histogram,
    pub width: Histogram,
    pub watches: Histogram,
}

impl FlowMetrics {
    pub fn new(metrics: &keelson_daemon::Metrics) -> Self {
        let durations = || Histogram::new(DURATIONS);
        let this = Self {
            rejected: Family::default(),
            dispatched: Family::default(),
            waited: Family::new_with_constructor(durations),
            executed: Family::new_with_constructor(durations),
            width: Family::new_with_constructor(|| Histogram::new(WIDTHS)),
            watches: Family::new_with_constructor(|| Histogram::new(WATCHES)),
            fair_fraction: Gauge::default(),
        };
        metrics.register(|registry| {
            let flow = registry.sub_registry_with_prefix("apiserver_flowcontrol");
            flow.register("rejected_requests", "Requests refused, by reason", this.rejected.clone());
            flow.register("dispatched_requests", "Requests begun", this.dispatched.clone());
            flow.register("request_wait_duration_seconds", "Time spent waiting", this.waited.clone());
            flow.register("request_execution_seconds", "Time spent running", this.executed.clone());
            flow.register("work_estimated_seats", "Estimated widths of requests", this.width.clone());
            flow.register("watch_count_samples", "Watches that writes concern", this.watches.clone());
            flow.register(
                "seat_fair_frac",
                "Part of their target that levels get",
                this.fair_fraction.clone(),
            );
        });
        this
    }

    pub fn rejected(&self, schema: &Schema, refusal: Refusal) {
        let labels = RefusalLabels {
            priority_level: schema.level.name.to_string(),
            flow_schema: schema.name.to_string(),
            reason: refusal.as_str(),
        };
        self.rejected.get_or_create(&labels).inc();
    }

    pub fn of(&self, level: &str, schema: &str) -> SchemaStats {
        let labels = Labels { priority_level: level.into(), flow_schema: schema.into() };
        let waited = |execute| {
            self.waited.get_or_create_owned(&WaitLabels {
                priority_level: level.into(),
                flow_schema: schema.into(),
                execute,
            })
        };
        SchemaStats {
            dispatched: self.dispatched.get_or_create_owned(&labels),
            waited: waited("true"),
            waited_in_vain: waited("false"),
            executed: self.executed.get_or_create_owned(&labels),
            width: self.width.get_or_create_owned(&labels),
            watches: self.watches.get_or_create_owned(&labels),
        }
    }
}

/// Shows what the levels hold at the moment they are asked.
pub fn collect(metrics: &keelson_daemon::Metrics, fairness: &Arc<Fairness>) {
    let collector = Levels(Arc::downgrade(fairness));
    metrics.register(|registry| registry.register_collector(Box::new(collector)));
}

struct Levels(Weak<Fairness>);

impl std::fmt::Debug for Levels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Levels")
    }
}

/// A gauge's name and help, and how its value is read.
type Shown<T, V> = (&'static str, &'static str, fn(&T) -> V);

/// What one schema's requests of a level hold.
#[derive(Default)]
struct Held {
    executing: u64,
    seats: u64,
    waiting: u64,
    waiting_seats: u64,
}

impl Collector for Levels {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Some(fairness) = self.0.upgrade() else { return Ok(()) };
        let table = fairness.table.load();
        let mut held: HashMap<(String, String), Held> = HashMap::new();
        for schema in &table.schemas {
            held.entry((schema.level.name.to_string(), schema.name.to_string())).or_default();
        }
        for level in &table.levels {
            for (_, request) in level.set.lock().requests() {
                let key = (level.name.to_string(), request.tag.schema.name.to_string());
                let (held, width) = (held.entry(key).or_default(), u64::from(request.estimate.width()));
                match request.started {
                    Some(_) => (held.executing, held.seats) = (held.executing + 1, held.seats + width),
                    None => {
                        (held.waiting, held.waiting_seats) = (held.waiting + 1, held.waiting_seats + width)
                    }
                }
            }
        }
        let by_schema: [Shown<Held, u64>; 5] = [
            ("current_executing_requests", "Requests that run", |h| h.executing),
            ("current_executing_seats", "Seats of requests that run", |h| h.seats),
            ("request_concurrency_in_use", "Seats of requests that run", |h| h.seats),
            ("current_inqueue_requests", "Requests that wait", |h| h.waiting),
            ("current_inqueue_seats", "Seats of requests that wait", |h| h.waiting_seats),
        ];
        for (name, help, value) in by_schema {
            let name = format!("apiserver_flowcontrol_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            for ((level, schema), held) in &held {
                let labels = [("priority_level", level.as_str()), ("flow_schema", schema.as_str())];
                family.encode_family(&labels)?.encode_gauge(&(value(held) as i64))?;
            }
        }
        encode_limits(&mut encoder, &table.levels)
    }
}

fn encode_limits(encoder: &mut DescriptorEncoder<'_>, levels: &[Arc<Level>]) -> Result<(), Error> {
    let by_level: [Shown<Level, f64>; 10] = [
        ("nominal_limit_seats", "Seats by the configuration", |l| l.limits.lock().nominal as f64),
        ("request_concurrency_limit", "Seats by the configuration", |l| l.limits.lock().nominal as f64),
        ("lower_limit_seats", "Seats that are not lent", |l| l.limits.lock().min as f64),
        ("upper_limit_seats", "Seats with all that may be borrowed", |l| l.limits.lock().max as f64),
        ("current_limit_seats", "Seats at present", |l| l.limits.lock().current as f64),
        ("demand_seats_high_watermark", "Greatest demand of the last period", |l| {
            l.limits.lock().demand.max as f64
        }),
        ("demand_seats_average", "Average demand of the last period", |l| l.limits.lock().demand.average),
        ("demand_seats_stdev", "Deviation of the demand", |l| l.limits.lock().demand.deviation),
        ("demand_seats_smoothed", "Smoothed demand", |l| l.limits.lock().smoothed),
        ("target_seats", "Seats aimed at", |l| l.limits.lock().target),
    ];
    for (name, help, value) in by_level {
        let name = format!("apiserver_flowcontrol_{name}");
        let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
        for level in levels {
            family.encode_family(&[("priority_level", &*level.name)])?.encode_gauge(&value(level))?;
        }
    }
    let name = "apiserver_flowcontrol_current_r";
    let mut family = encoder.encode_descriptor(name, "Virtual time", None, MetricType::Gauge)?;
    for level in levels {
        let r = level.set.lock().current_r();
        family.encode_family(&[("priority_level", &*level.name)])?.encode_gauge(&r)?;
    }
    Ok(())
}
