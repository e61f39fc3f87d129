//! Amounts of what a node has and a pod asks for.

use std::collections::BTreeMap;

use keelson_api_types::quantity::Quantity;

use crate::api::{Container, PodSpec, Quantities};

/// CPU in thousandths of a core, memory and ephemeral storage in bytes, everything else by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    /// How many pods a node takes; a pod's own amount is always 1 and not kept here.
    pub pods: i64,
    pub scalar: BTreeMap<String, i64>,
}

/// What the spreading scores assume of a container that asks for nothing.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 << 20;

impl Resources {
    /// Quantities that do not parse count as nothing: the API server has refused them already.
    pub fn parse(quantities: &Quantities) -> Self {
        let mut resources = Self::default();
        for (name, text) in quantities {
            let Ok(quantity) = Quantity::parse(text) else { continue };
            match name.as_str() {
                "cpu" => resources.milli_cpu = quantity.milli(),
                "memory" => resources.memory = quantity.value(),
                "ephemeral-storage" => resources.ephemeral_storage = quantity.value(),
                "pods" => resources.pods = quantity.value(),
                _ => drop(resources.scalar.insert(name.clone(), quantity.value())),
            }
        }
        resources
    }

    pub fn add(&mut self, other: &Self) {
        self.combine(other, |a, b| a.saturating_add(b));
    }

    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, |a, b| a.saturating_sub(b));
    }

    /// The larger of both, amount by amount.
    pub fn maximum(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, f: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = f(self.milli_cpu, other.milli_cpu);
        self.memory = f(self.memory, other.memory);
        self.ephemeral_storage = f(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.scalar {
            let mine = self.scalar.entry(name.clone()).or_default();
            *mine = f(*mine, *amount);
        }
    }
}

/// What a pod asks for, and the same with the spreading scores' defaults for what it leaves open.
///
/// Init containers run one after another before the others, except those with restart policy `Always`, which
/// keep running: the pod needs the larger of "all that keeps running" and "one init container plus those of its kind
/// started before it".
pub fn of_pod(spec: &PodSpec) -> (Resources, Resources) {
    let exact = sum(spec, |c| Resources::parse(&c.resources.requests));
    let assumed = sum(spec, |c| {
        let mut resources = Resources::parse(&c.resources.requests);
        if !c.resources.requests.contains_key("cpu") {
            resources.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if !c.resources.requests.contains_key("memory") {
            resources.memory = DEFAULT_MEMORY;
        }
        resources
    });
    (exact, assumed)
}

fn sum(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&of(container));
    }
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for container in &spec.init_containers {
        let mut needed = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            total.add(&needed);
            sidecars.add(&needed);
            needed = sidecars.clone();
        } else {
            needed.add(&sidecars);
        }
        peak.maximum(&needed);
    }
    total.maximum(&peak);
    if let Some(pod_level) = &spec.resources {
        let stated = Resources::parse(&pod_level.requests);
        for name in pod_level.requests.keys() {
            match name.as_str() {
                "cpu" => total.milli_cpu = stated.milli_cpu,
                "memory" => total.memory = stated.memory,
                _ => {}
            }
        }
    }
    total.add(&Resources::parse(&spec.overhead));
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu_of(yaml_like: serde_json::Value) -> i64 {
        let spec: PodSpec = serde_json::from_value(yaml_like).unwrap();
        of_pod(&spec).0.milli_cpu
    }

    fn container(cpu: &str) -> serde_json::Value {
        serde_json::json!({"resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn a_pod_needs_the_larger_of_its_init_and_its_running_phase() {
        let mut sidecar = container("200m");
        sidecar["restartPolicy"] = "Always".into();
        let check = |init: Vec<serde_json::Value>, main: Vec<serde_json::Value>, want: i64| {
            let got = cpu_of(serde_json::json!({"initContainers": init, "containers": main}));
            assert_eq!(got, want, "{init:?} {main:?}");
        };
        check(vec![], vec![container("100m"), container("1")], 1100);
        check(vec![container("3"), container("2")], vec![container("1")], 3000);
        check(vec![sidecar.clone()], vec![container("1")], 1200);
        check(vec![sidecar.clone(), container("2")], vec![container("1")], 2200);
        check(vec![container("2"), sidecar], vec![container("1")], 2000);
    }

    #[test]
    fn overhead_and_pod_level_requests_count() {
        let pod = serde_json::json!({"containers": [container("1")], "overhead": {"cpu": "50m"}});
        assert_eq!(cpu_of(pod), 1050);
        let pod =
            serde_json::json!({"containers": [container("1")], "resources": {"requests": {"cpu": "3"}}});
        assert_eq!(cpu_of(pod), 3000);
    }
}
