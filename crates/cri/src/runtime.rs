//! The runtime as the node agent sees it: one method per call of the interface that it uses.

use crate::error::Result;
use crate::events::Event;
use crate::image::ViewMount;
use crate::v1::*;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::time::Duration;

/// Object-safe, so that real and fake runtimes are one type to the caller.
pub trait Runtime: Send + Sync + 'static {
    fn version(&self) -> BoxFuture<'_, Result<VersionResponse>>;
    /// `RuntimeReady`, `NetworkReady` and what they say.
    fn status(&self) -> BoxFuture<'_, Result<StatusResponse>>;

    fn run_pod_sandbox(&self, config: PodSandboxConfig, handler: String) -> BoxFuture<'_, Result<String>>;
    fn stop_pod_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;
    fn remove_pod_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;
    fn pod_sandbox_status<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<PodSandboxStatus>>;
    fn list_pod_sandboxes(&self, filter: PodSandboxFilter) -> BoxFuture<'_, Result<Vec<PodSandbox>>>;

    fn create_container<'a>(
        &'a self,
        sandbox: &'a str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> BoxFuture<'a, Result<String>>;
    fn start_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;
    /// SIGTERM (or the image's stop signal), then SIGKILL after `grace`.
    fn stop_container<'a>(&'a self, id: &'a str, grace: Duration) -> BoxFuture<'a, Result<()>>;
    fn remove_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;
    fn list_containers(&self, filter: ContainerFilter) -> BoxFuture<'_, Result<Vec<Container>>>;
    fn container_status<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ContainerStatus>>;
    fn update_container_resources<'a>(
        &'a self,
        id: &'a str,
        linux: LinuxContainerResources,
    ) -> BoxFuture<'a, Result<()>>;
    fn reopen_container_log<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Runs a command to its end; a `timeout` of zero waits for ever.
    fn exec_sync<'a>(
        &'a self,
        id: &'a str,
        command: Vec<String>,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<ExecSyncResponse>>;
    /// URLs of the runtime's streaming server.
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<String>>;
    fn attach(&self, request: AttachRequest) -> BoxFuture<'_, Result<String>>;
    fn port_forward<'a>(&'a self, sandbox: &'a str, ports: Vec<i32>) -> BoxFuture<'a, Result<String>>;

    fn list_container_stats(&self) -> BoxFuture<'_, Result<Vec<ContainerStats>>>;

    fn list_images(&self) -> BoxFuture<'_, Result<Vec<Image>>>;
    fn image_status<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<Option<Image>>>;
    /// Returns the reference to run the image by.
    fn pull_image<'a>(
        &'a self,
        image: &'a str,
        auth: Option<AuthConfig>,
        sandbox_config: Option<PodSandboxConfig>,
    ) -> BoxFuture<'a, Result<String>>;
    fn remove_image<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<()>>;
    /// Makes an image's files available to be mounted read-only, for one volume of an owner.
    fn view_image<'a>(
        &'a self,
        image: &'a str,
        owner: &'a str,
        volume: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ViewMount>>>;
    /// Forgets all views of an owner; they must not be mounted any more.
    fn release_views<'a>(&'a self, owner: &'a str) -> BoxFuture<'a, Result<()>>;
    fn image_fs_info(&self) -> BoxFuture<'_, Result<ImageFsInfoResponse>>;

    /// What happens to containers, as it happens. The stream ends when the connection breaks; whoever
    /// listens subscribes again and lists, since events in between are lost.
    fn events(&self) -> BoxFuture<'_, Result<BoxStream<'static, Event>>>;
}
