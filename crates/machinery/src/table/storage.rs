//! Volumes, claims and what provisions them.

use super::core::quantity_at;
use super::object::Obj;
use super::plain;
use keelson_api_types::meta;
use serde_json::{Value, json};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const UNSET: &str = "<unset>";

pub(super) fn cells(resource: &str, o: &Obj) -> Vec<Value> {
    match resource {
        "storageclasses" => {
            let is_default = |k: &str| meta::annotation(o.value(), k) == Some("true");
            let default = is_default("storageclass.kubernetes.io/is-default-class")
                || is_default("storageclass.beta.kubernetes.io/is-default-class");
            let name = format!("{}{}", meta::name(o.value()), if default { " (default)" } else { "" });
            vec![
                json!(name),
                json!(o.text("provisioner")),
                json!(o.or("reclaimPolicy", "Delete")),
                json!(o.or("volumeBindingMode", "Immediate")),
                json!(o.flag("allowVolumeExpansion")),
                o.age(),
            ]
        }
        "volumeattachments" => vec![
            o.name(),
            json!(o.text("spec.attacher")),
            json!(o.text("spec.source.persistentVolumeName")),
            json!(o.text("spec.nodeName")),
            json!(o.flag("status.attached")),
            o.age(),
        ],
        "csinodes" => vec![o.name(), json!(o.len("spec.drivers")), o.age()],
        "csidrivers" => driver(o),
        "volumeattributesclasses" => vec![o.name(), json!(o.text("driverName")), o.age()],
        _ => plain(o),
    }
}

fn driver(o: &Obj) -> Vec<Value> {
    let modes = o.join("spec.volumeLifecycleModes", ",");
    let audiences: Vec<&str> = o.list("spec.tokenRequests").map(|t| t.text("audience")).collect();
    vec![
        o.name(),
        json!(o.get("spec.attachRequired").and_then(Value::as_bool).unwrap_or(true)),
        json!(o.flag("spec.podInfoOnMount")),
        json!(o.flag("spec.storageCapacity")),
        json!(if o.has("spec.tokenRequests") { audiences.join(",") } else { UNSET.to_owned() }),
        json!(o.flag("spec.requiresRepublish")),
        json!(if modes.is_empty() { "<none>".to_owned() } else { modes }),
        o.age(),
    ]
}

pub(super) fn volume(o: &Obj) -> Vec<Value> {
    let claim = match o.has("spec.claimRef") {
        true => format!("{}/{}", o.text("spec.claimRef.namespace"), o.text("spec.claimRef.name")),
        false => String::new(),
    };
    vec![
        o.name(),
        json!(quantity_at(o, "spec.capacity.storage")),
        json!(access_modes(o, "spec.accessModes")),
        json!(o.text("spec.persistentVolumeReclaimPolicy")),
        json!(phase(o)),
        json!(claim),
        json!(class(o)),
        json!(o.or("spec.volumeAttributesClassName", UNSET)),
        json!(o.text("status.reason")),
        o.age(),
        json!(o.or("spec.volumeMode", UNSET)),
    ]
}

pub(super) fn claim(o: &Obj) -> Vec<Value> {
    let bound = !o.text("spec.volumeName").is_empty();
    let (capacity, modes) = match bound {
        true => (quantity_at(o, "status.capacity.storage"), access_modes(o, "status.accessModes")),
        false => (String::new(), String::new()),
    };
    vec![
        o.name(),
        json!(phase(o)),
        json!(o.text("spec.volumeName")),
        json!(capacity),
        json!(modes),
        json!(class(o)),
        json!(o.or("spec.volumeAttributesClassName", UNSET)),
        o.age(),
        json!(o.or("spec.volumeMode", UNSET)),
    ]
}

fn phase<'a>(o: &Obj<'a>) -> &'a str {
    if o.has("metadata.deletionTimestamp") { "Terminating" } else { o.text("status.phase") }
}

fn class<'a>(o: &Obj<'a>) -> &'a str {
    meta::annotation(o.value(), CLASS_ANNOTATION).unwrap_or_else(|| o.text("spec.storageClassName"))
}

fn access_modes(o: &Obj, path: &str) -> String {
    const MODES: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |mode: &str| o.list(path).any(|m| m.value().as_str() == Some(mode));
    let short: Vec<&str> = MODES.into_iter().filter(|(mode, _)| has(mode)).map(|(_, short)| short).collect();
    short.join(",")
}
