//! The chain on pods, nodes and claims, one behaviour at a time.

use std::sync::Arc;

use keelson_api_types::{Gvk, Gvr, StatusError};
use serde_json::{Value, json};

use super::testing::MapObjects;
use super::*;
use crate::authz::testing::user;
use crate::authz::{Authorizers, node::NodeAuthorizer};
use crate::types::UserInfo;

fn cluster() -> MapObjects {
    let ns = |name: &str, phase: &str| json!({"metadata": {"name": name}, "status": {"phase": phase}});
    MapObjects::default()
        .with("", "namespaces", ns("ns", "Active"))
        .with("", "namespaces", ns("going", "Terminating"))
        .with(
            "",
            "serviceaccounts",
            json!({"metadata": {"namespace": "ns", "name": "default"},
            "imagePullSecrets": [{"name": "pull"}]}),
        )
        .with("scheduling.k8s.io", "priorityclasses", json!({"metadata": {"name": "high"}, "value": 1000}))
}

struct Outcome {
    result: Result<(), StatusError>,
    object: Value,
    warnings: Vec<String>,
}

/// Runs admit and validate of the whole chain on a create (or an update, with `old`).
async fn run(
    objects: MapObjects,
    who: &UserInfo,
    resource: (&str, &str, &str),
    mut object: Value,
    old: Option<Value>,
) -> Outcome {
    let rbac = Rbac::default();
    let authorizer = Arc::new(Authorizers::new(NodeAuthorizer::default(), rbac.clone()));
    let chain = Chain::new(Arc::new(objects), authorizer, rbac, Default::default());
    let (group, resource, subresource) = resource;
    let (gvr, gvk) = (Gvr::new(group, "v1", resource), Gvk::new(group, "v1", "X"));
    let (namespace, name) = (meta::namespace(&object).to_owned(), meta::name(&object).to_owned());
    let options = json!({});
    let mut request = AdmissionRequest {
        op: if old.is_some() { Operation::Update } else { Operation::Create },
        user: who,
        gvk: &gvk,
        gvr: &gvr,
        subresource,
        namespace: &namespace,
        name: &name,
        object: Some(&mut object),
        old: old.as_ref(),
        options: &options,
        dry_run: false,
        warnings: Vec::new(),
        annotations: Default::default(),
        reinvocation: Default::default(),
    };
    let mut result = chain.admit(&mut request).await;
    if result.is_ok() {
        result = chain.validate(&mut request).await;
    }
    let warnings = std::mem::take(&mut request.warnings);
    Outcome { result, object, warnings }
}

async fn create_pod(objects: MapObjects, pod: Value) -> Outcome {
    run(objects, &user("jane", &[]), ("", "pods", ""), pod, None).await
}

fn pod(spec: Value) -> Value {
    let mut pod =
        json!({"metadata": {"namespace": "ns", "name": "p"}, "spec": {"containers": [{"name": "c"}]}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key.as_str()] = value.clone();
    }
    pod
}

fn message(outcome: &Outcome) -> String {
    outcome.result.as_ref().err().map(|e| e.message().to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn a_pod_gets_account_token_priority_and_tolerations() {
    let got = create_pod(cluster(), pod(json!({"priorityClassName": "high"}))).await;
    assert_eq!(message(&got), "");
    let spec = &got.object["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "pull"}]));
    assert_eq!(spec["priority"], 1000);
    assert_eq!(spec["preemptionPolicy"], "PreemptLowerPriority");
    assert_eq!(spec["tolerations"].as_array().map(Vec::len), Some(2));
    let volume = spec["volumes"][0]["name"].as_str().unwrap_or_default();
    assert!(volume.starts_with("kube-api-access-") && volume.len() == 21, "{volume}");
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], volume);
    assert_eq!(spec["volumes"][0]["projected"]["sources"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn a_pod_may_do_without_a_token() {
    let got = create_pod(cluster(), pod(json!({"automountServiceAccountToken": false}))).await;
    assert!(got.object["spec"]["volumes"].is_null());
    let mounted = json!([{"name": "c", "volumeMounts": [
        {"name": "own", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}]);
    let got = create_pod(cluster(), pod(json!({"containers": mounted}))).await;
    assert!(got.object["spec"]["volumes"].is_null());
}

#[tokio::test]
async fn a_pod_is_refused_for_what_is_missing_or_given_away() {
    let cases = [
        (
            json!({"priorityClassName": "low"}),
            r#"pods "p" is forbidden: no PriorityClass with name low was found"#,
        ),
        (
            json!({"priorityClassName": "high", "priority": 5}),
            r#"pods "p" is forbidden: the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 1000 from the given PriorityClass name"#,
        ),
        (
            json!({"serviceAccountName": "robot"}),
            r#"pods "p" is forbidden: error looking up service account ns/robot: serviceaccount "robot" not found"#,
        ),
        (
            json!({"runtimeClassName": "vm"}),
            r#"pods "p" is forbidden: pod rejected: RuntimeClass "vm" not found"#,
        ),
    ];
    for (spec, want) in cases {
        assert_eq!(message(&create_pod(cluster(), pod(spec)).await), want);
    }
}

#[tokio::test]
async fn nothing_is_created_where_no_namespace_is_or_remains() {
    let jane = user("jane", &[]);
    let map = |ns: &str| json!({"metadata": {"namespace": ns, "name": "m"}});
    let got = run(cluster(), &jane, ("", "configmaps", ""), map("nowhere"), None).await;
    assert_eq!(message(&got), r#"namespaces "nowhere" not found"#);
    let got = run(cluster(), &jane, ("", "configmaps", ""), map("going"), None).await;
    assert_eq!(
        message(&got),
        r#"configmaps "m" is forbidden: unable to create new content in namespace going because it is being terminated"#
    );
    let causes = got.result.err().and_then(|e| e.into_status().details).map(|d| d.causes).unwrap_or_default();
    assert_eq!(causes[0].reason, "NamespaceTerminating");
    let got = run(cluster(), &jane, ("", "configmaps", ""), map("going"), Some(map("going"))).await;
    assert_eq!(message(&got), "");
}

#[tokio::test]
async fn limit_ranges_default_and_bound_containers() {
    let range = json!({"metadata": {"namespace": "ns", "name": "r"}, "spec": {"limits": [{
        "type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"},
        "max": {"cpu": "1"}, "min": {"cpu": "50m"}}]}});
    let objects = || cluster().with("", "limitranges", range.clone());
    let got = create_pod(objects(), pod(json!({}))).await;
    assert_eq!(message(&got), "");
    let resources = json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}});
    assert_eq!(got.object["spec"]["containers"][0]["resources"], resources);
    assert_eq!(
        got.object["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let greedy = json!({"containers": [{"name": "c", "resources": {"limits": {"cpu": "2"}, "requests": {"cpu": "10m"}}}]});
    assert_eq!(
        message(&create_pod(objects(), pod(greedy)).await),
        r#"pods "p" is forbidden: [minimum cpu usage per Container is 50m, but request is 10m, maximum cpu usage per Container is 1, but limit is 2]"#
    );
}

#[tokio::test]
async fn quotas_count_and_refuse() {
    let quota = |used: &str| {
        json!({"metadata": {"namespace": "ns", "name": "q"}, "spec": {},
            "status": {"hard": {"pods": "2", "requests.cpu": "1"}, "used": {"pods": used, "requests.cpu": "0"}}})
    };
    let asking = || pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "600m"}}}]}));
    let got = create_pod(cluster().with("", "resourcequotas", quota("1")), asking()).await;
    assert_eq!(message(&got), "");
    let got = create_pod(cluster().with("", "resourcequotas", quota("2")), asking()).await;
    assert_eq!(
        message(&got),
        r#"pods "p" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"#
    );
    let got = create_pod(cluster().with("", "resourcequotas", quota("0")), pod(json!({}))).await;
    assert_eq!(message(&got), r#"pods "p" is forbidden: failed quota: q: must specify requests.cpu for: c"#);
}

#[tokio::test]
async fn a_charged_quota_has_less_room() {
    let quota = json!({"metadata": {"namespace": "ns", "name": "q"}, "spec": {},
        "status": {"hard": {"count/configmaps": "3"}, "used": {"count/configmaps": "1"}}});
    let objects = Arc::new(cluster().with("", "resourcequotas", quota));
    let quotas = quota::Quotas::default();
    let jane = user("jane", &[]);
    let (gvr, gvk) = (core("configmaps"), Gvk::new("", "v1", "ConfigMap"));
    let options = json!({});
    for expected in [true, true, false] {
        let mut object = json!({"metadata": {"namespace": "ns", "name": "m"}});
        let request = AdmissionRequest {
            op: Operation::Create,
            user: &jane,
            gvk: &gvk,
            gvr: &gvr,
            subresource: "",
            namespace: "ns",
            name: "m",
            object: Some(&mut object),
            old: None,
            options: &options,
            dry_run: false,
            warnings: Vec::new(),
            annotations: Default::default(),
            reinvocation: Default::default(),
        };
        assert_eq!(quotas.validate(objects.as_ref(), &request).await.is_ok(), expected);
    }
}

#[tokio::test]
async fn pod_security_labels_refuse_or_warn() {
    let labelled = |mode: &str| {
        let key = format!("pod-security.kubernetes.io/{mode}");
        MapObjects::default()
            .with("", "namespaces", json!({"metadata": {"name": "ns", "labels": {key: "baseline"}}}))
            .with("", "serviceaccounts", json!({"metadata": {"namespace": "ns", "name": "default"}}))
    };
    let host = || pod(json!({"hostNetwork": true}));
    let got = create_pod(labelled("enforce"), host()).await;
    assert_eq!(
        message(&got),
        r#"pods "p" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)"#
    );
    let got = create_pod(labelled("warn"), host()).await;
    assert_eq!(message(&got), "");
    assert_eq!(
        got.warnings,
        [r#"would violate PodSecurity "baseline:latest": host namespaces (hostNetwork=true)"#]
    );
}

#[tokio::test]
async fn a_node_stays_within_itself() {
    let node = user("system:node:n1", &["system:nodes"]);
    let object =
        |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}, "spec": {}});
    let own =
        run(cluster(), &node, ("", "nodes", ""), object("n1", json!({"kubernetes.io/hostname": "n1"})), None);
    let own = own.await;
    assert_eq!(message(&own), "");
    assert_eq!(own.object["spec"]["taints"][0]["key"], "node.kubernetes.io/not-ready");
    let other = run(cluster(), &node, ("", "nodes", ""), object("n2", json!({})), None).await;
    assert_eq!(message(&other), r#"nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2""#);
    for label in ["node-restriction.kubernetes.io/x", "team.k8s.io/x"] {
        let got = run(cluster(), &node, ("", "nodes", ""), object("n1", json!({label: "1"})), None).await;
        assert!(message(&got).ends_with(label), "{}", message(&got));
    }
    let plain = pod(json!({"nodeName": "n1"}));
    let got = run(cluster(), &node, ("", "pods", ""), plain, None).await;
    assert!(message(&got).contains("can only create mirror pods"), "{}", message(&got));
    let stored = pod(json!({"nodeName": "n2"}));
    let got = run(cluster(), &node, ("", "pods", "status"), stored.clone(), Some(stored)).await;
    assert!(message(&got).contains("spec.nodeName set to itself"), "{}", message(&got));
}

#[tokio::test]
async fn claims_get_the_default_class_and_a_finalizer() {
    let class = |name: &str, created: &str| {
        json!({"metadata": {"name": name, "creationTimestamp": created,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}})
    };
    let objects = cluster()
        .with("storage.k8s.io", "storageclasses", class("old", "2020-01-01T00:00:00Z"))
        .with("storage.k8s.io", "storageclasses", class("new", "2021-01-01T00:00:00Z"));
    let claim = json!({"metadata": {"namespace": "ns", "name": "c"}, "spec": {}});
    let got = run(objects, &user("jane", &[]), ("", "persistentvolumeclaims", ""), claim, None).await;
    assert_eq!(got.object["spec"]["storageClassName"], "new");
    assert_eq!(got.object["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
}

#[tokio::test]
async fn nobody_grants_more_than_they_hold() {
    let role = json!({"metadata": {"namespace": "ns", "name": "r"},
        "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
    let resource = ("rbac.authorization.k8s.io", "roles", "");
    let got = run(cluster(), &user("jane", &["devs"]), resource, role.clone(), None).await;
    assert_eq!(
        message(&got),
        "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"jane\" (groups=[\"devs\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"get\"]}"
    );
    let got = run(cluster(), &user("root", &["system:masters"]), resource, role, None).await;
    assert_eq!(message(&got), "");
}

#[tokio::test]
async fn quotas_count_claims_by_class_and_scope() {
    let quota = |scope: Value, hard: &str| {
        json!({"metadata": {"namespace": "ns", "name": "q"}, "spec": {"scopeSelector": {"matchExpressions": scope}},
            "status": {"hard": {hard: "1"}, "used": {hard: "1"}}})
    };
    let claim = json!({"metadata": {"namespace": "ns", "name": "c"}, "spec": {
        "storageClassName": "fast", "volumeAttributesClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}});
    let scope = |operator: &str, class: &str| json!([{"scopeName": "VolumeAttributesClass", "operator": operator, "values": [class]}]);
    for (scope, hard, refused) in [
        (json!([]), "persistentvolumeclaims", true),
        (json!([]), "fast.storageclass.storage.k8s.io/persistentvolumeclaims", true),
        (json!([]), "slow.storageclass.storage.k8s.io/persistentvolumeclaims", false),
        (json!([]), "fast.storageclass.storage.k8s.io/requests.storage", true),
        (json!([]), "count/persistentvolumeclaims", true),
        (scope("In", "gold"), "persistentvolumeclaims", true),
        (scope("In", "silver"), "persistentvolumeclaims", false),
        (scope("NotIn", "silver"), "persistentvolumeclaims", true),
        (json!([{"scopeName": "BestEffort", "operator": "Exists"}]), "persistentvolumeclaims", false),
    ] {
        let objects = cluster().with("", "resourcequotas", quota(scope.clone(), hard));
        let got =
            run(objects, &user("jane", &[]), ("", "persistentvolumeclaims", ""), claim.clone(), None).await;
        assert_eq!(message(&got).contains("exceeded quota: q"), refused, "{scope} {hard}: {}", message(&got));
    }
}

#[tokio::test]
async fn a_quota_minds_only_pods_in_its_scopes() {
    let quota = |scope: Value| {
        json!({"metadata": {"namespace": "ns", "name": "q"}, "spec": {"scopeSelector": {"matchExpressions": [scope]}},
            "status": {"hard": {"pods": "0"}, "used": {"pods": "0"}}})
    };
    let exists = |name: &str| json!({"scopeName": name, "operator": "Exists"});
    let elsewhere = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "zone", "namespaces": ["other"]}]}});
    for (scope, spec, refused) in [
        (exists("Terminating"), json!({"activeDeadlineSeconds": 1}), true),
        (exists("Terminating"), json!({}), false),
        (exists("NotTerminating"), json!({}), true),
        (exists("BestEffort"), json!({}), true),
        (exists("NotBestEffort"), json!({}), false),
        (exists("CrossNamespacePodAffinity"), json!({"affinity": elsewhere}), true),
        (exists("CrossNamespacePodAffinity"), json!({}), false),
        (
            json!({"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}),
            json!({"priorityClassName": "high"}),
            true,
        ),
        (json!({"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}), json!({}), false),
    ] {
        let got =
            create_pod(cluster().with("", "resourcequotas", quota(scope.clone())), pod(spec.clone())).await;
        assert_eq!(message(&got).contains("exceeded quota: q"), refused, "{scope} {spec}: {}", message(&got));
    }
}

#[tokio::test]
async fn a_pod_bears_the_zone_of_its_node() {
    let labels =
        json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "other": "x"});
    let objects = || cluster().with("", "nodes", json!({"metadata": {"name": "n", "labels": labels}}));
    let got = create_pod(objects(), pod(json!({"nodeName": "n"}))).await;
    let want = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"});
    assert_eq!(got.object["metadata"]["labels"], want);
    let binding =
        json!({"metadata": {"namespace": "ns", "name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let got = run(objects(), &user("jane", &[]), ("", "pods", "binding"), binding, None).await;
    assert_eq!(got.object["metadata"]["labels"], want);
}

#[tokio::test]
async fn a_resize_must_fit_the_node_and_be_one_that_it_can_do() {
    let node = json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}});
    let resized = |cpu: &str, generation: i64| {
        let mut pod = pod(
            json!({"nodeName": "n", "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}),
        );
        pod["metadata"]["generation"] = generation.into();
        pod
    };
    let resize = |new: Value| {
        let objects = cluster().with("", "nodes", node.clone());
        async move { run(objects, &user("jane", &[]), ("", "pods", "resize"), new, Some(resized("1", 1))).await }
    };
    assert_eq!(message(&resize(resized("2", 2)).await), "");
    let got = resize(resized("3", 2)).await;
    assert_eq!(
        message(&got),
        r#"pods "p" is forbidden: node didn't have enough allocatable resources: cpu, requested: 3000, allocatable: 2000"#
    );
    let mut whole = resized("1", 2);
    whole["spec"]["resources"] = json!({"requests": {"cpu": "1"}});
    assert_eq!(
        message(&resize(whole).await),
        r#"pods "p" is forbidden: pod update requires features InPlacePodLevelResourcesVerticalScaling which are not available on node "n""#
    );
}

#[tokio::test]
async fn a_namespaces_new_standard_is_checked_and_told_of() {
    let namespace = |level: &str| json!({"metadata": {"name": "ns", "labels": {"pod-security.kubernetes.io/enforce": level}}});
    let mut host = pod(json!({"hostNetwork": true}));
    host["metadata"]["name"] = "host".into();
    let objects = || cluster().with("", "pods", pod(json!({}))).with("", "pods", host.clone());
    let resource = ("", "namespaces", "");
    let jane = user("jane", &[]);
    let got = run(objects(), &jane, resource, namespace("baseline"), Some(namespace("privileged"))).await;
    assert_eq!(
        got.warnings,
        [
            r#"existing pods in namespace "ns" violate the new PodSecurity enforce level "baseline:latest""#,
            "host: host namespaces",
        ]
    );
    let got = run(objects(), &jane, resource, namespace("strict"), None).await;
    assert_eq!(
        message(&got),
        r#"Namespace "ns" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": must be one of privileged, baseline, restricted"#
    );
}

#[tokio::test]
async fn a_new_namespaces_account_is_waited_for() {
    let objects = Arc::new(MapObjects::default().with("", "namespaces", json!({"metadata": {"name": "ns"}})));
    let (authorizer, rbac) =
        (Arc::new(Authorizers::new(NodeAuthorizer::default(), Rbac::default())), Rbac::default());
    let chain = Chain::new(objects.clone(), authorizer, rbac, Default::default());
    let (gvr, gvk, options, jane) = (core("pods"), Gvk::new("", "v1", "Pod"), json!({}), user("jane", &[]));
    let mut object = pod(json!({}));
    let mut request = AdmissionRequest {
        op: Operation::Create,
        user: &jane,
        gvk: &gvk,
        gvr: &gvr,
        subresource: "",
        namespace: "ns",
        name: "p",
        object: Some(&mut object),
        old: None,
        options: &options,
        dry_run: false,
        warnings: Vec::new(),
        annotations: Default::default(),
        reinvocation: Default::default(),
    };
    let account = json!({"metadata": {"namespace": "ns", "name": "default"}});
    let accounts = core("serviceaccounts");
    let (admitted, _) = tokio::join!(chain.admit(&mut request), async {
        tokio::task::yield_now().await;
        objects.create(&accounts, "ns", account).await
    });
    assert!(admitted.is_ok());
    assert_eq!(object["spec"]["serviceAccountName"], "default");
}
