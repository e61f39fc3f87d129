//! PersistentVolumeClaims.

use keelson_api_types::FieldError;
use serde_json::{Value, json};

use super::{ACCESS_MODES, VOLUME_MODES, defaults};
use crate::strategies::check::{At, Errors, Path};
use crate::strategies::pod::resources;
use crate::strategies::pod::update::difference;
use crate::strategies::{Ctx, Strategy, carry, edit};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const RESIZE_STATES: &[&str] = &[
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

pub struct PersistentVolumeClaim;

impl Strategy for PersistentVolumeClaim {
    fn default(&self, object: &mut Value) {
        defaults::claim_spec(object);
        if let Some(status) = edit::ensure(object, "status") {
            edit::default_zero(status, "phase", "Pending");
        }
    }

    fn prepare_create(&self, _ctx: &Ctx<'_>, object: &mut Value) {
        edit::set(object, "status", json!({"phase": "Pending"}));
        data_sources(object, None);
    }

    fn prepare_update(&self, _ctx: &Ctx<'_>, object: &mut Value, old: &Value) {
        carry(object, old, "status");
        data_sources(object, Some(old));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        spec(&At::root(object).f("spec"), &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let (new, old, mut e) = (At::root(object), At::root(old), Errors::new());
        spec(&new.f("spec"), &mut e);
        update(&new, &old, &mut e);
        e.into_vec()
    }

    fn validate_status_update(&self, object: &Value, _old: &Value) -> Vec<FieldError> {
        let (at, mut e) = (At::root(object), Errors::new());
        if at.dig(&["spec", "accessModes"]).is_empty() {
            e.required(&Path::of(&["Spec", "accessModes"]), "");
        }
        let status = at.f("status");
        for field in ["capacity", "allocatedResources"] {
            for (_, amount) in status.f(field).entries() {
                if let Some(quantity) = amount.quantity().filter(|q| q.sign() < 0) {
                    e.invalid_value(&amount.path, quantity.value(), "must be a valid resource quantity");
                }
            }
        }
        let states = status.f("allocatedResourceStatuses");
        for (_, state) in states.entries() {
            if !RESIZE_STATES.contains(&state.s()) {
                e.not_supported(&state.under(states.path.clone()), RESIZE_STATES);
            }
        }
        e.into_vec()
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let at = At::root(object);
        let mut out = Vec::new();
        let annotations = at.dig(&["metadata", "annotations"]);
        if annotations.f(CLASS_ANNOTATION).has() {
            let path = annotations.path.key(CLASS_ANNOTATION);
            out.push(format!("{path}: deprecated since v1.8; use \"storageClassName\" attribute instead"));
        }
        spec_warnings(&at.f("spec"), &mut out);
        out
    }
}

pub fn spec_warnings(spec: &At<'_>, out: &mut Vec<String>) {
    for side in ["requests", "limits"] {
        let amount = spec.dig(&["resources", side, "storage"]);
        if let Some(quantity) = amount.quantity().filter(|q| !resources::is_whole(q)) {
            let path = spec.f("resources").path.field(side).key("storage");
            out.push(format!("{path}: fractional byte value \"{quantity}\" is invalid, must be an integer"));
        }
    }
}

/// `dataSource` and `dataSourceRef` say the same; either fills in the other.
fn data_sources(object: &mut Value, old: Option<&Value>) {
    let in_use = |object: &Value| {
        ["dataSource", "dataSourceRef"]
            .iter()
            .any(|field| !At::root(object).dig(&["spec", field]).value.is_null())
    };
    let Some(spec) = edit::some(object, "spec") else { return };
    let at = At::root(spec);
    let (source, reference) = (at.f("dataSource"), at.f("dataSourceRef"));
    let known = match (source.f("kind").s(), source.f("apiGroup").s()) {
        ("PersistentVolumeClaim", "") | ("VolumeSnapshot", "snapshot.storage.k8s.io") => true,
        _ => !source.has(),
    };
    if !known && !reference.has() && !old.is_some_and(in_use) {
        edit::unset(spec, "dataSource");
        return;
    }
    match (source.has(), reference.has()) {
        (true, false) => {
            let value = source.value.clone();
            edit::set(spec, "dataSourceRef", value);
        }
        (false, true) if reference.f("namespace").is_empty() => {
            let mut value = reference.value.clone();
            edit::unset(&mut value, "namespace");
            edit::set(spec, "dataSource", value);
        }
        _ => {}
    }
}

/// The spec of a claim or of a claim template.
pub fn spec(at: &At<'_>, e: &mut Errors) {
    if at.f("accessModes").is_empty() {
        e.required(&at.path.field("accessModes"), "at least 1 access mode is required");
    }
    e.label_selector(&at.f("selector"));
    access_modes(&at.f("accessModes"), e);
    let path = at.path.field("resources").key("storage");
    let storage = at.dig(&["resources", "requests", "storage"]).under(path);
    match storage.quantity() {
        None => e.required(&storage.path, ""),
        Some(amount) if amount.sign() <= 0 => {
            e.invalid_value(&storage.path, amount.to_string(), "must be greater than zero");
        }
        Some(_) => {}
    }
    for class in ["storageClassName", "volumeAttributesClassName"] {
        if !at.f(class).is_empty() {
            e.dns_subdomain(&at.f(class));
        }
    }
    e.optional_one_of(&at.f("volumeMode"), VOLUME_MODES);
    let (source, reference) = (at.f("dataSource"), at.f("dataSourceRef"));
    for source in [&source, &reference].into_iter().filter(|s| s.has()) {
        e.required_string(&source.f("name"));
        e.required_string(&source.f("kind"));
        let group = source.f("apiGroup");
        if group.is_empty() && source.f("kind").s() != "PersistentVolumeClaim" {
            let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            e.invalid_value(&source.path, source.f("kind").s(), detail);
        }
        if !group.is_empty() {
            e.dns_subdomain(&group);
        }
        if !source.f("namespace").is_empty() {
            e.dns_label(&source.f("namespace"));
        }
    }
    if !reference.f("namespace").is_empty() {
        if source.has() {
            let detail = "may not be specified when dataSourceRef.namespace is specified";
            e.invalid_value(&at.path, source.path.to_string(), detail);
        }
    } else if source.has()
        && reference.has()
        && ["apiGroup", "kind", "name"].iter().any(|f| source.f(f).s() != reference.f(f).s())
    {
        e.invalid_value(&at.path, source.path.to_string(), "must match dataSourceRef");
    }
}

/// The access modes of claims and volumes.
pub fn access_modes(at: &At<'_>, e: &mut Errors) {
    let (mut exclusive, mut other) = (false, false);
    for mode in at.each() {
        if !ACCESS_MODES.contains(&mode.s()) {
            e.not_supported(&mode.under(at.path.clone()), ACCESS_MODES);
        } else if mode.s() == "ReadWriteOncePod" {
            exclusive = true;
        } else {
            other = true;
        }
    }
    if exclusive && other {
        e.forbidden(&at.path, "may not use ReadWriteOncePod with other access modes");
    }
}

fn update(new: &At<'_>, old: &At<'_>, e: &mut Errors) {
    let (spec, before) = (new.f("spec"), old.f("spec"));
    let bound = new.dig(&["status", "phase"]).s() == "Bound";
    let mut allowed = spec.value.clone();
    let mut was = before.value.clone();
    if before.f("volumeName").is_empty() {
        edit::carry(&mut was, &allowed, &["volumeName"]);
    }
    if spec.f("storageClassName").has() && !before.f("storageClassName").has() {
        // A class may still be given to a claim that has none.
        edit::carry(&mut allowed, before.value, &["storageClassName"]);
    }
    if bound {
        edit::carry(&mut allowed, before.value, &["resources", "requests", "storage"]);
        edit::carry(&mut allowed, before.value, &["volumeAttributesClassName"]);
    }
    if !edit::same(&allowed, &was) {
        let detail = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound \
             claims\n{}",
            difference(&was, &allowed)
        );
        e.forbidden(&spec.path, detail);
    }
    let size = |at: &At<'_>| at.dig(&["resources", "requests", "storage"]).quantity();
    if let (Some(now), Some(then)) = (size(&spec), size(&before))
        && now < then
        && old.dig(&["status", "capacity", "storage"]).quantity().is_some_and(|have| now <= have)
    {
        let path = Path::of(&["spec", "resources", "requests", "storage"]);
        e.forbidden(&path, "field can not be less than status.capacity");
    }
    e.immutable(&spec.f("volumeMode").under(Path::of(&["volumeMode"])), &before.f("volumeMode"));
    let class = spec.f("volumeAttributesClassName");
    if old.dig(&["status", "currentVolumeAttributesClassName"]).has() && class.is_empty() {
        let what = if class.has() { "empty string" } else { "nil" };
        let detail =
            format!("update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil");
        e.forbidden(&class.path, detail);
    }
}
