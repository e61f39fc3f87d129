//! Defaults of volumes and of claims.

use serde_json::{Value, json};

use crate::strategies::edit::{self, default, default_zero};
use crate::strategies::pod::defaults::{field_ref, pull_policy};

const FILE_MODE: i64 = 0o644;

/// A volume of a pod.
pub fn volume(volume: &mut Value) {
    let Some(map) = volume.as_object_mut() else { return };
    if map.iter().all(|(key, value)| key == "name" || value.is_null()) {
        map.insert("emptyDir".to_owned(), json!({}));
    }
    source(volume);
    for kind in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(found) = edit::some(volume, kind) {
            default(found, "defaultMode", FILE_MODE);
        }
    }
    if let Some(found) = edit::some(volume, "downwardAPI") {
        edit::each(found, "items").for_each(field_ref);
    }
    if let Some(projected) = edit::some(volume, "projected") {
        for item in edit::each(projected, "sources") {
            if let Some(found) = edit::some(item, "downwardAPI") {
                edit::each(found, "items").for_each(field_ref);
            }
            if let Some(token) = edit::some(item, "serviceAccountToken") {
                default(token, "expirationSeconds", 3600);
            }
        }
    }
    if let Some(template) = edit::dig(volume, &["ephemeral", "volumeClaimTemplate"]) {
        claim_spec(template);
    }
    if let Some(image) = edit::some(volume, "image") {
        let policy = pull_policy(image.get("reference").and_then(Value::as_str).unwrap_or_default());
        default_zero(image, "pullPolicy", policy);
    }
    if let Some(claim) = edit::some(volume, "persistentVolumeClaim") {
        edit::omit_zero(claim, &["readOnly"]);
    }
}

/// What pods' volumes and persistent volumes share.
pub fn source(parent: &mut Value) {
    if let Some(path) = edit::some(parent, "hostPath") {
        default(path, "type", "");
    }
    if let Some(iscsi) = edit::some(parent, "iscsi") {
        default_zero(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = edit::some(parent, "rbd") {
        for (name, value) in [("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")] {
            default_zero(rbd, name, value);
        }
    }
    if let Some(disk) = edit::some(parent, "azureDisk") {
        for (name, value) in [("cachingMode", "ReadWrite"), ("fsType", "ext4"), ("kind", "Shared")] {
            default(disk, name, value);
        }
        default(disk, "readOnly", false);
    }
    if let Some(scale_io) = edit::some(parent, "scaleIO") {
        default_zero(scale_io, "storageMode", "ThinProvisioned");
        default_zero(scale_io, "fsType", "xfs");
    }
}

/// The `spec` of a claim or of a claim template.
pub fn claim_spec(parent: &mut Value) {
    if let Some(spec) = edit::ensure(parent, "spec") {
        default(spec, "volumeMode", "Filesystem");
        default(spec, "resources", json!({}));
    }
}
