//! The status of the Node object.

use super::Registered;
use k8s_openapi::api::core::v1::Node;
use keelson_host::system;
use serde_json::{Value, json};

/// The version of the API that this agent speaks, as clients compare it.
const VERSION: &str = "v1.36.2";
const MAX_IMAGES: usize = 50;

impl Registered {
    /// What is reported; `problem` is why the node cannot take pods.
    pub(super) async fn status(&self, node: Option<&Node>, problem: Option<String>) -> Value {
        let identity = system::identity();
        let (capacity, allocatable) = self.amounts();
        let mut addresses = vec![json!({ "type": "InternalIP", "address": self.ctx.node_ip })];
        addresses.push(json!({ "type": "Hostname", "address": self.ctx.node_name }));
        json!({
            "capacity": capacity,
            "allocatable": allocatable,
            "addresses": addresses,
            "conditions": conditions(node, problem),
            "daemonEndpoints": { "kubeletEndpoint": { "Port": self.port } },
            "images": self.images().await,
            "nodeInfo": {
                "machineID": identity.machine_id,
                "systemUUID": identity.system_uuid,
                "bootID": identity.boot_id,
                "kernelVersion": identity.kernel,
                "osImage": identity.os_image,
                "containerRuntimeVersion":
                    format!("{}://{}", self.version.runtime_name, self.version.runtime_version.trim_start_matches('v')),
                "kubeletVersion": VERSION,
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": identity.architecture,
            },
        })
    }

    fn amounts(&self) -> (Value, Value) {
        let memory = system::meminfo().ok().and_then(|m| m.get("MemTotal").copied()).unwrap_or(0);
        let disk = system::space(&self.ctx.config.state_dir).map_or(0, |s| s.total_bytes);
        let free = self.ctx.allocatable;
        let cpu = match free.cpu_milli % 1000 {
            0 => (free.cpu_milli / 1000).to_string(),
            _ => format!("{}m", free.cpu_milli),
        };
        let amounts = |cpu: String, memory: String, disk: String| {
            json!({
                "cpu": cpu,
                "memory": memory,
                "ephemeral-storage": disk,
                "pods": free.pods.to_string(),
                "hugepages-1Gi": "0",
                "hugepages-2Mi": "0",
            })
        };
        let kibi = |bytes: u64| format!("{}Ki", bytes / 1024);
        (
            amounts(system::cpus().to_string(), kibi(memory), kibi(disk)),
            amounts(cpu, kibi(free.memory_bytes.max(0) as u64), free.ephemeral_bytes.max(0).to_string()),
        )
    }

    async fn images(&self) -> Vec<Value> {
        let mut images = self.ctx.runtime.list_images().await.unwrap_or_default();
        images.sort_by_key(|i| std::cmp::Reverse(i.size));
        images
            .into_iter()
            .map(|image| {
                let names: Vec<_> = image.repo_digests.into_iter().chain(image.repo_tags).collect();
                json!({ "names": names, "sizeBytes": image.size })
            })
            .filter(|image| image["names"].as_array().is_some_and(|n| !n.is_empty()))
            .take(MAX_IMAGES)
            .collect()
    }
}

fn conditions(node: Option<&Node>, problem: Option<String>) -> Vec<Value> {
    let before = node.and_then(|n| n.status.as_ref()?.conditions.clone()).unwrap_or_default();
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = |kind: &str, status: &str, reason: &str, message: String| {
        let known = before.iter().find(|c| c.type_ == kind && c.status == status);
        let since = known.and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0);
        let since = since.map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        json!({
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": now,
            "lastTransitionTime": since.unwrap_or_else(|| now.clone()),
        })
    };
    let fine = |kind: &str, reason: &str, message: &str| condition(kind, "False", reason, message.to_owned());
    let pressure =
        |kind: &str, reason: &str, message: &str| condition(kind, "True", reason, message.to_owned());
    let memory = system::meminfo().unwrap_or_default();
    let available = memory.get("MemAvailable").copied().unwrap_or(u64::MAX);
    let disk = system::space(std::path::Path::new("/")).unwrap_or_default();
    let disk_low = disk.total_bytes > 0 && disk.available_bytes < disk.total_bytes / 20;
    vec![
        match available < 100 << 20 {
            false => fine(
                "MemoryPressure",
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ),
            true => pressure(
                "MemoryPressure",
                "KubeletHasInsufficientMemory",
                "kubelet has insufficient memory available",
            ),
        },
        match disk_low {
            false => fine("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            true => pressure("DiskPressure", "KubeletHasDiskPressure", "kubelet has disk pressure"),
        },
        fine("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        match problem {
            None => condition("Ready", "True", "KubeletReady", "kubelet is posting ready status".into()),
            Some(problem) => condition("Ready", "False", "KubeletNotReady", problem),
        },
    ]
}

/// Equal but for heartbeats.
pub(super) fn is_same(a: &Value, b: &Value) -> bool {
    let strip = |v: &Value| {
        let mut v = v.clone();
        for condition in v["conditions"].as_array_mut().into_iter().flatten() {
            condition["lastHeartbeatTime"] = Value::Null;
            condition["lastTransitionTime"] = Value::Null;
        }
        v
    };
    strip(a) == strip(b)
}
