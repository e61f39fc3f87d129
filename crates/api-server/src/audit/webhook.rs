//! Events in batches to a server. A batch that it does not take is sent again for a while; meanwhile the queue
//! fills, and what no longer fits is lost and counted.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{WebhookConfig, retry_after};
use crate::types::Objects;

const TIMEOUT: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 5;

pub struct Hook {
    config: WebhookConfig,
    /// As webhook configurations describe where to call.
    target: Value,
    objects: Arc<dyn Objects>,
    lost: Counter,
}

impl Hook {
    pub fn new(config: &WebhookConfig, objects: Arc<dyn Objects>, lost: Counter) -> std::io::Result<Self> {
        let bundle = config.ca_file.as_ref().map(std::fs::read).transpose()?;
        let target = json!({"url": config.url, "caBundle": bundle.map(|pem| STANDARD.encode(pem))});
        Ok(Self { config: config.clone(), target, objects, lost })
    }

    pub async fn run(self, mut queue: mpsc::Receiver<Arc<str>>, shutdown: CancellationToken) {
        let wait = Duration::from_secs(self.config.batch_max_wait);
        let size = self.config.batch_max_size.max(1);
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                taken = queue.recv_many(&mut batch, size) => if taken == 0 { return },
                () = shutdown.cancelled() => queue.close(),
            }
            let deadline = Instant::now() + wait;
            while !batch.is_empty() && batch.len() < size && !shutdown.is_cancelled() {
                tokio::select! {
                    more = queue.recv() => match more {
                        Some(line) => batch.push(line),
                        None => break,
                    },
                    () = tokio::time::sleep_until(deadline) => break,
                    () = shutdown.cancelled() => break,
                }
            }
            if !batch.is_empty() {
                self.send(&batch, &shutdown).await;
            }
        }
    }

    async fn send(&self, batch: &[Arc<str>], shutdown: &CancellationToken) {
        let body = format!(
            "{{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"metadata\":{{}},\"items\":[{}]}}",
            batch.join(",")
        );
        for attempt in 0..ATTEMPTS {
            let post =
                crate::webhook::post(self.objects.as_ref(), &self.target, TIMEOUT, body.clone().into());
            let Err(error) = post.await else { return };
            tracing::warn!(%error, events = batch.len(), "the audit webhook did not take a batch");
            if shutdown.is_cancelled() || attempt + 1 == ATTEMPTS {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(retry_after(&self.config, attempt)) => {}
                () = shutdown.cancelled() => {}
            }
        }
        self.lost.inc_by(batch.len() as u64);
    }
}
