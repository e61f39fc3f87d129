//! Validation of where volumes come from: in pods, and in persistent volumes.

use keelson_api_types::names;

use super::claim;
use crate::strategies::check::{At, Errors};
use crate::strategies::pod::spec::downward_file;

type Check = fn(&At<'_>, &mut Errors);

/// A kind of volume: its field, the field that an error about a second kind names, and its check.
struct Kind {
    field: &'static str,
    forbidden_as: &'static str,
    reported_as: &'static str,
    check: Check,
}

const fn kind(field: &'static str, check: Check) -> Kind {
    Kind { field, forbidden_as: field, reported_as: field, check }
}

/// In upstream's order, its oddly named fields included.
const IN_PODS: &[Kind] = &[
    kind("emptyDir", empty_dir),
    kind("hostPath", host_path),
    kind("gitRepo", |at, e| {
        e.required_string(&at.f("repository"));
        e.local_path(&at.f("directory"));
    }),
    Kind { reported_as: "persistentDisk", ..kind("gcePersistentDisk", |at, e| disk(at, "pdName", e)) },
    kind("awsElasticBlockStore", |at, e| disk(at, "volumeID", e)),
    kind("secret", |at, e| {
        e.required_string(&at.f("secretName"));
        e.file_mode(&at.f("defaultMode"));
        items(&at.f("items"), e);
    }),
    kind("nfs", nfs),
    kind("iscsi", iscsi),
    kind("glusterfs", |at, e| required(at, &["endpoints", "path"], e)),
    kind("flocker", flocker),
    kind("persistentVolumeClaim", |at, e| required(at, &["claimName"], e)),
    kind("rbd", rbd),
    kind("cinder", |at, e| required(at, &["volumeID"], e)),
    Kind { forbidden_as: "cephFS", ..kind("cephfs", cephfs) },
    kind("quobyte", |at, e| required(at, &["registry", "volume"], e)),
    Kind { forbidden_as: "downwarAPI", ..kind("downwardAPI", downward_api) },
    kind("fc", fibre_channel),
    kind("flexVolume", flex),
    kind("configMap", |at, e| {
        e.required_string(&at.f("name"));
        e.file_mode(&at.f("defaultMode"));
        items(&at.f("items"), e);
    }),
    kind("azureFile", |at, e| required(at, &["secretName", "shareName"], e)),
    kind("vsphereVolume", |at, e| required(at, &["volumePath"], e)),
    kind("photonPersistentDisk", |at, e| required(at, &["pdID"], e)),
    kind("portworxVolume", |at, e| required(at, &["volumeID"], e)),
    kind("azureDisk", azure_disk),
    kind("storageos", storage_os),
    kind("projected", projected),
    kind("scaleIO", |at, e| required(at, &["gateway", "system", "volumeName"], e)),
    kind("csi", csi_in_pod),
    kind("ephemeral", ephemeral),
    kind("image", |at, e| e.one_of(&at.f("pullPolicy"), &["Always", "IfNotPresent", "Never"])),
];

const PERSISTENT: &[Kind] = &[
    kind("hostPath", host_path),
    Kind { reported_as: "persistentDisk", ..kind("gcePersistentDisk", |at, e| disk(at, "pdName", e)) },
    kind("awsElasticBlockStore", |at, e| disk(at, "volumeID", e)),
    kind("glusterfs", |at, e| required(at, &["endpoints", "path"], e)),
    kind("flocker", flocker),
    kind("nfs", nfs),
    kind("rbd", rbd),
    kind("quobyte", |at, e| required(at, &["registry", "volume"], e)),
    Kind { forbidden_as: "cephFS", ..kind("cephfs", cephfs) },
    kind("iscsi", iscsi),
    kind("cinder", |at, e| required(at, &["volumeID"], e)),
    kind("fc", fibre_channel),
    kind("flexVolume", flex),
    kind("azureFile", |at, e| required(at, &["secretName", "shareName"], e)),
    kind("vsphereVolume", |at, e| required(at, &["volumePath"], e)),
    kind("photonPersistentDisk", |at, e| required(at, &["pdID"], e)),
    kind("portworxVolume", |at, e| required(at, &["volumeID"], e)),
    kind("azureDisk", azure_disk),
    kind("scaleIO", |at, e| required(at, &["gateway", "system", "volumeName"], e)),
    kind("local", |at, e| {
        if e.required_string(&at.f("path")) {
            e.no_backsteps(&at.f("path"));
        }
    }),
    kind("storageos", storage_os),
    kind("csi", csi_persistent),
];

/// The fields of a persistent volume's spec that say where it is.
pub fn persistent_kinds() -> impl Iterator<Item = &'static str> {
    PERSISTENT.iter().map(|kind| kind.field)
}

/// A pod's volumes; the sound ones are added to `known`, for mounts to refer to.
pub fn all<'a>(at: &At<'a>, meta: Option<&At<'a>>, known: &mut Vec<At<'a>>, e: &mut Errors) {
    let pod = meta.map_or("", |meta| meta.f("name").s());
    let created = |volume: &At<'_>| format!("{pod}-{}", volume.f("name").s());
    let created_claims: Vec<String> =
        at.each().filter(|v| !pod.is_empty() && v.f("ephemeral").has()).map(|v| created(&v)).collect();
    let taken_over: Vec<String> = known.iter().map(|v| v.f("name").s().to_owned()).collect();
    for volume in at.each() {
        let name = volume.f("name");
        if taken_over.iter().any(|taken| taken == name.s()) {
            continue;
        }
        let before = e.len();
        one_of(&volume, IN_PODS, e);
        if meta.is_some() && volume.f("image").has() && volume.dig(&["image", "reference"]).is_empty() {
            e.required(&volume.f("image").path.field("reference"), "");
        }
        if e.required_string(&name) {
            e.dns_label(&name);
        }
        if known.iter().any(|other| other.f("name").s() == name.s()) {
            e.duplicate(&name.path, name.s());
        }
        if e.len() == before {
            known.push(volume.clone());
        }
        let claim = volume.dig(&["persistentVolumeClaim", "claimName"]);
        if created_claims.iter().any(|name| name == claim.s()) {
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            e.invalid(&claim, detail);
        }
        if !pod.is_empty() && !name.is_empty() && volume.f("ephemeral").has() {
            let claim = created(&volume);
            for message in names::dns1123_subdomain(&claim) {
                e.invalid(&name, format!("PVC name {claim:?}: {message}"));
            }
        }
    }
}

/// The source of a persistent volume.
pub fn persistent(spec: &At<'_>, e: &mut Errors) {
    one_of(spec, PERSISTENT, e);
}

fn one_of(at: &At<'_>, kinds: &[Kind], e: &mut Errors) {
    let mut found = false;
    for kind in kinds {
        let Some(source) = at.get(kind.field) else { continue };
        if found {
            e.forbidden(&at.path.field(kind.forbidden_as), "may not specify more than 1 volume type");
            continue;
        }
        found = true;
        (kind.check)(&source.under(at.path.field(kind.reported_as)), e);
    }
    if !found {
        e.required(&at.path, "must specify a volume type");
    }
}

fn required(at: &At<'_>, names: &[&str], e: &mut Errors) {
    for name in names {
        e.required_string(&at.f(name));
    }
}

fn empty_dir(at: &At<'_>, e: &mut Errors) {
    if at.f("sizeLimit").quantity().is_some_and(|limit| limit.sign() < 0) {
        let detail = "SizeLimit field must be a valid resource quantity";
        e.forbidden(&at.path.field("sizeLimit"), detail);
    }
}

fn host_path(at: &At<'_>, e: &mut Errors) {
    if !e.required_string(&at.f("path")) {
        return;
    }
    e.no_backsteps(&at.f("path"));
    let types =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    e.optional_one_of(&at.f("type"), &types);
}

fn disk(at: &At<'_>, id: &str, e: &mut Errors) {
    if at.f(id).is_empty() {
        e.required(&at.f(id).path, "");
    }
    if !(0..=255).contains(&at.f("partition").i()) {
        e.invalid(&at.f("partition"), crate::strategies::common::inclusive_range(1, 255));
    }
}

fn nfs(at: &At<'_>, e: &mut Errors) {
    required(at, &["server", "path"], e);
    if !at.f("path").s().starts_with('/') {
        e.invalid_value(&at.path.field("path"), at.f("path").s(), "must be an absolute path");
    }
}

fn iscsi(at: &At<'_>, e: &mut Errors) {
    e.required_string(&at.f("targetPortal"));
    let name = at.f("iqn");
    if e.required_string(&name) && !["iqn", "eui", "naa"].iter().any(|prefix| name.s().starts_with(prefix)) {
        e.invalid(&name, "must be valid format starting with iqn, eui, or naa");
    }
    if at.f("lun").has() {
        e.in_range(&at.f("lun"), 0, 255);
    }
    let chap = at.f("chapAuthDiscovery").b() || at.f("chapAuthSession").b();
    if chap && !at.f("secretRef").has() {
        e.required(&at.path.field("secretRef"), "");
    }
}

fn flocker(at: &At<'_>, e: &mut Errors) {
    let (name, uuid) = (at.f("datasetName"), at.f("datasetUUID"));
    match (name.is_empty(), uuid.is_empty()) {
        (true, true) => e.required(&at.path, "one of datasetName and datasetUUID is required"),
        (false, false) => {
            let detail = "datasetName and datasetUUID can not be specified simultaneously";
            e.invalid_value(&at.path, "resource", detail);
        }
        _ => {}
    }
    if name.s().contains('/') {
        e.invalid(&name, "must not contain '/'");
    }
}

fn rbd(at: &At<'_>, e: &mut Errors) {
    cephfs(at, e);
    e.required_string(&at.f("image"));
}

fn cephfs(at: &At<'_>, e: &mut Errors) {
    if at.f("monitors").is_empty() {
        e.required(&at.path.field("monitors"), "");
    }
}

fn fibre_channel(at: &At<'_>, e: &mut Errors) {
    let (targets, ids) = (at.f("targetWWNs"), at.f("wwids"));
    match (targets.is_empty(), ids.is_empty()) {
        (true, true) => {
            e.required(&targets.path, "must specify either targetWWNs or wwids, but not both");
        }
        (false, false) => {
            e.invalid(&targets, "targetWWNs and wwids can not be specified simultaneously");
        }
        _ => {}
    }
    if !targets.is_empty() {
        if at.f("lun").has() {
            e.in_range(&at.f("lun"), 0, 255);
        } else {
            e.required(&at.path.field("lun"), "lun is required if targetWWNs is specified");
        }
    }
}

fn flex(at: &At<'_>, e: &mut Errors) {
    e.required_string(&at.f("driver"));
    for (key, value) in at.f("options").entries() {
        let namespace = format!(".{}", key.split('/').next().unwrap_or(key).to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            e.invalid_value(&value.path, key, detail);
        }
    }
}

fn azure_disk(at: &At<'_>, e: &mut Errors) {
    required(at, &["diskName", "diskURI"], e);
    e.optional_one_of(&at.f("cachingMode"), &["None", "ReadOnly", "ReadWrite"]);
    e.optional_one_of(&at.f("kind"), &["Dedicated", "Managed", "Shared"]);
    let (kind, uri) = (at.f("kind"), at.f("diskURI"));
    if kind.s() == "Managed" && !uri.s().starts_with("/subscriptions/") {
        let form =
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
        e.not_supported(&uri, &[form]);
    }
    if kind.has() && kind.s() != "Managed" && !uri.s().starts_with("https://") {
        e.not_supported(
            &uri,
            &["https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"],
        );
    }
}

fn storage_os(at: &At<'_>, e: &mut Errors) {
    if e.required_string(&at.f("volumeName")) {
        e.dns_label(&at.f("volumeName"));
    }
    if !at.f("volumeNamespace").is_empty() {
        e.dns_label(&at.f("volumeNamespace"));
    }
}

fn items(at: &At<'_>, e: &mut Errors) {
    for item in at.each() {
        required(&item, &["key", "path"], e);
        local_file(&item.f("path"), e);
        e.file_mode(&item.f("mode"));
    }
}

/// A path below the volume that does not look like the volume's own bookkeeping.
pub fn local_file(at: &At<'_>, e: &mut Errors) {
    e.local_path(at);
    if at.s().starts_with("..") && !at.s().starts_with("../") {
        e.invalid(at, "must not start with '..'");
    }
}

fn downward_api(at: &At<'_>, e: &mut Errors) {
    e.file_mode(&at.f("defaultMode"));
    for file in at.f("items").each() {
        downward_file(&file.under(at.path.clone()), e);
    }
}

fn projected(at: &At<'_>, e: &mut Errors) {
    e.file_mode(&at.f("defaultMode"));
    let mut paths: Vec<String> = Vec::new();
    for source in at.f("sources").each() {
        let kinds = [
            "secret",
            "configMap",
            "downwardAPI",
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
        ];
        let found: Vec<_> = kinds.iter().filter_map(|kind| Some((*kind, source.get(kind)?))).collect();
        for (kind, item) in &found {
            match *kind {
                "secret" | "configMap" => {
                    e.required_string(&item.f("name"));
                    items(&item.f("items"), e);
                }
                "downwardAPI" => {
                    for file in item.f("items").each() {
                        downward_file(&file.under(item.path.clone()), e);
                    }
                }
                "serviceAccountToken" => token(at, item, e),
                "clusterTrustBundle" => trust_bundle(item, e),
                _ => pod_certificate(item, e),
            }
            let own = ["path", "credentialBundlePath", "keyPath", "certificateChainPath"];
            let listed = item.f("items").each().map(|entry| entry.f("path"));
            for path in listed.chain(own.iter().map(|name| item.f(name))).filter(|p| !p.is_empty()) {
                if *kind != "serviceAccountToken" && paths.iter().any(|known| known == path.s()) {
                    let value = if item.f("name").has() { item.f("name").s() } else { path.s() };
                    e.invalid_value(&at.path, value, "conflicting duplicate paths");
                }
                paths.push(path.s().to_owned());
            }
        }
        if found.len() > 1 {
            e.forbidden(&source.path, "may not specify more than 1 volume type per source");
        }
    }
}

fn token(volume: &At<'_>, at: &At<'_>, e: &mut Errors) {
    let seconds = at.f("expirationSeconds");
    if seconds.i() < 600 {
        e.invalid_value(&seconds.path, seconds.i(), "may not specify a duration less than 10 minutes");
    }
    if seconds.i() > 1 << 32 {
        e.invalid(&seconds, "may not specify a duration larger than 2^32 seconds");
    }
    let path = at.f("path").under(volume.path.field("path"));
    if e.required_string(&path) {
        local_file(&path, e);
    }
}

fn trust_bundle(at: &At<'_>, e: &mut Errors) {
    let (name, signer) = (at.f("name"), at.f("signerName"));
    match (name.has(), signer.has()) {
        (true, true) => e.invalid(at, "only one of name and signerName may be used"),
        (true, false) => {
            if name.is_empty() {
                e.required(&name.path, "must be a valid object name");
            }
            if at.f("labelSelector").has() {
                let detail = "labelSelector must be unset if name is specified";
                e.invalid(&at.f("labelSelector"), detail);
            }
        }
        (false, true) => {
            if signer.is_empty() {
                e.required(&signer.path, "must be a valid signer name");
            }
            e.label_selector(&at.f("labelSelector"));
        }
        (false, false) => e.required(&at.path, "either name or signerName must be specified"),
    }
    e.required_string(&at.f("path"));
    local_file(&at.f("path"), e);
}

fn pod_certificate(at: &At<'_>, e: &mut Errors) {
    let types = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
    if !types.contains(&at.f("keyType").s()) {
        e.not_supported(&at.f("keyType"), &types);
    }
    if at.get("maxExpirationSeconds").is_some_and(|seconds| seconds.i() < 3600) {
        let detail = "if provided, maxExpirationSeconds must be >= 3600";
        e.invalid(&at.f("maxExpirationSeconds"), detail);
    }
    let paths = ["credentialBundlePath", "keyPath", "certificateChainPath"];
    for path in paths.iter().map(|name| at.f(name)) {
        local_file(&path, e);
    }
    if paths.iter().all(|name| at.f(name).is_empty()) {
        let detail = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        e.required(&at.path, detail);
    }
}

/// The name of a CSI driver.
pub fn csi_driver(at: &At<'_>, e: &mut Errors) {
    if !e.required_string(at) {
        return;
    }
    if at.len() > 63 {
        e.too_long(&at.path, 63);
    }
    e.messages(at, names::dns1123_subdomain(&at.s().to_lowercase()));
}

fn csi_in_pod(at: &At<'_>, e: &mut Errors) {
    csi_driver(&at.f("driver"), e);
    if let Some(secret) = at.get("nodePublishSecretRef")
        && e.required_string(&secret.f("name"))
    {
        e.dns_subdomain(&secret.f("name").under(at.path.field("name")));
    }
}

fn csi_persistent(at: &At<'_>, e: &mut Errors) {
    csi_driver(&at.f("driver"), e);
    e.required_string(&at.f("volumeHandle"));
    for name in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let Some(secret) = at.get(name) else { continue };
        if e.required_string(&secret.f("name")) {
            e.dns_subdomain(&secret.f("name"));
        }
        if e.required_string(&secret.f("namespace")) {
            e.dns_label(&secret.f("namespace"));
        }
    }
}

fn ephemeral(at: &At<'_>, e: &mut Errors) {
    let Some(template) = at.get("volumeClaimTemplate") else {
        e.required(&at.path.field("volumeClaimTemplate"), "");
        return;
    };
    let meta = template.f("metadata");
    e.annotations(&meta.f("annotations"));
    e.labels(&meta.f("labels"));
    for (key, _) in
        meta.entries().filter(|(key, _)| !["annotations", "labels", "creationTimestamp"].contains(key))
    {
        e.forbidden(&meta.path.field(key), "cannot be set");
    }
    claim::spec(&template.f("spec"), e);
}
