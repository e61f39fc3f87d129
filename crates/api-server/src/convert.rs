//! Conversion between a served version and the one that is stored.
//!
//! Of built-in kinds, the generic path, strategies and admission see the stored version alone; requests and
//! responses are converted at the edge. Of custom resources they see the version of the request, for each has a schema
//! of its own: what the store holds is converted where it is read and written ([`shown`], [`to_storage`]). Most kinds
//! have one version and pay nothing.

mod autoscaling;
mod events;
mod settle;
mod store;

use std::borrow::Cow;

use keelson_api_types::Gvk;
use keelson_machinery::apply::{Converted, Versions};
use serde_json::Value;

pub use settle::Conversions;
pub use store::{shown, to_storage};

/// How a version relates to the stored one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conversion {
    /// It is the stored one.
    Identity,
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
            Self::Events => "v1",
            Self::Autoscaling => "autoscaling/v2",
        }
    }

    pub fn to_stored(&self, object: Value) -> Value {
        match self {
            Self::Identity => object,
            Self::Events => events::to_core(object),
            Self::Autoscaling => autoscaling::to_v2(object),
        }
    }

    pub fn to_served(&self, object: Value) -> Value {
        match self {
            Self::Identity => object,
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

/// The versions of a built-in kind that has several: any to any, by way of the stored one.
#[derive(Debug)]
pub struct BuiltinVersions {
    kind: &'static str,
    served: (&'static str, Conversion),
}

static EVENTS: BuiltinVersions =
    BuiltinVersions { kind: "Event", served: ("events.k8s.io/v1", Conversion::Events) };
static AUTOSCALERS: BuiltinVersions =
    BuiltinVersions { kind: "HorizontalPodAutoscaler", served: ("autoscaling/v1", Conversion::Autoscaling) };

impl BuiltinVersions {
    /// By where the kind's objects lie.
    pub fn of(storage: &str) -> Option<&'static Self> {
        match storage {
            "events" => Some(&EVENTS),
            "horizontalpodautoscalers" => Some(&AUTOSCALERS),
            _ => None,
        }
    }
}

impl Versions for BuiltinVersions {
    fn convert(&self, object: &Value, from: &str, to: &str) -> Converted<'_, Value> {
        let Some(ty) = keelson_schema::builtin().for_gvk(&Gvk::from_api_version(to, self.kind)) else {
            return Ok(None);
        };
        let (served, conversion) = &self.served;
        let stored = if from == *served { conversion.to_stored(object.clone()) } else { object.clone() };
        Ok(Some((if to == *served { conversion.to_served(stored) } else { stored }, ty)))
    }
}

/// Moves a field under another name.
fn rename(object: &mut serde_json::Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = object.remove(from) {
        object.insert(to.into(), value);
    }
}
