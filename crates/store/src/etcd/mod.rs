//! The etcd backend: for API servers on more than one machine, or an etcd that is there already.
//!
//! Speaks to etcd 3.4 and later. Every write is one transaction that compares the key's mod
//! revision, so that one revision is one change. Keys may be kept under a prefix; callers never see it.

mod convert;
mod failure;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, GetOptions, Identity, KvClient,
    PutOptions, TlsOptions, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use tokio::sync::watch as signal;

use crate::error::{Error, Result, WriteError};
use crate::types::{Expect, Got, LeaseId, RangeOptions, Ranged, Revision, Write, Written};
use crate::{Store, WatchStream, retention};
use convert::{Keys, key_value, revision_of};
use failure::Failure;

/// How long one call may take, connecting included.
const CALL: Duration = Duration::from_secs(10);
/// etcd's own limit of a request unless configured otherwise.
const VALUE_LIMIT: usize = 3 << 19;
/// How many small writes are under way at once while [`Store::advance`] raises the revision.
const ADVANCE_AT_ONCE: usize = 128;

/// How to reach etcd.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EtcdConfig {
    /// `https://host:2379` for each member.
    pub endpoints: Vec<String>,
    /// PEM files: the authority of etcd's certificates, and this client's certificate and key.
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// Put before every key, so that several clusters can share one etcd.
    pub prefix: String,
    /// How long replaced and deleted values stay readable; 0 leaves compaction to others.
    #[serde(default = "default_history_seconds")]
    pub history_seconds: u64,
}

fn default_history_seconds() -> u64 {
    retention::DEFAULT_SECONDS
}

/// A connection to etcd.
pub struct Etcd {
    client: Client,
    keys: Keys,
    endpoints: String,
    /// Raised to make all watches ask etcd for their progress.
    progress: signal::Sender<()>,
    /// Whether etcd's answer to that can be trusted.
    progress_reliable: bool,
}

impl EtcdConfig {
    pub fn new(endpoints: Vec<String>) -> Self {
        Self { endpoints, history_seconds: default_history_seconds(), ..Self::default() }
    }

    async fn options(&self) -> Result<ConnectOptions> {
        let options = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(3))
            .with_keep_alive(Duration::from_secs(10), Duration::from_secs(5))
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        let mut tls = TlsOptions::new();
        if let Some(ca) = &self.ca {
            tls = tls.ca_certificate(Certificate::from_pem(read_file(ca).await?));
        }
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                tls = tls.identity(Identity::from_pem(read_file(cert).await?, read_file(key).await?))
            }
            (None, None) => {}
            _ => return Err(Error::Config("etcd: cert and key must be given together".to_owned())),
        }
        let wants_tls = self.ca.is_some() || self.cert.is_some();
        Ok(if wants_tls { options.with_tls(tls) } else { options })
    }
}

async fn read_file(path: &Path) -> Result<Vec<u8>> {
    tokio::fs::read(path)
        .await
        .map_err(|error| Error::Config(format!("etcd: read {}: {error}", path.display())))
}

impl Etcd {
    /// Connects and makes sure that etcd answers.
    pub async fn connect(config: EtcdConfig) -> Result<Self> {
        if config.endpoints.is_empty() {
            return Err(Error::Config("etcd: endpoints must name at least one address".to_owned()));
        }
        let endpoints = config.endpoints.join(",");
        let options = config.options().await?;
        let connect = async {
            let client = Client::connect(&config.endpoints, Some(options)).await?;
            let version = client.maintenance_client().status().await?.version().to_owned();
            Ok((client, version))
        };
        let (client, version) = match tokio::time::timeout(CALL, connect).await {
            Ok(result) => result.map_err(Failure::Etcd),
            Err(_) => Err(Failure::Timeout),
        }
        .map_err(|failure| failure.explain("connect to", &endpoints, 0))?;
        let progress_reliable = progress_is_reliable(&version);
        tracing::info!(endpoints, version, progress_reliable, "connected to etcd");
        let (progress, _) = signal::channel(());
        Ok(Self { client, keys: Keys::new(config.prefix), endpoints, progress, progress_reliable })
    }

    fn kv(&self) -> KvClient {
        self.client.kv_client().max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX)
    }

    /// One call with a time limit; its failure in terms of operation and revision.
    async fn call<T>(
        &self,
        operation: &'static str,
        revision: Revision,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T> {
        limited(call).await.map_err(|failure| failure.explain(operation, &self.endpoints, revision))
    }

    /// A read, tried again when the connection just broke: it changes nothing.
    async fn read(
        &self,
        key: Vec<u8>,
        options: GetOptions,
        at: Revision,
    ) -> Result<etcd_client::GetResponse> {
        const ATTEMPTS: u32 = 3;
        let mut attempt = 1;
        loop {
            let mut kv = self.kv();
            match limited(kv.get(key.clone(), Some(options.clone()))).await {
                Err(failure) if failure.is_passing() && attempt < ATTEMPTS => {
                    tokio::time::sleep(Duration::from_millis(100) * attempt).await;
                    attempt += 1;
                }
                result => return result.map_err(|failure| failure.explain("read", &self.endpoints, at)),
            }
        }
    }

    async fn write_txn(&self, write: Write) -> Result<Written, WriteError> {
        let key = self.keys.to_etcd(&write.key);
        let size = write.value.as_ref().map_or(0, bytes::Bytes::len);
        let change = match &write.value {
            Some(value) => {
                let options =
                    PutOptions::new().with_prev_key().with_lease(lease_to_etcd(write.lease.unwrap_or(0)));
                TxnOp::put(key.clone(), value.to_vec(), Some(options))
            }
            None => TxnOp::delete(key.clone(), Some(DeleteOptions::new().with_prev_key())),
        };
        let txn = match expected(write.expect) {
            Some(revision) => Txn::new()
                .when([Compare::mod_revision(key.clone(), CompareOp::Equal, revision)])
                .and_then([change])
                .or_else([TxnOp::get(key, None)]),
            None => Txn::new().and_then([change]),
        };
        let mut kv = self.kv();
        match limited(kv.txn(txn)).await {
            Ok(response) => self.written(&response),
            Err(failure) if failure.is_too_large() => {
                Err(WriteError::TooLarge { key: write.key, size, limit: VALUE_LIMIT })
            }
            Err(failure) => Err(match failure.explain("write", &self.endpoints, 0) {
                Error::LeaseNotFound(_) => WriteError::LeaseNotFound(write.lease.unwrap_or(0)),
                Error::Unavailable(unavailable) => unavailable.into(),
                error => failure::unexpected("write", &self.endpoints, error.into()).into(),
            }),
        }
    }

    fn written(&self, response: &TxnResponse) -> Result<Written, WriteError> {
        let revision = revision_of(response.header());
        let first = response.op_responses().into_iter().next();
        if !response.succeeded() {
            let current = match first {
                Some(TxnOpResponse::Get(mut get)) => get.take_kvs().into_iter().next(),
                _ => None,
            };
            let current = current.and_then(|kv| key_value(&self.keys, kv));
            return Err(WriteError::Conflict { current });
        }
        let previous = match first {
            Some(TxnOpResponse::Put(mut put)) => put.take_prev_key(),
            Some(TxnOpResponse::Delete(mut delete)) => delete.take_prev_kvs().into_iter().next(),
            _ => None,
        };
        Ok(Written { revision, previous: previous.and_then(|kv| key_value(&self.keys, kv)) })
    }

    async fn present_revision(&self) -> Result<Revision> {
        let options = GetOptions::new().with_count_only();
        let response = self.read(self.keys.marker(), options, 0).await?;
        Ok(revision_of(response.header()))
    }

    async fn raise(&self, to: Revision) -> Result<Revision> {
        let now = self.present_revision().await?;
        let missing = to.saturating_sub(now);
        if missing == 0 {
            return Ok(now);
        }
        stream::iter(0..missing)
            .map(|_| async {
                let mut kv = self.kv();
                self.call("advance", 0, kv.put(self.keys.marker(), "", None)).await
            })
            .buffer_unordered(ADVANCE_AT_ONCE)
            .try_for_each(|_| futures::future::ready(Ok(())))
            .await?;
        let mut kv = self.kv();
        let deleted = self.call("advance", 0, kv.delete(self.keys.marker(), None)).await?;
        Ok(revision_of(deleted.header()))
    }
}

async fn limited<T>(call: impl Future<Output = Result<T, etcd_client::Error>>) -> Result<T, Failure> {
    match tokio::time::timeout(CALL, call).await {
        Ok(result) => result.map_err(Failure::Etcd),
        Err(_) => Err(Failure::Timeout),
    }
}

/// The mod revision to compare with; etcd has 0 for a key that does not exist.
fn expected(expect: Expect) -> Option<i64> {
    match expect {
        Expect::Any => None,
        Expect::Absent => Some(0),
        // No key was ever written at 0: such a write must fail, not create.
        Expect::Revision(0) => Some(i64::MAX),
        Expect::Revision(revision) => Some(i64::try_from(revision).unwrap_or(i64::MAX)),
    }
}

fn lease_to_etcd(lease: LeaseId) -> i64 {
    i64::try_from(lease).unwrap_or(i64::MAX)
}

/// Before 3.4.31 and 3.5.13, etcd could report progress on demand ahead of events still to come.
fn progress_is_reliable(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    match (next(), next(), next()) {
        (3, 4, patch) => patch >= 31,
        (3, 5, patch) => patch >= 13,
        (major, minor, _) => (major, minor) >= (3, 6),
    }
}

impl Store for Etcd {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Got>> {
        async move {
            let mut response = self.read(self.keys.to_etcd(key), GetOptions::new(), 0).await?;
            let revision = revision_of(response.header());
            let kv = response.take_kvs().into_iter().next().and_then(|kv| key_value(&self.keys, kv));
            Ok(Got { revision, kv })
        }
        .boxed()
    }

    fn range<'a>(&'a self, prefix: &'a str, options: RangeOptions) -> BoxFuture<'a, Result<Ranged>> {
        async move {
            let at = options.at.unwrap_or(0);
            let (start, end) = self.keys.range(prefix, options.start_after.as_deref());
            let get = GetOptions::new()
                .with_range(end)
                .with_limit(i64::try_from(options.limit).unwrap_or(i64::MAX))
                .with_revision(i64::try_from(at).unwrap_or(i64::MAX));
            let mut response = self.read(start, get, at).await?;
            let revision = options.at.unwrap_or_else(|| revision_of(response.header()));
            let more = response.more();
            let kvs = response.take_kvs().into_iter().filter_map(|kv| key_value(&self.keys, kv)).collect();
            Ok(Ranged { revision, kvs, more })
        }
        .boxed()
    }

    fn write(&self, write: Write) -> BoxFuture<'_, Result<Written, WriteError>> {
        self.write_txn(write).boxed()
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> BoxFuture<'a, Result<WatchStream>> {
        let progress = self.progress.subscribe();
        watch::start(&self.client, self.keys.clone(), self.endpoints.clone(), prefix, after, progress).boxed()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision>> {
        self.present_revision().boxed()
    }

    fn request_progress(&self) -> BoxFuture<'_, Result<bool>> {
        if self.progress_reliable {
            self.progress.send_replace(());
        }
        futures::future::ready(Ok(self.progress_reliable)).boxed()
    }

    fn compact(&self, upto: Revision) -> BoxFuture<'_, Result<()>> {
        async move {
            let mut kv = self.kv();
            let revision = i64::try_from(upto).unwrap_or(i64::MAX);
            match self.call("compact", upto, kv.compact(revision, None)).await {
                Ok(_) | Err(Error::Compacted { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn advance(&self, to: Revision) -> BoxFuture<'_, Result<Revision>> {
        self.raise(to).boxed()
    }

    fn lease(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId>> {
        async move {
            let mut seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
            seconds += i64::from(ttl.subsec_nanos() > 0);
            let mut leases = self.client.lease_client();
            let granted = self.call("grant lease", 0, leases.grant(seconds.max(1), None)).await?;
            Ok(granted.id().unsigned_abs())
        }
        .boxed()
    }

    fn renew(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>> {
        async move {
            let mut leases = self.client.lease_client();
            match self.call("renew lease", lease, leases.keep_alive(lease_to_etcd(lease))).await {
                Ok(_) => Ok(()),
                Err(Error::LeaseNotFound(_)) => Err(Error::LeaseNotFound(lease)),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>> {
        async move {
            let mut leases = self.client.lease_client();
            match self.call("revoke lease", lease, leases.revoke(lease_to_etcd(lease))).await {
                Ok(_) => Ok(()),
                Err(Error::LeaseNotFound(_)) => Err(Error::LeaseNotFound(lease)),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_trusted_from_the_fixed_versions_on() {
        for (version, reliable) in [
            ("3.4.23", false),
            ("3.4.31", true),
            ("3.5.12", false),
            ("3.5.13", true),
            ("3.6.0-rc.1", true),
            ("", false),
        ] {
            assert_eq!(progress_is_reliable(version), reliable, "{version}");
        }
    }
}
