//! Dynamic resource allocation: claims, their templates, classes and slices.

use keelson_api_types::FieldError;
use serde_json::{Value, json};

use super::check::{At, Errors};
use super::edit::{self, default, default_zero};
use super::{Ctx, Strategy};

/// Requests in a claim's spec, and in their alternatives.
fn claim_spec(spec: &mut Value) {
    let Some(devices) = edit::some(spec, "devices") else { return };
    let device = |request: &mut Value| {
        default_zero(request, "allocationMode", "ExactCount");
        if request["allocationMode"] == "ExactCount" {
            default_zero(request, "count", 1);
        }
    };
    for request in edit::each(devices, "requests") {
        if let Some(exact) = edit::some(request, "exactly") {
            device(exact);
        }
        edit::each(request, "firstAvailable").for_each(device);
    }
}

fn requests(spec: &At<'_>, e: &mut Errors) {
    let mut seen = Vec::new();
    let list = spec.dig(&["devices", "requests"]);
    if list.len() > 32 {
        e.too_many(&list.path, list.len(), 32);
    }
    for request in list.each() {
        let name = request.f("name");
        if e.required_string(&name) {
            e.dns_label(&name);
        }
        if seen.contains(&name.s()) {
            e.duplicate(&name.path, name.s());
        }
        seen.push(name.s());
        let (exactly, alternatives) = (request.f("exactly"), request.f("firstAvailable"));
        match (exactly.has(), alternatives.is_empty()) {
            (true, false) => e.invalid_without_value(
                &request.path,
                "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
            ),
            (false, true) => {
                e.required(&request.path, "exactly one of `exactly` or `firstAvailable` is required");
            }
            _ => {}
        }
        for device in alternatives.each().chain(exactly.has().then_some(exactly)) {
            device_request(&device, e);
        }
    }
}

fn device_request(at: &At<'_>, e: &mut Errors) {
    if e.required_string(&at.f("deviceClassName")) {
        e.dns_subdomain(&at.f("deviceClassName"));
    }
    let (mode, count) = (at.f("allocationMode"), at.f("count"));
    match mode.s() {
        "All" if count.i() != 0 => {
            e.invalid(&count, "must not be specified when allocationMode is 'All'");
        }
        "ExactCount" if count.i() <= 0 => e.invalid(&count, "must be greater than zero"),
        "All" | "ExactCount" => {}
        _ => e.not_supported(&mode, &["All", "ExactCount"]),
    }
}

pub struct ResourceClaim;

impl Strategy for ResourceClaim {
    fn default(&self, object: &mut Value) {
        edit::ensure(object, "status");
        if let Some(spec) = edit::ensure(object, "spec") {
            claim_spec(spec);
        }
    }

    fn prepare_create(&self, _ctx: &Ctx<'_>, object: &mut Value) {
        edit::set(object, "status", json!({}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        requests(&At::root(object).f("spec"), &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        e.immutable(&At::root(object).f("spec"), &At::root(old).f("spec"));
        e.into_vec()
    }

    fn validate_status_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let (status, before, mut e) =
            (At::root(object).f("status"), At::root(old).f("status"), Errors::new());
        let (now, was) = (status.f("allocation"), before.f("allocation"));
        if was.has() && now.has() && !edit::same(now.value, was.value) {
            e.invalid(&now, super::common::IMMUTABLE);
        }
        if !status.f("reservedFor").is_empty() && !now.has() {
            e.forbidden(
                &status.path.field("reservedFor"),
                "may not be specified when `allocated` is not set",
            );
        }
        if status.f("reservedFor").len() > 256 {
            e.too_many(&status.path.field("reservedFor"), status.f("reservedFor").len(), 256);
        }
        e.into_vec()
    }

    fn has_generation(&self) -> bool {
        false
    }
}

pub struct ResourceClaimTemplate;

impl Strategy for ResourceClaimTemplate {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = edit::dig(object, &["spec", "spec"]) {
            claim_spec(spec);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        requests(&At::root(object).dig(&["spec", "spec"]), &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        e.immutable(&At::root(object).f("spec"), &At::root(old).f("spec"));
        e.into_vec()
    }

    fn has_status(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        false
    }
}

pub struct ResourceSlice;

impl Strategy for ResourceSlice {
    fn default(&self, object: &mut Value) {
        let now = keelson_api_types::meta::now_rfc3339();
        let Some(spec) = edit::ensure(object, "spec") else { return };
        for taint in edit::each(spec, "devices").flat_map(|device| edit::each(device, "taints")) {
            default(taint, "timeAdded", now.as_str());
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (spec, mut e) = (At::root(object).f("spec"), Errors::new());
        super::storage::volumes::csi_driver(&spec.f("driver"), &mut e);
        e.required_string(&spec.dig(&["pool", "name"]));
        let selectors = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
        let set = selectors.iter().filter(|field| !edit::is_zero(spec.f(field).value)).count();
        let detail =
            "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
        match set {
            0 => e.required(&spec.path, detail),
            1 => {}
            _ => e.invalid_without_value(&spec.path, format!("{detail}, but multiple fields are set")),
        }
        let devices = spec.f("devices");
        if devices.len() > 128 {
            e.too_many(&devices.path, devices.len(), 128);
        }
        let mut seen = Vec::new();
        for device in devices.each() {
            let name = device.f("name");
            if e.required_string(&name) {
                e.dns_label(&name);
            }
            if seen.contains(&name.s()) {
                e.duplicate(&name.path, name.s());
            }
            seen.push(name.s());
        }
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        e.extend(self.validate(object));
        let (spec, before) = (At::root(object).f("spec"), At::root(old).f("spec"));
        for path in [&["driver"][..], &["pool", "name"], &["nodeName"]] {
            e.immutable(&spec.dig(path), &before.dig(path));
        }
        e.into_vec()
    }

    fn has_status(&self) -> bool {
        false
    }

    fn selectable_names(&self) -> &'static [&'static str] {
        &["spec.nodeName", "spec.driver"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let spec = At::root(object).f("spec");
        vec![
            ("spec.nodeName", spec.f("nodeName").s().to_owned()),
            ("spec.driver", spec.f("driver").s().to_owned()),
        ]
    }
}
