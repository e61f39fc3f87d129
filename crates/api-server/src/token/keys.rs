//! The key that signs service account tokens and the keys that verify them.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde_json::{Value, json};

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} holds no usable {what} (PEM, ECDSA P-256 or RSA)")]
    Unusable { path: PathBuf, what: &'static str },
}

/// One public key with its name.
pub struct VerifyKey {
    /// What a token's header names: the SHA-256 of the key's DER form, as upstream computes it.
    pub id: String,
    pub algorithm: Algorithm,
    pub key: DecodingKey,
}

/// The cluster's service-account keys.
pub struct Keys {
    pub signing: EncodingKey,
    pub algorithm: Algorithm,
    /// The first belongs to the signing key; further ones are of earlier signing keys.
    pub verify: Vec<VerifyKey>,
}

impl Keys {
    /// Reads the private key and the file of public keys (one or more).
    pub fn load(private: &Path, public: &Path) -> Result<Self, KeyError> {
        let unusable = |path: &Path, what| KeyError::Unusable { path: path.to_owned(), what };
        let (signing, algorithm) =
            signing_key(&read(private)?).ok_or_else(|| unusable(private, "private key"))?;
        let blocks = pem::parse_many(read(public)?).map_err(|_| unusable(public, "public key"))?;
        let verify: Vec<VerifyKey> = blocks.iter().filter_map(verify_key).collect();
        if !verify.iter().any(|k| k.algorithm == algorithm) {
            return Err(unusable(public, "public key"));
        }
        Ok(Self { signing, algorithm, verify })
    }

    /// The name of the key that new tokens are signed with.
    pub fn id(&self) -> &str {
        let own = self.verify.iter().find(|k| k.algorithm == self.algorithm);
        own.map(|k| k.id.as_str()).unwrap_or_default()
    }

    /// The JSON Web Key Set of the public keys.
    pub fn jwks(&self) -> Value {
        let keys: Vec<Value> = self
            .verify
            .iter()
            .filter_map(|k| {
                let jwk = Jwk::from_decoding_key(&k.key, Some(k.algorithm)).ok()?;
                let mut jwk = serde_json::to_value(jwk).ok()?;
                jwk["use"] = "sig".into();
                jwk["kid"] = k.id.clone().into();
                jwk["alg"] = algorithm_name(k.algorithm).into();
                Some(jwk)
            })
            .collect();
        json!({ "keys": keys })
    }

    /// The algorithms of the public keys, sorted, each once.
    pub fn algorithms(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.verify.iter().map(|k| algorithm_name(k.algorithm)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn algorithm_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::ES256 => "ES256",
        _ => "RS256",
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    std::fs::read(path).map_err(|source| KeyError::Read { path: path.to_owned(), source })
}

fn signing_key(pem: &[u8]) -> Option<(EncodingKey, Algorithm)> {
    EncodingKey::from_ec_pem(pem)
        .map(|k| (k, Algorithm::ES256))
        .or_else(|_| EncodingKey::from_rsa_pem(pem).map(|k| (k, Algorithm::RS256)))
        .ok()
}

fn verify_key(block: &pem::Pem) -> Option<VerifyKey> {
    let text = pem::encode(block);
    let (key, algorithm) = DecodingKey::from_ec_pem(text.as_bytes())
        .map(|k| (k, Algorithm::ES256))
        .or_else(|_| DecodingKey::from_rsa_pem(text.as_bytes()).map(|k| (k, Algorithm::RS256)))
        .ok()?;
    let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, block.contents()));
    Some(VerifyKey { id, algorithm, key })
}
