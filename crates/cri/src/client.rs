//! A runtime behind its unix socket.

use crate::error::{Error, Result};
use crate::events::{self, Event};
use crate::image::{ViewMount, view};
use crate::runtime::Runtime;
use crate::v1::image_service_client::ImageServiceClient;
use crate::v1::runtime_service_client::RuntimeServiceClient;
use crate::v1::*;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// Calls that only read or flip state.
const SHORT: Duration = Duration::from_secs(120);
/// Creating a sandbox runs the network plugins.
const SANDBOX: Duration = Duration::from_secs(240);
const MAX_MESSAGE: usize = 16 << 20;

#[derive(Clone)]
pub struct Client {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    channel: Channel,
    socket: PathBuf,
}

/// Opens a channel to a unix socket. It reconnects by itself when the runtime restarts.
pub async fn connect(socket: &Path) -> Result<Channel> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move {
            let stream = tokio::net::UnixStream::connect(path).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await
        .map_err(|source| Error::Connect { socket: socket.display().to_string(), source })
}

impl Client {
    pub async fn connect(socket: &Path) -> Result<Self> {
        let channel = connect(socket).await?;
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            channel,
            socket: socket.to_owned(),
        })
    }

    /// The channel, for services of containerd beside the interface.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

fn request<T>(message: T, timeout: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(timeout);
    request
}

/// A call on a clone of the client, with its deadline and its error context.
macro_rules! call {
    ($client:expr, $method:ident, $subject:expr, $timeout:expr, $message:expr) => {{
        let mut client = $client.clone();
        let message = $message;
        async move {
            client
                .$method(request(message, $timeout))
                .await
                .map(tonic::Response::into_inner)
                .map_err(Error::call(stringify!($method), $subject))
        }
    }};
}

fn image_spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), ..Default::default() }
}

impl Runtime for Client {
    fn version(&self) -> BoxFuture<'_, Result<VersionResponse>> {
        Box::pin(call!(self.runtime, version, "", SHORT, VersionRequest { version: "v1".into() }))
    }

    fn status(&self) -> BoxFuture<'_, Result<StatusResponse>> {
        Box::pin(call!(self.runtime, status, "", SHORT, StatusRequest { verbose: false }))
    }

    fn run_pod_sandbox(&self, config: PodSandboxConfig, handler: String) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move {
            let subject = config.metadata.as_ref().map(|m| format!("{}/{}", m.namespace, m.name));
            let message = RunPodSandboxRequest { config: Some(config), runtime_handler: handler };
            let call = call!(self.runtime, run_pod_sandbox, subject.unwrap_or_default(), SANDBOX, message);
            Ok(call.await?.pod_sandbox_id)
        })
    }

    fn stop_pod_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let message = StopPodSandboxRequest { pod_sandbox_id: id.into() };
            call!(self.runtime, stop_pod_sandbox, id, SHORT, message).await.map(drop)
        })
    }

    fn remove_pod_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let message = RemovePodSandboxRequest { pod_sandbox_id: id.into() };
            call!(self.runtime, remove_pod_sandbox, id, SHORT, message).await.map(drop)
        })
    }

    fn pod_sandbox_status<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<PodSandboxStatus>> {
        Box::pin(async move {
            let message = PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false };
            let answer = call!(self.runtime, pod_sandbox_status, id, SHORT, message).await?;
            answer
                .status
                .ok_or_else(|| tonic::Status::internal("answer without a status"))
                .map_err(Error::call("pod_sandbox_status", id))
        })
    }

    fn list_pod_sandboxes(&self, filter: PodSandboxFilter) -> BoxFuture<'_, Result<Vec<PodSandbox>>> {
        Box::pin(async move {
            let message = ListPodSandboxRequest { filter: Some(filter) };
            Ok(call!(self.runtime, list_pod_sandbox, "", SHORT, message).await?.items)
        })
    }

    fn create_container<'a>(
        &'a self,
        sandbox: &'a str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let message = CreateContainerRequest {
                pod_sandbox_id: sandbox.into(),
                config: Some(config),
                sandbox_config: Some(sandbox_config),
            };
            Ok(call!(self.runtime, create_container, sandbox, SHORT, message).await?.container_id)
        })
    }

    fn start_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let message = StartContainerRequest { container_id: id.into() };
            call!(self.runtime, start_container, id, SHORT, message).await.map(drop)
        })
    }

    fn stop_container<'a>(&'a self, id: &'a str, grace: Duration) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let message = StopContainerRequest { container_id: id.into(), timeout: grace.as_secs() as i64 };
            call!(self.runtime, stop_container, id, SHORT + grace, message).await.map(drop)
        })
    }

    fn remove_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let message = RemoveContainerRequest { container_id: id.into() };
            call!(self.runtime, remove_container, id, SHORT, message).await.map(drop)
        })
    }

    fn list_containers(&self, filter: ContainerFilter) -> BoxFuture<'_, Result<Vec<Container>>> {
        Box::pin(async move {
            let message = ListContainersRequest { filter: Some(filter) };
            Ok(call!(self.runtime, list_containers, "", SHORT, message).await?.containers)
        })
    }

    fn container_status<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ContainerStatus>> {
        Box::pin(async move {
            let message = ContainerStatusRequest { container_id: id.into(), verbose: false };
            let answer = call!(self.runtime, container_status, id, SHORT, message).await?;
            answer
                .status
                .ok_or_else(|| tonic::Status::internal("answer without a status"))
                .map_err(Error::call("container_status", id))
        })
    }

    fn update_container_resources<'a>(
        &'a self,
        id: &'a str,
        linux: LinuxContainerResources,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let message = UpdateContainerResourcesRequest {
                container_id: id.into(),
                linux: Some(linux),
                ..Default::default()
            };
            call!(self.runtime, update_container_resources, id, SHORT, message).await.map(drop)
        })
    }

    fn reopen_container_log<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let message = ReopenContainerLogRequest { container_id: id.into() };
            call!(self.runtime, reopen_container_log, id, SHORT, message).await.map(drop)
        })
    }

    fn exec_sync<'a>(
        &'a self,
        id: &'a str,
        command: Vec<String>,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<ExecSyncResponse>> {
        Box::pin(async move {
            let message =
                ExecSyncRequest { container_id: id.into(), cmd: command, timeout: timeout.as_secs() as i64 };
            // The runtime enforces the timeout; ours only guards against a runtime that does not answer.
            let guard = if timeout.is_zero() { Duration::from_secs(24 * 3600) } else { timeout + SHORT };
            call!(self.runtime, exec_sync, id, guard, message).await
        })
    }

    fn exec(&self, message: ExecRequest) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move {
            let id = message.container_id.clone();
            Ok(call!(self.runtime, exec, id, SHORT, message).await?.url)
        })
    }

    fn attach(&self, message: AttachRequest) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move {
            let id = message.container_id.clone();
            Ok(call!(self.runtime, attach, id, SHORT, message).await?.url)
        })
    }

    fn port_forward<'a>(&'a self, sandbox: &'a str, ports: Vec<i32>) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let message = PortForwardRequest { pod_sandbox_id: sandbox.into(), port: ports };
            Ok(call!(self.runtime, port_forward, sandbox, SHORT, message).await?.url)
        })
    }

    fn list_container_stats(&self) -> BoxFuture<'_, Result<Vec<ContainerStats>>> {
        Box::pin(async move {
            let message = ListContainerStatsRequest { filter: None };
            Ok(call!(self.runtime, list_container_stats, "", SHORT, message).await?.stats)
        })
    }

    fn list_images(&self) -> BoxFuture<'_, Result<Vec<Image>>> {
        Box::pin(async move {
            let message = ListImagesRequest { filter: None };
            Ok(call!(self.images, list_images, "", SHORT, message).await?.images)
        })
    }

    fn image_status<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<Option<Image>>> {
        Box::pin(async move {
            let message = ImageStatusRequest { image: Some(image_spec(image)), verbose: false };
            Ok(call!(self.images, image_status, image, SHORT, message).await?.image)
        })
    }

    fn pull_image<'a>(
        &'a self,
        image: &'a str,
        auth: Option<AuthConfig>,
        sandbox_config: Option<PodSandboxConfig>,
    ) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let message = PullImageRequest { image: Some(image_spec(image)), auth, sandbox_config };
            // Large images over slow links: the runtime gives up by itself when nothing moves.
            let limit = Duration::from_secs(3600);
            Ok(call!(self.images, pull_image, image, limit, message).await?.image_ref)
        })
    }

    fn remove_image<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let message = RemoveImageRequest { image: Some(image_spec(image)) };
            call!(self.images, remove_image, image, SHORT, message).await.map(drop)
        })
    }

    fn view_image<'a>(
        &'a self,
        image: &'a str,
        owner: &'a str,
        volume: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ViewMount>>> {
        Box::pin(async move {
            let message = ImageStatusRequest { image: Some(image_spec(image)), verbose: true };
            let answer = call!(self.images, image_status, image, SHORT, message).await?;
            let chain = view::chain(&answer.info)
                .ok_or_else(|| {
                    tonic::Status::unimplemented("the runtime does not tell of the image's layers")
                })
                .map_err(Error::call("view", image))?;
            view::make(self.channel(), &chain, owner, volume).await
        })
    }

    fn release_views<'a>(&'a self, owner: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(view::release(self.channel(), owner))
    }

    fn image_fs_info(&self) -> BoxFuture<'_, Result<ImageFsInfoResponse>> {
        Box::pin(call!(self.images, image_fs_info, "", SHORT, ImageFsInfoRequest {}))
    }

    fn events(&self) -> BoxFuture<'_, Result<BoxStream<'static, Event>>> {
        Box::pin(std::future::ready(Ok(events::subscribe(self.runtime.clone(), self.channel()))))
    }
}
