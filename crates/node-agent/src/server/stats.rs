//! What pods and the node use: the summary that upstream's tools read, and the same as metrics.

use crate::context::Context;
use crate::pods::{Manager, labels, resources, spec};
use k8s_openapi::api::core::v1::Pod;
use keelson_cri::v1::ContainerStats;
use keelson_host::cgroup::Usage;
use keelson_host::system;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use tokio::time::Instant;

pub struct Stats {
    ctx: Arc<Context>,
    manager: Manager,
    /// The last CPU reading of each thing, for rates.
    last: Mutex<HashMap<String, (Instant, u64, u64)>>,
    started: jiff::Timestamp,
}

/// One container's numbers.
struct Sample {
    namespace: String,
    pod: String,
    container: String,
    cpu_nanos: u64,
    working_set: u64,
    rss: u64,
}

/// Name, kind and value of a metric.
type Family<'a> = (&'a str, &'a str, &'a dyn Fn(&Sample) -> f64);

fn number(value: Option<&keelson_cri::v1::UInt64Value>) -> u64 {
    value.map_or(0, |v| v.value)
}

fn now_text() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl Stats {
    pub fn new(ctx: Arc<Context>, manager: Manager) -> Self {
        Self { ctx, manager, last: Mutex::default(), started: jiff::Timestamp::now() }
    }

    /// CPU in billionths of a core since the last reading that is old enough to tell.
    fn rate(&self, key: &str, nanos: u64) -> u64 {
        let mut last = self.last.lock();
        let now = Instant::now();
        let (at, before, rate) = last.entry(key.to_owned()).or_insert((now, nanos, 0));
        let passed = at.elapsed();
        if passed.as_millis() >= 900 {
            let rate_now =
                u128::from(nanos.saturating_sub(*before)) * 1_000_000_000 / passed.as_nanos().max(1);
            (*at, *before, *rate) = (now, nanos, rate_now as u64);
        }
        *rate
    }

    fn cpu(&self, key: &str, nanos: u64) -> Value {
        json!({ "time": now_text(), "usageNanoCores": self.rate(key, nanos), "usageCoreNanoSeconds": nanos })
    }

    fn memory(usage: &Usage) -> Value {
        json!({
            "time": now_text(),
            "usageBytes": usage.memory_bytes,
            "workingSetBytes": usage.working_set_bytes,
            "rssBytes": usage.rss_bytes,
            "pageFaults": usage.page_faults,
            "majorPageFaults": usage.major_page_faults,
        })
    }

    fn file_system(path: &std::path::Path) -> Value {
        let space = system::space(path).unwrap_or_default();
        json!({
            "time": now_text(),
            "availableBytes": space.available_bytes,
            "capacityBytes": space.total_bytes,
            "usedBytes": space.used_bytes,
            "inodes": space.inodes,
            "inodesFree": space.inodes_free,
            "inodesUsed": space.inodes.saturating_sub(space.inodes_free),
        })
    }

    fn node_usage(&self) -> Usage {
        let mut usage = self.ctx.cgroups.usage("/").unwrap_or_default();
        let memory = system::meminfo().unwrap_or_default();
        let get = |k: &str| memory.get(k).copied().unwrap_or(0);
        usage.memory_bytes = get("MemTotal").saturating_sub(get("MemFree"));
        usage.working_set_bytes = get("MemTotal").saturating_sub(get("MemAvailable"));
        usage
    }

    pub async fn summary(&self) -> Value {
        let ctx = &self.ctx;
        let containers = ctx.runtime.list_container_stats().await.unwrap_or_default();
        let mut by_pod: HashMap<String, Vec<ContainerStats>> = HashMap::new();
        for stats in containers {
            let uid = stats.attributes.as_ref().and_then(|a| a.labels.get(labels::POD_UID)).cloned();
            by_pod.entry(uid.unwrap_or_default()).or_default().push(stats);
        }
        let pods: Vec<Value> = self
            .manager
            .pods()
            .iter()
            .filter(|p| !spec::is_terminal(p))
            .map(|pod| self.pod(pod, by_pod.remove(spec::uid(pod)).unwrap_or_default()))
            .collect();
        let node = self.node_usage();
        let started = self.started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let file_system = Self::file_system(&ctx.config.state_dir);
        json!({
            "node": {
                "nodeName": ctx.node_name,
                "startTime": started,
                "cpu": self.cpu("node", node.cpu_nanos),
                "memory": Self::memory(&node),
                "fs": file_system,
                "runtime": { "imageFs": file_system, "containerFs": file_system },
                "rlimit": { "time": now_text(), "maxpid": system::pid_max(), "curproc": node.processes },
            },
            "pods": pods,
        })
    }

    fn pod(&self, pod: &Pod, containers: Vec<ContainerStats>) -> Value {
        let cgroup = resources::pod_cgroup(&self.ctx.config.cgroup_root, pod);
        let usage = self.ctx.cgroups.usage(&cgroup).unwrap_or_default();
        let started = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0.to_string());
        let containers: Vec<Value> = containers.into_iter().map(|c| self.container(pod, &c)).collect();
        json!({
            "podRef": { "name": spec::name(pod), "namespace": spec::namespace(pod), "uid": spec::uid(pod) },
            "startTime": started,
            "containers": containers,
            "cpu": self.cpu(&cgroup, usage.cpu_nanos),
            "memory": Self::memory(&usage),
            "ephemeral-storage": Self::file_system(&self.ctx.config.state_dir),
            "process_stats": { "process_count": usage.processes },
        })
    }

    fn container(&self, pod: &Pod, stats: &ContainerStats) -> Value {
        let attributes = stats.attributes.clone().unwrap_or_default();
        let name = attributes.metadata.map(|m| m.name).unwrap_or_default();
        let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.clone()).unwrap_or_default();
        let started = statuses
            .iter()
            .find(|s| s.name == name)
            .and_then(|s| s.state.as_ref()?.running.as_ref()?.started_at.clone());
        let cpu = stats.cpu.unwrap_or_default();
        let memory = stats.memory.unwrap_or_default();
        let layer = stats.writable_layer.clone().unwrap_or_default();
        let nanos = number(cpu.usage_core_nano_seconds.as_ref());
        json!({
            "name": name,
            "startTime": started.map(|t| t.0.to_string()),
            "cpu": self.cpu(&attributes.id, nanos),
            "memory": {
                "time": now_text(),
                "usageBytes": number(memory.usage_bytes.as_ref()),
                "workingSetBytes": number(memory.working_set_bytes.as_ref()),
                "rssBytes": number(memory.rss_bytes.as_ref()),
                "pageFaults": number(memory.page_faults.as_ref()),
                "majorPageFaults": number(memory.major_page_faults.as_ref()),
            },
            "rootfs": {
                "time": now_text(),
                "usedBytes": number(layer.used_bytes.as_ref()),
                "inodesUsed": number(layer.inodes_used.as_ref()),
            },
        })
    }

    async fn samples(&self) -> Vec<Sample> {
        let stats = self.ctx.runtime.list_container_stats().await.unwrap_or_default();
        let sample = |stats: ContainerStats| {
            let labels = stats.attributes.unwrap_or_default().labels;
            let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
            let memory = stats.memory.unwrap_or_default();
            Sample {
                namespace: label(labels::POD_NAMESPACE),
                pod: label(labels::POD_NAME),
                container: label(labels::CONTAINER_NAME),
                cpu_nanos: number(stats.cpu.unwrap_or_default().usage_core_nano_seconds.as_ref()),
                working_set: number(memory.working_set_bytes.as_ref()),
                rss: number(memory.rss_bytes.as_ref()),
            }
        };
        stats.into_iter().map(sample).collect()
    }

    /// `/metrics/resource`: what autoscaling reads.
    pub async fn resource_metrics(&self) -> String {
        let node = self.node_usage();
        let samples = self.samples().await;
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, lines: Vec<(String, f64)>| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in lines {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        let labels = |s: &Sample| {
            format!("{{container=\"{}\",namespace=\"{}\",pod=\"{}\"}}", s.container, s.namespace, s.pod)
        };
        let per_container =
            |f: &dyn Fn(&Sample) -> f64| samples.iter().map(|s| (labels(s), f(s))).collect::<Vec<_>>();
        let per_pod = |f: &dyn Fn(&Sample) -> f64| {
            let mut sums: HashMap<(String, String), f64> = HashMap::new();
            for s in &samples {
                *sums.entry((s.namespace.clone(), s.pod.clone())).or_default() += f(s);
            }
            let line = |((ns, pod), v): ((String, String), f64)| {
                (format!("{{namespace=\"{ns}\",pod=\"{pod}\"}}"), v)
            };
            sums.into_iter().map(line).collect::<Vec<_>>()
        };
        let cpu = |s: &Sample| seconds(s.cpu_nanos);
        let memory = |s: &Sample| s.working_set as f64;
        family(
            "container_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed by the container in core-seconds",
            per_container(&cpu),
        );
        family(
            "container_memory_working_set_bytes",
            "gauge",
            "Current working set of the container in bytes",
            per_container(&memory),
        );
        family(
            "node_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed by the node in core-seconds",
            vec![(String::new(), seconds(node.cpu_nanos))],
        );
        family(
            "node_memory_working_set_bytes",
            "gauge",
            "Current working set of the node in bytes",
            vec![(String::new(), node.working_set_bytes as f64)],
        );
        family(
            "pod_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed by the pod in core-seconds",
            per_pod(&cpu),
        );
        family(
            "pod_memory_working_set_bytes",
            "gauge",
            "Current working set of the pod in bytes",
            per_pod(&memory),
        );
        family(
            "resource_scrape_error",
            "gauge",
            "1 if there was an error while getting container metrics, 0 otherwise",
            vec![(String::new(), 0.0)],
        );
        text
    }

    /// `/metrics/cadvisor`: the few families that dashboards cannot do without.
    pub async fn container_metrics(&self) -> String {
        let samples = self.samples().await;
        let mut text = String::new();
        let families: [Family; 3] = [
            ("container_cpu_usage_seconds_total", "counter", &|s| s.cpu_nanos as f64 / 1e9),
            ("container_memory_working_set_bytes", "gauge", &|s| s.working_set as f64),
            ("container_memory_rss", "gauge", &|s| s.rss as f64),
        ];
        for (name, kind, value) in families {
            let _ = writeln!(text, "# TYPE {name} {kind}");
            for s in &samples {
                let _ = writeln!(
                    text,
                    "{name}{{container=\"{}\",namespace=\"{}\",pod=\"{}\"}} {}",
                    s.container,
                    s.namespace,
                    s.pod,
                    value(s)
                );
            }
        }
        let _ = writeln!(text, "# TYPE machine_cpu_cores gauge\nmachine_cpu_cores {}", system::cpus());
        text
    }
}
