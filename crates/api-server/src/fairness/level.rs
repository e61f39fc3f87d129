//! A level with its queues, a schema with its counters, and the table of both that requests are looked up in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::allocation::{Limits, Shares};
use super::config::{CATCH_ALL, FlowSchemaSpec};
use super::metrics::SchemaStats;
use super::queueset::{Mode, QueueSet};
use super::retry::RetryAfter;
use super::{LEVEL_HEADER, SCHEMA_HEADER};
use crate::body::Response;
use crate::request::RequestInfo;
use crate::types::UserInfo;

/// The part of a level's nominal seats that one request may take.
const WIDEST: f64 = 0.15;

/// What the server knows of a request under way.
#[derive(Debug)]
pub struct Tag {
    pub schema: Arc<Schema>,
    /// What tells the flow apart from others of its schema.
    pub flow: Option<Box<str>>,
    /// Of requests that have had to wait.
    pub details: Option<Box<Details>>,
}

#[derive(Debug)]
pub struct Details {
    pub user: String,
    pub info: RequestInfo,
}

impl Details {
    pub fn of(info: &RequestInfo, user: &UserInfo) -> Self {
        Self { user: user.name.clone(), info: info.clone() }
    }
}

pub type Set = QueueSet<Tag, oneshot::Sender<()>>;

/// A priority level; it outlives its object until its requests have ended.
#[derive(Debug)]
pub struct Level {
    pub name: Box<str>,
    pub set: Mutex<Set>,
    pub limits: Mutex<Limits>,
    /// As its object has it.
    pub plan: Mutex<(Mode, Shares)>,
    pub retry: Mutex<RetryAfter>,
    widest: AtomicU32,
    /// Its object is gone.
    pub quiescing: AtomicBool,
}

impl Level {
    pub fn new(name: &str, now: Duration, mode: Mode) -> Self {
        Self {
            name: name.into(),
            set: Mutex::new(QueueSet::new(now, mode, 0)),
            limits: Mutex::default(),
            plan: Mutex::new((mode, Shares { nominal: 0.0, lendable: 0.0, borrowing: None })),
            retry: Mutex::default(),
            widest: AtomicU32::new(0),
            quiescing: AtomicBool::new(false),
        }
    }

    /// The most seats that one request may take; 0 for no limit of the level's own.
    pub fn widest(&self) -> u32 {
        self.widest.load(Ordering::Relaxed)
    }

    pub fn set_widest(&self, mode: Mode, nominal: u64) {
        let widest = match mode {
            Mode::Queue(queuing) => {
                let share = (nominal as f64 * WIDEST).ceil() as u64;
                share.min(nominal / queuing.hand.max(1) as u64).max(1)
            }
            _ => 0,
        };
        self.widest.store(widest as u32, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub struct Schema {
    pub name: Box<str>,
    pub spec: FlowSchemaSpec,
    pub level: Arc<Level>,
    pub stats: SchemaStats,
    schema_uid: HeaderValue,
    level_uid: HeaderValue,
}

impl Schema {
    pub fn new(
        name: &str,
        uid: &str,
        spec: FlowSchemaSpec,
        level: Arc<Level>,
        level_uid: &str,
        stats: SchemaStats,
    ) -> Self {
        let header = |uid: &str| HeaderValue::from_str(uid).unwrap_or(HeaderValue::from_static(""));
        let (schema_uid, level_uid) = (header(uid), header(level_uid));
        Self { name: name.into(), spec, level, stats, schema_uid, level_uid }
    }

    /// Tells the client which schema and level it was served by: their uids, for names are nobody's business.
    pub fn mark(&self, response: &mut Response) {
        response.headers_mut().insert(SCHEMA_HEADER, self.schema_uid.clone());
        response.headers_mut().insert(LEVEL_HEADER, self.level_uid.clone());
    }

    /// Counts a request that begins to run.
    pub fn began(&self, waited: Duration) {
        self.stats.dispatched.inc();
        self.stats.waited.observe(waited.as_secs_f64());
    }
}

/// Schemas in the order in which they are tried, and all levels.
#[derive(Debug, Default)]
pub struct Table {
    pub schemas: Vec<Arc<Schema>>,
    pub levels: Vec<Arc<Level>>,
}

impl Table {
    /// The first schema that matches; the one that catches all matches every user that is in one of its groups,
    /// and is taken for the others as well.
    pub fn classify(&self, info: &RequestInfo, user: &UserInfo) -> Arc<Schema> {
        let found = self.schemas.iter().find(|s| s.spec.matches(info, user));
        let found = found.or_else(|| self.schemas.iter().find(|s| &*s.name == CATCH_ALL));
        found.or_else(|| self.schemas.last()).expect("a table always has the schema that catches all").clone()
    }

    pub fn level(&self, name: &str) -> Option<&Arc<Level>> {
        self.levels.iter().find(|l| &*l.name == name)
    }
}
