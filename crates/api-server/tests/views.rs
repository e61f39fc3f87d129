//! What is computed and never stored, in other forms than whole objects.

use serde_json::{Value, json};

use crate::crds;
use crate::support::{Client, Server};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn as_form(client: &Client, media: &str, kind: &str) -> Client {
    client.with("accept", format!("{media};as={kind};v=v1;g=meta.k8s.io"))
}

#[tokio::test]
async fn scales_are_printed() {
    let server = Server::start().await;
    let admin = server.admin();
    crds::establish(&admin).await;
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    admin.post(DEPLOYMENTS, &deployment).await.expect(201);
    let mut widget = crds::widget("w");
    widget["spec"]["replicas"] = 2.into();
    admin.post(crds::WIDGETS, &widget).await.expect(201);
    let check = async |path: String, age: &str, cells: [Value; 3]| {
        let scale = admin.get(&path).await.expect(200);
        let table = as_form(&admin, "application/json", "Table").get(&path).await.expect(200);
        let named =
            table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap());
        assert_eq!(named.collect::<Vec<_>>(), ["Name", "Desired", "Available", "Age"]);
        assert_eq!(table["columnDefinitions"][3]["type"], age);
        assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[..3], cells);
        assert!(table["rows"][0]["cells"][3].as_str().unwrap().ends_with('s'), "{table}");
        assert_eq!(table["rows"][0]["object"]["metadata"], scale["metadata"]);
        assert_eq!(table["metadata"]["resourceVersion"], scale["metadata"]["resourceVersion"]);
        let whole =
            as_form(&admin, "application/json", "Table").get(&format!("{path}?includeObject=Object")).await;
        assert_eq!(whole.expect(200)["rows"][0]["object"], scale);
    };
    check(format!("{DEPLOYMENTS}/d/scale"), "string", [json!("d"), json!(3), json!(0)]).await;
    check(format!("{}/w/scale", crds::WIDGETS), "date", [json!("w"), json!(2), json!(0)]).await;
}

#[tokio::test]
async fn reviews_have_metadata_and_no_tables() {
    let server = Server::start().await;
    let admin = server.admin();
    let post = async |group: &str, resource: &str, kind: &str, spec: Value| {
        let path = format!("/apis/{group}/v1/{resource}");
        let review = json!({"apiVersion": format!("{group}/v1"), "kind": kind, "spec": spec});
        for media in ["application/json", "application/yaml", "application/cbor"] {
            let refused = as_form(&admin, media, "Table").post(&path, &review).await;
            assert_eq!(refused.status, 406, "{kind} in {media}");
        }
        let partial = as_form(&admin, "application/json", "PartialObjectMetadata")
            .post(&path, &review)
            .await
            .expect(201);
        assert_eq!(partial["kind"], "PartialObjectMetadata");
        assert!(partial.get("spec").is_none() && partial.get("status").is_none());
        let refused =
            as_form(&admin, "application/json", "PartialObjectMetadataList").post(&path, &review).await;
        let group = group.split('.').next().unwrap();
        refused.refused(406, "NotAcceptable", &format!("is not a list (*{group}.{kind})"));
    };
    let rule = json!({"nonResourceAttributes": {"path": "/", "verb": "get"}, "user": "u"});
    post("authentication.k8s.io", "tokenreviews", "TokenReview", json!({"token": "t"})).await;
    post("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview", rule).await;
    post(
        "authorization.k8s.io",
        "selfsubjectrulesreviews",
        "SelfSubjectRulesReview",
        json!({"namespace": "default"}),
    )
    .await;
}
