//! Kubeconfig files.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::path::Path;

/// How a kubeconfig holds certificates.
pub(crate) enum Credentials<'a> {
    /// By path, so that they can be replaced in place.
    Files { ca: &'a Path, cert: &'a Path, key: &'a Path },
    /// Within, so that the file can be copied elsewhere.
    Embedded { ca: &'a str, cert: &'a str, key: &'a str },
}

/// A kubeconfig with one cluster, one user and one context. It is JSON, which is YAML too.
pub(crate) fn render(cluster: &str, server: &str, user: &str, credentials: &Credentials<'_>) -> String {
    let data = |pem: &str| STANDARD.encode(pem);
    let (ca, identity) = match credentials {
        Credentials::Files { ca, cert, key } => (
            json!({ "certificate-authority": ca, "server": server }),
            json!({ "client-certificate": cert, "client-key": key }),
        ),
        Credentials::Embedded { ca, cert, key } => (
            json!({ "certificate-authority-data": data(ca), "server": server }),
            json!({ "client-certificate-data": data(cert), "client-key-data": data(key) }),
        ),
    };
    let context = format!("{user}@{cluster}");
    let config: Value = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": cluster, "cluster": ca }],
        "users": [{ "name": user, "user": identity }],
        "contexts": [{ "name": context, "context": { "cluster": cluster, "user": user } }],
        "current-context": context,
    });
    let mut text = serde_json::to_string_pretty(&config).expect("JSON values have text");
    text.push('\n');
    text
}
