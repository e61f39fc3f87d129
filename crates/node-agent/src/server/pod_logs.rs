//! `/containerLogs/{namespace}/{pod}/{container}`.

use super::{Body, Server, is_set, plain, query, value};
use crate::logs::{self, Options};
use crate::pods::labels;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use keelson_cri::Runtime;
use keelson_cri::v1::{ContainerFilter, ContainerState, ContainerStatus};
use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

pub async fn handle(
    server: &Server,
    request: &Request<Incoming>,
    namespace: &str,
    pod: &str,
    container: &str,
) -> Response<Body> {
    let query = query(request);
    let options = match options(&query) {
        Ok(options) => options,
        Err(message) => return plain(StatusCode::BAD_REQUEST, message),
    };
    let known = server.manager.pod(namespace, pod);
    let runs = match runs(server, namespace, pod, container).await {
        Ok(runs) => runs,
        Err(message) => return plain(StatusCode::INTERNAL_SERVER_ERROR, message),
    };
    let wanted = if is_set(&query, "previous") { 1 } else { 0 };
    // A run that never started has nothing to say: then the one before is meant.
    let started: Vec<_> = runs.iter().filter(|r| r.state() != ContainerState::ContainerCreated).collect();
    let Some(run) = started.get(wanted).copied() else {
        let message = match (wanted, known) {
            (_, None) => format!("pod {pod:?} does not exist in namespace {namespace:?}"),
            (1, _) => format!("previous terminated container {container:?} in pod {pod:?} not found"),
            _ => format!("container {container:?} in pod {pod:?} is waiting to start: ContainerCreating"),
        };
        let status = if wanted == 1 || message.contains("waiting") {
            StatusCode::BAD_REQUEST
        } else {
            StatusCode::NOT_FOUND
        };
        return plain(status, message);
    };
    stream(server, run, options)
}

fn options(query: &[(String, String)]) -> Result<Options, String> {
    let number = |name: &str| -> Result<Option<u64>, String> {
        match value(query, name) {
            Some(text) => text.parse().map(Some).map_err(|_| format!("invalid {name}: {text:?}")),
            None => Ok(None),
        }
    };
    let since = match (value(query, "sinceTime"), number("sinceSeconds")?) {
        (Some(_), Some(_)) => return Err("at most one of sinceTime or sinceSeconds may be specified".into()),
        (Some(text), None) => Some(text.parse().map_err(|_| format!("invalid sinceTime: {text:?}"))?),
        (None, Some(seconds)) => {
            Some(jiff::Timestamp::now() - jiff::SignedDuration::from_secs(seconds as i64))
        }
        (None, None) => None,
    };
    Ok(Options {
        follow: is_set(query, "follow"),
        tail: number("tailLines")?,
        since,
        timestamps: is_set(query, "timestamps"),
        limit: number("limitBytes")?,
        stream: match value(query, "stream") {
            Some("Stdout") => Some("Stdout"),
            Some("Stderr") => Some("Stderr"),
            _ => None,
        },
    })
}

/// The runs of a container, newest first.
async fn runs(
    server: &Server,
    namespace: &str,
    pod: &str,
    container: &str,
) -> Result<Vec<ContainerStatus>, String> {
    let mut selector = HashMap::from([
        (labels::POD_NAMESPACE.to_owned(), namespace.to_owned()),
        (labels::POD_NAME.to_owned(), pod.to_owned()),
        (labels::CONTAINER_NAME.to_owned(), container.to_owned()),
    ]);
    if let Some(pod) = server.manager.pod(namespace, pod) {
        // Of a pod that was made again under the same name, the present one.
        selector.insert(labels::POD_UID.to_owned(), pod.metadata.uid.clone().unwrap_or_default());
    }
    let runtime = server.ctx.runtime.as_ref();
    let filter = ContainerFilter { label_selector: selector, ..Default::default() };
    let listed = runtime.list_containers(filter).await.map_err(|e| e.user_message())?;
    let mut runs = Vec::new();
    for container in listed {
        if let Ok(status) = runtime.container_status(&container.id).await {
            runs.push(status);
        }
    }
    runs.sort_by_key(|r| std::cmp::Reverse((r.metadata.as_ref().map_or(0, |m| m.attempt), r.created_at)));
    Ok(runs)
}

fn stream(server: &Server, run: &ContainerStatus, options: Options) -> Response<Body> {
    let (sender, receiver) = mpsc::channel::<Bytes>(8);
    let (path, id) = (PathBuf::from(&run.log_path), run.id.clone());
    let runtime = server.ctx.runtime.clone();
    tokio::spawn(async move {
        let alive = || is_running(runtime.as_ref(), &id);
        if let Err(error) = logs::read(&path, &options, &sender, alive).await {
            tracing::debug!(log = %path.display(), %error, "could not read a log");
        }
    });
    let frames = ReceiverStream::new(receiver).map(|data| Ok::<_, Infallible>(Frame::data(data)));
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    let kind = header::HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn is_running(runtime: &dyn Runtime, id: &str) -> bool {
    match runtime.container_status(id).await {
        Ok(status) => status.state() == ContainerState::ContainerRunning,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &[(&str, &str)]) -> Result<Options, String> {
        options(&query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>())
    }

    #[test]
    fn the_query_becomes_options() {
        let options = check(&[("follow", "true"), ("tailLines", "5"), ("timestamps", "1")]).expect("good");
        assert_eq!((options.follow, options.tail, options.timestamps), (true, Some(5), true));
        assert!(check(&[("tailLines", "-1")]).is_err());
        assert!(check(&[("sinceSeconds", "1"), ("sinceTime", "2026-01-01T00:00:00Z")]).is_err());
    }
}
