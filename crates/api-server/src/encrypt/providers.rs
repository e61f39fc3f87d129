//! The providers of each resource: the first writes, all read.

use std::collections::HashMap;
use std::sync::Arc;

use keelson_kms::Plugin;

use super::cipher::{Cipher, CipherError};
use super::config::{EncryptionConfiguration, GroupResource, Key, ProviderConfiguration};
use super::kms::{Envelope, KmsError};

/// What every encrypted value begins with.
pub const ENCRYPTED: &[u8] = b"k8s:enc:";

#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    #[error("the value is encrypted and no provider is configured for its resource")]
    Encrypted,
    #[error("no matching prefix found")]
    NoProvider,
    #[error("provider {0}")]
    Cipher(String, #[source] CipherError),
    #[error("provider {0}")]
    Kms(String, #[source] KmsError),
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("use the key {name}")]
    Key { name: String, source: CipherError },
    #[error("use a key management plugin")]
    Plugin(#[from] keelson_kms::Error),
}

/// One key of one provider.
struct Provider {
    /// What stored values of it begin with; empty for identity.
    prefix: String,
    means: Means,
}

enum Means {
    Identity,
    Cipher(Cipher),
    Kms(Arc<Envelope>),
}

/// The providers of one list of resources, one entry per key, in order.
#[derive(Default)]
pub struct Providers(Vec<Arc<Provider>>);

/// All providers of a configuration.
#[derive(Default)]
pub struct Table {
    by_resource: HashMap<String, Providers>,
    pub plugins: Vec<Arc<Envelope>>,
}

impl Table {
    pub fn build(config: &EncryptionConfiguration) -> Result<Self, BuildError> {
        let mut table = Self::default();
        for entry in &config.resources {
            let mut providers = Vec::new();
            for provider in &entry.providers {
                for built in build(provider)? {
                    if let Means::Kms(envelope) = &built.means {
                        table.plugins.push(envelope.clone());
                    }
                    providers.push(Arc::new(built));
                }
            }
            for resource in &entry.resources {
                let GroupResource { group, resource } = GroupResource::parse(resource);
                let of_resource = table.by_resource.entry(name(group, resource)).or_default();
                of_resource.0.extend(providers.iter().cloned());
            }
        }
        Ok(table)
    }

    /// The providers of a resource: its own, its group's, everything's.
    pub fn of(&self, group: &str, resource: &str) -> Option<&Providers> {
        let candidates = [name(group, resource), name(group, "*"), name("*", "*")];
        candidates.iter().find_map(|c| self.by_resource.get(c))
    }
}

fn name(group: &str, resource: &str) -> String {
    format!("{resource}.{group}")
}

fn build(config: &ProviderConfiguration) -> Result<Vec<Provider>, BuildError> {
    type Make = fn(&[u8]) -> Result<Cipher, CipherError>;
    let keyed = |kind: &str, keys: &[Key], make: Make| {
        let provider = |key: &Key| {
            let failed = |source| BuildError::Key { name: key.name.clone(), source };
            let cipher = make(&key.secret()).map_err(failed)?;
            Ok(Provider { prefix: format!("k8s:enc:{kind}:v1:{}:", key.name), means: Means::Cipher(cipher) })
        };
        keys.iter().map(provider).collect()
    };
    if let Some(keys) = &config.aesgcm {
        keyed("aesgcm", &keys.keys, Cipher::aes_gcm)
    } else if let Some(keys) = &config.aescbc {
        keyed("aescbc", &keys.keys, Cipher::aes_cbc)
    } else if let Some(keys) = &config.secretbox {
        keyed("secretbox", &keys.keys, Cipher::secretbox)
    } else if let Some(kms) = &config.kms {
        let plugin = Plugin::new(&kms.name, &kms.endpoint, kms.timeout())?;
        let means = Means::Kms(Arc::new(Envelope::new(plugin)));
        Ok(vec![Provider { prefix: format!("k8s:enc:kms:v2:{}:", kms.name), means }])
    } else {
        Ok(vec![Provider { prefix: String::new(), means: Means::Identity }])
    }
}

impl Providers {
    /// The stored form of a value; `None` where that is the value itself. `key` is the storage key.
    pub fn seal(&self, value: &[u8], key: &str) -> Result<Option<Vec<u8>>, TransformError> {
        let first = self.0.first().ok_or(TransformError::NoProvider)?;
        let name = || first.name();
        let sealed = match &first.means {
            Means::Identity => return Ok(None),
            Means::Cipher(cipher) => {
                cipher.seal(value, key.as_bytes()).map_err(|e| TransformError::Cipher(name(), e))?
            }
            Means::Kms(envelope) => {
                envelope.seal(value, key.as_bytes()).map_err(|e| TransformError::Kms(name(), e))?
            }
        };
        Ok(Some([first.prefix.as_bytes(), &sealed].concat()))
    }

    /// The value of stored bytes; `None` where they are the value itself. The first provider whose prefix
    /// and key fit has it: several may share a prefix while a key is rotated.
    pub async fn open(&self, stored: &[u8], key: &str) -> Result<Option<Vec<u8>>, TransformError> {
        let mut failure = TransformError::NoProvider;
        for provider in &self.0 {
            let Some(data) = stored.strip_prefix(provider.prefix.as_bytes()) else { continue };
            let opened = match &provider.means {
                Means::Identity if stored.starts_with(ENCRYPTED) => continue,
                Means::Identity => return Ok(None),
                Means::Cipher(cipher) => {
                    cipher.open(data, key.as_bytes()).map_err(|e| TransformError::Cipher(provider.name(), e))
                }
                Means::Kms(envelope) => envelope
                    .open(data, key.as_bytes())
                    .await
                    .map_err(|e| TransformError::Kms(provider.name(), e)),
            };
            match opened {
                Ok(value) => return Ok(Some(value)),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Whether stored bytes are as they would be written now.
    pub fn is_current(&self, stored: &[u8]) -> bool {
        let Some(first) = self.0.first() else { return true };
        match (&first.means, stored.strip_prefix(first.prefix.as_bytes())) {
            (_, None) => false,
            (Means::Identity, Some(_)) => !stored.starts_with(ENCRYPTED),
            (Means::Cipher(_), Some(_)) => true,
            (Means::Kms(envelope), Some(data)) => envelope.is_current(data),
        }
    }
}

impl Provider {
    fn name(&self) -> String {
        self.prefix.trim_end_matches(':').to_owned()
    }
}
