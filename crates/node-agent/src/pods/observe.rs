//! What the runtime has of a pod.

use super::labels;
use keelson_cri::v1::{
    ContainerFilter, ContainerState, ContainerStatus, PodSandboxFilter, PodSandboxState, PodSandboxStatus,
};
use keelson_cri::{Result, Runtime};
use std::collections::{BTreeMap, HashMap};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Exited,
    Unknown,
}

/// One run of a container. Times are nanoseconds since 1970, 0 where they have not come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    pub id: String,
    pub sandbox: String,
    pub name: String,
    /// The restart count: 0 for the first run.
    pub attempt: u32,
    pub state: State,
    pub created_at: i64,
    pub started_at: i64,
    pub finished_at: i64,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    /// As the user wrote it.
    pub image: String,
    pub image_id: String,
    pub hash: String,
    pub log_path: String,
    pub annotations: HashMap<String, String>,
    /// uid, gid and supplemental groups of the first process, where the runtime tells.
    pub user: Option<(i64, i64, Vec<i64>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created_at: i64,
    /// None in the host's network.
    pub ips: Vec<String>,
}

/// All of a pod's sandboxes and containers, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodState {
    pub sandboxes: Vec<Sandbox>,
    pub containers: BTreeMap<String, Vec<Instance>>,
}

impl PodState {
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|s| s.ready)
    }

    pub fn latest(&self, name: &str) -> Option<&Instance> {
        self.containers.get(name)?.first()
    }

    /// The newest instance, if it belongs to the present sandbox.
    pub fn current(&self, name: &str) -> Option<&Instance> {
        let sandbox = self.sandboxes.first()?;
        self.latest(name).filter(|i| i.sandbox == sandbox.id)
    }

    pub fn running(&self) -> impl Iterator<Item = &Instance> {
        self.containers.values().flatten().filter(|i| i.state == State::Running)
    }
}

/// Reads a pod's state. What cannot change any more (an exited container) is taken from `before`.
pub async fn observe(runtime: &dyn Runtime, uid: &str, before: &PodState) -> Result<PodState> {
    let selector = HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
    let sandboxes = runtime
        .list_pod_sandboxes(PodSandboxFilter { label_selector: selector.clone(), ..Default::default() });
    let containers =
        runtime.list_containers(ContainerFilter { label_selector: selector, ..Default::default() });
    let (sandboxes, containers) = futures::future::try_join(sandboxes, containers).await?;
    let mut state = PodState::default();
    for sandbox in sandboxes {
        let ready = sandbox.state() == PodSandboxState::SandboxReady;
        let known = before.sandboxes.iter().find(|s| s.id == sandbox.id);
        match known {
            // A sandbox keeps its addresses for life.
            Some(known) => state.sandboxes.push(Sandbox { ready, ..known.clone() }),
            None => match runtime.pod_sandbox_status(&sandbox.id).await {
                Ok(status) => state.sandboxes.push(sandbox_of(status)),
                Err(e) if e.is_not_found() => {}
                Err(e) => return Err(e),
            },
        }
    }
    let known: HashMap<&str, &Instance> =
        before.containers.values().flatten().map(|i| (i.id.as_str(), i)).collect();
    for container in containers {
        let final_state = known.get(container.id.as_str()).filter(|i| i.state == State::Exited);
        let instance = match final_state {
            Some(instance) => (*instance).clone(),
            None => match runtime.container_status(&container.id).await {
                Ok(status) => instance_of(status, container.pod_sandbox_id),
                Err(e) if e.is_not_found() => continue,
                Err(e) => return Err(e),
            },
        };
        state.containers.entry(instance.name.clone()).or_default().push(instance);
    }
    state.sandboxes.sort_by_key(|s| std::cmp::Reverse((s.attempt, s.created_at)));
    for instances in state.containers.values_mut() {
        instances.sort_by_key(|i| std::cmp::Reverse((i.attempt, i.created_at)));
    }
    Ok(state)
}

fn sandbox_of(status: PodSandboxStatus) -> Sandbox {
    let ready = status.state() == PodSandboxState::SandboxReady;
    let network = status.network.unwrap_or_default();
    let all = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|a| a.ip));
    Sandbox {
        id: status.id,
        attempt: status.metadata.map_or(0, |m| m.attempt),
        ready,
        created_at: status.created_at,
        ips: all.filter(|ip| !ip.is_empty()).collect(),
    }
}

fn instance_of(status: ContainerStatus, sandbox: String) -> Instance {
    let state = match status.state() {
        ContainerState::ContainerCreated => State::Created,
        ContainerState::ContainerRunning => State::Running,
        ContainerState::ContainerExited => State::Exited,
        ContainerState::ContainerUnknown => State::Unknown,
    };
    let metadata = status.metadata.unwrap_or_default();
    let annotated = status.annotations.get(labels::RESTART_COUNT).and_then(|c| c.parse().ok());
    let image = status.image.unwrap_or_default();
    Instance {
        id: status.id,
        sandbox,
        attempt: annotated.unwrap_or(metadata.attempt),
        name: metadata.name,
        state,
        created_at: status.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        image: if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image },
        image_id: if status.image_ref.is_empty() { status.image_id } else { status.image_ref },
        hash: status.annotations.get(labels::HASH).cloned().unwrap_or_default(),
        log_path: status.log_path,
        annotations: status.annotations,
        user: status.user.and_then(|u| u.linux).map(|u| (u.uid, u.gid, u.supplemental_groups)),
    }
}
