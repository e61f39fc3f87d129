//! Clients that note what they do and see.

mod api;
mod reader;
mod watcher;
mod writer;

use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::history::{Answer, Call, Fresh, History, Key, Operation, Outage, Revision, Session, Time};
pub use api::{Api, NAMESPACE};
pub use reader::Reader;
pub use watcher::Watcher;
pub use writer::Writer;

/// How many objects there are.
pub const KEYS: Key = 8;

/// The history that is being made.
pub struct Notes {
    start: Instant,
    history: Mutex<History>,
    values: Mutex<u64>,
}

/// How far watches have to come.
#[derive(Debug, Clone)]
pub struct Goal {
    /// Of each key's last write.
    pub revisions: Vec<Revision>,
    pub deadline: Instant,
}

/// What every client needs.
#[derive(Clone, Copy)]
pub struct World<'a> {
    pub apis: &'a [Api],
    pub notes: &'a Notes,
}

impl Default for Notes {
    fn default() -> Self {
        Self { start: Instant::now(), history: Mutex::default(), values: Mutex::default() }
    }
}

impl Notes {
    pub fn now(&self) -> Time {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// One that no write has yet, on a side.
    pub fn value(&self, side: u64) -> u64 {
        let mut last = self.values.lock();
        *last += 1;
        *last * 2 + side
    }

    pub fn operation(&self, operation: Operation) {
        self.history.lock().operations.push(operation);
    }

    pub fn session(&self, session: Session) {
        self.history.lock().sessions.push(session);
    }

    pub fn outages(&self, outages: impl Iterator<Item = Outage>) {
        self.history.lock().outages.extend(outages);
    }

    pub fn into_history(self) -> History {
        self.history.into_inner()
    }
}

impl World<'_> {
    fn any_server(&self, random: &mut StdRng) -> usize {
        random.random_range(0..self.apis.len())
    }

    /// Makes a request and notes it.
    async fn request(&self, client: usize, server: usize, key: Key, call: Call, paged: bool) -> Answer {
        let begin = self.notes.now();
        let api = &self.apis[server];
        let answer = match call {
            Call::List(fresh) => api.list(fresh, paged).await,
            Call::Get(fresh) => api.get(key, fresh).await,
            write => api.write(key, write).await,
        };
        let end = self.notes.now();
        let operation = Operation { client, server, begin, end, key, call, answer: answer.clone() };
        self.notes.operation(operation);
        answer
    }

    /// Lists every object, as of now.
    pub async fn list_all(&self, client: usize, server: usize) -> Answer {
        self.request(client, server, 0, Call::List(Fresh::Consistent), false).await
    }
}

/// Between two requests, so that the servers are busy and not swamped.
async fn breathe(random: &mut StdRng, failed: bool) {
    let most = if failed { 200 } else { 30 };
    tokio::time::sleep(std::time::Duration::from_millis(random.random_range(0..most))).await;
}

/// Whether a round goes on.
fn goes_on(stop: &watch::Receiver<bool>) -> bool {
    !*stop.borrow()
}
