//! Conversion between a served version and the one that is stored.
//!
//! The generic path, strategies and admission see the stored version alone; requests and responses
//! are converted at the edge. Most kinds have one version and pay nothing.

mod autoscaling;
mod events;

use std::borrow::Cow;

use serde_json::Value;

/// How a version relates to the stored one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conversion {
    /// It is the stored one.
    Identity,
    /// The same fields under another `apiVersion` (custom resources without a converter).
    Rename { served: String, stored: String },
    /// `events.k8s.io/v1` over core events.
    Events,
    /// `autoscaling/v1` over `autoscaling/v2`.
    Autoscaling,
}

impl Conversion {
    pub fn of_builtin(group: &str, version: &str, resource: &str) -> Self {
        match (group, version, resource) {
            ("events.k8s.io", _, "events") => Self::Events,
            ("autoscaling", "v1", "horizontalpodautoscalers") => Self::Autoscaling,
            _ => Self::Identity,
        }
    }

    pub fn is_identity(&self) -> bool {
        *self == Self::Identity
    }

    /// The `apiVersion` of the stored object.
    pub fn stored_api_version<'a>(&'a self, served: &'a str) -> &'a str {
        match self {
            Self::Identity => served,
            Self::Rename { stored, .. } => stored,
            Self::Events => "v1",
            Self::Autoscaling => "autoscaling/v2",
        }
    }

    pub fn to_stored(&self, object: Value) -> Value {
        match self {
            Self::Identity => object,
            Self::Rename { stored, .. } => renamed(object, stored),
            Self::Events => events::to_core(object),
            Self::Autoscaling => autoscaling::to_v2(object),
        }
    }

    pub fn to_served(&self, object: Value) -> Value {
        match self {
            Self::Identity => object,
            Self::Rename { served, .. } => renamed(object, served),
            Self::Events => events::to_events_group(object),
            Self::Autoscaling => autoscaling::to_v1(object),
        }
    }

    /// The stored version's name of a field that a selector of this version may name; `None` where only the
    /// stored version has it.
    pub fn stored_field<'a>(&self, field: &'a str) -> Option<Cow<'a, str>> {
        if *self != Self::Events {
            return Some(field.into());
        }
        match field {
            "source" | "reportingComponent" => None,
            "reportingController" => Some("reportingComponent".into()),
            _ if field.starts_with("involvedObject.") => None,
            _ => Some(
                field
                    .strip_prefix("regarding.")
                    .map_or(field.into(), |rest| format!("involvedObject.{rest}").into()),
            ),
        }
    }
}

fn renamed(mut object: Value, api_version: &str) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".into(), api_version.into());
    }
    object
}

/// Moves a field under another name.
fn rename(object: &mut serde_json::Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = object.remove(from) {
        object.insert(to.into(), value);
    }
}
