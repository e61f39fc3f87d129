//! Logs go to stderr: whoever starts the daemon decides where that leads.

use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, fmt};

/// The `logging` part of every daemon's configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LogConfig {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`), or `LEVEL,TARGET=LEVEL,…`.
    /// The environment variable `KEELSON_LOG` overrides it.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Why a level was not understood.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{part:?} is neither a level (error, warn, info, debug, trace, off) nor TARGET=LEVEL")]
    Part { part: String },
    #[error("parse the log level {level:?}")]
    Parse { level: String, source: ParseError },
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig { level: "info".to_owned(), format: LogFormat::Text }
    }
}

impl LogConfig {
    pub(crate) fn check(&self) -> Result<(), Error> {
        parse(&self.level).map(drop)
    }
}

/// Sets the process's subscriber. A second call leaves the first in place.
pub fn init(config: &LogConfig) -> Result<(), Error> {
    let level = std::env::var("KEELSON_LOG").unwrap_or_else(|_| config.level.clone());
    let filter = parse(&level)?;
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(ansi);
    let subscriber = tracing_subscriber::registry();
    // An error here says that a subscriber is set already.
    let _ = match config.format {
        LogFormat::Text => {
            tracing::subscriber::set_global_default(subscriber.with(layer.with_filter(filter)))
        }
        LogFormat::Json => {
            tracing::subscriber::set_global_default(subscriber.with(layer.json().with_filter(filter)))
        }
    };
    Ok(())
}

/// `Targets` takes a lone word that is no level for a target; here it is a mistake.
fn parse(level: &str) -> Result<Targets, Error> {
    if let Some(part) = level.split(',').find(|p| !p.contains('=') && p.parse::<LevelFilter>().is_err()) {
        return Err(Error::Part { part: part.to_owned() });
    }
    level.parse().map_err(|source| Error::Parse { level: level.to_owned(), source })
}
