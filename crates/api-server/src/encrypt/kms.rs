//! Envelope encryption with a key management plugin (KMS v2): values are encrypted with keys derived from a
//! seed, and the plugin encrypts the seed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use keelson_kms::v2::{EncryptedDekSourceType, EncryptedObject};
use keelson_kms::{Message, Plugin};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::cipher::{CipherError, DataKey, SEED, random};
use crate::errors::chain;

/// How long a healthy plugin is believed, and how soon an unhealthy one is asked again.
const HEALTHY: Duration = Duration::from_secs(20);
const UNHEALTHY: Duration = Duration::from_secs(3);
/// A seed is not written with when the plugin has not confirmed its key for this long.
const SEED_TTL: Duration = Duration::from_secs(180);
/// Data keys remembered; all are forgotten when there are more.
const REMEMBERED: usize = 4096;

#[derive(Debug, thiserror::Error)]
pub enum KmsError {
    #[error(transparent)]
    Plugin(#[from] keelson_kms::Error),
    #[error("the stored object of the key management plugin {plugin} is not valid: {problem}")]
    Object { plugin: String, problem: String },
    #[error(transparent)]
    Cipher(#[from] CipherError),
    #[error("the key management plugin {plugin} has not confirmed its key for {SEED_TTL:?}")]
    Expired { plugin: String },
    #[error("the key management plugin {plugin} encrypted with key {used:?} while it reports {reported:?}")]
    KeyMismatch { plugin: String, used: String, reported: String },
}

/// One plugin with what it encrypts now and has decrypted before.
pub struct Envelope {
    plugin: Plugin,
    state: ArcSwapOption<State>,
    /// By all that a stored object says of its data key.
    known: Mutex<HashMap<Vec<u8>, Arc<DataKey>>>,
    health: Mutex<Health>,
    ask: Notify,
}

/// The seed that is written with.
struct State {
    /// Without data.
    object: EncryptedObject,
    key: Arc<DataKey>,
    expires: Instant,
}

struct Health {
    outcome: Result<(), String>,
    at: Instant,
}

impl Envelope {
    pub fn new(plugin: Plugin) -> Self {
        let outcome = Err("not asked yet".to_owned());
        Self {
            plugin,
            state: ArcSwapOption::empty(),
            known: Mutex::default(),
            health: Mutex::new(Health { outcome, at: Instant::now() }),
            ask: Notify::new(),
        }
    }

    pub fn name(&self) -> &str {
        self.plugin.name()
    }

    /// What the plugin last said; an answer that is no longer fresh is asked for anew.
    pub fn health(&self) -> Result<(), String> {
        let health = self.health.lock();
        if health.at.elapsed() > UNHEALTHY {
            self.ask.notify_one();
        }
        health.outcome.clone()
    }

    /// Asks the plugin how it is and takes over a new key of its.
    pub async fn probe(&self) -> Result<(), KmsError> {
        let outcome = self.confirm().await;
        let told = outcome.as_ref().map(|_| ()).map_err(|e| chain(e));
        *self.health.lock() = Health { outcome: told, at: Instant::now() };
        outcome
    }

    /// Probes until shutdown.
    pub async fn keep(self: Arc<Self>, shutdown: CancellationToken) {
        let mut wait = UNHEALTHY;
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.ask.notified() => {}
                () = shutdown.cancelled() => return,
            }
            wait = match self.probe().await {
                Ok(()) => HEALTHY,
                Err(error) => {
                    tracing::warn!(
                        plugin = self.name(),
                        error = chain(&error),
                        "a key management plugin is not well"
                    );
                    UNHEALTHY
                }
            };
        }
    }

    async fn confirm(&self) -> Result<(), KmsError> {
        let reported = self.plugin.status().await?.key_id;
        let expires = Instant::now() + SEED_TTL;
        if let Some(state) = &*self.state.load()
            && state.object.key_id == reported
        {
            let (object, key) = (state.object.clone(), state.key.clone());
            self.state.store(Some(Arc::new(State { object, key, expires })));
            return Ok(());
        }
        let seed: [u8; SEED] = random().ok_or(CipherError::Seal("the seed"))?;
        let answer = self.plugin.encrypt(seed.to_vec()).await?;
        let object = EncryptedObject {
            encrypted_data: Vec::new(),
            key_id: answer.key_id,
            encrypted_dek_source: answer.ciphertext,
            annotations: answer.annotations,
            encrypted_dek_source_type: EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed.into(),
        };
        keelson_kms::check(&object).map_err(|problem| self.wrong(problem))?;
        if object.key_id != reported {
            return Err(KmsError::KeyMismatch { plugin: self.name().into(), used: object.key_id, reported });
        }
        let key = Arc::new(DataKey::seed(&seed)?);
        self.remember(object.encode_to_vec(), key.clone());
        tracing::info!(plugin = self.name(), "writing with a new key of the key management plugin");
        self.state.store(Some(Arc::new(State { object, key, expires })));
        Ok(())
    }

    pub fn seal(&self, value: &[u8], context: &[u8]) -> Result<Vec<u8>, KmsError> {
        let state = self.state.load_full().filter(|s| s.expires > Instant::now());
        let state = state.ok_or_else(|| KmsError::Expired { plugin: self.name().to_owned() })?;
        let encrypted_data = state.key.seal(value, context)?;
        Ok(EncryptedObject { encrypted_data, ..state.object.clone() }.encode_to_vec())
    }

    pub async fn open(&self, data: &[u8], context: &[u8]) -> Result<Vec<u8>, KmsError> {
        let (object, data) = self.decode(data)?;
        let lookup = object.encode_to_vec();
        let known = self.known.lock().get(&lookup).cloned();
        let key = match known {
            Some(key) => key,
            None => {
                let plain = self
                    .plugin
                    .decrypt(object.encrypted_dek_source, object.key_id, object.annotations)
                    .await?;
                let seeded = object.encrypted_dek_source_type
                    == EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed as i32;
                let key = if seeded { DataKey::seed(&plain)? } else { DataKey::key(&plain)? };
                let key = Arc::new(key);
                self.remember(lookup, key.clone());
                key
            }
        };
        Ok(key.open(&data, context)?)
    }

    /// Whether a stored object was written with the key that is written with now.
    pub fn is_current(&self, data: &[u8]) -> bool {
        let Ok((object, _)) = self.decode(data) else { return false };
        self.state.load().as_ref().is_some_and(|state| {
            state.object.key_id == object.key_id
                && state.object.encrypted_dek_source_type == object.encrypted_dek_source_type
        })
    }

    /// The object without its data, and the data.
    fn decode(&self, data: &[u8]) -> Result<(EncryptedObject, Vec<u8>), KmsError> {
        let mut object = EncryptedObject::decode(data).map_err(|e| self.wrong(e.to_string()))?;
        keelson_kms::check(&object).map_err(|problem| self.wrong(problem))?;
        let data = std::mem::take(&mut object.encrypted_data);
        if data.is_empty() {
            return Err(self.wrong("encrypted data is empty".into()));
        }
        Ok((object, data))
    }

    fn remember(&self, lookup: Vec<u8>, key: Arc<DataKey>) {
        let mut known = self.known.lock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(lookup, key);
    }

    fn wrong(&self, problem: String) -> KmsError {
        KmsError::Object { plugin: self.name().to_owned(), problem }
    }
}
