//! Which objects a node may read because a pod of its needs them.

use std::collections::{HashMap, HashSet};

use keelson_api_types::meta::at;
use serde_json::Value;

/// Kinds of objects that pods refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    Secret,
    ConfigMap,
    Claim,
    ResourceClaim,
    ServiceAccount,
}

/// Kinds of objects that name their node themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owned {
    VolumeAttachment,
    ResourceSlice,
    PodCertificateRequest,
}

type Name = (String, String);

#[derive(Debug)]
struct Pod {
    node: String,
    targets: HashSet<(Target, String)>,
}

#[derive(Debug)]
struct Volume {
    claim: Name,
    secrets: Vec<Name>,
}

/// Edges from objects over pods to nodes, counted so that a change costs what the pod refers to.
#[derive(Debug, Default)]
pub struct Graph {
    pods: HashMap<Name, Pod>,
    /// How many pods of a node refer to an object.
    reached: HashMap<(Target, Name), HashMap<String, usize>>,
    volumes: HashMap<String, Volume>,
    /// Volumes whose use needs this secret.
    secret_volumes: HashMap<Name, HashSet<String>>,
    owned: HashMap<(Owned, Name), String>,
}

impl Graph {
    pub fn put_pod(&mut self, pod: &Value) {
        let text = |pointer: &str| at(pod, pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = (text("/metadata/namespace"), text("/metadata/name"));
        self.remove_pod(&name.0, &name.1);
        let node = text("/spec/nodeName");
        let done = matches!(text("/status/phase").as_str(), "Succeeded" | "Failed");
        if node.is_empty() || (done && at(pod, "/metadata/deletionTimestamp").is_some()) {
            return;
        }
        let mirror = pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some();
        // A node creates its mirror pods itself: they must not open anything to it.
        let targets = if mirror { HashSet::new() } else { references(pod) };
        for (target, object) in &targets {
            let key = (*target, (name.0.clone(), object.clone()));
            *self.reached.entry(key).or_default().entry(node.clone()).or_default() += 1;
        }
        self.pods.insert(name, Pod { node, targets });
    }

    pub fn remove_pod(&mut self, namespace: &str, name: &str) {
        let Some(pod) = self.pods.remove(&(namespace.to_owned(), name.to_owned())) else { return };
        for (target, object) in pod.targets {
            let key = (target, (namespace.to_owned(), object));
            let Some(nodes) = self.reached.get_mut(&key) else { continue };
            if let Some(count) = nodes.get_mut(&pod.node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&pod.node);
                }
            }
            if nodes.is_empty() {
                self.reached.remove(&key);
            }
        }
    }

    pub fn put_volume(&mut self, pv: &Value) {
        let text = |pointer: &str| at(pv, pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = text("/metadata/name");
        self.remove_volume(&name);
        let claim = (text("/spec/claimRef/namespace"), text("/spec/claimRef/name"));
        if claim.1.is_empty() {
            return;
        }
        let secrets = volume_secrets(pv, &claim.0);
        for secret in &secrets {
            self.secret_volumes.entry(secret.clone()).or_default().insert(name.clone());
        }
        self.volumes.insert(name, Volume { claim, secrets });
    }

    pub fn remove_volume(&mut self, name: &str) {
        let Some(volume) = self.volumes.remove(name) else { return };
        for secret in volume.secrets {
            if let Some(volumes) = self.secret_volumes.get_mut(&secret) {
                volumes.remove(name);
                if volumes.is_empty() {
                    self.secret_volumes.remove(&secret);
                }
            }
        }
    }

    /// Records the node of an object that names it; an empty node forgets the object.
    pub fn put_owned(&mut self, kind: Owned, namespace: &str, name: &str, node: &str) {
        let key = (kind, (namespace.to_owned(), name.to_owned()));
        if node.is_empty() {
            self.owned.remove(&key);
        } else {
            self.owned.insert(key, node.to_owned());
        }
    }

    pub fn clear_pods(&mut self) {
        self.pods.clear();
        self.reached.clear();
    }

    pub fn clear_volumes(&mut self) {
        self.volumes.clear();
        self.secret_volumes.clear();
    }

    pub fn clear_owned(&mut self, kind: Owned) {
        self.owned.retain(|(k, _), _| *k != kind);
    }

    pub fn pod_on(&self, node: &str, namespace: &str, name: &str) -> bool {
        self.pods.get(&(namespace.to_owned(), name.to_owned())).is_some_and(|p| p.node == node)
    }

    pub fn owns(&self, node: &str, kind: Owned, namespace: &str, name: &str) -> bool {
        self.owned.get(&(kind, (namespace.to_owned(), name.to_owned()))).is_some_and(|n| n == node)
    }

    /// Whether a pod on the node refers to the object, for secrets also through a bound volume.
    pub fn reaches(&self, node: &str, target: Target, namespace: &str, name: &str) -> bool {
        let object = (namespace.to_owned(), name.to_owned());
        if self.direct(node, target, &object) {
            return true;
        }
        target == Target::Secret
            && self
                .secret_volumes
                .get(&object)
                .is_some_and(|volumes| volumes.iter().any(|v| self.volume_on(node, v)))
    }

    /// Whether a pod on the node uses the claim that the volume is bound to.
    pub fn volume_on(&self, node: &str, volume: &str) -> bool {
        self.volumes.get(volume).is_some_and(|v| self.direct(node, Target::Claim, &v.claim))
    }

    fn direct(&self, node: &str, target: Target, object: &Name) -> bool {
        self.reached.get(&(target, object.clone())).is_some_and(|nodes| nodes.contains_key(node))
    }
}

/// Every object that a pod refers to by name, in its own namespace.
pub fn references(pod: &Value) -> HashSet<(Target, String)> {
    let mut found = HashSet::new();
    let spec = &pod["spec"];
    let mut add = |target: Target, name: &Value| {
        if let Some(name) = name.as_str().filter(|n| !n.is_empty()) {
            found.insert((target, name.to_owned()));
        }
    };
    add(Target::ServiceAccount, &spec["serviceAccountName"]);
    for secret in items(&spec["imagePullSecrets"]) {
        add(Target::Secret, &secret["name"]);
    }
    for volume in items(&spec["volumes"]) {
        volume_references(pod, volume, &mut add);
    }
    for key in ["containers", "initContainers", "ephemeralContainers"] {
        for container in items(&spec[key]) {
            for source in items(&container["envFrom"]) {
                add(Target::ConfigMap, &source["configMapRef"]["name"]);
                add(Target::Secret, &source["secretRef"]["name"]);
            }
            for variable in items(&container["env"]) {
                add(Target::ConfigMap, &variable["valueFrom"]["configMapKeyRef"]["name"]);
                add(Target::Secret, &variable["valueFrom"]["secretKeyRef"]["name"]);
            }
        }
    }
    let statuses = items(&pod["status"]["resourceClaimStatuses"]);
    for claim in items(&spec["resourceClaims"]) {
        add(Target::ResourceClaim, &claim["resourceClaimName"]);
        for status in statuses.iter().filter(|s| s["name"] == claim["name"]) {
            add(Target::ResourceClaim, &status["resourceClaimName"]);
        }
    }
    add(Target::ResourceClaim, &pod["status"]["extendedResourceClaimStatus"]["resourceClaimName"]);
    found
}

fn volume_references(pod: &Value, volume: &Value, add: &mut impl FnMut(Target, &Value)) {
    add(Target::Secret, &volume["secret"]["secretName"]);
    add(Target::ConfigMap, &volume["configMap"]["name"]);
    add(Target::Claim, &volume["persistentVolumeClaim"]["claimName"]);
    for source in items(&volume["projected"]["sources"]) {
        add(Target::Secret, &source["secret"]["name"]);
        add(Target::ConfigMap, &source["configMap"]["name"]);
    }
    if volume["ephemeral"].is_object() {
        let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let volume_name = volume["name"].as_str().unwrap_or_default();
        add(Target::Claim, &Value::from(format!("{pod_name}-{volume_name}")));
    }
    add(Target::Secret, &volume["azureFile"]["secretName"]);
    add(Target::Secret, &volume["csi"]["nodePublishSecretRef"]["name"]);
    for kind in ["cephfs", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"] {
        add(Target::Secret, &volume[kind]["secretRef"]["name"]);
    }
}

/// Secrets that a node needs to use a persistent volume.
fn volume_secrets(pv: &Value, claim_namespace: &str) -> Vec<Name> {
    let spec = &pv["spec"];
    let mut found = Vec::new();
    let mut add = |reference: &Value| {
        let name = reference["name"].as_str().or(reference["secretName"].as_str()).unwrap_or_default();
        if name.is_empty() {
            return;
        }
        let namespace = reference["namespace"]
            .as_str()
            .or(reference["secretNamespace"].as_str())
            .filter(|n| !n.is_empty())
            .unwrap_or(claim_namespace);
        found.push((namespace.to_owned(), name.to_owned()));
    };
    add(&spec["azureFile"]);
    for kind in ["cephfs", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"] {
        add(&spec[kind]["secretRef"]);
    }
    for kind in ["nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"] {
        add(&spec["csi"][kind]);
    }
    found
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
