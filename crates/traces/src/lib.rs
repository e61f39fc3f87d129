//! Spans of requests: sampled as upstream's `TracingConfiguration` says, exported by OTLP over gRPC.

mod context;
mod export;

pub mod otlp {
    #![allow(clippy::all)]
    tonic::include_proto!("opentelemetry.proto.collector.trace.v1");
}

pub use context::Context;
pub use export::Error;
pub use tonic;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use export::Place;
use otlp::any_value::Value;
use otlp::{AnyValue, KeyValue, Link, SpanKind, Status, StatusCode};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const MILLION: i64 = 1_000_000;
/// Spans that wait for their export; more are dropped, as OpenTelemetry's processors do by default.
const QUEUE: usize = 2048;

/// Upstream's `TracingConfiguration`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// `host:port`, `dns:///host:port` or `unix:///path` of the collector, which is spoken to in the clear;
    /// `localhost:4317` by default.
    pub endpoint: Option<String>,
    /// Of a million requests that carry no trace, how many are sampled: none by default.
    pub sampling_rate_per_million: Option<i64>,
}

impl Config {
    /// Every problem as `path.of.the.field: what is wrong`.
    pub fn problems(&self) -> Vec<String> {
        let rate = match self.sampling_rate_per_million.unwrap_or_default() {
            ..0 => Some("sampling rate must be positive"),
            rate if rate > MILLION => {
                Some("sampling rate per million must be less than or equal to one million")
            }
            _ => None,
        };
        let endpoint = self.endpoint.as_deref().and_then(|text| Place::parse(text).err());
        let endpoint = endpoint.map(|error| format!("endpoint: {error}"));
        rate.map(|problem| format!("samplingRatePerMillion: {problem}")).into_iter().chain(endpoint).collect()
    }
}

/// A tracer, and its task: that ends, the last spans sent, after the shutdown.
pub type Started = (Arc<Tracer>, JoinHandle<()>);

/// Makes spans and sends them to the collector.
#[derive(Debug)]
pub struct Tracer {
    /// Trace ids below are sampled, of 63 bits.
    bound: u64,
    queue: mpsc::Sender<otlp::Span>,
}

impl Tracer {
    /// `resource` are the attributes of this program.
    pub fn start(
        config: &Config,
        resource: &[(&str, &str)],
        shutdown: CancellationToken,
    ) -> Result<Started, Error> {
        let place = Place::parse(config.endpoint.as_deref().unwrap_or(export::DEFAULT))?;
        let (queue, spans) = mpsc::channel(QUEUE);
        let resource = resource.iter().map(|(key, value)| attribute(key, *value)).collect();
        let task = tokio::spawn(export::run(place.connect(), spans, resource, shutdown));
        let rate = config.sampling_rate_per_million.unwrap_or_default().clamp(0, MILLION);
        let bound = ((rate as u128) << 63) / MILLION as u128;
        Ok((Arc::new(Self { bound: bound as u64, queue }), task))
    }

    /// Begins the span of a request that carries `incoming`; `None` if it is not sampled. A `trusted` caller's trace is
    /// gone on with, and decides on sampling; to another's the new one is only linked.
    pub fn begin(&self, name: String, incoming: Option<Context>, trusted: bool) -> Option<Span> {
        let (parent, link) = if trusted { (incoming, None) } else { (None, incoming) };
        let trace_id = parent.as_ref().map_or_else(rand::random, |parent| parent.trace_id);
        let sampled = match &parent {
            Some(parent) => parent.sampled,
            None => u64::from_be_bytes(*trace_id.last_chunk().unwrap_or(&[0; 8])) >> 1 < self.bound,
        };
        if !sampled {
            return None;
        }
        let links = link.map(|link| Link {
            trace_id: link.trace_id.into(),
            span_id: link.span_id.into(),
            flags: link.flags(),
            trace_state: link.state,
        });
        let span = otlp::Span {
            trace_id: trace_id.into(),
            span_id: rand::random::<[u8; 8]>().into(),
            name,
            kind: SpanKind::Server.into(),
            start_time_unix_nano: now(),
            links: links.into_iter().collect(),
            flags: parent.as_ref().map_or(context::SAMPLED | context::KNOWN, Context::flags),
            parent_span_id: parent.as_ref().map(|p| p.span_id.into()).unwrap_or_default(),
            trace_state: parent.map(|p| p.state).unwrap_or_default(),
            ..Default::default()
        };
        Some(Span { span, queue: self.queue.clone() })
    }
}

/// The inside of a span.
#[derive(Debug, Clone)]
pub struct Scope {
    context: Context,
    queue: mpsc::Sender<otlp::Span>,
}

impl Scope {
    /// Begins a span of what the program does within this one.
    pub fn begin(&self, name: String) -> Span {
        let span = otlp::Span {
            trace_id: self.context.trace_id.into(),
            span_id: rand::random::<[u8; 8]>().into(),
            parent_span_id: self.context.span_id.into(),
            name,
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: now(),
            flags: context::SAMPLED | context::KNOWN,
            trace_state: self.context.state.clone(),
            ..Default::default()
        };
        Span { span, queue: self.queue.clone() }
    }

    /// What other programs are told that are asked within it.
    pub fn context(&self) -> &Context {
        &self.context
    }
}

/// A span under way; it ends when it is dropped.
#[derive(Debug)]
pub struct Span {
    span: otlp::Span,
    queue: mpsc::Sender<otlp::Span>,
}

impl Span {
    pub fn scope(&self) -> Scope {
        let span = &self.span;
        let context = Context {
            trace_id: span.trace_id.last_chunk().copied().unwrap_or_default(),
            span_id: span.span_id.last_chunk().copied().unwrap_or_default(),
            sampled: true,
            state: span.trace_state.clone(),
        };
        Scope { context, queue: self.queue.clone() }
    }

    pub fn set(&mut self, key: &str, value: impl Into<Attribute>) {
        self.span.attributes.push(attribute(key, value));
    }

    /// What was answered: the server's own failures are errors.
    pub fn answered(&mut self, status: u16) {
        self.set("http.response.status_code", i64::from(status));
        if status >= 500 {
            self.span.status = Some(Status { code: StatusCode::Error.into(), ..Default::default() });
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.span.end_time_unix_nano = now();
        // A full queue means that the collector does not keep up; the request must not wait for it.
        let _ = self.queue.try_send(std::mem::take(&mut self.span));
    }
}

/// An attribute's value.
pub struct Attribute(Value);

impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Self(Value::StringValue(text.to_owned()))
    }
}

impl From<i64> for Attribute {
    fn from(number: i64) -> Self {
        Self(Value::IntValue(number))
    }
}

fn attribute(key: &str, value: impl Into<Attribute>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value.into().0) }) }
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(rate: i64) -> (Tracer, mpsc::Receiver<otlp::Span>) {
        let (queue, spans) = mpsc::channel(QUEUE);
        (Tracer { bound: (((rate as u128) << 63) / MILLION as u128) as u64, queue }, spans)
    }

    fn context(sampled: bool) -> Option<Context> {
        Some(Context { trace_id: [1; 16], span_id: [2; 8], sampled, state: "a=b".into() })
    }

    #[test]
    fn a_trusted_trace_is_gone_on_with_and_decides_on_sampling() {
        let (tracer, mut spans) = tracer(0);
        assert!(tracer.begin("n".into(), context(false), true).is_none());
        drop(tracer.begin("n".into(), context(true), true));
        let span = spans.try_recv().unwrap();
        assert_eq!(
            (span.trace_id, span.parent_span_id, span.trace_state),
            (vec![1; 16], vec![2; 8], "a=b".into())
        );
        assert!(span.links.is_empty() && span.span_id.len() == 8 && span.flags == 0x301);
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    }

    #[test]
    fn what_is_done_within_a_span_is_its_child() {
        let (tracer, mut spans) = tracer(0);
        let outer = tracer.begin("outer".into(), context(true), true).unwrap();
        let scope = outer.scope();
        drop(scope.begin("inner".into()));
        drop(outer);
        let (inner, outer) = (spans.try_recv().unwrap(), spans.try_recv().unwrap());
        assert_eq!((inner.trace_id, inner.parent_span_id), (outer.trace_id.clone(), outer.span_id.clone()));
        assert_eq!((&*inner.trace_state, inner.flags), ("a=b", 0x101));
        let told = scope.context();
        assert_eq!((&told.trace_id[..], &told.span_id[..]), (&*outer.trace_id, &*outer.span_id));
    }

    #[test]
    fn any_other_trace_is_only_linked() {
        assert!(tracer(0).0.begin("n".into(), context(true), false).is_none());
        let (tracer, mut spans) = tracer(MILLION);
        drop(tracer.begin("n".into(), context(false), false));
        let span = spans.try_recv().unwrap();
        assert_eq!((&span.links[0].trace_id, &span.links[0].span_id), (&vec![1; 16], &vec![2; 8]));
        assert!(span.parent_span_id.is_empty() && span.trace_id != [1; 16] && span.flags == 0x101);
    }

    #[test]
    fn the_rate_is_kept_to() {
        let (tracer, _spans) = tracer(MILLION / 4);
        let sampled = (0..8000).filter(|_| tracer.begin(String::new(), None, true).is_some()).count();
        assert!((1500..2500).contains(&sampled), "{sampled}");
        let (tracer, _spans) = self::tracer(MILLION);
        assert!((0..500).all(|_| tracer.begin(String::new(), None, true).is_some()));
    }

    #[test]
    fn a_wrong_configuration_is_refused() {
        let check = |endpoint: &str, rate, expected: &[&str]| {
            let config = Config { endpoint: Some(endpoint.into()), sampling_rate_per_million: Some(rate) };
            assert_eq!(config.problems(), expected);
        };
        check("collector:4317", 5, &[]);
        check("dns:///collector:4317", 0, &[]);
        check("unix:///run/collector.sock", MILLION, &[]);
        check("[::1]:4317", -1, &["samplingRatePerMillion: sampling rate must be positive"]);
        check(
            "localhost:4317",
            MILLION + 1,
            &["samplingRatePerMillion: sampling rate per million must be less than or equal to one million"],
        );
        let scheme = "endpoint: \"https://collector\" is no host:port, dns:///host:port or unix:///path";
        check("https://collector", 0, &[scheme]);
    }
}
