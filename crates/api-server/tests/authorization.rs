//! Who may do what: webhooks, nodes, reviews, and the order of the authorizers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::https::{Asked, Https};
use crate::support::{Client, PODS, Server, eventually};

const REVIEWS: &str = "/apis/authorization.k8s.io/v1";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

fn webhook(service: &Https, policy: &str) -> Value {
    json!({"type": "Webhook", "name": "hook", "webhook": {
        "timeout": "3s", "subjectAccessReviewVersion": "v1", "failurePolicy": policy,
        "authorizedTTL": "1h", "unauthorizedTTL": "1h",
        "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": service.kubeconfig()}}})
}

fn own(kind: &str) -> Value {
    json!({"type": kind, "name": kind.to_lowercase()})
}

async fn start(authorizers: Vec<Value>) -> Server {
    let document = json!({ "authorizers": authorizers });
    Server::start_with(move |config, _| {
        config.authorization = Some(serde_json::from_value(document.clone()).unwrap());
    })
    .await
}

fn answer(asked: &Asked, status: Value) -> (u16, Value) {
    (200, json!({"apiVersion": asked.body["apiVersion"], "kind": "SubjectAccessReview", "status": status}))
}

async fn may(client: &Client, kind: &str, spec: Value) -> Value {
    let path = format!("{REVIEWS}/{}s", kind.to_lowercase());
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec});
    client.post(&path, &review).await.expect(201)["status"].clone()
}

#[tokio::test]
async fn a_webhook_allows_denies_or_leaves_it_to_the_next() {
    let service = Https::start(|asked| {
        let user = asked.body["spec"]["user"].as_str().unwrap_or_default().to_owned();
        match user.as_str() {
            "jane" => answer(asked, json!({"allowed": true, "reason": "hook says so"})),
            "mallory" => answer(asked, json!({"allowed": false, "denied": true, "reason": "never"})),
            "broken" => (503, Value::Null),
            _ => answer(asked, json!({"allowed": false, "reason": "no idea"})),
        }
    })
    .await;
    let plane = start(vec![webhook(&service, "NoOpinion"), own("Node"), own("RBAC")]).await;
    let jane = plane.client("jane", &["devs"]);
    for _ in 0..3 {
        jane.get(&format!("{PODS}?labelSelector=a%3Db")).await.expect(200);
    }
    assert_eq!(service.count(), 1, "the answer is remembered");
    let spec = service.last().body["spec"].clone();
    assert_eq!((&spec["user"], &spec["groups"]), (&json!("jane"), &json!(["devs", "system:authenticated"])));
    assert_eq!(
        spec["resourceAttributes"],
        json!({"namespace": "default", "verb": "list", "version": "v1", "resource": "pods",
            "labelSelector": {"requirements": [{"key": "a", "operator": "In", "values": ["b"]}]}})
    );
    plane.client("mallory", &[]).get(PODS).await.refused(403, "Forbidden", "never");
    plane.client("joe", &[]).get(PODS).await.refused(403, "Forbidden", "no idea");
    assert_eq!(plane.client("joe", &[]).get("/version").await.status, 200, "RBAC is asked next");
    plane.client("broken", &[]).get(PODS).await.refused(500, "InternalError", "503");

    let admin = plane.admin();
    let pods = json!({"verb": "list", "resource": "pods", "namespace": "default"});
    let of = |user: &str| json!({"user": user, "resourceAttributes": pods});
    assert_eq!(
        may(&admin, "SubjectAccessReview", of("jane")).await,
        json!({"allowed": true, "reason": "hook says so"})
    );
    assert_eq!(
        may(&admin, "SubjectAccessReview", of("mallory")).await,
        json!({"allowed": false, "denied": true, "reason": "never"})
    );
    let broken = may(&admin, "SubjectAccessReview", of("broken")).await;
    assert!(broken["evaluationError"].as_str().unwrap().contains("503"), "{broken}");
    let rules = may(&jane, "SelfSubjectRulesReview", json!({"namespace": "default"})).await;
    assert_eq!(
        (&rules["incomplete"], &rules["evaluationError"]),
        (&json!(true), &json!("webhook authorizer does not support user rule resolution"))
    );
}

#[tokio::test]
async fn a_webhook_is_asked_only_what_its_conditions_match() {
    let service = Https::start(|asked| answer(asked, json!({"allowed": true}))).await;
    let mut hook = webhook(&service, "Deny");
    hook["webhook"]["matchConditionSubjectAccessReviewVersion"] = "v1".into();
    hook["webhook"]["matchConditions"] = json!([
        {"expression": "has(request.resourceAttributes)"},
        {"expression": "request.resourceAttributes.namespace == 'default'"},
        {"expression": "!('system:nodes' in request.groups)"},
    ]);
    let plane = start(vec![hook, own("RBAC")]).await;
    let jane = plane.client("jane", &[]);
    jane.get(PODS).await.expect(200);
    jane.get("/api/v1/pods").await.refused(403, "Forbidden", "");
    jane.get("/metrics").await.refused(403, "Forbidden", "");
    plane.client("jane", &["system:nodes"]).get(PODS).await.refused(403, "Forbidden", "");
    assert_eq!(service.count(), 1);
}

#[tokio::test]
async fn a_webhook_that_fails_denies_where_the_policy_says_so() {
    let service = Https::start(|_| (404, Value::Null)).await;
    let plane = start(vec![webhook(&service, "Deny"), own("AlwaysAllow")]).await;
    plane.client("jane", &[]).get(PODS).await.refused(500, "InternalError", "404");
    assert_eq!(plane.client("jane", &[]).get("/livez").await.status, 200, "health needs no authorizer");
    plane.admin().get(PODS).await.expect(200);
}

#[tokio::test]
async fn a_changed_file_brings_another_order_but_keeps_the_types() {
    let document = |list: &[Value]| {
        json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration", "authorizers": list}).to_string()
    };
    let service = Https::start(|asked| answer(asked, json!({"allowed": true}))).await;
    let first = document(&[own("Node"), own("RBAC")]);
    let plane = Server::start_with(move |config, dir| {
        let file = dir.join("authorization.yaml");
        std::fs::write(&file, &first).unwrap();
        config.authorization = Some(serde_json::from_value(json!({ "file": file })).unwrap());
    })
    .await;
    let jane = plane.client("jane", &[]);
    jane.get(PODS).await.refused(403, "Forbidden", "");
    let write =
        |list: &[Value]| std::fs::write(plane.dir().join("authorization.yaml"), document(list)).unwrap();
    write(&[own("Node"), own("RBAC"), webhook(&service, "Deny")]);
    eventually("the webhook is asked", || async {
        let reply = jane.get(PODS).await;
        if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
    // Refused: RBAC is missing. What comes after shows that it has been looked at.
    write(&[webhook(&service, "Deny")]);
    write(&[own("Node"), own("RBAC")]);
    eventually("the webhook is gone", || async {
        let reply = jane.get(PODS).await;
        if reply.status == 403 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
}

#[tokio::test]
async fn reviews_answer_for_paths_and_only_as_objects() {
    let plane = Server::start().await;
    let (admin, jane) = (plane.admin(), plane.client("jane", &[]));
    let root = json!({"nonResourceAttributes": {"path": "/", "verb": "get"}});
    assert_eq!(may(&jane, "SelfSubjectAccessReview", root.clone()).await, json!({"allowed": false}));
    let admins = may(&admin, "SelfSubjectAccessReview", root.clone()).await;
    assert_eq!(admins["allowed"], true);

    let review =
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": root});
    let path = format!("{REVIEWS}/selfsubjectaccessreviews");
    let table = jane.with("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    table.post(&path, &review).await.refused(406, "NotAcceptable", "");

    let unread = json!({"resourceAttributes": {"verb": "list", "resource": "pods",
        "fieldSelector": {"requirements": [{"key": "a", "operator": "Gt", "values": ["1"]}]}}});
    let status = may(&jane, "SelfSubjectAccessReview", unread).await;
    assert_eq!(status["evaluationError"], "spec.resourceAttributes.fieldSelector ignored due to parse error");
    let named =
        json!({"metadata": {"name": "x"}, "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    jane.post(&path, &named).await.refused(422, "Invalid", "must be empty");
    let local = json!({"spec": {"user": "jane", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "b"}}});
    let path = "/apis/authorization.k8s.io/v1/namespaces/a/localsubjectaccessreviews";
    admin.post(path, &local).await.refused(422, "Invalid", "must match metadata.namespace");
}

async fn create(admin: &Client, path: &str, object: Value) {
    admin.post(path, &object).await.expect(201);
}

#[tokio::test]
async fn a_node_reaches_what_its_pods_need_and_nothing_else() {
    let plane = Server::start().await;
    let admin = plane.admin();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    create(&admin, accounts, json!({"metadata": {"name": "robot"}})).await;
    create(&admin, accounts, json!({"metadata": {"name": "other"}})).await;
    for name in ["used", "by-volume", "unused"] {
        create(&admin, SECRETS, json!({"metadata": {"name": name}})).await;
    }
    for node in ["n1", "n2"] {
        create(&admin, "/api/v1/nodes", json!({"metadata": {"name": node}})).await;
    }
    create(
        &admin,
        claims,
        json!({"metadata": {"name": "c"}, "spec": {"volumeName": "v", "storageClassName": "",
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
    )
    .await;
    create(
        &admin,
        "/api/v1/persistentvolumes",
        json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "claimRef": {"namespace": "default", "name": "c"},
            "csi": {"driver": "d", "volumeHandle": "h", "nodePublishSecretRef": {"namespace": "default", "name": "by-volume"}}}}),
    )
    .await;
    create(
        &admin,
        "/apis/storage.k8s.io/v1/volumeattachments",
        json!({"metadata": {"name": "va"}, "spec": {"attacher": "d", "nodeName": "n1", "source": {"persistentVolumeName": "v"}}}),
    )
    .await;
    create(
        &admin,
        PODS,
        json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "robot", "nodeName": "n1",
            "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "s", "secret": {"secretName": "used"}}, {"name": "c", "persistentVolumeClaim": {"claimName": "c"}}]}}),
    )
    .await;
    let node = |name: &str| plane.client(&format!("system:node:{name}"), &["system:nodes"]);
    let (n1, n2) = (node("n1"), node("n2"));
    let reachable = [
        format!("{SECRETS}/used"),
        format!("{SECRETS}/by-volume"),
        format!("{claims}/c"),
        "/api/v1/persistentvolumes/v".into(),
        "/apis/storage.k8s.io/v1/volumeattachments/va".into(),
        format!("{PODS}/p"),
    ];
    for path in &reachable {
        eventually("the node reaches what its pod needs", || async {
            let reply = n1.get(path).await;
            if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
        })
        .await;
        n2.get(path).await.refused(
            403,
            "Forbidden",
            "no relationship found between node 'n2' and this object",
        );
    }
    n1.get(&format!("{SECRETS}/unused")).await.refused(403, "Forbidden", "no relationship found");
    n1.get(SECRETS).await.refused(403, "Forbidden", "No Object name found");

    let pod = admin.get(&format!("{PODS}/p")).await.expect(200);
    let request = json!({"spec": {"expirationSeconds": 600, "boundObjectRef":
        {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"]}}});
    let token = |account: &str| format!("{accounts}/{account}/token");
    n1.post(&token("robot"), &request).await.expect(201);
    n1.post(&token("other"), &request).await.refused(403, "Forbidden", "no relationship found");
    n2.post(&token("robot"), &request).await.refused(403, "Forbidden", "no relationship found");
}

#[tokio::test]
async fn admission_asks_a_webhook_without_holding_up_a_thread() {
    const CSRS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1";
    let service = Https::start(|asked| {
        let resource = &asked.body["spec"]["resourceAttributes"];
        let name = resource["name"].as_str().unwrap_or_default();
        // Jane may do all, but sign for one signer alone; the policy asks about "gold" and "lead".
        let allowed = match resource["resource"].as_str() {
            Some("signers") => name == "example.com/*",
            Some("metals") => name == "gold",
            _ => true,
        };
        answer(asked, json!({"allowed": allowed, "reason": name}))
    })
    .await;
    // The test's runtime has one thread: who blocked it would wait for ever.
    let plane = start(vec![webhook(&service, "Deny")]).await;
    let (admin, jane) = (plane.admin(), plane.client("jane", &[]));
    for (name, signer) in [("mine", "example.com/a"), ("theirs", "example.org/a")] {
        let key = rcgen::KeyPair::generate().unwrap();
        let request = rcgen::CertificateParams::new(Vec::new()).unwrap().serialize_request(&key).unwrap();
        let request = STANDARD.encode(request.pem().unwrap());
        let csr = json!({"metadata": {"name": name}, "spec": {"signerName": signer, "usages": ["client auth"], "request": request}});
        admin.post(CSRS, &csr).await.expect(201);
    }
    let approve = |name: &str| {
        let path = format!("{CSRS}/{name}/approval");
        let jane = jane.clone();
        async move {
            let status =
                json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "r"}]}});
            jane.patch(&path, "merge", &status).await
        }
    };
    approve("mine").await.expect(200);
    let refusal = r#"user not permitted to approve requests with signerName "example.org/a""#;
    approve("theirs").await.refused(403, "Forbidden", refusal);

    let check =
        |name: &str| format!("authorizer.group('a.io').resource('metals').name('{name}').check('mine')");
    let policy = json!({"metadata": {"name": "metals"}, "spec": {
        "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]},
        "variables": [{"name": "lead", "expression": check("lead")}],
        "validations": [{"expression": format!("{}.allowed()", check("gold"))},
            {"expression": "variables.lead.allowed()", "messageExpression": "'not even ' + variables.lead.reason()"}]}});
    let binding =
        json!({"metadata": {"name": "b"}, "spec": {"policyName": "metals", "validationActions": ["Deny"]}});
    for (resource, object) in
        [("validatingadmissionpolicies", policy), ("validatingadmissionpolicybindings", binding)]
    {
        admin.post(&format!("{POLICIES}/{resource}"), &object).await.expect(201);
        admin.get(&format!("{POLICIES}/{resource}")).await.expect(200);
    }
    let denied = jane.post("/api/v1/namespaces/default/configmaps", &crate::support::config_map("c")).await;
    denied.refused(422, "Invalid", "not even lead");
}
