use super::*;
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn job(spec: Value) -> Job {
    serde_json::from_value(json!({"metadata": {"name": "j", "uid": "j"}, "spec": spec,
        "status": {"startTime": "1970-01-01T00:00:00Z"}}))
    .unwrap()
}

fn pod(name: &str, phase: &str, index: Option<i32>) -> Arc<Pod> {
    let annotations = index.map_or(json!({}), |i| json!({INDEX: i.to_string()}));
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": name, "uid": name, "finalizers": [FINALIZER], "annotations": annotations, "creationTimestamp": "1970-01-01T00:00:00Z"},
            "status": {"phase": phase, "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": if phase == "Failed" { 3 } else { 0 }, "finishedAt": "1970-01-01T00:00:00Z"}}}]},
        }))
        .unwrap(),
    )
}

fn freed(pod: &Arc<Pod>) -> Arc<Pod> {
    let mut pod = (**pod).clone();
    pod.metadata.finalizers.clear();
    Arc::new(pod)
}

fn reason(status: &JobStatus, kind: &str) -> Option<String> {
    conditions::find(&status.conditions, kind).filter(|c| c.is_true()).map(|c| c.reason.clone())
}

#[test]
fn pods_are_made_up_to_parallelism_and_completions() {
    let count = |spec: Value, pods: &[Arc<Pod>]| plan(&job(spec), pods, at(100)).create.len();
    assert_eq!(count(json!({"parallelism": 2, "completions": 5}), &[]), 2);
    assert_eq!(count(json!({"parallelism": 4, "completions": 2}), &[]), 2);
    assert_eq!(count(json!({"parallelism": 2, "completions": 5}), &[pod("a", "Running", None)]), 1);
    let surplus = plan(
        &job(json!({"parallelism": 1, "completions": 5})),
        &[pod("a", "Running", None), pod("b", "Pending", None)],
        at(100),
    );
    assert_eq!(surplus.delete[0].metadata.name, "b");
}

#[test]
fn an_ended_pod_is_noted_then_freed_then_counted() {
    let mut job = job(json!({"parallelism": 1, "completions": 1}));
    let done = pod("a", "Succeeded", None);
    let first = plan(&job, std::slice::from_ref(&done), at(100));
    assert_eq!(first.status.uncounted_terminated_pods.as_ref().unwrap().succeeded, ["a"]);
    assert_eq!((first.status.succeeded, first.release.len()), (0, 1));
    assert_eq!(reason(&first.status, "SuccessCriteriaMet").as_deref(), Some("CompletionsReached"));
    assert_eq!(reason(&first.status, "Complete"), None);
    job.status = first.status;
    let second = plan(&job, &[freed(&done)], at(101));
    assert_eq!(second.status.succeeded, 1);
    assert_eq!(reason(&second.status, "Complete").as_deref(), Some("CompletionsReached"));
    assert_eq!(second.status.completion_time, Some(at(101)));
    assert!(is_finished(&second.status) && second.create.is_empty());
}

#[test]
fn failures_pause_and_then_fail_the_job() {
    let mut job = job(json!({"parallelism": 1, "completions": 1, "backoffLimit": 1}));
    let a = pod("a", "Failed", None);
    let early = plan(&job, std::slice::from_ref(&a), at(4));
    assert_eq!((early.create.len(), early.check_in), (0, Some(6)));
    assert_eq!(plan(&job, std::slice::from_ref(&a), at(10)).create.len(), 1);
    job.status = early.status;
    let b = pod("b", "Failed", None);
    let failed = plan(&job, &[freed(&a), b.clone(), pod("c", "Running", None)], at(200));
    assert_eq!(reason(&failed.status, "FailureTarget").as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!((failed.delete.len(), reason(&failed.status, "Failed")), (1, None));
    job.status = failed.status;
    let over = plan(&job, &[freed(&a), freed(&b)], at(201));
    assert_eq!(reason(&over.status, "Failed").as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!(over.status.failed, 2);
}

#[test]
fn each_index_has_one_pod_until_it_is_done() {
    let indexed = json!({"parallelism": 3, "completions": 4, "completionMode": "Indexed"});
    let pods = [pod("a", "Succeeded", Some(0)), pod("b", "Running", Some(2))];
    let plan = plan(&job(indexed), &pods, at(100));
    assert_eq!(plan.create, [(Some(1), 0), (Some(3), 0)]);
    assert_eq!((plan.status.completed_indexes.as_deref(), plan.status.succeeded), (Some("0"), 1));
}

#[test]
fn failed_indexes_are_given_up_one_by_one() {
    let spec =
        json!({"parallelism": 2, "completions": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 0});
    let mut job = job(spec);
    let first = plan(&job, &[pod("a", "Failed", Some(0)), pod("b", "Succeeded", Some(1))], at(100));
    assert_eq!(first.status.failed_indexes.as_deref(), Some("0"));
    assert_eq!(reason(&first.status, "FailureTarget").as_deref(), Some("FailedIndexes"));
    job.status = first.status;
    let last = plan(&job, &[], at(101));
    assert_eq!(reason(&last.status, "Failed").as_deref(), Some("FailedIndexes"));
}

#[test]
fn policies_decide_on_exit_codes() {
    let rule = |action: &str| {
        json!({"parallelism": 1, "completions": 1, "backoffLimit": 0, "podFailurePolicy": {"rules": [
        {"action": action, "onExitCodes": {"operator": "In", "values": [3]}}]}})
    };
    let failed = plan(&job(rule("FailJob")), &[pod("a", "Failed", None)], at(100));
    assert_eq!(reason(&failed.status, "FailureTarget").as_deref(), Some("PodFailurePolicy"));
    let ignored = plan(&job(rule("Ignore")), &[pod("a", "Failed", None)], at(100));
    assert_eq!((reason(&ignored.status, "FailureTarget"), ignored.create.len()), (None, 1));
}

#[test]
fn a_suspended_job_loses_its_pods_and_its_start() {
    let suspended = plan(
        &job(json!({"parallelism": 1, "completions": 1, "suspend": true})),
        &[pod("a", "Running", None)],
        at(9),
    );
    assert_eq!((suspended.delete.len(), suspended.status.start_time), (1, None));
    assert_eq!(reason(&suspended.status, "Suspended").as_deref(), Some("JobSuspended"));
    assert_eq!(suspended.status.active, 0);
}

#[test]
fn a_job_that_takes_too_long_fails() {
    let spec = json!({"parallelism": 1, "completions": 1, "activeDeadlineSeconds": 30});
    let running = plan(&job(spec.clone()), &[pod("a", "Running", None)], at(10));
    assert_eq!(running.check_in, Some(20));
    let late = plan(&job(spec), &[pod("a", "Running", None)], at(30));
    assert_eq!(reason(&late.status, "FailureTarget").as_deref(), Some("DeadlineExceeded"));
}
