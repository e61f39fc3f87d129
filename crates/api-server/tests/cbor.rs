//! CBOR on the wire: bodies, answers, lists, watches, errors, of built-in and of custom kinds.

use http::Method;
use keelson_machinery::cbor;
use serde_json::{Value, json};

use crate::crds;
use crate::support::{CONFIG_MAPS, Client, Reply, Server, config_map};

const CBOR: &str = "application/cbor";
const SELF_DESCRIBED: [u8; 3] = [0xd9, 0xd9, 0xf7];
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

#[track_caller]
fn item(reply: &Reply, status: u16) -> Value {
    let shown = cbor::decode(None, &reply.bytes);
    assert_eq!(reply.status.as_u16(), status, "{shown:?}");
    assert_eq!(reply.headers["content-type"], CBOR);
    assert!(reply.bytes.starts_with(&SELF_DESCRIBED));
    shown.unwrap()
}

async fn send(client: &Client, method: Method, path: &str, object: &Value) -> Reply {
    client.send(method, path, CBOR, cbor::encode(object)).await
}

#[tokio::test]
async fn objects_come_and_go_as_items() {
    let server = Server::start().await;
    let (admin, client) = (server.admin(), server.admin().with("accept", CBOR));
    let created = item(&send(&client, Method::POST, CONFIG_MAPS, &config_map("a")).await, 201);
    assert_eq!(created["data"], json!({"a": "1"}));
    let path = format!("{CONFIG_MAPS}/a");
    let read = item(&client.get(&path).await, 200);
    assert_eq!((&read, &admin.get(&path).await.expect(200)), (&created, &created));
    let mut changed = read.clone();
    changed["data"]["b"] = "2".into();
    let changed = item(&send(&client, Method::PUT, &path, &changed).await, 200);
    assert_eq!(changed["data"]["b"], "2");
    let refused = item(&send(&client, Method::POST, CONFIG_MAPS, &config_map("a")).await, 409);
    assert_eq!((&refused["kind"], &refused["reason"]), (&json!("Status"), &json!("AlreadyExists")));

    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "other"}});
    let refused = item(&send(&client, Method::DELETE, &path, &options).await, 409);
    assert_eq!(refused["reason"], "Conflict");
    options["preconditions"]["uid"] = changed["metadata"]["uid"].clone();
    assert_eq!(item(&send(&client, Method::DELETE, &path, &options).await, 200)["status"], "Success");
}

/// As Python's `cbor2` writes it: text strings, in the order of the program.
#[tokio::test]
async fn other_encoders_are_understood() {
    const BODY: &[u8] =
        b"\xd9\xd9\xf7\xa5\x6aapiVersion\x62v1\x64kind\x69ConfigMap\x68metadata\xa2\x64name\x62py\
        \x66labels\xa1\x61a\x61b\x64data\xa1\x61x\x62\xc3\xbc\x6abinaryData\xa1\x61b\xd6\x42\x00\xff";
    let server = Server::start().await;
    let admin = server.admin();
    let created = admin.send(Method::POST, CONFIG_MAPS, CBOR, BODY).await.expect(201);
    assert_eq!((&created["data"], &created["binaryData"]), (&json!({"x": "ü"}), &json!({"b": "AP8="})));
    assert_eq!(created["metadata"]["labels"], json!({"a": "b"}));
}

#[tokio::test]
async fn bytes_are_sent_as_bytes() {
    let server = Server::start().await;
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "AAEC/w=="}});
    server.admin().post(SECRETS, &secret).await.expect(201);
    let client = server.admin().with("accept", CBOR);
    let entry = b"\x41k\xd6\x44\x00\x01\x02\xff";
    let has = |bytes: &[u8]| bytes.windows(entry.len()).any(|window| window == entry);
    for path in [&format!("{SECRETS}/s"), SECRETS, &format!("{SECRETS}?watch=1&timeoutSeconds=1")] {
        assert!(has(&client.get(path).await.bytes), "{path}");
    }
    assert_eq!(item(&client.get(&format!("{SECRETS}/s")).await, 200)["data"], secret["data"]);
}

#[tokio::test]
async fn a_list_in_pieces_is_the_list() {
    let server = Server::start().await;
    let (admin, client) = (server.admin(), server.admin().with("accept", CBOR));
    for n in 0..30 {
        let mut object = config_map(&format!("m{n:02}"));
        object["data"]["a"] = "x".repeat(n * 400).into();
        admin.post(CONFIG_MAPS, &object).await.expect(201);
    }
    let list = item(&client.get(CONFIG_MAPS).await, 200);
    assert_eq!(list["items"], admin.get(CONFIG_MAPS).await.expect(200)["items"]);
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));
    let page = item(&client.get(&format!("{CONFIG_MAPS}?limit=7")).await, 200);
    assert_eq!(page["items"].as_array().unwrap().len(), 7);
    assert!(page["metadata"]["continue"].is_string());
    assert_eq!(item(&client.get("/api/v1/nodes").await, 200)["items"], json!([]));
}

#[tokio::test]
async fn other_forms_are_items_too() {
    let server = Server::start().await;
    server.admin().post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    for (form, path) in [("PartialObjectMetadataList", CONFIG_MAPS), ("PartialObjectMetadata", &path)] {
        let ask =
            |media: &str| server.admin().with("accept", format!("{media};as={form};g=meta.k8s.io;v=v1"));
        let mut got = item(&ask(CBOR).get(path).await, 200);
        let mut json = ask("application/json").get(path).await.expect(200);
        // Of a list it is the server's, which goes on.
        for object in [&mut got, &mut json] {
            object["metadata"]["resourceVersion"].take();
        }
        assert_eq!((&got["kind"], &got["apiVersion"]), (&json!(form), &json!("meta.k8s.io/v1")));
        assert_eq!(got, json);
    }
    // Upstream makes tables of JSON and YAML alone.
    let table = server.admin().with("accept", format!("{CBOR};as=Table;g=meta.k8s.io;v=v1,application/json"));
    assert_eq!(table.get(CONFIG_MAPS).await.expect(200)["kind"], "ConfigMapList");
}

#[tokio::test]
async fn a_watch_is_a_sequence_of_items() {
    let server = Server::start().await;
    let (admin, client) = (server.admin(), server.admin().with("accept", CBOR));
    let watch = format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1");
    let a = admin.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let b = admin.post(CONFIG_MAPS, &config_map("b")).await.expect(201);
    // The second time from history.
    for from in
        [String::new(), format!("&resourceVersion={}", a["metadata"]["resourceVersion"].as_str().unwrap())]
    {
        let reply = client.get(&format!("{watch}{from}")).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.headers["content-type"]),
            (200, &"application/cbor-seq".parse().unwrap())
        );
        let seen = if from.is_empty() { vec![&a, &b] } else { vec![&b] };
        let frames: Vec<u8> =
            seen.into_iter().flat_map(|o| cbor::watch_frame("ADDED", &cbor::encode(o))).collect();
        assert_eq!(reply.bytes, frames);
    }
    let partial = format!("{CBOR};as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
    let reply = admin.with("accept", partial).get(&format!("{watch}&fieldSelector=metadata.name=b")).await;
    let event = cbor::decode(None, &reply.bytes).unwrap();
    assert_eq!(event["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(event["object"]["metadata"], b["metadata"]);
    let refused = admin.with("accept", "image/png").get(&watch).await;
    refused.refused(406, "NotAcceptable", "application/cbor-seq");
}

#[tokio::test]
async fn a_body_is_checked_like_one_in_json() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut object = config_map("a");
    object["spec"] = json!({"x": 1});
    let reply = send(&admin, Method::POST, &format!("{CONFIG_MAPS}?fieldValidation=Strict"), &object).await;
    reply.refused(400, "BadRequest", "strict decoding error: unknown field \"spec\"");
    let warned = send(&admin, Method::POST, CONFIG_MAPS, &object).await;
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"spec\\\"\"");
    assert!(warned.expect(201)["spec"].is_null());
    let refused = |bytes: &'static [u8], text: &'static str| {
        let admin = admin.clone();
        async move { admin.send(Method::POST, CONFIG_MAPS, CBOR, bytes).await.refused(400, "BadRequest", text) }
    };
    refused(
        b"\xd9\xd9\xf7\xa2\x44kind\x40\x44kind\x40",
        "the object provided is unrecognized (must be of type ConfigMap): unable to determine group/version/kind: \
         cbor: found duplicate map key \"kind\" at map element index 1 (d9d9f7a2446b696e6440446b696e6440)",
    )
    .await;
    refused(
        b"\xd9\xd9\xf7\xa1\x48metadata\xa2\x41a\x40\x41a\x40",
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: cbor: found duplicate map key \"a\"",
    )
    .await;
    refused(b"\xa1\x41a\xfb\x7f\xf8\0\0\0\0\0\0", "floating-point NaN").await;
    refused(b"\xa1", "unexpected EOF").await;
    refused(b"{}", "unexpected EOF").await;
    let refused = admin.send(Method::POST, CONFIG_MAPS, "application/x-cbor", "").await;
    refused.refused(415, "UnsupportedMediaType", "application/vnd.kubernetes.protobuf, application/cbor");
}

#[tokio::test]
async fn objects_are_applied_in_cbor() {
    const APPLY: &str = "application/apply-patch+cbor";
    let server = Server::start().await;
    let client = server.admin().with("accept", CBOR);
    let path = format!("{CONFIG_MAPS}/a?fieldManager=m");
    let applied = client.send(Method::PATCH, &path, APPLY, cbor::encode(&config_map("a"))).await;
    let applied = item(&applied, 201);
    assert_eq!(applied["metadata"]["managedFields"][0]["operation"], "Apply");
    assert_eq!(applied["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:data": {"f:a": {}}}));
    let refused = client.send(Method::PATCH, &path, APPLY, b"\xa2\x41a\x40\x41a\x40".to_vec()).await;
    let text = "error decoding YAML: cbor: found duplicate map key \"a\" at map element index 1";
    assert_eq!(item(&refused, 400)["message"], text);
    let refused = client.send(Method::PATCH, &path, "application/apply-patch+json", "{}").await;
    let message = item(&refused, 415)["message"].to_string();
    assert!(message.contains("application/apply-patch+yaml, application/apply-patch+cbor"), "{message}");
}

#[tokio::test]
async fn custom_objects_are_items_too() {
    let server = Server::start().await;
    let admin = server.admin();
    crds::establish(&admin).await;
    let client = admin.with("accept", "application/json;q=0.9,application/cbor;q=1");
    let mut widget = crds::widget("w");
    widget["spec"]["replicas"] = 2.into();
    let created = item(&send(&client, Method::POST, crds::WIDGETS, &widget).await, 201);
    assert_eq!(created["spec"], json!({"size": 3, "color": "red", "replicas": 2}));
    let list = item(&client.get(crds::WIDGETS).await, 200);
    assert_eq!((&list["kind"], &list["items"]), (&json!("WidgetList"), &json!([created])));
    let scale = item(&client.get(&format!("{}/w/scale", crds::WIDGETS)).await, 200);
    assert_eq!(scale["kind"], "Scale");
    let mut odd = crds::widget("odd");
    odd["spec"]["extra"] = 1.into();
    let strict = format!("{}?fieldValidation=Strict", crds::WIDGETS);
    let refused = item(&send(&client, Method::POST, &strict, &odd).await, 400);
    assert_eq!(
        refused["message"],
        "Widget in version \"v1\" cannot be handled as a Widget: strict decoding error: unknown field \"spec.extra\""
    );
    let refused = admin.send(Method::POST, crds::WIDGETS, "application/vnd.kubernetes.protobuf", "").await;
    refused.refused(415, "UnsupportedMediaType", "application/json, application/yaml, application/cbor");
    let watched = client.get(&format!("{}?watch=1&timeoutSeconds=1", crds::WIDGETS)).await;
    assert_eq!(watched.bytes, cbor::watch_frame("ADDED", &cbor::encode(&created)));
    // Never in the store.
    assert!(server.raw("/registry/example.com/widgets/default/w").await.starts_with(b"{"));
}
