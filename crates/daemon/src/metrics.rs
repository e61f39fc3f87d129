//! The metrics of a daemon, those of its process included.

use bytes::Bytes;
use http::{HeaderMap, Response, header};
use http_body_util::Full;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The kernel reports CPU time to user space in hundredths of a second on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// The registry that `/metrics` shows. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Metrics {
    /// A registry that has the metrics of the process.
    pub fn new(daemon: &str) -> Metrics {
        let mut registry = Registry::default();
        let build = Info::new(vec![
            ("component", daemon.to_owned()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ]);
        registry.register("keelson_build", "Which daemon this is", build);
        registry.register_collector(Box::new(Process { started: SystemTime::now() }));
        Metrics { registry: Arc::new(Mutex::new(registry)) }
    }

    /// Registers metrics; `register` returns the handles that the caller keeps.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.registry.lock())
    }

    /// All metrics as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry.lock())
            .expect("writing to a string does not fail");
        text
    }

    /// Answers `/metrics`: OpenMetrics for who accepts it, Prometheus' older text for others.
    pub fn respond(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let (kind, text) = if accept.contains("application/openmetrics-text") {
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", self.encode())
        } else {
            ("text/plain; version=0.0.4; charset=utf-8", prometheus_text(&self.encode()))
        };
        Response::builder()
            .header(header::CONTENT_TYPE, kind)
            .body(Full::from(text))
            .expect("a constant header makes a response")
    }
}

/// Prometheus' text format 0.0.4 from OpenMetrics: there a counter's family has its samples' name, and
/// the types `info` and `unknown`, units and the end mark do not exist.
fn prometheus_text(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        if line.starts_with("# HELP ") {
            help = Some(line);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.rsplit_once(' ').unwrap_or((rest, "untyped"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some(help) = help.take().and_then(|h| h.strip_prefix("# HELP ")) {
                let text = help.strip_prefix(name).unwrap_or(help);
                out.push_str(&format!("# HELP {name}{suffix}{text}\n"));
            }
            out.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with("# UNIT ") && line != "# EOF" {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// Memory, CPU time, threads and files of this process, read when asked for.
#[derive(Debug)]
struct Process {
    started: SystemTime,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kilobytes = |key: &str| field(&status, key).unwrap_or(0) * 1024;
        let gauges = [
            ("process_resident_memory", "Resident memory", Some(Unit::Bytes), kilobytes("VmRSS:")),
            ("process_virtual_memory", "Virtual memory", Some(Unit::Bytes), kilobytes("VmSize:")),
            ("process_threads", "Threads", None, field(&status, "Threads:").unwrap_or(0)),
            ("process_open_fds", "Open file descriptors", None, open_files()),
        ];
        for (name, help, unit, value) in gauges {
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, unit.as_ref(), gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        let started = self.started.duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        let start = ConstGauge::new(started);
        let name = "process_start_time";
        let metric = encoder.encode_descriptor(
            name,
            "Start, since 1970",
            Some(&Unit::Seconds),
            start.metric_type(),
        )?;
        start.encode(metric)?;
        let cpu = ConstCounter::new(cpu_seconds());
        let metric = encoder.encode_descriptor(
            "process_cpu",
            "CPU time used",
            Some(&Unit::Seconds),
            cpu.metric_type(),
        )?;
        cpu.encode(metric)
    }
}

fn field(status: &str, key: &str) -> Option<i64> {
    status.lines().find_map(|l| l.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

fn open_files() -> i64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count() as i64)
}

/// User and system time, fields 14 and 15 of proc_pid_stat(5); the name before them may hold spaces.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks =
        after_name.split_whitespace().skip(11).take(2).filter_map(|f| f.parse::<f64>().ok()).sum::<f64>();
    ticks / TICKS_PER_SECOND
}
