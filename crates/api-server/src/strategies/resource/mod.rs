//! Dynamic resource allocation: claims, their templates, classes and slices.
//!
//! Limits and texts are those of upstream's `pkg/apis/resource/validation`.

mod slice;

use keelson_api_types::{FieldError, names};
use serde_json::{Value, json};

use super::check::{At, Errors, Path};
use super::common::immutable_spec;
use super::edit::{self, default_zero};
use super::pod::{resources, scheduling};
use super::storage::volumes::csi_driver;
use super::{Ctx, Strategy};

pub use slice::ResourceSlice;

const MAX_ITEMS: usize = 32;
const MAX_ALTERNATIVES: usize = 8;
const MAX_TOLERATIONS: usize = 16;
const MAX_EXPRESSION: usize = 10 * 1024;
const MAX_PARAMETERS: usize = 10 * 1024;
const MAX_CONSUMERS: usize = 256;

impl Errors {
    /// Checks each item, or says that there are too many and looks at none.
    fn items<'a>(&mut self, at: &At<'a>, max: usize, mut check: impl FnMut(&At<'a>, &mut Self)) {
        if at.len() > max {
            return self.too_many(&at.path, at.len(), max);
        }
        at.each().for_each(|item| check(&item, self));
    }

    /// Refuses items whose identity an earlier one has.
    fn unique(&mut self, at: &At<'_>, identity: impl Fn(&At<'_>) -> String) {
        let mut seen = Vec::new();
        for item in at.each() {
            let id = identity(&item);
            if seen.contains(&id) {
                self.duplicate(&item.path, id);
            } else {
                seen.push(id);
            }
        }
    }

    fn required_label(&mut self, at: &At<'_>) {
        if self.required_string(at) {
            self.dns_label(at);
        }
    }

    fn pool_name(&mut self, at: &At<'_>) {
        if !self.required_string(at) {
            return;
        }
        if at.len() > 253 {
            self.too_long(&at.path, 253);
        }
        for message in at.s().split('/').flat_map(names::dns1123_subdomain) {
            self.invalid(at, message);
        }
    }

    fn selectors(&mut self, at: &At<'_>) {
        self.items(at, MAX_ITEMS, |selector, e| {
            let cel = selector.f("cel");
            let expression = cel.f("expression");
            if !cel.has() {
                e.required(&cel.path, "");
            } else if expression.len() > MAX_EXPRESSION {
                e.too_long(&expression.path, MAX_EXPRESSION);
            }
        });
    }

    /// Parameters for a driver, opaque to everyone else.
    fn configuration(&mut self, at: &At<'_>) {
        let opaque = at.f("opaque");
        if !opaque.has() {
            return self.required(&opaque.path, "");
        }
        csi_driver(&opaque.f("driver"), self);
        self.raw_object(&opaque.f("parameters"), MAX_PARAMETERS);
    }

    fn raw_object(&mut self, at: &At<'_>, max: usize) {
        if !at.has() {
            self.required(&at.path, "");
        } else if at.value.to_string().len() > max {
            self.too_long(&at.path, max);
        } else if !at.value.is_object() {
            self.invalid_value(&at.path, "<value omitted>", "must be a valid JSON object");
        }
    }

    fn c_identifier(&mut self, path: &Path<'_>, id: &str) {
        if id.len() > MAX_ITEMS {
            self.too_long(path, MAX_ITEMS);
        }
        names::c_identifier(id).into_iter().for_each(|message| self.invalid_value(path, id, message));
    }

    /// `domain/name`, or `name` alone of the driver's own domain.
    fn device_property(&mut self, path: &Path<'_>, name: &str) {
        let Some((domain, id)) = name.split_once('/') else { return self.c_identifier(path, name) };
        if domain.is_empty() {
            self.invalid_value(path, "", "the domain must not be empty");
        } else {
            csi_driver(&At { value: &Value::from(domain), path: path.clone() }, self);
        }
        match id {
            "" => self.invalid_value(path, "", "the name must not be empty"),
            id if id.contains('/') => {}
            id => self.c_identifier(path, id),
        }
    }

    fn qualified_property(&mut self, at: &At<'_>) {
        self.device_property(&at.path, at.s());
        if !at.s().contains('/') {
            self.invalid(at, "a fully qualified name must be a domain and a name separated by a slash");
        }
    }
}

/// The requests of a claim, which its constraints, configuration and results refer to.
struct Requests<'a>(At<'a>);

impl Requests<'_> {
    /// `request` or `request/alternative`.
    fn has(&self, name: &str) -> bool {
        let (request, alternative) = name.split_once('/').map_or((name, None), |(r, a)| (r, Some(a)));
        let found = self.0.each().find(|r| r.f("name").s() == request);
        found.is_some_and(|request| match alternative {
            None => true,
            Some(wanted) => request.f("firstAvailable").each().any(|a| a.f("name").s() == wanted),
        })
    }

    fn check(&self, at: &At<'_>, e: &mut Errors) {
        const UNKNOWN: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        let segments: Vec<&str> = at.s().split('/').collect();
        if segments.len() > 2 {
            return e.invalid(at, UNKNOWN);
        }
        for segment in segments {
            match segment {
                "" => e.required(&at.path, ""),
                segment => {
                    let messages = names::dns1123_label(segment);
                    messages.into_iter().for_each(|m| e.invalid_value(&at.path, segment, m));
                }
            }
        }
        if !self.has(at.s()) {
            e.invalid(at, UNKNOWN);
        }
    }

    fn check_all(&self, at: &At<'_>, e: &mut Errors) {
        e.items(at, MAX_ITEMS, |name, e| self.check(name, e));
        e.unique(at, |name| name.s().to_owned());
    }
}

/// Requests in a claim's spec, and in their alternatives.
fn default_claim(spec: &mut Value) {
    let Some(devices) = edit::some(spec, "devices") else { return };
    let device = |request: &mut Value| {
        default_zero(request, "allocationMode", "ExactCount");
        if request["allocationMode"] == "ExactCount" {
            default_zero(request, "count", 1);
        }
        edit::each(request, "tolerations").for_each(|t| default_zero(t, "operator", "Equal"));
    };
    for request in edit::each(devices, "requests") {
        if let Some(exact) = edit::some(request, "exactly") {
            device(exact);
        }
        edit::each(request, "firstAvailable").for_each(device);
    }
}

fn claim(spec: &At<'_>, e: &mut Errors) {
    let devices = spec.f("devices");
    let requests = Requests(devices.f("requests"));
    e.items(&requests.0, MAX_ITEMS, request);
    e.unique(&requests.0, |request| request.f("name").s().to_owned());
    e.items(&devices.f("constraints"), MAX_ITEMS, |constraint, e| {
        requests.check_all(&constraint.f("requests"), e);
        match (constraint.get("matchAttribute"), constraint.get("distinctAttribute")) {
            (Some(name), _) | (None, Some(name)) => e.qualified_property(&name),
            (None, None) => e.required(&constraint.path.field("matchAttribute"), ""),
        }
    });
    e.items(&devices.f("config"), MAX_ITEMS, |config, e| {
        requests.check_all(&config.f("requests"), e);
        e.configuration(config);
    });
}

fn request(at: &At<'_>, e: &mut Errors) {
    const ONE: &str = "exactly one of `exactly` or `firstAvailable` is required";
    e.required_label(&at.f("name"));
    let (exactly, alternatives) = (at.f("exactly"), at.f("firstAvailable"));
    match (exactly.has(), alternatives.is_empty()) {
        (false, true) => e.required(&at.path, ONE),
        (true, false) => e.invalid_without_value(&at.path, format!("{ONE}, but multiple fields are set")),
        (true, true) => device_request(&exactly, e),
        (false, false) => {
            e.items(&alternatives, MAX_ALTERNATIVES, |alternative, e| {
                e.required_label(&alternative.f("name"));
                device_request(alternative, e);
            });
            e.unique(&alternatives, |alternative| alternative.f("name").s().to_owned());
        }
    }
}

fn device_request(at: &At<'_>, e: &mut Errors) {
    if e.required_string(&at.f("deviceClassName")) {
        e.dns_subdomain(&at.f("deviceClassName"));
    }
    e.selectors(&at.f("selectors"));
    let (mode, count) = (at.f("allocationMode"), at.f("count"));
    match mode.s() {
        "All" if count.i() != 0 => e.invalid(&count, "must not be specified when allocationMode is 'All'"),
        "ExactCount" if count.i() <= 0 => e.invalid(&count, "must be greater than zero"),
        "All" | "ExactCount" => {}
        _ => e.not_supported(&mode, &["All", "ExactCount"]),
    }
    e.items(&at.f("tolerations"), MAX_TOLERATIONS, |toleration, e| {
        if !toleration.f("key").is_empty() {
            e.qualified_name(&toleration.f("key"));
        }
        match toleration.f("operator").s() {
            "Exists" if !toleration.f("value").is_empty() => {
                e.invalid(&toleration.f("value"), "must be empty for operator `Exists`");
            }
            "Exists" => {}
            "Equal" => e.messages(&toleration.f("value"), names::label_value(toleration.f("value").s())),
            _ => e.not_supported(&toleration.f("operator"), &["Equal", "Exists"]),
        }
        if !toleration.f("effect").is_empty() {
            e.one_of(&toleration.f("effect"), &["NoExecute", "NoSchedule", "None"]);
        }
    });
}

pub struct ResourceClaim;

impl Strategy for ResourceClaim {
    fn default(&self, object: &mut Value) {
        edit::ensure(object, "status");
        if let Some(spec) = edit::ensure(object, "spec") {
            default_claim(spec);
        }
    }

    fn prepare_create(&self, _ctx: &Ctx<'_>, object: &mut Value) {
        edit::set(object, "status", json!({}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        claim(&At::root(object).f("spec"), &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        immutable_spec(Vec::new(), object, old)
    }

    fn validate_status_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let (at, before, mut e) = (At::root(object), At::root(old).f("status"), Errors::new());
        let status = at.f("status");
        reserved(&status, &before, at.dig(&["metadata", "deletionTimestamp"]).has(), &mut e);
        let (now, was) = (status.f("allocation"), before.f("allocation"));
        device_statuses(&status.f("devices"), &now, &mut e);
        match (was.has(), now.has()) {
            (true, true) if !edit::same(now.value, was.value) => e.invalid(&now, super::common::IMMUTABLE),
            (false, true) => allocation(&now, &Requests(at.dig(&["spec", "devices", "requests"])), &mut e),
            _ => {}
        }
        e.into_vec()
    }
}

/// Who uses a claim: only of one that is allocated, and nobody new of one that goes.
fn reserved(status: &At<'_>, before: &At<'_>, deleting: bool, e: &mut Errors) {
    let consumers = status.f("reservedFor");
    e.items(&consumers, MAX_CONSUMERS, |consumer, e| {
        for field in ["resource", "name", "uid"] {
            e.required_string(&consumer.f(field));
        }
    });
    e.unique(&consumers, |consumer| consumer.f("uid").s().to_owned());
    if consumers.is_empty() {
        return;
    }
    if !status.f("allocation").has() {
        e.forbidden(&consumers.path, "may not be specified when `allocated` is not set");
    } else if deleting {
        let known: Vec<_> = before.f("reservedFor").each().map(|c| c.value).collect();
        if consumers.each().any(|consumer| !known.contains(&consumer.value)) {
            let detail =
                "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            e.forbidden(&consumers.path, detail);
        }
    }
}

/// A device as results and statuses name it.
fn device_id(at: &At<'_>) -> String {
    let id = ["driver", "pool", "device"].map(|field| at.f(field).s()).join("/");
    at.get("shareID").map_or_else(|| id.clone(), |share| format!("{id}/{}", share.s()))
}

fn device_statuses(devices: &At<'_>, allocation: &At<'_>, e: &mut Errors) {
    let allocated: Vec<String> =
        allocation.dig(&["devices", "results"]).each().map(|r| device_id(&r)).collect();
    for device in devices.each() {
        csi_driver(&device.f("driver"), e);
        e.pool_name(&device.f("pool"));
        e.required_label(&device.f("device"));
        let id = device_id(&device);
        if !allocated.contains(&id) {
            e.invalid_value(&device.path, id, "must be an allocated device in the claim");
        }
        e.conditions(&device.f("conditions"));
        if device.f("data").has() {
            e.raw_object(&device.f("data"), MAX_PARAMETERS);
        }
    }
    e.unique(devices, device_id);
}

fn allocation(at: &At<'_>, requests: &Requests<'_>, e: &mut Errors) {
    let devices = at.f("devices");
    e.items(&devices.f("results"), MAX_ITEMS, |result, e| {
        requests.check(&result.f("request"), e);
        csi_driver(&result.f("driver"), e);
        e.pool_name(&result.f("pool"));
        e.required_label(&result.f("device"));
    });
    e.items(&devices.f("config"), 2 * MAX_ITEMS, |config, e| {
        if e.required_string(&config.f("source")) {
            e.one_of(&config.f("source"), &["FromClaim", "FromClass"]);
        }
        requests.check_all(&config.f("requests"), e);
        e.configuration(config);
    });
    if let Some(selector) = at.get("nodeSelector") {
        scheduling::node_selector(&selector, e);
    }
}

pub struct ResourceClaimTemplate;

impl Strategy for ResourceClaimTemplate {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = edit::dig(object, &["spec", "spec"]) {
            default_claim(spec);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (spec, mut e) = (At::root(object).f("spec"), Errors::new());
        e.labels(&spec.dig(&["metadata", "labels"]));
        e.annotations(&spec.dig(&["metadata", "annotations"]));
        claim(&spec.f("spec"), &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        immutable_spec(Vec::new(), object, old)
    }
}

pub struct DeviceClass;

impl Strategy for DeviceClass {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (spec, mut e) = (At::root(object).f("spec"), Errors::new());
        e.selectors(&spec.f("selectors"));
        e.items(&spec.f("config"), MAX_ITEMS, |config, e| e.configuration(config));
        let resource = spec.f("extendedResourceName");
        if resource.has() && !resources::is_extended(resource.s()) {
            e.invalid(&resource, "must be a valid extended resource name");
        }
        e.into_vec()
    }
}
