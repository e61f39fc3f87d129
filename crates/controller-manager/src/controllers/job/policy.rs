//! What a failed pod means, and when success is reached early.

use std::collections::BTreeSet;

use super::indexes;
use crate::views::{FailureRule, Job, Pod};

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts against the backoff limit.
    Count,
    Ignore,
    FailIndex,
    /// With the message of the job's condition.
    FailJob(String),
}

/// The action of the first rule that matches a failed pod.
pub fn judge(job: &Job, pod: &Pod) -> Verdict {
    let rules = job.spec.pod_failure_policy.iter().flat_map(|p| &p.rules).enumerate();
    for (index, rule) in rules {
        let Some(what) = matches(rule, pod) else { continue };
        return match rule.action.as_str() {
            "FailJob" => Verdict::FailJob(format!("{what} matching {} rule at index {index}", rule.action)),
            "Ignore" => Verdict::Ignore,
            "FailIndex" if job.spec.backoff_limit_per_index.is_some() => Verdict::FailIndex,
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

/// What about the pod the rule matches.
fn matches(rule: &FailureRule, pod: &Pod) -> Option<String> {
    let key = pod.metadata.key();
    if let Some(codes) = &rule.on_exit_codes {
        let statuses = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
        for status in statuses {
            let Some(code) = status.state.terminated.as_ref().map(|t| t.exit_code).filter(|c| *c != 0) else {
                continue;
            };
            let of = codes.container_name.as_ref().is_none_or(|name| *name == status.name);
            let inside = codes.values.contains(&code);
            if of && inside == (codes.operator == "In") {
                return Some(format!("Container {} for pod {key} failed with exit code {code}", status.name));
            }
        }
        return None;
    }
    let matched = pod.status.conditions.iter().find(|condition| {
        let same = |c: &&crate::views::OnPodCondition| {
            c.r#type == condition.r#type && c.status.as_deref().unwrap_or("True") == condition.status
        };
        rule.on_pod_conditions.iter().any(|c| same(&c))
    })?;
    Some(format!("Pod {key} has condition {}", matched.r#type))
}

/// The first rule of the success policy that the completed indexes meet.
pub fn success(job: &Job, completed: &BTreeSet<i32>) -> Option<usize> {
    let rules = &job.spec.success_policy.as_ref()?.rules;
    rules.iter().position(|rule| {
        let counted = match &rule.succeeded_indexes {
            Some(text) => {
                let wanted = indexes::parse(Some(text));
                let done = wanted.intersection(completed).count();
                if rule.succeeded_count.is_none() {
                    return done == wanted.len();
                }
                done
            }
            None => completed.len(),
        };
        rule.succeeded_count.is_some_and(|count| counted as i32 >= count)
    })
}
