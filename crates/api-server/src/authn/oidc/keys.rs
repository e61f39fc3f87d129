//! An issuer's keys: found through its discovery document (OpenID Connect Discovery 1.0), fetched anew when a
//! token is signed with one that is not known.

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Mutex, RwLock};

use crate::remote::{Remote, RemoteError};

const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// What tokens may be signed with: asymmetric keys only. (ES512, which upstream takes too, needs a curve that
/// the JWT library has not.)
pub const ALGORITHMS: [Algorithm; 8] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error(transparent)]
    Fetch(#[from] RemoteError),
    #[error("{url} holds no usable {what}: {problem}")]
    Document { url: String, what: &'static str, problem: String },
    #[error("oidc: issuer did not match the issuer returned by provider, expected {expected:?} got {got:?}")]
    Issuer { expected: String, got: String },
}

#[derive(Deserialize)]
struct Discovery {
    #[serde(default)]
    issuer: String,
    #[serde(default)]
    jwks_uri: String,
}

struct Key {
    id: Option<String>,
    key: DecodingKey,
}

/// The key set of one issuer.
pub struct Keys {
    jwks_url: String,
    known: RwLock<Vec<Key>>,
    /// Held while fetching; counts the fetches, so that who waited does not fetch again.
    fetched: Mutex<u64>,
    generation: std::sync::atomic::AtomicU64,
}

impl Keys {
    /// Reads the discovery document; keys come with the first token.
    pub async fn discover(remote: &Remote, issuer: &str, discovery_url: &str) -> Result<Self, KeysError> {
        let url = match discovery_url {
            "" => format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/')),
            other => other.to_owned(),
        };
        let body = remote.get(&url, None).await?;
        let wrong =
            |problem: String| KeysError::Document { url: url.clone(), what: "discovery document", problem };
        let found: Discovery = serde_json::from_slice(&body).map_err(|e| wrong(e.to_string()))?;
        if found.issuer != issuer {
            return Err(KeysError::Issuer { expected: issuer.to_owned(), got: found.issuer });
        }
        if found.jwks_uri.is_empty() {
            return Err(wrong("provider did not return JWKS URL".into()));
        }
        let (known, fetched) = (RwLock::default(), Mutex::default());
        Ok(Self { jwks_url: found.jwks_uri, known, fetched, generation: Default::default() })
    }

    /// The claims of a token that one of the issuer's keys signed.
    pub async fn verify(&self, remote: &Remote, token: &str) -> Result<Value, String> {
        let header = jsonwebtoken::decode_header(token).map_err(|e| format!("oidc: malformed jwt: {e}"))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(format!("oidc: id token signed with unsupported algorithm {:?}", header.alg));
        }
        let rules = signature_only(header.alg);
        let seen = self.generation.load(std::sync::atomic::Ordering::Acquire);
        if let Some(claims) = self.try_known(token, header.kid.as_deref(), &rules).await {
            return Ok(claims);
        }
        self.refresh(remote, seen)
            .await
            .map_err(|e| format!("failed to verify signature: fetching keys {}", crate::errors::chain(&e)))?;
        let claims = self.try_known(token, header.kid.as_deref(), &rules).await;
        claims.ok_or_else(|| "failed to verify signature: failed to verify id token signature".to_owned())
    }

    async fn try_known(&self, token: &str, id: Option<&str>, rules: &Validation) -> Option<Value> {
        let known = self.known.read().await;
        let mut fitting = known.iter().filter(|k| id.is_none() || k.id.as_deref() == id);
        fitting.find_map(|k| Some(jsonwebtoken::decode::<Value>(token, &k.key, rules).ok()?.claims))
    }

    /// Fetches the keys, unless somebody has since `seen`.
    async fn refresh(&self, remote: &Remote, seen: u64) -> Result<(), KeysError> {
        let mut fetched = self.fetched.lock().await;
        if *fetched > seen {
            return Ok(());
        }
        let body = remote.get(&self.jwks_url, None).await?;
        let wrong = |e: serde_json::Error| KeysError::Document {
            url: self.jwks_url.clone(),
            what: "key set",
            problem: e.to_string(),
        };
        let set: KeySet = serde_json::from_slice(&body).map_err(wrong)?;
        *self.known.write().await = set.keys.into_iter().filter_map(key).collect();
        *fetched += 1;
        self.generation.store(*fetched, std::sync::atomic::Ordering::Release);
        Ok(())
    }
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

/// Keys of kinds that are not known are skipped, as the specification asks (RFC 7517, section 5).
fn key(value: Value) -> Option<Key> {
    let id = value["kid"].as_str().map(str::to_owned);
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    Some(Key { id, key: DecodingKey::from_jwk(&jwk).ok()? })
}

fn signature_only(algorithm: Algorithm) -> Validation {
    let mut rules = Validation::new(algorithm);
    (rules.validate_exp, rules.validate_nbf, rules.validate_aud) = (false, false, false);
    rules.required_spec_claims.clear();
    rules
}
