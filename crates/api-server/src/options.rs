//! The options of each verb, from the query or the body, checked as upstream checks them.

use std::borrow::Cow;

use keelson_api_types::{FieldError, FieldSelector, GroupKind, LabelSelector, StatusError};
use keelson_machinery::FieldValidation;
use serde_json::{Value, json};

use crate::request::{Query, RequestInfo};

/// Options of create, update and patch.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    pub validation: FieldValidation,
    /// Apply only.
    pub force: bool,
    /// What admission sees.
    pub object: Value,
}

impl WriteOptions {
    /// `kind` is the options' own, such as `CreateOptions`.
    pub fn parse(
        kind: &str,
        query: &Query,
        user_agent: &str,
        default: FieldValidation,
    ) -> Result<Self, StatusError> {
        let mut errors = Vec::new();
        let mut object = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        let dry_run = dry_run(query.all("dryRun"), &mut errors);
        if dry_run {
            object["dryRun"] = json!(["All"]);
        }
        let manager = query.get("fieldManager").unwrap_or_default();
        check_manager(manager, &mut errors);
        if !manager.is_empty() {
            object["fieldManager"] = json!(manager);
        }
        let validation = match query.get("fieldValidation").unwrap_or_default() {
            "" => default,
            "Ignore" => FieldValidation::Ignore,
            "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            other => {
                errors.push(FieldError::not_supported(
                    "fieldValidation",
                    other,
                    &["Ignore", "Strict", "Warn"],
                ));
                default
            }
        };
        if let Some(given) = query.get("fieldValidation") {
            object["fieldValidation"] = json!(given);
        }
        let force = query.flag("force").unwrap_or(false);
        refuse(kind, errors)?;
        let field_manager = if manager.is_empty() { manager_of(user_agent) } else { manager.to_owned() };
        Ok(Self { dry_run, field_manager, validation, force, object })
    }

    /// Options of a write that the server makes itself.
    pub fn server(dry_run: bool, object: &Value) -> Self {
        Self {
            dry_run,
            field_manager: "keelson-api-server".into(),
            validation: FieldValidation::Ignore,
            force: false,
            object: object.clone(),
        }
    }

    /// What only apply may say, and what it must.
    pub fn check_patch(&self, query: &Query, apply: bool) -> Result<(), StatusError> {
        let mut errors = Vec::new();
        if apply && query.get("fieldManager").unwrap_or_default().is_empty() {
            errors.push(FieldError::required("fieldManager", "is required for apply patch"));
        }
        if !apply && query.get("force").is_some() {
            errors.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
        }
        refuse("PatchOptions", errors)
    }
}

/// The part of the user agent that names the program, as upstream names managers that do not say.
fn manager_of(user_agent: &str) -> String {
    user_agent.split('/').next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(128).collect()
}

fn check_manager(manager: &str, errors: &mut Vec<FieldError>) {
    if manager.len() > 128 {
        errors.push(FieldError::too_long("fieldManager", 128));
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| c.is_control()) {
        let detail = format!("invalid character U+{:04X} (at position {at})", c as u32);
        errors.push(FieldError::invalid("fieldManager", manager, detail));
    }
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Vec<FieldError>) -> bool {
    let values: Vec<&str> = values.collect();
    if values.iter().any(|v| *v != "All") {
        errors.push(FieldError::not_supported("dryRun", json!(values), &["All"]));
    }
    values.contains(&"All")
}

fn refuse(kind: &str, errors: Vec<FieldError>) -> Result<(), StatusError> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(StatusError::invalid(&GroupKind::new("meta.k8s.io", kind), "", errors))
}

/// What becomes of the objects that an object owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    pub orphan_dependents: Option<bool>,
    pub precondition_uid: Option<String>,
    pub precondition_revision: Option<String>,
    pub dry_run: bool,
    pub ignore_store_read_error: bool,
    pub object: Value,
}

impl DeleteOptions {
    /// The body counts where there is one, the query otherwise.
    pub fn parse(body: Option<Value>, query: &Query) -> Result<Self, StatusError> {
        let object = match body {
            Some(body) => {
                let kind = body.get("kind").and_then(Value::as_str).unwrap_or("DeleteOptions");
                if kind != "DeleteOptions" {
                    let message =
                        format!("decoded object cannot be converted to DeleteOptions: it is a {kind}");
                    return Err(StatusError::bad_request(message));
                }
                body
            }
            None => Self::from_query(query)?,
        };
        Self::from_object(object)
    }

    fn from_query(query: &Query) -> Result<Value, StatusError> {
        let mut object = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        if let Some(text) = query.get("gracePeriodSeconds").filter(|t| !t.is_empty()) {
            object["gracePeriodSeconds"] = json!(integer("gracePeriodSeconds", text)?);
        }
        if let Some(orphan) = query.flag("orphanDependents") {
            object["orphanDependents"] = json!(orphan);
        }
        if let Some(policy) = query.get("propagationPolicy").filter(|t| !t.is_empty()) {
            object["propagationPolicy"] = json!(policy);
        }
        let dry: Vec<&str> = query.all("dryRun").collect();
        if !dry.is_empty() {
            object["dryRun"] = json!(dry);
        }
        Ok(object)
    }

    fn from_object(object: Value) -> Result<Self, StatusError> {
        let mut errors = Vec::new();
        let dry =
            object.get("dryRun").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let dry_run = dry_run(dry, &mut errors);
        let orphan_dependents = object.get("orphanDependents").and_then(Value::as_bool);
        let propagation = match object.get("propagationPolicy").and_then(Value::as_str) {
            None => None,
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(FieldError::not_supported("propagationPolicy", other, &supported));
                None
            }
        };
        if propagation.is_some() && orphan_dependents.is_some() {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid(
                "propagationPolicy",
                object["propagationPolicy"].clone(),
                detail,
            ));
        }
        refuse("DeleteOptions", errors)?;
        let precondition = |field: &str| {
            let text = object.get("preconditions")?.get(field)?.as_str()?;
            Some(text.to_owned())
        };
        Ok(Self {
            grace_period_seconds: object.get("gracePeriodSeconds").and_then(Value::as_i64),
            propagation,
            orphan_dependents,
            precondition_uid: precondition("uid"),
            precondition_revision: precondition("resourceVersion"),
            dry_run,
            ignore_store_read_error: false,
            object,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// Options of list and watch.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    /// Empty: unset.
    pub resource_version: String,
    pub version_match: Option<VersionMatch>,
    pub limit: usize,
    pub continue_token: String,
    pub timeout_seconds: Option<u64>,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

impl ListOptions {
    pub fn parse(query: &Query, info: &RequestInfo) -> Result<Self, StatusError> {
        let selector = query.get("labelSelector").unwrap_or_default();
        let labels = LabelSelector::parse(selector)
            .map_err(|e| StatusError::bad_request(format!("unable to parse requirement: {e}")))?;
        let mut fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default())
            .map_err(|e| StatusError::bad_request(e.to_string()))?;
        if info.legacy_watch && !info.name.is_empty()
            || info.verb == "watch" && fields.is_everything() && !info.name.is_empty()
        {
            fields = FieldSelector::parse(&format!("metadata.name={}", info.name)).unwrap_or_default();
        }
        let number = |name: &str| -> Result<Option<u64>, StatusError> {
            query
                .get(name)
                .filter(|t| !t.is_empty())
                .map(|t| integer(name, t))
                .transpose()
                .map(|n| n.map(|n| n.max(0) as u64))
        };
        let mut options = Self {
            labels,
            fields,
            resource_version: query.get("resourceVersion").unwrap_or_default().to_owned(),
            version_match: None,
            limit: number("limit")?.unwrap_or(0) as usize,
            continue_token: query.get("continue").unwrap_or_default().to_owned(),
            timeout_seconds: number("timeoutSeconds")?.filter(|n| *n > 0),
            bookmarks: query.flag("allowWatchBookmarks").unwrap_or(false),
            send_initial_events: query.flag("sendInitialEvents"),
        };
        options.check(query.get("resourceVersionMatch").unwrap_or_default(), info.verb == "watch")?;
        Ok(options)
    }

    fn check(&mut self, version_match: &str, watch: bool) -> Result<(), StatusError> {
        const MATCH: &str = "resourceVersionMatch";
        let mut errors = Vec::new();
        let forbidden = |path: &'static str, detail: &str| FieldError::forbidden(path, detail);
        self.version_match = match version_match {
            "" => None,
            "Exact" => Some(VersionMatch::Exact),
            "NotOlderThan" => Some(VersionMatch::NotOlderThan),
            other => {
                let mut supported = vec!["Exact", "NotOlderThan", ""];
                if watch {
                    supported = vec!["NotOlderThan"];
                }
                errors.push(FieldError::not_supported(MATCH, other, &supported));
                None
            }
        };
        let matched = !version_match.is_empty();
        if watch {
            match self.send_initial_events {
                Some(_) if !matched => errors.push(forbidden(
                    MATCH,
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                )),
                Some(_) if self.version_match == Some(VersionMatch::Exact) => {
                    errors.push(FieldError::not_supported(MATCH, "Exact", &["NotOlderThan"]))
                }
                Some(true) if !self.bookmarks => errors.push(forbidden(
                    "allowWatchBookmarks",
                    "sendInitialEvents requires allowWatchBookmarks to be set",
                )),
                None if matched => errors.push(forbidden(
                    MATCH,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                )),
                _ => {}
            }
        } else {
            if self.send_initial_events.is_some() {
                errors.push(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
            }
            if matched && !self.continue_token.is_empty() {
                errors.push(forbidden(MATCH, "resourceVersionMatch is forbidden when continue is provided"));
            } else if matched && self.resource_version.is_empty() {
                errors.push(forbidden(
                    MATCH,
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            } else if self.version_match == Some(VersionMatch::Exact) && self.resource_version == "0" {
                errors.push(forbidden(
                    MATCH,
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
        }
        refuse("ListOptions", errors)
    }

    /// The revision asked for; `None` where unset.
    pub fn revision(&self) -> Result<Option<u64>, StatusError> {
        revision(&self.resource_version)
    }
}

/// A `resourceVersion` as the store's number.
pub fn revision(text: &str) -> Result<Option<u64>, StatusError> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text.parse().map(Some);
    parsed.map_err(|_| {
        let detail = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        let errors = vec![FieldError::invalid("resourceVersion", text, detail)];
        let mut status = StatusError::invalid(&GroupKind::default(), "", errors).into_status();
        status.code = 400;
        status.reason = keelson_api_types::Reason::BadRequest;
        status.message =
            format!("Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax");
        StatusError::from(status)
    })
}

fn integer(name: &str, text: &str) -> Result<i64, StatusError> {
    text.parse().map_err(|_| {
        let what: Cow<'_, str> = format!("strconv.ParseInt: parsing {text:?}: invalid syntax").into();
        StatusError::bad_request(format!("unable to decode query parameter {name}: {what}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(query: &str, verb: &str) -> Result<ListOptions, String> {
        let info = RequestInfo { verb: verb.into(), ..RequestInfo::default() };
        ListOptions::parse(&Query::parse(Some(query)), &info).map_err(|e| e.message().to_owned())
    }

    #[test]
    fn list_options_follow_upstreams_rules_of_resource_versions() {
        assert!(list("resourceVersion=5&resourceVersionMatch=Exact", "list").is_ok());
        let refused = |query, verb, part: &str| {
            let message = list(query, verb).unwrap_err();
            assert!(message.contains(part), "{query}: {message}");
        };
        refused("resourceVersionMatch=Exact", "list", "forbidden unless resourceVersion is provided");
        refused(
            "resourceVersion=0&resourceVersionMatch=Exact",
            "list",
            "is forbidden for resourceVersion \"0\"",
        );
        refused("resourceVersion=1&resourceVersionMatch=Foo", "list", "Unsupported value: \"Foo\"");
        refused("sendInitialEvents=true", "watch", "requires setting resourceVersionMatch");
        refused("labelSelector=a%3D%3D%3Db", "list", "unable to parse requirement");
    }

    #[test]
    fn write_options_refuse_what_upstream_refuses() {
        let parse = |q| {
            WriteOptions::parse(
                "CreateOptions",
                &Query::parse(Some(q)),
                "kubectl/v1.36 x",
                FieldValidation::Warn,
            )
        };
        assert_eq!(parse("").unwrap().field_manager, "kubectl");
        assert!(parse("dryRun=All").unwrap().dry_run);
        assert!(parse("dryRun=Some").unwrap_err().message().contains("supported values: \"All\""));
        assert!(
            parse("fieldValidation=Maybe")
                .unwrap_err()
                .message()
                .contains("fieldValidation: Unsupported value")
        );
    }
}
