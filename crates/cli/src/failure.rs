//! What can go wrong, in the words that kubectl has taught its users.

use serde_json::Value;

use crate::value::{list, text};

/// An error with a text or exit code of its own. Everything else prints as `error: …`.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The server answered with a `Status`.
    #[error("{}", text(.0, "/message"))]
    Status(Box<Value>),
    #[error("The connection to the server {host} was refused - did you specify the right host or port?")]
    Refused { host: String },
    #[error("Unable to connect to the server: {0}")]
    Unreachable(String),
    #[error("command terminated with exit code {0}")]
    Command(u8),
    /// Everything is said already.
    #[error("exit code {0}")]
    Exit(u8),
    /// Several things failed, one line each.
    #[error("{}", .0.iter().map(explain).collect::<Vec<_>>().join("\n"))]
    Many(Vec<anyhow::Error>),
}

impl Failure {
    /// The status' reason, such as `NotFound`; empty for other failures.
    pub fn reason(&self) -> &str {
        match self {
            Failure::Status(status) => text(status, "/reason"),
            _ => "",
        }
    }
}

/// Whether the server said so.
pub fn is(error: &anyhow::Error, reason: &str) -> bool {
    error.downcast_ref::<Failure>().is_some_and(|f| f.reason() == reason)
}

/// Ok when nothing failed, the error itself when one did.
pub fn all(mut errors: Vec<anyhow::Error>) -> anyhow::Result<()> {
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(Failure::Many(errors).into()),
    }
}

/// Says on which input a failure happened: `error when creating "web.yaml": …`.
pub fn on_source(error: anyhow::Error, doing: &str, source: &str) -> anyhow::Error {
    match error.downcast::<Failure>() {
        Ok(Failure::Status(mut status)) => {
            let message = format!("error when {doing} {source:?}: {}", text(&status, "/message"));
            status["message"] = message.into();
            Failure::Status(status).into()
        }
        Ok(other) => other.into(),
        Err(error) => error.context(format!("error when {doing} {source:?}")),
    }
}

/// The exit code for an error.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Failure>() {
        Some(Failure::Command(code) | Failure::Exit(code)) => *code,
        _ => 1,
    }
}

/// What to print for an error; empty when all is said.
pub fn explain(error: &anyhow::Error) -> String {
    match error.downcast_ref::<Failure>() {
        Some(Failure::Exit(_)) => String::new(),
        Some(Failure::Status(status)) => explain_status(status),
        Some(refused @ Failure::Refused { .. }) => {
            format!("{refused}\nhint: `ctl cluster up` raises a cluster on this machine")
        }
        Some(known) => known.to_string(),
        None => {
            let text = format!("{error:#}");
            if text.starts_with("error: ") { text } else { format!("error: {text}") }
        }
    }
}

fn explain_status(status: &Value) -> String {
    let (reason, message) = (text(status, "/reason"), text(status, "/message"));
    match reason {
        "Unauthorized" => format!("error: You must be logged in to the server ({message})"),
        "Invalid" => explain_invalid(status),
        "" => format!("Error from server: {message}"),
        _ => format!("Error from server ({reason}): {message}"),
    }
}

fn explain_invalid(status: &Value) -> String {
    let (kind, name) = (text(status, "/details/kind"), text(status, "/details/name"));
    let causes = list(status, "/details/causes");
    let mut subject = "The request is invalid".to_owned();
    if !kind.is_empty() || !name.is_empty() {
        subject = format!("The {kind} {name:?} is invalid");
    } else if causes.is_empty() {
        subject = format!("{subject}: {}", text(status, "/message"));
    }
    let mut lines: Vec<String> = causes
        .iter()
        .map(|cause| match text(cause, "/field") {
            "" => text(cause, "/message").to_owned(),
            field => format!("{field}: {}", text(cause, "/message")),
        })
        .collect();
    let mut seen = std::collections::HashSet::new();
    lines.retain(|line| seen.insert(line.clone()));
    match lines.as_slice() {
        [] => subject,
        [one] => format!("{subject}: {one}"),
        many => format!("{subject}: \n* {}", many.join("\n* ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(status: Value, expected: &str) {
        assert_eq!(explain(&Failure::Status(Box::new(status)).into()), expected);
    }

    #[test]
    fn statuses_read_as_kubectl_prints_them() {
        check(
            json!({"reason": "NotFound", "message": "pods \"x\" not found"}),
            "Error from server (NotFound): pods \"x\" not found",
        );
        check(
            json!({"reason": "Unauthorized", "message": "Unauthorized"}),
            "error: You must be logged in to the server (Unauthorized)",
        );
        let cause = |field: &str| json!({"field": field, "message": "Required value"});
        check(
            json!({"reason": "Invalid", "details": {"kind": "Pod", "name": "x", "causes": [cause("spec.a")]}}),
            "The Pod \"x\" is invalid: spec.a: Required value",
        );
        check(
            json!({"reason": "Invalid", "details": {"kind": "Pod", "name": "x", "causes": [cause("a"), cause("b")]}}),
            "The Pod \"x\" is invalid: \n* a: Required value\n* b: Required value",
        );
    }

    #[test]
    fn a_status_names_the_file_it_is_about() {
        let error = Failure::Status(Box::new(json!({"reason": "BadRequest", "message": "no"}))).into();
        let error = on_source(error, "creating", "a.yaml");
        assert_eq!(explain(&error), "Error from server (BadRequest): error when creating \"a.yaml\": no");
    }
}
