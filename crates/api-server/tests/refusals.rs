//! Bad input: refused as upstream refuses it, and the server unharmed.

use http::Method;
use keelson_pki::Ca;
use serde_json::json;

use crate::support::{CONFIG_MAPS, DEPLOYMENTS, Server, config_map, deployment};

#[tokio::test]
async fn an_unknown_field_is_refused_strictly_and_warned_about_otherwise() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut object = config_map("x");
    object["spec"] = json!({"color": "red"});
    let strict = admin.post(&format!("{CONFIG_MAPS}?fieldValidation=Strict"), &object).await;
    strict.refused(400, "BadRequest", "strict decoding error: unknown field \"spec\"");
    let warned = admin.post(CONFIG_MAPS, &object).await;
    let stored = warned.expect(201);
    assert!(stored.get("spec").is_none());
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"spec\\\"\"");
    let path = format!("{CONFIG_MAPS}?fieldValidation=Ignore&dryRun=All");
    let ignored = admin.post(&path, &json!({"metadata": {"name": "y"}, "nonsense": 1})).await;
    assert!(!ignored.headers.contains_key("warning"));
}

#[tokio::test]
async fn a_negative_replica_count_is_invalid() {
    let server = Server::start().await;
    let mut object = deployment("d");
    object["spec"]["replicas"] = (-1).into();
    let refused = server.admin().post(DEPLOYMENTS, &object).await;
    let status = refused.refused(
        422,
        "Invalid",
        "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
    );
    assert_eq!(status["details"]["causes"][0]["field"], "spec.replicas");
}

#[tokio::test]
async fn a_wrong_selector_is_a_bad_request() {
    let server = Server::start().await;
    let admin = server.admin();
    let reply = admin.get(&format!("{CONFIG_MAPS}?labelSelector=a%3D%3D%3Db")).await;
    reply.refused(400, "BadRequest", "unable to parse requirement");
    let reply = admin.get(&format!("{CONFIG_MAPS}?fieldSelector=spec.color%3Dred")).await;
    reply.refused(400, "BadRequest", "is not a known field selector");
    let mut object = deployment("d");
    object["spec"]["selector"]["matchLabels"]["app"] = "other".into();
    let reply = admin.post(DEPLOYMENTS, &object).await;
    reply.refused(422, "Invalid", "`selector` does not match template `labels`");
}

#[tokio::test]
async fn a_taken_name_already_exists() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(CONFIG_MAPS, &config_map("x")).await.expect(201);
    admin.post(CONFIG_MAPS, &config_map("x")).await.refused(
        409,
        "AlreadyExists",
        "configmaps \"x\" already exists",
    );
}

#[tokio::test]
async fn a_stale_resource_version_conflicts() {
    let server = Server::start().await;
    let admin = server.admin();
    let created = admin.post(CONFIG_MAPS, &config_map("x")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/x");
    admin.patch(&path, "merge", &json!({"data": {"a": "2"}})).await.expect(200);
    let mut stale = created.clone();
    stale["data"]["a"] = "3".into();
    let text = "Operation cannot be fulfilled on configmaps \"x\": the object has been modified; please apply \
                your changes to the latest version and try again";
    admin.put(&path, &stale).await.refused(409, "Conflict", text);
    let patch =
        json!({"metadata": {"resourceVersion": created["metadata"]["resourceVersion"]}, "data": {"a": "3"}});
    admin.patch(&path, "merge", &patch).await.refused(409, "Conflict", text);
    let options = json!({"preconditions": {"uid": "another"}});
    admin.delete(&path, Some(options)).await.refused(
        409,
        "Conflict",
        "Precondition failed: UID in precondition: another",
    );
}

#[tokio::test]
async fn a_user_without_rights_is_forbidden() {
    let server = Server::start().await;
    let alice = server.client("alice", &["dev"]);
    let refused = alice.get("/api/v1/namespaces/default/pods").await;
    refused.refused(
        403,
        "Forbidden",
        "pods is forbidden: User \"alice\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"",
    );
    let refused = alice.delete("/api/v1/nodes/n", None).await;
    refused.refused(403, "Forbidden", "nodes \"n\" is forbidden: User \"alice\" cannot delete resource \"nodes\" in API group \"\" at the cluster scope");
    let nobody = server.nobody();
    nobody.get("/api/v1/nodes").await.refused(403, "Forbidden", "User \"system:anonymous\" cannot list");
    nobody.get("/version").await.expect(200);
}

#[tokio::test]
async fn wrong_credentials_are_unauthorized() {
    let server = Server::start().await;
    let nobody = server.nobody().with("authorization", "Bearer not.a.token");
    nobody.get("/api/v1/nodes").await.refused(401, "Unauthorized", "Unauthorized");
    let forged = Ca::create("someone-else").unwrap();
    let forger = server.client_of(&forged, "kubernetes-admin", &["system:masters"]);
    forger.get("/api/v1/nodes").await.refused(401, "Unauthorized", "Unauthorized");
}

#[tokio::test]
async fn a_body_of_5_mb_is_too_large() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut object = config_map("big");
    object["data"]["a"] = "x".repeat(5 << 20).into();
    admin.post(CONFIG_MAPS, &object).await.refused(413, "RequestEntityTooLarge", "limit is 3145728");
    admin.get(CONFIG_MAPS).await.expect(200);
}

#[tokio::test]
async fn truncated_json_is_a_bad_request() {
    let server = Server::start().await;
    let admin = server.admin();
    let reply = admin.send(Method::POST, CONFIG_MAPS, "application/json", "{\"kind\":\"ConfigMap\",").await;
    reply.refused(400, "BadRequest", "unexpected end of JSON input");
    let reply = admin.send(Method::POST, CONFIG_MAPS, "text/plain", "hello").await;
    reply.refused(415, "UnsupportedMediaType", "the body of the request was in an unknown format");
    let reply = admin.post(CONFIG_MAPS, &json!({"kind": "Pod", "apiVersion": "v1"})).await;
    reply.refused(400, "BadRequest", "cannot be handled as a ConfigMap");
    let reply = admin.send(Method::POST, CONFIG_MAPS, "application/json", "[]").await;
    assert_eq!(reply.status, 400);
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.get("/api/v1/namespaces/default/unicorns").await.refused(
        404,
        "NotFound",
        "the server could not find the requested resource",
    );
    admin.get("/nowhere").await.refused(404, "NotFound", "could not find");
    let reply = admin.send(Method::PUT, CONFIG_MAPS, "application/json", "{}").await;
    assert!(matches!(reply.status.as_u16(), 404 | 405), "{}", reply.text());
    let reply = admin.with("accept", "image/png").get(CONFIG_MAPS).await;
    reply.refused(406, "NotAcceptable", "only the following media types are accepted");
}

#[tokio::test]
async fn names_and_labels_must_be_valid() {
    let server = Server::start().await;
    let admin = server.admin();
    let reply = admin.post(CONFIG_MAPS, &config_map("Not_Valid")).await;
    reply.refused(
        422,
        "Invalid",
        "metadata.name: Invalid value: \"Not_Valid\": a lowercase RFC 1123 subdomain must consist of",
    );
    let mut object = config_map("x");
    object["metadata"]["labels"] = json!({"a b": "c"});
    admin.post(CONFIG_MAPS, &object).await.refused(422, "Invalid", "metadata.labels: Invalid value: \"a b\"");
    let mut object = config_map("x");
    object["metadata"]["namespace"] = "other".into();
    let reply = admin.post(CONFIG_MAPS, &object).await;
    reply.refused(
        400,
        "BadRequest",
        "the namespace of the provided object does not match the namespace sent on the request",
    );
    let reply = admin.post(CONFIG_MAPS, &json!({"metadata": {}})).await;
    reply.refused(422, "Invalid", "metadata.name: Required value: name or generateName is required");
}
