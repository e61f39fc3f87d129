//! Jobs and CronJobs.

use keelson_api_types::{FieldError, names};
use serde_json::{Value, json};

use super::apps::name_warning;
use super::check::{At, Errors};
use super::common::selects;
use super::edit::{self, default, default_zero, same};
use super::pod::{self, warnings};
use super::{Ctx, Strategy, carry};

const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const NEEDS_INDEXED: &str = "requires indexed completion mode";
const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];

pub struct Job;

impl Strategy for Job {
    fn default(&self, object: &mut Value) {
        edit::ensure(object, "status");
        let Some(spec) = edit::ensure(object, "spec") else { return };
        job_defaults(spec);
        if spec.get("completions").is_none_or(Value::is_null)
            && spec.get("parallelism").is_none_or(Value::is_null)
        {
            edit::set(spec, "completions", 1);
        }
        default(spec, "parallelism", 1);
        let limit = if spec.get("backoffLimitPerIndex").is_some_and(Value::is_number) { i32::MAX } else { 6 };
        default(spec, "backoffLimit", limit);
        default(spec, "completionMode", "NonIndexed");
        default(spec, "suspend", false);
        let failed_only = spec.get("podFailurePolicy").is_some_and(Value::is_object);
        default(spec, "podReplacementPolicy", if failed_only { "Failed" } else { "TerminatingOrFailed" });
        default(spec, "manualSelector", false);
        let labels = At::root(spec).dig(&["template", "metadata", "labels"]).value.clone();
        if let (true, Some(meta)) = (labels.is_object(), edit::ensure(object, "metadata")) {
            default_zero(meta, "labels", labels);
        }
    }

    fn prepare_create(&self, _ctx: &Ctx<'_>, object: &mut Value) {
        edit::set(object, "status", json!({}));
        generate_selector(object);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (at, mut e) = (At::root(object), Errors::new());
        generated_selector(&at, true, &mut e);
        selected_job(&at, &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let (at, before, mut e) = (At::root(object), At::root(old), Errors::new());
        let labels = before.dig(&["spec", "template", "metadata", "labels"]);
        let prefixed = labels.f(UID_LABELS[1]).has() && labels.f(NAME_LABELS[1]).has();
        generated_selector(&at, prefixed, &mut e);
        selected_job(&at, &mut e);
        update(&at.f("spec"), &before, &mut e);
        e.into_vec()
    }

    fn validate_status_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        status(&At::root(object), &At::root(old), &mut e);
        e.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let spec = At::root(object).f("spec");
        if old.is_some_and(|old| same(spec.value, old.get("spec").unwrap_or(&Value::Null))) {
            return Vec::new();
        }
        let mut out: Vec<String> =
            if old.is_none() { name_warning(object).into_iter().collect() } else { Vec::new() };
        out.extend(job_warnings(&spec));
        out
    }

    fn selectable_names(&self) -> &'static [&'static str] {
        &["status.successful"]
    }

    fn selectable_sources(&self) -> &'static [&'static str] {
        &["status.succeeded"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("status.successful", At::root(object).dig(&["status", "succeeded"]).i().to_string())]
    }
}

fn job_defaults(spec: &mut Value) {
    pod::defaults::template(spec, "template");
    if let Some(policy) = edit::some(spec, "podFailurePolicy") {
        for rule in edit::each(policy, "rules") {
            for pattern in edit::each(rule, "onPodConditions") {
                default_zero(pattern, "status", "True");
            }
        }
    }
}

/// A job selects its pods by its own uid unless the user insists on a selector.
fn generate_selector(object: &mut Value) {
    let at = At::root(object);
    if at.dig(&["spec", "manualSelector"]).b() {
        return;
    }
    let name = at.dig(&["metadata", "name"]).s().to_owned();
    let uid = at.dig(&["metadata", "uid"]).s().to_owned();
    let Some(spec) = edit::ensure(object, "spec") else { return };
    let meta = edit::ensure(spec, "template").and_then(|template| edit::ensure(template, "metadata"));
    if let Some(labels) = meta.and_then(|meta| edit::map(meta, "labels")) {
        for label in NAME_LABELS {
            labels.entry(label).or_insert_with(|| name.clone().into());
        }
        for label in UID_LABELS {
            labels.entry(label).or_insert_with(|| uid.clone().into());
        }
    }
    if let Some(labels) = edit::ensure(spec, "selector").and_then(|s| edit::map(s, "matchLabels")) {
        labels.entry(UID_LABELS[1]).or_insert_with(|| uid.into());
    }
}

fn generated_selector(at: &At<'_>, prefixed: bool, e: &mut Errors) {
    let (spec, meta) = (at.f("spec"), at.f("metadata"));
    let selector = spec.f("selector");
    if spec.f("manualSelector").b() || !selector.has() {
        return;
    }
    let (uid, name) = (meta.f("uid").s(), meta.f("name").s());
    if uid.is_empty() {
        e.required(&meta.path.field("uid"), "");
    }
    let labels = spec.dig(&["template", "metadata", "labels"]);
    let expected =
        [(UID_LABELS[0], uid), (NAME_LABELS[0], name), (UID_LABELS[1], uid), (NAME_LABELS[1], name)];
    let count = if prefixed { 4 } else { 2 };
    let mut generated = serde_json::Map::new();
    for (label, value) in &expected[..count] {
        let detail = format!("must be '{value}'");
        match labels.get(label) {
            None => e.required(&labels.path.key(label), detail),
            Some(found) if found.s() != *value => {
                e.invalid_value(&found.under(labels.path.key(label)).path, labels.value.clone(), detail);
            }
            Some(_) => {}
        }
        generated.insert((*label).to_owned(), (*value).into());
    }
    if selects(&selector, Some(&generated)) == Some(false) {
        e.invalid(&selector, "`selector` not auto-generated");
    }
}

fn selected_job(at: &At<'_>, e: &mut Errors) {
    let spec = at.f("spec");
    job_spec(&spec, e);
    let selector = spec.f("selector");
    if selector.has() {
        e.label_selector(&selector);
    } else {
        e.required(&selector.path, "");
    }
    let labels = spec.dig(&["template", "metadata", "labels"]);
    if selects(&selector, labels.map()) == Some(false) {
        e.invalid(&labels, "`selector` does not match template `labels`");
    }
    let completions = spec.f("completions").i();
    if spec.f("completionMode").s() == "Indexed" && completions > 0 {
        let name = at.dig(&["metadata", "name"]);
        let host = format!("{}-{}", name.s(), completions - 1);
        if !names::dns1123_label(&host).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {host}");
            e.invalid(&name, detail);
        }
    }
}

fn job_spec(spec: &At<'_>, e: &mut Errors) {
    e.nonnegative_all(
        spec,
        &[
            "parallelism",
            "completions",
            "activeDeadlineSeconds",
            "backoffLimit",
            "ttlSecondsAfterFinished",
            "backoffLimitPerIndex",
            "maxFailedIndexes",
        ],
    );
    let per_index = spec.f("backoffLimitPerIndex");
    if spec.f("maxFailedIndexes").has() && !per_index.has() {
        e.required(&per_index.path, "when maxFailedIndexes is specified");
    }
    if let Some(manager) = spec.get("managedBy") {
        super::networking::domain_prefixed_path(&manager, e);
        if manager.len() > 63 {
            e.too_long(&manager.path, 63);
        }
    }
    e.optional_one_of(&spec.f("completionMode"), &["NonIndexed", "Indexed"]);
    if spec.f("completionMode").s() == "Indexed" {
        indexed(spec, e);
    } else {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(found) = spec.get(field) {
                e.invalid(&found, NEEDS_INDEXED);
            }
        }
    }
    failure_policy(spec, e);
    if let Some(policy) = spec.get("successPolicy") {
        if spec.f("completionMode").s() == "Indexed" {
            success_policy(&policy, spec.f("completions").i(), e);
        } else {
            e.invalid(&policy, NEEDS_INDEXED);
        }
    }
    let supported =
        if spec.f("podFailurePolicy").has() { &["Failed"][..] } else { &["Failed", "TerminatingOrFailed"] };
    e.optional_one_of(&spec.f("podReplacementPolicy"), supported);
    let template = spec.f("template");
    pod::spec::template(&template, &[], e);
    let policy = template.dig(&["spec", "restartPolicy"]);
    match policy.s() {
        "Always" | "" => e.required(&policy.path, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if spec.f("podFailurePolicy").has() => {
            e.invalid(&policy, "only \"Never\" is supported when podFailurePolicy is specified");
        }
        "OnFailure" | "Never" => {}
        _ => e.not_supported(&policy, &["OnFailure", "Never"]),
    }
}

fn indexed(spec: &At<'_>, e: &mut Errors) {
    let (completions, parallelism) = (spec.f("completions"), spec.f("parallelism"));
    let failed = spec.f("maxFailedIndexes");
    if !completions.has() {
        e.required(&completions.path, "when completion mode is Indexed");
    }
    if parallelism.i() > 100_000 {
        let detail = "must be less than or equal to 100000 when completion mode is Indexed";
        e.invalid(&parallelism, detail);
    }
    if completions.has() && failed.i() > completions.i() {
        e.invalid(&failed, "must be less than or equal to completions");
    }
    if failed.i() > 100_000 {
        e.invalid(&failed, "must be less than or equal to 100000");
    }
    if completions.i() > 100_000 && spec.f("backoffLimitPerIndex").has() {
        if !failed.has() {
            e.required(&failed.path, "must be specified when completions is above 100000");
        }
        for at in [&parallelism, &failed].iter().filter(|at| at.i() > 10_000) {
            let detail = "must be less than or equal to 10000 when completions are above 100000 and used with \
                          backoff limit per index";
            e.invalid(at, detail);
        }
    }
}

fn failure_policy(spec: &At<'_>, e: &mut Errors) {
    let rules = spec.dig(&["podFailurePolicy", "rules"]);
    if rules.len() > 20 {
        e.too_many(&rules.path, rules.len(), 20);
    }
    let containers: Vec<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec.dig(&["template", "spec", list]).each().map(|c| c.f("name").s()))
        .collect();
    for rule in rules.each() {
        let (action, codes, conditions) =
            (rule.f("action"), rule.f("onExitCodes"), rule.f("onPodConditions"));
        match action.s() {
            "" => e.required(&action.path, "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"),
            "FailIndex" if !spec.f("backoffLimitPerIndex").has() => {
                e.invalid(&action, "requires the backoffLimitPerIndex to be set");
            }
            known if ACTIONS.contains(&known) => {}
            _ => e.not_supported(&action, ACTIONS),
        }
        if codes.has() {
            exit_codes(&codes, &containers, e);
        }
        for pattern in conditions.each() {
            e.qualified_name(&pattern.f("type"));
            e.one_of(&pattern.f("status"), &["False", "True", "Unknown"]);
        }
        let detail = match (codes.has(), conditions.is_empty()) {
            (true, false) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (false, true) => "specifying one of OnExitCodes and OnPodConditions is required",
            _ => continue,
        };
        e.invalid_without_value(&rule.path, detail);
    }
}

fn exit_codes(at: &At<'_>, containers: &[&str], e: &mut Errors) {
    e.one_of(&at.f("operator"), &["In", "NotIn"]);
    if let Some(name) = at.get("containerName")
        && !containers.contains(&name.s())
    {
        e.invalid(&name, "must be one of the container or initContainer names in the pod template");
    }
    let values = at.f("values");
    if values.is_empty() {
        e.invalid_value(&values.path, json!([]), "at least one value is required");
    } else if values.len() > 255 {
        e.too_many(&values.path, values.len(), 255);
    }
    let mut last = None;
    for value in values.each() {
        if at.f("operator").s() == "In" && value.i() == 0 {
            e.invalid(&value, "must not be 0 for the In operator");
        }
        match last {
            Some(before) if before == value.i() => e.duplicate(&value.path, value.i()),
            Some(before) if before > value.i() => {
                e.invalid(&values, "must be ordered");
            }
            _ => {}
        }
        last = Some(value.i());
    }
}

fn success_policy(at: &At<'_>, completions: i64, e: &mut Errors) {
    let rules = at.f("rules");
    if rules.is_empty() {
        e.required(&rules.path, "at least one rules must be specified when the successPolicy is specified");
    }
    if rules.len() > 20 {
        e.too_many(&rules.path, rules.len(), 20);
    }
    for rule in rules.each() {
        let (count, indexes) = (rule.f("succeededCount"), rule.f("succeededIndexes"));
        if !count.has() && !indexes.has() {
            let detail = "at least one of succeededCount or succeededIndexes must be specified";
            e.required(&rule.path, detail);
        }
        let total = if indexes.has() { index_count(&indexes, completions, e) } else { i64::MAX };
        if count.has() {
            e.nonnegative(&count);
            if count.i() > completions {
                let detail = format!(
                    "must be less than or equal to {completions} (the number of specified completions)"
                );
                e.invalid(&count, detail);
            }
            if count.i() > total {
                let detail = format!(
                    "must be less than or equal to {total} (the number of indexes in the specified \
                     succeededIndexes field)"
                );
                e.invalid(&count, detail);
            }
        }
    }
}

/// The number of indexes in a list like `1,3-5`.
fn index_count(at: &At<'_>, completions: i64, e: &mut Errors) -> i64 {
    let mut total = 0;
    let mut last = -1;
    for part in at.s().split(',').filter(|part| !part.is_empty()) {
        let mut bounds = part.split('-').map(str::parse::<i64>);
        let range = match (bounds.next(), bounds.next(), bounds.next()) {
            (Some(Ok(one)), None, None) => Some((one, one)),
            (Some(Ok(low)), Some(Ok(high)), None) if low < high => Some((low, high)),
            _ => None,
        };
        match range.filter(|(low, high)| *low > last && *high < completions) {
            Some((low, high)) => {
                total += high - low + 1;
                last = high;
            }
            None => {
                e.invalid(at, format!("error parsing succeededIndexes: invalid fragment {part:?}"));
                return 0;
            }
        }
    }
    total
}

fn update(spec: &At<'_>, old: &At<'_>, e: &mut Errors) {
    let before = old.f("spec");
    let completions = spec.f("completions");
    if spec.f("completionMode").s() != "Indexed" {
        e.immutable(&completions, &before.f("completions"));
    } else if completions.has()
        && completions.i() != before.f("completions").i()
        && completions.i() != spec.f("parallelism").i()
    {
        e.invalid(&completions, "can only be modified in tandem with spec.parallelism");
    }
    e.immutable(&spec.f("selector"), &before.f("selector"));
    let template = spec.f("template");
    let mut allowed = before.f("template").value.clone();
    let status = old.f("status");
    let suspended = before.f("suspend").b();
    let idle = status.f("active").i() == 0;
    let stopped =
        status.f("conditions").each().any(|c| c.f("type").s() == "Suspended" && c.f("status").s() == "True");
    if suspended && idle && (!status.f("startTime").has() || stopped) {
        scheduling_directives(&mut allowed, template.value);
    }
    if !same(&allowed, template.value) {
        e.invalid(&template, super::common::IMMUTABLE);
    }
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        e.immutable(&spec.f(field), &before.f(field));
    }
}

/// While a job is suspended, where and with what its pods will run may still change.
fn scheduling_directives(allowed: &mut Value, wanted: &Value) {
    for path in [
        &["metadata", "labels"][..],
        &["metadata", "annotations"],
        &["spec", "nodeSelector"],
        &["spec", "tolerations"],
        &["spec", "schedulingGates"],
        &["spec", "affinity", "nodeAffinity"],
    ] {
        edit::carry(allowed, wanted, path);
    }
    for list in ["containers", "initContainers"] {
        let sources: Vec<Value> = wanted["spec"][list].as_array().cloned().unwrap_or_default();
        let Some(spec) = edit::some(allowed, "spec") else { return };
        for (container, source) in edit::each(spec, list).zip(&sources) {
            if container.get("name") == source.get("name") {
                edit::carry(container, source, &["resources"]);
            }
        }
    }
}

fn status(at: &At<'_>, old: &At<'_>, e: &mut Errors) {
    let (status, before) = (at.f("status"), old.f("status"));
    e.nonnegative_all(&status, &["active", "succeeded", "failed", "ready", "terminating"]);
    let is = |status: &At<'_>, kind: &str| {
        status.f("conditions").each().any(|c| c.f("type").s() == kind && c.f("status").s() == "True")
    };
    let (complete, failed) = (is(&status, "Complete"), is(&status, "Failed"));
    let conditions = status.f("conditions").path;
    let met = is(&status, "SuccessCriteriaMet");
    let mut conflict = |found: bool, detail: &str| {
        if found {
            e.invalid_without_value(&conditions, detail);
        }
    };
    conflict(complete && failed, "cannot set Complete=True and Failed=true conditions");
    let target = is(&status, "FailureTarget");
    conflict(complete && target, "cannot set Complete=True and FailureTarget=true conditions");
    let newly = |kind: &str| is(&status, kind) && !is(&before, kind);
    let detail = "cannot set Failed=True condition without the FailureTarget=true condition";
    conflict(newly("Failed") && !target, detail);
    let detail = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
    conflict(newly("Complete") && !met, detail);
    conflict(met && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions");
    conflict(met && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
    for kind in ["Complete", "Failed", "SuccessCriteriaMet", "FailureTarget"] {
        conflict(
            is(&before, kind) && !is(&status, kind),
            &format!("cannot disable the terminal {kind}=True condition"),
        );
    }
    let finished = complete || failed;
    let completion = status.f("completionTime");
    if completion.has() && !complete {
        let detail = "cannot set completionTime when there is no Complete=True condition";
        e.invalid(&completion, detail);
    } else if !completion.has() && complete {
        e.required(&completion.path, "completionTime is required for Complete jobs");
    }
    if before.f("completionTime").has() && completion.s() != before.f("completionTime").s() {
        e.invalid(&completion, "field is immutable");
    }
    if finished && status.f("active").i() > 0 {
        e.invalid(&status.f("active"), "active>0 is invalid for finished job");
    }
    if status.f("ready").i() > status.f("active").i() {
        e.invalid(&status.f("ready"), "cannot set more ready pods than active");
    }
    if status.f("failed").i() < before.f("failed").i() {
        e.invalid_value(
            &status.f("failed").path,
            status.f("failed").i(),
            "cannot decrease the failed counter",
        );
    }
}

fn job_warnings(spec: &At<'_>) -> Vec<String> {
    let mut out = Vec::new();
    if spec.f("completionMode").s() == "Indexed"
        && spec.f("completions").i() > 100_000
        && spec.f("parallelism").i() > 10_000
    {
        out.push(
            "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
             Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
                .to_owned(),
        );
    }
    out.extend(warnings::of(&spec.f("template")));
    out
}

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
