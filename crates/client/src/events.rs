//! Events: what happened to an object, for people to read.

use crate::informer::chain;
use crate::{Projected, Whole, rest};
use k8s_openapi::api::core::v1::{Event, EventSource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The object that an event is about.
pub type ObjectRef = k8s_openapi::api::core::v1::ObjectReference;

/// Equal events within this time are counted in one object.
const SERIES: Duration = Duration::from_secs(600);
/// Events that wait to be written; more are dropped.
const WAITING: usize = 1000;
/// Events per object: so many at once, then one per [`REFILL`], as upstream's clients do.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);
/// The API server refuses longer messages.
const LONGEST_MESSAGE: usize = 1024;

/// Whether an event tells of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// A reference to an object that an informer holds.
pub fn object_ref<P: Projected>(object: &P) -> ObjectRef {
    let meta = object.meta();
    ObjectRef {
        api_version: Some(match P::GROUP {
            "" => P::VERSION.to_owned(),
            group => format!("{group}/{}", P::VERSION),
        }),
        kind: Some(P::KIND.to_owned()),
        namespace: meta.namespace.clone(),
        name: Some(meta.name.clone()),
        uid: Some(meta.uid.clone()),
        resource_version: Some(meta.resource_version.clone()),
        field_path: None,
    }
}

/// Writes events in the background; who records one never waits, and never learns of a failure. Cheap to
/// clone.
#[derive(Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Record>,
}

struct Record {
    about: ObjectRef,
    kind: EventType,
    reason: String,
    message: String,
    at: jiff::Timestamp,
}

impl EventRecorder {
    /// `component` and `host` are the events' source. Starts a task on the current tokio runtime.
    pub fn new(client: kube::Client, component: impl Into<String>, host: impl Into<String>) -> EventRecorder {
        let (queue, records) = mpsc::channel(WAITING);
        let writer = Writer {
            client,
            component: component.into(),
            host: host.into(),
            series: HashMap::new(),
            budgets: HashMap::new(),
        };
        tokio::spawn(writer.run(records));
        EventRecorder { queue }
    }

    /// Records an event: `reason` is one CamelCase word, `message` a sentence.
    pub fn event(&self, about: &ObjectRef, kind: EventType, reason: &str, message: impl Into<String>) {
        let mut message = message.into();
        if message.len() > LONGEST_MESSAGE {
            let end = (0..=LONGEST_MESSAGE).rev().find(|&i| message.is_char_boundary(i)).unwrap_or(0);
            message.truncate(end);
        }
        let record = Record {
            about: about.clone(),
            kind,
            reason: reason.to_owned(),
            message,
            at: jiff::Timestamp::now(),
        };
        if self.queue.try_send(record).is_err() {
            tracing::debug!(reason, "event dropped: too many wait to be written");
        }
    }
}

/// What makes two events the same.
#[derive(PartialEq, Eq, Hash)]
struct Same {
    uid: String,
    kind: String,
    namespace: String,
    name: String,
    field: String,
    warning: bool,
    reason: String,
    message: String,
}

/// An event object that was written.
struct Series {
    path: String,
    count: i32,
    last: Instant,
}

/// A token bucket.
struct Budget {
    tokens: f64,
    at: Instant,
}

struct Writer {
    client: kube::Client,
    component: String,
    host: String,
    series: HashMap<Same, Series>,
    /// By the uid, or else the name, of the object.
    budgets: HashMap<String, Budget>,
}

impl Writer {
    async fn run(mut self, mut records: mpsc::Receiver<Record>) {
        let mut cleanup = tokio::time::interval(SERIES);
        loop {
            tokio::select! {
                record = records.recv() => match record {
                    Some(record) => self.record(record).await,
                    None => return,
                },
                _ = cleanup.tick() => self.clean(),
            }
        }
    }

    fn clean(&mut self) {
        self.series.retain(|_, series| series.last.elapsed() < SERIES);
        self.budgets.retain(|_, budget| budget.available(Instant::now()) < BURST);
    }

    async fn record(&mut self, record: Record) {
        if !self.allowed(&record.about) {
            tracing::debug!(reason = record.reason, "event dropped: too many of this object");
            return;
        }
        if let Err(error) = self.write(record).await {
            tracing::warn!("could not write an event: {}", chain(&error));
        }
    }

    fn allowed(&mut self, about: &ObjectRef) -> bool {
        let object = about.uid.clone().filter(|uid| !uid.is_empty()).or_else(|| about.name.clone());
        let now = Instant::now();
        let budget =
            self.budgets.entry(object.unwrap_or_default()).or_insert(Budget { tokens: BURST, at: now });
        budget.tokens = budget.available(now);
        budget.at = now;
        if budget.tokens < 1.0 {
            return false;
        }
        budget.tokens -= 1.0;
        true
    }

    async fn write(&mut self, record: Record) -> Result<(), kube::Error> {
        let same = Same::of(&record);
        if let Some(series) = self.series.get_mut(&same).filter(|s| s.last.elapsed() < SERIES) {
            let patch = json!({ "count": series.count + 1, "lastTimestamp": Time(record.at) });
            match rest::patch::<serde::de::IgnoredAny>(&self.client, &series.path, rest::patch::MERGE, &patch)
                .await
            {
                Ok(_) => {
                    series.count += 1;
                    series.last = Instant::now();
                    return Ok(());
                }
                // It expired or was deleted: a new one begins.
                Err(error) if rest::code(&error) == Some(404) => {}
                Err(error) => return Err(error),
            }
        }
        let event = self.event(&record);
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let name = event.metadata.name.clone().unwrap_or_default();
        let path = |name| rest::path::<Whole<Event>>(&namespace, name, None);
        rest::create::<serde::de::IgnoredAny>(&self.client, &path(None), &event).await?;
        self.series.insert(same, Series { path: path(Some(&name)), count: 1, last: Instant::now() });
        Ok(())
    }

    fn event(&self, record: &Record) -> Event {
        let about = &record.about;
        let object = about.name.clone().unwrap_or_default();
        Event {
            metadata: ObjectMeta {
                // Upstream's form: unique as long as no object has two events in one nanosecond.
                name: Some(format!("{object}.{:x}", record.at.as_nanosecond())),
                namespace: Some(
                    about.namespace.clone().filter(|n| !n.is_empty()).unwrap_or("default".to_owned()),
                ),
                ..ObjectMeta::default()
            },
            involved_object: about.clone(),
            type_: Some(record.kind.as_str().to_owned()),
            reason: Some(record.reason.clone()),
            message: Some(record.message.clone()),
            source: Some(EventSource {
                component: Some(self.component.clone()),
                host: Some(self.host.clone()).filter(|h| !h.is_empty()),
            }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(self.host.clone()),
            first_timestamp: Some(Time(record.at)),
            last_timestamp: Some(Time(record.at)),
            count: Some(1),
            ..Event::default()
        }
    }
}

impl Same {
    fn of(record: &Record) -> Same {
        let about = record.about.clone();
        Same {
            uid: about.uid.unwrap_or_default(),
            kind: about.kind.unwrap_or_default(),
            namespace: about.namespace.unwrap_or_default(),
            name: about.name.unwrap_or_default(),
            field: about.field_path.unwrap_or_default(),
            warning: record.kind == EventType::Warning,
            reason: record.reason.clone(),
            message: record.message.clone(),
        }
    }
}

impl Budget {
    fn available(&self, now: Instant) -> f64 {
        let refilled = now.duration_since(self.at).as_secs_f64() / REFILL.as_secs_f64();
        (self.tokens + refilled).min(BURST)
    }
}
