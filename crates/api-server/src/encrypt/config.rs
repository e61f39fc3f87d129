//! `EncryptionConfiguration`: which resources are encrypted at rest, by which providers.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::structured::{Document, go_duration};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

/// Resource lists are asked in order, earlier ones take precedence.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncryptionConfiguration {
    #[serde(default)]
    pub resources: Vec<ResourceConfiguration>,
}

/// The first provider writes, all read.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceConfiguration {
    #[serde(default)]
    pub resources: Vec<String>,
    #[serde(default)]
    pub providers: Vec<ProviderConfiguration>,
}

/// Exactly one of them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProviderConfiguration {
    pub aesgcm: Option<Keys>,
    pub aescbc: Option<Keys>,
    pub secretbox: Option<Keys>,
    pub identity: Option<Identity>,
    pub kms: Option<KmsConfiguration>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    #[serde(default)]
    pub keys: Vec<Key>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    #[serde(default)]
    pub name: String,
    /// Base64.
    #[serde(default)]
    secret: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct KmsConfiguration {
    #[serde(default)]
    pub api_version: String,
    #[serde(default)]
    pub name: String,
    #[serde(default, rename = "cachesize")]
    cache_size: Option<i32>,
    #[serde(default)]
    pub endpoint: String,
    #[serde(default, deserialize_with = "go_duration")]
    timeout: Option<Duration>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Key {
    /// Empty where it is no base64, which validation refuses.
    pub fn secret(&self) -> Vec<u8> {
        STANDARD.decode(&self.secret).unwrap_or_default()
    }
}

impl KmsConfiguration {
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(DEFAULT_TIMEOUT)
    }
}

impl Document for EncryptionConfiguration {
    const KIND: &'static str = "EncryptionConfiguration";
    const VERSIONS: &'static [&'static str] = &["v1"];

    fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.resources.is_empty() {
            found.push("resources: at least one resources is required".to_owned());
        }
        let mut plugins: Vec<&str> = Vec::new();
        let mut earlier: Vec<GroupResource<'_>> = Vec::new();
        for (i, entry) in self.resources.iter().enumerate() {
            let path = format!("resources[{i}]");
            entry.check_resources(&path, &mut earlier, &mut found);
            if entry.providers.is_empty() {
                found.push(format!("{path}.providers: at least one {path}.providers is required"));
            }
            for (j, provider) in entry.providers.iter().enumerate() {
                provider.check(&format!("{path}.providers[{j}]"), &mut plugins, &mut found);
            }
        }
        found
    }
}

/// `resource.group`; either may be `*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupResource<'a> {
    pub group: &'a str,
    pub resource: &'a str,
}

impl<'a> GroupResource<'a> {
    pub fn parse(text: &'a str) -> Self {
        let (resource, group) = text.split_once('.').unwrap_or((text, ""));
        Self { group, resource }
    }

    fn is_everything(self) -> bool {
        self.group == "*" && self.resource == "*"
    }

    /// Whether this one, a wildcard, takes in the other.
    fn masks(self, other: Self) -> bool {
        self.is_everything() || self.resource == "*" && self.group == other.group
    }
}

impl ResourceConfiguration {
    fn check_resources<'a>(
        &'a self,
        path: &str,
        earlier: &mut Vec<GroupResource<'a>>,
        found: &mut Vec<String>,
    ) {
        let path = format!("{path}.resources");
        if self.resources.is_empty() {
            found.push(format!("{path}: at least one {path} is required"));
        }
        let all: Vec<GroupResource<'_>> = self.resources.iter().map(|r| GroupResource::parse(r)).collect();
        let pairs =
            || (0..all.len()).flat_map(|i| (0..all.len()).filter(move |j| i != *j).map(move |j| (i, j)));
        if pairs().any(|(i, j)| all[i] == all[j]) {
            found.push(format!("{path}: the same resource cannot be specified multiple times"));
        }
        if pairs().any(|(i, j)| all[i] != all[j] && all[i].masks(all[j])) {
            found.push(format!(
                "{path}: using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked"
            ));
        }
        for (i, (text, resource)) in self.resources.iter().zip(&all).enumerate() {
            if let Some(problem) = problem_of_name(text, *resource) {
                found.push(format!("{path}[{i}]: {problem}"));
            }
            if let Some(mask) = earlier.iter().find(|e| e.masks(*resource)) {
                let rule = if mask.group.is_empty() { "*.".to_owned() } else { format!("*.{}", mask.group) };
                found.push(format!("{path}[{i}]: resource {text:?} is masked by earlier rule {rule:?}"));
            }
        }
        earlier.extend(all);
    }
}

fn problem_of_name(text: &str, resource: GroupResource<'_>) -> Option<&'static str> {
    Some(match text {
        _ if text.chars().any(char::is_uppercase) => "resource name should not contain capital letters",
        "*" => "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
        "apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations" => {
            "resources which do not have REST API/s cannot be encrypted"
        }
        _ if resource.group == "events.k8s.io" => {
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file"
        }
        _ if resource.group == "extensions" => {
            "'extensions' group has been removed and cannot be used for encryption"
        }
        _ if resource.group == "*" && resource.resource != "*" => {
            "encrypting the same resource across groups is not supported"
        }
        _ => return None,
    })
}

impl ProviderConfiguration {
    fn check<'a>(&'a self, path: &str, plugins: &mut Vec<&'a str>, found: &mut Vec<String>) {
        let keyed = [
            ("aesgcm", &self.aesgcm, &[16, 24, 32][..]),
            ("aescbc", &self.aescbc, &[16, 24, 32][..]),
            ("secretbox", &self.secretbox, &[32][..]),
        ];
        let count = keyed.iter().filter(|(_, keys, _)| keys.is_some()).count()
            + usize::from(self.identity.is_some())
            + usize::from(self.kms.is_some());
        match count {
            0 => found.push(format!(
                "{path}: provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity"
            )),
            1 => {}
            _ => found.push(format!(
                "{path}: more than one provider specified in a single element, should split into different list elements"
            )),
        }
        for (name, keys, sizes) in keyed {
            if let Some(keys) = keys {
                keys.check(&format!("{path}.{name}.keys"), sizes, found);
            }
        }
        if let Some(kms) = &self.kms {
            kms.check(&format!("{path}.kms"), plugins, found);
            plugins.push(&kms.name);
        }
    }
}

impl Keys {
    fn check(&self, path: &str, sizes: &[usize], found: &mut Vec<String>) {
        if self.keys.is_empty() {
            found.push(format!("{path}: at least one keys is required"));
        }
        for (i, key) in self.keys.iter().enumerate() {
            let path = format!("{path}[{i}]");
            if key.name.is_empty() {
                found.push(format!("{path}.name: name is a mandatory field for a key"));
            }
            if key.secret.is_empty() {
                found.push(format!("{path}.secret: secret is a mandatory field for a key"));
                continue;
            }
            match STANDARD.decode(&key.secret).map(|s| s.len()) {
                Err(_) => found.push(format!("{path}.secret: secrets must be base64 encoded")),
                Ok(size) if !sizes.contains(&size) => found.push(format!(
                    "{path}.secret: secret is not of the expected length, got {size}, expected one of {sizes:?}"
                )),
                Ok(_) => {}
            }
        }
    }
}

impl KmsConfiguration {
    fn check(&self, path: &str, others: &[&str], found: &mut Vec<String>) {
        let mut add = |field: &str, problem: String| found.push(format!("{path}.{field}: {problem}"));
        let name = &self.name;
        if name.is_empty() {
            add("name", "name is a mandatory field for a provider".into());
        } else if name.contains(':') {
            add("name", format!("invalid KMS provider name {name}, must not contain ':'"));
        }
        if others.contains(&name.as_str()) {
            add("name", format!("duplicate KMS provider name {name}, names must be unique"));
        }
        if self.timeout().is_zero() {
            add("timeout", "timeout should be a positive value".into());
        }
        if self.endpoint.is_empty() {
            add("endpoint", "endpoint is a mandatory field for a kms".into());
        } else if !self.endpoint.starts_with("unix:") {
            let scheme = self.endpoint.split_once("://").map_or("", |(scheme, _)| scheme);
            add(
                "endpoint",
                format!("unsupported scheme {scheme:?} for KMS provider, only unix is supported"),
            );
        }
        match self.api_version.as_str() {
            "v2" if self.cache_size.is_some() => add("cachesize", "cachesize is not supported in v2".into()),
            "v2" => {}
            // What upstream's default is, where the feature gate KMSv1 is off.
            "" | "v1" => add("apiVersion", "KMSv1 is deprecated: use KMSv2 (apiVersion: v2)".into()),
            other => add(
                "apiVersion",
                format!("unsupported apiVersion {other} for KMS provider, only v2 is supported"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        keelson_daemon::config::parse::<EncryptionConfiguration>(text).expect("it parses").problems()
    }

    const KEY: &str = "aescbc: {keys: [{name: k, secret: c2VjcmV0IGlzIHNlY3VyZQ==}]}";

    #[test]
    fn what_would_not_work_as_written_is_named() {
        let cases = [
            (format!("resources: [{{resources: [secrets, '*.apps'], providers: [{{{KEY}}}]}}]"), None),
            ("{}".into(), Some("resources: at least one")),
            (
                format!("resources: [{{resources: [secrets, '*.'], providers: [{{{KEY}}}]}}]"),
                Some("overlapping resources"),
            ),
            (
                format!(
                    "resources: [{{resources: ['*.*'], providers: [{{{KEY}}}]}}, {{resources: [secrets], providers: [{{identity: {{}}}}]}}]"
                ),
                Some(r#"resource "secrets" is masked by earlier rule "*.*""#),
            ),
            (
                format!("resources: [{{resources: [a, a], providers: [{{{KEY}}}]}}]"),
                Some("the same resource cannot"),
            ),
            (
                "resources: [{resources: [a], providers: [{secretbox: {keys: [{name: k, secret: c2VjcmV0IGlzIHNlY3VyZQ==}]}}]}]".into(),
                Some("got 16, expected one of [32]"),
            ),
            (
                format!("resources: [{{resources: [a], providers: [{{{KEY}, identity: {{}}}}]}}]"),
                Some("more than one provider"),
            ),
            (
                "resources: [{resources: [a], providers: [{kms: {name: 'a:b', endpoint: 'https://x', apiVersion: v2}}]}]".into(),
                Some("must not contain ':'"),
            ),
            (
                "resources: [{resources: [a], providers: [{kms: {name: a, endpoint: 'unix:///x'}}]}]".into(),
                Some("KMSv1 is deprecated"),
            ),
        ];
        for (text, want) in cases {
            let got = problems(&text);
            match want {
                None => assert_eq!(got, Vec::<String>::new(), "{text}"),
                Some(part) => assert!(got.iter().any(|p| p.contains(part)), "{text}: {got:?}"),
            }
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        let parsed: Keys =
            keelson_daemon::config::parse("keys: [{name: k, secret: c2VjcmV0}]").expect("keys");
        assert!(!format!("{parsed:?}").contains("c2Vj"));
    }
}
