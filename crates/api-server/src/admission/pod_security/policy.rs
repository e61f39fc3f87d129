//! What a namespace's labels ask of its pods.

use std::fmt::{self, Display};

use keelson_api_types::{FieldError, meta};
use serde::Deserialize;
use serde_json::Value;

pub const PREFIX: &str = "pod-security.kubernetes.io/";
/// The last minor version in which the standard changed: later ones, and `latest`, mean this one.
const NEWEST: u32 = 35;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standard {
    pub level: Level,
    /// None: the latest.
    pub minor: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    pub enforce: Standard,
    pub audit: Standard,
    pub warn: Standard,
}

impl Standard {
    pub fn effective_minor(self) -> u32 {
        self.minor.unwrap_or(NEWEST).min(NEWEST)
    }
}

impl Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        })
    }
}

impl Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.minor {
            Some(minor) => write!(f, "{}:v1.{minor}", self.level),
            None => write!(f, "{}:latest", self.level),
        }
    }
}

impl Policy {
    /// The policy of a namespace's labels, and what is wrong with them: a wrong level means the strictest
    /// for what is enforced, and nothing for what is only told.
    pub fn of(namespace: &Value) -> (Self, Vec<FieldError>) {
        let label = |key: &str| meta::labels(namespace)?.get(&format!("{PREFIX}{key}"))?.as_str();
        let (mut policy, mut errors) = (Self::default(), Vec::new());
        let mut wrong = |key: &str, value: &str, why: &str| {
            errors.push(FieldError::invalid(format!("metadata.labels[{PREFIX}{key}]"), value, why));
        };
        let mut enforced = false;
        for (mode, standard, fallback) in [
            ("enforce", &mut policy.enforce, Level::Restricted),
            ("audit", &mut policy.audit, Level::Privileged),
            ("warn", &mut policy.warn, Level::Privileged),
        ] {
            if let Some(value) = label(mode) {
                standard.level = parse_level(value).unwrap_or_else(|| {
                    wrong(mode, value, "must be one of privileged, baseline, restricted");
                    fallback
                });
                enforced |= mode == "enforce" && parse_level(value).is_some();
            }
            let key = format!("{mode}-version");
            if let Some(value) = label(&key) {
                standard.minor = parse_version(value).unwrap_or_else(|| {
                    wrong(&key, value, "must be \"latest\" or \"v1.x\"");
                    None
                });
            }
        }
        // Who is about to be refused is warned of it where only templates are seen.
        if label("warn").is_none() && enforced && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if label("warn-version").is_none() {
                policy.warn.minor = policy.enforce.minor;
            }
        }
        (policy, errors)
    }

    pub fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|s| s.level == Level::Privileged)
    }
}

fn parse_level(text: &str) -> Option<Level> {
    [Level::Privileged, Level::Baseline, Level::Restricted].into_iter().find(|l| l.to_string() == text)
}

fn parse_version(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    let minor = text.strip_prefix("v1.")?;
    let canonical = minor.bytes().all(|b| b.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
    minor.parse().ok().filter(|_| canonical).map(Some)
}
