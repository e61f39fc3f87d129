//! An issuer's keys: found through its discovery document (OpenID Connect Discovery 1.0), fetched anew when a
//! token is signed with one that is not known.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use keelson_pki::P521;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{Mutex, RwLock};

use crate::remote::{Remote, RemoteError};

const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// What tokens may be signed with: asymmetric keys only.
const ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"];

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

/// What the first part of a token says of its signature.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
}

struct Key {
    id: Option<String>,
    verifier: Verifier,
}

enum Verifier {
    Library(DecodingKey),
    P521(P521),
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
        let header: Header = part(token.split('.').next()).ok_or("oidc: malformed jwt")?;
        if !ALGORITHMS.contains(&&*header.alg) {
            return Err(format!("oidc: id token signed with unsupported algorithm {}", header.alg));
        }
        let seen = self.generation.load(std::sync::atomic::Ordering::Acquire);
        if let Some(claims) = self.try_known(token, &header).await {
            return Ok(claims);
        }
        self.refresh(remote, seen)
            .await
            .map_err(|e| format!("failed to verify signature: fetching keys {}", crate::errors::chain(&e)))?;
        let claims = self.try_known(token, &header).await;
        claims.ok_or_else(|| "failed to verify signature: failed to verify id token signature".to_owned())
    }

    async fn try_known(&self, token: &str, header: &Header) -> Option<Value> {
        let known = self.known.read().await;
        let mut fitting = known.iter().filter(|k| header.kid.is_none() || k.id == header.kid);
        fitting.find_map(|k| k.verifier.claims(token, &header.alg))
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
    let verifier = if value["crv"] == "P-521" {
        Verifier::P521(P521::from_jwk(&value)?)
    } else {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        Verifier::Library(DecodingKey::from_jwk(&jwk).ok()?)
    };
    Some(Key { id, verifier })
}

impl Verifier {
    /// The claims, if the token is signed with this key.
    fn claims(&self, token: &str, algorithm: &str) -> Option<Value> {
        match self {
            Self::Library(key) => {
                let rules = signature_only(algorithm.parse().ok()?);
                Some(jsonwebtoken::decode::<Value>(token, key, &rules).ok()?.claims)
            }
            Self::P521(key) => key.claims(token).ok(),
        }
    }
}

/// A part of a token, decoded.
fn part<T: DeserializeOwned>(part: Option<&str>) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part?).ok()?).ok()
}

fn signature_only(algorithm: Algorithm) -> Validation {
    let mut rules = Validation::new(algorithm);
    (rules.validate_exp, rules.validate_nbf, rules.validate_aud) = (false, false, false);
    rules.required_spec_claims.clear();
    rules
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_signed_with_p521_are_verified() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap();
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let point = &pair.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        let jwk =
            json!({"kty": "EC", "crv": "P-521", "alg": "ES512", "kid": "k", "x": encode(x), "y": encode(y)});
        let known = key(jwk).unwrap();
        let (header, claims) = (json!({"alg": "ES512", "kid": "k"}), json!({"sub": "jane"}));
        let signed =
            format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        let token = format!("{signed}.{}", encode(signature.as_ref()));
        assert_eq!(known.verifier.claims(&token, "ES512"), Some(claims));
        let other = json!({"sub": "joe"}).to_string();
        let forged = token.replace(signed.split_once('.').unwrap().1, &encode(other.as_bytes()));
        assert_eq!(known.verifier.claims(&forged, "ES512"), None);
    }
}
