//! CronJobs: a Job whenever it is time.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use croner::Cron;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use keelson_client::{EventRecorder, EventType, Key, WorkQueue, object_ref};
use serde_json::{Value, json};

use crate::context::{Context, enqueue};
use crate::controllers::job::is_finished;
use crate::kit::{
    CONTROLLER, Error, api_version, conditions, controller_key, controller_ref, error::gone_is_fine, now,
};
use crate::views::{CronJob, CronJobStatus, Job, JobRef};

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed times than this are a clock that jumped, or a schedule that nobody could keep.
const MANY: usize = 100;

/// When it was, and will be, time.
#[derive(Debug, PartialEq)]
struct Due {
    /// The last time that was missed, and whether many were.
    missed: Option<(Timestamp, bool)>,
    next: Option<Timestamp>,
}

struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

impl Schedule {
    fn parse(spec: &crate::views::CronJobSpec) -> Result<Schedule, String> {
        let mut text = spec.schedule.trim();
        let mut zone = spec.time_zone.clone();
        for prefix in ["TZ=", "CRON_TZ="] {
            if let Some((name, rest)) = text.strip_prefix(prefix).and_then(|t| t.split_once(' ')) {
                (zone, text) = (Some(name.to_owned()), rest.trim());
            }
        }
        let zone = match zone {
            Some(name) => TimeZone::get(&name).map_err(|e| format!("unknown time zone {name}: {e}"))?,
            None => TimeZone::UTC,
        };
        let text = text.replace('?', "*");
        let cron = Cron::from_str(&text).map_err(|e| format!("unparseable schedule: {text} : {e}"))?;
        Ok(Schedule { cron, zone })
    }

    fn after(&self, from: Timestamp) -> Option<Timestamp> {
        let zoned = from.to_zoned(self.zone.clone());
        self.cron.find_next_occurrence(&zoned, false).ok().map(|z| z.timestamp())
    }

    fn due(&self, since: Timestamp, now: Timestamp) -> Due {
        let (mut missed, mut count, mut from) = (None, 0, since);
        loop {
            let Some(next) = self.after(from) else {
                return Due { missed: missed.map(|m| (m, count > MANY)), next: None };
            };
            if next > now {
                return Due { missed: missed.map(|m| (m, count > MANY)), next: Some(next) };
            }
            count += 1;
            missed = Some(next);
            // Far behind: only the last hours are looked through one by one.
            from = match count > MANY && now.as_second() - next.as_second() > 7200 {
                true => Timestamp::from_second(now.as_second() - 7200).unwrap_or(next),
                false => next,
            };
        }
    }
}

struct Controller {
    context: Arc<Context>,
    queue: WorkQueue<Key>,
    events: EventRecorder,
}

pub async fn run(context: Arc<Context>) {
    let queue = WorkQueue::new();
    let informers = &context.informers;
    enqueue(&informers.cron_jobs, &queue);
    let changed = queue.clone();
    informers.jobs.on_change(move |change| {
        if let Some(key) = controller_key::<CronJob>(&change.object().metadata) {
            changed.add(key);
        }
    });
    let this = Arc::new(Controller {
        context: context.clone(),
        queue: queue.clone(),
        events: context.events("cronjob-controller"),
    });
    let reconcile = move |key| {
        let this = this.clone();
        async move { this.sync(key).await }
    };
    context.work("cronjob", queue, context.config.workers, reconcile).await;
}

/// The Job of a time; its name makes sure that there is only one.
fn job(cron: &CronJob, at: Timestamp) -> Value {
    let template = &cron.spec.job_template;
    let mut metadata = json!({
        "name": format!("{}-{}", cron.metadata.name, at.as_second() / 60),
        "ownerReferences": [controller_ref(cron)],
        "annotations": {},
    });
    for field in ["labels", "annotations"] {
        if let Some(value) = template.pointer(&format!("/metadata/{field}")).filter(|v| v.is_object()) {
            metadata[field] = value.clone();
        }
    }
    metadata["annotations"][SCHEDULED_AT] = at.to_string().into();
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": template.get("spec").cloned().unwrap_or_default(),
    })
}

fn reference(job: &Job) -> JobRef {
    JobRef {
        api_version: api_version::<Job>(),
        kind: "Job".to_owned(),
        name: job.metadata.name.clone(),
        namespace: job.metadata.namespace.clone().unwrap_or_default(),
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version.clone(),
    }
}

/// Finished jobs beyond the limits, the oldest first.
fn surplus(cron: &CronJob, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let mut all = Vec::new();
    let kinds = [
        ("Complete", cron.spec.successful_jobs_history_limit.unwrap_or(3)),
        ("Failed", cron.spec.failed_jobs_history_limit.unwrap_or(1)),
    ];
    for (kind, limit) in kinds {
        let mut ended: Vec<_> =
            jobs.iter().filter(|j| conditions::is_true(&j.status.conditions, kind)).cloned().collect();
        ended.sort_by_key(|j| (j.status.start_time, j.metadata.name.clone()));
        let count = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        all.extend(ended.into_iter().take(count));
    }
    all
}

impl Controller {
    async fn sync(&self, key: Key) -> Result<(), Error> {
        let informers = &self.context.informers;
        let Some(cron) = informers.cron_jobs.get(&key) else { return Ok(()) };
        let jobs = informers.jobs.by_index(CONTROLLER, &cron.metadata.uid);
        let requests = &self.context.requests;
        for job in surplus(&cron, &jobs) {
            let options = json!({ "propagationPolicy": "Background" });
            gone_is_fine(requests.delete_with::<Job>(&job.metadata, options).await)?;
            let message = format!("Deleted job {}", job.metadata.name);
            self.event(&cron, EventType::Normal, "SuccessfulDelete", message);
        }
        let mut status = self.observe(&cron, &jobs);
        if !cron.metadata.is_deleting() {
            self.start_due(&key, &cron, &jobs, &mut status).await?;
        }
        let same = |a: &JobRef, b: &JobRef| a.uid == b.uid;
        let unchanged = status.active.len() == cron.status.active.len()
            && status.active.iter().zip(&cron.status.active).all(|(a, b)| same(a, b))
            && status.last_schedule_time == cron.status.last_schedule_time
            && status.last_successful_time == cron.status.last_successful_time;
        if !unchanged {
            gone_is_fine(requests.patch_status::<CronJob>(&cron.metadata, &status).await)?;
        }
        Ok(())
    }

    /// The status by what has become of the jobs.
    fn observe(&self, cron: &CronJob, jobs: &[Arc<Job>]) -> CronJobStatus {
        let mut status = cron.status.clone();
        let mut active: Vec<&Arc<Job>> = jobs.iter().filter(|j| !is_finished(&j.status)).collect();
        active.sort_by_key(|j| j.metadata.name.clone());
        for known in &cron.status.active {
            let job = jobs.iter().find(|j| j.metadata.uid == known.uid);
            if let Some(job) = job.filter(|j| is_finished(&j.status)) {
                let end = if conditions::is_true(&job.status.conditions, "Complete") {
                    "Complete"
                } else {
                    "Failed"
                };
                let message = format!("Saw completed job: {}, condition: {end}", known.name);
                self.event(cron, EventType::Normal, "SawCompletedJob", message);
            }
        }
        let successes = jobs.iter().filter(|j| conditions::is_true(&j.status.conditions, "Complete"));
        status.last_successful_time =
            successes.filter_map(|j| j.status.completion_time).chain(status.last_successful_time).max();
        status.active = active.into_iter().map(|j| reference(j)).collect();
        status
    }

    async fn start_due(
        &self,
        key: &Key,
        cron: &CronJob,
        jobs: &[Arc<Job>],
        status: &mut CronJobStatus,
    ) -> Result<(), Error> {
        if cron.spec.suspend {
            return Ok(());
        }
        let schedule = match Schedule::parse(&cron.spec) {
            Ok(schedule) => schedule,
            Err(problem) => {
                self.event(cron, EventType::Warning, "UnparseableSchedule", problem);
                return Ok(());
            }
        };
        let now = now();
        let created = cron.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
        let mut since = cron.status.last_schedule_time.unwrap_or(created);
        if let Some(deadline) = cron.spec.starting_deadline_seconds {
            since = since.max(Timestamp::from_second(now.as_second() - deadline).unwrap_or(since));
        }
        let due = schedule.due(since, now);
        if let Some(next) = due.next {
            let pause = (next.as_millisecond() - Timestamp::now().as_millisecond()).max(0);
            self.queue.add_after(key.clone(), Duration::from_millis(pause.unsigned_abs() + 100));
        }
        let Some((at, many)) = due.missed else { return Ok(()) };
        if many {
            let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.event(cron, EventType::Warning, "TooManyMissedTimes", message.to_owned());
        }
        let running = jobs.iter().filter(|j| !is_finished(&j.status));
        match cron.spec.concurrency_policy.as_str() {
            "Forbid" if running.clone().next().is_some() => {
                let message =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.event(cron, EventType::Normal, "JobAlreadyActive", message.to_owned());
                return Ok(());
            }
            "Replace" => {
                for job in running {
                    let options = json!({ "propagationPolicy": "Background" });
                    gone_is_fine(self.context.requests.delete_with::<Job>(&job.metadata, options).await)?;
                    status.active.retain(|a| a.uid != job.metadata.uid);
                    let message = format!("Deleted job {}", job.metadata.name);
                    self.event(cron, EventType::Normal, "SuccessfulDelete", message);
                }
            }
            _ => {}
        }
        self.start(cron, at, status).await
    }

    async fn start(&self, cron: &CronJob, at: Timestamp, status: &mut CronJobStatus) -> Result<(), Error> {
        let namespace = cron.metadata.namespace.as_deref().unwrap_or_default();
        match self.context.requests.create::<Job>(namespace, &job(cron, at)).await {
            Ok(made) => {
                let message = format!("Created job {}", made.metadata.name);
                self.event(cron, EventType::Normal, "SuccessfulCreate", message);
                let made = Job { metadata: made.metadata, ..Job::default() };
                status.active.push(reference(&made));
                status.active.sort_by(|a, b| a.name.cmp(&b.name));
            }
            // It was made before, and that could not be noted.
            Err(error) if error.is_conflict() => {}
            Err(error) if error.is_namespace_terminating() => return Ok(()),
            Err(error) => {
                let message = format!("Error creating job: {}", error.answer());
                self.event(cron, EventType::Warning, "FailedCreate", message);
                return Err(error);
            }
        }
        status.last_schedule_time = Some(at);
        Ok(())
    }

    fn event(&self, cron: &CronJob, kind: EventType, reason: &str, message: String) {
        self.events.event(&object_ref(cron), kind, reason, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str) -> Schedule {
        let spec = serde_json::from_value(json!({ "schedule": text })).unwrap();
        Schedule::parse(&spec).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_last_missed_time_and_the_next_are_found() {
        let due = schedule("*/5 * * * *").due(at("2026-01-01T00:01:00Z"), at("2026-01-01T00:12:00Z"));
        assert_eq!(due.missed, Some((at("2026-01-01T00:10:00Z"), false)));
        assert_eq!(due.next, Some(at("2026-01-01T00:15:00Z")));
        let none = schedule("@hourly").due(at("2026-01-01T00:01:00Z"), at("2026-01-01T00:12:00Z"));
        assert_eq!((none.missed, none.next), (None, Some(at("2026-01-01T01:00:00Z"))));
        let many = schedule("* * * * *").due(at("2026-01-01T00:00:00Z"), at("2026-01-03T00:00:30Z"));
        assert_eq!(many.missed, Some((at("2026-01-03T00:00:00Z"), true)));
    }

    #[test]
    fn a_job_is_named_by_its_time() {
        let cron = serde_json::from_value(
            json!({"metadata": {"name": "c"}, "spec": {"jobTemplate": {"spec": {"x": 1}}}}),
        )
        .unwrap();
        let job = job(&cron, at("1970-01-01T01:00:00Z"));
        assert_eq!(job["metadata"]["name"], "c-60");
        assert_eq!(job["metadata"]["annotations"][SCHEDULED_AT], "1970-01-01T01:00:00Z");
    }
}
