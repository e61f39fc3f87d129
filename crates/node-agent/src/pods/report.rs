//! Statuses on their way to the API.

use super::{spec, status};
use crate::context::Context;
use crate::volumes;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A status on its way to the API.
#[derive(Debug, Clone)]
pub struct Report {
    pub pod: Arc<Pod>,
    pub status: PodStatus,
    /// Then remove the object.
    pub last: bool,
}

/// Brings statuses to the API, the newest only, until the last one is there and the object removed.
pub async fn send(ctx: Arc<Context>, mut reports: watch::Receiver<Option<Report>>) {
    let mut sent = None;
    loop {
        if reports.changed().await.is_err() {
            return;
        }
        let mut pause = Duration::from_millis(100);
        loop {
            let Some(report) = reports.borrow_and_update().clone() else { break };
            match deliver(&ctx, &report, &mut sent).await {
                Ok(()) if report.last => return,
                Ok(()) => break,
                Err(e) if matches!(e.code(), Some(404)) => return,
                // The name belongs to another pod by now.
                Err(e) if matches!(e.code(), Some(409 | 422)) && report.last => return,
                Err(e) => {
                    tracing::info!(?pause, "{}", volumes::chain(&e));
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        changed = reports.changed() => if changed.is_err() { return },
                    }
                    pause = (pause * 2).min(Duration::from_secs(10));
                }
            }
        }
    }
}

/// Sends a status, unless it is the one that was `sent`; then removes the object where it was the last.
async fn deliver(ctx: &Context, report: &Report, sent: &mut Option<PodStatus>) -> crate::api::Result<()> {
    let (namespace, name) = (spec::namespace(&report.pod), spec::name(&report.pod));
    if !sent.as_ref().is_some_and(|s| is_same(s, &report.status)) {
        let body = status::patch(&report.pod, &report.status);
        ctx.api.patch_status(namespace, name, body).await?;
        *sent = Some(report.status.clone());
    }
    if report.last {
        ctx.api.delete_pod(namespace, name, spec::uid(&report.pod)).await?;
    }
    Ok(())
}

/// Equal but for what only time changes.
pub fn is_same(a: &PodStatus, b: &PodStatus) -> bool {
    let strip = |s: &PodStatus| {
        let mut s = s.clone();
        for condition in s.conditions.iter_mut().flatten() {
            condition.last_transition_time = None;
        }
        s
    };
    strip(a) == strip(b)
}
