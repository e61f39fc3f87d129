//! CronJobs.

use keelson_api_types::FieldError;
use serde_json::{Value, json};

use super::super::apps::name_warning;
use super::super::check::{At, Errors};
use super::super::edit::{self, default, default_zero};
use super::super::{Ctx, Strategy, carry};
use super::{job_defaults, job_spec, job_warnings};

pub struct CronJob;

impl Strategy for CronJob {
    fn default(&self, object: &mut Value) {
        edit::ensure(object, "status");
        let Some(spec) = edit::ensure(object, "spec") else { return };
        default_zero(spec, "concurrencyPolicy", "Allow");
        default(spec, "suspend", false);
        default(spec, "successfulJobsHistoryLimit", 3);
        default(spec, "failedJobsHistoryLimit", 1);
        if let Some(template) = edit::ensure(spec, "jobTemplate") {
            edit::ensure(template, "metadata");
            if let Some(job) = edit::ensure(template, "spec") {
                job_defaults(job);
            }
        }
    }

    fn prepare_create(&self, _ctx: &Ctx<'_>, object: &mut Value) {
        edit::set(object, "status", json!({}));
    }

    fn prepare_update(&self, _ctx: &Ctx<'_>, object: &mut Value, old: &Value) {
        carry(object, old, "status");
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        cron_spec(&At::root(object), None, &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        cron_spec(&At::root(object), Some(&At::root(old)), &mut e);
        e.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let spec = At::root(object).f("spec");
        let mut out = Vec::new();
        if old.is_none() {
            out.extend(name_warning(object));
        } else if spec.f("schedule").s().contains("TZ") {
            out.push(
                "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                    .to_owned(),
            );
        }
        out.extend(job_warnings(&spec.dig(&["jobTemplate", "spec"])));
        out
    }
}

fn cron_spec(at: &At<'_>, old: Option<&At<'_>>, e: &mut Errors) {
    let (spec, name) = (at.f("spec"), at.dig(&["metadata", "name"]));
    if old.is_none() && name.len() > 52 {
        e.invalid(&name, "must be no more than 52 characters");
    }
    let (schedule, zone) = (spec.f("schedule"), spec.f("timeZone"));
    if e.required_string(&schedule) {
        let known = old.map(|old| old.dig(&["spec", "schedule"]).s().to_owned());
        let text = schedule.s();
        if let Err(reason) = parse_schedule(text) {
            e.invalid(&schedule, reason);
        }
        if text.contains("TZ") {
            if zone.has() {
                e.invalid(&schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule");
            } else if known.as_deref() != Some(text) {
                e.invalid(&schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
            }
        }
    }
    if zone.has() {
        if zone.is_empty() {
            e.invalid(&zone, "timeZone must be nil or non-empty string");
        } else if zone.s().eq_ignore_ascii_case("local") {
            e.invalid(
                &zone,
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            );
        } else if jiff::tz::TimeZone::get(zone.s()).is_err() {
            e.invalid(&zone, format!("unknown time zone {}", zone.s()));
        }
    }
    e.nonnegative(&spec.f("startingDeadlineSeconds"));
    e.one_of(&spec.f("concurrencyPolicy"), &["Allow", "Forbid", "Replace"]);
    let template = spec.f("jobTemplate");
    e.labels(&template.dig(&["metadata", "labels"]));
    e.annotations(&template.dig(&["metadata", "annotations"]));
    let job = template.f("spec");
    if job.f("manualSelector").b() {
        e.not_supported(&job.f("manualSelector"), &["nil", "false"]);
    }
    job_spec(&job, e);
    e.nonnegative_all(&spec, &["successfulJobsHistoryLimit", "failedJobsHistoryLimit"]);
}

/// The five fields of a cron expression, or one of the `@` shorthands.
fn parse_schedule(text: &str) -> Result<(), String> {
    let text = match text.split_once(' ') {
        Some((zone, rest)) if zone.starts_with("TZ=") || zone.starts_with("CRON_TZ=") => rest.trim(),
        _ => text,
    };
    if let Some(shorthand) = text.strip_prefix('@') {
        let fixed = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"];
        let every = shorthand
            .strip_prefix("every ")
            .is_some_and(|d| keelson_api_types::duration::parse_go(d).is_some());
        return if fixed.contains(&shorthand) || every {
            Ok(())
        } else {
            Err(format!("unrecognized descriptor: @{shorthand}"))
        };
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != 5 {
        return Err(
            format!("expected exactly 5 fields, found {}: {fields:?}", fields.len()).replace(", ", " ")
        );
    }
    let months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let days = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let bounds: [(u32, u32, &[&str]); 5] =
        [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, &months), (0, 6, &days)];
    for (field, (low, high, words)) in fields.iter().zip(bounds) {
        for part in field.split(',') {
            cron_part(part, low, high, words)?;
        }
    }
    Ok(())
}

fn cron_part(part: &str, low: u32, high: u32, words: &[&str]) -> Result<(), String> {
    let number = |text: &str| -> Result<u32, String> {
        if let Some(i) = words.iter().position(|word| text.eq_ignore_ascii_case(word)) {
            return Ok(i as u32 + low);
        }
        text.parse().map_err(|_| {
            format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")
        })
    };
    let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
    let (start, end) = match range.split_once('-') {
        _ if range == "*" || range == "?" => (low, high),
        Some((start, end)) => (number(start)?, number(end)?),
        None => {
            let start = number(range)?;
            (start, if step.is_some() { high } else { start })
        }
    };
    if step.map(&number).transpose()? == Some(0) {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    if start < low {
        return Err(format!("beginning of range ({start}) below minimum ({low}): {part}"));
    }
    if end > high {
        return Err(format!("end of range ({end}) above maximum ({high}): {part}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {part}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::parse_schedule;

    #[test]
    fn schedules() {
        for good in ["*/1 * * * *", "0 0 1 jan sun", "@hourly", "@every 1h30m", "1-5,7 2/3 * * 1-5"] {
            assert_eq!(parse_schedule(good), Ok(()), "{good}");
        }
        for bad in ["error", "* * * *", "60 * * * *", "* * 0 * *", "5-1 * * * *", "*/0 * * * *", "@never"] {
            assert!(parse_schedule(bad).is_err(), "{bad}");
        }
    }
}
