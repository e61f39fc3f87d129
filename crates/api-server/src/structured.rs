//! Upstream's structured configurations (`AuthenticationConfiguration` and its kin) as parts of the server's
//! own file: written inline, or named as a file of their own that is followed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keelson_api_types::duration;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// How often a followed file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The API group of all of them.
const GROUP: &str = "apiserver.config.k8s.io";

/// A document of the group, with all that can be wrong in one beyond its grammar.
pub trait Document: DeserializeOwned + Send + Sync + 'static {
    const KIND: &'static str;
    const VERSIONS: &'static [&'static str];

    /// Every problem as `path.of.the.field: what is wrong`; paths are below the document.
    fn problems(&self) -> Vec<String>;
}

#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {problem}", path.display())]
    Parse { path: PathBuf, problem: String },
    #[error("{}: {}", path.display(), problems.join("; "))]
    Invalid { path: PathBuf, problems: Vec<String> },
}

/// Where a document stands: `{file: PATH}`, or the document itself.
#[derive(Debug, Clone)]
pub enum Source<T> {
    Inline(T),
    File(PathBuf),
}

impl<T> Serialize for Source<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Inline(_) => to.collect_map([("inline", true)]),
            Self::File(path) => to.collect_map([("file", path)]),
        }
    }
}

impl<'de, T: Document> Deserialize<'de> for Source<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if let Some(file) = value.get("file") {
            let alone = value.as_object().is_some_and(|o| o.len() == 1);
            return match file.as_str().filter(|_| alone) {
                Some(path) => Ok(Self::File(path.into())),
                None => Err(D::Error::custom("file: must be a path and stand alone")),
            };
        }
        from_value(value).map(Self::Inline).map_err(D::Error::custom)
    }
}

impl<T: Document + Clone> Source<T> {
    pub fn load(&self) -> Result<T, DocumentError> {
        match self {
            Self::Inline(document) => Ok(document.clone()),
            Self::File(path) => load(path),
        }
    }

    /// Problems of an inline document, which stands at `path` in the configuration, or of its file.
    pub fn problems(&self, path: &str) -> Vec<String> {
        match self {
            Self::Inline(document) => {
                document.problems().into_iter().map(|p| format!("{path}.{p}")).collect()
            }
            Self::File(file) => load::<T>(file).err().map(|e| format!("{path}: {e}")).into_iter().collect(),
        }
    }

    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Inline(_) => None,
            Self::File(path) => Some(path),
        }
    }
}

/// Reads and checks a document of its own file.
pub fn load<T: Document>(path: &Path) -> Result<T, DocumentError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| DocumentError::Read { path: path.to_owned(), source })?;
    let parse = |problem: String| DocumentError::Parse { path: path.to_owned(), problem };
    let value: Value = keelson_daemon::config::parse(&text).map_err(parse)?;
    if value.get("kind").is_none() || value.get("apiVersion").is_none() {
        return Err(parse("apiVersion and kind are missing".to_owned()));
    }
    let document: T = from_value(value).map_err(parse)?;
    match document.problems() {
        none if none.is_empty() => Ok(document),
        problems => Err(DocumentError::Invalid { path: path.to_owned(), problems }),
    }
}

/// What a document says it is must be right; inline it may leave that out.
fn from_value<T: Document>(mut value: Value) -> Result<T, String> {
    if let Some(map) = value.as_object_mut() {
        let kind = map.remove("kind");
        let version = map.remove("apiVersion");
        if kind.as_ref().is_some_and(|k| *k != T::KIND) {
            return Err(format!("kind: must be {}", T::KIND));
        }
        let known = |v: &Value| T::VERSIONS.iter().any(|known| *v == format!("{GROUP}/{known}"));
        if version.as_ref().is_some_and(|v| !known(v)) {
            return Err(format!("apiVersion: must be {GROUP}/{}", T::VERSIONS[0]));
        }
    }
    serde_path_to_error::deserialize(value).map_err(|e| match e.path().to_string().as_str() {
        "." => e.inner().to_string(),
        path => format!("{path}: {}", e.inner()),
    })
}

/// Hands every new content of the file to `take` until shutdown. What is broken, or what `take` refuses, is
/// logged and leaves the last good one in use; a refused one is tried again only when the file changes.
pub async fn follow<T, F>(path: PathBuf, shutdown: CancellationToken, mut take: impl FnMut(T) -> F)
where
    T: Document,
    F: Future<Output = Result<(), String>>,
{
    let mut seen = std::fs::read(&path).ok();
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = shutdown.cancelled() => return,
        }
        let now = std::fs::read(&path).ok();
        if now == seen || now.is_none() {
            continue;
        }
        seen = now;
        let taken = match load::<T>(&path) {
            Ok(document) => take(document).await,
            Err(error) => Err(error.to_string()),
        };
        match taken {
            Ok(()) => tracing::info!(file = %path.display(), "{} loaded", T::KIND),
            Err(error) => {
                tracing::error!(file = %path.display(), error, "kept the {} loaded before", T::KIND)
            }
        }
    }
}

/// A duration in Go's syntax, like `1m30s`.
pub fn go_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let nanoseconds = duration::parse_go(&text).and_then(|n| u64::try_from(n).ok());
    let wrong = || D::Error::custom(format!("{text:?} is not a duration like 30s"));
    nanoseconds.map(|n| Some(Duration::from_nanos(n))).ok_or_else(wrong)
}
