//! What clients ask before anything else.

use std::io::Read;

use keelson_machinery::proto;
use serde_json::{Value, json};

use crate::support::{Reply, Server};

#[tokio::test]
async fn discovery_lists_groups_versions_and_resources() {
    let server = Server::start().await;
    let admin = server.admin();
    assert_eq!(admin.get("/api").await.expect(200)["versions"], json!(["v1"]));
    let groups = admin.get("/apis").await.expect(200);
    let apps = groups["groups"].as_array().unwrap().iter().find(|g| g["name"] == "apps").unwrap();
    assert_eq!(apps["preferredVersion"]["groupVersion"], "apps/v1");
    let core = admin.get("/api/v1").await.expect(200);
    let named = |name: &str| {
        core["resources"].as_array().unwrap().iter().find(|r| r["name"] == name).cloned().unwrap()
    };
    assert_eq!(named("pods")["shortNames"], json!(["po"]));
    assert_eq!(named("pods/eviction")["group"], "policy");
    admin.get("/apis/nothing").await.expect(404);
    let version = admin.get("/version").await.expect(200);
    assert!(version["gitVersion"].as_str().unwrap().starts_with("v1.36."));
}

#[tokio::test]
async fn the_aggregated_document_has_everything_at_once() {
    let server = Server::start().await;
    let admin = server.admin().with(
        "accept",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
    );
    let reply = admin.get("/apis").await;
    assert_eq!(
        reply.headers["content-type"],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let document = reply.expect(200);
    assert_eq!(document["kind"], "APIGroupDiscoveryList");
    let etag = reply.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(admin.with("if-none-match", etag).get("/apis").await.status, 304);
}

#[tokio::test]
async fn discovery_comes_as_messages() {
    const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
    let server = Server::start().await;
    let admin = server.admin();
    let message = |reply: &Reply, kind: &str| {
        let envelope = proto::open(&reply.bytes).unwrap();
        assert_eq!(envelope.kind, kind);
        let group = envelope.api_version.split_once('/').map_or("", |(group, _)| group);
        let version = if group.is_empty() { "v1" } else { "v2" };
        let ty = keelson_schema::builtin().for_kind(group, version, kind).unwrap();
        proto::decode(ty, envelope.raw).unwrap()
    };
    for (path, kind) in [
        ("/api", "APIVersions"),
        ("/apis", "APIGroupList"),
        ("/apis/apps", "APIGroup"),
        ("/api/v1", "APIResourceList"),
    ] {
        let reply = admin.with("accept", PROTOBUF).get(path).await;
        assert_eq!(reply.headers["content-type"], PROTOBUF);
        let mut json = admin.get(path).await.expect(200);
        json.as_object_mut().unwrap().retain(|key, _| !matches!(key.as_str(), "apiVersion" | "kind"));
        // An empty string is no different from none.
        let shown =
            json.to_string().replace("\"singularName\":\"\",", "").replace(",\"namespaced\":false", "");
        assert_eq!(message(&reply, kind).to_string(), shown, "{path}");
    }
    let wanted = |media: &str| format!("{media};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let both = admin.with("accept", format!("{},{}", wanted(PROTOBUF), wanted("application/json")));
    let reply = both.get("/apis").await;
    assert_eq!(reply.headers["content-type"].to_str().unwrap(), wanted(PROTOBUF));
    let all = message(&reply, "APIGroupDiscoveryList");
    let json = admin.with("accept", wanted("application/json")).get("/apis").await.expect(200);
    let versions = |list: &Value| {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|group| (group["metadata"]["name"].clone(), group["versions"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(versions(&all), versions(&json));
    let etag = reply.headers["etag"].to_str().unwrap();
    assert_eq!(both.with("if-none-match", etag).get("/apis").await.status, 304);
}

#[tokio::test]
async fn health_is_told_whole_and_check_by_check() {
    let server = Server::start().await;
    let admin = server.admin();
    assert_eq!(admin.get("/livez").await.text(), "ok");
    let verbose = admin.get("/readyz?verbose").await.text();
    assert!(verbose.contains("[+]poststarthook/rbac/bootstrap-roles ok"), "{verbose}");
    assert_eq!(admin.get("/readyz/ping").await.text(), "ok");
    let metrics = admin.get("/metrics").await.text();
    assert!(metrics.contains("apiserver_request_total{"), "{metrics}");
}

#[tokio::test]
async fn the_openapi_documents_are_served() {
    let server = Server::start().await;
    let admin = server.admin();
    let index = admin.get("/openapi/v3").await.expect(200);
    let address = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let apps = admin.get(address).await.expect(200);
    assert!(apps["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
    let v2 = admin.get("/openapi/v2").await.expect(200);
    assert!(v2["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
    // Go's clients ask for the message, compressed.
    let asking = admin
        .with("accept", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
        .with("accept-encoding", "gzip");
    let packed = asking.get("/openapi/v2").await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert_eq!(packed.headers["content-type"], "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    let mut message = Vec::new();
    flate2::read::GzDecoder::new(&packed.bytes[..]).read_to_end(&mut message).unwrap();
    assert!(message.starts_with(b"\x0a\x032.0"), "{:?}", &message[..16]);
}

#[tokio::test]
async fn local_groups_have_available_apiservices() {
    let server = Server::start().await;
    let path = "/apis/apiregistration.k8s.io/v1/apiservices/v1.apps";
    let service = server.admin().get(path).await.expect(200);
    assert_eq!(service["status"]["conditions"][0]["type"], "Available");
}
