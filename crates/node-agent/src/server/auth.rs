//! Who calls, and whether the API allows it: certificates of the cluster's authority or bearer tokens, then an
//! access review on the node's subresources. Answers are kept for a short while.

use super::{Body, plain};
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use keelson_client::rest;
use keelson_daemon::serve::Peer;
use keelson_pki::CertificateInfo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

const ALLOWED_FOR: Duration = Duration::from_secs(300);
const DENIED_FOR: Duration = Duration::from_secs(30);
const TOKEN_FOR: Duration = Duration::from_secs(120);
/// Above this, entries whose time is over are dropped.
const MANY: usize = 512;

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct User {
    name: String,
    uid: String,
    groups: Vec<String>,
}

/// Who, verb, subresource.
type Asked = (User, &'static str, &'static str);

pub struct Auth {
    client: kube::Client,
    node: String,
    tokens: Mutex<HashMap<String, (Instant, Option<User>)>>,
    decisions: Mutex<HashMap<Asked, (Instant, bool)>>,
}

impl Auth {
    pub fn new(client: kube::Client, node: String) -> Self {
        Self { client, node, tokens: Mutex::default(), decisions: Mutex::default() }
    }

    /// `Err` is the answer that the caller gets.
    pub async fn check(&self, request: &Request<Incoming>, parts: &[&str]) -> Result<(), Response<Body>> {
        let unavailable = |e: kube::Error| {
            tracing::warn!("could not ask the API about a caller: {}", crate::volumes::chain(&e));
            plain(StatusCode::INTERNAL_SERVER_ERROR, "Internal Error\n")
        };
        let user = self.authenticate(request).await.map_err(unavailable)?;
        let Some(user) = user else {
            return Err(plain(StatusCode::UNAUTHORIZED, "Unauthorized\n"));
        };
        let verb = verb(request.method());
        let subresources = subresources(parts);
        for subresource in subresources {
            if self.authorize(&user, verb, subresource).await.map_err(unavailable)? {
                return Ok(());
            }
        }
        let message = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)={subresources:?})\n",
            user.name
        );
        Err(plain(StatusCode::FORBIDDEN, message))
    }

    async fn authenticate(&self, request: &Request<Incoming>) -> Result<Option<User>, kube::Error> {
        let peer = request.extensions().get::<Peer>();
        // The handshake has checked the chain.
        if let Some(leaf) = peer.and_then(|p| p.certificates.as_ref()).and_then(|c| c.first())
            && let Ok(info) = CertificateInfo::from_der(leaf)
        {
            let user = User { name: info.common_name, uid: String::new(), groups: info.organizations };
            return Ok(Some(user));
        }
        let header = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let Some(token) = header.and_then(|h| h.strip_prefix("Bearer ")).map(str::trim) else {
            return Ok(None);
        };
        if let Some((until, user)) = self.tokens.lock().get(token)
            && Instant::now() < *until
        {
            return Ok(user.clone());
        }
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": { "token": token },
        });
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let answer: Value = rest::create(&self.client, path, &review).await?;
        let status = &answer["status"];
        let user = (status["authenticated"] == true).then(|| User {
            name: text(&status["user"]["username"]),
            uid: text(&status["user"]["uid"]),
            groups: status["user"]["groups"].as_array().into_iter().flatten().map(text).collect(),
        });
        let mut tokens = self.tokens.lock();
        if tokens.len() > MANY {
            tokens.retain(|_, (until, _)| Instant::now() < *until);
        }
        tokens.insert(token.to_owned(), (Instant::now() + TOKEN_FOR, user.clone()));
        Ok(user)
    }

    async fn authorize(
        &self,
        user: &User,
        verb: &'static str,
        subresource: &'static str,
    ) -> Result<bool, kube::Error> {
        // What the API's own authorizer says of them, always.
        if user.groups.iter().any(|g| g == "system:masters") {
            return Ok(true);
        }
        let key = (user.clone(), verb, subresource);
        if let Some((until, allowed)) = self.decisions.lock().get(&key)
            && Instant::now() < *until
        {
            return Ok(*allowed);
        }
        let mut groups = user.groups.clone();
        groups.push("system:authenticated".into());
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user.name,
                "uid": user.uid,
                "groups": groups,
                "resourceAttributes": {
                    "verb": verb,
                    "version": "v1",
                    "resource": "nodes",
                    "subresource": subresource,
                    "name": self.node,
                },
            },
        });
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let answer: Value = rest::create(&self.client, path, &review).await?;
        let allowed = answer["status"]["allowed"] == true;
        let until = Instant::now() + if allowed { ALLOWED_FOR } else { DENIED_FOR };
        let mut decisions = self.decisions.lock();
        if decisions.len() > MANY {
            decisions.retain(|_, (until, _)| Instant::now() < *until);
        }
        decisions.insert(key, (until, allowed));
        Ok(allowed)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// The node's subresources any of which opens a path: the narrow one first, `proxy` for most.
fn subresources(parts: &[&str]) -> &'static [&'static str] {
    match parts.first().copied().unwrap_or_default() {
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "healthz" | "livez" | "readyz" => &["healthz", "proxy"],
        "pods" | "runningpods" => &["pods", "proxy"],
        "configz" => &["configz", "proxy"],
        _ => &["proxy"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_map_onto_subresources_of_the_node() {
        for (path, first) in [
            ("stats/summary", "stats"),
            ("metrics/cadvisor", "metrics"),
            ("logs/x", "log"),
            ("pods", "pods"),
            ("exec/a/b/c", "proxy"),
            ("containerLogs/a/b/c", "proxy"),
        ] {
            let parts: Vec<&str> = path.split('/').collect();
            assert_eq!(subresources(&parts)[0], first, "{path}");
        }
    }
}
