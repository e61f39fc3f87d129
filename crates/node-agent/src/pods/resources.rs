//! Resources: the quality-of-service class, what the runtime and the cgroups get, and the pod's sum.

use super::spec::{self, is_sidecar};
use crate::context::Allocatable;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use keelson_api_types::quantity::Quantity;
use keelson_cri::v1::LinuxContainerResources;
use keelson_host::cgroup::Limits;
use std::collections::BTreeMap;

pub const MIN_SHARES: u64 = 2;
const PERIOD_US: i64 = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

type Map = Option<BTreeMap<String, ApiQuantity>>;

fn amount(map: &Map, name: &str) -> Option<Quantity> {
    Quantity::parse(&map.as_ref()?.get(name)?.0).ok()
}

fn requirements(container: &Container) -> ResourceRequirements {
    container.resources.clone().unwrap_or_default()
}

/// The request, or the limit where only that is given.
pub fn request(container: &Container, name: &str) -> Option<Quantity> {
    let r = container.resources.as_ref()?;
    amount(&r.requests, name).or_else(|| amount(&r.limits, name))
}

pub fn limit(container: &Container, name: &str) -> Option<Quantity> {
    amount(&container.resources.as_ref()?.limits, name)
}

/// The class by the API convention: all limits equal to requests, none at all, or in between.
pub fn qos(pod: &Pod) -> Qos {
    if let Some(class) = pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) {
        match class {
            "Guaranteed" => return Qos::Guaranteed,
            "BestEffort" => return Qos::BestEffort,
            "Burstable" => return Qos::Burstable,
            _ => {}
        }
    }
    let all = || spec::containers(pod).iter().chain(spec::init_containers(pod));
    let nonzero = |q: Option<Quantity>| q.filter(|q| !q.is_zero());
    let any = all().any(|c| {
        let r = requirements(c);
        ["cpu", "memory"]
            .iter()
            .any(|n| nonzero(amount(&r.requests, n)).or(nonzero(amount(&r.limits, n))).is_some())
    });
    if !any {
        return Qos::BestEffort;
    }
    let guaranteed = all().all(|c| {
        let r = requirements(c);
        ["cpu", "memory"].iter().all(|n| match (nonzero(amount(&r.limits, n)), amount(&r.requests, n)) {
            (Some(limit), Some(request)) => limit == request,
            (Some(_), None) => true,
            _ => false,
        })
    });
    if guaranteed { Qos::Guaranteed } else { Qos::Burstable }
}

/// What scheduling counts: the greater of the running sum and any init step, sidecars counted in both.
pub fn pod_request(pod: &Pod, name: &str) -> i128 {
    let of = |c: &Container| request(c, name).map_or(0, |q| q.nanos());
    let mut sidecars = 0;
    let mut peak = 0;
    for container in spec::init_containers(pod) {
        if is_sidecar(container) {
            sidecars += of(container);
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars + of(container));
        }
    }
    let running: i128 = spec::containers(pod).iter().map(of).sum::<i128>() + sidecars;
    let declared = spec::spec(pod)
        .resources
        .as_ref()
        .and_then(|r| amount(&r.requests, name).or_else(|| amount(&r.limits, name)).map(|q| q.nanos()));
    let overhead = amount(&spec::spec(pod).overhead, name).map_or(0, |q| q.nanos());
    declared.unwrap_or_else(|| running.max(peak)) + overhead
}

/// The sum of limits where every container has one.
fn pod_limit(pod: &Pod, name: &str) -> Option<i128> {
    if let Some(r) = &spec::spec(pod).resources
        && let Some(limit) = amount(&r.limits, name)
    {
        return Some(limit.nanos());
    }
    let mut sum = 0;
    let mut init_peak = 0;
    for c in spec::containers(pod) {
        sum += limit(c, name)?.nanos();
    }
    for c in spec::init_containers(pod) {
        let own = limit(c, name)?.nanos();
        if is_sidecar(c) {
            sum += own;
        } else {
            init_peak = init_peak.max(own);
        }
    }
    let overhead = amount(&spec::spec(pod).overhead, name).map_or(0, |q| q.nanos());
    Some(sum.max(init_peak) + overhead)
}

pub fn shares(milli: i64) -> u64 {
    (milli as u64 * 1024 / 1000).clamp(MIN_SHARES, 262_144)
}

/// Microseconds per period, at least one millisecond.
pub fn quota(milli: i64) -> i64 {
    (milli * PERIOD_US / 1000).max(1000)
}

const NANO: i128 = 1_000_000_000;

fn milli_of(nanos: i128) -> i64 {
    ((nanos + 999_999) / 1_000_000) as i64
}

fn whole_of(nanos: i128) -> i64 {
    ((nanos + NANO - 1) / NANO) as i64
}

/// The cgroup of a QoS class below the root; guaranteed pods stand in the root itself.
pub fn qos_cgroup(root: &str, qos: Qos) -> String {
    match qos {
        Qos::Guaranteed => root.to_owned(),
        Qos::Burstable => format!("{root}/burstable"),
        Qos::BestEffort => format!("{root}/besteffort"),
    }
}

pub fn pod_cgroup(root: &str, pod: &Pod) -> String {
    format!("{}/pod{}", qos_cgroup(root, qos(pod)), spec::uid(pod))
}

/// The limits of a pod's own cgroup.
pub fn pod_limits(pod: &Pod, pids: i64) -> Limits {
    let class = qos(pod);
    let cpu = milli_of(pod_request(pod, "cpu"));
    Limits {
        cpu_shares: Some(if class == Qos::BestEffort { MIN_SHARES } else { shares(cpu) }),
        cpu_quota_us: Some(pod_limit(pod, "cpu").filter(|l| *l > 0).map_or(-1, |l| quota(milli_of(l)))),
        memory_bytes: Some(pod_limit(pod, "memory").filter(|l| *l > 0).map_or(-1, whole_of)),
        pids: (pids > 0).then_some(pids),
    }
}

/// What the runtime sets for one container.
pub fn container_resources(pod: &Pod, container: &Container, node: &Allocatable) -> LinuxContainerResources {
    let cpu = request(container, "cpu").map_or(0, |q| q.milli());
    let memory_limit = limit(container, "memory").map_or(0, |q| q.value());
    LinuxContainerResources {
        cpu_period: PERIOD_US,
        cpu_quota: limit(container, "cpu").map_or(0, |q| quota(q.milli())),
        cpu_shares: shares(cpu) as i64,
        memory_limit_in_bytes: memory_limit,
        oom_score_adj: i64::from(oom_score(pod, container, node)),
        ..Default::default()
    }
}

/// Who goes first when memory runs out: those who ask for little, relative to the node.
pub fn oom_score(pod: &Pod, container: &Container, node: &Allocatable) -> i32 {
    if is_critical(pod) {
        return -997;
    }
    match qos(pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let asked = request(container, "memory").map_or(0, |q| q.value());
            let score = 1000 - (1000 * i128::from(asked) / i128::from(node.memory_bytes.max(1))) as i32;
            score.clamp(3, 999)
        }
    }
}

fn is_critical(pod: &Pod) -> bool {
    spec::spec(pod).priority.unwrap_or(0) >= 2_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(containers: Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "uid": "u" }, "spec": { "containers": containers } }))
            .expect("a pod")
    }

    #[test]
    fn the_class_follows_requests_and_limits() {
        let full = json!({ "limits": { "cpu": "100m", "memory": "64Mi" } });
        let some = json!({ "requests": { "cpu": "100m" } });
        assert_eq!(qos(&pod(json!([{ "name": "a", "resources": full }]))), Qos::Guaranteed);
        assert_eq!(qos(&pod(json!([{ "name": "a", "resources": some }]))), Qos::Burstable);
        assert_eq!(qos(&pod(json!([{ "name": "a" }]))), Qos::BestEffort);
        assert_eq!(qos(&pod(json!([{ "name": "a", "resources": full }, { "name": "b" }]))), Qos::Burstable);
    }

    #[test]
    fn a_pods_cgroup_gets_the_sum_of_its_containers() {
        let one = json!({ "name": "a", "resources": { "limits": { "cpu": "250m", "memory": "64Mi" } } });
        let two = json!({ "name": "b", "resources": { "limits": { "cpu": "250m", "memory": "64Mi" } } });
        let limits = pod_limits(&pod(json!([one, two])), 0);
        assert_eq!(limits.cpu_shares, Some(512));
        assert_eq!(limits.cpu_quota_us, Some(50_000));
        assert_eq!(limits.memory_bytes, Some(128 << 20));
    }

    #[test]
    fn one_container_without_a_limit_leaves_the_pod_unlimited() {
        let one = json!({ "name": "a", "resources": { "limits": { "cpu": "250m" } } });
        let limits = pod_limits(&pod(json!([one, { "name": "b" }])), 0);
        assert_eq!((limits.cpu_quota_us, limits.memory_bytes), (Some(-1), Some(-1)));
    }

    #[test]
    fn tiny_amounts_are_raised_to_what_the_kernel_takes() {
        assert_eq!((shares(0), quota(1)), (2, 1000));
    }
}
