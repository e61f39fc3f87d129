//! Configuration files: read whole, unknown keys refused, every problem named with its path.

use crate::LogConfig;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Why a configuration was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read the configuration {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// `problem` has the path of the bad key, and its line where that is known.
    #[error("the configuration {} is invalid: {problem}", path.display())]
    Parse { path: PathBuf, problem: String },
    #[error("the configuration {} is invalid:{}", path.display(), list(problems))]
    Invalid { path: PathBuf, problems: Vec<String> },
}

fn list(problems: &[String]) -> String {
    problems.iter().map(|p| format!("\n  {p}")).collect()
}

/// A configuration that can say all that is wrong with it. The type should have
/// `#[serde(rename_all = "camelCase", deny_unknown_fields)]`.
pub trait Validate {
    /// Every problem as `path.of.the.field: what is wrong`. Empty when the configuration is good.
    fn validate(&self) -> Vec<String>;

    /// Where the configuration says how to log.
    fn logging(&self) -> LogConfig {
        LogConfig::default()
    }
}

/// Reads and checks a configuration.
pub fn load<C: DeserializeOwned + Validate>(path: &Path) -> Result<C, Error> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let config: C = parse(&text).map_err(|problem| Error::Parse { path: path.to_owned(), problem })?;
    let mut problems = config.validate();
    if let Err(error) = config.logging().check() {
        problems.push(format!("logging.level: {error}"));
    }
    if problems.is_empty() { Ok(config) } else { Err(Error::Invalid { path: path.to_owned(), problems }) }
}

/// Parses YAML; the error names the path of the bad key. An empty document is an empty mapping.
pub fn parse<C: DeserializeOwned>(text: &str) -> Result<C, String> {
    let blank =
        text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#') || l.trim() == "---");
    let text = if blank { "{}" } else { text };
    let mut bad = None;
    let parsed = serde_saphyr::with_deserializer_from_str(text, |de| {
        serde_path_to_error::deserialize(de).map_err(|error| {
            bad = Some(error.path().to_string());
            error.into_inner()
        })
    });
    parsed.map_err(|error: serde_saphyr::Error| {
        let at = error
            .location()
            .map(|l| format!(" (line {}, column {})", l.line(), l.column()))
            .unwrap_or_default();
        let what = plain(&error);
        match bad.as_deref() {
            None | Some("." | "?") => format!("{what}{at}"),
            Some(path) => format!("{path}: {what}{at}"),
        }
    })
}

/// The message alone: no source excerpt and no location, which [`parse`] adds in its own form.
fn plain(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let first = text.lines().next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let cut = first.find(" at line ").unwrap_or(first.len());
    first[..cut].trim_end_matches([',', ':']).to_owned()
}

/// Collects problems for [`Validate::validate`].
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

impl Problems {
    pub fn new() -> Problems {
        Problems::default()
    }

    /// Notes `what` about `path` unless `good`.
    pub fn check(&mut self, good: bool, path: &str, what: impl std::fmt::Display) -> &mut Problems {
        if !good {
            self.0.push(format!("{path}: {what}"));
        }
        self
    }

    /// Notes a file that is not there.
    pub fn file(&mut self, path: &str, file: &Path) -> &mut Problems {
        self.check(file.is_file(), path, format_args!("no file {}", file.display()))
    }

    pub fn extend(&mut self, more: impl IntoIterator<Item = String>) -> &mut Problems {
        self.0.extend(more);
        self
    }

    pub fn into_vec(self) -> Vec<String> {
        self.0
    }
}

/// Where a daemon serves health and metrics, and with which certificates.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Serving {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Only clients with a certificate of this authority are served.
    pub client_ca_file: PathBuf,
}

impl Serving {
    /// Problems of this part, which stands at `path` in the configuration.
    pub fn validate(&self, path: &str) -> Vec<String> {
        let mut problems = Problems::new();
        problems
            .file(&format!("{path}.certFile"), &self.cert_file)
            .file(&format!("{path}.keyFile"), &self.key_file)
            .file(&format!("{path}.clientCaFile"), &self.client_ca_file);
        problems.into_vec()
    }
}
