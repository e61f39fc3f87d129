//! A runtime in memory: sandboxes and containers with the states that a real one has, a log of the calls, and
//! switches for what a test wants to go wrong.

use crate::error::{Error, Result};
use crate::events::{Event, EventKind};
use crate::image::ViewMount;
use crate::runtime::Runtime;
use crate::v1::*;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::broadcast;

pub struct Fake {
    state: Mutex<State>,
    events: broadcast::Sender<Event>,
    clock: fn() -> i64,
}

#[derive(Default)]
struct State {
    next: u32,
    sandboxes: BTreeMap<String, PodSandboxStatus>,
    containers: BTreeMap<String, (String, ContainerStatus)>,
    configs: HashMap<String, ContainerConfig>,
    images: BTreeSet<String>,
    calls: Vec<String>,
    failures: HashMap<&'static str, Vec<String>>,
    exec: HashMap<String, ExecSyncResponse>,
    exit_on_start: HashMap<String, i32>,
}

impl Default for Fake {
    fn default() -> Self {
        Self::with_clock(|| {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            since.map_or(0, |d| d.as_nanos() as i64)
        })
    }
}

impl Fake {
    /// A runtime that takes its time stamps, nanoseconds since 1970, from `clock`.
    pub fn with_clock(clock: fn() -> i64) -> Self {
        Self { state: Mutex::default(), events: broadcast::channel(1024).0, clock }
    }

    /// The calls so far, e.g. `start_container app`; and forgets them.
    pub fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().calls)
    }

    pub fn add_image(&self, image: &str) {
        self.lock().images.insert(crate::image::normalize(image));
    }

    /// The next call of this name fails with the message.
    pub fn fail_next(&self, call: &'static str, message: &str) {
        self.lock().failures.entry(call).or_default().push(message.into());
    }

    /// Containers of this name end at once with the code when they are started.
    pub fn exit_on_start(&self, name: &str, code: i32) {
        self.lock().exit_on_start.insert(name.into(), code);
    }

    /// What a command answers in `exec_sync`; the default is exit code 0 and no output.
    pub fn on_exec(&self, command: &str, code: i32, stdout: &str) {
        let answer =
            ExecSyncResponse { exit_code: code, stdout: stdout.as_bytes().to_vec(), ..Default::default() };
        self.lock().exec.insert(command.into(), answer);
    }

    /// Ends the running container of this name, as a crash would.
    pub fn exit(&self, name: &str, code: i32) -> bool {
        let id = self.running(name);
        let Some(id) = id else { return false };
        self.end(&id, code, if code == 0 { "Completed" } else { "Error" });
        true
    }

    /// The id of the running container of this name.
    pub fn running(&self, name: &str) -> Option<String> {
        let state = self.lock();
        let found = state.containers.iter().find(|(_, (_, c))| {
            c.metadata.as_ref().is_some_and(|m| m.name == name)
                && c.state() == ContainerState::ContainerRunning
        });
        found.map(|(id, _)| id.clone())
    }

    /// The configuration with which a container was created.
    pub fn config(&self, id: &str) -> Option<ContainerConfig> {
        self.lock().configs.get(id).cloned()
    }

    pub fn sandbox_count(&self) -> usize {
        self.lock().sandboxes.len()
    }

    fn end(&self, id: &str, code: i32, reason: &str) {
        let mut state = self.lock();
        let now = (self.clock)();
        if let Some((_, c)) = state.containers.get_mut(id) {
            c.state = ContainerState::ContainerExited as i32;
            c.exit_code = code;
            c.reason = reason.into();
            c.finished_at = now;
        }
        drop(state);
        let _ = self.events.send(Event { id: id.into(), kind: EventKind::Exited { code: code as u32 } });
        let _ = self.events.send(Event { id: id.into(), kind: EventKind::Deleted });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }

    fn enter(&self, call: &'static str, subject: &str) -> Result<std::sync::MutexGuard<'_, State>> {
        let mut state = self.lock();
        state.calls.push(format!("{call} {subject}").trim_end().to_owned());
        match state.failures.get_mut(call).filter(|f| !f.is_empty()).map(|f| f.remove(0)) {
            Some(message) => Err(Error::call(call, subject)(tonic::Status::unknown(message))),
            None => Ok(state),
        }
    }
}

fn not_found(call: &'static str, id: &str) -> Error {
    Error::call(call, id)(tonic::Status::not_found(format!("no {id}")))
}

fn labels_match(labels: &HashMap<String, String>, wanted: &HashMap<String, String>) -> bool {
    wanted.iter().all(|(k, v)| labels.get(k) == Some(v))
}

fn done<'a, T: Send + 'a>(value: Result<T>) -> BoxFuture<'a, Result<T>> {
    Box::pin(futures::future::ready(value))
}

impl Runtime for Fake {
    fn version(&self) -> BoxFuture<'_, Result<VersionResponse>> {
        done(Ok(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "fake".into(),
            runtime_version: "v1".into(),
            runtime_api_version: "v1".into(),
        }))
    }

    fn status(&self) -> BoxFuture<'_, Result<StatusResponse>> {
        let conditions = ["RuntimeReady", "NetworkReady"].map(|t| RuntimeCondition {
            r#type: t.into(),
            status: true,
            ..Default::default()
        });
        done(Ok(StatusResponse {
            status: Some(RuntimeStatus { conditions: conditions.to_vec() }),
            ..Default::default()
        }))
    }

    fn run_pod_sandbox(&self, config: PodSandboxConfig, handler: String) -> BoxFuture<'_, Result<String>> {
        let metadata = config.metadata.clone().unwrap_or_default();
        done(self.enter("run_pod_sandbox", &metadata.name).map(|mut state| {
            state.next += 1;
            let id = format!("sandbox-{}", state.next);
            let network = PodSandboxNetworkStatus {
                ip: format!("10.244.0.{}", state.next),
                additional_ips: Vec::new(),
            };
            let status = PodSandboxStatus {
                id: id.clone(),
                metadata: Some(metadata),
                created_at: (self.clock)(),
                network: Some(network),
                labels: config.labels,
                annotations: config.annotations,
                runtime_handler: handler,
                ..Default::default()
            };
            state.sandboxes.insert(id.clone(), status);
            id
        }))
    }

    fn stop_pod_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        let inside: Vec<String> = {
            let state = self.lock();
            let running = state
                .containers
                .iter()
                .filter(|(_, (sandbox, c))| sandbox == id && c.state() == ContainerState::ContainerRunning);
            running.map(|(id, _)| id.clone()).collect()
        };
        for container in inside {
            self.end(&container, 137, "Error");
        }
        done(self.enter("stop_pod_sandbox", id).map(|mut state| {
            if let Some(sandbox) = state.sandboxes.get_mut(id) {
                sandbox.state = PodSandboxState::SandboxNotready as i32;
            }
        }))
    }

    fn remove_pod_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        done(self.enter("remove_pod_sandbox", id).map(|mut state| {
            state.sandboxes.remove(id);
            state.containers.retain(|_, (sandbox, _)| sandbox != id);
        }))
    }

    fn pod_sandbox_status<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<PodSandboxStatus>> {
        done(self.lock().sandboxes.get(id).cloned().ok_or_else(|| not_found("pod_sandbox_status", id)))
    }

    fn list_pod_sandboxes(&self, filter: PodSandboxFilter) -> BoxFuture<'_, Result<Vec<PodSandbox>>> {
        let state = self.lock();
        let matching = state.sandboxes.values().filter(|s| labels_match(&s.labels, &filter.label_selector));
        let items = matching.map(|s| PodSandbox {
            id: s.id.clone(),
            metadata: s.metadata.clone(),
            state: s.state,
            created_at: s.created_at,
            labels: s.labels.clone(),
            annotations: s.annotations.clone(),
            runtime_handler: s.runtime_handler.clone(),
        });
        done(Ok(items.collect()))
    }

    fn create_container<'a>(
        &'a self,
        sandbox: &'a str,
        config: ContainerConfig,
        _sandbox_config: PodSandboxConfig,
    ) -> BoxFuture<'a, Result<String>> {
        let metadata = config.metadata.clone().unwrap_or_default();
        done(self.enter("create_container", &metadata.name).map(|mut state| {
            state.next += 1;
            let id = format!("container-{}", state.next);
            let image = config.image.clone().unwrap_or_default();
            let status = ContainerStatus {
                id: id.clone(),
                metadata: Some(metadata),
                created_at: (self.clock)(),
                image_ref: image.image.clone(),
                image: Some(image),
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
                log_path: config.log_path.clone(),
                ..Default::default()
            };
            state.configs.insert(id.clone(), config);
            state.containers.insert(id.clone(), (sandbox.into(), status));
            id
        }))
    }

    fn start_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        let name = {
            let state = self.lock();
            let metadata = state.containers.get(id).and_then(|(_, c)| c.metadata.clone());
            metadata.map(|m| m.name).unwrap_or_default()
        };
        let started = self.enter("start_container", &name).map(|mut state| {
            let now = (self.clock)();
            if let Some((_, c)) = state.containers.get_mut(id) {
                c.state = ContainerState::ContainerRunning as i32;
                c.started_at = now;
            }
            state.exit_on_start.get(&name).copied()
        });
        done(started.map(|exit| {
            let _ = self.events.send(Event { id: id.into(), kind: EventKind::Started });
            if let Some(code) = exit {
                self.end(id, code, if code == 0 { "Completed" } else { "Error" });
            }
        }))
    }

    fn stop_container<'a>(&'a self, id: &'a str, grace: Duration) -> BoxFuture<'a, Result<()>> {
        let name = {
            let state = self.lock();
            let metadata = state.containers.get(id).and_then(|(_, c)| c.metadata.clone());
            metadata.map(|m| m.name).unwrap_or_default()
        };
        let entered = self.enter("stop_container", &format!("{name} {}s", grace.as_secs())).map(drop);
        if entered.is_ok() {
            self.end(id, 143, "Error");
        }
        done(entered)
    }

    fn remove_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        done(self.enter("remove_container", id).map(|mut state| {
            state.containers.remove(id);
        }))
    }

    fn list_containers(&self, filter: ContainerFilter) -> BoxFuture<'_, Result<Vec<Container>>> {
        let state = self.lock();
        let matching = state.containers.values().filter(|(sandbox, c)| {
            labels_match(&c.labels, &filter.label_selector)
                && (filter.pod_sandbox_id.is_empty() || *sandbox == filter.pod_sandbox_id)
        });
        let items = matching.map(|(sandbox, c)| Container {
            id: c.id.clone(),
            pod_sandbox_id: sandbox.clone(),
            metadata: c.metadata.clone(),
            image: c.image.clone(),
            image_ref: c.image_ref.clone(),
            state: c.state,
            created_at: c.created_at,
            labels: c.labels.clone(),
            annotations: c.annotations.clone(),
            image_id: c.image_id.clone(),
        });
        done(Ok(items.collect()))
    }

    fn container_status<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ContainerStatus>> {
        let found = self.lock().containers.get(id).map(|(_, c)| c.clone());
        done(found.ok_or_else(|| not_found("container_status", id)))
    }

    fn update_container_resources<'a>(
        &'a self,
        id: &'a str,
        _linux: LinuxContainerResources,
    ) -> BoxFuture<'a, Result<()>> {
        done(self.enter("update_container_resources", id).map(drop))
    }

    fn reopen_container_log<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        done(self.enter("reopen_container_log", id).map(drop))
    }

    fn exec_sync<'a>(
        &'a self,
        _id: &'a str,
        command: Vec<String>,
        _timeout: Duration,
    ) -> BoxFuture<'a, Result<ExecSyncResponse>> {
        let command = command.join(" ");
        done(
            self.enter("exec_sync", &command)
                .map(|state| state.exec.get(&command).cloned().unwrap_or_default()),
        )
    }

    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<String>> {
        done(self.enter("exec", &request.container_id).map(|_| "http://127.0.0.1:1/exec".into()))
    }

    fn attach(&self, request: AttachRequest) -> BoxFuture<'_, Result<String>> {
        done(self.enter("attach", &request.container_id).map(|_| "http://127.0.0.1:1/attach".into()))
    }

    fn port_forward<'a>(&'a self, sandbox: &'a str, _ports: Vec<i32>) -> BoxFuture<'a, Result<String>> {
        done(self.enter("port_forward", sandbox).map(|_| "http://127.0.0.1:1/portforward".into()))
    }

    fn list_container_stats(&self) -> BoxFuture<'_, Result<Vec<ContainerStats>>> {
        done(Ok(Vec::new()))
    }

    fn list_images(&self) -> BoxFuture<'_, Result<Vec<Image>>> {
        let images = self.lock().images.clone();
        let image = |name: String| Image { id: name.clone(), repo_tags: vec![name], ..Default::default() };
        done(Ok(images.into_iter().map(image).collect()))
    }

    fn image_status<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<Option<Image>>> {
        let name = crate::image::normalize(image);
        let present = self.lock().images.contains(&name);
        done(Ok(present.then(|| Image { id: name.clone(), repo_tags: vec![name], ..Default::default() })))
    }

    fn pull_image<'a>(
        &'a self,
        image: &'a str,
        _auth: Option<AuthConfig>,
        _sandbox_config: Option<PodSandboxConfig>,
    ) -> BoxFuture<'a, Result<String>> {
        let name = crate::image::normalize(image);
        done(self.enter("pull_image", &name).map(|mut state| {
            state.images.insert(name.clone());
            name
        }))
    }

    fn remove_image<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<()>> {
        done(self.enter("remove_image", image).map(|mut state| {
            state.images.remove(&crate::image::normalize(image));
        }))
    }

    fn view_image<'a>(
        &'a self,
        image: &'a str,
        owner: &'a str,
        volume: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ViewMount>>> {
        let mount =
            ViewMount { kind: "overlay".into(), source: format!("layers of {image}"), options: vec![] };
        done(self.enter("view_image", &format!("{owner} {volume}")).map(|_| vec![mount]))
    }

    fn release_views<'a>(&'a self, owner: &'a str) -> BoxFuture<'a, Result<()>> {
        done(self.enter("release_views", owner).map(drop))
    }

    fn image_fs_info(&self) -> BoxFuture<'_, Result<ImageFsInfoResponse>> {
        done(Ok(ImageFsInfoResponse::default()))
    }

    fn events(&self) -> BoxFuture<'_, Result<BoxStream<'static, Event>>> {
        let stream = tokio_stream::wrappers::BroadcastStream::new(self.events.subscribe());
        done(Ok(stream.filter_map(|e| futures::future::ready(e.ok())).boxed()))
    }
}
