//! What goes wrong: a plan from a seed, and its execution.

use std::time::Duration;

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::clients::Notes;
use crate::cluster::{Backend, Cluster, Paused};
use crate::history::Outage;
use crate::proxy::Link;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and a start when the fault ends.
    KillServer(usize),
    /// SIGSTOP, and SIGCONT when the fault ends.
    PauseServer(usize),
    Link(usize, Link),
    KillEtcd,
    PauseEtcd,
    /// A disk without space.
    FillDisk,
    /// Forgets all history but the present.
    Compact,
}

/// A fault, after a time without, for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub calm: Duration,
    pub fault: Fault,
    pub lasts: Duration,
    /// Compaction halfway, so that nobody can take up where he was.
    pub compacts: bool,
}

/// The same seed is the same plan.
pub fn plan(seed: u64, backend: Backend, whole: Duration) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut steps = Vec::new();
    let mut at = Duration::ZERO;
    loop {
        let calm = Duration::from_millis(random.random_range(200..1500));
        let long = random.random_ratio(1, 8);
        let lasts = Duration::from_millis(random.random_range(if long { 4000..12_000 } else { 100..3000 }));
        let fault = match backend {
            Backend::Embedded => embedded(&mut random),
            Backend::Etcd => etcd(&mut random),
        };
        at += calm + lasts;
        if at > whole {
            return steps;
        }
        steps.push(Step { calm, fault, lasts, compacts: random.random_ratio(1, 3) });
    }
}

fn embedded(random: &mut StdRng) -> Fault {
    match random.random_range(0..10) {
        0..4 => Fault::KillServer(0),
        4..6 => Fault::PauseServer(0),
        _ => Fault::FillDisk,
    }
}

fn etcd(random: &mut StdRng) -> Fault {
    let server = random.random_range(0..2);
    match random.random_range(0..16) {
        0..2 => Fault::KillServer(server),
        2..4 => Fault::PauseServer(server),
        4..6 => Fault::Link(server, Link::Slow(Duration::from_millis(random.random_range(5..400)))),
        6..9 => Fault::Link(server, Link::Stalled),
        9..12 => Fault::Link(server, Link::Cut),
        12 => Fault::KillEtcd,
        13 => Fault::PauseEtcd,
        _ => Fault::Compact,
    }
}

/// Does what was planned; everything works again afterwards.
pub async fn execute(steps: &[Step], cluster: &mut Cluster, notes: &Notes) -> anyhow::Result<()> {
    for step in steps {
        tokio::time::sleep(step.calm).await;
        let begin = notes.now();
        act(step, cluster).await.with_context(|| format!("{step:?}"))?;
        let away: &[usize] = match step.fault {
            Fault::Link(server, Link::Stalled | Link::Cut) => &[server],
            Fault::KillEtcd | Fault::PauseEtcd => &[0, 1],
            Fault::FillDisk => &[0],
            _ => &[],
        };
        let end = notes.now();
        notes.outages(away.iter().map(|&server| Outage { server, begin, end }));
    }
    Ok(())
}

async fn act(step: &Step, cluster: &mut Cluster) -> anyhow::Result<()> {
    match step.fault {
        Fault::KillServer(server) => {
            cluster.servers[server].kill().await?;
            last(step, cluster).await?;
            cluster.servers[server].restart().await
        }
        Fault::PauseServer(server) => {
            let _paused = Paused::pause(cluster.servers[server].pid().context("the server has ended")?)?;
            last(step, cluster).await
        }
        Fault::Link(server, link) => {
            cluster.proxies[server].set(link);
            let lasted = last(step, cluster).await;
            cluster.proxies[server].set(Link::Open);
            lasted
        }
        Fault::KillEtcd => {
            let etcd = cluster.etcd.as_mut().context("there is no etcd")?;
            etcd.kill();
            tokio::time::sleep(step.lasts).await;
            etcd.restart().await;
            Ok(())
        }
        Fault::PauseEtcd => {
            let _paused = Paused::pause(cluster.etcd.as_ref().context("there is no etcd")?.pid())?;
            tokio::time::sleep(step.lasts).await;
            Ok(())
        }
        Fault::FillDisk => {
            let Some(disk) = &cluster.disk else { return Ok(()) };
            disk.fill()?;
            tokio::time::sleep(step.lasts).await;
            disk.free()
        }
        Fault::Compact => compact(cluster).await,
    }
}

/// The time that a fault of one server lasts.
async fn last(step: &Step, cluster: &Cluster) -> anyhow::Result<()> {
    tokio::time::sleep(step.lasts / 2).await;
    if step.compacts {
        compact(cluster).await?;
    }
    tokio::time::sleep(step.lasts / 2).await;
    Ok(())
}

/// The embedded store compacts by itself.
async fn compact(cluster: &Cluster) -> anyhow::Result<()> {
    let Some(store) = &cluster.direct else { return Ok(()) };
    let now = store.revision().await?;
    Ok(store.compact(now).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_one_plan_that_fits_its_time() {
        for backend in [Backend::Embedded, Backend::Etcd] {
            let whole = Duration::from_secs(60);
            let steps = plan(7, backend, whole);
            assert_eq!(steps, plan(7, backend, whole));
            assert_ne!(steps, plan(8, backend, whole));
            assert!(steps.len() > 5 && steps.iter().map(|s| s.calm + s.lasts).sum::<Duration>() <= whole);
        }
    }
}
