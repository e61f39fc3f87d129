//! PersistentVolumes.

use keelson_api_types::FieldError;
use serde_json::{Value, json};

use super::{VOLUME_MODES, claim, defaults, volumes};
use crate::strategies::check::{At, Errors, Path};
use crate::strategies::pod::scheduling;
use crate::strategies::pod::update::difference;
use crate::strategies::{Ctx, Strategy, edit, keep_only};

const RECLAIM_POLICIES: &[&str] = &["Delete", "Recycle", "Retain"];

pub struct PersistentVolume;

impl Strategy for PersistentVolume {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = edit::ensure(object, "spec") {
            edit::default_zero(spec, "persistentVolumeReclaimPolicy", "Retain");
            edit::default(spec, "volumeMode", "Filesystem");
            defaults::source(spec);
        }
        if let Some(status) = edit::ensure(object, "status") {
            edit::default_zero(status, "phase", "Pending");
        }
    }

    fn prepare_create(&self, _ctx: &Ctx<'_>, object: &mut Value) {
        let now = keelson_api_types::meta::now_rfc3339();
        edit::set(object, "status", json!({"phase": "Pending", "lastPhaseTransitionTime": now}));
    }

    fn prepare_status_update(&self, _ctx: &Ctx<'_>, object: &mut Value, old: &Value) {
        keep_only(object, old, &["status"]);
        let (new, before) = (At::root(object).f("status"), At::root(old).f("status"));
        let time = "lastPhaseTransitionTime";
        let (now, then) = (new.f(time).s(), before.f(time).s());
        if new.f("phase").s() == before.f("phase").s() {
            if now.is_empty() {
                edit::carry(object, old, &["status", time]);
            }
        } else if now.is_empty() || now == then {
            let stamp = keelson_api_types::meta::now_rfc3339();
            if let Some(status) = edit::ensure(object, "status") {
                edit::set(status, time, stamp);
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        spec(&At::root(object).f("spec"), &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let (new, old, mut e) = (At::root(object).f("spec"), At::root(old).f("spec"), Errors::new());
        spec(&new, &mut e);
        let source = |spec: &At<'_>| {
            let mut source = serde_json::Map::new();
            for kind in volumes::persistent_kinds() {
                if let Some(found) = spec.value.get(kind) {
                    source.insert(kind.to_owned(), found.clone());
                }
            }
            Value::Object(source)
        };
        let (mut now, was) = (source(&new), source(&old));
        if let Some(csi) = edit::some(&mut now, "csi")
            && !old.dig(&["csi", "controllerExpandSecretRef"]).has()
        {
            edit::unset(csi, "controllerExpandSecretRef");
        }
        if !edit::same(&now, &was) {
            let diff = difference(&was, &now);
            let detail = format!("spec.persistentvolumesource is immutable after creation\n{diff}");
            e.forbidden(&Path::of(&["spec", "persistentvolumesource"]), detail);
        }
        e.immutable(&new.f("volumeMode").under(Path::of(&["volumeMode"])), &old.f("volumeMode"));
        let affinity = new.f("nodeAffinity");
        if old.f("nodeAffinity").has() && !edit::same(affinity.value, old.f("nodeAffinity").value) {
            let detail = "field is immutable, except for updating from beta label to GA";
            e.invalid(&affinity.under(Path::of(&["nodeAffinity"])), detail);
        }
        let class = new.f("volumeAttributesClassName");
        if old.f("volumeAttributesClassName").has() && !class.has() {
            e.forbidden(&class.path, "update from non-nil value to nil is forbidden");
        }
        e.into_vec()
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let at = At::root(object);
        let mut out = Vec::new();
        let annotations = at.dig(&["metadata", "annotations"]);
        for (key, message) in [
            (
                "volume.beta.kubernetes.io/storage-class",
                "deprecated since v1.8; use \"storageClassName\" attribute instead",
            ),
            (
                "volume.beta.kubernetes.io/mount-options",
                "deprecated since v1.31; use \"mountOptions\" attribute instead",
            ),
        ] {
            if annotations.f(key).has() {
                out.push(format!("{}: {message}", annotations.path.key(key)));
            }
        }
        if at.dig(&["spec", "persistentVolumeReclaimPolicy"]).s() == "Recycle" {
            out.push(
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the \
                 recommended approach is to use dynamic provisioning."
                    .to_owned(),
            );
        }
        out
    }
}

fn spec(at: &At<'_>, e: &mut Errors) {
    let (modes, capacity) = (at.f("accessModes"), at.f("capacity"));
    if modes.is_empty() {
        e.required(&modes.path, "");
    }
    claim::access_modes(&modes, e);
    if capacity.is_empty() {
        e.required(&capacity.path, "");
    }
    if !capacity.f("storage").has() || capacity.len() > 1 {
        e.not_supported(&capacity, &["storage"]);
    }
    for (_, amount) in capacity.entries() {
        if let Some(quantity) = amount.quantity().filter(|q| q.sign() <= 0) {
            e.invalid_value(&amount.path, quantity.to_string(), "must be greater than zero");
        }
    }
    if !at.f("persistentVolumeReclaimPolicy").is_empty() {
        e.optional_one_of(&at.f("persistentVolumeReclaimPolicy"), RECLAIM_POLICIES);
    }
    let affinity = at.f("nodeAffinity");
    if affinity.has() {
        match affinity.get("required") {
            Some(required) => scheduling::node_selector(&required, e),
            None => e.required(&affinity.path.field("required"), "must specify required node constraints"),
        }
    }
    volumes::persistent(at, e);
    if at.f("local").has() && !affinity.has() {
        e.required(&affinity.path, "Local volume requires node affinity");
    }
    let root = at.dig(&["hostPath", "path"]).s();
    if !root.is_empty()
        && root.bytes().all(|b| b == b'/')
        && at.f("persistentVolumeReclaimPolicy").s() == "Recycle"
    {
        let path = at.path.field("persistentVolumeReclaimPolicy");
        e.forbidden(&path, "may not be 'recycle' for a hostPath mount of '/'");
    }
    if !at.f("storageClassName").is_empty() {
        e.dns_subdomain(&at.f("storageClassName"));
    }
    e.optional_one_of(&at.f("volumeMode"), VOLUME_MODES);
    if let Some(class) = at.get("volumeAttributesClassName") {
        if class.is_empty() {
            e.required(&class.path, "an empty string is disallowed");
        } else {
            e.dns_subdomain(&class);
        }
        if !at.f("csi").has() {
            e.required(&at.path.field("csi"), "has to be specified when using volumeAttributesClassName");
        }
    }
}
