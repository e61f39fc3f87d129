//! The rules of a definition itself: whether they are well-formed, compile, and cannot cost too much.

use super::{Text, compile_message, compile_rule, environment};
use crate::rules::field_path::field_path;
use keelson_api_types::field::{child, index, key};
use keelson_api_types::{FieldError, FieldErrorKind, gofmt};
use keelson_cel::{Declared, ESTIMATED_CRD_LIMIT, ESTIMATED_LIMIT, MAX_REQUEST_SIZE};
use serde_json::Value as Json;
use std::sync::Arc;

const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
/// How many of the rules that cost most are named.
const NAMED: usize = 4;

/// Checks all rules of a version's schema, which must be structural. The limit of a single rule's cost is not
/// applied to a schema that an update leaves as it was.
pub fn check_rules(schema: &Json, path: &str, unchanged: bool) -> Vec<FieldError> {
    let mut check = Check { unchanged, errors: Vec::new(), total: 0, expensive: Vec::new() };
    let declared = Declared::from_schema(schema, "selfType", true).map(Arc::new);
    check.walk(schema, path, Place { declared, cardinality: Some(1), uncorrelated: None });
    if check.total > ESTIMATED_CRD_LIMIT {
        for (path, _) in &check.expensive {
            let detail =
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            check.errors.push(FieldError::forbidden(path, detail));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        check.errors.push(FieldError::forbidden(path, exceeds(what, check.total, ESTIMATED_CRD_LIMIT)));
    }
    check.errors
}

struct Check {
    unchanged: bool,
    errors: Vec<FieldError>,
    total: u64,
    expensive: Vec<(String, u64)>,
}

/// Where in a schema the walk is.
#[derive(Clone)]
struct Place {
    /// `None` where expressions cannot see the values.
    declared: Option<Arc<Declared>>,
    /// How many such values an object can hold; `None` where nothing but its size bounds them.
    cardinality: Option<u64>,
    /// The outermost list around whose items cannot be told apart.
    uncorrelated: Option<String>,
}

impl Check {
    /// Whether all rules here and below are well-formed: only then are they compiled.
    fn walk(&mut self, schema: &Json, path: &str, place: Place) -> bool {
        let mut formed = true;
        let below = |declared: Option<Arc<Declared>>| Place {
            declared,
            cardinality: match (place.cardinality, most(schema)) {
                (Some(around), Some(own)) => Some(around.saturating_mul(own)),
                _ => None,
            },
            uncorrelated: place.uncorrelated.clone(),
        };
        let element = || place.declared.as_ref().and_then(|d| d.element().cloned());
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let known = keelson_cel::escape(name).is_some();
            let declared = match known {
                true => place.declared.as_ref().and_then(|d| d.property(name).cloned()),
                false => own_type(property),
            };
            formed &= self.walk(property, &key(&child(path, "properties"), name), below(declared));
        }
        if let Some(values) = schema.get("additionalProperties").filter(|v| v.is_object()) {
            formed &= self.walk(values, &child(path, "additionalProperties"), below(element()));
        }
        if let Some(items) = schema.get("items").filter(|i| i.is_object()) {
            let mut below = below(element());
            if schema["x-kubernetes-list-type"] != "map" {
                below.uncorrelated = below.uncorrelated.or_else(|| Some(path.to_owned()));
            }
            formed &= self.walk(items, &child(path, "items"), below);
        }
        let rules = schema.get("x-kubernetes-validations").and_then(Json::as_array);
        for (i, written) in rules.into_iter().flatten().enumerate() {
            let path = index(&child(path, "x-kubernetes-validations"), i);
            formed &= self.form(written, schema, &path);
        }
        for (i, written) in rules.into_iter().flatten().enumerate().filter(|_| formed) {
            let path = index(&child(path, "x-kubernetes-validations"), i);
            self.compile(written, schema, &path, &place);
        }
        formed
    }

    fn form(&mut self, written: &Json, schema: &Json, path: &str) -> bool {
        let before = self.errors.len();
        let at = |name: &str| child(path, name);
        let text = Text::read(written);
        let broken = |s: &str| s.contains(['\n', '\r']);
        let (rule, message) = (text.rule.trim(), text.message.trim());
        if rule.is_empty() {
            self.errors.push(FieldError::required(at("rule"), "rule is not specified"));
        } else if !text.message.is_empty() && message.is_empty() {
            let detail = "must be non-empty if specified";
            self.errors.push(FieldError::invalid(at("message"), text.message.as_str(), detail));
        } else if broken(message) {
            let detail = "must not contain line breaks";
            self.errors.push(FieldError::invalid(at("message"), text.message.as_str(), detail));
        } else if broken(rule) && message.is_empty() {
            let detail = "message must be specified if rule contains line breaks";
            self.errors.push(FieldError::required(at("message"), detail));
        }
        if !text.message_expression.is_empty() && text.message_expression.trim().is_empty() {
            let detail = "messageExpression must be non-empty if specified";
            self.errors.push(FieldError::required(at("messageExpression"), detail));
        }
        if let Some(reason) = text.reason.as_deref().filter(|reason| !REASONS.contains(reason)) {
            self.errors.push(FieldError::not_supported(at("reason"), reason, &REASONS));
        }
        if !text.field_path.is_empty() {
            let given = text.field_path.as_str();
            let mut wrong = |detail| self.errors.push(FieldError::invalid(at("fieldPath"), given, detail));
            if given.trim().is_empty() {
                wrong("must be non-empty if specified");
            }
            if broken(given) {
                wrong("must not contain line breaks");
            }
            if field_path(given, schema).is_err() {
                wrong("must be a valid path");
            }
        }
        self.errors.len() == before
    }

    fn compile(&mut self, written: &Json, schema: &Json, path: &str, place: &Place) {
        let Some(declared) = place.declared.clone().or_else(|| own_type(schema)) else {
            let why = "unable to convert structural schema to CEL declarations";
            let path = path.rsplit_once('[').map_or(path, |(list, _)| list);
            let detail = format!(
                "internal error: failed to construct type information for x-kubernetes-validations rules: {why}"
            );
            return self.errors.push(FieldError::internal(path, detail));
        };
        let text = Text::read(written);
        let env = environment(&declared, text.optional_old);
        // A single value takes at least these bytes, and a comma.
        let most = place.cardinality.unwrap_or(MAX_REQUEST_SIZE / (declared.min_serialized_size() + 1));
        let rule_path = child(path, "rule");
        let program = compile_rule(&env, &text.rule);
        let cost = program.as_ref().map_or(0, |p| p.estimate().max).saturating_mul(most);
        self.observe(&rule_path, "estimated rule cost", cost);
        let program = match program {
            Ok(program) => program,
            Err(why) => return self.errors.push(invalid(&rule_path, written, &why)),
        };
        if !text.message_expression.is_empty() {
            let message_path = child(path, "messageExpression");
            match compile_message(&env, &text.message_expression) {
                Ok(message) => {
                    self.observe(&message_path, "estimated messageExpression cost", message.estimate().max);
                }
                Err(why) => self.errors.push(invalid(&message_path, written, &why)),
            }
        }
        if program.references("oldSelf") {
            if let Some(around) = &place.uncorrelated {
                let detail = format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within {around}"
                );
                self.errors.push(FieldError::invalid(rule_path, text.rule.as_str(), detail));
            }
        } else if let Some(optional) = written.get("optionalOldSelf").filter(|v| v.is_boolean()) {
            let detail = "may not be set if oldSelf is not used in rule";
            self.errors.push(FieldError::invalid(child(path, "optionalOldSelf"), optional.clone(), detail));
        }
    }

    fn observe(&mut self, path: &str, what: &str, cost: u64) {
        if cost > ESTIMATED_LIMIT && !self.unchanged {
            self.errors.push(FieldError::forbidden(path, exceeds(what, cost, ESTIMATED_LIMIT)));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= ESTIMATED_CRD_LIMIT / 100 {
            self.expensive.push((path.to_owned(), cost));
            self.expensive.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
            self.expensive.truncate(NAMED);
        }
    }
}

fn own_type(schema: &Json) -> Option<Arc<Declared>> {
    let embedded = schema["x-kubernetes-embedded-resource"] == true;
    Declared::from_schema(schema, "selfType", embedded).map(Arc::new)
}

/// How many values there can be of a schema's children.
fn most(schema: &Json) -> Option<u64> {
    let limit = |name: &str| schema[name].as_i64().map(|n| n.max(0) as u64);
    match schema["type"].as_str() {
        Some("object") if schema["additionalProperties"].is_object() => limit("maxProperties"),
        Some("array") => limit("maxItems"),
        _ => Some(1),
    }
}

fn exceeds(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        f if f > 100.0 => "more than 100x".to_owned(),
        f if f < 1.5 => format!("{f:.6}x"),
        f => format!("{f:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

/// An error that shows the whole rule, as Go prints it.
fn invalid(path: &str, written: &Json, why: &str) -> FieldError {
    let text = |name: &str| gofmt::quote(written[name].as_str().unwrap_or_default());
    let optional = match &written["optionalOldSelf"] {
        Json::Bool(_) => "(*bool)(0x0)",
        _ => "(*bool)(nil)",
    };
    let reason = if written["reason"].is_string() { "0x0" } else { "nil" };
    let shown = format!(
        "apiextensions.ValidationRule{{Rule:{}, Message:{}, MessageExpression:{}, \
         Reason:(*apiextensions.FieldValueErrorReason)({reason}), FieldPath:{}, OptionalOldSelf:{optional}}}",
        text("rule"),
        text("message"),
        text("messageExpression"),
        text("fieldPath"),
    );
    FieldError::new(FieldErrorKind::Invalid, path, None, format!("{shown}: {why}"))
}
