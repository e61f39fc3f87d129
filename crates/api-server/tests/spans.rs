//! Spans of requests, as a collector gets them.

use std::sync::Arc;

use keelson_traces::otlp::any_value::Value;
use keelson_traces::otlp::trace_service_server::{TraceService, TraceServiceServer};
use keelson_traces::otlp::{
    ExportTraceServiceRequest, ExportTraceServiceResponse, KeyValue, Span, StatusCode,
};
use keelson_traces::tonic::{Request, Response, Status, transport};
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

use crate::support::extension::{self, Extension, Kind};
use crate::support::webhook::Webhook;
use crate::support::{CONFIG_MAPS, Server, config_map};
use crate::webhooks::{allow, configure, rules};

const FLUNDERS: &str = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[keelson_traces::tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// A collector that listens, and its address.
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let collector = Self::default();
        let service = TraceServiceServer::new(collector.clone());
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        (collector, address)
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.0.lock();
        let scopes = requests.iter().flat_map(|r| &r.resource_spans).flat_map(|r| &r.scope_spans);
        scopes.flat_map(|s| s.spans.clone()).collect()
    }
}

async fn traced(endpoint: String, rate: Option<i64>) -> Server {
    Server::with(move |config| {
        let tracing = serde_json::json!({"endpoint": endpoint, "samplingRatePerMillion": rate,
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "TracingConfiguration"});
        config.tracing = serde_json::from_value(tracing).unwrap();
    })
    .await
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(of: &[KeyValue], key: &str) -> String {
    let found = of.iter().find(|a| a.key == key).and_then(|a| a.value.clone()?.value);
    match found {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{key}: {other:?}"),
    }
}

#[tokio::test]
async fn a_sampled_trace_goes_on_in_the_server() {
    let (collector, address) = Collector::start().await;
    let mut server = traced(address, None).await;
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let sampled = server.admin().with("traceparent", parent.clone());
    sampled.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let read = sampled.with("audit-id", "my-id").get(&format!("{CONFIG_MAPS}/a?pretty=0")).await;
    read.expect(200);
    sampled.get(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1")).await;
    // Neither those without a trace nor those of others, who do not decide on sampling.
    server.admin().get("/version").await.expect(200);
    server.client("stranger", &[]).with("traceparent", parent).get("/version").await.expect(200);
    server.shut_down();
    server.stopped().await;

    let spans = collector.spans();
    let named = |name: &str| {
        let found = spans.iter().find(|s| s.name == name);
        found.unwrap_or_else(|| {
            panic!("no {name:?} among {:?}", spans.iter().map(|s| &s.name).collect::<Vec<_>>())
        })
    };
    assert!(spans.iter().all(|s| hex(&s.trace_id) == TRACE));
    assert_eq!(spans.iter().filter(|s| hex(&s.parent_span_id) == "00f067aa0ba902b7").count(), 3);
    let created = named("POST /api/v1/namespaces/{:namespace}/configmaps");
    assert_eq!(text(&created.attributes, "http.response.status_code"), "201");
    let (create, put, get) = (named("Create"), named("Create store"), named("Get"));
    assert_eq!((&create.parent_span_id, &put.parent_span_id), (&created.span_id, &create.span_id));
    assert_eq!(text(&create.attributes, "resource"), "configmaps");
    assert_eq!(text(&put.attributes, "key"), "/registry/configmaps/default/a");
    assert_eq!(spans.len(), 6);
    let read = named("GET /api/v1/namespaces/{:namespace}/configmaps/{:name}");
    assert_eq!(text(&read.attributes, "http.target"), format!("{CONFIG_MAPS}/a?pretty=0"));
    assert_eq!(text(&read.attributes, "audit-id"), "my-id");
    assert_eq!((&get.parent_span_id, &*text(&get.attributes, "name")), (&read.span_id, "a"));
    assert_eq!(text(&read.attributes, "http.request.method"), "GET");
    assert_eq!(text(&read.attributes, "network.peer.address"), "127.0.0.1");
    let watched = named("GET /api/v1/namespaces/{:namespace}/configmaps");
    assert!(watched.start_time_unix_nano > read.end_time_unix_nano);
    let resource = collector.0.lock()[0].resource_spans[0].resource.clone().unwrap();
    assert_eq!(text(&resource.attributes, "service.name"), "apiserver");
}

#[tokio::test]
async fn who_is_asked_is_told_of_the_trace() {
    let (collector, address) = Collector::start().await;
    let mut server = traced(address, None).await;
    let traced = server
        .admin()
        .with("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"))
        .with("tracestate", "a=b");
    let hook = Webhook::start(|_| allow()).await;
    for kind in ["mutating", "validating"] {
        let asks = vec![hook.hook("h.example.com", rules(json!(["CREATE"]), "", "configmaps"))];
        configure(&server.admin(), kind, "h", asks).await;
    }
    traced.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let (parent, state) = (hook.told("traceparent").unwrap(), hook.told("tracestate"));
    server.admin().post(CONFIG_MAPS, &config_map("b")).await.expect(201);
    assert_eq!(hook.told("traceparent"), None);
    let extension = match extension::address() {
        Some(address) => {
            let extension = Extension::start(&server, address, Kind::Modern).await;
            extension.register(&server.admin()).await;
            traced.get(FLUNDERS).await.expect(200);
            Some(extension.last(FLUNDERS).0)
        }
        None => None,
    };
    server.shut_down();
    server.stopped().await;
    let spans = collector.spans();
    let named = |name: &str| spans.iter().find(|s| s.name == name).unwrap_or_else(|| panic!("no {name:?}"));
    let create = named("Create");
    let (mutating, validating) = (named("Call mutating webhook"), named("Call validating webhook"));
    assert!([mutating, validating].iter().all(|s| s.parent_span_id == create.span_id));
    assert_eq!(text(&mutating.attributes, "webhook"), "h.example.com");
    assert_eq!(parent, format!("00-{TRACE}-{}-01", hex(&validating.span_id)));
    assert_eq!(state.as_deref(), Some("a=b"));
    if let Some(headers) = extension {
        let list = named("GET /apis/wardle.example.com/v1alpha1/namespaces/{:namespace}/flunders");
        assert_eq!(headers["traceparent"], format!("00-{TRACE}-{}-01", hex(&list.span_id)));
    }
}

#[tokio::test]
async fn requests_without_a_trace_are_sampled_by_the_rate() {
    let (collector, address) = Collector::start().await;
    let mut server = traced(format!("dns:///{address}"), Some(1_000_000)).await;
    let stranger =
        server.client("stranger", &[]).with("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-00"));
    stranger.get(CONFIG_MAPS).await.expect(403);
    // Nobody who is unknown is traced.
    server.nobody().with("authorization", "Bearer x").get("/apis").await.expect(401);
    server.shut_down();
    server.stopped().await;
    let spans = collector.spans();
    let linked: Vec<_> = spans.iter().filter(|s| !s.links.is_empty()).collect();
    assert_eq!(linked.len(), 1);
    assert_eq!(hex(&linked[0].links[0].trace_id), TRACE);
    assert!(linked[0].parent_span_id.is_empty() && hex(&linked[0].trace_id) != TRACE);
    assert_eq!(text(&linked[0].attributes, "http.response.status_code"), "403");
    assert!(linked[0].status.as_ref().is_none_or(|s| s.code() == StatusCode::Unset));
    assert!(spans.iter().all(|s| {
        !s.attributes.iter().any(|a| a.key == "url.path" && text(&s.attributes, "url.path") == "/apis")
    }));
}
