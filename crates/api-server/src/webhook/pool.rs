//! Connections to webhooks that wait for the next call.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;

pub type Sender = SendRequest<Full<Bytes>>;

/// A server, and whom it is trusted by.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub host: String,
    pub port: u16,
    pub bundle: String,
}

const IDLE: Duration = Duration::from_secs(90);
const PER_SERVER: usize = 8;

type Idle = HashMap<Key, Vec<(Instant, Sender)>>;

static IDLE_CONNECTIONS: LazyLock<Mutex<Idle>> = LazyLock::new(Mutex::default);

pub fn take(key: &Key) -> Option<Sender> {
    let mut pool = IDLE_CONNECTIONS.lock();
    let waiting = pool.get_mut(key)?;
    while let Some((since, sender)) = waiting.pop() {
        if since.elapsed() < IDLE && !sender.is_closed() {
            return Some(sender);
        }
    }
    None
}

pub fn put(key: Key, sender: Sender) {
    let mut pool = IDLE_CONNECTIONS.lock();
    pool.retain(|_, waiting| {
        waiting.retain(|(since, sender)| since.elapsed() < IDLE && !sender.is_closed());
        !waiting.is_empty()
    });
    let waiting = pool.entry(key).or_default();
    if waiting.len() < PER_SERVER {
        waiting.push((Instant::now(), sender));
    }
}
