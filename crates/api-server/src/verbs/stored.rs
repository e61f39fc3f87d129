//! Objects between the store and who reads or changes them.

use std::sync::Arc;

use bytes::Bytes;
use keelson_api_types::StatusError;
use keelson_store::KeyValue;
use serde_json::Value;

use super::write::Writer;
use crate::cache::{Entry, entry_of, splice_revision, storage_error};
use crate::codec;
use crate::convert;

/// An object as it is in the store.
#[derive(Debug, Clone)]
pub struct Stored {
    /// With `resourceVersion`; of built-in kinds in the stored version, of custom ones in that of the request.
    pub bytes: Bytes,
    /// As the store has it.
    pub(super) raw: Bytes,
    pub revision: u64,
}

impl Stored {
    pub fn new(bytes: Bytes, revision: u64) -> Self {
        Self { raw: bytes.clone(), bytes, revision }
    }

    fn of(shown: &Entry, read: &Entry) -> Self {
        let bytes = shown.bytes();
        let same = std::ptr::eq(shown, read) && read.is_as_stored();
        Self { raw: if same { bytes.clone() } else { read.raw() }, bytes, revision: read.revision }
    }

    /// As an answer shows it.
    pub fn entry(&self) -> Entry {
        Entry::bare(self.bytes.clone())
    }

    pub fn parse(&self) -> Result<Value, StatusError> {
        serde_json::from_slice(&self.bytes).map_err(StatusError::internal)
    }
}

impl Writer<'_> {
    /// An object as it is written to the store.
    pub async fn encode(&self, object: &Value) -> Result<Bytes, StatusError> {
        match &self.resource.custom {
            Some(custom) => convert::to_storage(self.app, custom, object).await,
            None => Ok(codec::encode(object).into()),
        }
    }

    /// What has been written, as a reader sees it.
    pub async fn written(&self, name: &str, bytes: &Bytes, revision: u64) -> Result<Stored, StatusError> {
        if self.resource.custom.as_ref().is_none_or(|c| c.is_own(&bytes.clone().into())) {
            return Ok(Stored::new(splice_revision(bytes, revision), revision));
        }
        let key = self.resource.store_key(self.namespace, name);
        let (create_revision, mod_revision) = (revision, revision);
        self.stored(name, &KeyValue { key, value: bytes.clone(), create_revision, mod_revision }).await
    }

    /// What the store has, as a reader sees it.
    pub async fn stored(&self, name: &str, kv: &KeyValue) -> Result<Stored, StatusError> {
        if self.resource.custom.is_none() {
            return Ok(Stored::new(splice_revision(&kv.value, kv.mod_revision), kv.mod_revision));
        }
        let entry = entry_of(Some(&self.resource.index), &self.resource.key(self.namespace, name), kv);
        self.shown(Arc::new(entry.ok_or_else(|| StatusError::internal("a stored value is no object"))?)).await
    }

    async fn shown(&self, entry: Arc<Entry>) -> Result<Stored, StatusError> {
        let shown = convert::shown(self.app, self.resource, vec![entry.clone()]).await?;
        Ok(Stored::of(shown.first().unwrap_or(&entry), &entry))
    }

    /// The object as the cache has it, or as the store has it where that does not know it.
    pub async fn current(&self, name: &str, from_store: bool) -> Result<Option<Stored>, StatusError> {
        if !from_store && let Some(entry) = self.resource.cache.get(&self.resource.key(self.namespace, name))
        {
            return self.shown(entry).await.map(Some);
        }
        let key = self.resource.store_key(self.namespace, name);
        let got = self.app.caches.store().get(&key).await.map_err(|e| storage_error(&e))?;
        self.found(name, got.kv.as_ref()).await
    }

    /// What the store has in place of what was expected there.
    pub async fn found(&self, name: &str, kv: Option<&KeyValue>) -> Result<Option<Stored>, StatusError> {
        match kv {
            Some(kv) => self.stored(name, kv).await.map(Some),
            None => Ok(None),
        }
    }
}
