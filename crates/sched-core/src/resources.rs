//! Amounts of what a node has and a pod asks for.

use std::collections::BTreeMap;

use keelson_api_types::quantity::Quantity;

use crate::api::{Container, ContainerStatus, PodSpec, Quantities};

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

/// Makes a pod that is being resized ask for the most of what its spec says, what its node has set aside for it and what
/// it runs with (KEP-1287). What the node says it can never give (`infeasible`) is not held for it.
pub fn count_resize(spec: &mut PodSpec, statuses: &[ContainerStatus], infeasible: bool) {
    let stays = |c: &&mut Container| c.restart_policy.as_deref() == Some("Always");
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().filter(stays)) {
        let status = statuses.iter().find(|s| s.name == container.name);
        let Some((status, actual)) = status.and_then(|s| Some((s, s.resources.as_ref()?))) else { continue };
        let requests = &mut container.resources.requests;
        if infeasible {
            requests.clear();
        }
        for (name, text) in status.allocated_resources.iter().chain(&actual.requests) {
            let more = |than: &String| match (Quantity::parse(text), Quantity::parse(than)) {
                (Ok(amount), Ok(than)) => amount.nanos() > than.nanos(),
                _ => false,
            };
            if requests.get(name).is_none_or(more) {
                requests.insert(name.clone(), text.clone());
            }
        }
    }
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
    fn a_pod_that_is_resized_counts_with_the_most_of_what_it_has_and_wants() {
        let check = |wanted: &str, allocated: &str, actual: &str, infeasible: bool, expected: i64| {
            let pod = serde_json::json!({"containers": [
                {"name": "a", "resources": {"requests": {"cpu": wanted}}}, {"name": "b"}]});
            let status = serde_json::json!([{"name": "a", "allocatedResources": {"cpu": allocated},
                "resources": {"requests": {"cpu": actual}}}]);
            let mut spec: PodSpec = serde_json::from_value(pod).unwrap();
            let statuses: Vec<ContainerStatus> = serde_json::from_value(status).unwrap();
            count_resize(&mut spec, &statuses, infeasible);
            assert_eq!(of_pod(&spec).0.milli_cpu, expected, "{wanted} {allocated} {actual}");
        };
        check("2", "1", "1", false, 2000);
        check("1", "2", "2", false, 2000);
        check("1", "1", "1500m", false, 1500);
        check("9", "1", "1500m", true, 1500);
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
