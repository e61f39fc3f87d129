//! Bringing up: the sandbox, and one container after another, with the events that tell of it.

use super::env::Facts;
use super::images::{ImageError, Request};
use super::plan::{Start, Waiting};
use super::worker::{Worker, now};
use super::{container, hooks, probe, resources, sandbox, spec};
use crate::api::reference;
use crate::volumes::{self, Mounted};
use k8s_openapi::api::core::v1::{Container, Pod};
use keelson_client::EventType;
use keelson_cri::v1::PodSandboxConfig;
use keelson_host::cgroup::Limits;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

const SECOND: i64 = 1_000_000_000;
/// Pauses between attempts of a start that fails before the container runs.
const FIRST_RETRY: i64 = SECOND;
const LONGEST_RETRY: i64 = 10 * SECOND;

/// Why a container did not come to run.
struct Failure {
    waiting: Waiting,
    /// An event beside the state, where the step has not told already.
    event: Option<(&'static str, String)>,
    retry_in: Option<Duration>,
}

impl Failure {
    fn new(reason: &'static str, message: String) -> Self {
        let event = Some(("Failed", format!("Error: {message}")));
        Self { waiting: Waiting { reason: reason.into(), message }, event, retry_in: None }
    }
}

impl From<ImageError> for Failure {
    fn from(e: ImageError) -> Self {
        let waiting = Waiting { reason: e.reason.into(), message: e.message };
        Self { waiting, event: None, retry_in: Some(e.retry_in) }
    }
}

impl Worker {
    /// Directories, cgroups and volumes: everything that has to stand before a container may start.
    pub(super) async fn prepare(&mut self, pod: &Arc<Pod>) -> Result<(), String> {
        let ctx = self.ctx.clone();
        let uid = spec::uid(pod);
        let logs = ctx.pod_log_dir(spec::namespace(pod), spec::name(pod), uid);
        for dir in [ctx.pod_dir(uid), logs] {
            std::fs::create_dir_all(&dir).map_err(|e| format!("create {}: {e}", dir.display()))?;
        }
        let volumes = volumes::set_up(&ctx, pod, &mut self.tokens).await;
        self.volumes = volumes.map_err(|e| {
            let about = reference(pod, None);
            ctx.api.event(about, EventType::Warning, "FailedMount", &e.to_string());
            e.to_string()
        })?;
        Ok(())
    }

    /// The pod's cgroup and the one of its class.
    fn make_cgroups(&mut self, pod: &Pod) -> Result<(), String> {
        let ctx = &self.ctx;
        let class = resources::qos(pod);
        let parent = resources::qos_cgroup(&ctx.config.cgroup_root, class);
        let cgroups = ctx.cgroups.as_ref();
        let shares = (class == resources::Qos::BestEffort).then_some(resources::MIN_SHARES);
        let limits = Limits { cpu_shares: shares, ..Default::default() };
        cgroups.ensure(&parent, &limits).map_err(|e| volumes::chain(&e)).and_then(|()| self.fit_cgroup(pod))
    }

    /// Runs a new sandbox; an old one is stopped first.
    pub(super) async fn new_sandbox(&mut self, pod: &Arc<Pod>, attempt: u32) -> Result<(), String> {
        let ctx = self.ctx.clone();
        if attempt > 0 {
            ctx.api.event(
                reference(pod, None),
                EventType::Normal,
                "SandboxChanged",
                "Pod sandbox changed, it will be killed and re-created.",
            );
            for old in self.state.sandboxes.clone() {
                let _ = ctx.runtime.stop_pod_sandbox(&old.id).await;
            }
        }
        self.make_cgroups(pod)?;
        let config = sandbox::config(&ctx, pod, attempt);
        let class = spec::spec(pod).runtime_class_name.as_deref().filter(|c| !c.is_empty());
        let handler = match class {
            Some(class) => ctx.api.runtime_handler(class).await.map_err(|e| volumes::chain(&e))?,
            None => String::new(),
        };
        match ctx.runtime.run_pod_sandbox(config, handler).await {
            Ok(id) => {
                self.register(&id);
                Ok(())
            }
            Err(e) => {
                let message = format!("Failed to create pod sandbox: {}", e.user_message());
                ctx.api.event(reference(pod, None), EventType::Warning, "FailedCreatePodSandBox", &message);
                Err(message)
            }
        }
    }

    /// Starts one container; a failure is remembered and tried again in its time.
    pub(super) async fn start(&mut self, pod: &Arc<Pod>, start: Start) {
        let (container, target) = match start {
            Start::Init(i) => (spec::init_containers(pod)[i].clone(), None),
            Start::Regular(i) => (spec::containers(pod)[i].clone(), None),
            Start::Ephemeral(i) => spec::ephemeral_containers(pod).swap_remove(i),
        };
        let name = container.name.clone();
        if self.state.latest(&name).is_some() {
            self.shared.memory.lock().bump(&name, now());
        }
        match self.try_start(pod, &container, target).await {
            Ok(()) => {
                let mut memory = self.shared.memory.lock();
                let entry = memory.containers.entry(name).or_default();
                (entry.waiting, entry.failures, entry.retry_at, entry.again) = (None, 0, 0, false);
            }
            Err(failure) => {
                if let Some((reason, message)) = failure.event {
                    let about = reference(pod, spec::field_path(pod, &name));
                    self.ctx.api.event(about, EventType::Warning, reason, &message);
                }
                let mut memory = self.shared.memory.lock();
                let entry = memory.containers.entry(name).or_default();
                let pause = (FIRST_RETRY << entry.failures.min(4)).min(LONGEST_RETRY);
                let pause = failure.retry_in.map_or(pause, |d| d.as_nanos() as i64);
                entry.failures += 1;
                entry.retry_at = now() + pause;
                entry.waiting = Some(failure.waiting);
            }
        }
    }

    async fn try_start(
        &mut self,
        pod: &Arc<Pod>,
        container: &Container,
        target: Option<String>,
    ) -> Result<(), Failure> {
        let ctx = self.ctx.clone();
        let about = || reference(pod, spec::field_path(pod, &container.name));
        let present = self.state.sandbox().cloned();
        let present =
            present.ok_or_else(|| Failure::new("CreateContainerError", "the sandbox is gone".into()))?;
        let sandbox_config = sandbox::config(&ctx, pod, present.attempt);
        let volumes = self.volumes_of(pod, container, &sandbox_config).await?;
        let request = Request {
            pod,
            container,
            image: container.image.as_deref().unwrap_or_default(),
            policy: container.image_pull_policy.as_deref(),
            sandbox: &sandbox_config,
        };
        let image = ctx.images.ensure(ctx.runtime.as_ref(), ctx.api.as_ref(), &request).await?;
        let ips = match spec::is_host_network(pod) {
            true => vec![ctx.node_ip.to_string()],
            false => present.ips.clone(),
        };
        let facts = Facts { pod, pod_ips: &ips, host_ip: ctx.node_ip, allocatable: ctx.allocatable };
        let target =
            target.filter(|t| !t.is_empty()).and_then(|t| self.state.current(&t)).map(|i| i.id.clone());
        let attempt = self.state.latest(&container.name).map_or(0, |i| i.attempt + 1);
        let parts = container::Parts {
            facts: &facts,
            container,
            attempt,
            image_ref: if image.id.is_empty() {
                container.image.as_deref().unwrap_or_default()
            } else {
                &image.id
            },
            image: &image,
            volumes: &volumes,
            target: target.as_deref(),
        };
        let config = container::config(&ctx, &parts)
            .await
            .map_err(|e| Failure::new("CreateContainerConfigError", e.to_string()))?;
        let logs =
            ctx.pod_log_dir(spec::namespace(pod), spec::name(pod), spec::uid(pod)).join(&container.name);
        let _ = std::fs::create_dir_all(logs);
        let id = ctx
            .runtime
            .create_container(&present.id, config, sandbox_config)
            .await
            .map_err(|e| Failure::new("CreateContainerError", e.user_message()))?;
        self.register(&id);
        self.note_resources(&id, container);
        ctx.api.event(about(), EventType::Normal, "Created", "Container created");
        ctx.runtime
            .start_container(&id)
            .await
            .map_err(|e| Failure::new("RunContainerError", e.user_message()))?;
        ctx.api.event(about(), EventType::Normal, "Started", "Container started");
        let ip = ips.first().cloned().unwrap_or_default();
        let hook = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
        if let Some(handler) = hook {
            self.holding.insert(id.clone());
            let outcome = hooks::run(&ctx, pod, container, &id, &ip, handler).await;
            self.holding.remove(&id);
            if let Err(message) = outcome {
                ctx.api.event(about(), EventType::Warning, "FailedPostStartHook", "PostStartHook failed");
                tracing::debug!(
                    pod = spec::full_name(pod),
                    container = container.name,
                    message,
                    "postStart failed"
                );
                let kill = super::terminate::Kill {
                    pod,
                    container: Some(container),
                    id: &id,
                    message: "FailedPostStartHook".into(),
                    grace: spec::grace_seconds(pod),
                    pod_ip: &ip,
                };
                super::terminate::kill(&ctx, kill).await;
                return Err(Failure {
                    waiting: Waiting { reason: "PostStartHookError".into(), message },
                    event: None,
                    retry_in: Some(Duration::from_millis(50)),
                });
            }
        }
        Ok(())
    }

    /// The pod's volumes, and those made of images that the container mounts. Such an image is had like the container's own.
    async fn volumes_of(
        &self,
        pod: &Pod,
        container: &Container,
        sandbox: &PodSandboxConfig,
    ) -> Result<HashMap<String, Mounted>, Failure> {
        let ctx = &self.ctx;
        let mut all = self.volumes.mounted.clone();
        let mounts = container.volume_mounts.as_deref().unwrap_or_default();
        let volumes = spec::spec(pod).volumes.as_deref().unwrap_or_default();
        for volume in volumes.iter().filter(|v| mounts.iter().any(|m| m.name == v.name)) {
            let Some(source) = &volume.image else { continue };
            let path = volumes::image_dir(ctx, &self.uid).join(&volume.name);
            if !ctx.mounts.below(&path).is_ok_and(|standing| standing.contains(&path)) {
                let image = source.reference.as_deref().unwrap_or_default();
                let policy = source.pull_policy.as_deref();
                let request = Request { pod, container, image, policy, sandbox };
                let image = ctx.images.ensure(ctx.runtime.as_ref(), ctx.api.as_ref(), &request).await?;
                volumes::image(ctx, &self.uid, &volume.name, &image.id, &path)
                    .await
                    .map_err(|why| Failure::new("ImageVolumeMountFailed", why))?;
            }
            all.insert(volume.name.clone(), Mounted { path, read_only: true });
        }
        Ok(all)
    }

    /// Begins to probe what runs and is not probed yet; ends the probes of what is gone.
    pub(super) fn tend_probes(&mut self, pod: &Arc<Pod>) {
        let running: Vec<_> = self.state.running().cloned().collect();
        self.probes.retain(|id, task| {
            let keep = running.iter().any(|i| i.id == *id);
            if !keep {
                task.abort();
            }
            keep
        });
        let known: HashSet<&str> = self.state.containers.values().flatten().map(|i| i.id.as_str()).collect();
        let mut memory = self.shared.memory.lock();
        memory.health.retain(|id, _| known.contains(id.as_str()));
        memory.resize.retain(|id| known.contains(id));
        drop(memory);
        let ephemeral = spec::ephemeral_containers(pod);
        let all = || {
            spec::containers(pod)
                .iter()
                .chain(spec::init_containers(pod))
                .chain(ephemeral.iter().map(|(c, _)| c))
        };
        for instance in running {
            if self.probes.contains_key(&instance.id) || self.holding.contains(&instance.id) {
                continue;
            }
            let Some(container) = all().find(|c| c.name == instance.name) else { continue };
            let age = Duration::from_nanos((now() - instance.started_at).max(0) as u64);
            let tokio_now = tokio::time::Instant::now();
            let watched = probe::Watched {
                ctx: self.ctx.clone(),
                shared: self.shared.clone(),
                pod: pod.clone(),
                container: container.clone(),
                id: instance.id.clone(),
                pod_ip: self.pod_ip(pod),
                started: tokio_now.checked_sub(age).unwrap_or(tokio_now),
                known: self.known_health(pod, &instance.id),
            };
            let needs_task = container.startup_probe.is_some()
                || container.liveness_probe.is_some()
                || container.readiness_probe.is_some();
            if needs_task {
                // The task has yet to run: until then as well, what was ready stays so.
                if let Some(known) = watched.known.clone() {
                    self.shared.memory.lock().health.entry(instance.id.clone()).or_insert(known);
                }
                self.probes.insert(instance.id, tokio::spawn(probe::watch(watched)).abort_handle());
            } else {
                let mut memory = self.shared.memory.lock();
                let health = memory.health.entry(instance.id).or_default();
                (health.started, health.ready) = (true, true);
            }
        }
    }

    /// What the API was told of a container before this agent started: it need not prove itself again.
    fn known_health(&self, pod: &Pod, id: &str) -> Option<super::plan::Health> {
        if !self.adopted.contains(id) {
            return None;
        }
        let status = pod.status.as_ref()?;
        let lists = [&status.container_statuses, &status.init_container_statuses];
        let found = lists
            .into_iter()
            .flatten()
            .flatten()
            .find(|s| s.container_id.as_deref().is_some_and(|c| c.ends_with(id)))?;
        Some(super::plan::Health { started: found.started == Some(true), ready: found.ready, failed: None })
    }
}
