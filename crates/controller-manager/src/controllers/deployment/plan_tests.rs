use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn deployment(replicas: i32, image: &str, more: Value) -> Deployment {
    let mut value = json!({
        "metadata": {"name": "web", "uid": "d", "generation": 1},
        "spec": {
            "replicas": replicas, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
            "selector": {"matchLabels": {"a": "b"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"image": image}},
        },
    });
    for (key, field) in more.as_object().unwrap() {
        value["spec"][key] = field.clone();
    }
    serde_json::from_value(value).unwrap()
}

/// The set of a deployment's template: its size and how many are available.
fn set(of: &Deployment, revision: i32, size: i32, available: i32) -> Arc<ReplicaSet> {
    let mut value = history::new_set(of);
    let desired = of.spec.replicas.unwrap();
    value["metadata"]["uid"] = value["metadata"]["name"].clone();
    value["metadata"]["creationTimestamp"] = at(i64::from(revision)).to_string().into();
    value["metadata"]["annotations"] =
        json!({REVISION: revision.to_string(), DESIRED: desired.to_string(), MAX: (desired + 1).to_string()});
    value["spec"]["replicas"] = size.into();
    value["status"] = json!({"replicas": size, "readyReplicas": available, "availableReplicas": available});
    Arc::new(serde_json::from_value(value).unwrap())
}

/// The operations as text: `image from->to`.
fn check(deployment: &Deployment, sets: &[Arc<ReplicaSet>], expected: &[&str]) -> Plan {
    let running: Vec<String> =
        sets.iter().filter(|s| s.status.replicas > 0).map(|s| s.metadata.uid.clone()).collect();
    let plan = plan(deployment, sets, &running, at(100));
    let image = |meta: &Meta| {
        let set = sets.iter().find(|s| s.metadata.uid == meta.uid).unwrap();
        set.spec.template["spec"]["image"].as_str().unwrap().to_owned()
    };
    let ops: Vec<String> = plan
        .ops
        .iter()
        .map(|op| match op {
            Op::Create { set, from_zero_to } => {
                format!(
                    "create {} {from_zero_to}",
                    set["spec"]["template"]["spec"]["image"].as_str().unwrap()
                )
            }
            Op::Scale { set, from, to, .. } => format!("{} {from}->{to}", image(set)),
            Op::Update { set, annotations, .. } => {
                format!("{} revision {}", image(set), annotations[REVISION])
            }
            Op::Delete(set) => format!("delete {}", image(set)),
            Op::Revision(revision) => format!("revision {revision}"),
        })
        .collect();
    assert_eq!(ops, expected);
    plan
}

#[test]
fn a_new_deployment_makes_its_set() {
    let plan = check(&deployment(3, "v1", json!({})), &[], &["create v1 3", "revision 1"]);
    let reason = &crate::kit::conditions::find(&plan.status.conditions, "Progressing").unwrap().reason;
    assert_eq!(reason, "NewReplicaSetCreated");
}

#[test]
fn a_rolling_update_keeps_to_surge_and_availability() {
    let (v1, v2) = (deployment(3, "v1", json!({})), deployment(3, "v2", json!({})));
    check(&v2, &[set(&v1, 1, 3, 3)], &["create v2 1", "revision 2"]);
    check(&v2, &[set(&v1, 1, 3, 3), set(&v2, 2, 1, 0)], &["revision 2"]);
    check(&v2, &[set(&v1, 1, 3, 3), set(&v2, 2, 1, 1)], &["revision 2", "v1 3->2"]);
    check(&v2, &[set(&v1, 1, 2, 2), set(&v2, 2, 1, 1)], &["revision 2", "v2 1->2"]);
    // Old pods that do not work are the first to go.
    check(&v2, &[set(&v1, 1, 3, 1), set(&v2, 2, 1, 1)], &["revision 2", "v1 3->2"]);
    let done = check(&v2, &[set(&v1, 1, 0, 0), set(&v2, 2, 3, 3)], &["revision 2"]);
    let progressing = crate::kit::conditions::find(&done.status.conditions, "Progressing").unwrap();
    assert_eq!(progressing.reason, "NewReplicaSetAvailable");
    assert_eq!(done.check_in, None);
}

#[test]
fn rolling_back_gives_the_old_set_a_new_revision() {
    let (v1, v2) = (deployment(3, "v1", json!({})), deployment(3, "v2", json!({})));
    check(&v1, &[set(&v1, 1, 0, 0), set(&v2, 2, 3, 3)], &["v1 revision 3"]);
}

#[test]
fn recreate_waits_for_the_old_pods_to_be_gone() {
    let recreate = json!({"strategy": {"type": "Recreate"}});
    let (v1, v2) = (deployment(3, "v1", recreate.clone()), deployment(3, "v2", recreate));
    check(&v2, &[set(&v1, 1, 3, 3)], &["v1 3->0"]);
    let mut emptied = (*set(&v1, 1, 0, 0)).clone();
    emptied.status.replicas = 2;
    check(&v2, &[Arc::new(emptied)], &[]);
    check(&v2, &[set(&v1, 1, 0, 0)], &["create v2 3", "revision 2"]);
}

#[test]
fn a_change_of_the_number_keeps_the_proportion() {
    let (v1, v2) = (deployment(10, "v1", json!({})), deployment(10, "v2", json!({})));
    let sets = [set(&v1, 1, 8, 8), set(&v2, 2, 3, 3)];
    check(&deployment(20, "v2", json!({})), &sets, &["revision 2", "v1 8->15", "v2 3->6"]);
    check(&deployment(0, "v2", json!({})), &sets, &["revision 2", "v1 8->0", "v2 3->0"]);
    // One set alone is scaled whole.
    check(&deployment(5, "v1", json!({})), &[set(&v1, 1, 10, 10)], &["revision 1", "v1 10->5"]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let v1 = deployment(3, "v1", json!({}));
    let paused = deployment(5, "v2", json!({"paused": true}));
    let plan = check(&paused, &[set(&v1, 1, 3, 3)], &["v1 3->5"]);
    let progressing = crate::kit::conditions::find(&plan.status.conditions, "Progressing").unwrap();
    assert_eq!((&*progressing.status, &*progressing.reason), ("Unknown", "DeploymentPaused"));
}

#[test]
fn history_beyond_the_limit_is_deleted() {
    let limit = json!({"revisionHistoryLimit": 1});
    let mut last = deployment(1, "v3", limit);
    last.metadata.annotations.insert(REVISION.to_owned(), "3".to_owned());
    let of = |image: &str| deployment(1, image, json!({}));
    let sets = [set(&of("v1"), 1, 0, 0), set(&of("v2"), 2, 0, 0), set(&last, 3, 1, 1)];
    last.status = check(&last, &sets, &[]).status;
    check(&last, &sets, &["delete v1"]);
}

#[test]
fn standing_still_for_too_long_is_a_failure() {
    let mut stuck = deployment(1, "v1", json!({"progressDeadlineSeconds": 30}));
    stuck.metadata.annotations.insert(REVISION.to_owned(), "1".to_owned());
    let sets = [set(&stuck, 1, 1, 0)];
    stuck.status = check(&stuck, &sets, &[]).status;
    let progressing =
        |s: &DeploymentStatus| crate::kit::conditions::find(&s.conditions, "Progressing").unwrap().clone();
    assert_eq!(progressing(&stuck.status).reason, "ReplicaSetUpdated");
    let later = plan(&stuck, &sets, &[], at(120));
    assert_eq!((progressing(&later.status).is_true(), later.check_in), (true, Some(11)));
    let late = plan(&stuck, &sets, &[], at(131));
    assert_eq!(progressing(&late.status).reason, "ProgressDeadlineExceeded");
    assert!(!progressing(&late.status).is_true());
}
