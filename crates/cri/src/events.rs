//! What happens to containers, as it happens.
//!
//! Runtimes of the interface's newer versions stream it themselves (`GetContainerEvents`). containerd 1.6 does
//! not, so its own event service is asked first; the interface's stream is the way for every other runtime.

use crate::v1;
use crate::v1::runtime_service_client::RuntimeServiceClient;
use containerd_client::events::{TaskDelete, TaskExit, TaskOom, TaskStart};
use containerd_client::services::v1::SubscribeRequest;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::types::Envelope;
use futures::StreamExt;
use futures::stream::BoxStream;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

/// The namespace in which containerd keeps what the interface created.
pub const NAMESPACE: &str = "k8s.io";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Started,
    /// The main process has ended. The runtime's own status may lag behind by some milliseconds.
    Exited {
        code: u32,
    },
    /// The runtime has seen the end and recorded it.
    Deleted,
    OutOfMemory,
}

/// `id` is a container's or a sandbox's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: String,
    pub kind: EventKind,
}

/// Events as they come. containerd answers a subscription only with its first event, so that nothing is waited
/// for here: the stream is there at once, and ends where the subscription fails or breaks.
pub(crate) fn subscribe(
    runtime: RuntimeServiceClient<Channel>,
    channel: Channel,
) -> BoxStream<'static, Event> {
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        tokio::select! {
            outcome = forward(runtime, channel, &sender) => {
                if let Err(status) = outcome {
                    tracing::debug!(%status, "the runtime's events ended");
                }
            }
            () = sender.closed() => {}
        }
    });
    ReceiverStream::new(receiver).boxed()
}

async fn forward(
    mut runtime: RuntimeServiceClient<Channel>,
    channel: Channel,
    sender: &mpsc::Sender<Event>,
) -> Result<(), tonic::Status> {
    let filters = ["/tasks/exit", "/tasks/oom", "/tasks/delete", "/tasks/start"]
        .map(|topic| format!("namespace=={NAMESPACE},topic==\"{topic}\""));
    let request = SubscribeRequest { filters: filters.to_vec() };
    match EventsClient::new(channel).subscribe(request).await {
        Ok(stream) => {
            let mut stream = stream.into_inner();
            while let Some(envelope) = stream.message().await? {
                send(sender, decode(envelope)).await;
            }
        }
        Err(status) if status.code() == Code::Unimplemented => {
            let mut stream = runtime.get_container_events(v1::GetEventsRequest {}).await?.into_inner();
            while let Some(event) = stream.message().await? {
                send(sender, convert(event)).await;
            }
        }
        Err(status) => return Err(status),
    }
    Ok(())
}

async fn send(sender: &mpsc::Sender<Event>, event: Option<Event>) {
    if let Some(event) = event {
        let _ = sender.send(event).await;
    }
}

fn decode(envelope: Envelope) -> Option<Event> {
    let body = envelope.event?.value;
    let (id, kind) = match envelope.topic.as_str() {
        "/tasks/exit" => {
            let exit = TaskExit::decode(body.as_slice()).ok()?;
            // Exec'ed processes have an id of their own.
            if exit.id != exit.container_id {
                return None;
            }
            (exit.container_id, EventKind::Exited { code: exit.exit_status })
        }
        "/tasks/delete" => {
            let delete = TaskDelete::decode(body.as_slice()).ok()?;
            if !delete.id.is_empty() && delete.id != delete.container_id {
                return None;
            }
            (delete.container_id, EventKind::Deleted)
        }
        "/tasks/oom" => (TaskOom::decode(body.as_slice()).ok()?.container_id, EventKind::OutOfMemory),
        "/tasks/start" => (TaskStart::decode(body.as_slice()).ok()?.container_id, EventKind::Started),
        _ => return None,
    };
    Some(Event { id, kind })
}

fn convert(event: v1::ContainerEventResponse) -> Option<Event> {
    let kind = match event.container_event_type() {
        v1::ContainerEventType::ContainerStartedEvent => EventKind::Started,
        v1::ContainerEventType::ContainerStoppedEvent => {
            let code = event
                .containers_statuses
                .iter()
                .find(|s| s.id == event.container_id)
                .map_or(0, |s| s.exit_code as u32);
            EventKind::Exited { code }
        }
        v1::ContainerEventType::ContainerDeletedEvent => EventKind::Deleted,
        v1::ContainerEventType::ContainerCreatedEvent => return None,
    };
    Some(Event { id: event.container_id, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(topic: &str, body: Vec<u8>) -> Envelope {
        Envelope {
            topic: topic.into(),
            event: Some(prost_types::Any { type_url: String::new(), value: body }),
            ..Default::default()
        }
    }

    #[test]
    fn the_end_of_a_containers_main_process_is_an_exit() {
        let exit =
            TaskExit { container_id: "c".into(), id: "c".into(), exit_status: 137, ..Default::default() };
        let event = decode(envelope("/tasks/exit", exit.encode_to_vec()));
        assert_eq!(event, Some(Event { id: "c".into(), kind: EventKind::Exited { code: 137 } }));
    }

    #[test]
    fn the_end_of_an_execed_process_is_not() {
        let exit = TaskExit { container_id: "c".into(), id: "exec1".into(), ..Default::default() };
        assert_eq!(decode(envelope("/tasks/exit", exit.encode_to_vec())), None);
    }
}
