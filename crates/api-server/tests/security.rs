//! Who gets in and what they may do, over TLS against a server of its own.

use http::Method;
use serde_json::{Value, json};

use crate::support::{Client, Server, eventually};

/// Status code and body of one request.
pub async fn ask(
    client: &Client,
    method: &'static str,
    path: &str,
    body: Option<&Value>,
    headers: &[(&'static str, &str)],
) -> (u16, Value) {
    let mut client = client.clone();
    for (name, value) in headers {
        client = client.with(name, *value);
    }
    let content_type = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let body = body.map(Value::to_string).unwrap_or_default();
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let reply = client.send(method, path, content_type, body).await;
    let text = || Value::from(reply.text());
    (reply.status.as_u16(), serde_json::from_slice(&reply.bytes).unwrap_or_else(|_| text()))
}

async fn create(client: &Client, path: &str, object: Value) -> Value {
    let (code, body) = ask(client, "POST", path, Some(&object), &[]).await;
    assert!((200..300).contains(&code), "POST {path}: {code} {body}");
    body
}

fn message(answer: &(u16, Value)) -> (u16, &str, &str) {
    (
        answer.0,
        answer.1["reason"].as_str().unwrap_or_default(),
        answer.1["message"].as_str().unwrap_or_default(),
    )
}

#[tokio::test]
async fn strangers_see_health_and_version_only() {
    let plane = Server::start().await;
    let nobody = plane.nobody();
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(ask(&nobody, "GET", path, None, &[]).await.0, 200, "{path}");
    }
    let refused = ask(&nobody, "GET", "/api", None, &[]).await;
    let text = r#"forbidden: User "system:anonymous" cannot get path "/api""#;
    assert_eq!(message(&refused), (403, "Forbidden", text));
    let refused = ask(&nobody, "GET", "/api/v1/namespaces/default/pods", None, &[]).await;
    let text = r#"pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" in the namespace "default""#;
    assert_eq!(message(&refused), (403, "Forbidden", text));
    assert_eq!(refused.1["details"]["kind"], "pods");
}

#[tokio::test]
async fn a_wrong_credential_is_refused_and_not_anonymous() {
    let plane = Server::start().await;
    let nobody = plane.nobody();
    for token in ["Bearer nonsense", "Bearer a.b.c", "Bearer eyJhbGciOiJub25lIn0.e30."] {
        let refused = ask(&nobody, "GET", "/healthz", None, &[("authorization", token)]).await;
        assert_eq!(message(&refused), (401, "Unauthorized", "Unauthorized"), "{token}");
        assert_eq!(refused.1["kind"], "Status");
    }
}

#[tokio::test]
async fn a_certificates_user_gets_what_bindings_give() {
    let plane = Server::start().await;
    let admin = plane.admin();
    let jane = plane.client("jane", &["devs"]);
    let (code, me) =
        review(&jane, json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})).await;
    assert_eq!(code, 201, "{me}");
    let info = &me["status"]["userInfo"];
    assert_eq!(info["username"], "jane");
    assert_eq!(info["groups"], json!(["devs", "system:authenticated"]));
    let id = info["extra"]["authentication.kubernetes.io/credential-id"][0].as_str().unwrap_or_default();
    assert!(id.starts_with("X509SHA256="), "{me}");

    let pods = "/api/v1/namespaces/default/pods";
    assert_eq!(ask(&jane, "GET", pods, None, &[]).await.0, 403);
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"metadata": {"name": "r"}, "rules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]});
    create(&admin, &format!("{rbac}/roles"), role).await;
    let binding = json!({"metadata": {"name": "b"},
        "subjects": [{"kind": "Group", "name": "devs", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}});
    create(&admin, &format!("{rbac}/rolebindings"), binding).await;
    eventually("the binding counts", || async {
        match ask(&jane, "GET", pods, None, &[]).await {
            (200, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(ask(&jane, "GET", "/api/v1/namespaces/kube-system/pods", None, &[]).await.0, 403);
    ask(&admin, "DELETE", &format!("{rbac}/rolebindings/b"), None, &[]).await;
    eventually("the binding is gone", || async {
        match ask(&jane, "GET", pods, None, &[]).await {
            (403, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

async fn review(client: &Client, object: Value) -> (u16, Value) {
    let kind = object["kind"].as_str().unwrap_or_default().to_lowercase() + "s";
    let group = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    ask(client, "POST", &format!("/apis/{group}/{kind}"), Some(&object), &[]).await
}

#[tokio::test]
async fn a_service_accounts_token_lives_as_long_as_the_account() {
    let plane = Server::start().await;
    let admin = plane.admin();
    let nobody = plane.nobody();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    create(&admin, accounts, json!({"metadata": {"name": "robot"}})).await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"expirationSeconds": 600}});
    let issued = create(&admin, &format!("{accounts}/robot/token"), request).await;
    let token = issued["status"]["token"].as_str().expect("a token").to_owned();
    let bearer = format!("Bearer {token}");
    let whoami = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (code, me) = ask(&nobody, "POST", path, Some(&whoami), &[("authorization", &bearer)]).await;
    assert_eq!(code, 201, "{me}");
    assert_eq!(me["status"]["userInfo"]["username"], "system:serviceaccount:default:robot");
    let groups = json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]);
    assert_eq!(me["status"]["userInfo"]["groups"], groups);

    let question = |audiences: Value| {
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": audiences}})
    };
    let (_, yes) = review(&admin, question(json!([]))).await;
    assert_eq!(yes["status"]["authenticated"], true, "{yes}");
    let (_, no) = review(&admin, question(json!(["elsewhere"]))).await;
    assert_ne!(no["status"]["authenticated"], true, "{no}");
    let short = json!({"spec": {"expirationSeconds": 10}});
    let refused = ask(&admin, "POST", &format!("{accounts}/robot/token"), Some(&short), &[]).await;
    assert_eq!(refused.0, 422, "{refused:?}");

    ask(&admin, "DELETE", &format!("{accounts}/robot"), None, &[]).await;
    eventually("the token is void", || async {
        match ask(&nobody, "GET", "/api", None, &[("authorization", &bearer)]).await {
            (401, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn acting_as_another_needs_the_right_to() {
    let plane = Server::start().await;
    let admin = plane.admin();
    let whoami = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (code, me) = ask(&admin, "POST", path, Some(&whoami), &[("impersonate-user", "bob")]).await;
    assert_eq!((code, &me["status"]["userInfo"]["username"]), (201, &json!("bob")));
    let jane = plane.client("jane", &[]);
    let refused = ask(&jane, "POST", path, Some(&whoami), &[("impersonate-user", "bob")]).await;
    let text = r#"selfsubjectreviews.authentication.k8s.io is forbidden: User "jane" cannot impersonate-on:user-info:create resource "selfsubjectreviews" in API group "authentication.k8s.io" at the cluster scope"#;
    assert_eq!(message(&refused), (403, "Forbidden", text));
}

#[tokio::test]
async fn rights_are_not_passed_on_by_those_without_them() {
    let plane = Server::start().await;
    let admin = plane.admin();
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let rules = json!([{"verbs": ["create"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterrolebindings"]}]);
    create(&admin, &format!("{rbac}/clusterroles"), json!({"metadata": {"name": "binder"}, "rules": rules}))
        .await;
    let bind = |name: &str, role: &str, user: &str| {
        json!({"metadata": {"name": name},
            "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}})
    };
    let bindings = format!("{rbac}/clusterrolebindings");
    create(&admin, &bindings, bind("binder", "binder", "jane")).await;
    let jane = plane.client("jane", &[]);
    let refused = eventually("the binding counts", || async {
        let answer = ask(&jane, "POST", &bindings, Some(&bind("up", "cluster-admin", "jane")), &[]).await;
        match message(&answer).2.contains("attempting to grant RBAC permissions not currently held") {
            true => Ok(answer),
            false => Err(format!("{answer:?}")),
        }
    })
    .await;
    assert_eq!(refused.0, 403);
}

#[tokio::test]
async fn a_fresh_cluster_holds_its_bootstrap_objects() {
    let plane = Server::start().await;
    let admin = plane.admin();
    let get = |path: &'static str| {
        let admin = admin.clone();
        async move { ask(&admin, "GET", path, None, &[]).await.1 }
    };
    let service = get("/api/v1/namespaces/default/services/kubernetes").await;
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1", "{service}");
    let slice = get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await;
    assert!(slice["ports"][0]["port"].as_u64().is_some_and(|p| p > 0), "{slice}");
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let (code, _) = ask(&admin, "GET", &format!("/api/v1/namespaces/{name}"), None, &[]).await;
        assert_eq!(code, 200, "{name}");
    }
    let config = get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication").await;
    assert!(config["data"]["client-ca-file"].as_str().is_some_and(|c| c.contains("BEGIN CERTIFICATE")));
    eventually("the role admin is aggregated", || async {
        let role = get("/apis/rbac.authorization.k8s.io/v1/clusterroles/admin").await;
        match role["rules"].as_array() {
            Some(rules) if rules.len() > 20 => Ok(()),
            _ => Err(role.to_string()),
        }
    })
    .await;
    let answer = ask(&admin, "DELETE", "/api/v1/namespaces/kube-system", None, &[]).await;
    let text = r#"namespaces "kube-system" is forbidden: this namespace may not be deleted"#;
    assert_eq!(message(&answer), (403, "Forbidden", text));
}

#[tokio::test]
async fn tokens_verify_by_the_published_keys() {
    let plane = Server::start().await;
    let admin = plane.admin();
    let (_, configuration) = ask(&admin, "GET", "/.well-known/openid-configuration", None, &[]).await;
    assert_eq!(configuration["issuer"], "https://kubernetes.default.svc.cluster.local");
    let (_, keys) = ask(&admin, "GET", "/openid/v1/jwks", None, &[]).await;
    assert_eq!(keys["keys"][0]["use"], "sig", "{keys}");
}

#[tokio::test]
async fn a_pod_is_admitted_with_its_account_and_priority() {
    let plane = Server::start().await;
    let admin = plane.admin();
    create(&admin, "/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}}))
        .await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"priorityClassName": "system-node-critical",
        "containers": [{"name": "c", "image": "x"}]}});
    let stored = create(&admin, "/api/v1/namespaces/default/pods", pod).await;
    assert_eq!(stored["spec"]["serviceAccountName"], "default");
    assert_eq!(stored["spec"]["priority"], 2_000_001_000);
    assert_eq!(stored["spec"]["volumes"][0]["projected"]["sources"].as_array().map(Vec::len), Some(3));
    let missing = json!({"metadata": {"name": "m"}});
    let refused = ask(&admin, "POST", "/api/v1/namespaces/nowhere/configmaps", Some(&missing), &[]).await;
    assert_eq!(message(&refused), (404, "NotFound", r#"namespaces "nowhere" not found"#));
}
