//! The keys that sign and verify service-account tokens (JWT): ECDSA P-256, the default, ECDSA P-384 or RSA.

use crate::files::{read, write_file};
use crate::{Error, parse_error};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
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
    /// The first is the signer's own.
    verifiers: Vec<Verifier>,
}

struct Verifier {
    key_id: String,
    algorithm: Algorithm,
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
        let own = verifier(&pair.subject_public_key_info())?;
        let signer = match own.algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(private.as_bytes())
                .map_err(|e| parse_error("the service-account signing key", e))?,
            _ => EncodingKey::from_ec_der(pair.serialized_der()),
        };
        let mut verifiers = vec![own];
        for der in SubjectPublicKeyInfoDer::pem_slice_iter(public.as_bytes()) {
            let next = verifier(&der.map_err(|e| parse_error("a service-account public key", e))?)?;
            if verifiers.iter().all(|v| v.key_id != next.key_id) {
                verifiers.push(next);
            }
        }
        Ok(ServiceAccountKeys { signer, verifiers })
    }

    /// The `kid` of what is signed: the public key's SHA-256, as upstream makes it.
    pub fn key_id(&self) -> &str {
        &self.verifiers[0].key_id
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, Error> {
        let algorithm = self.verifiers[0].algorithm;
        let header = Header { kid: Some(self.key_id().to_owned()), typ: None, ..Header::new(algorithm) };
        jsonwebtoken::encode(&header, claims, &self.signer).map_err(Error::Sign)
    }

    /// The claims of a token that one of the keys signed. Times, issuer and audience are the caller's to check.
    pub fn verify<C: DeserializeOwned>(&self, token: &str) -> Result<C, Error> {
        let header = jsonwebtoken::decode_header(token).map_err(Error::Verify)?;
        let named = |v: &&Verifier| header.kid.as_ref() == Some(&v.key_id);
        // A name that is not known says nothing: tokens of old may carry another form of it.
        let known = self.verifiers.iter().any(|v| named(&v));
        let mut failure = jsonwebtoken::errors::ErrorKind::InvalidSignature.into();
        for verifier in self.verifiers.iter().filter(|v| !known || named(v)) {
            let mut rules = Validation::new(verifier.algorithm);
            rules.required_spec_claims.clear();
            (rules.validate_exp, rules.validate_nbf, rules.validate_aud) = (false, false, false);
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

    /// The names of the keys' algorithms, sorted, each once.
    pub fn algorithms(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.verifiers.iter().map(|v| name(v.algorithm)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn key_pair(pem: &str) -> Result<KeyPair, Error> {
    KeyPair::from_pem(pem).map_err(|e| parse_error("the service-account signing key", e))
}

fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::ES256 => "ES256",
        Algorithm::ES384 => "ES384",
        _ => "RS256",
    }
}

/// `public` is a SubjectPublicKeyInfo.
fn verifier(public: &[u8]) -> Result<Verifier, Error> {
    let failed = |e: jsonwebtoken::errors::Error| parse_error("a service-account public key", e);
    let pem = pem::encode(&pem::Pem::new("PUBLIC KEY", public));
    let key = DecodingKey::from_ec_pem(pem.as_bytes())
        .or_else(|_| DecodingKey::from_rsa_pem(pem.as_bytes()))
        .map_err(failed)?;
    let jwk = Jwk::from_decoding_key(&key, None).map_err(failed)?;
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P384 => Algorithm::ES384,
        _ => return Err(failed(jsonwebtoken::errors::ErrorKind::InvalidAlgorithm.into())),
    };
    let key_id = URL_SAFE_NO_PAD.encode(Sha256::digest(public));
    let mut jwk = serde_json::to_value(jwk).map_err(|e| parse_error("a service-account public key", e))?;
    jwk["use"] = "sig".into();
    jwk["kid"] = key_id.as_str().into();
    jwk["alg"] = name(algorithm).into();
    Ok(Verifier { key_id, algorithm, key, jwk })
}
