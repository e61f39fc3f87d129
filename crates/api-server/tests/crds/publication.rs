//! What clients are told of custom resources.

use serde_json::{Value, json};

use super::{DEFINITIONS, definition, serve, with_spec};
use crate::support::{Client, Server, eventually};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

async fn v2_definition(admin: &Client, name: &str) -> Value {
    admin.get("/openapi/v2").await.expect(200)["definitions"][name].clone()
}

#[tokio::test]
async fn a_resource_appears_in_every_document_and_goes_again() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut definition = definition();
    definition["spec"]["names"]["categories"] = json!(["all", "things"]);
    definition["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".spec.color"}]);
    serve(&admin, &definition).await;
    let groups = admin.get("/apis").await.expect(200);
    assert!(groups["groups"].as_array().unwrap().iter().any(|g| g["name"] == "example.com"));
    assert_eq!(admin.get("/apis/example.com").await.expect(200)["preferredVersion"]["version"], "v1");
    let resources = admin.get("/apis/example.com/v1").await.expect(200)["resources"].clone();
    assert_eq!(resources[0]["categories"], json!(["all", "things"]));
    assert_eq!(resources[0]["storageVersionHash"].as_str().unwrap().len(), 12);
    assert_eq!(
        (&resources[1]["name"], &resources[2]["name"]),
        (&json!("widgets/status"), &json!("widgets/scale"))
    );
    assert_eq!((&resources[2]["group"], &resources[2]["kind"]), (&json!("autoscaling"), &json!("Scale")));
    let all = admin.with("accept", AGGREGATED).get("/apis").await.expect(200);
    let group =
        all["items"].as_array().unwrap().iter().find(|g| g["metadata"]["name"] == "example.com").unwrap();
    let resource = &group["versions"][0]["resources"][0];
    assert_eq!(
        (&resource["resource"], &resource["categories"]),
        (&json!("widgets"), &json!(["all", "things"]))
    );
    let schema = v2_definition(&admin, "com.example.v1.Widget").await;
    assert_eq!(schema["x-kubernetes-selectable-fields"], json!([{"fieldPath": "spec.color"}]));
    assert_eq!(schema["properties"]["spec"]["required"], json!(["size"]));
    let index = admin.get("/openapi/v3").await.expect(200);
    let before = index["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    assert!(
        admin.get(&before).await.expect(200)["components"]["schemas"]["com.example.v1.Widget"].is_object()
    );
    // A change of the schema is published as well.
    let add = json!([{"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/extra", "value": {"type": "string"}}]);
    let path = format!("{DEFINITIONS}/widgets.example.com");
    admin.patch(&path, "json", &add).await.expect(200);
    eventually("the new schema is published", || async {
        let schema = v2_definition(&admin, "com.example.v1.Widget").await;
        if schema["properties"]["extra"].is_object() { Ok(()) } else { Err(schema.to_string()) }
    })
    .await;
    let index = admin.get("/openapi/v3").await.expect(200);
    assert_ne!(index["paths"]["apis/example.com/v1"]["serverRelativeURL"], *before);
    admin.delete(&path, None).await.expect(200);
    eventually("nothing is left of it", || async {
        let v2 = v2_definition(&admin, "com.example.v1.Widget").await;
        let discovered = admin.get("/apis/example.com").await.status != 404;
        let v3 = admin.get("/openapi/v3").await.expect(200)["paths"].get("apis/example.com/v1").is_some();
        if v2.is_null() && !discovered && !v3 { Ok(()) } else { Err(format!("{v2} {discovered} {v3}")) }
    })
    .await;
}

#[tokio::test]
async fn a_version_that_is_not_served_is_not_published() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut definition = definition();
    let mut second = definition["spec"]["versions"][0].clone();
    second["name"] = "v2".into();
    second["storage"] = false.into();
    definition["spec"]["versions"].as_array_mut().unwrap().push(second);
    serve(&admin, &definition).await;
    assert!(v2_definition(&admin, "com.example.v2.Widget").await.is_object());
    let off = json!([{"op": "replace", "path": "/spec/versions/1/served", "value": false}]);
    admin.patch(&format!("{DEFINITIONS}/widgets.example.com"), "json", &off).await.expect(200);
    eventually("v2 is gone", || async {
        let schema = v2_definition(&admin, "com.example.v2.Widget").await;
        if schema.is_null() { Ok(()) } else { Err(schema.to_string()) }
    })
    .await;
    assert!(v2_definition(&admin, "com.example.v1.Widget").await.is_object());
    assert_eq!(admin.get("/apis/example.com").await.expect(200)["versions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn version_2_leaves_out_what_it_cannot_say() {
    let server = Server::start().await;
    let admin = server.admin();
    serve(
        &admin,
        &with_spec(json!({"type": "object", "required": ["maybe", "sure"], "properties": {
            "maybe": {"type": "object", "nullable": true, "properties": {"a": {"type": "string"}}},
            "sure": {"type": "string", "oneOf": [{"minLength": 1}]},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "string"}}},
            "either": {"x-kubernetes-int-or-string": true},
            "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
        }})),
    )
    .await;
    let spec = v2_definition(&admin, "com.example.v1.Widget").await["properties"]["spec"].clone();
    assert_eq!(spec["required"], json!(["sure"]));
    assert_eq!(spec["properties"]["maybe"], json!({}));
    assert_eq!(spec["properties"]["sure"], json!({"type": "string"}));
    assert_eq!(spec["properties"]["free"], json!({"x-kubernetes-preserve-unknown-fields": true}));
    assert_eq!(spec["properties"]["either"], json!({"x-kubernetes-int-or-string": true}));
    assert_eq!(spec["properties"]["embedded"]["required"], json!(["kind", "apiVersion"]));
    let v3 = admin.get("/openapi/v3/apis/example.com/v1").await.expect(200);
    let spec = &v3["components"]["schemas"]["com.example.v1.Widget"]["properties"]["spec"];
    assert_eq!(spec["properties"]["maybe"]["nullable"], true);
    assert_eq!(spec["properties"]["either"]["anyOf"], json!([{"type": "integer"}, {"type": "string"}]));
    assert_eq!(spec["properties"]["sure"]["oneOf"], json!([{"minLength": 1}]));
}
