//! `/statusz` and `/flagz`: what runs here and how it was configured, as text or as `config.k8s.io` objects; `/configz`: the
//! configuration as it is in force.

use http::header::ACCEPT;
use http::{HeaderValue, StatusCode};
use jiff::{SignedDuration, Timestamp};
use keelson_api_types::{StatusError, meta};
use serde_json::{Map, Value, json};

use crate::app::{App, Call};
use crate::body::Response;
use crate::codec::CBOR;
use crate::discovery::GIT_VERSION;
use crate::response;

const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting \
                       compatibility guarantees and is for debugging purposes only.";
/// What else there is to look at.
const PATHS: [&str; 7] =
    ["/configz", "/debug/api_priority_and_fairness", "/healthz", "/livez", "/metrics", "/readyz", "/version"];

/// Answers one of the pages; `None` for other paths.
pub fn serve(app: &App, call: &Call) -> Option<Result<Response, StatusError>> {
    let (kind, text, object) = match call.info.path.trim_end_matches('/') {
        "/statusz" => {
            let (text, object) = status(app.started);
            ("Statusz", text, object)
        }
        "/flagz" => {
            let flags = flags(&app.config);
            let lines: String = flags.iter().map(|(k, v)| format!("{k}={}\n", plain(v))).collect();
            ("Flagz", lines, json!({"flags": flags}))
        }
        "/configz" => {
            let body = serde_json::to_vec(&json!({"apiserver": &app.config})).map_err(StatusError::internal);
            return Some(body.map(|body| response::text(StatusCode::OK, "application/json", body)));
        }
        _ => return None,
    };
    Some(answer(call, kind, &text, object))
}

fn answer(call: &Call, kind: &str, text: &str, mut object: Value) -> Result<Response, StatusError> {
    let accept = call.headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    for wanted in accept.split(',').map(str::trim) {
        let mut parts = wanted.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        if ["", "*/*", "text/*", "text/plain"].contains(&media) {
            let page = format!("\nkube-apiserver {}\n{WARNING}\n{text}", kind.to_lowercase());
            return Ok(response::text(StatusCode::OK, "text/plain; charset=utf-8", page.into_bytes()));
        }
        let parameter = |name: &str| parts.clone().find_map(|p| p.strip_prefix(name)?.strip_prefix('='));
        let version = parameter("v").filter(|v| ["v1alpha1", "v1beta1"].contains(v));
        let Some(version) =
            version.filter(|_| parameter("g") == Some("config.k8s.io") && parameter("as") == Some(kind))
        else {
            continue;
        };
        object["kind"] = kind.into();
        object["apiVersion"] = format!("config.k8s.io/{version}").into();
        object["metadata"] = json!({"name": "kube-apiserver"});
        let (media, body) = match media {
            "application/json" => {
                ("application/json", serde_json::to_vec(&object).map_err(StatusError::internal)?)
            }
            "application/yaml" => {
                ("application/yaml", crate::codec::to_yaml(&object).unwrap_or_default().into_bytes())
            }
            CBOR => (CBOR, keelson_machinery::cbor::encode(&object)),
            _ => continue,
        };
        let mut answer = response::text(StatusCode::OK, media, body);
        if version == "v1alpha1" {
            let text = format!(
                "299 - \"This version of the {} endpoint is deprecated. Please use a newer version.\"",
                kind.to_lowercase()
            );
            answer
                .headers_mut()
                .extend(HeaderValue::from_str(&text).map(|v| (http::header::WARNING, v)).ok());
        }
        return Ok(answer);
    }
    Err(StatusError::not_acceptable(&["text/plain", "application/json", "application/yaml", CBOR]))
}

fn status(started: Timestamp) -> (String, Value) {
    let up = SignedDuration::max(Timestamp::now().duration_since(started), SignedDuration::ZERO).as_secs();
    let (hours, minutes, seconds) = (up / 3600, up / 60 % 60, up % 60);
    let version = GIT_VERSION.trim_start_matches('v');
    let text = format!(
        "\nStarted: {}\nUp: {hours} hr {minutes:02} min {seconds:02} sec\nBinary version: {version}\nEmulation version: 1.36\nPaths: {}\n",
        started.strftime("%a %b %e %H:%M:%S UTC %Y"),
        PATHS.join(" "),
    );
    let object = json!({"startTime": meta::rfc3339(started), "uptimeSeconds": up, "binaryVersion": version,
        "emulationVersion": "1.36", "paths": PATHS});
    (text, object)
}

/// The configuration's keys, by upstream's flags where there is one. Nothing here is secret: files are named, not shown.
fn flags(config: &crate::config::Config) -> Map<String, Value> {
    let text = |v: &dyn std::fmt::Display| Value::String(v.to_string());
    let flags = [
        ("bind-address", text(&config.bind.address)),
        ("secure-port", text(&config.bind.port)),
        ("anonymous-auth", text(&config.anonymous)),
        ("service-cluster-ip-range", text(&config.service_cidr)),
        ("service-node-port-range", Value::String(config.node_port_range.into())),
        ("service-account-issuer", text(&config.service_account_issuer)),
        ("api-audiences", Value::String(config.audiences().join(","))),
        ("min-request-timeout", text(&config.min_request_timeout)),
        ("max-requests-inflight", text(&config.max_requests_in_flight)),
        ("profiling", text(&config.enable_profiling)),
        ("event-ttl", Value::String(format!("{}s", config.event_ttl))),
        ("client-ca-file", text(&config.client_ca().display())),
        ("tls-cert-file", text(&config.serving_cert().display())),
        ("tls-private-key-file", text(&config.serving_key().display())),
        (
            "audit-policy-file",
            text(&config.audit.as_ref().map_or(String::new(), |a| a.policy_file.display().to_string())),
        ),
    ];
    flags.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn plain(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
