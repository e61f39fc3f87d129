//! What all requests share, and one request on its way through the server.

use std::sync::{Arc, OnceLock};

use http::{HeaderMap, Method};
use hyper::body::Incoming;
use keelson_api_types::StatusError;
use keelson_daemon::{Health, Metrics};
use keelson_traces::Tracer;
use tokio_util::sync::CancellationToken;

use crate::aggregation::Aggregation;
use crate::alloc::Allocators;
use crate::audit::{self, Audit};
use crate::backend::Backends;
use crate::cache::Caches;
use crate::config::Config;
use crate::encrypt::EncryptedStore;
use crate::event_leases::EventLeases;
use crate::fairness::{Fairness, Ticket};
use crate::metrics::{ConversionMetrics, Requests};
use crate::negotiate::{Accepted, Form, Offer, accepted};
use crate::presenter::{IncludeObject, Presenter};
use crate::registry::{Registry, Resource};
use crate::request::{Query, RequestInfo};
use crate::types::{Authorizer, Peer, Security, UserInfo};

/// The server's state.
pub struct App {
    pub config: Config,
    pub caches: Arc<Caches>,
    /// The layer over the store, where there is encryption at rest.
    pub encrypted: Option<Arc<EncryptedStore>>,
    pub registry: Registry,
    pub security: OnceLock<Arc<dyn Security>>,
    pub health: Health,
    pub metrics: Metrics,
    pub requests: Requests,
    pub conversions: ConversionMetrics,
    pub fairness: Arc<Fairness>,
    pub audit: OnceLock<Arc<Audit>>,
    pub tracer: Option<Arc<Tracer>>,
    pub event_leases: EventLeases,
    pub started: jiff::Timestamp,
    /// Cancelled when no further requests are taken: after the daemon's own shutdown by the configured delay.
    pub shutdown: CancellationToken,
    /// Cancelled when the last request has been answered: until then the caches follow the store.
    pub ended: CancellationToken,
    pub backends: Backends,
    pub aggregation: Aggregation,
    pub openapi: crate::openapi::Documents,
    pub allocators: Allocators,
    /// Definitions whose objects are being deleted.
    pub emptying: parking_lot::Mutex<std::collections::HashSet<String>>,
}

impl App {
    pub fn security(&self) -> Result<&dyn Security, StatusError> {
        let security = self.security.get().map(|s| &**s);
        security.ok_or_else(|| StatusError::service_unavailable("the server is starting"))
    }

    pub fn authorizer(&self) -> Result<&dyn Authorizer, StatusError> {
        Ok(self.security()?.authorizer())
    }

    /// The resource a request names, or 404 as for a path that nothing answers.
    pub fn resource(&self, info: &RequestInfo) -> Result<Arc<Resource>, StatusError> {
        let found = self.registry.find(&info.group, &info.version, &info.resource);
        found.ok_or_else(StatusError::not_found_path)
    }
}

/// An authenticated and authorized request.
pub struct Call {
    pub method: Method,
    pub info: RequestInfo,
    pub query: Query,
    /// As the client wrote it.
    pub raw_query: Option<String>,
    pub headers: HeaderMap,
    pub user: UserInfo,
    pub peer: Peer,
    pub body: Option<Incoming>,
    pub upgrade: Option<hyper::upgrade::OnUpgrade>,
    /// Sent with the response, successful or not.
    pub warnings: Vec<String>,
    /// The seats that it takes while it is served.
    pub ticket: Option<Ticket>,
}

impl Call {
    /// How to encode what is no object of a resource.
    pub fn accepted(&self) -> Result<Accepted, StatusError> {
        accepted(&self.headers, self.query.get("pretty"), Offer::PLAIN)
    }

    pub fn presenter(&self, resource: &Arc<Resource>) -> Result<Presenter, StatusError> {
        let offer = Offer { stream: self.info.verb == "watch", ..Offer::of(resource) };
        let accepted = accepted(&self.headers, self.query.get("pretty"), offer)?;
        let include_object = match accepted.form {
            Form::Table => IncludeObject::parse(self.query.get("includeObject"))?,
            _ => IncludeObject::default(),
        };
        Ok(Presenter { resource: resource.clone(), accepted, include_object })
    }

    pub fn user_agent(&self) -> &str {
        self.headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// The host that the client asked for.
    pub fn host(&self) -> &str {
        self.headers.get(http::header::HOST).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// The protocol that the client wants to switch to.
    pub fn upgrade_wanted(&self) -> Option<&str> {
        self.headers.get(http::header::UPGRADE).and_then(|v| v.to_str().ok())
    }

    pub fn content_type(&self) -> &str {
        let text =
            self.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        text.split(';').next().unwrap_or_default().trim()
    }

    /// The whole body, at most as much as a request may carry.
    pub async fn body(&mut self) -> Result<bytes::Bytes, StatusError> {
        let Some(body) = self.body.take() else { return Ok(bytes::Bytes::new()) };
        let bytes = crate::codec::read_body(body).await?;
        audit::request_body(self.content_type(), &bytes);
        Ok(bytes)
    }
}
