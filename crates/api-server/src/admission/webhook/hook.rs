//! A webhook as its configuration describes it, and all of them in the order in which they are called.

use keelson_api_types::{Gvr, meta};
use serde::Deserialize;
use serde_json::Value;

use super::super::conditions::Conditions;
use super::super::expressions::{Compiler, Names};
use super::super::matching::Constraints;
use super::super::{GROUP, items};
use crate::types::Objects;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hook {
    #[serde(skip)]
    pub configuration: String,
    /// Configuration, name, and how many of that name come before it.
    #[serde(skip)]
    pub key: String,
    pub name: String,
    pub client_config: Value,
    #[serde(skip)]
    pub constraints: Constraints,
    #[serde(skip)]
    pub conditions: Conditions,
    pub failure_policy: String,
    pub side_effects: String,
    pub timeout_seconds: Option<u64>,
    pub admission_review_versions: Vec<String>,
    pub reinvocation_policy: String,
}

impl Hook {
    pub fn ignores_failure(&self) -> bool {
        self.failure_policy == "Ignore"
    }
}

/// All webhooks of a kind of configuration, by the configurations' names.
pub fn all(objects: &dyn Objects, resource: &str) -> Vec<Hook> {
    let mut configurations = objects.list(&Gvr::new(GROUP, "v1", resource), "");
    configurations.sort_by(|a, b| meta::name(a).cmp(meta::name(b)));
    configurations.iter().flat_map(|c| of(c)).collect()
}

fn of(configuration: &Value) -> Vec<Hook> {
    let mut hooks: Vec<Hook> = Vec::new();
    for value in items(&configuration["webhooks"]) {
        // What was validated when it was written can be read.
        let (Ok(mut hook), Ok(constraints)) = (Hook::deserialize(value), Constraints::deserialize(value))
        else {
            continue;
        };
        let same = hooks.iter().filter(|h| h.name == hook.name).count();
        hook.configuration = meta::name(configuration).to_owned();
        hook.key = format!("{}/{}/{same}", hook.configuration, hook.name);
        hook.constraints = constraints;
        hook.conditions = Conditions::compile(
            &value["matchConditions"],
            Names { authorizer: true, ..Names::default() },
            &Compiler::default(),
            hook.ignores_failure(),
        );
        hooks.push(hook);
    }
    hooks
}
