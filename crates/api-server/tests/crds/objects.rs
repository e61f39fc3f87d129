//! Custom objects against the schema of their version.

use serde_json::{Value, json};

use super::{DEFINITIONS, WIDGETS, causes, definition, serve, widget, with, with_spec};
use crate::support::{Client, Server, eventually};

async fn established(spec: Value) -> (Server, Client) {
    let server = Server::start().await;
    let admin = server.admin();
    serve(&admin, &with_spec(spec)).await;
    (server, admin)
}

#[tokio::test]
async fn values_are_held_against_the_schema() {
    let spec = json!({"type": "object", "required": ["size"], "maxProperties": 6, "properties": {
        "size": {"type": "integer", "minimum": 1, "exclusiveMaximum": true, "maximum": 10, "multipleOf": 2},
        "name": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-z]+$"},
        "color": {"type": "string", "enum": ["red", "green"]},
        "when": {"type": "string", "format": "date-time"},
        "ratio": {"type": "number", "minimum": 0.5},
        "list": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string"}},
        "either": {"x-kubernetes-int-or-string": true},
        "map": {"type": "object", "minProperties": 1, "additionalProperties": {"type": "integer"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "string"}}}},
        "any": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        "one": {"type": "integer", "oneOf": [{"minimum": 5}, {"multipleOf": 2}]},
        "none": {"type": "string", "not": {"enum": ["bad"]}},
        "all": {"type": "string", "allOf": [{"minLength": 2}, {"pattern": "x"}]},
        "maybe": {"type": "string", "nullable": true}
    }});
    let (_server, admin) = established(spec).await;
    for (part, wanted) in [
        (json!({"size": null}), vec!["spec.size: Required value"]),
        (
            json!({"size": 0}),
            vec!["spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"],
        ),
        (json!({"size": 10}), vec!["spec.size: Invalid value: 10: spec.size in body should be less than 10"]),
        (
            json!({"size": 3}),
            vec!["spec.size: Invalid value: 3: spec.size in body should be a multiple of 2"],
        ),
        (
            json!({"size": "2"}),
            vec![
                r#"spec.size: Invalid value: "string": spec.size in body must be of type integer: "string""#,
            ],
        ),
        (
            json!({"size": 2.5}),
            vec![
                r#"spec.size: Invalid value: "number": spec.size in body must be of type integer: "number""#,
                "spec.size: Invalid value: 2.5: spec.size in body should be a multiple of 2",
            ],
        ),
        (
            json!({"name": "a"}),
            vec![r#"spec.name: Invalid value: "a": spec.name in body should be at least 2 chars long"#],
        ),
        (json!({"name": "abcde"}), vec!["spec.name: Too long: may not be more than 4 bytes"]),
        (
            json!({"name": "AB"}),
            vec![r#"spec.name: Invalid value: "AB": spec.name in body should match '^[a-z]+$'"#],
        ),
        (
            json!({"color": "blue"}),
            vec![r#"spec.color: Unsupported value: "blue": supported values: "red", "green""#],
        ),
        (
            json!({"when": "now"}),
            vec![r#"spec.when: Invalid value: "now": spec.when in body must be of type date-time: "now""#],
        ),
        (
            json!({"ratio": 0.25}),
            vec![
                "spec.ratio: Invalid value: 0.25: spec.ratio in body should be greater than or equal to 0.5",
            ],
        ),
        (
            json!({"list": []}),
            vec!["spec.list: Invalid value: 0: spec.list in body should have at least 1 items"],
        ),
        (json!({"list": ["a", "b", "c"]}), vec!["spec.list: Too many: 3: must have at most 2 items"]),
        (
            json!({"list": [1]}),
            vec![
                r#"spec.list[0]: Invalid value: "integer": spec.list[0] in body must be of type string: "integer""#,
            ],
        ),
        (
            json!({"either": true}),
            vec![
                r#"spec.either: Invalid value: "boolean": spec.either in body must be of type integer,string: "boolean""#,
            ],
        ),
        (
            json!({"map": {"x": "y"}}),
            vec![
                r#"spec.map.x: Invalid value: "string": spec.map.x in body must be of type integer: "string""#,
            ],
        ),
        (
            json!({"map": {}}),
            vec!["spec.map: Invalid value: 0: spec.map in body should have at least 1 properties"],
        ),
        (json!({"set": ["a", "b", "a", "a"]}), vec![r#"spec.set[2]: Duplicate value: "a""#]),
        (
            json!({"keyed": [{"k": "x"}, {"k": "x", "v": "y"}]}),
            vec![r#"spec.keyed[1]: Duplicate value: {"k":"x"}"#],
        ),
        (
            json!({"any": {}}),
            vec![
                r#"<nil>: Invalid value: "": "spec.any" must validate at least one schema (anyOf)"#,
                "spec.any.a: Required value",
            ],
        ),
        (
            json!({"one": 6}),
            vec![
                r#"<nil>: Invalid value: "": "spec.one" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
            ],
        ),
        (
            json!({"none": "bad"}),
            vec![r#"<nil>: Invalid value: "": "spec.none" must not validate the schema (not)"#],
        ),
        (
            json!({"all": "ab"}),
            vec![
                r#"spec.all: Invalid value: "ab": spec.all in body should match 'x'"#,
                r#"<nil>: Invalid value: "": "spec.all" must validate all the schemas (allOf)"#,
            ],
        ),
        (
            json!({"name": "ok", "color": "red", "ratio": 1, "list": ["a"], "either": "x", "maybe": null}),
            vec!["spec: Too many: 7: must have at most 6 items"],
        ),
    ] {
        let mut spec = json!({"size": 2});
        for (key, value) in part.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let status = admin.post(WIDGETS, &with("w", spec)).await.refused(422, "Invalid", "");
        assert_eq!(causes(&status), wanted, "{part}");
    }
    let good = json!({"size": 2.0, "either": 1, "maybe": null, "one": 7, "any": {"b": ""}});
    let created = admin.post(WIDGETS, &with("w", good)).await.expect(201);
    assert_eq!(created["spec"]["maybe"], Value::Null);
}

#[tokio::test]
async fn an_update_is_not_held_to_what_it_leaves_alone() {
    let (_server, admin) = established(json!({"type": "object", "properties": {
        "a": {"type": "string"}, "b": {"type": "string"},
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "string"}}}},
        "list": {"type": "array", "items": {"type": "string"}}
    }}))
    .await;
    let old = json!({"a": "long", "b": "x", "keyed": [{"k": "1", "v": "long"}], "list": ["long"]});
    admin.post(WIDGETS, &with("w", old)).await.expect(201);
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    let short = |at: &str| json!({"op": "add", "path": format!("{path}/{at}/maxLength"), "value": 2});
    let tighter = json!([short("a"), short("keyed/items/properties/v"), short("list/items")]);
    admin.patch(&format!("{DEFINITIONS}/widgets.example.com"), "json", &tighter).await.expect(200);
    let url = format!("{WIDGETS}/w");
    let refused = || async {
        let reply = admin.post(WIDGETS, &with("new", json!({"a": "long"}))).await;
        if reply.status == 422 { Ok(()) } else { Err(reply.text()) }
    };
    eventually("the new schema counts", refused).await;
    // Unchanged fields and keyed items pass, in the same list as valid new ones.
    let change = json!({"spec": {"b": "y", "keyed": [{"k": "0", "v": "s"}, {"k": "1", "v": "long"}]}});
    admin.patch(&url, "merge", &change).await.expect(200);
    let changed =
        admin.patch(&url, "merge", &json!({"spec": {"a": "longer"}})).await.refused(422, "Invalid", "");
    assert_eq!(causes(&changed), ["spec.a: Too long: may not be more than 2 bytes"]);
    // Items of plain lists have no identity: any change of the list counts.
    let changed = admin
        .patch(&url, "merge", &json!({"spec": {"list": ["long", "s"]}}))
        .await
        .refused(422, "Invalid", "");
    assert_eq!(causes(&changed), ["spec.list[0]: Too long: may not be more than 2 bytes"]);
}

#[tokio::test]
async fn objects_are_pruned_and_defaulted_on_write_and_read() {
    let spec = json!({"type": "object", "properties": {
        "old": {"type": "string"},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "object", "properties": {"b": {"type": "string"}}}}},
        "deep": {"type": "object", "default": {}, "properties": {"n": {"type": "integer", "default": 3}}},
        "maybe": {"type": "string", "nullable": true, "default": "x"},
        "never": {"type": "string", "default": "y"},
        "gone": {"type": "string"}
    }});
    let (mut server, admin) = established(spec).await;
    let given = json!({"old": "o", "unknown": 1, "free": {"x": {"y": 1}, "a": {"b": "", "c": 1}}, "maybe": null, "never": null, "gone": null});
    let created = admin.post(WIDGETS, &with("w", given)).await.expect(201);
    assert_eq!(
        created["spec"],
        json!({"old": "o", "free": {"x": {"y": 1}, "a": {"b": ""}}, "deep": {"n": 3}, "maybe": null, "never": "y"})
    );
    let at = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    let change = json!([
        {"op": "remove", "path": format!("{at}/old")},
        {"op": "add", "path": format!("{at}/new"), "value": {"type": "string", "default": "z"}},
    ]);
    admin.patch(&format!("{DEFINITIONS}/widgets.example.com"), "json", &change).await.expect(200);
    let url = format!("{WIDGETS}/w");
    let wanted = json!({"free": {"x": {"y": 1}, "a": {"b": ""}}, "deep": {"n": 3}, "maybe": null, "never": "y", "new": "z"});
    let read = eventually("the object reads by its new schema", || async {
        let now = admin.get(&url).await.expect(200);
        if now["spec"] == wanted { Ok(now) } else { Err(now.to_string()) }
    })
    .await;
    assert_eq!(
        read["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"],
        "nothing was written"
    );
    assert_eq!(admin.get(WIDGETS).await.expect(200)["items"][0], read);
    let mut watch = admin.watch(&format!("{WIDGETS}?watch=1")).await;
    assert_eq!(watch.next().await.unwrap()["object"], read);
    server.restart().await;
    let admin = server.admin();
    let after = eventually("the resource is served", || async {
        let reply = admin.get(&url).await;
        if reply.status == 200 { Ok(reply.json()) } else { Err(reply.text()) }
    })
    .await;
    assert_eq!(after, read);
    // A write that changes nothing for its reader brings the store up to date.
    let written = admin.put(&url, &read).await.expect(200);
    assert_ne!(written["metadata"]["resourceVersion"], read["metadata"]["resourceVersion"]);
    let again = admin.put(&url, &written).await.expect(200);
    assert_eq!(again["metadata"]["resourceVersion"], written["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn embedded_resources_are_resources() {
    let spec = json!({"type": "object", "properties": {"template": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}}}});
    let (_server, admin) = established(spec).await;
    let post = |template: Value| {
        let object = with("w", json!({"template": template}));
        let admin = admin.clone();
        async move { admin.post(WIDGETS, &object).await }
    };
    let status =
        post(json!({"metadata": {"labels": {"-": "x"}, "name": "a/b"}})).await.refused(422, "Invalid", "");
    let found = causes(&status);
    for wanted in [
        "spec.template.apiVersion: Required value",
        "spec.template.kind: Required value",
        r#"spec.template.metadata.name: Invalid value: "a/b""#,
        r#"spec.template.metadata.labels: Invalid value: "-""#,
    ] {
        assert!(found.iter().any(|c| c.starts_with(wanted)), "{wanted}\n{found:#?}");
    }
    post(json!({"apiVersion": 1, "kind": "A"})).await.refused(
        400,
        "BadRequest",
        "spec.template.apiVersion: Invalid value: 1: must be a string",
    );
    let created =
        post(json!({"apiVersion": "v1", "kind": "A", "metadata": {"name": "x", "odd": 1}, "odd": 1}))
            .await
            .expect(201);
    assert_eq!(
        created["spec"]["template"],
        json!({"apiVersion": "v1", "kind": "A", "metadata": {"name": "x"}})
    );
}

#[tokio::test]
async fn unknown_and_duplicate_fields_are_reported_as_asked() {
    let spec = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let (_server, admin) = established(spec).await;
    let body = r#"{"apiVersion":"example.com/v1","kind":"Widget","zz":1,"metadata":{"name":"w","odd":1},"spec":{"a":"1","a":"2","b":1}}"#;
    let send = |mode: &str| {
        let path = format!("{WIDGETS}?fieldValidation={mode}&dryRun=All");
        let admin = admin.clone();
        async move { admin.send(http::Method::POST, &path, "application/json", body).await }
    };
    let problems = [
        r#"duplicate field "spec.a""#,
        r#"unknown field "metadata.odd""#,
        r#"unknown field "spec.b""#,
        r#"unknown field "zz""#,
    ];
    send("Strict").await.refused(
        400,
        "BadRequest",
        &format!("strict decoding error: {}", problems.join(", ")),
    );
    let warned = send("Warn").await;
    warned.expect(201);
    let warnings: Vec<String> =
        warned.headers.get_all("warning").iter().map(|w| w.to_str().unwrap().replace('\\', "")).collect();
    assert_eq!(warnings, problems.map(|p| format!("299 - \"{p}\"")));
    let ignored = send("Ignore").await;
    ignored.expect(201);
    assert!(ignored.headers.get("warning").is_none());
    let apply = "apiVersion: example.com/v1\nkind: Widget\nmetadata:\n  name: w\nspec:\n  a: x\n  a: z\n";
    let url = format!("{WIDGETS}/w?fieldManager=m&fieldValidation=Strict");
    let reply = admin.send(http::Method::PATCH, &url, "application/apply-patch+yaml", apply).await;
    reply.refused(400, "BadRequest", "line 7: key \"a\" already set in map");
    let apply = "apiVersion: example.com/v1\nkind: Widget\nmetadata:\n  name: w\nspec:\n  b: x\n";
    let reply = admin.send(http::Method::PATCH, &url, "application/apply-patch+yaml", apply).await;
    assert!(reply.text().contains(".spec.b: field not declared in schema"), "{}", reply.text());
}

#[tokio::test]
async fn metadata_is_that_of_every_object() {
    let (_server, admin) = established(json!({"type": "object"})).await;
    let mut object = with("w", json!({}));
    object["metadata"]["labels"] = json!({"a": 1});
    admin.post(WIDGETS, &object).await.refused(
        400,
        "BadRequest",
        "json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string",
    );
    object["metadata"]["labels"] = json!({"a": "1"});
    object["metadata"]["finalizers"] = json!(["plain"]);
    let reply = admin.post(WIDGETS, &object).await;
    reply.expect(201);
    let warning = reply.headers["warning"].to_str().unwrap();
    assert!(
        warning.contains("prefer a domain-qualified finalizer name to avoid accidental conflicts"),
        "{warning}"
    );
}

#[tokio::test]
async fn status_and_scale_are_written_apart() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut definition = definition();
    let version = &mut definition["spec"]["versions"][0];
    version["subresources"]["scale"]["labelSelectorPath"] = ".status.selector".into();
    version["schema"]["openAPIV3Schema"]["properties"]["status"] = json!({"type": "object", "properties": {"replicas": {"type": "integer", "minimum": 0}, "selector": {"type": "string"}}});
    serve(&admin, &definition).await;
    let mut object = widget("w");
    object["status"] = json!({"replicas": 9});
    let created = admin.post(WIDGETS, &object).await.expect(201);
    assert_eq!((&created["status"], &created["metadata"]["generation"]), (&Value::Null, &json!(1)));
    let url = format!("{WIDGETS}/w");
    admin.get(&format!("{url}/scale")).await.refused(
        500,
        "InternalError",
        r#"the spec replicas field ".spec.replicas" does not exist"#,
    );
    let status = format!("{url}/status");
    let changed = admin.patch(&status, "merge", &json!({"metadata": {"labels": {"x": "y"}}, "spec": {"size": 5}, "status": {"replicas": 2, "selector": "a=b"}})).await.expect(200);
    assert_eq!((&changed["spec"]["size"], &changed["status"]["replicas"]), (&json!(3), &json!(2)));
    assert_eq!((&changed["metadata"]["generation"], changed["metadata"].get("labels")), (&json!(1), None));
    let refused =
        admin.patch(&status, "merge", &json!({"status": {"replicas": -1}})).await.refused(422, "Invalid", "");
    assert_eq!(
        causes(&refused)[0],
        "status.replicas: Invalid value: -1: replicas in body should be greater than or equal to 0"
    );
    let main = admin
        .patch(&url, "merge", &json!({"spec": {"replicas": 4}, "status": {"replicas": 7}}))
        .await
        .expect(200);
    assert_eq!((&main["status"]["replicas"], &main["metadata"]["generation"]), (&json!(2), &json!(2)));
    let scale = admin.get(&format!("{url}/scale")).await.expect(200);
    assert_eq!(
        (&scale["spec"], &scale["status"]),
        (&json!({"replicas": 4}), &json!({"replicas": 2, "selector": "a=b"}))
    );
    let scaled = admin.put(&format!("{url}/scale"), &json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "w", "namespace": "default"}, "spec": {"replicas": 6}})).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"], 6);
    assert_eq!(admin.get(&url).await.expect(200)["metadata"]["generation"], 3);
    admin.patch(&url, "merge", &json!({"spec": {"replicas": -1}})).await.refused(
        422,
        "Invalid",
        "should be a non-negative integer",
    );
}

#[tokio::test]
async fn columns_show_what_their_paths_find() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut definition = definition();
    definition["spec"]["versions"][0]["additionalPrinterColumns"] = json!([
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "description": "How big", "priority": 1},
        {"name": "Color", "type": "string", "jsonPath": ".spec.color"},
        {"name": "Wrong", "type": "boolean", "jsonPath": ".spec.color"},
        {"name": "None", "type": "string", "jsonPath": ".spec.nothing"},
        {"name": "Labels", "type": "string", "jsonPath": ".metadata.labels"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]);
    serve(&admin, &definition).await;
    let mut object = widget("w");
    object["metadata"]["labels"] = json!({"a": "b"});
    admin.post(WIDGETS, &object).await.expect(201);
    let table =
        admin.with("accept", "application/json;as=Table;v=v1;g=meta.k8s.io").get(WIDGETS).await.expect(200);
    let columns = table["columnDefinitions"].as_array().unwrap();
    assert_eq!((&columns[1]["description"], &columns[1]["priority"]), (&json!("How big"), &json!(1)));
    assert_eq!(
        columns[2]["description"],
        "Custom resource definition column (in JSONPath format): .spec.color"
    );
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(
        cells[..6],
        [json!("w"), json!(3), json!("red"), Value::Null, Value::Null, json!(r#"{"a":"b"}"#)]
    );
    assert!(cells[6].as_str().unwrap().ends_with('s'), "{cells:?}");
}

#[tokio::test]
async fn only_declared_fields_select() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut definition = definition();
    definition["spec"]["versions"][0]["selectableFields"] =
        json!([{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.size"}]);
    serve(&admin, &definition).await;
    let mut watch = admin.watch(&format!("{WIDGETS}?watch=1&fieldSelector=spec.color%3Dblue")).await;
    for (name, color, size) in [("a", "red", 1), ("b", "blue", 2), ("c", "blue", 3)] {
        admin.post(WIDGETS, &with(name, json!({"size": size, "color": color}))).await.expect(201);
    }
    let names = |list: Value| -> Vec<String> {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| o["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let select = |what: &str| format!("{WIDGETS}?fieldSelector={what}");
    assert_eq!(names(admin.get(&select("spec.color%3Dblue")).await.expect(200)), ["b", "c"]);
    assert_eq!(names(admin.get(&select("spec.color%3Dblue,spec.size%3D3")).await.expect(200)), ["c"]);
    admin.get(&select("spec.other%3D1")).await.refused(
        400,
        "BadRequest",
        "field label not supported: spec.other",
    );
    assert_eq!(watch.seen().await, "ADDED b");
    assert_eq!(watch.seen().await, "ADDED c");
    admin.patch(&format!("{WIDGETS}/b"), "merge", &json!({"spec": {"color": "red"}})).await.expect(200);
    assert_eq!(watch.seen().await, "DELETED b");
}

#[tokio::test]
async fn apply_merges_by_the_list_types_of_the_schema() {
    let item = json!({"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "string"}}});
    let (_server, admin) = established(json!({"type": "object", "properties": {
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": item},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "plain": {"type": "array", "items": {"type": "string"}},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}}
    }}))
    .await;
    let apply = |manager: &str, spec: Value| {
        let (admin, url) = (admin.clone(), format!("{WIDGETS}/w?fieldManager={manager}"));
        async move { admin.patch(&url, "apply", &with("w", spec)).await }
    };
    apply("one", json!({"keyed": [{"k": "a", "v": "1"}], "set": ["x"], "plain": ["p"], "whole": {"a": "1"}}))
        .await
        .expect(201);
    let both = apply("two", json!({"keyed": [{"k": "b", "v": "2"}], "set": ["y"]})).await.expect(200);
    assert_eq!(both["spec"]["keyed"], json!([{"k": "a", "v": "1"}, {"k": "b", "v": "2"}]));
    assert_eq!(both["spec"]["set"], json!(["x", "y"]));
    let conflict =
        apply("two", json!({"plain": ["q"], "whole": {"b": "2"}})).await.refused(409, "Conflict", "");
    assert_eq!(conflict["details"]["causes"].as_array().unwrap().len(), 2, "{conflict}");
    let less = apply("two", json!({"set": ["y"]})).await.expect(200);
    assert_eq!(less["spec"]["keyed"], json!([{"k": "a", "v": "1"}]));
}

#[tokio::test]
async fn a_large_schema_works() {
    // About nine thousand schemas, four levels deep, as the largest public definitions have.
    fn level(depth: usize) -> Value {
        let leaf = |i: usize| match i % 4 {
            0 => {
                json!({"type": "string", "description": "A text that says what this is for, at some length.", "pattern": "^[a-z0-9-]*$", "default": "x"})
            }
            1 => json!({"type": "integer", "format": "int32", "minimum": 0, "description": "A number."}),
            2 => {
                json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}, "description": "Texts."})
            }
            _ => {
                json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]})
            }
        };
        let mut properties: serde_json::Map<String, Value> =
            (0..8).map(|i| (format!("field{i}"), leaf(i))).collect();
        if depth > 0 {
            properties.extend((0..9).map(|i| (format!("part{i}"), level(depth - 1))));
        }
        json!({"type": "object", "description": "A part of the whole.", "properties": properties})
    }
    let (_server, admin) = established(level(3)).await;
    let inner = json!({"field1": 1, "field2": ["a"], "field3": "5%"});
    let object = with("w", json!({"part0": {"part1": {"part2": inner}}}));
    let created = admin.post(WIDGETS, &object).await.expect(201);
    assert_eq!(created["spec"]["part0"]["part1"]["part2"]["field0"], "x");
    let bad = admin
        .patch(&format!("{WIDGETS}/w"), "merge", &json!({"spec": {"part8": {"part8": {"field1": -1}}}}))
        .await;
    assert_eq!(
        causes(&bad.refused(422, "Invalid", "")),
        [
            "spec.part8.part8.field1: Invalid value: -1: spec.part8.part8.field1 in body should be greater than or equal to 0"
        ]
    );
    for document in ["/openapi/v2", "/openapi/v3/apis/example.com/v1"] {
        assert!(admin.get(document).await.expect(200).to_string().contains("part8"));
    }
}
