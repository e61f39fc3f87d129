//! Encryption at rest: a layer between the watch cache and the store, which knows nothing of it. Stored
//! values begin with `k8s:enc:PROVIDER:VERSION:KEY:` as upstream's do.

mod cipher;
pub mod config;
mod kms;
mod providers;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use keelson_api_types::gvk::split_api_version;
use keelson_api_types::resources::{ALL, ResourceInfo};
use keelson_store::{
    Event, Got, KeyValue, RangeOptions, Ranged, Result, Revision, Store, Unavailable, WatchItem, WatchStream,
    Write, WriteError, Written,
};
use tokio_util::sync::CancellationToken;

use crate::cache::split_key;
use crate::convert::Conversion;
use crate::errors::chain;
use crate::structured::{Source, follow};
use config::EncryptionConfiguration;
use providers::{ENCRYPTED, Table, TransformError};

pub use providers::BuildError;

/// How long the plugins of a changed configuration may take to become healthy before it is refused.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(500);

/// The providers in use, which a changed configuration file replaces.
pub struct Encryption {
    table: ArcSwap<Table>,
    /// Ends the probes of the table's plugins.
    probes: ArcSwap<CancellationToken>,
    shutdown: CancellationToken,
}

impl Encryption {
    /// Waits for the plugins: without them nothing stored can be read.
    pub async fn start(
        source: &Source<EncryptionConfiguration>,
        shutdown: CancellationToken,
    ) -> Result<Arc<Self>, StartError> {
        let table = Table::build(&source.load()?)?;
        tokio::select! {
            () = healthy(&table) => {}
            () = shutdown.cancelled() => return Err(StartError::Shutdown),
        }
        let probes = keep(&table, &shutdown);
        let encryption = Arc::new(Self {
            table: ArcSwap::from_pointee(table),
            probes: ArcSwap::from_pointee(probes),
            shutdown,
        });
        if let Some(path) = source.file() {
            let weak = Arc::downgrade(&encryption);
            let take = move |config: EncryptionConfiguration| {
                let weak = weak.clone();
                async move {
                    match weak.upgrade() {
                        Some(encryption) => encryption.replace(&config).await,
                        None => Ok(()),
                    }
                }
            };
            tokio::spawn(follow(path.to_owned(), encryption.shutdown.clone(), take));
        }
        Ok(encryption)
    }

    async fn replace(&self, config: &EncryptionConfiguration) -> Result<(), String> {
        let table = Table::build(config).map_err(|e| e.to_string())?;
        if tokio::time::timeout(PATIENCE, healthy(&table)).await.is_err() {
            return Err(format!(
                "its key management plugins are not healthy: {}",
                health(&table).unwrap_err()
            ));
        }
        let probes = keep(&table, &self.shutdown);
        self.table.store(Arc::new(table));
        self.probes.swap(Arc::new(probes)).cancel();
        Ok(())
    }

    /// The health check `kms-providers`.
    pub fn health(&self) -> Result<(), String> {
        health(&self.table.load())
    }

    async fn open(&self, key: &str, stored: Bytes) -> Result<Bytes, TransformError> {
        let table = self.table.load_full();
        match resource_of(key).and_then(|(group, resource)| table.of(&group, &resource)) {
            Some(providers) => Ok(providers.open(&stored, key).await?.map_or(stored, Bytes::from)),
            None if stored.starts_with(ENCRYPTED) => Err(TransformError::Encrypted),
            None => Ok(stored),
        }
    }

    fn seal(&self, key: &str, value: Bytes) -> Result<Bytes, TransformError> {
        let table = self.table.load();
        match resource_of(key).and_then(|(group, resource)| table.of(&group, &resource)) {
            Some(providers) => Ok(providers.seal(&value, key)?.map_or(value, Bytes::from)),
            None => Ok(value),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("load the configuration of encryption at rest")]
    Config(#[from] crate::structured::DocumentError),
    #[error("build the providers of encryption at rest")]
    Build(#[from] BuildError),
    #[error("shut down while waiting for the key management plugins")]
    Shutdown,
}

async fn healthy(table: &Table) {
    for plugin in &table.plugins {
        while let Err(error) = plugin.probe().await {
            tracing::warn!(
                plugin = plugin.name(),
                error = chain(&error),
                "waiting for the key management plugin"
            );
            tokio::time::sleep(AGAIN).await;
        }
    }
}

fn keep(table: &Table, shutdown: &CancellationToken) -> CancellationToken {
    let probes = shutdown.child_token();
    for plugin in &table.plugins {
        tokio::spawn(plugin.clone().keep(probes.clone()));
    }
    probes
}

fn health(table: &Table) -> Result<(), String> {
    let failed = table.plugins.iter().filter_map(|p| Some(format!("{}: {}", p.name(), p.health().err()?)));
    let failed: Vec<String> = failed.collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
}

/// Group and resource of what is stored under a key. Built-in kinds are stored by resource alone.
fn resource_of(key: &str) -> Option<(String, String)> {
    static GROUPS: LazyLock<HashMap<&str, String>> = LazyLock::new(|| {
        let group = |r: &ResourceInfo| {
            let conversion = Conversion::of_builtin(r.group, r.version, r.resource);
            split_api_version(conversion.stored_api_version(&r.api_version())).0.to_owned()
        };
        ALL.iter().filter(|r| r.is_stored()).map(|r| (r.resource, group(r))).collect()
    });
    let (storage, _) = split_key(key)?;
    if let Some((group, resource)) = storage.split_once('/') {
        return Some((group.to_owned(), resource.to_owned()));
    }
    GROUPS.get(storage.as_str()).map(|group| (group.clone(), storage))
}

/// A store whose values are encrypted in another.
pub struct EncryptedStore {
    inner: Arc<dyn Store>,
    encryption: Arc<Encryption>,
}

impl EncryptedStore {
    pub fn new(inner: Arc<dyn Store>, encryption: Arc<Encryption>) -> Self {
        Self { inner, encryption }
    }

    /// Whether a key's value is of this revision, and would be stored now as it is.
    pub async fn is_current(&self, key: &str, revision: Revision) -> bool {
        let Ok(Got { kv: Some(kv), .. }) = self.inner.get(key).await else { return false };
        let table = self.encryption.table.load();
        let providers = resource_of(key).and_then(|(group, resource)| table.of(&group, &resource));
        kv.mod_revision == revision && providers.is_none_or(|providers| providers.is_current(&kv.value))
    }

    async fn open(&self, mut kv: KeyValue) -> Result<KeyValue> {
        kv.value =
            self.encryption.open(&kv.key, kv.value).await.map_err(|e| failed("decrypt", &kv.key, e))?;
        Ok(kv)
    }

    /// What a key held before is told where it can be read.
    async fn open_past(&self, kv: Option<KeyValue>) -> Option<KeyValue> {
        self.open(kv?).await.ok()
    }
}

fn failed(operation: &'static str, key: &str, source: TransformError) -> Unavailable {
    let advice = "check the configuration of encryption at rest and its key management plugins".to_owned();
    Unavailable { operation, subject: key.to_owned(), advice, source: Some(Box::new(source)) }
}

async fn open_event(encryption: &Encryption, mut event: Event) -> Result<Event> {
    let opened = encryption.open(&event.kv.key, event.kv.value.clone()).await;
    event.kv.value = match (event.kind, opened) {
        (_, Ok(value)) => value,
        // Who deletes what nobody can read any more must not block the watch.
        (keelson_store::EventKind::Delete, Err(_)) => Bytes::new(),
        (_, Err(error)) => return Err(failed("decrypt", &event.kv.key, error).into()),
    };
    if let Some(previous) = event.previous.take()
        && let Ok(value) = encryption.open(&previous.key, previous.value.clone()).await
    {
        event.previous = Some(KeyValue { value, ..previous });
    }
    Ok(event)
}

async fn open_item(encryption: Arc<Encryption>, item: Result<WatchItem>) -> Result<WatchItem> {
    let events = match item? {
        WatchItem::Events(events) => events,
        progress => return Ok(progress),
    };
    let mut opened = Vec::with_capacity(events.len());
    for event in events {
        opened.push(open_event(&encryption, event).await?);
    }
    Ok(WatchItem::Events(opened))
}

impl Store for EncryptedStore {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Got>> {
        async move {
            let Got { revision, kv } = self.inner.get(key).await?;
            let kv = match kv {
                Some(kv) => Some(self.open(kv).await?),
                None => None,
            };
            Ok(Got { revision, kv })
        }
        .boxed()
    }

    fn range<'a>(&'a self, prefix: &'a str, options: RangeOptions) -> BoxFuture<'a, Result<Ranged>> {
        async move {
            let mut ranged = self.inner.range(prefix, options).await?;
            for kv in &mut ranged.kvs {
                let stored = std::mem::take(&mut kv.value);
                let opened = self.encryption.open(&kv.key, stored).await;
                kv.value = opened.map_err(|e| failed("decrypt", &kv.key, e))?;
            }
            Ok(ranged)
        }
        .boxed()
    }

    fn write(&self, mut write: Write) -> BoxFuture<'_, Result<Written, WriteError>> {
        async move {
            if let Some(value) = write.value.take() {
                let sealed = self.encryption.seal(&write.key, value);
                write.value = Some(sealed.map_err(|e| failed("encrypt", &write.key, e))?);
            }
            match self.inner.write(write).await {
                Ok(Written { revision, previous }) => {
                    Ok(Written { revision, previous: self.open_past(previous).await })
                }
                Err(WriteError::Conflict { current: Some(current) }) => {
                    let key = current.key.clone();
                    match self.encryption.open(&key, current.value.clone()).await {
                        Ok(value) => {
                            Err(WriteError::Conflict { current: Some(KeyValue { value, ..current }) })
                        }
                        Err(error) => Err(failed("decrypt", &key, error).into()),
                    }
                }
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> BoxFuture<'a, Result<WatchStream>> {
        async move {
            let stream = self.inner.watch(prefix, after).await?;
            let encryption = self.encryption.clone();
            Ok(stream.then(move |item| open_item(encryption.clone(), item)).boxed())
        }
        .boxed()
    }

    keelson_store::delegate!(inner: revision, request_progress, compact, advance, lease, renew, revoke);
}
