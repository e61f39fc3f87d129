//! ES512 (RFC 7518, section 3.4): signatures by keys of P-521, a curve that the JWT library has not.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::{Error, ErrorKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

/// secp521r1 (RFC 5480).
const CURVE: &str = "1.3.132.0.35";
/// How a point begins of which both coordinates follow (SEC 1, 2.3.3), and how long each of them is.
const UNCOMPRESSED: u8 = 4;
const COORDINATE: usize = 66;

/// A public key.
pub struct P521 {
    point: Vec<u8>,
}

impl P521 {
    pub const ALGORITHM: &str = "ES512";

    /// Of a JSON Web Key.
    pub fn from_jwk(jwk: &Value) -> Option<Self> {
        let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str()?).ok();
        let point = [vec![UNCOMPRESSED], coordinate("x")?, coordinate("y")?].concat();
        (jwk["crv"] == "P-521").then_some(Self { point })
    }

    /// Of a SubjectPublicKeyInfo.
    pub(crate) fn from_der(der: &[u8]) -> Option<Self> {
        let (_, info) = SubjectPublicKeyInfo::from_der(der).ok()?;
        let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?;
        let point = info.subject_public_key.data.to_vec();
        let whole = point.first() == Some(&UNCOMPRESSED) && point.len() == 1 + 2 * COORDINATE;
        (curve.to_id_string() == CURVE && whole).then_some(Self { point })
    }

    pub(crate) fn jwk(&self) -> Value {
        let (x, y) = self.point[1..].split_at(COORDINATE);
        json!({"kty": "EC", "crv": "P-521", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
    }

    /// The claims of a token whose header names ES512, if it is signed with this key.
    pub fn claims<C: DeserializeOwned>(&self, token: &str) -> Result<C, Error> {
        let (signed, signature) = token.rsplit_once('.').ok_or(ErrorKind::InvalidToken)?;
        let (header, claims) = signed.split_once('.').ok_or(ErrorKind::InvalidToken)?;
        let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?;
        if header["alg"] != Self::ALGORITHM {
            return Err(ErrorKind::InvalidAlgorithm.into());
        }
        UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, &self.point)
            .verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature)?)
            .map_err(|_| ErrorKind::InvalidSignature)?;
        Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?)
    }
}

/// A private key.
pub(crate) struct Signer(EcdsaKeyPair);

impl Signer {
    /// Of PKCS #8 or SEC 1.
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, Error> {
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P521_SHA512_FIXED_SIGNING, der);
        Ok(Self(pair.map_err(|_| ErrorKind::InvalidEcdsaKey)?))
    }

    pub(crate) fn sign(&self, key_id: &str, claims: &impl Serialize) -> Result<String, Error> {
        let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let header = json!({"alg": P521::ALGORITHM, "kid": key_id}).to_string();
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(&serde_json::to_vec(claims)?));
        let failed = |_| ErrorKind::Signing("ES512".to_owned());
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).map_err(failed)?;
        Ok(format!("{signed}.{}", encode(signature.as_ref())))
    }
}
