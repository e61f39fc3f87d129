//! Taking down: containers with their hooks and grace, then the sandbox, then everything else of the pod.

use super::observe::{PodState, State};
use super::worker::{Worker, observe_after_exit};
use super::{hooks, resources, spec};
use crate::api::reference;
use crate::context::Context;
use crate::volumes;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, Pod};
use keelson_client::EventType;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// However long the hook took, the container gets this much after SIGTERM.
const LEAST: Duration = Duration::from_secs(2);

/// Pause before another attempt to stop what could not be stopped.
const AGAIN: Duration = Duration::from_millis(500);

/// A container to be ended.
pub struct Kill<'a> {
    pub pod: &'a Pod,
    /// `None` where its spec is no longer known: then without hook.
    pub container: Option<&'a Container>,
    pub id: &'a str,
    pub message: String,
    /// Seconds; 0 kills at once and without hook.
    pub grace: i64,
    pub pod_ip: &'a str,
}

/// Ends one container; returns when it has ended, or could not be.
pub async fn kill(ctx: &Context, k: Kill<'_>) {
    let name = k.container.map_or("", |c| c.name.as_str());
    let about = reference(k.pod, spec::field_path(k.pod, name));
    ctx.api.event(about.clone(), EventType::Normal, "Killing", &k.message);
    let begun = Instant::now();
    let grace = Duration::from_secs(k.grace.max(0) as u64);
    let hook = k.container.and_then(|c| Some((c, c.lifecycle.as_ref()?.pre_stop.as_ref()?)));
    if let Some((container, handler)) = hook.filter(|_| k.grace > 0) {
        let run = hooks::run(ctx, k.pod, container, k.id, k.pod_ip, handler);
        match tokio::time::timeout(grace, run).await {
            Ok(Ok(())) => {}
            Ok(Err(message)) => {
                tracing::debug!(pod = spec::full_name(k.pod), container = name, message, "preStop failed");
                ctx.api.event(about, EventType::Warning, "FailedPreStopHook", "PreStopHook failed");
            }
            Err(_) => tracing::debug!(container = name, "preStop took all of the grace period"),
        }
    }
    let left = match k.grace {
        ..=0 => Duration::ZERO,
        _ => grace.saturating_sub(begun.elapsed()).max(LEAST),
    };
    if let Err(e) = ctx.runtime.stop_container(k.id, left).await
        && !e.is_not_found()
    {
        tracing::warn!(container = k.id, error = e.user_message(), "could not stop a container");
    }
}

/// How a pod's life here ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its containers have done what they should; the object stays.
    Ended,
    /// The API wants it gone.
    Deleted,
}

impl Worker {
    /// Ends all containers within the grace period, which a later request may shorten.
    pub(super) async fn end_containers(&mut self, pod: &Arc<Pod>, grace: i64) {
        self.shared.terminating.store(true, Ordering::Relaxed);
        loop {
            self.state = observe_after_exit(&self.ctx, &self.uid, &self.state, &self.shared).await;
            let running: Vec<_> = self.state.running().cloned().collect();
            if running.is_empty() {
                return;
            }
            let ip = self.pod_ip(pod);
            let sidecar =
                |name: &str| spec::init_containers(pod).iter().any(|c| c.name == name && spec::is_sidecar(c));
            // Sidecars outlive the containers that they serve; among themselves the last goes first.
            let (last, first): (Vec<_>, Vec<_>) = running.into_iter().partition(|i| sidecar(&i.name));
            let turn = if first.is_empty() {
                let order = |name: &str| spec::init_containers(pod).iter().position(|c| c.name == name);
                last.into_iter().max_by_key(|i| order(&i.name)).into_iter().collect()
            } else {
                first
            };
            let ctx = self.ctx.clone();
            let ephemeral = spec::ephemeral_containers(pod);
            let find = |name: &str| {
                let all = spec::containers(pod).iter().chain(spec::init_containers(pod));
                all.chain(ephemeral.iter().map(|(c, _)| c)).find(|c| c.name == name)
            };
            let kills = turn.iter().map(|i| {
                let message = format!("Stopping container {}", i.name);
                kill(&ctx, Kill { pod, container: find(&i.name), id: &i.id, message, grace, pod_ip: &ip })
            });
            let begun = Instant::now();
            join_all(kills).await;
            if begun.elapsed() < AGAIN {
                // Either all is well, or the runtime refuses at once: then not in a tight loop.
                tokio::task::yield_now().await;
                self.state = observe_after_exit(&self.ctx, &self.uid, &self.state, &self.shared).await;
                if turn.iter().any(|t| self.state.running().any(|i| i.id == t.id)) {
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// Everything that is left of the pod on this node, but for the runtime's records and logs.
    pub(super) async fn end_sandbox(&mut self) {
        for sandbox in self.state.sandboxes.clone().into_iter().filter(|s| s.ready) {
            if let Err(e) = self.ctx.runtime.stop_pod_sandbox(&sandbox.id).await
                && !e.is_not_found()
            {
                tracing::warn!(sandbox = sandbox.id, error = e.user_message(), "could not stop a sandbox");
            }
        }
        for task in self.probes.drain() {
            task.1.abort();
        }
        self.state = observe_after_exit(&self.ctx, &self.uid, &self.state, &self.shared).await;
        self.collect_messages();
    }

    /// Volumes, cgroups, records and logs.
    pub(super) async fn remove_all(&mut self, pod: &Pod) {
        let logs = self.ctx.pod_log_dir(spec::namespace(pod), spec::name(pod), spec::uid(pod));
        remove(&self.ctx, &self.uid, &self.state).await;
        let cgroup = resources::pod_cgroup(&self.ctx.config.cgroup_root, pod);
        if !remove_cgroup(&self.ctx, &cgroup).await {
            let ctx = self.ctx.clone();
            tokio::spawn(async move {
                for seconds in [1, 5, 20, 60] {
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    if remove_cgroup(&ctx, &cgroup).await {
                        return;
                    }
                }
                tracing::warn!(cgroup, "could not remove a cgroup");
            });
        }
        let _ = std::fs::remove_dir_all(logs);
    }
}

/// Says whether the cgroup is gone. The kernel may take its time to let go of killed tasks.
async fn remove_cgroup(ctx: &Context, cgroup: &str) -> bool {
    let (cgroups, cgroup) = (ctx.cgroups.clone(), cgroup.to_owned());
    let removal = tokio::task::spawn_blocking(move || cgroups.remove(&cgroup));
    matches!(removal.await, Ok(Ok(())))
}

/// Removes what a pod has in the runtime and on disk; what fails is tried again by the next relist.
pub async fn remove(ctx: &Context, uid: &str, state: &PodState) {
    for instance in state.containers.values().flatten() {
        if instance.state == State::Running {
            let _ = ctx.runtime.stop_container(&instance.id, Duration::ZERO).await;
        }
    }
    for sandbox in &state.sandboxes {
        let _ = ctx.runtime.stop_pod_sandbox(&sandbox.id).await;
        if let Err(e) = ctx.runtime.remove_pod_sandbox(&sandbox.id).await
            && !e.is_not_found()
        {
            tracing::warn!(sandbox = sandbox.id, error = e.user_message(), "could not remove a sandbox");
        }
    }
    if let Err(error) = volumes::tear_down(ctx, uid).await {
        tracing::warn!(pod = uid, "could not remove a pod's volumes: {error:#}");
    }
    ctx.api.release(uid);
}
