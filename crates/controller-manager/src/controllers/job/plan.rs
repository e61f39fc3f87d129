//! A sync of a Job as a pure function of it and its pods.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::indexes;
use super::policy::{self, Verdict};
use crate::kit::{Condition, conditions};
use crate::views::{Job, JobStatus, Pod, Uncounted};

/// Holds a pod until it is counted.
pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// The pause after a pod's failure doubles with each further one, up to the longest.
const FIRST_PAUSE: i64 = 10;
const LONGEST_PAUSE: i64 = 600;

/// What is to be done: first the status is written, then pods are freed, deleted and made.
#[derive(Debug, Default)]
pub struct Plan {
    pub status: JobStatus,
    /// Counted in the status that is written: their finalizer can go.
    pub release: Vec<Arc<Pod>>,
    /// Not wanted any more.
    pub delete: Vec<Arc<Pod>>,
    /// Pods to make: of no index, or of these, with the failures that each index had.
    pub create: Vec<(Option<i32>, i32)>,
    /// Seconds after which something is due.
    pub check_in: Option<i64>,
    /// Events, as reason, message and whether they tell of trouble.
    pub events: Vec<(String, String, bool)>,
}

pub fn is_finished(status: &JobStatus) -> bool {
    ["Complete", "Failed"].iter().any(|kind| conditions::is_true(&status.conditions, kind))
}

/// The index of a pod of an Indexed job.
pub fn index_of(pod: &Pod) -> Option<i32> {
    pod.metadata.annotations.get(INDEX).or_else(|| pod.metadata.labels.get(INDEX))?.parse().ok()
}

fn is_held(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().any(|f| f == FINALIZER)
}

struct State<'a> {
    job: &'a Job,
    pods: &'a [Arc<Pod>],
    now: Timestamp,
    indexed: bool,
    status: JobStatus,
    completed: BTreeSet<i32>,
    failed_indexes: BTreeSet<i32>,
    release: Vec<Arc<Pod>>,
    /// Why the job fails, where a failed pod decides that: reason and message.
    doom: Option<(&'static str, String)>,
}

pub fn plan(job: &Job, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    if is_finished(&job.status) {
        // Pods that are left were counted, or do not count any more.
        let release = pods.iter().filter(|p| is_held(p)).cloned().collect();
        return Plan { status: job.status.clone(), release, ..Plan::default() };
    }
    let mut state = State {
        job,
        pods,
        now,
        indexed: job.spec.completion_mode == "Indexed",
        status: job.status.clone(),
        completed: indexes::parse(job.status.completed_indexes.as_deref()),
        failed_indexes: indexes::parse(job.status.failed_indexes.as_deref()),
        release: Vec::new(),
        doom: None,
    };
    state.count();
    state.decide()
}

impl State<'_> {
    fn parallelism(&self) -> i32 {
        self.job.spec.parallelism.unwrap_or(1)
    }

    /// Replacement only once a pod has ended, not when it begins to.
    fn only_failed(&self) -> bool {
        self.job.spec.pod_replacement_policy == "Failed" || self.job.spec.pod_failure_policy.is_some()
    }

    fn is_failed(&self, pod: &Pod) -> bool {
        pod.status.phase == "Failed"
            || (!self.only_failed() && pod.metadata.is_deleting() && pod.status.phase != "Succeeded")
    }

    fn backoff_limit(&self) -> i32 {
        self.job.spec.backoff_limit.unwrap_or(match self.job.spec.backoff_limit_per_index {
            Some(_) => i32::MAX,
            None => 6,
        })
    }

    /// Moves ended pods from the cluster into the status: first by uid, then, when the finalizer is gone, as a number.
    fn count(&mut self) {
        let mut uncounted = self.status.uncounted_terminated_pods.take().unwrap_or_default();
        let held: BTreeSet<&str> =
            self.pods.iter().filter(|p| is_held(p)).map(|p| p.metadata.uid.as_str()).collect();
        let before = uncounted.succeeded.len();
        uncounted.succeeded.retain(|uid| held.contains(uid.as_str()));
        self.status.succeeded += (before - uncounted.succeeded.len()) as i32;
        let before = uncounted.failed.len();
        uncounted.failed.retain(|uid| held.contains(uid.as_str()));
        self.status.failed += (before - uncounted.failed.len()) as i32;
        for pod in self.pods.iter().filter(|p| is_held(p)) {
            self.count_one(pod, &mut uncounted);
        }
        if self.indexed {
            self.status.succeeded = self.completed.len() as i32;
            self.status.completed_indexes = Some(indexes::format(&self.completed)).filter(|t| !t.is_empty());
            if self.job.spec.backoff_limit_per_index.is_some() {
                self.status.failed_indexes = Some(indexes::format(&self.failed_indexes));
            }
        }
        let empty = uncounted == Uncounted::default();
        self.status.uncounted_terminated_pods =
            Some(uncounted).filter(|_| !empty || !self.pods.is_empty() || self.status.start_time.is_some());
    }

    fn count_one(&mut self, pod: &Arc<Pod>, uncounted: &mut Uncounted) {
        let uid = &pod.metadata.uid;
        if pod.status.phase == "Succeeded" {
            match (self.indexed, index_of(pod)) {
                (true, Some(index)) => {
                    if index < self.job.spec.completions.unwrap_or(i32::MAX) {
                        self.completed.insert(index);
                    }
                }
                (true, None) => {}
                (false, _) => {
                    if !uncounted.succeeded.contains(uid) {
                        uncounted.succeeded.push(uid.clone());
                    }
                }
            }
            self.release.push(pod.clone());
        } else if self.is_failed(pod) {
            self.release.push(pod.clone());
            if uncounted.failed.contains(uid) {
                return;
            }
            let verdict = policy::judge(self.job, pod);
            if verdict == Verdict::Ignore {
                return;
            }
            uncounted.failed.push(uid.clone());
            if let Verdict::FailJob(message) = &verdict {
                self.doom = Some(("PodFailurePolicy", message.clone()));
            }
            if let (Some(limit), Some(index)) = (self.job.spec.backoff_limit_per_index, index_of(pod))
                && (verdict == Verdict::FailIndex || failures(pod) >= limit)
            {
                self.failed_indexes.insert(index);
            }
        }
    }

    fn uncounted(&self) -> (i32, i32) {
        let uncounted = self.status.uncounted_terminated_pods.as_ref();
        uncounted.map_or((0, 0), |u| (u.succeeded.len() as i32, u.failed.len() as i32))
    }

    fn succeeded(&self) -> i32 {
        self.status.succeeded + if self.indexed { 0 } else { self.uncounted().0 }
    }

    fn decide(mut self) -> Plan {
        let mut active: Vec<Arc<Pod>> = self.pods.iter().filter(|p| p.is_active()).cloned().collect();
        active.sort_by_key(|p| (p.is_ready(), p.status.phase == "Running", std::cmp::Reverse(p.created())));
        let mut plan = Plan::default();
        self.note_suspension(&mut plan);
        let failure = self.failure(&active);
        let success = if failure.is_none() { self.success(&active) } else { None };
        let suspended = self.job.spec.suspend;
        if failure.is_some() || success.is_some() || suspended {
            plan.delete = std::mem::take(&mut active);
        } else if !self.job.metadata.is_deleting() {
            self.balance(&mut active, &mut plan);
        }
        let terminating =
            self.pods.iter().filter(|p| p.metadata.is_deleting() && !p.is_finished()).count() as i32;
        let terminating = terminating + plan.delete.len() as i32;
        self.status.active = active.len() as i32;
        self.status.ready = Some(active.iter().filter(|p| p.is_ready()).count() as i32);
        self.status.terminating = Some(terminating);
        self.finish(failure, success, terminating, &mut plan);
        if let (Some(limit), Some(start)) = (self.job.spec.active_deadline_seconds, self.status.start_time)
            && !is_finished(&self.status)
        {
            let left = (start.as_second() + limit - self.now.as_second()).max(1);
            plan.check_in = Some(plan.check_in.map_or(left, |c| c.min(left)));
        }
        plan.release = self.release;
        plan.status = self.status;
        plan
    }

    fn note_suspension(&mut self, plan: &mut Plan) {
        let was = conditions::find(&self.status.conditions, "Suspended").map(Condition::is_true);
        let (reason, message) = match (self.job.spec.suspend, was) {
            (true, None | Some(false)) => ("JobSuspended", "Job suspended"),
            (false, Some(true)) => ("JobResumed", "Job resumed"),
            _ => {
                if !self.job.spec.suspend && self.status.start_time.is_none() {
                    self.status.start_time = Some(self.now);
                }
                return;
            }
        };
        let suspended = self.job.spec.suspend;
        self.set(Condition::new("Suspended", suspended, reason, message));
        // The time that a job may take begins anew.
        self.status.start_time = (!suspended).then_some(self.now);
        let event = if suspended { "Suspended" } else { "Resumed" };
        plan.events.push((event.to_owned(), message.to_owned(), false));
    }

    fn set(&mut self, mut condition: Condition) {
        condition.more.insert("lastProbeTime".to_owned(), crate::kit::now().to_string().into());
        conditions::set(&mut self.status.conditions, condition);
    }

    /// Why the job has failed, as reason and message.
    fn failure(&mut self, active: &[Arc<Pod>]) -> Option<(String, String)> {
        if let Some(known) = conditions::find(&self.status.conditions, "FailureTarget") {
            return Some((known.reason.clone(), known.message.clone()));
        }
        if let Some((reason, message)) = self.doom.take() {
            return Some((reason.to_owned(), message));
        }
        let text = |reason: &str, message: &str| Some((reason.to_owned(), message.to_owned()));
        let spec = &self.job.spec;
        let failed = self.status.failed + self.uncounted().1;
        let restarts = self.restarts(active);
        if failed > self.backoff_limit() || (restarts > 0 && restarts + failed > self.backoff_limit()) {
            return text("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        if let (Some(limit), Some(start)) = (spec.active_deadline_seconds, self.status.start_time)
            && !spec.suspend
            && self.now.as_second() - start.as_second() >= limit
        {
            return text("DeadlineExceeded", "Job was active longer than specified deadline");
        }
        if self.indexed && spec.backoff_limit_per_index.is_some() {
            let failed = self.failed_indexes.len() as i32;
            if spec.max_failed_indexes.is_some_and(|max| failed > max) {
                let message = "Job has exceeded the specified maximal number of failed indexes";
                return text("MaxFailedIndexesExceeded", message);
            }
            let all = self.completed.union(&self.failed_indexes).count() as i32;
            if failed > 0 && spec.completions.is_some_and(|completions| all >= completions) {
                return text("FailedIndexes", "Job has failed indexes");
            }
        }
        None
    }

    /// Restarts of containers in place, which count like failed pods where the template restarts them.
    fn restarts(&self, active: &[Arc<Pod>]) -> i32 {
        let policy = self.job.spec.template.pointer("/spec/restartPolicy").and_then(|p| p.as_str());
        if policy != Some("OnFailure") {
            return 0;
        }
        let all = |p: &Arc<Pod>| -> i32 {
            p.status
                .init_container_statuses
                .iter()
                .chain(&p.status.container_statuses)
                .map(|c| c.restart_count)
                .sum()
        };
        active.iter().map(all).sum()
    }

    fn success(&self, active: &[Arc<Pod>]) -> Option<(String, String)> {
        if let Some(known) = conditions::find(&self.status.conditions, "SuccessCriteriaMet") {
            return Some((known.reason.clone(), known.message.clone()));
        }
        if self.indexed
            && let Some(rule) = policy::success(self.job, &self.completed)
        {
            return Some(("SuccessPolicy".to_owned(), format!("Matched rules at index {rule}")));
        }
        let done = match self.job.spec.completions {
            Some(completions) => self.succeeded() >= completions && !self.job.spec.suspend,
            None => self.succeeded() > 0 && active.is_empty(),
        };
        let message = "Reached expected number of succeeded pods";
        done.then(|| ("CompletionsReached".to_owned(), message.to_owned()))
    }

    /// Makes or deletes pods until as many are active as should be.
    fn balance(&self, active: &mut Vec<Arc<Pod>>, plan: &mut Plan) {
        let parallelism = self.parallelism();
        let mut wanted = match self.job.spec.completions {
            Some(completions) => {
                let left = completions - self.succeeded() - self.failed_indexes.len() as i32;
                left.clamp(0, parallelism)
            }
            // Once one has succeeded, the others finish by themselves.
            None if self.succeeded() > 0 => (active.len() as i32).min(parallelism),
            None => parallelism,
        };
        let leaving = self.pods.iter().filter(|p| p.metadata.is_deleting() && !p.is_finished());
        if self.only_failed() {
            wanted -= leaving.clone().count() as i32;
        }
        if self.indexed {
            self.drop_double(active, plan);
        }
        let present = active.len() as i32;
        if present > wanted {
            let surplus = usize::try_from(present - wanted.max(0)).unwrap_or(0);
            plan.delete.extend(active.drain(..surplus));
            return;
        }
        let missing = usize::try_from(wanted - present).unwrap_or(0);
        if missing == 0 {
            return;
        }
        if let Some(pause) = self.pause() {
            plan.check_in = Some(pause);
            return;
        }
        if !self.indexed {
            plan.create = vec![(None, 0); missing];
            return;
        }
        let mut taken: BTreeSet<i32> = active.iter().filter_map(|p| index_of(p)).collect();
        if self.only_failed() {
            taken.extend(leaving.filter_map(|p| index_of(p)));
        }
        let failures = self.index_failures();
        let free = (0..self.job.spec.completions.unwrap_or(0)).filter(|i| {
            !taken.contains(i) && !self.completed.contains(i) && !self.failed_indexes.contains(i)
        });
        plan.create = free.take(missing).map(|i| (Some(i), failures.get(&i).copied().unwrap_or(0))).collect();
    }

    /// Only one active pod per index, and none of an index that is done or does not exist.
    fn drop_double(&self, active: &mut Vec<Arc<Pod>>, plan: &mut Plan) {
        let completions = self.job.spec.completions.unwrap_or(0);
        let mut seen = BTreeSet::new();
        // The best of several is the last in the order of deletion.
        let mut kept = Vec::new();
        for pod in active.drain(..).rev() {
            let good = index_of(&pod)
                .is_some_and(|i| i < completions && !self.completed.contains(&i) && seen.insert(i));
            if good {
                kept.push(pod);
            } else {
                plan.delete.push(pod);
            }
        }
        kept.reverse();
        *active = kept;
    }

    fn index_failures(&self) -> BTreeMap<i32, i32> {
        let mut all = BTreeMap::new();
        for pod in self.pods.iter().filter(|p| self.is_failed(p)) {
            if let Some(index) = index_of(pod) {
                let ignored = policy::judge(self.job, pod) == Verdict::Ignore;
                let count = failures(pod) + i32::from(!ignored);
                let known = all.entry(index).or_insert(0);
                *known = count.max(*known);
            }
        }
        all
    }

    /// Seconds until a new pod may be made after those that failed since the last success.
    fn pause(&self) -> Option<i64> {
        let success = self.pods.iter().filter(|p| p.status.phase == "Succeeded").map(|p| ended(p)).max();
        let failed: Vec<i64> = self
            .pods
            .iter()
            .filter(|p| p.status.phase == "Failed")
            .map(|p| ended(p))
            .filter(|at| success.is_none_or(|s| *at > s))
            .collect();
        let last = failed.iter().max()?;
        let doublings = u32::try_from(failed.len() - 1).unwrap_or(0).min(10);
        let pause = (FIRST_PAUSE << doublings).min(LONGEST_PAUSE);
        let left = last + pause - self.now.as_second();
        (left > 0).then_some(left)
    }

    fn finish(
        &mut self,
        failure: Option<(String, String)>,
        success: Option<(String, String)>,
        terminating: i32,
        plan: &mut Plan,
    ) {
        let (early, last, (reason, message), failed) = match (failure, success) {
            (Some(why), _) => ("FailureTarget", "Failed", why, true),
            (None, Some(why)) => ("SuccessCriteriaMet", "Complete", why, false),
            (None, None) => return,
        };
        self.set(Condition::new(early, true, &reason, &*message));
        // The verdict is final when all pods have ended and are counted.
        if terminating > 0
            || self.uncounted() != (0, 0)
            || self.pods.iter().any(|p| is_held(p) && !p.is_finished())
        {
            return;
        }
        self.status.uncounted_terminated_pods = Some(Uncounted::default());
        self.set(Condition::new(last, true, &reason, &*message));
        if failed {
            plan.events.push((reason, message, true));
        } else {
            self.status.completion_time = Some(self.now);
            plan.events.push(("Completed".to_owned(), "Job completed".to_owned(), false));
        }
    }
}

fn failures(pod: &Pod) -> i32 {
    pod.metadata.annotations.get(INDEX_FAILURES).and_then(|c| c.parse().ok()).unwrap_or(0)
}

/// When a pod ended, in seconds: its last container, or when it was last seen to change.
fn ended(pod: &Pod) -> i64 {
    let containers = pod.status.container_statuses.iter();
    let last = containers.filter_map(|c| c.state.terminated.as_ref()?.finished_at).max();
    let ready = conditions::find(&pod.status.conditions, "Ready").and_then(|c| c.last_transition_time);
    last.or(ready).unwrap_or(pod.created()).as_second()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
