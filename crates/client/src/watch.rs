//! LIST and WATCH on the wire, each object deserialised straight into its projection.

use crate::{Projected, rest};
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::core::Status;
use rand::RngExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// Objects per page of a LIST.
const PAGE: &str = "500";
/// The server ends a watch after this long, or up to twice as long; so that not all come back together.
const WATCH_SECONDS: u64 = 300;

/// What to list and watch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    pub(crate) namespace: String,
    pub(crate) labels: String,
    pub(crate) fields: String,
}

impl Selection {
    fn url<P: Projected>(&self, more: &[(&str, &str)]) -> String {
        let mut pairs = vec![("labelSelector", &*self.labels), ("fieldSelector", &*self.fields)];
        pairs.extend_from_slice(more);
        format!("{}?{}", rest::path::<P>(&self.namespace, None, None), rest::query(&pairs))
    }
}

/// A page of a LIST.
pub(crate) struct Page<P> {
    pub(crate) items: Vec<Arc<P>>,
    pub(crate) resource_version: String,
    /// Where the next page starts; empty at the end.
    pub(crate) next: String,
}

/// One line of a WATCH.
pub(crate) enum Event<P> {
    /// Added or modified.
    Applied(Arc<P>),
    Deleted(P),
    Bookmark(String),
    /// The server gives up; 410 means that its history does not reach back far enough.
    Error(Box<Status>),
    /// An object that does not fit the projection: its version, so that the watch goes on behind it.
    Skipped(String),
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: String,
    r#continue: String,
}

#[derive(Deserialize)]
struct RawList<'a> {
    metadata: ListMeta,
    // A Go server says `null` for no items.
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct OnlyVersion {
    #[serde(default)]
    metadata: ListMeta,
}

/// Reads one page. `version` is a list's `resourceVersion`: `0` for any state that the server has at hand,
/// empty for the newest.
pub(crate) async fn list_page<P: Projected>(
    client: &kube::Client,
    what: &Selection,
    version: &str,
    start: &str,
) -> Result<Page<P>, kube::Error> {
    let url = match start {
        "" => what.url::<P>(&[("limit", PAGE), ("resourceVersion", version)]),
        start => what.url::<P>(&[("limit", PAGE), ("continue", start)]),
    };
    let body = rest::collect(rest::open(client, &url).await?).await?;
    let list: RawList<'_> = serde_json::from_slice(&body).map_err(kube::Error::SerdeError)?;
    let items =
        list.items.unwrap_or_default().into_iter().filter_map(|raw| parse::<P>(raw).map(Arc::new)).collect();
    Ok(Page { items, resource_version: list.metadata.resource_version, next: list.metadata.r#continue })
}

fn parse<P: Projected>(raw: &RawValue) -> Option<P> {
    match serde_json::from_str(raw.get()) {
        Ok(object) => Some(object),
        Err(error) => {
            let start: String = raw.get().chars().take(200).collect();
            tracing::error!(
                kind = P::KIND,
                error = &error as &dyn std::error::Error,
                start,
                "object not understood"
            );
            None
        }
    }
}

/// The events after a resource version.
pub(crate) struct Watch {
    body: Body,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line's end.
    scanned: usize,
    silence: Duration,
}

/// Opens a watch.
pub(crate) async fn watch<P: Projected>(
    client: &kube::Client,
    what: &Selection,
    version: &str,
) -> Result<Watch, kube::Error> {
    let seconds = rand::rng().random_range(WATCH_SECONDS..2 * WATCH_SECONDS);
    let url = what.url::<P>(&[
        ("watch", "true"),
        ("allowWatchBookmarks", "true"),
        ("resourceVersion", version),
        ("timeoutSeconds", &seconds.to_string()),
    ]);
    let body = rest::open(client, &url).await?.into_body();
    // Past its own end plus a margin, a silent watch is on a dead connection.
    let silence = Duration::from_secs(seconds + 30);
    Ok(Watch { body, buffer: BytesMut::new(), scanned: 0, silence })
}

impl Watch {
    /// The next event, or `None` when the server ended the watch.
    pub(crate) async fn next<P: Projected>(&mut self) -> Result<Option<Event<P>>, kube::Error> {
        let Some(line) = self.line().await? else { return Ok(None) };
        let raw: RawEvent<'_> = serde_json::from_slice(&line).map_err(kube::Error::SerdeError)?;
        let skipped = |raw: &RawValue| {
            let only = serde_json::from_str::<OnlyVersion>(raw.get());
            only.map(|o| o.metadata.resource_version).map_err(kube::Error::SerdeError)
        };
        Ok(Some(match &*raw.r#type {
            "ADDED" | "MODIFIED" => match parse::<P>(raw.object) {
                Some(object) => Event::Applied(Arc::new(object)),
                None => Event::Skipped(skipped(raw.object)?),
            },
            "DELETED" => match parse::<P>(raw.object) {
                Some(object) => Event::Deleted(object),
                None => Event::Skipped(skipped(raw.object)?),
            },
            "BOOKMARK" => Event::Bookmark(skipped(raw.object)?),
            "ERROR" => Event::Error(serde_json::from_str(raw.object.get()).map_err(kube::Error::SerdeError)?),
            other => {
                tracing::warn!(kind = P::KIND, r#type = other, "unknown watch event");
                Event::Skipped(skipped(raw.object)?)
            }
        }))
    }

    /// A line without its end; an unfinished last line counts as none.
    async fn line(&mut self) -> Result<Option<Bytes>, kube::Error> {
        loop {
            if let Some(end) = self.buffer[self.scanned..].iter().position(|&b| b == b'\n') {
                let line = self.buffer.split_to(self.scanned + end).freeze();
                self.buffer.advance(1);
                self.scanned = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Some(line));
            }
            self.scanned = self.buffer.len();
            let frame = tokio::time::timeout(self.silence, self.body.frame()).await;
            let frame = frame.map_err(|late| kube::Error::Service(Box::new(late)))?;
            let Some(frame) = frame.transpose()? else { return Ok(None) };
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}
