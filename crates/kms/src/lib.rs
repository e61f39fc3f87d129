//! Key management plugins (KMS v2): a gRPC client over a unix socket, and the form of what they encrypt.

pub mod v2 {
    #![allow(clippy::all)]
    tonic::include_proto!("v2");
}

pub use prost::Message;
pub use tonic;

use std::collections::BTreeMap;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use v2::key_management_service_client::KeyManagementServiceClient;
use v2::{
    DecryptRequest, EncryptRequest, EncryptResponse, EncryptedDekSourceType, EncryptedObject, StatusRequest,
    StatusResponse,
};

/// The limits of what a plugin may hand back, in bytes.
const MAX_KEY_ID: usize = 1024;
const MAX_DEK_SOURCE: usize = 1024;
const MAX_ANNOTATIONS: usize = 32 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{endpoint:?} is no unix socket: write unix:///path or unix:///@name")]
    Endpoint { endpoint: String },
    #[error("{operation} by the key management plugin {plugin}")]
    Call {
        operation: &'static str,
        plugin: String,
        #[source]
        source: Box<tonic::Status>,
    },
    #[error("{operation} by the key management plugin {plugin}: no answer within {timeout:?}")]
    Timeout { operation: &'static str, plugin: String, timeout: Duration },
    #[error("the key management plugin {plugin} answered wrongly: {problem}")]
    Answer { plugin: String, problem: String },
}

/// One plugin behind its socket. The connection is made with the first call, and anew when it is lost.
#[derive(Clone)]
pub struct Plugin {
    name: String,
    timeout: Duration,
    client: KeyManagementServiceClient<Channel>,
}

impl Plugin {
    /// `endpoint` is a URL like `unix:///run/kms.sock`; every call ends within `timeout`.
    pub fn new(name: &str, endpoint: &str, timeout: Duration) -> Result<Self, Error> {
        let path = socket(endpoint).ok_or_else(|| Error::Endpoint { endpoint: endpoint.to_owned() })?;
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move {
                let stream = tokio::net::UnixStream::connect(path).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        });
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        Ok(Self { name: name.to_owned(), timeout, client: KeyManagementServiceClient::new(channel) })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the plugin is well, and the key it encrypts with.
    pub async fn status(&self) -> Result<StatusResponse, Error> {
        let mut client = self.client.clone();
        let status = self.call("status", client.status(StatusRequest {})).await?;
        if status.healthz != "ok" {
            return Err(self.wrong(format!("got unexpected healthz status: {}", status.healthz)));
        }
        if !matches!(status.version.as_str(), "v2" | "v2beta1") {
            return Err(self.wrong(format!("expected KMSv2 API version v2, got {}", status.version)));
        }
        check_key_id(&status.key_id).map_err(|problem| self.wrong(problem))?;
        Ok(status)
    }

    pub async fn encrypt(&self, plaintext: Vec<u8>) -> Result<EncryptResponse, Error> {
        let mut client = self.client.clone();
        self.call("encryption", client.encrypt(EncryptRequest { plaintext, uid: uid() })).await
    }

    /// What the plugin encrypted, by the key and annotations that it gave then.
    pub async fn decrypt(
        &self,
        ciphertext: Vec<u8>,
        key_id: String,
        annotations: BTreeMap<String, Vec<u8>>,
    ) -> Result<Vec<u8>, Error> {
        let mut client = self.client.clone();
        let request = DecryptRequest { ciphertext, uid: uid(), key_id, annotations };
        Ok(self.call("decryption", client.decrypt(request)).await?.plaintext)
    }

    async fn call<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, Error> {
        let plugin = || self.name.clone();
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(source)) => Err(Error::Call { operation, plugin: plugin(), source: Box::new(source) }),
            Err(_) => Err(Error::Timeout { operation, plugin: plugin(), timeout: self.timeout }),
        }
    }

    fn wrong(&self, problem: String) -> Error {
        Error::Answer { plugin: self.name.clone(), problem }
    }
}

fn uid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The path of a socket; `@name` is in the abstract namespace, as upstream's plugins write it.
fn socket(endpoint: &str) -> Option<String> {
    let path = endpoint.strip_prefix("unix://").or_else(|| endpoint.strip_prefix("unix:"))?;
    let path = match path.strip_prefix("/@") {
        Some(name) => format!("\0{name}"),
        None => path.to_owned(),
    };
    (!path.is_empty()).then_some(path)
}

fn check_key_id(id: &str) -> Result<(), String> {
    match id.len() {
        0 => Err("keyID is empty".to_owned()),
        1..=MAX_KEY_ID => Ok(()),
        size => Err(format!("keyID is {size} bytes, which exceeds the max size of {MAX_KEY_ID}")),
    }
}

/// Whether a stored object, or a plugin's answer in its form, keeps to the contract's limits.
pub fn check(object: &EncryptedObject) -> Result<(), String> {
    if EncryptedDekSourceType::try_from(object.encrypted_dek_source_type).is_err() {
        return Err(format!("unknown encryptedDEKSourceType: {}", object.encrypted_dek_source_type));
    }
    match object.encrypted_dek_source.len() {
        0 => return Err("encrypted DEK source is empty".to_owned()),
        1..=MAX_DEK_SOURCE => {}
        size => {
            return Err(format!(
                "encrypted DEK source is {size} bytes, which exceeds the max size of {MAX_DEK_SOURCE}"
            ));
        }
    }
    check_key_id(&object.key_id)?;
    if let Some(key) = object.annotations.keys().find(|k| !is_qualified(k)) {
        return Err(format!("annotation {key:?} is no fully qualified domain name"));
    }
    let size: usize = object.annotations.iter().map(|(k, v)| k.len() + v.len()).sum();
    if size > MAX_ANNOTATIONS {
        return Err(format!(
            "total size of annotations is {size}, which exceeds the max size of {MAX_ANNOTATIONS}"
        ));
    }
    Ok(())
}

/// A DNS name of at least two labels.
fn is_qualified(name: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 253 && name.contains('.') && name.split('.').all(label)
}
