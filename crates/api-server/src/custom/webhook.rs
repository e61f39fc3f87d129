//! Conversion by a webhook: one ConversionReview for all objects of a request, and what its answer must keep.

use std::time::{Duration, Instant};

use keelson_api_types::{FieldError, Gvk, field, names};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::meta::{self, string};
use crate::metrics::ConversionMetrics;
use crate::types::Objects;

const TIMEOUT: Duration = Duration::from_secs(30);

/// `spec.conversion.webhook` of a definition.
pub struct Webhook {
    pub config: Value,
    /// The first that we speak is used.
    pub review_versions: Vec<String>,
    /// Of the definition.
    pub crd: String,
    pub metrics: ConversionMetrics,
}

/// Upstream's name of a failure's kind, and what the client is told.
type Failure = (&'static str, String);

const CALL: &str = "conversion_webhook_call_failure";
const MALFORMED: &str = "conversion_webhook_malformed_response_failure";
const PARTIAL: &str = "conversion_webhook_partial_response_failure";
const INVALID: &str = "conversion_webhook_invalid_converted_object_failure";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    response: Option<Answer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Answer {
    uid: String,
    converted_objects: Vec<Value>,
    result: Value,
}

impl Webhook {
    /// Converts objects that are all of another version than `to`. The error is what the client is told.
    pub async fn convert(
        &self,
        objects: &dyn Objects,
        from: &Gvk,
        originals: Vec<Value>,
        to: &str,
    ) -> Result<Vec<Value>, String> {
        let known = |v: &&String| matches!(v.as_str(), "v1" | "v1beta1");
        let version =
            self.review_versions.iter().find(known).ok_or("no supported conversion review versions")?;
        let since = Instant::now();
        let outcome = self.ask(objects, version, from, originals, to).await;
        let (failure, to) = (outcome.as_ref().err().map(|(kind, _)| *kind), Gvk::from_api_version(to, ""));
        self.metrics.converted(&self.crd, &from.version, &to.version, failure, since.elapsed());
        outcome.map_err(|(_, why)| why)
    }

    async fn ask(
        &self,
        objects: &dyn Objects,
        version: &str,
        from: &Gvk,
        originals: Vec<Value>,
        to: &str,
    ) -> Result<Vec<Value>, Failure> {
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "apiVersion": format!("apiextensions.k8s.io/{version}"),
            "kind": "ConversionReview",
            "request": {"uid": uid, "desiredAPIVersion": to, "objects": originals},
        });
        let failed = |kind, why: String| (kind, format!("conversion webhook for {from} failed: {why}"));
        let body = crate::webhook::post(objects, &self.config, TIMEOUT, review.to_string().into_bytes());
        let body = body.await.map_err(|e| failed(CALL, e.to_string()))?;
        let review: Review = serde_json::from_slice(&body).map_err(|e| failed(CALL, e.to_string()))?;
        let converted = read(review, version, &uid).map_err(|why| failed(MALFORMED, why))?;
        if converted.len() != originals.len() {
            let (got, wanted) = (converted.len(), originals.len());
            let why = format!("conversion webhook for {from} returned {got} objects, expected {wanted}");
            return Err((PARTIAL, why));
        }
        let many = originals.len() > 1;
        let mut out = Vec::with_capacity(converted.len());
        for (i, (original, converted)) in originals.iter().zip(converted).enumerate() {
            let place = if many { format!(" at index {i}") } else { String::new() };
            let what = if many { "invalid converted object" } else { "invalid object" };
            check(original, &converted, to).map_err(|why| {
                (INVALID, format!("conversion webhook for {from} returned {what}{place}: {why}"))
            })?;
            let restored = restore(original, converted).map_err(|why| {
                let place = if many { format!(" in object at index {i}") } else { String::new() };
                (INVALID, format!("conversion webhook for {from} returned invalid metadata{place}: {why}"))
            })?;
            out.push(restored);
        }
        Ok(out)
    }
}

fn read(review: Review, version: &str, uid: &str) -> Result<Vec<Value>, String> {
    // What v1beta1 never checked stays unchecked.
    let strict = version == "v1";
    if strict
        && (review.api_version.as_str(), review.kind.as_str())
            != ("apiextensions.k8s.io/v1", "ConversionReview")
    {
        let got = Gvk::from_api_version(&review.api_version, &review.kind);
        let wanted = Gvk::new("apiextensions.k8s.io", "v1", "ConversionReview");
        return Err(format!("expected webhook response of {wanted}, got {got}"));
    }
    let answer = review.response.ok_or("no response provided")?;
    if strict && answer.uid != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", answer.uid));
    }
    match (string(&answer.result, "status"), string(&answer.result, "message")) {
        ("Success", _) => Ok(answer.converted_objects),
        (status, "") => Err(format!("response.result.status was '{status}', not 'Success'")),
        (_, message) => Err(message.to_owned()),
    }
}

/// A conversion changes the version and never the identity.
fn check(original: &Value, converted: &Value, to: &str) -> Result<(), String> {
    let (version, kind) = (string(converted, "apiVersion"), string(converted, "kind"));
    if version != to {
        return Err(format!("invalid groupVersion (expected {to}, received {version})"));
    }
    if kind != string(original, "kind") {
        return Err(format!("invalid kind (expected {}, received {kind})", string(original, "kind")));
    }
    for (field, name) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (before, after) = (meta::text(original, field), meta::text(converted, field));
        if before != after {
            return Err(format!("must have the same {name}: {before} != {after}"));
        }
    }
    Ok(())
}

/// The original metadata with the labels and annotations of the converted object.
fn restore(original: &Value, mut converted: Value) -> Result<Value, String> {
    let found =
        converted.get_mut("metadata").map(Value::take).ok_or("missing metadata in converted object")?;
    let Value::Object(mut found) = found else {
        return Err(format!("invalid metadata of type {} in converted object", go_type(&found)));
    };
    let mut metadata = original["metadata"].as_object().cloned().unwrap_or_default();
    for name in ["labels", "annotations"] {
        match found.remove(name) {
            None | Some(Value::Null) => drop(metadata.remove(name)),
            Some(Value::Object(map)) => {
                changed(name, metadata.get(name), &map)?;
                metadata.insert(name.into(), map.into());
            }
            Some(other) => {
                return Err(format!(
                    "invalid metadata.{name} of type {} in converted object",
                    go_type(&other)
                ));
            }
        }
    }
    converted["metadata"] = metadata.into();
    Ok(converted)
}

/// Labels or annotations that the webhook changed must be valid.
fn changed(name: &str, before: Option<&Value>, after: &Map<String, Value>) -> Result<(), String> {
    if let Some((key, value)) = after.iter().find(|(_, v)| !v.is_string()) {
        let ty = go_type(value);
        return Err(format!("metadata.{name}[{key}] must be a string, but is {ty} in converted object"));
    }
    if before.and_then(Value::as_object) == Some(after) {
        return Ok(());
    }
    let (path, lower) =
        if name == "labels" { ("metadata.labels", false) } else { ("metadata.annotation", true) };
    let mut errors = Vec::new();
    for (key, value) in after {
        let grammar =
            if lower { names::qualified_name(&key.to_lowercase()) } else { names::qualified_name(key) };
        errors.extend(grammar.into_iter().map(|m| FieldError::invalid(path, key.as_str(), m)));
        if let Some(value) = value.as_str().filter(|_| !lower) {
            errors.extend(names::label_value(value).into_iter().map(|m| FieldError::invalid(path, value, m)));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(field::aggregate(&errors)) }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(version: &str, metadata: Value) -> Value {
        json!({"apiVersion": format!("a.io/{version}"), "kind": "A", "metadata": metadata})
    }

    #[test]
    fn an_answer_keeps_the_identity() {
        let original = object("v1", json!({"name": "a", "uid": "u"}));
        for (converted, error) in [
            (object("v2", json!({"name": "a", "uid": "u"})), ""),
            (
                object("v3", json!({"name": "a", "uid": "u"})),
                "invalid groupVersion (expected a.io/v2, received a.io/v3)",
            ),
            (object("v2", json!({"name": "b", "uid": "u"})), "must have the same name: a != b"),
            (object("v2", json!({"name": "a", "uid": "w"})), "must have the same UID: u != w"),
        ] {
            assert_eq!(check(&original, &converted, "a.io/v2").err().unwrap_or_default(), error);
        }
    }

    #[test]
    fn only_labels_and_annotations_are_taken_from_an_answer() {
        let original = object("v1", json!({"name": "a", "labels": {"x": "1"}, "finalizers": ["f"]}));
        let converted = object("v2", json!({"name": "a", "annotations": {"y": "2"}, "finalizers": []}));
        let got = restore(&original, converted).unwrap();
        assert_eq!(got["metadata"], json!({"name": "a", "annotations": {"y": "2"}, "finalizers": ["f"]}));
        let bad = object("v2", json!({"labels": {"x": 1}}));
        assert_eq!(
            restore(&original, bad).unwrap_err(),
            "metadata.labels[x] must be a string, but is int64 in converted object"
        );
        let bad = object("v2", json!({"labels": {"-": "1"}}));
        assert!(restore(&original, bad).unwrap_err().starts_with("metadata.labels: Invalid value"));
    }

    #[test]
    fn an_answer_must_say_that_it_succeeded() {
        let review = |response: Value| -> Review {
            serde_json::from_value(
                json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": response}),
            )
            .unwrap()
        };
        for (response, want) in [
            (json!({"uid": "u", "result": {"status": "Success"}, "convertedObjects": [{}]}), Ok(1)),
            (json!({"uid": "u", "result": {"status": "Failed", "message": "no"}}), Err("no")),
            (json!({"uid": "u"}), Err("response.result.status was '', not 'Success'")),
            (json!({"uid": "w"}), Err(r#"expected response.uid="u", got "w""#)),
            (Value::Null, Err("no response provided")),
        ] {
            let got = read(review(response), "v1", "u").map(|o| o.len());
            assert_eq!(got, want.map_err(str::to_owned));
        }
    }
}
