//! One watch over etcd: follows a prefix, through broken connections and changes of leader.
//!
//! etcd is not asked to fragment its answers, so that events of one revision arrive together. When
//! the connection breaks, the watch starts again right after the last revision it has delivered.

use std::time::Duration;

use etcd_client::{
    Client, EventType, WatchClient, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream,
};
use futures::{StreamExt, stream};
use tokio::sync::watch as signal;

use super::convert::{Keys, key_value, revision_of};
use super::failure::Failure;
use super::limited;
use crate::WatchStream;
use crate::error::{Error, Result};
use crate::types::{Event, EventKind, KeyValue, Revision, WatchItem};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

struct Watch {
    client: WatchClient,
    keys: Keys,
    endpoints: String,
    prefix: String,
    /// Everything up to here is delivered.
    seen: Revision,
    connection: Option<Connection>,
    progress: signal::Receiver<()>,
    pause: Duration,
    ended: bool,
}

struct Connection {
    requests: WatchRequestSender,
    responses: WatchResponseStream,
}

/// Connects once, so that a caller learns at once of an etcd that is not there.
pub(super) async fn start(
    client: &Client,
    keys: Keys,
    endpoints: String,
    prefix: &str,
    after: Revision,
    progress: signal::Receiver<()>,
) -> Result<WatchStream> {
    let mut watch = Watch {
        client: client.watch_client().max_decoding_message_size(usize::MAX),
        keys,
        endpoints,
        prefix: prefix.to_owned(),
        seen: after,
        connection: None,
        progress,
        pause: FIRST_PAUSE,
        ended: false,
    };
    let connection =
        watch.connect().await.map_err(|failure| failure.explain("watch", &watch.endpoints, after))?;
    watch.connection = Some(connection);
    Ok(stream::unfold(watch, |mut watch| async move {
        if watch.ended {
            return None;
        }
        let item = watch.next().await;
        watch.ended = item.is_err();
        Some((item, watch))
    })
    .boxed())
}

impl Watch {
    async fn connect(&self) -> Result<Connection, Failure> {
        let (start, end) = self.keys.range(&self.prefix, None);
        let options = WatchOptions::new()
            .with_range(end)
            .with_start_revision(i64::try_from(self.seen + 1).unwrap_or(i64::MAX))
            .with_prev_key()
            .with_progress_notify();
        let mut client = self.client.clone();
        let (requests, responses) = limited(client.watch(start, Some(options))).await?.split();
        Ok(Connection { requests, responses })
    }

    async fn next(&mut self) -> Result<WatchItem> {
        loop {
            let Some(connection) = &mut self.connection else {
                self.reconnect().await;
                continue;
            };
            let response = tokio::select! {
                response = connection.responses.message() => response,
                Ok(()) = self.progress.changed() => {
                    // A request that fails shows up as a broken stream.
                    drop(connection.requests.request_progress().await);
                    continue;
                }
            };
            match response {
                Ok(Some(response)) => {
                    if let Some(item) = self.take(&response)? {
                        return Ok(item);
                    }
                }
                Ok(None) => self.broken(None),
                Err(error) => self.broken(Some(error)),
            }
        }
    }

    fn broken(&mut self, error: Option<etcd_client::Error>) {
        let error = error.map(tracing::field::display);
        tracing::debug!(prefix = self.prefix, revision = self.seen, error, "watch broken, connecting again");
        self.connection = None;
    }

    async fn reconnect(&mut self) {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        match self.connect().await {
            Ok(connection) => self.connection = Some(connection),
            Err(failure) => {
                let error = failure.explain("watch", &self.endpoints, self.seen);
                tracing::warn!(prefix = self.prefix, %error, "cannot resume the watch yet");
            }
        }
    }

    /// What a response tells the reader, if anything.
    fn take(&mut self, response: &WatchResponse) -> Result<Option<WatchItem>> {
        if response.compact_revision() > 0 {
            let compacted = response.compact_revision().unsigned_abs();
            return Err(Error::Compacted { requested: self.seen, compacted });
        }
        if response.canceled() {
            self.broken(None);
            return Ok(None);
        }
        self.pause = FIRST_PAUSE;
        if response.created() {
            return Ok(None);
        }
        let header = revision_of(response.header());
        let Some(last) = response.events().last().and_then(|event| event.kv()) else {
            return Ok(self.progressed(header));
        };
        self.seen = self.seen.max(last.mod_revision().unsigned_abs());
        let events: Vec<Event> = response.events().iter().filter_map(|event| self.event(event)).collect();
        Ok((!events.is_empty()).then_some(WatchItem::Events(events)))
    }

    fn progressed(&mut self, revision: Revision) -> Option<WatchItem> {
        if revision < self.seen {
            return None;
        }
        self.seen = revision;
        Some(WatchItem::Progress(revision))
    }

    fn event(&self, event: &etcd_client::Event) -> Option<Event> {
        let kv = event.kv()?;
        let revision = kv.mod_revision().unsigned_abs();
        let previous = event.prev_kv().cloned().and_then(|kv| key_value(&self.keys, kv));
        let kv = key_value(&self.keys, kv.clone())?;
        Some(match event.event_type() {
            EventType::Put => Event { revision, kind: EventKind::Put, kv, previous },
            EventType::Delete => {
                let last = previous.clone().unwrap_or(KeyValue { value: bytes::Bytes::new(), ..kv });
                Event { revision, kind: EventKind::Delete, kv: last, previous }
            }
        })
    }
}
