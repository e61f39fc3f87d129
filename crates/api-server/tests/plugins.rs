//! What admission's plug-ins for classes, claims and certificates do to requests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::{ACCOUNTS, PODS, Server, default_account};

const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const CLASSES: &str = "/apis/storage.k8s.io/v1/storageclasses";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

#[tokio::test]
async fn an_ingress_without_a_class_gets_the_default_one() {
    const INGRESSES: &str = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
    let server = Server::start().await;
    let admin = server.admin();
    let class = json!({"metadata": {"name": "front", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": "example.com/front"}});
    admin.post("/apis/networking.k8s.io/v1/ingressclasses", &class).await.expect(201);
    let ingress = |name: &str, class: Value| {
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        json!({"metadata": {"name": name}, "spec": {"ingressClassName": class, "defaultBackend": backend}})
    };
    for (name, given, has) in [("a", Value::Null, "front"), ("b", json!("other"), "other")] {
        let made = admin.post(INGRESSES, &ingress(name, given)).await.expect(201);
        assert_eq!(made["spec"]["ingressClassName"], has);
    }
    let mut of_old = ingress("c", Value::Null);
    of_old["metadata"]["annotations"] = json!({"kubernetes.io/ingress.class": "nginx"});
    assert_eq!(admin.post(INGRESSES, &of_old).await.expect(201)["spec"].get("ingressClassName"), None);
}

#[tokio::test]
async fn a_claim_grows_once_it_is_bound_if_its_class_lets_it() {
    let server = Server::start().await;
    let admin = server.admin();
    for (name, expands) in [("rubber", true), ("stone", false)] {
        let class = json!({"metadata": {"name": name}, "provisioner": "example.com/p", "allowVolumeExpansion": expands});
        admin.post(CLASSES, &class).await.expect(201);
        let claim = json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
            "storageClassName": name, "resources": {"requests": {"storage": "1Gi"}}}});
        let made = admin.post(CLAIMS, &claim).await.expect(201);
        assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    }
    let grow = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let unbound = "spec is immutable after creation except resources.requests";
    admin.patch(&format!("{CLAIMS}/rubber"), "merge", &grow).await.refused(422, "Invalid", unbound);
    for name in ["rubber", "stone"] {
        let bind = json!({"spec": {"volumeName": "v"}, "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
        admin.patch(&format!("{CLAIMS}/{name}"), "merge", &bind).await.expect(200);
        admin.patch(&format!("{CLAIMS}/{name}/status"), "merge", &bind).await.expect(200);
    }
    let why = "only dynamically provisioned pvc can be resized";
    admin.patch(&format!("{CLAIMS}/stone"), "merge", &grow).await.refused(403, "Forbidden", why);
    let grown = admin.patch(&format!("{CLAIMS}/rubber"), "merge", &grow).await.expect(200);
    assert_eq!(grown["spec"]["resources"]["requests"]["storage"], "2Gi");
}

#[tokio::test]
async fn a_runtime_class_tells_a_pods_overhead_and_place() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(ACCOUNTS, &default_account()).await.expect(201);
    let toleration = json!({"key": "vm", "operator": "Exists", "effect": "NoSchedule"});
    let class = json!({"metadata": {"name": "vm"}, "handler": "vm", "overhead": {"podFixed": {"cpu": "100m"}},
        "scheduling": {"nodeSelector": {"kind": "metal"}, "tolerations": [toleration]}});
    admin.post("/apis/node.k8s.io/v1/runtimeclasses", &class).await.expect(201);
    let pod = |name: &str, more: Value| {
        let mut pod = json!({"metadata": {"name": name}, "spec": {"runtimeClassName": "vm",
            "containers": [{"name": "c", "image": "i"}]}});
        pod["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        pod
    };
    let made = admin.post(PODS, &pod("a", json!({}))).await.expect(201);
    let spec = &made["spec"];
    assert_eq!(
        (&spec["overhead"], &spec["nodeSelector"]),
        (&json!({"cpu": "100m"}), &json!({"kind": "metal"}))
    );
    assert!(spec["tolerations"].as_array().unwrap().contains(&toleration), "{spec}");
    for (more, why) in [
        (json!({"overhead": {"cpu": "1"}}), "Pod's Overhead doesn't match RuntimeClass's defined Overhead"),
        (
            json!({"nodeSelector": {"kind": "cloud"}}),
            "conflict: runtimeClass.scheduling.nodeSelector[kind] = metal",
        ),
        (json!({"runtimeClassName": "none"}), r#"RuntimeClass "none" not found"#),
    ] {
        admin.post(PODS, &pod("b", more)).await.refused(403, "Forbidden", why);
    }
}

#[tokio::test]
async fn certificates_are_approved_and_signed_by_who_may_for_the_signer() {
    let server = Server::start().await;
    let admin = server.admin();
    let request = |name: &str, signer: &str, organization: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        json!({"metadata": {"name": name},
            "spec": {"signerName": signer, "usages": ["client auth"], "request": STANDARD.encode(pem)}})
    };
    let client = "kubernetes.io/kube-apiserver-client";
    let why = "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
    admin.post(REQUESTS, &request("root", client, "system:masters")).await.refused(403, "Forbidden", why);
    admin.post(REQUESTS, &request("mine", "example.com/a", "system:masters")).await.expect(201);
    admin.post(REQUESTS, &request("theirs", client, "devs")).await.expect(201);
    // Jane may write both subresources; what she may approve and sign is one domain's.
    let rules = json!([
        {"apiGroups": ["certificates.k8s.io"], "verbs": ["update", "patch"],
            "resources": ["certificatesigningrequests/approval", "certificatesigningrequests/status"]},
        {"apiGroups": ["certificates.k8s.io"], "verbs": ["approve", "sign"], "resources": ["signers"],
            "resourceNames": ["example.com/*"]},
    ]);
    admin
        .post(&format!("{RBAC}/clusterroles"), &json!({"metadata": {"name": "signer"}, "rules": rules}))
        .await
        .expect(201);
    let binding = json!({"metadata": {"name": "signer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "signer"},
        "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]});
    admin.post(&format!("{RBAC}/clusterrolebindings"), &binding).await.expect(201);
    let jane = server.client("jane", &[]);
    let conditions = |kinds: &[&str]| {
        let all: Vec<Value> =
            kinds.iter().map(|k| json!({"type": k, "status": "True", "reason": "r"})).collect();
        json!({"status": {"conditions": all}})
    };
    for (part, verb, kinds) in
        [("approval", "approve", &["Approved"][..]), ("status", "sign", &["Approved", "Failed"])]
    {
        let why = format!(r#"user not permitted to {verb} requests with signerName "{client}""#);
        let theirs = conditions(&kinds[kinds.len() - 1..]);
        jane.patch(&format!("{REQUESTS}/theirs/{part}"), "merge", &theirs).await.refused(
            403,
            "Forbidden",
            &why,
        );
        jane.patch(&format!("{REQUESTS}/mine/{part}"), "merge", &conditions(kinds)).await.expect(200);
    }
}

#[tokio::test]
async fn ranges_and_quotas_hold_what_a_namespace_may_have() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(ACCOUNTS, &default_account()).await.expect(201);
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    // A quota counts once somebody has said in its status what there is.
    for (name, scopes) in [("bare", json!(["BestEffort"])), ("all", Value::Null)] {
        let hard = json!({"pods": if name == "bare" { "1" } else { "3" }});
        let quota = json!({"metadata": {"name": name}, "spec": {"hard": hard, "scopes": scopes}});
        admin.post(quotas, &quota).await.expect(201);
        let status = json!({"status": {"hard": hard, "used": {"pods": "0"}}});
        admin.patch(&format!("{quotas}/{name}/status"), "merge", &status).await.expect(200);
    }
    let pod = |name: &str, resources: Value| {
        json!({"metadata": {"name": name}, "spec": {"containers": [
            {"name": "c", "image": "i", "resources": resources}]}})
    };
    admin.post(PODS, &pod("a", json!({}))).await.expect(201);
    let why = "exceeded quota: bare, requested: pods=1, used: pods=1, limited: pods=1";
    admin.post(PODS, &pod("b", json!({}))).await.refused(403, "Forbidden", why);
    admin.post(PODS, &pod("b", json!({"requests": {"cpu": "100m"}}))).await.expect(201);
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [
        {"type": "Container", "defaultRequest": {"cpu": "50m"}, "default": {"cpu": "1"}, "max": {"cpu": "2"}}]}});
    admin.post("/api/v1/namespaces/default/limitranges", &range).await.expect(201);
    let why = "maximum cpu usage per Container is 2, but limit is 3";
    admin.post(PODS, &pod("c", json!({"limits": {"cpu": "3"}}))).await.refused(403, "Forbidden", why);
    let made = admin.post(PODS, &pod("c", json!({}))).await.expect(201);
    let resources = &made["spec"]["containers"][0]["resources"];
    assert_eq!(resources, &json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "1"}}));
    let why = "exceeded quota: all, requested: pods=1, used: pods=3, limited: pods=3";
    admin.post(PODS, &pod("d", json!({}))).await.refused(403, "Forbidden", why);
    assert_eq!(admin.get(&format!("{quotas}/all")).await.expect(200)["status"]["used"]["pods"], "3");
}
