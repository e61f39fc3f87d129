//! Defaults and preparation.

use futures::FutureExt;

use super::*;

#[test]
fn a_pod_gets_upstreams_defaults() {
    let pod = created(
        "",
        "pods",
        pod(json!({"containers": [{"name": "c", "image": "nginx",
        "resources": {"limits": {"cpu": "1"}},
        "ports": [{"containerPort": 80}],
        "livenessProbe": {"httpGet": {"port": 80}}}]})),
    );
    let spec = &pod["spec"];
    assert_eq!(spec["restartPolicy"], "Always");
    assert_eq!(spec["dnsPolicy"], "ClusterFirst");
    assert_eq!(spec["schedulerName"], "default-scheduler");
    assert_eq!(spec["terminationGracePeriodSeconds"], 30);
    assert_eq!(spec["securityContext"], json!({}));
    assert_eq!(spec["enableServiceLinks"], true);
    let container = &spec["containers"][0];
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!(container["terminationMessagePath"], "/dev/termination-log");
    assert_eq!(container["resources"]["requests"], json!({"cpu": "1"}));
    assert_eq!(container["ports"][0]["protocol"], "TCP");
    assert_eq!(
        container["livenessProbe"],
        json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
            "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3})
    );
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "Burstable"}));
}

#[test]
fn a_deployment_gets_upstreams_defaults() {
    let deployment = created("apps", "deployments", deployment());
    let spec = &deployment["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(spec["revisionHistoryLimit"], 10);
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    let rolling = json!({"maxSurge": "25%", "maxUnavailable": "25%"});
    assert_eq!(spec["strategy"], json!({"type": "RollingUpdate", "rollingUpdate": rolling}));
    assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
    // Only pods, not templates, get these.
    assert!(spec["template"]["spec"].get("enableServiceLinks").is_none());
}

#[test]
fn string_data_is_encoded_into_data() {
    let secret = json!({"metadata": {"name": "s"}, "data": {"a": "eA=="}, "stringData": {"b": "x"}});
    let secret = created("", "secrets", secret);
    assert_eq!(secret["data"], json!({"a": "eA==", "b": "eA=="}));
    assert!(secret.get("stringData").is_none());
    assert_eq!(secret["type"], "Opaque");
}

#[test]
fn a_namespace_is_active_finalized_and_labelled() {
    let namespace = created("", "namespaces", json!({"metadata": {"name": "n"}}));
    assert_eq!(namespace["status"]["phase"], "Active");
    assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], "n");
}

#[test]
fn a_job_selects_by_its_own_uid() {
    let mut spec = one_container();
    spec["restartPolicy"] = json!("Never");
    let job = json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": spec}}});
    let job = created("batch", "jobs", job);
    assert_eq!(job["spec"]["selector"]["matchLabels"], json!({"batch.kubernetes.io/controller-uid": "u"}));
    let labels = &job["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels["job-name"], "j");
    assert_eq!(labels["controller-uid"], "u");
    assert_eq!(job["spec"]["backoffLimit"], 6);
    assert_eq!(for_resource("batch", "jobs").strategy.validate(&job), []);
}

#[test]
fn a_signing_request_names_the_caller() {
    let csr = json!({"metadata": {"name": "c"}, "spec": {"username": "root", "groups": ["system:masters"]}});
    let csr = created("certificates.k8s.io", "certificatesigningrequests", csr);
    assert_eq!(csr["spec"]["username"], "alice");
    assert_eq!(csr["spec"]["groups"], json!(["devs"]));
}

#[test]
fn defaulting_twice_changes_nothing_more() {
    for (group, resource, object) in [
        ("", "pods", pod(one_container())),
        ("apps", "deployments", deployment()),
        ("", "services", json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})),
    ] {
        let once = created(group, resource, object);
        let mut twice = once.clone();
        for_resource(group, resource).strategy.default(&mut twice);
        assert_eq!(once, twice);
    }
}

#[test]
fn an_unscheduled_or_ended_pod_is_deleted_at_once() {
    let strategy = for_resource("", "pods").strategy;
    let mut object = created("", "pods", pod(one_container()));
    assert_eq!(strategy.grace(&object, None), Grace::Now);
    object["spec"]["nodeName"] = json!("n");
    assert_eq!(strategy.grace(&object, None), Grace::Seconds(30));
    assert_eq!(strategy.grace(&object, Some(5)), Grace::Seconds(5));
    assert_eq!(strategy.grace(&object, Some(0)), Grace::Now);
    assert_eq!(strategy.grace(&object, Some(-1)), Grace::Seconds(1));
    object["status"]["phase"] = json!("Succeeded");
    assert_eq!(strategy.grace(&object, Some(5)), Grace::Now);
}

#[test]
fn every_selectable_name_has_a_value() {
    for info in keelson_api_types::resources::ALL.iter() {
        let strategy = for_resource(info.group, info.resource).strategy;
        let given: Vec<&str> = strategy.selectable_fields(&json!({})).iter().map(|(name, _)| *name).collect();
        assert_eq!(given, strategy.selectable_names(), "{}", info.resource);
    }
}

#[test]
fn a_service_keeps_what_it_was_given() {
    let strategy = for_resource("", "services").strategy;
    let mut old =
        created("", "services", json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}));
    let gvr = Gvr::new("", "v1", "services");
    with_ctx(&gvr, "", |ctx| {
        let reserving = strategy.reserve_create(ctx, &mut old).expect("a Service needs an address");
        reserving.now_or_never().expect("nothing to wait for").expect("a free address");
    });
    let mut new = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 81}]}});
    strategy.default(&mut new);
    with_ctx(&gvr, "", |ctx| strategy.prepare_update(ctx, &mut new, &old));
    assert_eq!(new["spec"]["clusterIP"], old["spec"]["clusterIP"]);
    assert_eq!(strategy.validate_update(&new, &old), []);
}
