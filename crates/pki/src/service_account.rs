//! The keys that sign and verify service-account tokens (JWT, ES256).

use crate::files::{read, write_file};
use crate::{Error, parse_error};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;

/// One key that signs, and all whose signatures count.
pub struct ServiceAccountKeys {
    signer: EncodingKey,
    key_id: String,
    verifiers: Vec<Verifier>,
}

struct Verifier {
    key_id: String,
    key: DecodingKey,
    jwk: Value,
}

impl ServiceAccountKeys {
    /// Makes the two files where they are missing. Whether it wrote. A private key without the public
    /// one gets it back; a public key alone is an error of [`ServiceAccountKeys::load`].
    pub fn ensure(private: &Path, public: &Path) -> Result<bool, Error> {
        if private.exists() && public.exists() {
            return Ok(false);
        }
        let key = if private.exists() || public.exists() {
            key_pair(&read(private)?)?
        } else {
            let key = KeyPair::generate()
                .map_err(|source| Error::Issue { subject: "service accounts".to_owned(), source })?;
            write_file(private, key.serialize_pem().as_bytes(), 0o600)?;
            key
        };
        write_file(public, key.public_key_pem().as_bytes(), 0o644)?;
        Ok(true)
    }

    /// `public` may hold several keys: the signing key's own and earlier ones, whose tokens still count.
    pub fn load(private: &Path, public: &Path) -> Result<ServiceAccountKeys, Error> {
        ServiceAccountKeys::from_pem(&read(private)?, &read(public)?)
    }

    pub fn from_pem(private: &str, public: &str) -> Result<ServiceAccountKeys, Error> {
        let pair = key_pair(private)?;
        let signer = EncodingKey::from_ec_der(pair.serialized_der());
        let own = pair.subject_public_key_info();
        let key_id = key_id(&own);
        let mut verifiers = vec![verifier(&own)?];
        for der in SubjectPublicKeyInfoDer::pem_slice_iter(public.as_bytes()) {
            let next = verifier(&der.map_err(|e| parse_error("a service-account public key", e))?)?;
            if verifiers.iter().all(|v| v.key_id != next.key_id) {
                verifiers.push(next);
            }
        }
        Ok(ServiceAccountKeys { signer, key_id, verifiers })
    }

    /// The `kid` of what is signed: the public key's SHA-256, as upstream makes it.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, Error> {
        let header = Header { kid: Some(self.key_id.clone()), typ: None, ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.signer).map_err(Error::Sign)
    }

    /// The claims of a token that one of the keys signed. Times, issuer and audience are the caller's to check.
    pub fn verify<C: DeserializeOwned>(&self, token: &str) -> Result<C, Error> {
        let header = jsonwebtoken::decode_header(token).map_err(Error::Verify)?;
        let mut rules = Validation::new(Algorithm::ES256);
        rules.required_spec_claims.clear();
        (rules.validate_exp, rules.validate_nbf, rules.validate_aud) = (false, false, false);
        let mut failure = jsonwebtoken::errors::ErrorKind::InvalidSignature.into();
        for verifier in
            self.verifiers.iter().filter(|v| header.kid.as_ref().is_none_or(|kid| *kid == v.key_id))
        {
            match jsonwebtoken::decode::<C>(token, &verifier.key, &rules) {
                Ok(token) => return Ok(token.claims),
                Err(error) => failure = error,
            }
        }
        Err(Error::Verify(failure))
    }

    /// The public keys as a JSON Web Key Set (RFC 7517), for `/openid/v1/jwks`.
    pub fn jwks(&self) -> Value {
        json!({ "keys": self.verifiers.iter().map(|v| &v.jwk).collect::<Vec<_>>() })
    }
}

fn key_pair(pem: &str) -> Result<KeyPair, Error> {
    KeyPair::from_pem(pem).map_err(|e| parse_error("the service-account signing key", e))
}

fn key_id(public: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(public))
}

/// `public` is a SubjectPublicKeyInfo of an ECDSA P-256 key; its last 64 bytes are the point's coordinates.
fn verifier(public: &[u8]) -> Result<Verifier, Error> {
    let not_p256 =
        || parse_error("a service-account public key", std::io::Error::other("not an ECDSA P-256 key"));
    let key = rcgen::SubjectPublicKeyInfo::from_der(public)
        .map_err(|e| parse_error("a service-account public key", e))?;
    // An uncompressed point: 4, then both coordinates.
    let point = key.der_bytes().strip_prefix(&[4]).filter(|p| p.len() == 64).ok_or_else(not_p256)?;
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[..32]), URL_SAFE_NO_PAD.encode(&point[32..]));
    let key_id = key_id(public);
    let key = DecodingKey::from_ec_components(&x, &y)
        .map_err(|e| parse_error("a service-account public key", e))?;
    let jwk =
        json!({ "use": "sig", "kty": "EC", "kid": key_id, "crv": "P-256", "alg": "ES256", "x": x, "y": y });
    Ok(Verifier { key_id, key, jwk })
}
