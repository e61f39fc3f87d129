//! Every endpoint that the server announces asks for a right of its own: a golden table of the question
//! that each one puts to the authorizer, read off the refusals that a user without rights gets.

use keelson_api_types::resources::{ALL, ResourceInfo};
use serde_json::json;

use crate::security::ask;
use crate::support::Server;

/// Verbs of discovery with the method and whether the path names an object.
const VERBS: [(&str, &str, bool); 8] = [
    ("create", "POST", false),
    ("delete", "DELETE", true),
    ("deletecollection", "DELETE", false),
    ("get", "GET", true),
    ("list", "GET", false),
    ("patch", "PATCH", true),
    ("update", "PUT", true),
    ("watch", "GET", false),
];

struct Endpoint {
    method: &'static str,
    path: String,
}

fn endpoints() -> Vec<Endpoint> {
    let mut found = Vec::new();
    for resource in ALL.iter() {
        let collection = collection(resource);
        for (verb, method, named) in VERBS {
            if resource.has_verb(verb) {
                let name = if named { "/x" } else { "" };
                let query = if verb == "watch" { "?watch=1" } else { "" };
                found.push(Endpoint { method, path: format!("{collection}{name}{query}") });
            }
        }
        for subresource in &resource.subresources {
            for (verb, method, _) in VERBS {
                if subresource.verbs.contains(&verb) {
                    found.push(Endpoint { method, path: format!("{collection}/x/{}", subresource.name) });
                }
            }
        }
    }
    found
}

fn collection(resource: &ResourceInfo) -> String {
    let root =
        if resource.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", resource.group) };
    let namespace = if resource.namespaced { "namespaces/ns/" } else { "" };
    format!("{root}/{}/{namespace}{}", resource.version, resource.resource)
}

/// Paths that are no resources, with what an authenticated user without any binding gets.
const PATHS: [(&str, bool); 12] = [
    ("/api", true),
    ("/apis", true),
    ("/apis/apps/v1", true),
    ("/healthz", true),
    ("/livez", true),
    ("/readyz", true),
    ("/version", true),
    ("/openapi/v2", true),
    ("/openapi/v3", true),
    ("/metrics", false),
    ("/.well-known/openid-configuration", false),
    ("/openid/v1/jwks", false),
];

/// What every authenticated user may create: questions about themselves.
const OPEN: [&str; 3] = ["selfsubjectaccessreviews", "selfsubjectreviews", "selfsubjectrulesreviews"];

#[tokio::test]
async fn every_endpoint_asks_for_its_own_right() {
    let plane = Server::start().await;
    let nobody = plane.client("nobody", &[]);
    let mut table = String::new();
    for Endpoint { method, path } in endpoints() {
        let body = (method != "GET").then(|| json!({}));
        let (code, answer) = ask(&nobody, method, &path, body.as_ref(), &[]).await;
        let open = OPEN.iter().any(|r| path.ends_with(r));
        let question = answer["message"].as_str().unwrap_or_default();
        let question = match question.split_once("User \"nobody\" cannot ") {
            Some((_, question)) if code == 403 => question,
            _ if open && code != 401 && code != 403 => "(open to every authenticated user)",
            _ => panic!("{method} {path} was not refused by the authorizer: {code} {answer}"),
        };
        assert!(!open || question.starts_with('('), "{method} {path}: {answer}");
        table.push_str(&format!("{method:6} {path}\n       {question}\n"));
    }
    let announced = plane.admin().get("/").await.expect(200);
    for path in announced["paths"].as_array().unwrap().iter().filter_map(|p| p.as_str()) {
        let open = ["/api/", "/apis/", "/healthz/", "/livez/", "/readyz/", "/openapi/"];
        let listed = PATHS.iter().any(|(listed, _)| *listed == path);
        assert!(listed || open.iter().any(|prefix| path.starts_with(prefix)), "{path} is in no table");
        if !listed {
            assert_ne!(ask(&nobody, "GET", path, None, &[]).await.0, 403, "{path}");
        }
    }
    for (path, allowed) in PATHS {
        let (code, answer) = ask(&nobody, "GET", path, None, &[]).await;
        assert_eq!(code != 403, allowed, "{path}: {code} {answer}");
        table.push_str(&format!("GET    {path}\n       {}\n", if allowed { "allowed" } else { "refused" }));
    }
    insta::assert_snapshot!(table);
}
