//! Mutating and validating webhooks: a real server of each, asked by a real API server.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::crds;
use crate::support::webhook::Webhook;
use crate::support::{CONFIG_MAPS, Client, DEPLOYMENTS, PODS, Server, config_map, deployment};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

/// Creates a configuration, `validating` or `mutating`, and waits until the server goes by it.
pub async fn configure(admin: &Client, kind: &str, name: &str, hooks: Vec<Value>) {
    let path = format!("{GROUP}/{kind}webhookconfigurations");
    let object = json!({"metadata": {"name": name}, "webhooks": hooks});
    admin.post(&path, &object).await.expect(201);
    admin.get(&path).await.expect(200);
}

pub fn rules(operations: Value, group: &str, resource: &str) -> Value {
    json!([{"operations": operations, "apiGroups": [group], "apiVersions": ["*"], "resources": [resource]}])
}

fn patch(operations: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
}

pub fn allow() -> Value {
    json!({"allowed": true})
}

fn warnings(reply: &crate::support::Reply) -> Vec<&str> {
    reply.headers.get_all("warning").iter().map(|w| w.to_str().unwrap()).collect()
}

#[tokio::test]
async fn a_review_tells_all_about_the_request_and_its_patch_is_applied() {
    let (server, hook) = (
        Server::start().await,
        Webhook::start(|request| {
            let mut answer = patch(json!([{"op": "add", "path": "/data/b", "value": "2"}]));
            answer["warnings"] = json!([format!("seen {}", request["name"].as_str().unwrap_or_default())]);
            answer
        })
        .await,
    );
    let admin = server.admin();
    let rules = rules(json!(["CREATE", "UPDATE"]), "", "configmaps");
    configure(&admin, "mutating", "m", vec![hook.hook("m.example.com", rules)]).await;
    let created = admin.post(&format!("{CONFIG_MAPS}?fieldManager=me"), &config_map("x")).await;
    assert_eq!(warnings(&created), [r#"299 - "seen x""#]);
    assert_eq!(created.expect(201)["data"], json!({"a": "1", "b": "2"}));
    let asked = &hook.asked()[0];
    let expected = json!({
        "uid": asked["uid"],
        "kind": {"group": "", "version": "v1", "kind": "ConfigMap"},
        "requestKind": {"group": "", "version": "v1", "kind": "ConfigMap"},
        "resource": {"group": "", "version": "v1", "resource": "configmaps"},
        "requestResource": {"group": "", "version": "v1", "resource": "configmaps"},
        "name": "x", "namespace": "default", "operation": "CREATE", "dryRun": false,
        "userInfo": {
            "username": "kubernetes-admin", "groups": ["system:masters", "system:authenticated"],
            "extra": asked["userInfo"]["extra"],
        },
        "object": asked["object"], "oldObject": null,
        "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions", "fieldManager": "me"},
    });
    assert_eq!(*asked, expected);
    assert_eq!(asked["object"]["data"], json!({"a": "1"}));
    assert_eq!(asked["object"]["kind"], "ConfigMap");
    assert!(asked["userInfo"]["extra"]["authentication.kubernetes.io/credential-id"].is_array());

    let path = format!("{CONFIG_MAPS}/x");
    admin.patch(&path, "merge", &json!({"data": {"a": "9"}})).await.expect(200);
    let asked = &hook.asked()[1];
    assert_eq!((&asked["operation"], &asked["options"]["kind"]), (&json!("UPDATE"), &json!("UpdateOptions")));
    assert_eq!(asked["object"]["data"], json!({"a": "9", "b": "2"}));
    assert_eq!(asked["oldObject"]["data"], json!({"a": "1", "b": "2"}));

    let mut unnamed = config_map("");
    unnamed["metadata"] = json!({"generateName": "g-"});
    admin.post(CONFIG_MAPS, &unnamed).await.expect(201);
    let asked = &hook.asked()[2];
    assert_eq!((&asked["name"], &asked["object"]["metadata"]["name"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn a_refusal_comes_back_in_the_webhooks_words_and_code() {
    let (server, hook) = (
        Server::start().await,
        Webhook::start(|request| match request["name"].as_str() {
            Some("plain") => json!({"allowed": false}),
            Some("said") => json!({"allowed": false, "status": {"message": "not today"}}),
            Some("coded") => json!({"allowed": false, "status": {"code": 418, "reason": "Teapot"}}),
            _ => allow(),
        })
        .await,
    );
    let admin = server.admin();
    let rules = rules(json!(["*"]), "", "configmaps");
    configure(&admin, "validating", "v", vec![hook.hook("v.example.com", rules)]).await;
    for (name, code, message) in [
        ("plain", 400, r#"admission webhook "v.example.com" denied the request without explanation"#),
        ("said", 400, r#"admission webhook "v.example.com" denied the request: not today"#),
        ("coded", 418, r#"admission webhook "v.example.com" denied the request: Teapot"#),
    ] {
        let refused = admin.post(CONFIG_MAPS, &config_map(name)).await.expect(code);
        assert_eq!(refused["message"], message);
    }
    admin.post(CONFIG_MAPS, &config_map("fine")).await.expect(201);
    // A delete is asked about with what goes, and by whom.
    admin.delete(&format!("{CONFIG_MAPS}/fine"), None).await.expect(200);
    let asked = hook.asked().pop().unwrap();
    assert_eq!((&asked["operation"], &asked["object"]), (&json!("DELETE"), &Value::Null));
    assert_eq!(asked["oldObject"]["metadata"]["name"], "fine");
    assert_eq!(asked["options"]["kind"], "DeleteOptions");
}

#[tokio::test]
async fn connections_to_pods_can_be_denied() {
    let (server, hook) = (Server::start().await, Webhook::start(|_| {
        json!({"allowed": false, "status": {"message": "attaching to pod 'to-be-attached-pod' is not allowed"}})
    }).await);
    let admin = server.admin();
    let rules = json!([{"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/*"]}]);
    configure(&admin, "validating", "v", vec![hook.hook("deny.example.com", rules)]).await;
    let denied = r#"admission webhook "deny.example.com" denied the request: attaching to pod 'to-be-attached-pod' is not allowed"#;
    for (query, kind, options) in [
        ("attach?stdout=true&container=c", "PodAttachOptions", json!({"stdout": true, "container": "c"})),
        (
            "exec?command=ls&command=-l&tty=true",
            "PodExecOptions",
            json!({"command": ["ls", "-l"], "tty": true}),
        ),
        ("portforward?ports=80,81", "PodPortForwardOptions", json!({"ports": [80, 81]})),
        ("proxy/x/y", "PodProxyOptions", json!({"path": "/x/y"})),
    ] {
        let reply = admin.post(&format!("{PODS}/p/{query}"), &json!({})).await;
        assert_eq!(reply.expect(400)["message"], denied, "{query}");
        let asked = hook.asked().pop().unwrap();
        let mut want = options;
        want["kind"] = kind.into();
        want["apiVersion"] = "v1".into();
        assert_eq!(asked["object"], want);
        assert_eq!((&asked["operation"], &asked["options"]), (&json!("CONNECT"), &Value::Null));
        assert_eq!(asked["subResource"], query.split(['?', '/']).next().unwrap());
        assert_eq!(asked["kind"]["kind"], kind);
    }
}

#[tokio::test]
async fn selectors_and_rules_choose_what_a_webhook_sees() {
    let (server, hook) = (Server::start().await, Webhook::start(|_| allow()).await);
    let admin = server.admin();
    let everything = json!([{"operations": ["CREATE", "UPDATE"], "apiGroups": ["*"], "apiVersions": ["*"],
        "resources": ["*/*"], "scope": "Namespaced"}]);
    let mut labelled = hook.hook("labelled.example.com", everything.clone());
    labelled["objectSelector"] = json!({"matchLabels": {"watch": "me"}});
    let mut elsewhere = hook.hook("elsewhere.example.com", everything);
    elsewhere["namespaceSelector"] = json!({"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["default", "kube-system"]}]});
    configure(&admin, "validating", "v", vec![labelled, elsewhere]).await;
    admin.post(CONFIG_MAPS, &config_map("plain")).await.expect(201);
    let mut marked = config_map("marked");
    marked["metadata"]["labels"] = json!({"watch": "me"});
    admin.post(CONFIG_MAPS, &marked).await.expect(201);
    // Taking the label away does not hide the change.
    admin
        .patch(&format!("{CONFIG_MAPS}/marked"), "merge", &json!({"metadata": {"labels": null}}))
        .await
        .expect(200);
    // Cluster-scoped, so outside the rules' scope whatever its labels.
    admin
        .post("/api/v1/namespaces", &json!({"metadata": {"name": "other", "labels": {"watch": "me"}}}))
        .await
        .expect(201);
    admin.post("/api/v1/namespaces/other/configmaps", &config_map("there")).await.expect(201);
    let seen: Vec<String> = hook
        .asked()
        .iter()
        .map(|r| format!("{} {}", r["operation"].as_str().unwrap(), r["name"].as_str().unwrap()))
        .collect();
    assert_eq!(seen, ["CREATE marked", "UPDATE marked", "CREATE there"]);
}

#[tokio::test]
async fn subresources_are_seen_as_their_own_kind() {
    let (server, hook) = (
        Server::start().await,
        Webhook::start(|request| match request["kind"]["kind"].as_str() {
            Some("Scale") => patch(json!([{"op": "replace", "path": "/spec/replicas", "value": 7}])),
            _ => allow(),
        })
        .await,
    );
    let admin = server.admin();
    let scale = rules(json!(["UPDATE"]), "apps", "deployments/scale");
    let eviction = rules(json!(["CREATE"]), "", "pods/eviction");
    let token = rules(json!(["CREATE"]), "", "serviceaccounts/token");
    let all = [scale, eviction, token];
    let hooks =
        all.into_iter().enumerate().map(|(i, r)| hook.hook(&format!("h{i}.example.com"), r)).collect();
    configure(&admin, "mutating", "m", hooks).await;
    admin.post(DEPLOYMENTS, &deployment("d")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d/scale");
    let scaled = admin.patch(&path, "merge", &json!({"spec": {"replicas": 3}})).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"], 7);
    let asked = hook.asked().pop().unwrap();
    assert_eq!(asked["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!(asked["resource"]["resource"], "deployments");
    assert_eq!(
        (&asked["object"]["spec"]["replicas"], &asked["oldObject"]["spec"]["replicas"]),
        (&json!(3), &json!(2))
    );

    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    admin.post(accounts, &json!({"metadata": {"name": "default"}})).await.expect(201);
    admin
        .post(&format!("{accounts}/default/token"), &json!({"spec": {"audiences": ["a"]}}))
        .await
        .expect(201);
    let asked = hook.asked().pop().unwrap();
    assert_eq!((&asked["kind"]["kind"], &asked["name"]), (&json!("TokenRequest"), &json!("default")));

    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    admin.post(PODS, &pod).await.expect(201);
    let eviction = json!({"metadata": {"name": "p"}});
    admin.post(&format!("{PODS}/p/eviction"), &eviction).await.expect(201);
    let asked = hook.asked().pop().unwrap();
    assert_eq!(asked["kind"], json!({"group": "policy", "version": "v1", "kind": "Eviction"}));
}

#[tokio::test]
async fn equivalent_versions_are_converted_for_the_webhook() {
    let (server, hook) = (
        Server::start().await,
        Webhook::start(|request| match request["kind"]["version"].as_str() {
            Some("v2") => patch(json!([{"op": "replace", "path": "/spec/maxReplicas", "value": 9}])),
            _ => allow(),
        })
        .await,
    );
    let admin = server.admin();
    let of = |version: &str, policy: &str| {
        let rules = json!([{"operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": [version],
            "resources": ["horizontalpodautoscalers"]}]);
        let mut hook = hook.hook(&format!("{}.{version}.example.com", policy.to_lowercase()), rules);
        hook["matchPolicy"] = policy.into();
        hook
    };
    configure(&admin, "mutating", "m", vec![of("v2", "Equivalent"), of("v2", "Exact"), of("v1", "Exact")])
        .await;
    let autoscaler = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 4, "targetCPUUtilizationPercentage": 50,
        "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}});
    let path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let created = admin.post(path, &autoscaler).await.expect(201);
    assert_eq!(created["spec"]["maxReplicas"], 9);
    let asked = hook.asked();
    let versions: Vec<_> = asked
        .iter()
        .map(|r| (&r["kind"]["version"], &r["requestKind"]["version"], &r["object"]["apiVersion"]))
        .collect();
    assert_eq!(
        versions,
        [
            (&json!("v2"), &json!("v1"), &json!("autoscaling/v2")),
            (&json!("v1"), &json!("v1"), &json!("autoscaling/v1")),
        ]
    );
    assert_eq!(asked[0]["resource"]["version"], "v2");
    assert_eq!(asked[0]["object"]["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
    assert_eq!(asked[1]["object"]["spec"]["targetCPUUtilizationPercentage"], 50);
    assert_eq!(asked[1]["object"]["spec"]["maxReplicas"], 9);
}

#[tokio::test]
async fn what_a_webhooks_version_does_not_know_comes_back_from_it() {
    let grow = |_: &Value| patch(json!([{"op": "replace", "path": "/spec/size", "value": 4}]));
    let (server, hook) = (Server::start().await, Webhook::start(grow).await);
    let admin = server.admin();
    crds::differing_versions(&admin).await;
    let rules = json!([{"operations": ["CREATE"], "apiGroups": ["example.com"], "apiVersions": ["v2"], "resources": ["widgets"]}]);
    configure(&admin, "mutating", "m", vec![hook.hook("m.example.com", rules)]).await;
    let mut widget = crds::widget("w");
    widget["spec"]["color"] = "blue".into();
    let created = admin.post(crds::WIDGETS, &widget).await.expect(201);
    assert_eq!(created["spec"], json!({"size": 4, "color": "blue"}));
    let shown = &hook.asked()[0]["object"];
    assert_eq!((&shown["apiVersion"], &shown["spec"]["color"]), (&json!("example.com/v2"), &json!("blue")));
}

#[tokio::test]
async fn a_custom_resource_is_pruned_and_defaulted_after_its_webhook() {
    let (server, hook) = (
        Server::start().await,
        Webhook::start(|_| {
            patch(json!([
                {"op": "add", "path": "/data/mutated", "value": "yes"},
                {"op": "add", "path": "/data/unknown", "value": "gone"},
            ]))
        })
        .await,
    );
    let admin = server.admin();
    let schema = json!({"type": "object", "properties": {"data": {"type": "object", "properties": {
        "mutated": {"type": "string"}, "given": {"type": "string"}, "filled": {"type": "string", "default": "in"}}}}});
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema}});
    let crd = json!({"metadata": {"name": "things.stable.example.com"}, "spec": {
        "group": "stable.example.com", "scope": "Namespaced",
        "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
        "versions": [version("v1", true), version("v2", false)]}});
    admin.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &crd).await.expect(201);
    let path = "/apis/stable.example.com/v1/namespaces/default/things";
    crate::support::eventually("the resource is served", || async {
        match admin.get(path).await.status.as_u16() {
            200 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    let rules = json!([{"operations": ["CREATE"], "apiGroups": ["stable.example.com"], "apiVersions": ["v2"], "resources": ["things"]}]);
    configure(&admin, "mutating", "m", vec![hook.hook("m.example.com", rules)]).await;
    let thing = json!({"apiVersion": "stable.example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "data": {"given": "x"}});
    let created = admin.post(path, &thing).await.expect(201);
    assert_eq!(created["data"], json!({"given": "x", "mutated": "yes", "filled": "in"}));
    assert_eq!(created["apiVersion"], "stable.example.com/v1");
    assert_eq!(hook.asked()[0]["object"]["apiVersion"], "stable.example.com/v2");
}

#[tokio::test]
async fn mutations_see_one_another_by_name_and_again_if_needed() {
    let (server, hook) = (
        Server::start().await,
        Webhook::start(|request| {
            let data = &request["object"]["data"];
            // The first one adds to what it finds; the second one changes what the first one has seen.
            match (data["first"].as_str(), data["second"].as_str()) {
                (None, None) => patch(json!([{"op": "add", "path": "/data/first", "value": "1"}])),
                (Some("1"), None) => patch(json!([{"op": "add", "path": "/data/second", "value": "2"}])),
                (Some("1"), Some("2")) => {
                    patch(json!([{"op": "replace", "path": "/data/first", "value": "3"}]))
                }
                _ => allow(),
            }
        })
        .await,
    );
    let admin = server.admin();
    let of = |name: &str, reinvocation: &str| {
        let mut hook = hook.hook(name, rules(json!(["CREATE"]), "", "configmaps"));
        hook["reinvocationPolicy"] = reinvocation.into();
        vec![hook]
    };
    configure(&admin, "mutating", "z-second", of("z.example.com", "Never")).await;
    configure(&admin, "mutating", "a-first", of("a.example.com", "IfNeeded")).await;
    let created = admin.post(CONFIG_MAPS, &config_map("x")).await.expect(201);
    assert_eq!(created["data"], json!({"a": "1", "first": "3", "second": "2"}));
    assert_eq!(hook.asked().len(), 3);
}

#[tokio::test]
async fn a_webhook_that_cannot_be_asked_fails_the_request_unless_told_to_ignore_it() {
    let server = Server::start().await;
    let admin = server.admin();
    let silent = Webhook::raw(|_| Value::Null).await;
    let broken = Webhook::raw(|_| json!({"httpStatus": 500, "oops": true})).await;
    let wrong = Webhook::raw(
        |_| json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": "?"}}),
    )
    .await;
    let patcher = Webhook::raw(|review| json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": {"uid": review["request"]["uid"], "allowed": true, "patch": "W10=", "patchType": "JSONPatch"}})).await;
    let stranger = Webhook::start(|_| allow()).await;
    let select = |hook: &Webhook, name: &str| {
        let mut value = hook.hook(&format!("{name}.example.com"), rules(json!(["CREATE"]), "", "configmaps"));
        value["objectSelector"] = json!({"matchLabels": {"hook": name}});
        value["timeoutSeconds"] = 1.into();
        value
    };
    let mut closed = select(&stranger, "closed");
    closed["clientConfig"]["url"] = "https://127.0.0.1:1/review".into();
    let mut distrusted = select(&stranger, "distrusted");
    distrusted["clientConfig"]["caBundle"] = silent.ca_bundle.clone().into();
    let mut ignored = select(&silent, "ignored");
    ignored["failurePolicy"] = "Ignore".into();
    let mut missing = select(&stranger, "missing");
    missing["clientConfig"] =
        json!({"service": {"namespace": "default", "name": "nowhere"}, "caBundle": stranger.ca_bundle});
    let hooks = vec![
        select(&silent, "silent"),
        select(&broken, "broken"),
        select(&wrong, "wrong"),
        select(&patcher, "patcher"),
        closed,
        distrusted,
        ignored,
        missing,
    ];
    configure(&admin, "validating", "v", hooks).await;
    let failed = |name: &str, address: &Webhook, why: &str| {
        let call =
            format!("failed to call webhook: Post \"https://{}/review?timeout=1s\": {why}", address.address);
        format!("Internal error occurred: failed calling webhook \"{name}.example.com\": {call}")
    };
    let uid_error = "Internal error occurred: failed calling webhook \"wrong.example.com\": received invalid webhook response: expected response.uid=";
    for (name, message) in [
        ("silent", failed("silent", &silent, "context deadline exceeded")),
        (
            "broken",
            "Internal error occurred: failed calling webhook \"broken.example.com\": failed to call webhook: an error on the server (\"unknown\") has prevented the request from succeeding".into(),
        ),
        ("wrong", uid_error.into()),
        (
            "patcher",
            "Internal error occurred: failed calling webhook \"patcher.example.com\": received invalid webhook response: validating webhook may not return response.patch".into(),
        ),
        (
            "closed",
            "Internal error occurred: failed calling webhook \"closed.example.com\": failed to call webhook: Post \"https://127.0.0.1:1/review?timeout=1s\": dial tcp 127.0.0.1:1: connect: connection refused".into(),
        ),
        (
            "distrusted",
            failed("distrusted", &stranger, "tls: failed to verify certificate: x509: certificate signed by unknown authority"),
        ),
        (
            "missing",
            "Internal error occurred: failed calling webhook \"missing.example.com\": failed to call webhook: Post \"https://nowhere.default.svc:443/?timeout=1s\": service \"nowhere\" not found".into(),
        ),
    ] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({"hook": name});
        let refused = admin.post(CONFIG_MAPS, &object).await.expect(500);
        let text = refused["message"].as_str().unwrap();
        assert!(text.starts_with(&message), "{text}\n{message}");
    }
    let mut object = config_map("ignored");
    object["metadata"]["labels"] = json!({"hook": "ignored"});
    admin.post(CONFIG_MAPS, &object).await.expect(201);
}

#[tokio::test]
async fn a_dry_run_reaches_only_webhooks_without_side_effects() {
    let (server, hook) = (Server::start().await, Webhook::start(|_| allow()).await);
    let admin = server.admin();
    let mut clean = hook.hook("clean.example.com", rules(json!(["CREATE"]), "", "configmaps"));
    clean["sideEffects"] = "NoneOnDryRun".into();
    configure(&admin, "validating", "v", vec![clean]).await;
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    admin.post(&dry, &config_map("x")).await.expect(201);
    assert_eq!(
        (&hook.asked()[0]["dryRun"], &hook.asked()[0]["options"]["dryRun"]),
        (&json!(true), &json!(["All"]))
    );
    admin.get(&format!("{CONFIG_MAPS}/x")).await.expect(404);
}

/// This machine's address, where packets to the outside would come from.
fn own_address() -> String {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").unwrap();
    socket.local_addr().unwrap().ip().to_string()
}

#[tokio::test]
async fn a_service_is_reached_at_its_endpoints() {
    let (server, hook) = (Server::start().await, Webhook::start(|_| json!({"allowed": false})).await);
    let admin = server.admin();
    let service = json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"name": "web", "port": 8443, "targetPort": 1}]}});
    admin.post("/api/v1/namespaces/default/services", &service).await.expect(201);
    let slice = json!({"metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
        "addressType": "IPv4", "endpoints": [{"addresses": [own_address()], "conditions": {"ready": true}}],
        "ports": [{"name": "web", "port": hook.address.port()}]});
    admin.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice).await.expect(201);
    let mut value = hook.hook("service.example.com", rules(json!(["CREATE"]), "", "configmaps"));
    value["clientConfig"] = json!({"caBundle": hook.ca_bundle,
        "service": {"namespace": "default", "name": "hook", "port": 8443, "path": "/deny"}});
    configure(&admin, "validating", "v", vec![value]).await;
    admin.post(CONFIG_MAPS, &config_map("x")).await.expect(400);
    assert_eq!(hook.asked().len(), 1);
}

#[tokio::test]
async fn no_webhook_keeps_its_own_configuration_from_being_repaired() {
    let (server, hook) = (Server::start().await, Webhook::start(|_| json!({"allowed": false})).await);
    let admin = server.admin();
    let everything =
        json!([{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]);
    configure(&admin, "validating", "v", vec![hook.hook("all.example.com", everything.clone())]).await;
    configure(&admin, "mutating", "m", vec![hook.hook("all.example.com", everything)]).await;
    admin.post(CONFIG_MAPS, &config_map("x")).await.expect(400);
    let path = format!("{GROUP}/validatingwebhookconfigurations/v");
    admin.patch(&path, "merge", &json!({"webhooks": []})).await.expect(200);
    admin.delete(&format!("{GROUP}/mutatingwebhookconfigurations/m"), None).await.expect(200);
    admin.get(&format!("{GROUP}/mutatingwebhookconfigurations")).await.expect(200);
    admin.post(CONFIG_MAPS, &config_map("x")).await.expect(201);
}
