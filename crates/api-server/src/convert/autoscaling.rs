//! `autoscaling/v1` knows one metric, CPU utilization; what else `autoscaling/v2` holds travels in
//! annotations, so that a v1 client that writes back loses nothing.

use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

pub(super) fn to_v2(mut object: Value) -> Value {
    set_version(&mut object, "autoscaling/v2");
    let metrics = take_annotation(&mut object, METRICS);
    let behavior = take_annotation(&mut object, BEHAVIOR);
    let current = take_annotation(&mut object, CURRENT);
    let conditions = take_annotation(&mut object, CONDITIONS);
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let mut all: Vec<Value> = metrics.and_then(|m| m.as_array().cloned()).unwrap_or_default();
        if let Some(target) = spec.remove("targetCPUUtilizationPercentage") {
            let target = json!({"type": "Utilization", "averageUtilization": target});
            all.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        if !all.is_empty() {
            spec.insert("metrics".into(), all.into());
        }
        put(spec, "behavior", behavior);
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let mut all: Vec<Value> = current.and_then(|m| m.as_array().cloned()).unwrap_or_default();
        if let Some(now) = status.remove("currentCPUUtilizationPercentage") {
            let now = json!({"averageUtilization": now});
            all.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "current": now}}));
        }
        if !all.is_empty() {
            status.insert("currentMetrics".into(), all.into());
        }
        put(status, "conditions", conditions);
    }
    object
}

pub(super) fn to_v1(mut object: Value) -> Value {
    set_version(&mut object, "autoscaling/v1");
    let mut kept: Vec<(&str, Value)> = Vec::new();
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        if let Some(Value::Array(mut metrics)) = spec.remove("metrics") {
            if let Some(at) = metrics.iter().position(|m| !cpu(m, "target").is_null()) {
                spec.insert("targetCPUUtilizationPercentage".into(), cpu(&metrics.remove(at), "target"));
            }
            kept.push((METRICS, metrics.into()));
        }
        kept.extend(spec.remove("behavior").map(|b| (BEHAVIOR, b)));
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        if let Some(Value::Array(mut metrics)) = status.remove("currentMetrics") {
            if let Some(at) = metrics.iter().position(|m| !cpu(m, "current").is_null()) {
                status.insert("currentCPUUtilizationPercentage".into(), cpu(&metrics.remove(at), "current"));
            }
            kept.push((CURRENT, metrics.into()));
        }
        kept.extend(status.remove("conditions").map(|c| (CONDITIONS, c)));
    }
    for (name, value) in kept.into_iter().filter(|(_, v)| v.as_array().is_none_or(|a| !a.is_empty())) {
        object["metadata"]["annotations"][name] = value.to_string().into();
    }
    object
}

/// The CPU utilization that a resource metric speaks of; null for every other metric.
fn cpu(metric: &Value, side: &str) -> Value {
    let resource = &metric["resource"];
    if resource["name"] == "cpu" { resource[side]["averageUtilization"].clone() } else { Value::Null }
}

fn set_version(object: &mut Value, api_version: &str) {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".into(), api_version.into());
    }
}

fn put(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        map.insert(key.into(), value);
    }
}

fn take_annotation(object: &mut Value, name: &str) -> Option<Value> {
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    let annotations = metadata.get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(name);
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
    serde_json::from_str(text?.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_v1_cannot_say_survives_in_annotations() {
        let memory = json!({"type": "Resource", "resource": {"name": "memory",
            "target": {"type": "Utilization", "averageUtilization": 70}}});
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 50}}});
        let v2 = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "metrics": [cpu, memory]}});
        let v1 = to_v1(v2.clone());
        assert_eq!(v1["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}));
        assert_eq!(to_v2(v1), v2);
    }
}
