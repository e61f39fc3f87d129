//! Protobuf on the wire: bodies, answers, watches, errors, and what has no messages.

use http::Method;
use keelson_api_types::Gvk;
use keelson_machinery::proto;
use serde_json::{Value, json};

use crate::support::{CONFIG_MAPS, Reply, Server, config_map, eventually};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

fn opened(body: &[u8]) -> Value {
    let envelope = proto::open(body).unwrap();
    let gvk = Gvk::from_api_version(&envelope.api_version, &envelope.kind);
    let ty = match &*gvk.kind {
        "PartialObjectMetadata" => &proto::PARTIAL,
        "PartialObjectMetadataList" => &proto::PARTIAL_LIST,
        _ => keelson_schema::builtin().for_gvk(&gvk).unwrap(),
    };
    proto::decode_object(ty, body).unwrap()
}

#[track_caller]
fn message(reply: &Reply, status: u16) -> Value {
    assert_eq!(reply.status.as_u16(), status, "{}", reply.text());
    assert_eq!(reply.headers["content-type"], PROTOBUF);
    opened(&reply.bytes)
}

#[tokio::test]
async fn objects_come_and_go_as_messages() {
    let server = Server::start().await;
    let client = server.admin().with("accept", "application/vnd.kubernetes.protobuf,application/json");
    let body = proto::encode(&config_map("a")).unwrap();
    let created = message(&client.send(Method::POST, CONFIG_MAPS, PROTOBUF, body.clone()).await, 201);
    assert_eq!(created["data"], json!({"a": "1"}));
    let path = format!("{CONFIG_MAPS}/a");
    let read = message(&client.get(&path).await, 200);
    assert_eq!(read, created);
    assert_eq!(read, server.admin().get(&path).await.expect(200));
    let list = message(&client.get(CONFIG_MAPS).await, 200);
    assert_eq!(list["items"][0]["metadata"]["name"], "a");
    let refused = message(&client.send(Method::POST, CONFIG_MAPS, PROTOBUF, body).await, 409);
    assert_eq!(refused["reason"], "AlreadyExists");

    let watched = client.get(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1")).await;
    assert_eq!(watched.headers["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    assert_eq!(watched.bytes, proto::watch_frame("ADDED", &proto::encode(&read).unwrap()));

    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "other"}});
    let other = proto::encode(&options).unwrap();
    let refused = message(&client.send(Method::DELETE, &path, PROTOBUF, other).await, 409);
    assert_eq!(refused["reason"], "Conflict");
    options["preconditions"] = Value::Null;
    let any = proto::encode(&options).unwrap();
    let deleted = message(&client.send(Method::DELETE, &path, PROTOBUF, any).await, 200);
    assert_eq!(deleted["status"], "Success");
}

#[tokio::test]
async fn a_list_of_messages_is_the_list() {
    let server = Server::start().await;
    let (admin, client) = (server.admin(), server.admin().with("accept", PROTOBUF));
    for n in 0..40 {
        let mut object = config_map(&format!("m{n:02}"));
        object["data"]["a"] = "x".repeat(n * 200).into();
        admin.post(CONFIG_MAPS, &object).await.expect(201);
    }
    // Twice: made, then shared.
    for _ in 0..2 {
        let (json, list) =
            (admin.get(CONFIG_MAPS).await.expect(200), message(&client.get(CONFIG_MAPS).await, 200));
        let mut items = json["items"].clone();
        for item in items.as_array_mut().unwrap() {
            item.as_object_mut().unwrap().retain(|key, _| !matches!(key.as_str(), "apiVersion" | "kind"));
        }
        assert_eq!((&list["items"], &list["kind"]), (&items, &json["kind"]));
    }
    let one = message(&client.get(&format!("{CONFIG_MAPS}/m39")).await, 200);
    assert_eq!(one, admin.get(&format!("{CONFIG_MAPS}/m39")).await.expect(200));
}

#[tokio::test]
async fn metadata_alone_comes_as_a_message() {
    let server = Server::start().await;
    server.admin().post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let asks = |kind: &str| {
        let accept =
            format!("{PROTOBUF};as={kind};g=meta.k8s.io;v=v1,application/json;as={kind};g=meta.k8s.io;v=v1");
        server.admin().with("accept", accept)
    };
    let (one, many) = (asks("PartialObjectMetadata"), asks("PartialObjectMetadataList"));
    let path = format!("{CONFIG_MAPS}/a");
    let got = message(&one.get(&path).await, 200);
    let metadata = server.admin().get(&path).await.expect(200)["metadata"].clone();
    assert_eq!(
        got,
        json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata})
    );
    let list = message(&many.get(CONFIG_MAPS).await, 200);
    assert_eq!(
        (&list["kind"], &list["items"]),
        (&json!("PartialObjectMetadataList"), &json!([{"metadata": metadata}]))
    );
    let watched = one.get(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1")).await;
    assert_eq!(watched.bytes, proto::watch_frame("ADDED", &proto::encode(&got).unwrap()));
    one.get(CONFIG_MAPS).await.refused(406, "NotAcceptable", "is a list (*core.ConfigMapList)");
    many.get(&path).await.refused(406, "NotAcceptable", "is not a list (*core.ConfigMap)");
}

#[tokio::test]
async fn tables_are_never_messages() {
    let server = Server::start().await;
    let table = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io";
    let admin = server.admin();
    admin.with("accept", table).get(CONFIG_MAPS).await.refused(406, "NotAcceptable", "application/json");
    let either = format!("{table},application/json;as=Table;v=v1;g=meta.k8s.io");
    assert_eq!(admin.with("accept", either).get(CONFIG_MAPS).await.expect(200)["kind"], "Table");
}

#[tokio::test]
async fn definitions_come_as_messages_and_their_objects_do_not() {
    let server = Server::start().await;
    let admin = server.admin();
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gears.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "gears", "kind": "Gear"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "properties": {
                    "teeth": {"type": "integer", "minimum": 3, "default": 12}}}}}}}]
        }
    });
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let body = proto::encode(&definition).unwrap();
    let created = admin.send(Method::POST, path, PROTOBUF, body).await.expect(201);
    assert_eq!(created["spec"]["versions"], definition["spec"]["versions"]);

    let gears = "/apis/example.com/v1/namespaces/default/gears";
    let either = admin.with("accept", "application/vnd.kubernetes.protobuf,application/json");
    let list = eventually("gears are served", || async {
        let reply = either.get(gears).await;
        if reply.status == 200 { Ok(reply) } else { Err(reply.text()) }
    })
    .await;
    assert_eq!(list.expect(200)["kind"], "GearList");
    let refused = message(&admin.with("accept", PROTOBUF).get(gears).await, 406);
    assert_eq!(refused["reason"], "NotAcceptable");
    let body = proto::encode(&config_map("a")).unwrap();
    let refused = admin.send(Method::POST, gears, PROTOBUF, body).await;
    refused.refused(415, "UnsupportedMediaType", "application/json");
}

#[tokio::test]
async fn reviews_are_answered_as_messages() {
    let server = Server::start().await;
    let client = server.admin().with("accept", "application/vnd.kubernetes.protobuf,application/json");
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let body = proto::encode(&review).unwrap();
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = message(&client.send(Method::POST, path, PROTOBUF, body).await, 201);
    assert_eq!(answer["status"]["allowed"], true, "{answer}");
}
