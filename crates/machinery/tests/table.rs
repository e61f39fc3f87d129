use keelson_api_types::{Gvr, resources};
use keelson_machinery::table::{Timestamp, columns, generic, generic_columns, row};
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-01-02T00:00:00Z".parse().expect("time")
}

fn cells(group: &str, resource: &str, mut object: Value) -> String {
    object["metadata"]["name"] = json!("x");
    object["metadata"]["creationTimestamp"] = json!("2026-01-01T23:55:00Z");
    let version =
        resources::ALL.iter().find(|r| r.group == group && r.resource == resource).expect("known").version;
    let row = row(&Gvr::new(group, version, resource), &object, now());
    let texts: Vec<String> =
        row.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned)).collect();
    texts.join("|")
}

#[test]
fn every_resource_has_as_many_cells_as_columns() {
    for r in resources::ALL.iter().filter(|r| r.has_verb("list")) {
        let object = json!({"metadata": {"name": "x"}});
        let row = row(&Gvr::new(r.group, r.version, r.resource), &object, now());
        let columns = columns(r.group, r.version, r.resource);
        assert_eq!(row.len(), columns.len(), "{}", r.resource);
        assert!(!row.contains(&Value::Null), "{}: {row:?}", r.resource);
        assert!(columns.iter().any(|c| c.name == "Name"), "{}", r.resource);
    }
}

#[test]
fn pods_say_how_they_are() {
    let containers = json!([{"name": "a", "image": "i"}, {"name": "b", "image": "j"}]);
    let pod = |status: Value| {
        cells("", "pods", json!({"spec": {"containers": containers, "nodeName": "n"}, "status": status}))
    };
    assert_eq!(pod(json!({"phase": "Pending"})), "x|0/2|Pending|0|5m|<none>|n|<none>|<none>");
    let running = json!({"ready": true, "restartCount": 2, "state": {"running": {}}, "lastState": {"terminated": {"finishedAt": "2026-01-01T23:59:00Z"}}});
    assert_eq!(
        pod(
            json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "containerStatuses": [running, {"ready": true, "restartCount": 0, "state": {"running": {}}}]})
        ),
        "x|2/2|Running|2 (60s ago)|5m|10.0.0.1|n|<none>|<none>"
    );
    assert_eq!(
        pod(
            json!({"phase": "Running", "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 3}]})
        ),
        "x|0/2|CrashLoopBackOff|3|5m|<none>|n|<none>|<none>"
    );
    assert_eq!(
        pod(
            json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 137, "signal": 9}}, "restartCount": 0}]})
        ),
        "x|0/2|Signal:9|0|5m|<none>|n|<none>|<none>"
    );
    let init = json!({"spec": {"containers": containers, "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]},
        "status": {"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}, {"name": "s", "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}}]}});
    assert_eq!(cells("", "pods", init), "x|0/3|Init:1/2|0|5m|<none>|<none>|<none>|<none>");
    let gone = json!({"metadata": {"deletionTimestamp": "2026-01-01T23:59:59Z"}, "spec": {"containers": containers}, "status": {"phase": "Running"}});
    assert_eq!(cells("", "pods", gone), "x|0/2|Terminating|0|5m|<none>|<none>|<none>|<none>");
    let done = json!({"spec": {"containers": [{}]}, "status": {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}});
    assert_eq!(cells("", "pods", done), "x|0/1|Completed|0|5m|<none>|<none>|<none>|<none>");
}

#[test]
fn workloads() {
    let template =
        json!({"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}]}});
    let selector = json!({"matchLabels": {"app": "web"}});
    assert_eq!(
        cells(
            "apps",
            "deployments",
            json!({"spec": {"replicas": 3, "selector": selector, "template": template}, "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}})
        ),
        "x|2/3|3|1|5m|c,d|i,j|app=web"
    );
    assert_eq!(
        cells(
            "batch",
            "jobs",
            json!({"spec": {"completions": 4, "template": template}, "status": {"succeeded": 4, "startTime": "2026-01-01T23:50:00Z", "completionTime": "2026-01-01T23:51:05Z", "conditions": [{"type": "Complete", "status": "True"}]}})
        ),
        "x|Complete|4/4|65s|5m|c,d|i,j|<none>"
    );
    assert_eq!(
        cells(
            "batch",
            "cronjobs",
            json!({"spec": {"schedule": "* * * * *", "suspend": false}, "status": {"lastScheduleTime": "2026-01-01T23:59:30Z"}})
        ),
        "x|* * * * *|<none>|False|0|30s|5m|||<none>"
    );
    assert_eq!(
        cells(
            "autoscaling",
            "horizontalpodautoscalers",
            json!({"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 5, "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}}]}})
        ),
        "x|Deployment/d|cpu: <unknown>/80%|<unset>|5|0|5m"
    );
    let said = |kind: &str, status: &str| json!({"type": kind, "status": status});
    for (conditions, expected) in [
        (json!([]), "x|widgets.example.com|Unknown"),
        (json!([said("Running", "True")]), "x|widgets.example.com|Running"),
        (json!([said("Running", "False"), said("Succeeded", "True")]), "x|widgets.example.com|Succeeded"),
    ] {
        let migration = json!({"spec": {"resource": {"group": "example.com", "resource": "widgets"}},
            "status": {"conditions": conditions}});
        assert_eq!(cells("storagemigration.k8s.io", "storageversionmigrations", migration), expected);
    }
    assert_eq!(
        cells("policy", "poddisruptionbudgets", json!({"spec": {"minAvailable": "50%"}})),
        "x|50%|N/A|0|5m"
    );
}

#[test]
fn services_nodes_and_events() {
    assert_eq!(
        cells(
            "",
            "services",
            json!({"spec": {"type": "NodePort", "clusterIPs": ["10.96.0.9"], "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}], "selector": {"a": "b"}}})
        ),
        "x|NodePort|10.96.0.9|<none>|80:30080/TCP,53/UDP|5m|a=b"
    );
    assert_eq!(
        cells(
            "",
            "nodes",
            json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}, "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "1.2.3.4"}], "nodeInfo": {"kubeletVersion": "v1.36.2", "kernelVersion": "6", "architecture": "amd64"}}})
        ),
        "x|Ready,SchedulingDisabled|control-plane|5m|v1.36.2|1.2.3.4|<none>|<unknown>|6 (amd64)|<unknown>"
    );
    assert_eq!(
        cells(
            "",
            "events",
            json!({"type": "Normal", "reason": "Pulled", "message": " hi ", "count": 3, "firstTimestamp": "2026-01-01T23:00:00Z", "lastTimestamp": "2026-01-01T23:59:58Z", "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec"}, "source": {"component": "kubelet", "host": "n"}})
        ),
        "2s|Normal|Pulled|pod/p|spec|kubelet, n|hi|60m|3|x"
    );
    assert_eq!(
        cells(
            "",
            "endpoints",
            json!({"subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.2"}], "ports": [{"port": 80}, {"port": 81}]}]})
        ),
        "x|1.1.1.1:80,1.1.1.2:80,1.1.1.1:81 + 1 more...|5m"
    );
    assert_eq!(
        cells(
            "",
            "persistentvolumeclaims",
            json!({"spec": {"volumeName": "v", "storageClassName": "s", "volumeMode": "Filesystem"}, "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}})
        ),
        "x|Bound|v|1Gi|RWO|s|<unset>|5m|Filesystem"
    );
}

#[test]
fn custom_columns_follow_their_paths() {
    let printer = [
        json!({"name": "Size", "type": "integer", "jsonPath": ".spec.size"}),
        json!({"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}),
        json!({"name": "First", "type": "string", "jsonPath": ".spec.list[0]"}),
        json!({"name": "Label", "type": "string", "jsonPath": ".metadata.labels.a\\.b/c", "priority": 1}),
        json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}),
        json!({"name": "Gone", "type": "string", "jsonPath": ".spec.nothing"}),
    ];
    let object = json!({"metadata": {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a.b/c": "v"}},
        "spec": {"size": 3, "list": ["p", "q"]}, "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]}});
    assert_eq!(
        generic(&printer, &object, now()),
        [json!("x"), json!(3), json!("True"), json!("p"), json!("v"), json!("24h"), Value::Null]
    );
    assert_eq!(generic_columns(&printer)[4].priority, 1);
    assert_eq!(generic(&[], &object, now()), [json!("x"), json!("24h")]);
}
