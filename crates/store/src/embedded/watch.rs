//! One watch: first the history from the file, then what the writer commits.

use std::sync::Arc;

use futures::{StreamExt, stream};

use super::hub::Subscription;
use super::{Shared, blocking, queue, read};
use crate::WatchStream;
use crate::error::{Error, Result};
use crate::types::{Revision, WatchItem};

struct Watch {
    shared: Arc<Shared>,
    prefix: String,
    live: Subscription,
    /// The last revision delivered or known not to concern this watch.
    seen: Revision,
    /// Changes up to this revision were already seen by the caller before the watch began.
    after: Revision,
    state: State,
}

enum State {
    /// The file holds changes that the subscription does not.
    Replaying,
    Live,
    Ended,
}

/// Subscribes first, then replays up to the revision the subscription starts from: no gap, no
/// overlap.
pub(super) fn start(shared: Arc<Shared>, prefix: &str, after: Revision) -> Result<WatchStream> {
    let compacted = shared.read("watch", read::compacted_in)?;
    if after < compacted {
        return Err(Error::Compacted { requested: after, compacted });
    }
    let live = shared.hub.subscribe(prefix);
    let state = if after < live.from { State::Replaying } else { State::Live };
    let watch = Watch { shared, prefix: prefix.to_owned(), live, seen: after, after, state };
    Ok(stream::unfold(watch, |mut watch| async move {
        let item = watch.next().await?;
        if item.is_err() {
            watch.state = State::Ended;
        }
        Some((item, watch))
    })
    .boxed())
}

impl Watch {
    async fn next(&mut self) -> Option<Result<WatchItem>> {
        loop {
            match self.state {
                State::Replaying => match self.replay().await {
                    Ok(None) => {}
                    Ok(Some(item)) => return Some(Ok(item)),
                    Err(error) => return Some(Err(error)),
                },
                State::Live => match self.live.items.recv().await {
                    Some(item) => {
                        if let Some(item) = self.accept(item) {
                            return Some(Ok(item));
                        }
                    }
                    None => return Some(Err(self.end())),
                },
                State::Ended => return None,
            }
        }
    }

    /// The next stretch of history; at its end the caller learns that it has all of it.
    async fn replay(&mut self) -> Result<Option<WatchItem>> {
        if self.seen >= self.live.from {
            self.state = State::Live;
            return Ok(Some(WatchItem::Progress(self.live.from)));
        }
        let (prefix, after, upto) = (self.prefix.clone(), self.seen, self.live.from);
        let chunk = blocking(self.shared.clone(), "watch", move |shared| {
            shared.read("watch", |transaction| read::changes(transaction, &prefix, after, upto))
        })
        .await?;
        if after < chunk.compacted {
            return Err(Error::Compacted { requested: after, compacted: chunk.compacted });
        }
        self.seen = chunk.upto;
        Ok((!chunk.events.is_empty()).then_some(WatchItem::Events(chunk.events)))
    }

    /// Accounts for an item and drops from it what lies before the watch's beginning, which is
    /// possible when the caller asked for a revision yet to come.
    fn accept(&mut self, item: WatchItem) -> Option<WatchItem> {
        let WatchItem::Events(mut events) = item else { return Some(item) };
        self.live.backlog.taken(&events);
        if events.first().is_some_and(|event| event.revision <= self.after) {
            events.retain(|event| event.revision > self.after);
        }
        (!events.is_empty()).then_some(WatchItem::Events(events))
    }

    fn end(&self) -> Error {
        match self.live.backlog.events() {
            0 => queue::closed("watch", &self.shared.file.path().display().to_string()).into(),
            pending => Error::SlowWatcher { prefix: self.prefix.clone(), pending },
        }
    }
}
