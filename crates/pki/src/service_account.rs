//! The keys that sign and verify service-account tokens (JWT): ECDSA on P-256, the default, P-384 or P-521,
//! or RSA.

use crate::files::{read, write_file};
use crate::p521::{P521, Signer};
use crate::{Error, parse_error};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;

/// One key that signs, and all whose signatures count.
pub struct ServiceAccountKeys {
    signer: PrivateKey,
    /// The first is the signer's own.
    verifiers: Vec<Verifier>,
}

enum PrivateKey {
    Library(Algorithm, EncodingKey),
    P521(Signer),
}

struct Verifier {
    key_id: String,
    algorithm: &'static str,
    key: PublicKey,
    jwk: Value,
}

enum PublicKey {
    Library(Algorithm, DecodingKey),
    P521(P521),
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
        let signer = match own.key {
            PublicKey::P521(_) => Signer::from_der(pair.serialized_der()).map(PrivateKey::P521),
            PublicKey::Library(rsa @ Algorithm::RS256, _) => {
                EncodingKey::from_rsa_pem(private.as_bytes()).map(|key| PrivateKey::Library(rsa, key))
            }
            PublicKey::Library(ec, _) => {
                Ok(PrivateKey::Library(ec, EncodingKey::from_ec_der(pair.serialized_der())))
            }
        };
        let signer = signer.map_err(|e| parse_error("the service-account signing key", e))?;
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
        let token = match &self.signer {
            PrivateKey::Library(algorithm, key) => {
                let header =
                    Header { kid: Some(self.key_id().to_owned()), typ: None, ..Header::new(*algorithm) };
                jsonwebtoken::encode(&header, claims, key)
            }
            PrivateKey::P521(signer) => signer.sign(self.key_id(), claims),
        };
        token.map_err(Error::Sign)
    }

    /// The claims of a token that one of the keys signed. Times, issuer and audience are the caller's to check.
    pub fn verify<C: DeserializeOwned>(&self, token: &str) -> Result<C, Error> {
        let header = token.split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let header: Option<TokenHeader> = header.and_then(|header| serde_json::from_slice(&header).ok());
        let header = header.ok_or(Error::Verify(ErrorKind::InvalidToken.into()))?;
        let named = |v: &&Verifier| header.kid.as_ref() == Some(&v.key_id);
        // A name that is not known says nothing: tokens of old may carry another form of it.
        let known = self.verifiers.iter().any(|v| named(&v));
        let mut failure = ErrorKind::InvalidSignature.into();
        for verifier in self.verifiers.iter().filter(|v| !known || named(v)) {
            match verifier.key.claims(token) {
                Ok(claims) => return Ok(claims),
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
        let mut names: Vec<_> = self.verifiers.iter().map(|v| v.algorithm).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn key_pair(pem: &str) -> Result<KeyPair, Error> {
    KeyPair::from_pem(pem).map_err(|e| parse_error("the service-account signing key", e))
}

/// What a token says of who signed it.
#[derive(Deserialize)]
struct TokenHeader {
    kid: Option<String>,
}

impl PublicKey {
    fn claims<C: DeserializeOwned>(&self, token: &str) -> Result<C, jsonwebtoken::errors::Error> {
        match self {
            Self::Library(algorithm, key) => {
                let mut rules = Validation::new(*algorithm);
                rules.required_spec_claims.clear();
                (rules.validate_exp, rules.validate_nbf, rules.validate_aud) = (false, false, false);
                Ok(jsonwebtoken::decode(token, key, &rules)?.claims)
            }
            Self::P521(key) => key.claims(token),
        }
    }
}

/// `public` is a SubjectPublicKeyInfo.
fn verifier(public: &[u8]) -> Result<Verifier, Error> {
    let failed = |e| parse_error("a service-account public key", e);
    let (algorithm, key, mut jwk) = match P521::from_der(public) {
        Some(key) => {
            let jwk = key.jwk();
            (P521::ALGORITHM, PublicKey::P521(key), jwk)
        }
        None => library_key(public).map_err(failed)?,
    };
    let key_id = URL_SAFE_NO_PAD.encode(Sha256::digest(public));
    jwk["use"] = "sig".into();
    jwk["kid"] = key_id.as_str().into();
    jwk["alg"] = algorithm.into();
    Ok(Verifier { key_id, algorithm, key, jwk })
}

fn library_key(public: &[u8]) -> Result<(&'static str, PublicKey, Value), jsonwebtoken::errors::Error> {
    let pem = pem::encode(&pem::Pem::new("PUBLIC KEY", public));
    let key =
        DecodingKey::from_ec_pem(pem.as_bytes()).or_else(|_| DecodingKey::from_rsa_pem(pem.as_bytes()))?;
    let jwk = Jwk::from_decoding_key(&key, None)?;
    let (name, algorithm) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => ("RS256", Algorithm::RS256),
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            ("ES256", Algorithm::ES256)
        }
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P384 => {
            ("ES384", Algorithm::ES384)
        }
        _ => return Err(ErrorKind::InvalidAlgorithm.into()),
    };
    Ok((name, PublicKey::Library(algorithm, key), serde_json::to_value(jwk)?))
}
