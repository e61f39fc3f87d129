//! A client that lists and watches as an informer does: from its last revision on, and anew after 410.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use kube::client::Body;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::time::Instant;

use super::api::{Wire, failure, version};
use super::{Goal, World, breathe};
use crate::history::{Answer, Call, Filter, Fresh, Key, Notice, Object, Operation, Revision, Session, Time};

pub struct Watcher<'a> {
    world: World<'a>,
    client: usize,
    filter: Filter,
    random: StdRng,
    goal: watch::Receiver<Option<Goal>>,
    state: State,
}

/// Where the next watch starts.
#[derive(Clone, Copy)]
enum State {
    /// From a list.
    Unlisted,
    At(Revision),
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: BookmarkMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BookmarkMeta {
    resource_version: String,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Failed {
    code: u16,
}

/// What a line says.
enum Said {
    Notice(Notice),
    /// What existed is told.
    Listed(Revision),
    Error(u16),
    Nonsense,
}

/// A watch under way.
struct Stream {
    body: Body,
    buffer: BytesMut,
    server: usize,
    begin: Time,
}

impl<'a> Watcher<'a> {
    /// One without a filter begins at a revision, so that everything after is seen; the others with a list.
    pub fn new(
        world: World<'a>,
        client: usize,
        filter: Filter,
        seed: u64,
        goal: watch::Receiver<Option<Goal>>,
        begin: Revision,
    ) -> Self {
        let state = if filter == Filter::All { State::At(begin) } else { State::Unlisted };
        Self { world, client, filter, random: StdRng::seed_from_u64(seed), goal, state }
    }

    /// Goes on until it has seen all that there was to see; `false` if it does not come to that.
    pub async fn run(mut self) -> bool {
        loop {
            let state = self.state;
            let reached = if let State::At(revision) = state { revision } else { 0 };
            if self.arrived(reached) || self.is_late() {
                return self.arrived(reached);
            }
            self.state = match state {
                State::Unlisted if self.random.random_ratio(1, 3) && self.filter == Filter::All => {
                    self.list_by_watch().await
                }
                State::Unlisted => self.list().await,
                State::At(revision) => self.resume(revision).await,
            };
            breathe(&mut self.random, matches!(self.state, State::Unlisted)).await;
        }
    }

    fn arrived(&self, reached: Revision) -> bool {
        let goal = self.goal.borrow();
        let Some(goal) = &*goal else { return false };
        let taken = (0..).zip(&goal.revisions).filter(|(key, _)| match self.filter {
            Filter::Key(only) => *key == only,
            _ => true,
        });
        taken.map(|(_, revision): (Key, _)| *revision).max().is_none_or(|last| reached >= last)
    }

    fn is_late(&self) -> bool {
        self.goal.borrow().as_ref().is_some_and(|goal| goal.deadline < Instant::now())
    }

    async fn list(&mut self) -> State {
        let fresh = if self.random.random() { Fresh::Any } else { Fresh::Consistent };
        let server = self.world.any_server(&mut self.random);
        match self.world.request(self.client, server, 0, Call::List(fresh), false).await {
            Answer::Listed { revision, .. } => State::At(revision),
            _ => State::Unlisted,
        }
    }

    /// A watch whose initial events are the list.
    async fn list_by_watch(&mut self) -> State {
        let fresh = if self.random.random() { Fresh::Any } else { Fresh::Consistent };
        let list = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        let Some(mut stream) = self.open(&format!("{list}&{}", version(fresh))).await else {
            return State::Unlisted;
        };
        let mut objects = Vec::new();
        loop {
            match stream.next(Duration::from_secs(20)).await {
                Some(Said::Notice(Notice::Added(object))) => objects.push(object),
                Some(Said::Listed(revision)) => {
                    self.note(&stream, Call::List(fresh), Answer::Listed { revision, objects });
                    return self.follow(stream, revision).await;
                }
                Some(Said::Error(code)) => {
                    self.note(&stream, Call::Watch, code_of(code));
                    return State::Unlisted;
                }
                Some(_) => {
                    self.note(&stream, Call::Watch, Answer::Unknown(Some(200)));
                    return State::Unlisted;
                }
                None => return State::Unlisted,
            }
        }
    }

    async fn resume(&mut self, revision: Revision) -> State {
        let query = format!("resourceVersion={revision}&allowWatchBookmarks=true");
        match self.open(&query).await {
            Some(stream) => self.follow(stream, revision).await,
            None => State::At(revision),
        }
    }

    /// Opens a watch on any server, for a random time.
    async fn open(&mut self, query: &str) -> Option<Stream> {
        let server = self.world.any_server(&mut self.random);
        let begin = self.world.notes.now();
        let selector = match self.filter {
            Filter::All => String::new(),
            Filter::Key(key) => format!("&fieldSelector=metadata.name%3Dk{key}"),
            Filter::Side(side) => format!("&labelSelector=side%3D{side}"),
        };
        let seconds = self.random.random_range(2..20);
        let query = format!("{query}{selector}&timeoutSeconds={seconds}");
        match self.world.apis[server].watch(&query).await {
            Ok(body) => Some(Stream { body, buffer: BytesMut::new(), server, begin }),
            Err(answer) => {
                let operation = Operation {
                    client: self.client,
                    server,
                    begin,
                    end: self.world.notes.now(),
                    key: 0,
                    call: Call::Watch,
                    answer,
                };
                self.world.notes.operation(operation);
                breathe(&mut self.random, true).await;
                None
            }
        }
    }

    fn note(&self, stream: &Stream, call: Call, answer: Answer) {
        let (begin, end) = (stream.begin, self.world.notes.now());
        let (client, server) = (self.client, stream.server);
        self.world.notes.operation(Operation { client, server, begin, end, key: 0, call, answer });
    }

    async fn follow(&mut self, mut stream: Stream, after: Revision) -> State {
        let (watcher, filter, server) = (self.client, self.filter, stream.server);
        let mut session = Session { watcher, server, filter, after, notices: Vec::new() };
        let mut reached = after;
        let next = loop {
            if self.arrived(reached) || self.is_late() {
                break State::At(reached);
            }
            // Some do not read for a while.
            if self.random.random_ratio(1, 200) {
                tokio::time::sleep(Duration::from_millis(self.random.random_range(0..2000))).await;
            }
            let said = tokio::select! {
                // Also of a server that hangs.
                said = stream.next(Duration::from_secs(30)) => said,
                Ok(()) = self.goal.changed() => continue,
            };
            match said {
                Some(Said::Notice(notice)) => {
                    reached = reached.max(notice.revision());
                    session.notices.push((self.world.notes.now(), notice));
                }
                Some(Said::Listed(_)) => {}
                Some(Said::Error(code)) => {
                    self.note(&stream, Call::Watch, code_of(code));
                    break if code == 410 { State::Unlisted } else { State::At(reached) };
                }
                Some(Said::Nonsense) => {
                    self.note(&stream, Call::Watch, Answer::Unknown(Some(200)));
                    break State::Unlisted;
                }
                None => break State::At(reached),
            }
        };
        self.world.notes.session(session);
        next
    }
}

impl Stream {
    /// The next line; `None` at the end, or after a time without one.
    async fn next(&mut self, patience: Duration) -> Option<Said> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let said = read(&self.buffer[..end]);
                self.buffer.advance(end + 1);
                return Some(said.unwrap_or(Said::Nonsense));
            }
            let frame = tokio::time::timeout(patience, self.body.frame()).await.ok()??.ok()?;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}

fn read(line: &[u8]) -> Option<Said> {
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    let object = || serde_json::from_str::<Wire>(line.object.get()).ok()?.object();
    let notice = |of: fn(Object) -> Notice| Some(Said::Notice(of(object()?)));
    match line.kind {
        "ADDED" => notice(Notice::Added),
        "MODIFIED" => notice(Notice::Modified),
        "DELETED" => notice(Notice::Deleted),
        "BOOKMARK" => {
            let Bookmark { metadata } = serde_json::from_str(line.object.get()).ok()?;
            let revision = metadata.resource_version.parse().ok()?;
            Some(match metadata.annotations.contains_key("k8s.io/initial-events-end") {
                true => Said::Listed(revision),
                false => Said::Notice(Notice::Bookmark(revision)),
            })
        }
        "ERROR" => Some(Said::Error(serde_json::from_str::<Failed>(line.object.get()).ok()?.code)),
        _ => None,
    }
}

fn code_of(code: u16) -> Answer {
    StatusCode::from_u16(code).map_or(Answer::Unknown(Some(code)), failure)
}
