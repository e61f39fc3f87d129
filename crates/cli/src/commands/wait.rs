//! `ctl wait`: until objects are as wanted.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use futures::StreamExt;
use serde_json::Value;
use tokio::time::Instant;

use crate::client::Call;
use crate::context::Context;
use crate::failure;
use crate::files::FileArgs;
use crate::jsonpath::{Template, text_of};
use crate::resources::{Found, SelectorArgs, Wanted};
use crate::value::{list, text};

#[derive(Debug, Args)]
pub struct WaitArgs {
    /// TYPE NAME… or TYPE/NAME…
    words: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    selectors: SelectorArgs,
    /// delete, create, condition=NAME[=VALUE] or jsonpath=PATH[=VALUE]
    #[arg(long = "for", required = true)]
    conditions: Vec<String>,
    /// How long to wait, such as 30s; 0 looks once, a negative one waits a week
    #[arg(long, default_value = "30s", allow_hyphen_values = true)]
    timeout: String,
    /// All objects of the types given
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    output: crate::output::OutputArgs,
}

/// What is waited for.
#[derive(Debug, PartialEq)]
enum Goal {
    Deleted,
    Created,
    Condition { name: String, status: String },
    JsonPath { template: Template, value: Option<String> },
}

impl Goal {
    fn parse(text: &str) -> anyhow::Result<Goal> {
        let lower = text.to_lowercase();
        if lower == "delete" {
            return Ok(Goal::Deleted);
        }
        if lower == "create" {
            return Ok(Goal::Created);
        }
        if let Some(condition) = text.strip_prefix("condition=") {
            let (name, status) = condition.split_once('=').unwrap_or((condition, "True"));
            return Ok(Goal::Condition { name: name.to_owned(), status: status.to_owned() });
        }
        if let Some(spec) = text.strip_prefix("jsonpath=") {
            let unquoted = spec.replacen("'{", "{", 1).replacen("}'", "}", 1);
            let spec = unquoted.as_str();
            let (path, value) = match spec.find('}') {
                Some(end) if spec.starts_with('{') => {
                    let rest = &spec[end_of_path(spec).unwrap_or(end) + 1..];
                    (&spec[..spec.len() - rest.len()], rest.strip_prefix('='))
                }
                _ => spec.split_once('=').map_or((spec, None), |(path, value)| (path, Some(value))),
            };
            if value == Some("") {
                bail!("jsonpath wait has to have a value after equal sign");
            }
            let value = value.map(|v| v.trim_matches(['\'', '"']).to_owned());
            return Ok(Goal::JsonPath { template: Template::relaxed(path)?, value });
        }
        bail!("unrecognized condition: {text:?}")
    }

    /// Whether an object is as wanted; None stands for no object.
    fn reached(&self, object: Option<&Value>) -> bool {
        match (self, object) {
            (Goal::Deleted, object) => object.is_none(),
            (Goal::Created, object) => object.is_some(),
            (_, None) => false,
            (Goal::Condition { name, status }, Some(object)) => {
                list(object, "/status/conditions").iter().any(|c| {
                    let generation = object.pointer("/metadata/generation").and_then(Value::as_i64);
                    let observed = c.get("observedGeneration").and_then(Value::as_i64);
                    // A condition about an older specification says nothing about this one.
                    let current = observed.is_none() || generation.is_none() || observed >= generation;
                    text(c, "/type").eq_ignore_ascii_case(name)
                        && text(c, "/status").eq_ignore_ascii_case(status)
                        && current
                })
            }
            (Goal::JsonPath { template, value }, Some(object)) => {
                let nodes = template.select(object);
                match value {
                    None => !nodes.is_empty() && nodes.iter().all(|n| !n.is_null() && !text_of(n).is_empty()),
                    Some(value) => matches!(nodes.as_slice(), [one] if text_of(one) == *value),
                }
            }
        }
    }
}

fn end_of_path(spec: &str) -> Option<usize> {
    let (mut quote, mut depth) = (None, 0);
    for (at, c) in spec.char_indices() {
        match c {
            '"' | '\'' if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => quote = Some(c),
            '{' if quote.is_none() => depth += 1,
            '}' if quote.is_none() => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

pub async fn run(context: &Context, args: WaitArgs) -> anyhow::Result<()> {
    let goals: Vec<Goal> = args.conditions.iter().map(|c| Goal::parse(c)).collect::<anyhow::Result<_>>()?;
    let limit = timeout(&args.timeout)?;
    let deadline = Instant::now() + limit.unwrap_or_default();
    let printer = args.output.printer()?;
    let found = find(context, &args, &goals, deadline).await?;
    let mut errors = Vec::new();
    for one in found {
        let mut last = one.object.clone();
        for goal in &goals {
            match until(context, &one, deadline, |object| goal.reached(object)).await {
                Ok(object) => last = object.unwrap_or(last),
                Err(error) => {
                    errors.push(error);
                    break;
                }
            }
            if *goal == Goal::Deleted {
                printer.change(&one.mapping, &last, "deleted", Default::default());
            } else if goals.last() == Some(goal) {
                printer.change(&one.mapping, &last, "condition met", Default::default());
            }
        }
    }
    failure::all(errors)
}

async fn find(
    context: &Context,
    args: &WaitArgs,
    goals: &[Goal],
    deadline: Instant,
) -> anyhow::Result<Vec<Found>> {
    let wanted = Wanted { words: &args.words, files: &args.files, selectors: &args.selectors, all: args.all };
    loop {
        let (found, mut errors) = wanted.find(context).await?;
        if goals.contains(&Goal::Deleted) {
            errors.retain(|error| !failure::is(error, "NotFound"));
            failure::all(errors)?;
            return Ok(found);
        }
        let absent =
            !errors.is_empty() && errors.iter().all(|e| failure::is(e, "NotFound")) || found.is_empty();
        if goals.contains(&Goal::Created) && absent && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        }
        failure::all(errors)?;
        if found.is_empty() {
            bail!("no matching resources found");
        }
        return Ok(found);
    }
}

/// `30s` as a duration; None for no limit said (0), a week for a negative one.
pub fn timeout(text: &str) -> anyhow::Result<Option<Duration>> {
    let nanos = match text.parse::<i64>() {
        Ok(seconds) => seconds * 1_000_000_000,
        Err(_) => keelson_api_types::duration::parse_go(text).with_context(|| {
            format!("invalid argument {text:?} for \"--timeout\" flag: a duration such as 30s is expected")
        })?,
    };
    Ok(match nanos {
        0 => None,
        n if n < 0 => Some(Duration::from_secs(7 * 24 * 3600)),
        n => Some(Duration::from_nanos(n as u64)),
    })
}

/// Waits until an object is gone.
pub async fn gone(context: &Context, found: &Found, limit: Duration) -> anyhow::Result<()> {
    let uid = text(&found.object, "/metadata/uid").to_owned();
    // Another object of the same name means that ours is gone.
    let other = |object: &Value| !uid.is_empty() && text(object, "/metadata/uid") != uid;
    until(context, found, Instant::now() + limit, |object| object.is_none_or(other)).await?;
    Ok(())
}

/// Watches one object until it is as wanted; gives its last state.
pub async fn until(
    context: &Context,
    found: &Found,
    deadline: Instant,
    reached: impl Fn(Option<&Value>) -> bool,
) -> anyhow::Result<Option<Value>> {
    let expired = || {
        anyhow::anyhow!("timed out waiting for the condition on {}/{}", found.mapping.resource, found.name)
    };
    loop {
        let path = found.mapping.collection(found.namespace.as_deref());
        let call = Call::get(path).query("fieldSelector", format!("metadata.name={}", found.name));
        let listed = context.rest.json(call.clone()).await?;
        let present = list(&listed, "/items").first();
        if reached(present) {
            return Ok(present.map(|object| typed(found, object.clone())));
        }
        let version = text(&listed, "/metadata/resourceVersion");
        let watch = call.query("watch", "true").query("resourceVersion", version);
        let mut events = match tokio::time::timeout_at(deadline, context.rest.watch(watch)).await {
            Ok(events) => events?,
            Err(_) => return Err(expired()),
        };
        loop {
            let event = match tokio::time::timeout_at(deadline, events.next()).await {
                Err(_) => return Err(expired()),
                // The watch ended or broke: look again.
                Ok(None | Some(Err(_))) => break,
                Ok(Some(Ok(event))) => event,
            };
            let object = match text(&event, "/type") {
                "ADDED" | "MODIFIED" => Some(&event["object"]),
                "DELETED" => None,
                _ => break,
            };
            if reached(object) {
                return Ok(object.map(|object| typed(found, object.clone())));
            }
        }
    }
}

fn typed(found: &Found, mut object: Value) -> Value {
    object["apiVersion"] = found.mapping.api_version().into();
    object["kind"] = found.mapping.kind.clone().into();
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(goal: &str, object: Option<Value>, expected: bool) {
        let parsed = Goal::parse(goal).unwrap_or_else(|e| panic!("{goal}: {e}"));
        assert_eq!(parsed.reached(object.as_ref()), expected, "{goal}");
    }

    #[test]
    fn goals_are_reached_or_not() {
        let ready = |status: &str| {
            Some(json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]}}))
        };
        check("delete", None, true);
        check("delete", ready("True"), false);
        check("create", None, false);
        check("condition=Ready", ready("True"), true);
        check("condition=ready", ready("True"), true);
        check("condition=Ready", ready("False"), false);
        check("condition=Ready=False", ready("False"), true);
        check("jsonpath={.status.phase}=Running", ready("True"), true);
        check("jsonpath='{.status.phase}'=Running", ready("True"), true);
        check("jsonpath={.status.phase}=Pending", ready("True"), false);
        check("jsonpath={.status.phase}", ready("True"), true);
        check("jsonpath={.status.none}", ready("True"), false);
        check("jsonpath={.status.conditions[?(@.type==\"Ready\")].status}=True", ready("True"), true);
        assert!(Goal::parse("ready").is_err());
    }

    #[test]
    fn a_condition_of_an_older_generation_does_not_count() {
        let object = |observed: i64| json!({"metadata": {"generation": 2}, "status": {"conditions": [{"type": "A", "status": "True", "observedGeneration": observed}]}});
        check("condition=A", Some(object(1)), false);
        check("condition=A", Some(object(2)), true);
    }
}
