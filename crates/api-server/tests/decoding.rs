//! Bodies and patches: what is refused, what is warned of, and in which words.

use http::Method;
use serde_json::{Value, json};

use crate::support::{CONFIG_MAPS, DEPLOYMENTS, Reply, Server, config_map, deployment};

fn warnings(reply: &Reply) -> Vec<String> {
    let all = reply.headers.get_all("warning").iter();
    all.map(|w| w.to_str().unwrap().trim_start_matches("299 - ").to_owned()).collect()
}

/// A deployment with fields that no deployment has and some that stand there twice.
const ODD: &str = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"odd"},"zoo":1,
    "spec":{"replicas":1,"foo":1,"replicas":2,"selector":{"matchLabels":{"a":"b"}},"bar":{},
    "template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i","image":"j","oops":1}]}}}}"#;

const FOUND: [&str; 6] = [
    "unknown field \"zoo\"",
    "unknown field \"spec.foo\"",
    "duplicate field \"spec.replicas\"",
    "unknown field \"spec.bar\"",
    "duplicate field \"spec.template.spec.containers[0].image\"",
    "unknown field \"spec.template.spec.containers[0].oops\"",
];

#[tokio::test]
async fn odd_fields_are_named_in_document_order() {
    let server = Server::start().await;
    let admin = server.admin();
    let send = |query: &'static str| {
        let admin = admin.clone();
        async move { admin.send(Method::POST, &format!("{DEPLOYMENTS}{query}"), "application/json", ODD).await }
    };
    let refused = send("?fieldValidation=Strict").await.refused(400, "BadRequest", "strict decoding error");
    let expected = format!(
        "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: {}",
        FOUND.join(", ")
    );
    assert_eq!(refused["message"], expected);
    let created = send("").await;
    assert_eq!(created.expect(201)["spec"]["replicas"], 2);
    let quoted: Vec<String> = FOUND.iter().map(|f| format!("\"{}\"", f.replace('"', "\\\""))).collect();
    assert_eq!(warnings(&created), quoted);
    admin.delete(&format!("{DEPLOYMENTS}/odd"), None).await.expect(200);
    assert_eq!(warnings(&send("?fieldValidation=Ignore").await), [""; 0]);
}

#[tokio::test]
async fn yaml_names_the_lines_of_duplicates() {
    let server = Server::start().await;
    let admin = server.admin();
    let body = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: lines}\ndata:\n  a: x1\n  a: x2\nfoo: 1\n";
    let strict = format!("{CONFIG_MAPS}?fieldValidation=Strict");
    let refused = admin.send(Method::POST, &strict, "application/yaml", body).await;
    let part = "strict decoding error: yaml: unmarshal errors:\n  line 6: key \"a\" already set in map, unknown field \"foo\"";
    refused.refused(400, "BadRequest", part);
    let created = admin.send(Method::POST, CONFIG_MAPS, "application/yaml", body).await;
    assert_eq!(created.expect(201)["data"]["a"], "x2");
    let expected = [r#""line 6: key \"a\" already set in map""#, r#""unknown field \"foo\"""#];
    assert_eq!(warnings(&created), expected);
}

#[tokio::test]
async fn bodies_that_are_no_objects_are_summarized() {
    let server = Server::start().await;
    let admin = server.admin();
    for (body, message) in [
        (
            "{\"kind\":",
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse \
             error: unexpected end of JSON input ({\"kind\":)",
        ),
        (
            "hello",
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse \
             error: invalid character 'h' looking for beginning of value (68656c6c6f)",
        ),
    ] {
        let reply = admin.send(Method::POST, CONFIG_MAPS, "application/json", body).await;
        assert_eq!(reply.expect(400)["message"], message);
    }
    let reply = admin.post(CONFIG_MAPS, &json!({"apiVersion": "foo.example.com/v1", "kind": "Foo"})).await;
    reply.refused(400, "BadRequest", "no kind \"Foo\" is registered for version \"foo.example.com/v1\"");
    let reply = admin.post(CONFIG_MAPS, &json!({"apiVersion": "v2", "kind": "ConfigMap"})).await;
    reply.refused(400, "BadRequest", "does not match the expected API version (v1)");
    let options = json!({"gracePeriodSeconds": "soon"});
    let reply = admin.delete(&format!("{CONFIG_MAPS}/x"), Some(options)).await;
    reply.refused(
        400,
        "BadRequest",
        "cannot unmarshal string into Go struct field DeleteOptions.gracePeriodSeconds",
    );
    for kind in ["application/x-cbor", "application/x-yaml", "text/plain"] {
        let reply = admin.send(Method::POST, CONFIG_MAPS, kind, "x").await;
        reply.refused(415, "UnsupportedMediaType", "application/json, application/yaml");
    }
}

#[tokio::test]
async fn patches_are_checked_with_what_they_make() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(DEPLOYMENTS, &deployment("d")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d");
    let send = |kind: &str, query: &str, body: &str| {
        let (admin, path) = (admin.clone(), format!("{path}{query}"));
        let (kind, body) = (format!("application/{kind}-patch+json"), body.to_owned());
        async move { admin.send(Method::PATCH, &path, &kind, body).await }
    };
    let body = r#"{"spec":{"replicas":3,"replicas":4,"foo":1}}"#;
    let found = "strict decoding error: duplicate field \"spec.replicas\", unknown field \"spec.foo\"";
    for kind in ["merge", "strategic-merge"] {
        let refused = send(kind, "?fieldValidation=Strict", body).await.refused(422, "Invalid", found);
        assert_eq!(refused["details"]["causes"][0]["field"], "patch");
    }
    let refused = send("strategic-merge", "?fieldValidation=Strict", body).await;
    refused.refused(422, "Invalid", "\"map[spec:map[foo:1 replicas:4]]\"");
    let warned = send("merge", "", body).await;
    assert_eq!(warned.expect(200)["spec"]["replicas"], 4);
    assert_eq!(warnings(&warned).len(), 2);
    let wrong = send("merge", "", r#"{"spec":{"replicas":"x"}}"#).await;
    wrong.refused(422, "Invalid", "json: cannot unmarshal string into Go struct field");
    send("json", "", "[").await.refused(
        400,
        "BadRequest",
        "error decoding patch: unexpected end of JSON input",
    );
    let other = admin.send(Method::PATCH, &path, "application/apply-patch+json", "x").await;
    other.refused(415, "UnsupportedMediaType", "application/apply-patch+yaml");
}

#[tokio::test]
async fn owners_named_twice_are_kept_once() {
    let server = Server::start().await;
    let admin = server.admin();
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u"});
    let mut object = config_map("x");
    object["metadata"]["ownerReferences"] = json!([owner, owner]);
    let created = admin.post(CONFIG_MAPS, &object).await;
    assert_eq!(created.expect(201)["metadata"]["ownerReferences"], json!([owner]));
    let said = warnings(&created);
    assert!(said.len() == 1 && said[0].contains("duplicate UID(s) observed: u"), "{said:?}");
}

#[tokio::test]
async fn answers_are_indented_and_errors_encoded_as_asked() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(CONFIG_MAPS, &config_map("x")).await.expect(201);
    let pretty = admin.get(&format!("{CONFIG_MAPS}/x?pretty=true")).await.text();
    assert!(pretty.starts_with("{\n  \"apiVersion\""), "{pretty}");
    let missing = admin.with("accept", "application/yaml").get(&format!("{CONFIG_MAPS}/y")).await;
    assert_eq!(missing.headers["content-type"], "application/yaml");
    assert!(missing.text().contains("reason: NotFound"), "{}", missing.text());
    let table = admin.with("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let refused = table.get(&format!("{CONFIG_MAPS}?includeObject=Some")).await;
    refused.refused(400, "BadRequest", "Unable to convert to Table as requested: includeObject");
    let yaml = admin.with("accept", "application/yaml").get(&format!("{CONFIG_MAPS}?watch=1")).await;
    let message = Value::from(
        "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
    );
    assert_eq!(
        (yaml.status.as_u16(), yaml.text().contains(message.as_str().unwrap())),
        (406, true),
        "{}",
        yaml.text()
    );
}
