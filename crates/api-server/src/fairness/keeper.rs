//! Keeps flow control what its objects say: takes over their changes, shares the seats out anew from time to time,
//! and says in FlowSchemas' status whether their level exists.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keelson_api_types::{Gvr, Reason, meta};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Fairness;
use super::allocation::{Limits, Shares, adjust};
use super::config::{CATCH_ALL, EXEMPT, FlowSchema, Meta, PriorityLevel};
use super::level::{Level, Schema, Table};
use super::queueset::Mode;
use crate::bootstrap::objects::{FLOW_GROUP, flow_control};
use crate::types::Objects;

/// How often levels lend and borrow.
const PERIOD: Duration = Duration::from_secs(10);
/// A schema's status is written at most so often a minute, should somebody else keep writing another.
const MOST_WRITES: usize = 6;

/// Serves until shutdown.
pub async fn run(fairness: Arc<Fairness>, objects: Arc<dyn Objects>, shutdown: CancellationToken) {
    let [schemas, levels] = gvrs();
    let mut schema_changes = objects.subscribe(&schemas);
    let mut level_changes = objects.subscribe(&levels);
    let mut writes = Writes::default();
    let mut period = tokio::time::interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let release = fairness.next_release();
        let released = async {
            match release {
                Some(at) => tokio::time::sleep_until(fairness.start + at).await,
                None => std::future::pending().await,
            }
        };
        let changed = tokio::select! {
            change = schema_changes.recv() => change.is_some(),
            change = level_changes.recv() => change.is_some(),
            _ = period.tick() => {
                fairness.adjust();
                writes.due() || fairness.has_leftovers()
            }
            () = released => {
                fairness.release();
                false
            }
            () = fairness.lingering.notified() => false,
            () = shutdown.cancelled() => return,
        };
        if changed {
            while schema_changes.try_recv().is_ok() || level_changes.try_recv().is_ok() {}
            let stored = objects.list(&schemas, "");
            fairness.digest(&parse(&objects.list(&levels, "")), &parse(&stored));
            writes.update(&fairness, objects.as_ref(), &schemas, &stored).await;
        }
    }
}

fn gvrs() -> [Gvr; 2] {
    ["flowschemas", "prioritylevelconfigurations"].map(|resource| Gvr::new(FLOW_GROUP, "v1", resource))
}

/// Objects that cannot be read are as good as none.
fn parse<T: for<'a> Deserialize<'a>>(objects: &[Arc<Value>]) -> Vec<T> {
    objects.iter().filter_map(|o| T::deserialize(&**o).ok()).collect()
}

/// What always exists, as the server starts with it.
fn mandatory<T: for<'a> Deserialize<'a>>(resource: &str) -> Vec<T> {
    let wanted = flow_control();
    let of = wanted.iter().filter(|w| w.gvr.resource == resource);
    let named = of.filter(|w| [EXEMPT, CATCH_ALL].contains(&meta::name(&w.object)));
    named.filter_map(|w| T::deserialize(&w.object).ok()).collect()
}

struct Plan<'a> {
    mode: Mode,
    shares: Shares,
    uid: &'a str,
}

impl Fairness {
    /// Takes over a configuration, completed by what always exists.
    pub(super) fn digest(&self, levels: &[PriorityLevel], schemas: &[FlowSchema]) {
        let mandatory_levels: Vec<PriorityLevel> = mandatory("prioritylevelconfigurations");
        let mut plans: BTreeMap<&str, Plan<'_>> = BTreeMap::new();
        for level in mandatory_levels.iter().chain(levels) {
            if let Some((mode, shares)) = level.plan() {
                let Meta { name, uid } = &level.metadata;
                plans.insert(name, Plan { mode, shares, uid });
            }
        }
        let old = self.table.load_full();
        let now = self.now();
        let mut all: Vec<Arc<Level>> = Vec::new();
        for (name, plan) in &plans {
            let level =
                old.level(name).cloned().unwrap_or_else(|| Arc::new(Level::new(name, now, plan.mode)));
            level.quiescing.store(false, Ordering::Relaxed);
            *level.plan.lock() = (plan.mode, plan.shares);
            all.push(level);
        }
        for level in old.levels.iter().filter(|l| !plans.contains_key(&*l.name) && !l.set.lock().is_idle()) {
            level.quiescing.store(true, Ordering::Relaxed);
            all.push(level.clone());
        }
        let sum: f64 = all.iter().map(|l| l.plan.lock().1.nominal).sum();
        for level in &all {
            let (mode, shares) = *level.plan.lock();
            let mut limits = level.limits.lock();
            limits.configure(self.seats, shares, sum);
            level.set_widest(mode, limits.nominal);
        }
        let schemas = self.schemas(schemas, &plans, &all);
        self.apply(&all);
        self.table.store(Arc::new(Table { schemas, levels: all }));
    }

    fn schemas(
        &self,
        given: &[FlowSchema],
        plans: &BTreeMap<&str, Plan<'_>>,
        levels: &[Arc<Level>],
    ) -> Vec<Arc<Schema>> {
        let mut all: Vec<FlowSchema> = mandatory("flowschemas");
        all.retain(|m| !given.iter().any(|g| g.metadata.name == m.metadata.name));
        all.extend_from_slice(given);
        all.sort_by(|a, b| {
            let key = |s: &FlowSchema| (s.spec.matching_precedence, s.metadata.name.clone());
            key(a).cmp(&key(b))
        });
        let made = all.into_iter().filter_map(|schema| {
            let wanted = &schema.spec.priority_level_configuration.name;
            let plan = plans.get(wanted.as_str())?;
            let level = levels.iter().find(|l| *l.name == **wanted)?.clone();
            let stats = self.metrics.of(&level.name, &schema.metadata.name);
            let Meta { name, uid } = &schema.metadata;
            Some(Arc::new(Schema::new(name, uid, schema.spec.clone(), level, plan.uid, stats)))
        });
        made.collect()
    }

    /// Shares the seats out by what the levels have wanted since the last time.
    fn adjust(&self) {
        let now = self.now();
        let table = self.table.load_full();
        for level in &table.levels {
            let seen = level.set.lock().take_demand(now);
            level.limits.lock().note(seen);
        }
        self.apply(&table.levels);
    }

    fn apply(&self, levels: &[Arc<Level>]) {
        let mut limits: Vec<(bool, Limits)> =
            levels.iter().map(|l| (l.plan.lock().0 == Mode::Exempt, *l.limits.lock())).collect();
        let mut borrowed: Vec<(bool, &mut Limits)> = limits.iter_mut().map(|(e, l)| (*e, l)).collect();
        self.metrics.fair_fraction.set(adjust(&mut borrowed));
        for (level, (_, limits)) in levels.iter().zip(limits) {
            *level.limits.lock() = limits;
            let mode = level.plan.lock().0;
            self.with(level, |set| set.configure(self.now(), mode, limits.current));
        }
    }

    /// When the next seats come free that somebody waits for.
    fn next_release(&self) -> Option<Duration> {
        self.table.load().levels.iter().filter_map(|l| l.set.lock().next_release()).min()
    }

    fn release(&self) {
        for level in &self.table.load_full().levels {
            self.with(level, |set| set.sync(self.now()));
        }
    }

    /// Whether a level without an object has nothing to do any more.
    fn has_leftovers(&self) -> bool {
        let table = self.table.load();
        table.levels.iter().any(|l| l.quiescing.load(Ordering::Relaxed) && l.set.lock().is_idle())
    }
}

/// The statuses that were written lately, and whether one was put off.
#[derive(Default)]
struct Writes {
    times: HashMap<String, Vec<Instant>>,
    put_off: bool,
}

impl Writes {
    fn due(&self) -> bool {
        self.put_off
    }

    async fn update(&mut self, fairness: &Fairness, objects: &dyn Objects, gvr: &Gvr, stored: &[Arc<Value>]) {
        self.put_off = false;
        let now = Instant::now();
        self.times.retain(|_, times| {
            times.retain(|t| now.duration_since(*t) < Duration::from_secs(60));
            !times.is_empty()
        });
        for schema in stored {
            let level = crate::admission::text(schema, "/spec/priorityLevelConfiguration/name");
            let found =
                fairness.table.load().level(level).is_some_and(|l| !l.quiescing.load(Ordering::Relaxed));
            let Some(changed) = with_condition(schema, level, found) else { continue };
            let times = self.times.entry(meta::name(schema).to_owned()).or_default();
            if times.len() >= MOST_WRITES {
                self.put_off = true;
                continue;
            }
            times.push(now);
            match objects.update(gvr, "", "status", changed).await {
                Ok(_) => {}
                // What changed it comes by the watch.
                Err(error) if matches!(error.reason(), Reason::Conflict | Reason::NotFound) => {}
                Err(error) => {
                    tracing::warn!(schema = meta::name(schema), %error, "cannot write a FlowSchema's status");
                    self.put_off = true;
                }
            }
        }
    }
}

/// The schema with its `Dangling` condition, unless it has it already.
fn with_condition(schema: &Value, level: &str, found: bool) -> Option<Value> {
    let object = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = match found {
        true => ("False", "Found", format!("{object} and it exists")),
        false => ("True", "NotFound", format!("{object} but there is no such object")),
    };
    let conditions = crate::admission::items(&schema["status"]["conditions"]);
    let is_dangling = |c: &&Value| c["type"] == "Dangling";
    let same = |c: &Value| c["status"] == status && c["reason"] == reason && c["message"] == message;
    if conditions.iter().find(is_dangling).is_some_and(same) {
        return None;
    }
    let mut conditions: Vec<Value> = conditions.iter().filter(|c| !is_dangling(c)).cloned().collect();
    conditions.push(json!({"type": "Dangling", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": meta::now_rfc3339()}));
    let mut schema = schema.clone();
    schema["status"]["conditions"] = conditions.into();
    Some(schema)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::testing::user;
    use crate::request::{Query, RequestInfo};

    fn fairness() -> Arc<Fairness> {
        Fairness::new(&keelson_daemon::Metrics::new("test"), 600)
    }

    fn bootstrapped(fairness: &Fairness) {
        let of = |resource: &str| -> Vec<Arc<Value>> {
            let all = flow_control().into_iter();
            all.filter(|w| w.gvr.resource == resource).map(|w| Arc::new(w.object)).collect()
        };
        fairness.digest(&parse(&of("prioritylevelconfigurations")), &parse(&of("flowschemas")));
    }

    fn classify(fairness: &Fairness, path: &str, name: &str, groups: &[&str]) -> String {
        let info = RequestInfo::parse(&http::Method::GET, path, &Query::default());
        let schema = fairness.table.load().classify(&info, &user(name, groups));
        format!("{} {}", schema.name, schema.level.name)
    }

    #[tokio::test]
    async fn what_always_exists_serves_before_the_objects_are_read() {
        let fairness = fairness();
        assert_eq!(classify(&fairness, "/version", "admin", &["system:masters"]), "exempt exempt");
        assert_eq!(classify(&fairness, "/version", "jane", &["system:authenticated"]), "catch-all catch-all");
        assert_eq!(classify(&fairness, "/version", "nobody", &[]), "catch-all catch-all");
    }

    #[tokio::test]
    async fn the_first_objects_share_six_hundred_seats_as_upstream_does() {
        let fairness = fairness();
        bootstrapped(&fairness);
        let table = fairness.table.load();
        let limits: Vec<(&str, u64)> =
            table.levels.iter().map(|l| (&*l.name, l.limits.lock().nominal)).collect();
        let wanted = [
            ("catch-all", 13),
            ("exempt", 0),
            ("global-default", 49),
            ("leader-election", 25),
            ("node-high", 98),
            ("system", 74),
            ("workload-high", 98),
            ("workload-low", 245),
        ];
        assert_eq!(limits, wanted);
        let widest: Vec<u32> = table.levels.iter().map(|l| l.widest()).collect();
        assert_eq!(widest, [0, 0, 8, 4, 15, 12, 15, 37]);
        let cases = [
            ("/api/v1/nodes/n", "system:node:n", "system:nodes", "system-node-high node-high"),
            ("/api/v1/namespaces/a/pods", "system:node:n", "system:nodes", "system-nodes system"),
            ("/healthz", "jane", "system:authenticated", "probes exempt"),
            ("/api/v1/pods", "jane", "system:authenticated", "global-default global-default"),
            (
                "/api/v1/pods",
                "system:serviceaccount:a:b",
                "system:serviceaccounts",
                "service-accounts workload-low",
            ),
        ];
        for (path, name, group, wanted) in cases {
            assert_eq!(classify(&fairness, path, name, &[group]), wanted);
        }
    }

    #[tokio::test]
    async fn a_level_outlives_its_object_until_its_requests_have_ended() {
        let fairness = fairness();
        bootstrapped(&fairness);
        let info = RequestInfo::parse(&http::Method::GET, "/api/v1/pods", &Query::default());
        let jane = user("jane", &["system:authenticated"]);
        let entered = fairness.enter(&info, &jane, |_| super::super::seats::Estimate::ONE).await;
        let ticket = entered.ok().expect("there is room");
        fairness.digest(&[], &[]);
        let level = |name: &str| fairness.table.load().level(name).cloned();
        assert!(level("global-default").is_some_and(|l| l.quiescing.load(Ordering::Relaxed)));
        assert!(!fairness.has_leftovers());
        drop(ticket);
        assert!(fairness.has_leftovers());
        fairness.digest(&[], &[]);
        assert!(level("global-default").is_none());
    }

    #[test]
    fn a_schema_without_its_level_dangles() {
        let schema =
            json!({"metadata": {"name": "s"}, "spec": {"priorityLevelConfiguration": {"name": "l"}}});
        let dangling = with_condition(&schema, "l", false).expect("a change");
        assert_eq!(dangling["status"]["conditions"][0]["status"], "True");
        assert_eq!(with_condition(&dangling, "l", false), None);
        let found = with_condition(&dangling, "l", true).expect("a change");
        assert_eq!(found["status"]["conditions"][0]["reason"], "Found");
        assert_eq!(found["status"]["conditions"].as_array().map(Vec::len), Some(1));
    }
}
