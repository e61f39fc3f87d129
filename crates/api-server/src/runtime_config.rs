//! Which of the built-in APIs are served: upstream's `--runtime-config`.

use std::collections::BTreeMap;

use keelson_api_types::gvk::api_version;
use keelson_api_types::resources::{ALL, ResourceInfo};
use serde::{Deserialize, Serialize};

/// Settings by `api/all`, `api/ga`, `api/beta`, `api/alpha`, `GROUP/VERSION` or `GROUP/VERSION/RESOURCE`; the more
/// particular counts. What nothing is said of is served if its version is stable.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub struct RuntimeConfig(BTreeMap<String, Setting>);

/// Written as a boolean, or as text, as the flag's are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
enum Setting {
    Bool(bool),
    Text(String),
}

/// Keys for all versions of a stability, the later over the earlier.
const STAGES: [&str; 4] = ["api/all", "api/ga", "api/beta", "api/alpha"];

impl Setting {
    /// What Go's `strconv.ParseBool` makes of it; nothing at all is true.
    fn value(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            Self::Text(text) => match text.as_str() {
                "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
                _ => None,
            },
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

impl RuntimeConfig {
    pub fn serves(&self, resource: &ResourceInfo) -> bool {
        let stage = stage(resource.version);
        let group_version = format!("{}/{}", resource.group, resource.version);
        let particular = format!("{group_version}/{}", resource.resource);
        let keys = [&*particular, &*group_version, stage, STAGES[0]];
        let said = keys.iter().find_map(|key| self.0.get(*key)?.value());
        said.unwrap_or(stage == "api/ga")
    }

    /// What is wrong with it, in upstream's words.
    pub fn problems(&self) -> Vec<String> {
        if self.0.len() == 1 && self.0.get(STAGES[0]).is_some_and(|all| all.text() == "false") {
            return vec!["invalid runtime-config with only api/all=false".to_owned()];
        }
        let mut problems = Vec::new();
        let mut unknown = Vec::new();
        for (key, setting) in &self.0 {
            let value = setting.text();
            if STAGES.contains(&&**key) {
                if value != "true" && value != "false" {
                    problems.push(format!("invalid value {key}={value}"));
                }
                continue;
            }
            let (group, version, resource) = match key.split('/').collect::<Vec<_>>()[..] {
                [group, version] => (group, version, ""),
                [group, version, resource] => (group, version, resource),
                _ => {
                    problems.push(format!("runtime-config invalid key {key}"));
                    continue;
                }
            };
            let group_version = api_version(group, version);
            if ALL.iter().all(|r| r.group != group) {
                unknown.push(group_version);
            } else if !ALL.iter().any(|r| r.group == group && r.version == version) {
                problems.push(format!("group version {group_version} that has not been registered"));
            } else if setting.value().is_none() {
                problems.push(format!(
                    "invalid value of {key}: {value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax"
                ));
            } else if resource.to_lowercase() != resource {
                problems.push(format!(
                    "invalid key {key}: group/version/resource and resource is always lowercase plural, not {resource:?}"
                ));
            }
        }
        if !unknown.is_empty() {
            problems.push(format!("unknown api groups {}", unknown.join(",")));
        }
        problems
    }
}

/// The key for all versions as stable as this one.
fn stage(version: &str) -> &'static str {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let of = |name: &str| {
        let parts = version.strip_prefix('v').and_then(|rest| rest.split_once(name));
        parts.is_some_and(|(major, minor)| digits(major) && digits(minor))
    };
    match version {
        _ if of("beta") => "api/beta",
        _ if of("alpha") => "api/alpha",
        _ => "api/ga",
    }
}

#[cfg(test)]
mod tests {
    use keelson_api_types::resources;
    use serde_json::{Value, json};

    use super::*;

    fn config(settings: Value) -> RuntimeConfig {
        serde_json::from_value(settings).unwrap()
    }

    #[test]
    fn the_more_particular_setting_counts() {
        let served = |settings: Value| {
            let config = config(settings);
            assert_eq!(config.problems(), [""; 0]);
            let resources = [
                ("apps", "v1", "deployments"),
                ("apps", "v1", "daemonsets"),
                ("storagemigration.k8s.io", "v1beta1", "storageversionmigrations"),
            ];
            resources.map(|(g, v, r)| config.serves(resources::find(g, v, r).unwrap()))
        };
        for (settings, expected) in [
            (json!({}), [true, true, false]),
            (json!({"storagemigration.k8s.io/v1beta1": true}), [true, true, true]),
            (json!({"storagemigration.k8s.io/v1beta1": ""}), [true, true, true]),
            (json!({"api/beta": "true"}), [true, true, true]),
            (json!({"api/all": "true"}), [true, true, true]),
            (json!({"api/all": true, "api/beta": false}), [true, true, false]),
            (json!({"api/all": false, "api/ga": true}), [true, true, false]),
            (json!({"apps/v1": "0"}), [false, false, false]),
            (json!({"apps/v1": false, "apps/v1/deployments": true}), [true, false, false]),
            (json!({"api/beta": true, "storagemigration.k8s.io/v1beta1": "f"}), [true, true, false]),
        ] {
            assert_eq!(served(settings.clone()), expected, "{settings}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_in_upstreams_words() {
        for (settings, expected) in [
            (json!({"api/all": "false"}), &["invalid runtime-config with only api/all=false"][..]),
            (json!({"api/all": false, "api/beta": "yes"}), &["invalid value api/beta=yes"]),
            (json!({"v1": true}), &["runtime-config invalid key v1"]),
            (json!({"a/b/c/d": true}), &["runtime-config invalid key a/b/c/d"]),
            (json!({"b.io/v1": true, "a.io/v1/x": true}), &["unknown api groups a.io/v1,b.io/v1"]),
            (json!({"/v7": true}), &["group version v7 that has not been registered"]),
            (json!({"apps/v9": true}), &["group version apps/v9 that has not been registered"]),
            (
                json!({"apps/v1": "yes"}),
                &["invalid value of apps/v1: yes, err: strconv.ParseBool: parsing \"yes\": invalid syntax"],
            ),
            (
                json!({"apps/v1/Deployments": true}),
                &[
                    "invalid key apps/v1/Deployments: group/version/resource and resource is always lowercase \
                   plural, not \"Deployments\"",
                ],
            ),
        ] {
            assert_eq!(config(settings.clone()).problems(), expected, "{settings}");
        }
    }
}
