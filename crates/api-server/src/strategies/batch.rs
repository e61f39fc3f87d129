//! Jobs and CronJobs.

mod cron;
mod policies;

use keelson_api_types::{FieldError, names};
use serde_json::{Value, json};

use super::apps::name_warning;
use super::check::{At, Errors};
use super::common::selects;
use super::edit::{self, default, default_zero, same};
use super::pod::{self, warnings};
use super::{Ctx, Selectable, Strategy};
pub use cron::CronJob;
use policies::{failure_policy, success_policy};

const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const NEEDS_INDEXED: &str = "requires indexed completion mode";

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

    fn selectable_fields<'a>(&self, object: &'a Value) -> Selectable<'a> {
        vec![("status.successful", At::root(object).dig(&["status", "succeeded"]).i().to_string().into())]
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
