//! One request's record, and the events it makes.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{StatusCode, header};
use keelson_api_types::{StatusError, meta};
use serde_json::{Value, json};

use super::policy::{Level, Plan, Stage};
use super::{Annotations, Audit, Head, object_of};
use crate::body::{Body, Response};
use crate::request::RequestInfo;
use crate::types::UserInfo;

pub struct Record {
    audit: Arc<Audit>,
    id: String,
    uri: String,
    info: RequestInfo,
    user_agent: String,
    source_ips: Vec<String>,
    received: String,
    user: Option<UserInfo>,
    pub impersonator: Option<UserInfo>,
    plan: Option<Plan>,
    pub annotations: Annotations,
    request: Option<Value>,
    response: Option<Value>,
    status: Option<Value>,
}

/// Records the last stage when the body it is held by has ended.
pub struct Ending(Record);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.emit(Stage::ResponseComplete);
    }
}

impl Record {
    pub fn new(audit: Arc<Audit>, head: Head<'_>) -> Self {
        let text = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        // Forwarders name those before them; the connection's own other end is last, once.
        let mut source_ips: Vec<String> = text("x-forwarded-for")
            .split(',')
            .map(str::trim)
            .filter(|ip| !ip.is_empty())
            .map(str::to_owned)
            .collect();
        let peer = head.peer.ip().to_string();
        if source_ips.last() != Some(&peer) {
            source_ips.push(peer);
        }
        Self {
            audit,
            id: String::from_utf8_lossy(head.id).into_owned(),
            uri: head.uri,
            info: head.info.clone(),
            user_agent: text(header::USER_AGENT.as_str()).to_owned(),
            source_ips,
            received: meta::now_micro(),
            user: None,
            impersonator: None,
            plan: None,
            annotations: BTreeMap::new(),
            request: None,
            response: None,
            status: None,
        }
    }

    pub fn authenticated(&mut self, user: &UserInfo) -> Level {
        let plan = self.audit.policy.plan(&self.info, self.impersonator.as_ref().unwrap_or(user));
        let level = plan.level;
        self.plan = Some(plan);
        if level > Level::None {
            self.user = Some(user.clone());
            self.emit(Stage::RequestReceived);
        }
        level
    }

    fn level(&self) -> Level {
        self.plan.as_ref().map_or(Level::None, |p| p.level)
    }

    pub fn request_body(&mut self, content_type: &str, bytes: &[u8]) {
        if self.level() >= Level::Request && !bytes.is_empty() {
            self.request = object_of(content_type, bytes);
        }
    }

    /// How much of a response is wanted; also where nobody was authenticated.
    pub fn response_level(&mut self, outcome: &Result<Response, StatusError>) -> Level {
        let refused = match outcome {
            Ok(response) => response.status() == StatusCode::UNAUTHORIZED,
            Err(error) => error.code() == 401,
        };
        if self.plan.is_none() && refused {
            let nobody = UserInfo::default();
            self.plan = Some(self.audit.policy.plan(&self.info, &nobody));
            self.user = Some(nobody);
        }
        self.level()
    }

    /// Notes the answer. What ends with its body is returned, to be held by it.
    pub fn answered(&mut self, outcome: &Result<Response, StatusError>) -> Option<Ending> {
        if self.level() == Level::None {
            return None;
        }
        match outcome {
            Ok(response) => self.note(response),
            Err(error) => self.status = serde_json::from_slice(error.to_json().as_ref()).ok(),
        }
        let lasts = matches!(outcome, Ok(r) if matches!(r.body(), Body::Stream(_) | Body::Relayed(_)) || r.status() == StatusCode::SWITCHING_PROTOCOLS);
        if !lasts {
            self.emit(Stage::ResponseComplete);
            return None;
        }
        self.emit(Stage::ResponseStarted);
        if matches!(outcome, Ok(r) if matches!(r.body(), Body::Stream(_))) {
            return Some(Ending(self.take()));
        }
        // Where it goes from here is not seen.
        self.emit(Stage::ResponseComplete);
        None
    }

    fn take(&mut self) -> Self {
        let Self { audit, id, uri, info, user_agent, source_ips, received, user, impersonator, plan, .. } =
            self;
        Self {
            audit: audit.clone(),
            id: std::mem::take(id),
            uri: std::mem::take(uri),
            info: std::mem::take(info),
            user_agent: std::mem::take(user_agent),
            source_ips: std::mem::take(source_ips),
            received: std::mem::take(received),
            user: user.take(),
            impersonator: impersonator.take(),
            plan: plan.take(),
            annotations: std::mem::take(&mut self.annotations),
            request: self.request.take(),
            response: None,
            status: self.status.take(),
        }
    }

    fn note(&mut self, response: &Response) {
        let code = response.status();
        let kind =
            response.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let failed = code.is_client_error() || code.is_server_error();
        let wanted = self.level() == Level::RequestResponse;
        if (failed || wanted)
            && let Body::Whole(Some(bytes)) = response.body()
        {
            let object = object_of(kind, bytes);
            if failed {
                self.status = object.clone().filter(|o| o["kind"] == "Status");
            }
            self.response = object.filter(|_| wanted);
        }
        self.status.get_or_insert_with(|| json!({"metadata": {}, "code": code.as_u16()}));
    }

    /// A handler panicked.
    pub fn panicked(&mut self, text: &str) {
        if self.level() > Level::None {
            self.status =
                Some(json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                "message": format!("APIServer panic'd: {text}")}));
            self.emit(Stage::Panic);
        }
    }

    fn emit(&self, stage: Stage) {
        let Some(plan) = self.plan.as_ref().filter(|p| p.level > Level::None) else { return };
        if plan.omit_stages.contains(&stage) {
            return;
        }
        let line: Arc<str> = self.event(plan, stage).to_string().into();
        self.audit.send(&line);
    }

    fn event(&self, plan: &Plan, stage: Stage) -> Value {
        let user = self.impersonator.as_ref().or(self.user.as_ref());
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": plan.level, "auditID": self.id,
            "stage": stage, "requestURI": self.uri, "verb": self.info.verb, "user": user,
            "sourceIPs": self.source_ips, "userAgent": self.user_agent,
            "requestReceivedTimestamp": self.received, "stageTimestamp": meta::now_micro(),
        });
        let mut put = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                event[field] = value;
            }
        };
        if self.impersonator.is_some() {
            put("impersonatedUser", self.user.as_ref().map(|u| json!(u)));
        }
        put("objectRef", self.object_ref());
        let without = |object: &Option<Value>| {
            let mut object = object.clone()?;
            if plan.omit_managed_fields {
                strip(&mut object);
            }
            Some(object)
        };
        if stage != Stage::RequestReceived {
            put("requestObject", without(&self.request));
            put("responseObject", without(&self.response));
            put("responseStatus", self.status.clone());
        }
        if !self.annotations.is_empty() {
            put("annotations", Some(json!(self.annotations)));
        }
        event
    }

    fn object_ref(&self) -> Option<Value> {
        let info = &self.info;
        if !info.is_resource {
            return None;
        }
        let of = |object: &Option<Value>, field: &str| {
            object.as_ref().map(|o| meta::string(o, field).to_owned()).unwrap_or_default()
        };
        // The name of what is created is in its body alone.
        let name = if info.name.is_empty() { of(&self.request, "name") } else { info.name.clone() };
        let fields = [
            ("resource", info.resource.clone()),
            ("namespace", info.namespace.clone()),
            ("name", name),
            ("uid", of(&self.request, "uid")),
            ("apiGroup", info.group.clone()),
            ("apiVersion", info.version.clone()),
            ("resourceVersion", of(&self.request, "resourceVersion")),
            ("subresource", info.subresource.clone()),
        ];
        let set = fields.into_iter().filter(|(_, v)| !v.is_empty());
        Some(set.map(|(field, value)| (field.to_owned(), Value::String(value))).collect())
    }
}

/// Takes `managedFields` out of an object, or out of a list's.
fn strip(object: &mut Value) {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
    object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(strip);
}
