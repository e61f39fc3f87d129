//! Field errors, in upstream's words.

use super::*;

#[test]
fn pods() {
    check("", "pods", pod(one_container()), &[]);
    check("", "pods", pod(json!({})), &["spec.containers: Required value"]);
    check(
        "",
        "pods",
        pod(json!({"containers": [{"name": "C", "image": ""}]})),
        &[
            "spec.containers[0].name: Invalid value: \"C\": a lowercase RFC 1123 label must consist of lower case \
             alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  \
             or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            "spec.containers[0].image: Required value",
        ],
    );
    check(
        "",
        "pods",
        pod(json!({"restartPolicy": "Maybe", "containers": [
            {"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}],
             "ports": [{"containerPort": 70000}], "env": [{"name": "A=B", "value": "1"}]}]})),
        &[
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist \
             only of printable ASCII characters other than '='",
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
            "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ],
    );
    check(
        "",
        "pods",
        pod(json!({"containers": [{"name": "c", "image": "i", "resources":
            {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}}]})),
        &[
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ],
    );
    check(
        "",
        "pods",
        pod(json!({"containers": [{"name": "c", "image": "i"}], "volumes": [
            {"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}, {"name": "v", "secret": {}}]})),
        &[
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
            "spec.volumes[1].secret.secretName: Required value",
        ],
    );
}

#[test]
fn storage_version_migrations() {
    const KIND: (&str, &str) = ("storagemigration.k8s.io", "storageversionmigrations");
    let of = |group: &str, resource: &str| json!({"metadata": {"name": "m"}, "spec": {"resource": {"group": group, "resource": resource}}});
    check(KIND.0, KIND.1, of("", "secrets"), &[]);
    check(KIND.0, KIND.1, of("example.com", "widgets"), &[]);
    check(
        KIND.0,
        KIND.1,
        of("example.com", ""),
        &["spec.resource.resource: Required value: resource is required to be set"],
    );
    check(
        KIND.0,
        KIND.1,
        of("-", "1a"),
        &[
            "spec.resource.resource: Invalid value: \"1a\": a DNS-1035 label must consist of lower case alphanumeric \
             characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. \
             'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
            "spec.resource.group: Invalid value: \"-\": a lowercase RFC 1123 subdomain must consist of lower case \
             alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
             'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ],
    );
    check_update(
        KIND.0,
        KIND.1,
        of("", "secrets"),
        |m| m["spec"]["resource"]["resource"] = json!("pods"),
        &["spec: Invalid value: {\"resource\":{\"group\":\"\",\"resource\":\"pods\"}}: field is immutable"],
    );
    let status = |version: &str, conditions: &[(&str, &str)]| {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(kind, status)| {
                json!({"type": kind, "status": status, "reason": "R", "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        json!({"status": {"resourceVersion": version, "conditions": conditions}})
    };
    let at_once = "status.conditions: Invalid value: ";
    for (old, new, expected) in [
        (status("", &[]), status("7", &[("Running", "True")]), &[][..]),
        (status("7", &[("Running", "True")]), status("7", &[("Running", "False"), ("Failed", "True")]), &[]),
        (
            status("", &[]),
            status("07", &[]),
            &["status.resourceVersion: Invalid value: \"07\": resource version is not well formed: 07"],
        ),
        (
            status("7", &[]),
            status("8", &[]),
            &["status.resourceVersion: Invalid value: \"8\": field is immutable"],
        ),
        (
            status("7", &[]),
            status("", &[]),
            &["status.resourceVersion: Invalid value: \"\": field is immutable"],
        ),
        (status("", &[]), status("", &[("Succeeded", "True"), ("Failed", "True")]), &[at_once]),
        (status("", &[("Succeeded", "True")]), status("", &[("Succeeded", "False")]), &[at_once]),
        (status("", &[("Failed", "True")]), status("", &[]), &[at_once]),
    ] {
        let errors = for_resource(KIND.0, KIND.1).strategy.validate_status_update(&new, &old);
        let found = texts(&errors);
        assert!(found.len() == expected.len(), "{new}: {found:#?}");
        assert!(found.iter().zip(expected).all(|(f, e)| f.starts_with(e)), "{new}: {found:#?}");
    }
}

#[test]
fn pod_updates() {
    let set = |path: &'static str, value: Value| {
        move |pod: &mut Value| *pod.pointer_mut(path).unwrap() = value.clone()
    };
    check_update("", "pods", pod(one_container()), set("/spec/containers/0/image", json!("x")), &[]);
    check_update(
        "",
        "pods",
        pod(one_container()),
        set("/spec/containers/0/name", json!("x")),
        &["spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"],
    );
    check_update(
        "",
        "pods",
        pod(one_container()),
        |pod| pod["spec"]["containers"] = json!([]),
        &[
            "spec.containers: Required value",
            "spec.containers: Forbidden: pod updates may not add or remove containers",
        ],
    );
    let toleration = json!([{"key": "k", "operator": "Exists"}]);
    check_update(
        "",
        "pods",
        pod(one_container()),
        |pod| pod["spec"]["tolerations"] = toleration.clone(),
        &[],
    );
}

#[test]
fn deployments() {
    check("apps", "deployments", deployment(), &[]);
    let mut negative = deployment();
    negative["spec"]["replicas"] = json!(-1);
    check(
        "apps",
        "deployments",
        negative,
        &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
    );
    let mut wrong = deployment();
    wrong["spec"]["selector"]["matchLabels"] = json!({"app": "other"});
    check(
        "apps",
        "deployments",
        wrong,
        &[
            "spec.template.metadata.labels: Invalid value: {\"app\":\"d\"}: `selector` does not match template `labels`",
        ],
    );
    check_update(
        "apps",
        "deployments",
        deployment(),
        |d| {
            d["spec"]["selector"]["matchLabels"] = json!({"app": "e"});
            d["spec"]["template"]["metadata"]["labels"] = json!({"app": "e"});
        },
        &["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"e\"}}: field is immutable"],
    );
}

#[test]
fn stateful_sets() {
    let mut set = deployment();
    set["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec":
        {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]);
    set["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "data", "mountPath": "/d"}]);
    check("apps", "statefulsets", set.clone(), &[]);
    check_update(
        "apps",
        "statefulsets",
        set,
        |s| s["spec"]["serviceName"] = json!("x"),
        &[
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template',",
        ],
    );
}

#[test]
fn daemon_sets_and_replica_sets() {
    check("apps", "daemonsets", deployment(), &[]);
    check("apps", "replicasets", deployment(), &[]);
    let mut set = deployment();
    set["spec"]["updateStrategy"] = json!({"type": "Sometimes"});
    check(
        "apps",
        "daemonsets",
        set,
        &[
            "spec.updateStrategy: Unsupported value: {\"type\":\"Sometimes\"}: supported values: \"RollingUpdate\", \"OnDelete\"",
        ],
    );
}

#[test]
fn services() {
    let service = |spec: Value| json!({"metadata": {"name": "s", "namespace": "default"}, "spec": spec});
    check("", "services", service(json!({"ports": [{"port": 80}]})), &[]);
    check("", "services", service(json!({})), &["spec.ports: Required value"]);
    check(
        "",
        "services",
        service(json!({"ports": [{"port": 80}, {"port": 80}], "type": "Other"})),
        &[
            "spec.ports[0].name: Required value",
            "spec.ports[1].name: Required value",
            "spec.type: Unsupported value: \"Other\": supported values: \"ClusterIP\", \"ExternalName\", \
             \"LoadBalancer\", \"NodePort\"",
            "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\",\"targetPort\":0}",
        ],
    );
    check(
        "",
        "services",
        service(json!({"clusterIP": "10.96.0.01", "ports": [{"port": 80}]})),
        &["spec.clusterIPs[0]: Invalid value: \"10.96.0.01\": must not have leading 0s"],
    );
    check(
        "",
        "services",
        service(json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "ports": [{"port": 80}]})),
        &[],
    );
    check_update(
        "",
        "services",
        service(json!({"clusterIP": "10.96.0.10", "ports": [{"port": 80}]})),
        |s| {
            s["spec"]["clusterIP"] = json!("10.96.0.11");
            s["spec"]["clusterIPs"] = json!(["10.96.0.11"]);
        },
        &["spec.clusterIPs[0]: Invalid value: [\"10.96.0.11\"]: may not change once set"],
    );
}

#[test]
fn immutable_secrets_and_config_maps() {
    let map = json!({"metadata": {"name": "m"}, "data": {"a": "b"}, "immutable": true});
    check_update(
        "",
        "configmaps",
        map,
        |m| m["data"]["a"] = json!("c"),
        &["data: Forbidden: field is immutable when `immutable` is set"],
    );
    check(
        "",
        "secrets",
        json!({"metadata": {"name": "s"}, "type": "kubernetes.io/tls"}),
        &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
    );
    let secret = json!({"metadata": {"name": "s"}, "data": {"a b": "eA=="}});
    check(
        "",
        "secrets",
        secret,
        &[
            "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' \
         (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ],
    );
}

#[test]
fn claims_are_frozen() {
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    check_update("", "persistentvolumeclaims", claim.clone(), |c| c["spec"]["volumeName"] = json!("v"), &[]);
    check_update(
        "",
        "persistentvolumeclaims",
        claim,
        |c| c["spec"]["accessModes"] = json!(["ReadWriteMany"]),
        &[
            "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName",
        ],
    );
    let empty = json!({"metadata": {"name": "c"}, "spec": {}});
    check(
        "",
        "persistentvolumeclaims",
        empty,
        &[
            "spec.accessModes: Required value: at least 1 access mode is required",
            "spec.resources[storage]: Required value",
        ],
    );
}

#[test]
fn quotas_and_limits() {
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1.5", "bogus": "1"}}});
    check(
        "",
        "resourcequotas",
        quota,
        &[
            "spec.hard[bogus]: Invalid value: \"bogus\": must be a standard resource type or fully qualified",
            "spec.hard[bogus]: Invalid value: \"bogus\": must be a standard resource for quota",
            "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
        ],
    );
    let range = json!({"metadata": {"name": "l"}, "spec": {"limits": [
        {"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}});
    let errors = for_resource("", "limitranges").strategy.validate(&created("", "limitranges", range));
    assert_eq!(
        errors[0].to_string(),
        "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"
    );
}

#[test]
fn bindings_and_roles() {
    let group = "rbac.authorization.k8s.io";
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "admin"},
        "subjects": [{"kind": "User", "name": "alice"}, {"kind": "ServiceAccount", "name": "sa"}]});
    check(group, "rolebindings", binding.clone(), &[]);
    check(group, "clusterrolebindings", binding.clone(), &["subjects[1].namespace: Required value"]);
    check_update(
        group,
        "rolebindings",
        binding,
        |b| b["roleRef"]["name"] = json!("edit"),
        &["roleRef: Invalid value: "],
    );
    let role = json!({"metadata": {"name": "r"}, "rules": [{"verbs": [], "resources": ["pods"]}]});
    check(
        group,
        "roles",
        role,
        &[
            "rules[0].verbs: Required value: verbs must contain at least one value",
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
        ],
    );
}

#[test]
fn ingresses_and_policies() {
    let group = "networking.k8s.io";
    let meta = json!({"name": "i", "namespace": "default"});
    check(
        group,
        "ingresses",
        json!({"metadata": meta, "spec": {}}),
        &["spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"],
    );
    let rules = json!([{"http": {"paths": [{"path": "a", "pathType": "Prefix",
        "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]);
    check(
        group,
        "ingresses",
        json!({"metadata": meta, "spec": {"rules": rules}}),
        &["spec.rules[0].http.paths[0].path: Invalid value: \"a\": must be an absolute path"],
    );
    let policy = json!({"metadata": meta, "spec": {"ingress": [{"from": [{"ipBlock":
        {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}]}});
    check(
        group,
        "networkpolicies",
        policy,
        &[
            "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
        ],
    );
}

#[test]
fn cron_jobs() {
    let mut spec = one_container();
    spec["restartPolicy"] = json!("OnFailure");
    let job = json!({"spec": {"template": {"spec": spec}}});
    let cron = |schedule: &str| json!({"metadata": {"name": "c"}, "spec": {"schedule": schedule, "jobTemplate": job}});
    check("batch", "cronjobs", cron("*/5 * * * *"), &[]);
    let errors =
        for_resource("batch", "cronjobs").strategy.validate(&created("batch", "cronjobs", cron("error")));
    assert!(errors[0].to_string().starts_with("spec.schedule: Invalid value: \"error\": "));
}

#[test]
fn classes() {
    let class = json!({"metadata": {"name": "s"}, "provisioner": "p", "parameters": {"a": "b"}});
    check_update(
        "storage.k8s.io",
        "storageclasses",
        class,
        |c| c["parameters"]["a"] = json!("c"),
        &["parameters: Invalid value: {\"a\":\"c\"}: field is immutable"],
    );
    let priority = json!({"metadata": {"name": "p"}, "value": 2_000_000_000});
    check(
        "scheduling.k8s.io",
        "priorityclasses",
        priority,
        &["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
    );
}

#[test]
fn what_is_odd_though_accepted_is_warned_of() {
    let warned = |group: &str, resource: &str, object: Value, expected: &[&str]| {
        let warnings = for_resource(group, resource).strategy.warnings(&object, None);
        assert_eq!(warnings, expected, "{resource}");
    };
    let label = "beta.kubernetes.io/os";
    let instead = "deprecated since v1.14; use \"kubernetes.io/os\" instead";
    warned(
        "",
        "resourcequotas",
        json!({"spec": {"hard": {"cpu": "2", "limits.cpu": "1", "limits.memory": "1Gi"}}}),
        &["ResourceQuota cpu (2) should be less than limits.cpu (1)"],
    );
    warned(
        "node.k8s.io",
        "runtimeclasses",
        json!({"scheduling": {"nodeSelector": {label: "linux"}}}),
        &[&format!("scheduling.nodeSelector: {instead}")],
    );
    let topologies = json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": label}]}]});
    warned(
        "storage.k8s.io",
        "storageclasses",
        topologies,
        &[&format!("allowedTopologies[0].matchLabelExpressions[0].key: {instead}")],
    );
    let capacity =
        json!({"nodeTopology": {"matchLabels": {label: "x"}, "matchExpressions": [{"key": label}]}});
    warned(
        "storage.k8s.io",
        "csistoragecapacities",
        capacity,
        &[
            &format!("nodeTopology.matchExpressions[0].key: {label} is {instead}"),
            &format!("nodeTopology.matchLabels.{label}: {instead}"),
        ],
    );
    let slice = json!({"addressType": "FQDN", "endpoints": [{"addresses": ["010.0.0.1"]}]});
    warned(
        "discovery.k8s.io",
        "endpointslices",
        slice,
        &[
            "spec.addressType: FQDN endpoints are deprecated",
            "endpoints[0].addresses[0]: non-standard IP address \"010.0.0.1\" is invalid: use \"10.0.0.1\"",
        ],
    );
    warned(
        "resource.k8s.io",
        "resourceslices",
        json!({"spec": {"driver": "A.example.com"}}),
        &["spec.driver: driver names should be lowercase; \"A.example.com\" contains uppercase characters"],
    );
    let policy = json!({"spec": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.1/8"}}]}]}});
    warned(
        "networking.k8s.io",
        "networkpolicies",
        policy,
        &[
            "spec.egress[0].to[0].ipBlock.cidr: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \
         \"10.0.0.0/8\" or \"10.0.0.1/32\"?)",
        ],
    );
    let driver = json!({"spec": {"tokenRequests": [{"audience": "a"}]}});
    assert_eq!(for_resource("storage.k8s.io", "csidrivers").strategy.warnings(&driver, None).len(), 1);
}

#[test]
fn device_requests_and_slices_are_checked() {
    let request = json!({"name": "gpu", "exactly": {"deviceClassName": "c", "selectors": [{}], "allocationMode": "All", "count": 2}});
    let claim = json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [request, {"name": "gpu"}],
        "config": [{"opaque": {"driver": "d.example.com", "parameters": [1]}}]}}});
    check(
        "resource.k8s.io",
        "resourceclaims",
        claim,
        &[
            "spec.devices.requests[0].exactly.selectors[0].cel: Required value",
            "spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
            "spec.devices.requests[1]: Required value: exactly one of `exactly` or `firstAvailable` is required",
            "spec.devices.requests[1]: Duplicate value: \"gpu\"",
            "spec.devices.config[0].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object",
        ],
    );
    let slice = json!({"metadata": {"name": "s"}, "spec": {"driver": "d.example.com", "allNodes": true, "nodeName": "n",
        "pool": {"name": "p", "resourceSliceCount": 1}, "devices": [{"name": "a", "attributes": {
            "version": {"version": "1.2"}, "x/y": {"int": 1, "bool": true}}}]}});
    check(
        "resource.k8s.io",
        "resourceslices",
        slice,
        &[
            "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, \
         `perDeviceNodeSelection` is required, but multiple fields are set",
            "spec.devices[0].attributes[version].version: Invalid value: \"1.2\": must be a string compatible with semver.org spec 2.0.0",
            "spec.devices[0].attributes[x/y]: Invalid value: {\"bool\":true,\"int\":1}: exactly one value must be specified",
        ],
    );
    let class = json!({"metadata": {"name": "c"}, "spec": {"extendedResourceName": "cpu"}});
    check(
        "resource.k8s.io",
        "deviceclasses",
        class,
        &["spec.extendedResourceName: Invalid value: \"cpu\": must be a valid extended resource name"],
    );
}
