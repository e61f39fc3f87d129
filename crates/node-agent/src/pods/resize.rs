//! In-place resize (KEP-1287): what this node has set aside for a pod's containers, its allocation, and what they run with.
//!
//! The API may ask for more than the node can give at present: until it can, everything here works with the allocation.
//! Both are kept in the pod's directory, so that an agent that starts again neither forgets a resize nor repeats one.

use super::observe::State;
use super::resources::{self, limit, request};
use super::spec::{self, is_sidecar};
use super::worker::{Worker, now};
use crate::api::reference;
use crate::volumes;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use keelson_client::EventType;
use keelson_host::cgroup::Limits;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What may be resized.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Nanoseconds between attempts.
const RETRY: i64 = 5_000_000_000;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    /// By container name.
    allocated: BTreeMap<String, ResourceRequirements>,
    /// By container id.
    actuated: BTreeMap<String, ResourceRequirements>,
}

/// Where the resizing of one pod stands.
#[derive(Debug, Clone, Default)]
pub struct Resize {
    kept: Kept,
    /// The node has no room for what the API asks for: why not.
    pub deferred: Option<String>,
    /// What was given is not in force: what the last attempt said.
    pub failed: Option<String>,
}

/// What an instance needs to run with its allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Update,
    Restart,
}

/// The amounts that a resize is about, `None` where nothing is said.
fn amounts(container: &Container) -> [Option<i128>; 4] {
    let of = |q: Option<keelson_api_types::Quantity>| q.map(|q| q.nanos());
    let [cpu, memory] = RESIZABLE.map(|name| (of(request(container, name)), of(limit(container, name))));
    [cpu.0, cpu.1, memory.0, memory.1]
}

fn with(container: &Container, resources: &ResourceRequirements) -> Container {
    Container { resources: Some(resources.clone()), ..container.clone() }
}

fn own(container: &Container) -> ResourceRequirements {
    container.resources.clone().unwrap_or_default()
}

/// Containers whose resources may change while the pod runs.
fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    spec::containers(pod).iter().chain(spec::init_containers(pod).iter().filter(|c| is_sidecar(c)))
}

impl Resize {
    /// What is kept of a pod, or all that it asks for where this node meets it for the first time.
    pub fn load(file: &Path, pod: &Pod) -> Self {
        let kept = std::fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut resize = Self { kept: kept.unwrap_or_default(), ..Self::default() };
        for container in resizable(pod) {
            resize.kept.allocated.entry(container.name.clone()).or_insert_with(|| own(container));
        }
        resize
    }

    pub fn save(&self, file: &Path) -> io::Result<()> {
        let new = file.with_extension("new");
        if let Some(dir) = file.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(&new, serde_json::to_vec(&self.kept)?)?;
        std::fs::rename(new, file)
    }

    fn is_allocated(&self, container: &Container) -> bool {
        let allocated = self.kept.allocated.get(&container.name);
        allocated.is_none_or(|a| amounts(&with(container, a)) == amounts(container))
    }

    /// Whether the pod asks for something else than it has been given.
    pub fn is_wanted(&self, pod: &Pod) -> bool {
        !resizable(pod).all(|container| self.is_allocated(container))
    }

    /// Gives the pod what it asks for.
    pub fn allocate(&mut self, pod: &Pod) {
        for container in resizable(pod) {
            self.kept.allocated.insert(container.name.clone(), own(container));
        }
        (self.deferred, self.failed) = (None, None);
    }

    /// The pod with the resources that it has been given.
    pub fn apply(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        if !self.is_wanted(pod) {
            return pod.clone();
        }
        self.replace(pod, |container| self.kept.allocated.get(&container.name))
    }

    fn replace<'a>(
        &'a self,
        pod: &Pod,
        resources: impl Fn(&Container) -> Option<&'a ResourceRequirements>,
    ) -> Arc<Pod> {
        let mut pod = pod.clone();
        if let Some(spec) = &mut pod.spec {
            let init = spec.init_containers.iter_mut().flatten().filter(|c| is_sidecar(c));
            for container in spec.containers.iter_mut().chain(init) {
                if let Some(resources) = resources(container) {
                    container.resources = Some(resources.clone());
                }
            }
        }
        Arc::new(pod)
    }

    /// An instance runs with the resources of `container` from now on.
    pub fn actuated(&mut self, id: &str, container: &Container) {
        self.kept.actuated.insert(id.to_owned(), own(container));
    }

    /// An instance that ran before this agent kept account of it has its allocation.
    pub fn adopt(&mut self, id: &str, pod: &Pod, name: &str) {
        if let Some(container) = resizable(pod).find(|c| c.name == name) {
            self.kept.actuated.entry(id.to_owned()).or_insert_with(|| own(container));
        }
    }

    pub fn retain(&mut self, known: impl Fn(&str) -> bool) {
        self.kept.actuated.retain(|id, _| known(id));
    }

    /// What an instance runs with.
    pub fn running(&self, id: &str) -> Option<&ResourceRequirements> {
        self.kept.actuated.get(id)
    }

    /// What has to happen to a running instance; `container` has its allocation.
    pub fn change(&self, id: &str, container: &Container) -> Option<Change> {
        let (now, new) = (amounts(&with(container, self.running(id)?)), amounts(container));
        if now == new {
            return None;
        }
        let restarts = |name: &str| {
            let policies = container.resize_policy.as_deref().unwrap_or_default();
            policies.iter().any(|p| p.resource_name == name && p.restart_policy == "RestartContainer")
        };
        let restart = now[..2] != new[..2] && restarts("cpu") || now[2..] != new[2..] && restarts("memory");
        Some(if restart { Change::Restart } else { Change::Update })
    }

    /// The limits of the pod's cgroup: what is given, and what still runs with more.
    pub fn limits(&self, pod: &Pod, id_of: impl Fn(&str) -> Option<String>) -> Limits {
        let running = self.replace(pod, |c| id_of(&c.name).and_then(|id| self.running(&id)));
        let (now, new) = (resources::pod_limits(&running, 0), resources::pod_limits(pod, 0));
        let larger = |a: Option<i64>, b: Option<i64>| {
            a.zip(b).map(|(a, b)| if a < 0 || b < 0 { -1 } else { a.max(b) })
        };
        Limits {
            cpu_shares: now.cpu_shares.max(new.cpu_shares),
            cpu_quota_us: larger(now.cpu_quota_us, new.cpu_quota_us),
            memory_bytes: larger(now.memory_bytes, new.memory_bytes),
            pids: new.pids,
        }
    }

    /// The memory limit that an instance is to get, where it is lower than the present one.
    pub fn lowered_memory(&self, id: &str, container: &Container) -> Option<i64> {
        let now = limit(&with(container, self.running(id)?), "memory");
        let new = limit(container, "memory")?;
        now.is_none_or(|now| now.nanos() > new.nanos()).then(|| new.value())
    }
}

/// A pod's containers and their resources, as events of a resize tell them.
pub fn summary(what: &str, pod: &Pod, error: Option<&str>) -> String {
    #[derive(Serialize)]
    struct Of<'a> {
        name: &'a str,
        resources: ResourceRequirements,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Summary<'a> {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        init_containers: Vec<Of<'a>>,
        containers: Vec<Of<'a>>,
        generation: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a str>,
    }
    fn all(list: &[Container]) -> Vec<Of<'_>> {
        list.iter().map(|c| Of { name: &c.name, resources: own(c) }).collect()
    }
    let summary = Summary {
        init_containers: all(spec::init_containers(pod)),
        containers: all(spec::containers(pod)),
        generation: pod.metadata.generation.unwrap_or_default(),
        error,
    };
    format!("{what}: {}", serde_json::to_string(&summary).unwrap_or_default())
}

impl Worker {
    /// A container has been created with these resources.
    pub(super) fn note_resources(&self, id: &str, container: &Container) {
        let mut memory = self.shared.memory.lock();
        memory.resize.actuated(id, container);
        if let Err(error) = memory.resize.save(&self.ctx.resources_file(&self.uid)) {
            tracing::warn!(pod = self.uid, %error, "could not keep a pod's resources");
        }
    }

    /// Brings the pod's cgroup to what its containers need together.
    pub(super) fn fit_cgroup(&mut self, pod: &Pod) -> Result<(), String> {
        let running = |name: &str| self.state.current(name).filter(|i| i.state == State::Running);
        let limits = self.shared.memory.lock().resize.limits(pod, |name| running(name).map(|i| i.id.clone()));
        if self.cgroup != Some(limits) {
            let cgroup = resources::pod_cgroup(&self.ctx.config.cgroup_root, pod);
            self.ctx.cgroups.ensure(&cgroup, &limits).map_err(|e| volumes::chain(&e))?;
            self.cgroup = Some(limits);
        }
        Ok(())
    }

    /// Makes running containers use what they were given: the pod's cgroup grows before them and shrinks after them.
    /// Says whether there was something to do and it was done.
    pub(super) async fn resize(&mut self, pod: &Arc<Pod>, changes: &[(String, String)]) -> bool {
        let outcome = match self.fit_cgroup(pod) {
            Ok(()) => self.update_all(pod, changes).await,
            Err(why) => Err(why),
        };
        let about = || reference(pod, None);
        let mut memory = self.shared.memory.lock();
        match outcome {
            Ok(()) => {
                self.resize_at = 0;
                memory.resize.failed = None;
                if !changes.is_empty() {
                    let message = summary("Pod resize completed", pod, None);
                    self.ctx.api.event(about(), EventType::Normal, "ResizeCompleted", &message);
                }
                !changes.is_empty()
            }
            Err(why) => {
                self.resize_at = now() + RETRY;
                if memory.resize.failed.as_ref() != Some(&why) {
                    let message = summary("Pod resize error", pod, Some(&why));
                    self.ctx.api.event(about(), EventType::Warning, "ResizeError", &message);
                    memory.resize.failed = Some(why);
                    drop(memory);
                    self.send(pod, false, false);
                }
                false
            }
        }
    }

    async fn update_all(&self, pod: &Arc<Pod>, changes: &[(String, String)]) -> Result<(), String> {
        let changes: Vec<_> = changes
            .iter()
            .filter_map(|(id, name)| Some((id.as_str(), resizable(pod).find(|c| c.name == *name)?)))
            .collect();
        self.check_memory(&changes).await?;
        for (id, container) in changes {
            let wanted = resources::container_resources(pod, container, &self.ctx.allocatable);
            let done = self.ctx.runtime.update_container_resources(id, wanted).await;
            done.map_err(|e| e.user_message())?;
            self.note_resources(id, container);
        }
        Ok(())
    }

    /// Refuses to take memory that is in use: the kernel would end the processes that use it.
    async fn check_memory(&self, changes: &[(&str, &Container)]) -> Result<(), String> {
        let lowered: Vec<_> = {
            let memory = self.shared.memory.lock();
            let lowered = |id: &str, c| memory.resize.lowered_memory(id, c);
            changes.iter().filter_map(|(id, c)| Some((*id, &c.name, lowered(id, c)?))).collect()
        };
        if lowered.is_empty() {
            return Ok(());
        }
        let stats = self.ctx.runtime.list_container_stats().await.map_err(|e| e.user_message())?;
        let usage = |id: &str| {
            let found = stats.iter().find(|s| s.attributes.as_ref().is_some_and(|a| a.id == id))?;
            found.memory.as_ref()?.usage_bytes.map(|bytes| bytes.value)
        };
        let problems: Vec<_> = lowered
            .into_iter()
            .filter_map(|(id, name, limit)| {
                let usage = usage(id).filter(|usage| *usage >= limit as u64)?;
                Some(format!("attempting to set container {name:?} memory limit ({limit}) below current usage ({usage})"))
            })
            .collect();
        match problems.is_empty() {
            true => Ok(()),
            false => Err(format!("cannot decrease memory limits: {}", problems.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(cpu: &str) -> Arc<Pod> {
        let container = json!({ "name": "a", "resources": { "requests": { "cpu": cpu } } });
        Arc::new(serde_json::from_value(json!({ "spec": { "containers": [container] } })).expect("a pod"))
    }

    #[test]
    fn an_agent_that_starts_again_knows_what_it_gave_and_what_runs() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("u/resources.json");
        let mut resize = Resize::load(&file, &pod("1"));
        resize.actuated("id", &pod("1").spec.as_ref().expect("a spec").containers[0]);
        resize.allocate(&pod("2"));
        resize.save(&file).expect("saved");
        // By now the API asks for more still.
        let resize = Resize::load(&file, &pod("3"));
        assert!(resize.is_wanted(&pod("3")) && !resize.is_wanted(&pod("2000m")));
        let given = resize.apply(&pod("3"));
        assert_eq!(given, pod("2"));
        assert_eq!(resize.change("id", &spec::containers(&given)[0]), Some(Change::Update));
        assert_eq!(resize.change("other", &spec::containers(&given)[0]), None);
    }

    #[test]
    fn the_pods_cgroup_has_room_for_what_was_and_for_what_comes() {
        let shares = |resize: &Resize, pod: &Pod| resize.limits(pod, |_| Some("id".into())).cpu_shares;
        for (now, new, expected) in [("1", "2", 2048), ("2", "1", 2048), ("1", "1", 1024)] {
            let mut resize = Resize::default();
            resize.actuated("id", &spec::containers(&pod(now))[0]);
            assert_eq!(shares(&resize, &pod(new)), Some(expected), "{now} {new}");
        }
    }
}
