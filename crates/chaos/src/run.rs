//! One round: a cluster, clients, faults, and then the check.

use std::time::Duration;

use anyhow::Context;
use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::check::{Report, Rule, Violation, check};
use crate::clients::{Api, Goal, Notes, Reader, Watcher, World, Writer};
use crate::cluster::{Backend, Cluster};
use crate::faults::{Step, execute, plan};
use crate::history::{Answer, Filter, History, Revision};

const WRITERS: usize = 4;
const READERS: usize = 4;
const FILTERS: [Filter; 7] =
    [Filter::All, Filter::All, Filter::All, Filter::Side(0), Filter::Side(1), Filter::Key(3), Filter::Key(5)];
/// How long everything may take to work again after the last fault.
const RECOVERY: Duration = Duration::from_secs(60);

/// What a round came to.
pub struct Round {
    pub steps: Vec<Step>,
    pub operations: usize,
    pub sessions: usize,
    pub report: Report,
    /// The ends of the servers' logs, if something was wrong.
    pub logs: Vec<String>,
}

/// Runs for about as long as asked, plus the time to start and to recover.
pub async fn round(seed: u64, backend: Backend, faults: Duration) -> anyhow::Result<Round> {
    let mut cluster = Cluster::start(backend).await.context("start the cluster")?;
    let mut apis = Vec::new();
    for server in &cluster.servers {
        apis.push(Api::connect(&server.kubeconfig("admin")).await?);
    }
    apis[0].create_namespace().await?;
    let steps = plan(seed, backend, faults);
    let notes = Notes::default();
    let world = World { apis: &apis, notes: &notes };
    let Answer::Listed { revision: begin, .. } = world.list_all(0, 0).await else {
        anyhow::bail!("the first list fails");
    };
    let stuck = play(seed, &steps, &mut cluster, world, begin).await?;
    let history = History { empty_at: begin, ..notes.into_history() };
    let mut report = check(&history);
    report.violations.extend(stuck);
    let logs = match report.violations.is_empty() {
        true => Vec::new(),
        false => cluster.servers.iter().map(|server| tail(&server.log())).collect(),
    };
    let (operations, sessions) = (history.operations.len(), history.sessions.len());
    Ok(Round { steps, operations, sessions, report, logs })
}

/// Returns what did not come back to life.
async fn play(
    seed: u64,
    steps: &[Step],
    cluster: &mut Cluster,
    world: World<'_>,
    begin: Revision,
) -> anyhow::Result<Option<Violation>> {
    let (stop, stopped) = watch::channel(false);
    let (reach, goal) = watch::channel(None);
    let seed_of = |client: usize| seed.wrapping_mul(1000) + client as u64;
    let writers = join_all((0..WRITERS).map(|c| Writer::new(world, c, seed_of(c)).run(stopped.clone())));
    let readers = WRITERS..WRITERS + READERS;
    let readers = join_all(readers.map(|c| Reader::new(world, c, seed_of(c)).run(stopped.clone())));
    let watchers = (WRITERS + READERS..).zip(FILTERS);
    let watchers =
        watchers.map(|(c, filter)| Watcher::new(world, c, filter, seed_of(c), goal.clone(), begin).run());
    let watchers = join_all(watchers);
    let drive = async {
        let act = async {
            let executed = execute(steps, cluster, world.notes).await;
            stop.send_replace(true);
            executed
        };
        tokio::join!(act, writers, readers).0?;
        let client = WRITERS + READERS + FILTERS.len();
        let revisions = Writer::new(world, client, seed_of(client)).finish(RECOVERY).await;
        let written = revisions.is_some();
        let goal = Goal { revisions: revisions.unwrap_or_default(), deadline: Instant::now() + RECOVERY };
        reach.send_replace(Some(goal));
        anyhow::Ok(written)
    };
    let (written, arrived) = tokio::join!(drive, watchers);
    if !written? {
        return Ok(Some(stuck(format!("writes do not succeed {RECOVERY:?} after the last fault"))));
    }
    let late: Vec<_> = FILTERS.iter().zip(arrived).filter(|(_, arrived)| !arrived).collect();
    if !late.is_empty() {
        return Ok(Some(stuck(format!(
            "the last writes are not seen after {RECOVERY:?} by watches of {late:?}"
        ))));
    }
    for server in 0..world.apis.len() {
        world.list_all(0, server).await;
    }
    Ok(None)
}

fn stuck(text: String) -> Violation {
    Violation { rule: Rule::StuckWatch, text }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
