//! Spans in batches to a collector.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::otlp::trace_service_client::TraceServiceClient;
use crate::otlp::{
    ExportTraceServiceRequest, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans, Span,
};

pub(crate) const DEFAULT: &str = "localhost:4317";
/// The defaults of OpenTelemetry's batching processor and exporter.
const BATCH: usize = 512;
const EVERY: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0:?} is no host:port, dns:///host:port or unix:///path")]
    Endpoint(String),
}

/// Where a collector listens.
pub(crate) enum Place {
    Socket(String),
    Address(Box<Endpoint>),
}

impl Place {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Socket(path.strip_prefix("//").unwrap_or(path).to_owned()));
        }
        let place = match text.strip_prefix("dns:") {
            // A name server may stand before the name.
            Some(rest) => rest.rsplit('/').next().unwrap_or_default(),
            None => text,
        };
        let endpoint = (!place.is_empty() && !place.contains('/')).then(|| format!("http://{place}"));
        let endpoint = endpoint.and_then(|url| Endpoint::from_shared(url).ok());
        endpoint
            .map(|endpoint| Self::Address(Box::new(endpoint)))
            .ok_or_else(|| Error::Endpoint(text.to_owned()))
    }

    /// A connection that is made with the first export, and anew when it is lost.
    pub(crate) fn connect(self) -> Channel {
        match self {
            Self::Address(endpoint) => endpoint.connect_lazy(),
            Self::Socket(path) => {
                let connect = tower::service_fn(move |_| {
                    let path = path.clone();
                    async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
                });
                Endpoint::from_static("http://localhost").connect_with_connector_lazy(connect)
            }
        }
    }
}

pub(crate) async fn run(
    channel: Channel,
    mut spans: mpsc::Receiver<Span>,
    resource: Vec<KeyValue>,
    shutdown: CancellationToken,
) {
    let mut client = TraceServiceClient::new(channel);
    let mut ended = false;
    while !ended {
        let mut batch = Vec::new();
        let full = async { while batch.len() < BATCH && spans.recv_many(&mut batch, BATCH).await > 0 {} };
        tokio::select! {
            () = full => {}
            () = tokio::time::sleep(EVERY) => {}
            () = shutdown.cancelled() => ended = true,
        }
        if ended {
            spans.close();
            while spans.recv_many(&mut batch, BATCH).await > 0 {}
        }
        if batch.is_empty() {
            continue;
        }
        let count = batch.len();
        let call = client.export(request(resource.clone(), batch));
        match tokio::time::timeout(PATIENCE, call).await {
            Ok(Ok(answer)) => {
                if let Some(partial) = answer.into_inner().partial_success.filter(|p| p.rejected_spans > 0) {
                    let (rejected, error) = (partial.rejected_spans, partial.error_message);
                    tracing::warn!(rejected, error, "the collector refused spans");
                }
            }
            Ok(Err(status)) => tracing::warn!(spans = count, error = status.message(), "spans are lost"),
            Err(_) => tracing::warn!(spans = count, "spans are lost: the collector does not answer"),
        }
    }
}

fn request(attributes: Vec<KeyValue>, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let (name, version) = (env!("CARGO_PKG_NAME").to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    let scope_spans = vec![ScopeSpans { scope: Some(InstrumentationScope { name, version }), spans }];
    let resource = Some(Resource { attributes });
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource, scope_spans }] }
}
