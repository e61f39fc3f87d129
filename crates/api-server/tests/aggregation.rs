//! Groups that an extension API server answers.

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::extension::{
    self, API_SERVICE, API_SERVICES, Extension, GROUP_VERSION, Kind, SERVICES, SLICES, api_service, group,
    until,
};
use crate::support::{Server, eventually};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const FLUNDERS: &str = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders";

/// A server with an extension that is available; `None` where the machine cannot have one.
async fn extended(kind: Kind) -> Option<(Server, Extension)> {
    let address = extension::address()?;
    let server = Server::start().await;
    let extension = Extension::start(&server, address, kind).await;
    extension.register(&server.admin()).await;
    Some((server, extension))
}

#[tokio::test]
async fn requests_go_on_to_the_extension_server_whole() {
    let Some((server, _extension)) = extended(Kind::Modern).await else { return };
    let admin = server.admin();
    for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let reply =
            admin.send(method.clone(), &format!("{FLUNDERS}/a%2Fb?x=1&y=%20"), "text/x", "body").await;
        let echoed = reply.expect(200);
        assert_eq!(echoed["method"], method.as_str());
        assert_eq!(echoed["path"], format!("{FLUNDERS}/a%2Fb"));
        assert_eq!((&echoed["query"], &echoed["body"]), (&json!("x=1&y=%20"), &json!("body")));
    }
    admin.get(GROUP_VERSION).await.expect(200);
    // Not this version, so not this server.
    admin.get("/apis/wardle.example.com/v1/flunders").await.refused(404, "NotFound", "");
}

#[tokio::test]
async fn the_extension_server_is_told_who_asks_and_shown_no_credential() {
    let Some((server, extension)) = extended(Kind::Modern).await else { return };
    let caller = server
        .admin()
        .with("impersonate-user", "jane")
        .with("impersonate-uid", "42")
        .with("impersonate-group", "readers")
        .with("impersonate-extra-scopes", "one");
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "wardle"},
        "rules": [{"apiGroups": ["wardle.example.com"], "resources": ["flunders"], "verbs": ["get"]}]});
    let path = format!("{FLUNDERS}/echo");
    // The way to an extension server is authorized here as well.
    caller.get(&path).await.refused(403, "Forbidden", "cannot get resource \"flunders\"");
    server.admin().post("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role).await.expect(201);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "wardle"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "wardle"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "readers"}]});
    server.admin().post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await.expect(201);
    eventually("the role counts", || async {
        let reply = caller.get(&path).await;
        if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
    let (headers, certificate) = extension.last(&path);
    assert_eq!(certificate, "front-proxy-client");
    let all =
        |name: &str| -> Vec<&str> { headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect() };
    assert_eq!(all("x-remote-user"), ["jane"]);
    assert_eq!(all("x-remote-uid"), ["42"]);
    assert_eq!(all("x-remote-group"), ["readers", "system:authenticated"]);
    assert_eq!(all("x-remote-extra-scopes"), ["one"]);
    assert_eq!(all("x-forwarded-for"), ["127.0.0.1"]);
    let leaked = headers.keys().find(|n| n.as_str().starts_with("impersonate-") || *n == "authorization");
    assert_eq!(leaked, None);
}

#[tokio::test]
async fn watches_and_upgrades_pass_through() {
    let Some((server, _extension)) = extended(Kind::Modern).await else { return };
    let admin = server.admin();
    let mut watch = admin.watch(&format!("{FLUNDERS}?watch=true")).await;
    assert_eq!((watch.seen().await.as_str(), watch.seen().await.as_str()), ("ADDED a", "ADDED b"));
    let mut stream = admin.upgrade(&format!("{FLUNDERS}/a/echo"), "echo").await;
    stream.write_all(b"through and back").await.unwrap();
    let mut back = [0; 16];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"through and back");
}

#[tokio::test]
async fn redirects_of_extension_servers_are_not_passed_on() {
    let Some((server, _extension)) = extended(Kind::Modern).await else { return };
    let reply = server.admin().get(&format!("{FLUNDERS}/moved")).await;
    assert_eq!(reply.status, 502);
    assert!(reply.text().contains("attempted to redirect"), "{}", reply.text());
}

#[tokio::test]
async fn discovery_and_openapi_include_the_extension_server() {
    let Some((server, _extension)) = extended(Kind::Modern).await else { return };
    let admin = server.admin();
    let groups = admin.get("/apis").await.expect(200);
    let names: Vec<&str> =
        groups["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert_eq!((names.first(), names.last()), (Some(&"apiregistration.k8s.io"), Some(&"wardle.example.com")));
    let one = admin.get("/apis/wardle.example.com").await.expect(200);
    assert_eq!(one["preferredVersion"]["groupVersion"], "wardle.example.com/v1alpha1");
    let whole = admin.with("accept", AGGREGATED).get("/apis").await.json();
    let version = &group(&whole)["versions"][0];
    assert_eq!((&version["version"], &version["freshness"]), (&json!("v1alpha1"), &json!("Current")));
    assert_eq!(version["resources"][0]["resource"], "flunders");
    let path = format!("{GROUP_VERSION}/namespaces/{{namespace}}/flunders");
    let v2 = eventually("the v2 document is merged", || async {
        let v2 = admin.get("/openapi/v2").await.json();
        if v2["paths"][&path].is_object() { Ok(v2) } else { Err("no path of it".into()) }
    })
    .await;
    assert!(v2["definitions"]["example.Flunder"].is_object());
    assert!(v2["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
    assert!(v2["definitions"]["example.Unused"].is_null());
    let address = v3_address(&server).await;
    assert_eq!(address, format!("/openapi/v3{GROUP_VERSION}?hash=H"));
    let document = admin.get(&address).await.expect(200);
    assert!(document["components"]["schemas"]["example.Flunder"].is_object());
}

async fn v3_address(server: &Server) -> String {
    let admin = server.admin();
    eventually("the v3 index has the group", || async {
        let index = admin.get("/openapi/v3").await.json();
        let entry = &index["paths"]["apis/wardle.example.com/v1alpha1"];
        entry["serverRelativeURL"].as_str().map(str::to_owned).ok_or_else(|| "no such path".to_owned())
    })
    .await
}

#[tokio::test]
async fn a_server_of_old_is_discovered_and_described_by_what_it_has() {
    let Some((server, _extension)) = extended(Kind::Old).await else { return };
    let whole = server.admin().with("accept", AGGREGATED).get("/apis").await.json();
    let resource = &group(&whole)["versions"][0]["resources"][0];
    assert_eq!((&resource["resource"], &resource["scope"]), (&json!("flunders"), &json!("Namespaced")));
    let document = server.admin().get(&v3_address(&server).await).await.expect(200);
    assert_eq!(document["components"]["schemas"]["example.Flunder"]["type"], "object");
}

#[tokio::test]
async fn the_available_condition_says_what_is_missing() {
    let Some(address) = extension::address() else { return };
    let server = Server::start().await;
    let admin = server.admin();
    let extension = Extension::start(&server, address, Kind::Modern).await;
    let object = api_service(json!({"caBundle": extension.ca_bundle()}));
    admin.post(API_SERVICES, &object).await.expect(201);
    assert_eq!(until(&admin, "ServiceNotFound").await, "service/wardle in \"default\" is not present");
    let reply = admin.get(FLUNDERS).await;
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (503, "service unavailable\n"));

    let mut service = extension::service();
    service["spec"]["ports"][0]["port"] = json!(80);
    admin.post(SERVICES, &service).await.expect(201);
    assert_eq!(
        until(&admin, "ServicePortError").await,
        "service/wardle in \"default\" is not listening on port 443"
    );
    let port = json!({"spec": {"ports": [{"name": "https", "port": 443}, {"name": "https", "port": 80, "$patch": "delete"}]}});
    admin.patch(&format!("{SERVICES}/wardle"), "strategic-merge", &port).await.expect(200);
    assert_eq!(
        until(&admin, "EndpointsNotFound").await,
        "cannot find endpointslices for service/wardle in \"default\""
    );
    let mut slice = extension::slice(extension.address);
    slice["endpoints"][0]["conditions"]["ready"] = json!(false);
    admin.post(SLICES, &slice).await.expect(201);
    assert_eq!(
        until(&admin, "MissingEndpoints").await,
        "endpointslices for service/wardle in \"default\" have no addresses with port name \"https\""
    );
    let ready = json!({"endpoints": [{"addresses": [address], "conditions": {"ready": true}}]});
    admin.patch(&format!("{SLICES}/wardle-1"), "merge", &ready).await.expect(200);
    assert_eq!(until(&admin, "Passed").await, "all checks passed");
    eventually("the group is served", || async {
        let reply = admin.get(FLUNDERS).await;
        if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
    })
    .await;

    extension.stop();
    // Its endpoints change, so that it is asked again at once.
    admin
        .patch(&format!("{SLICES}/wardle-1"), "merge", &json!({"metadata": {"labels": {"a": "b"}}}))
        .await
        .expect(200);
    let message = until(&admin, "FailedDiscoveryCheck").await;
    assert!(message.starts_with("failing or missing response from https://"), "{message}");
    assert!(message.ends_with("connect: connection refused"), "{message}");
    eventually("discovery calls it stale", || async {
        let whole = admin.with("accept", AGGREGATED).get("/apis").await.json();
        match &group(&whole)["versions"][0] {
            version if *version == json!({"version": "v1alpha1", "freshness": "Stale"}) => Ok(()),
            version => Err(version.to_string()),
        }
    })
    .await;
    admin.delete(API_SERVICE, None).await.expect(200);
    eventually("the group is gone", || async {
        match admin.get("/apis/wardle.example.com").await.status.as_u16() {
            404 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
}

#[tokio::test]
async fn an_extension_servers_certificate_is_checked_unless_told_not_to() {
    let Some(address) = extension::address() else { return };
    let server = Server::start().await;
    let admin = server.admin();
    let extension = Extension::start(&server, address, Kind::Modern).await;
    admin.post(SERVICES, &extension::service()).await.expect(201);
    admin.post(SLICES, &extension::slice(extension.address)).await.expect(201);
    admin.post(API_SERVICES, &api_service(json!({}))).await.expect(201);
    let message = until(&admin, "FailedDiscoveryCheck").await;
    assert!(message.contains("certificate"), "{message}");
    let trust = json!({"spec": {"insecureSkipTLSVerify": true}});
    admin.patch(API_SERVICE, "merge", &trust).await.expect(200);
    until(&admin, "Passed").await;
    let both = json!({"spec": {"caBundle": extension.ca_bundle()}});
    admin.patch(API_SERVICE, "merge", &both).await.refused(
        422,
        "Invalid",
        "may not be true if caBundle is present",
    );
}

#[tokio::test]
async fn apiservices_of_definitions_come_and_go_with_them() {
    let server = Server::start().await;
    let admin = server.admin();
    let path = format!("{API_SERVICES}/v1.example.com");
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    admin.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await.expect(201);
    let is_there = |expected: u16| {
        let (admin, path) = (admin.clone(), path.clone());
        async move {
            eventually("the APIService", || async {
                let reply = admin.get(&path).await;
                if reply.status == expected { Ok(reply.json()) } else { Err(reply.text()) }
            })
            .await
        }
    };
    let made: Value = is_there(200).await;
    assert_eq!(made["spec"]["groupPriorityMinimum"], 1000);
    assert_eq!(made["status"]["conditions"][0]["reason"], "Local");
    // Who deletes or changes it sees it come back.
    admin.delete(&path, None).await.expect(200);
    assert_ne!(is_there(200).await["metadata"]["uid"], made["metadata"]["uid"]);
    admin.patch(&path, "merge", &json!({"spec": {"versionPriority": 7}})).await.expect(200);
    eventually("the priority is back", || async {
        let found = admin.get(&path).await.json()["spec"]["versionPriority"].clone();
        if found == 100 { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    admin
        .delete("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.example.com", None)
        .await
        .expect(200);
    is_there(404).await;
}

#[tokio::test]
async fn extension_servers_find_what_they_need_to_trust_us() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let data = server.admin().get(path).await.expect(200)["data"].clone();
    for key in ["client-ca-file", "requestheader-client-ca-file"] {
        assert!(data[key].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"), "{key}");
    }
    assert_eq!(data["requestheader-allowed-names"], r#"["front-proxy-client"]"#);
    assert_eq!(data["requestheader-username-headers"], r#"["X-Remote-User"]"#);
    let role = "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/roles/extension-apiserver-authentication-reader";
    let rule = server.admin().get(role).await.expect(200)["rules"][0].clone();
    assert_eq!(rule["resourceNames"], json!(["extension-apiserver-authentication"]));
    assert_eq!(rule["verbs"], json!(["get", "list", "watch"]));
}
