//! How a definition says that its versions are converted, and who does it.

use std::collections::HashSet;

use keelson_api_types::field::{child, index};
use keelson_api_types::{FieldError, names as grammar};
use serde_json::Value;

use super::definition::{Options, list};
use crate::meta::string;

/// The versions of ConversionReview that we speak.
pub const REVIEWS: [&str; 2] = ["v1", "v1beta1"];

pub fn check(conversion: &Value, options: &Options, e: &mut Vec<FieldError>) {
    if !conversion.is_object() {
        return;
    }
    let strategy = string(conversion, "strategy");
    match strategy {
        "" => e.push(FieldError::required("spec.conversion.strategy", "")),
        "None" | "Webhook" => {}
        other => e.push(FieldError::not_supported("spec.conversion.strategy", other, &["None", "Webhook"])),
    }
    let webhook = &conversion["webhook"];
    let (config, reviews) = (&webhook["clientConfig"], list(&webhook["conversionReviewVersions"]));
    let (at, reviews_at) =
        ("spec.conversion.webhookClientConfig", "spec.conversion.conversionReviewVersions");
    if strategy != "Webhook" {
        let detail = "should not be set when strategy is not set to Webhook";
        if config.is_object() {
            e.push(FieldError::forbidden(at, detail));
        }
        if !reviews.is_empty() {
            e.push(FieldError::forbidden(reviews_at, detail));
        }
        return;
    }
    if config.is_object() {
        check_client(config, at, options, e);
    } else {
        e.push(FieldError::required(at, "required when strategy is set to Webhook"));
    }
    if reviews.is_empty() {
        return e.push(FieldError::required(reviews_at, ""));
    }
    let mut seen = HashSet::new();
    for (i, version) in reviews.iter().enumerate() {
        if !seen.insert(*version) {
            e.push(FieldError::invalid(index(reviews_at, i), *version, "duplicate version"));
            continue;
        }
        for message in grammar::dns1035_label(version) {
            e.push(FieldError::invalid(index(reviews_at, i), *version, message));
        }
    }
    if options.known_review && !reviews.iter().any(|r| REVIEWS.contains(r)) {
        let detail = format!("must include at least one of {}", REVIEWS.join(", "));
        e.push(FieldError::invalid(reviews_at, webhook["conversionReviewVersions"].clone(), detail));
    }
}

fn check_client(config: &Value, at: &str, options: &Options, e: &mut Vec<FieldError>) {
    let (url, service) = (&config["url"], &config["service"]);
    match (url.as_str(), service.is_object()) {
        (Some(url), false) => check_url(url, &child(at, "url"), e),
        (None, true) => check_service(service, &child(at, "service"), e),
        _ => e.push(FieldError::required(at, "exactly one of url or service is required")),
    }
    let bundle = &config["caBundle"];
    if let Some(problem) = ca_error(bundle).filter(|_| options.ca_bundle && !bundle.is_null()) {
        e.push(FieldError::invalid(child(at, "caBundle"), bundle.clone(), problem));
    }
}

fn check_url(url: &str, at: &str, e: &mut Vec<FieldError>) {
    let form = "; desired format: https://host[/path]";
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(u, h)| (Some(u), h));
    let mut fail = |value: &str, detail: String| e.push(FieldError::invalid(at, value, detail));
    if scheme != "https" {
        fail(scheme, format!("'https' is the only allowed URL scheme{form}"));
    }
    if scheme.is_empty() || host.is_empty() {
        fail("", format!("host must be specified{form}"));
    }
    if let Some(user) = user {
        fail(user, "user information is not permitted in the URL".to_owned());
    }
    let (before, fragment) = url.split_once('#').unwrap_or((url, ""));
    if !fragment.is_empty() {
        fail(fragment, "fragments are not permitted in the URL".to_owned());
    }
    if let Some((_, query)) = before.split_once('?').filter(|(_, q)| !q.is_empty()) {
        fail(query, "query parameters are not permitted in the URL".to_owned());
    }
}

fn check_service(service: &Value, at: &str, e: &mut Vec<FieldError>) {
    for field in ["name", "namespace"] {
        if string(service, field).is_empty() {
            e.push(FieldError::required(child(at, field), ""));
        }
    }
    let port = service["port"].as_i64().unwrap_or(443);
    let messages = grammar::port_number(port);
    if !messages.is_empty() {
        let detail = format!("port is not valid: {}", messages.join(", "));
        e.push(FieldError::invalid(child(at, "port"), port, detail));
    }
    let path = string(service, "path");
    if matches!(path, "" | "/") {
        return;
    }
    let mut fail = |detail: String| e.push(FieldError::invalid(child(at, "path"), path, detail));
    if path == "//" {
        return fail("segment[0] may not be empty".to_owned());
    }
    if !path.starts_with('/') {
        fail("must start with a '/'".to_owned());
    }
    let steps = path.get(1..).unwrap_or_default();
    for (i, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            fail(format!("segment[{i}] may not be empty"));
            continue;
        }
        grammar::dns1123_subdomain(step).into_iter().for_each(|m| fail(format!("segment[{i}]: {m}")));
    }
}

/// Why a bundle holds no certificates.
pub fn ca_error(bundle: &Value) -> Option<String> {
    use base64::Engine;
    let decoded = base64::engine::general_purpose::STANDARD.decode(bundle.as_str().unwrap_or_default());
    let blocks = decoded.ok().and_then(|pem| pem::parse_many(pem).ok()).unwrap_or_default();
    let found = blocks.iter().any(|b| b.tag() == "CERTIFICATE");
    (!found).then(|| "unable to load root certificates: unable to parse bytes as PEM block".to_owned())
}
