//! Service account tokens: their claims, signing and verifying, TokenRequest, and the OIDC discovery
//! documents by which others verify them.

pub mod discovery;
pub mod request;

use keelson_pki::ServiceAccountKeys;
use serde::{Deserialize, Serialize};

/// A name with the uid that it had when the token was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ref {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The claim `kubernetes.io`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bound {
    pub namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Ref>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Ref>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Ref>,
    pub serviceaccount: Ref,
    /// Seconds since the epoch; the node agent should have replaced the token by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// All claims of bound tokens, and those of legacy secret tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claims {
    #[serde(deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub aud: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "numeric_date")]
    pub exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "numeric_date")]
    pub iat: Option<i64>,
    pub iss: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jti: String,
    #[serde(rename = "kubernetes.io", skip_serializing_if = "Option::is_none")]
    pub bound: Option<Bound>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "numeric_date")]
    pub nbf: Option<i64>,
    pub sub: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace", skip_serializing_if = "Option::is_none")]
    pub legacy_namespace: Option<String>,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name", skip_serializing_if = "Option::is_none")]
    pub legacy_secret: Option<String>,
    #[serde(
        rename = "kubernetes.io/serviceaccount/service-account.name",
        skip_serializing_if = "Option::is_none"
    )]
    pub legacy_name: Option<String>,
    #[serde(
        rename = "kubernetes.io/serviceaccount/service-account.uid",
        skip_serializing_if = "Option::is_none"
    )]
    pub legacy_uid: Option<String>,
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(d)? {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    })
}

/// RFC 7519 allows fractions of seconds.
fn numeric_date<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<i64>, D::Error> {
    Ok(Option::<f64>::deserialize(d)?.map(|seconds| seconds as i64))
}

/// Signs and verifies the tokens of one issuer.
pub struct Tokens {
    keys: ServiceAccountKeys,
    issuer: String,
    /// The audiences of the API server itself; what a token is for when nothing else is asked.
    audiences: Vec<String>,
}

/// Why a token is not what it claims to be.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    /// Not a token of this issuer at all; another authenticator may know it.
    #[error("not a token of this issuer")]
    Foreign,
    #[error("{0}")]
    Refused(String),
}

impl Tokens {
    pub fn new(keys: ServiceAccountKeys, issuer: String, audiences: Vec<String>) -> Self {
        Self { keys, issuer, audiences }
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    pub fn keys(&self) -> &ServiceAccountKeys {
        &self.keys
    }

    /// A signed token; the issuer claim is filled in.
    pub fn sign(&self, mut claims: Claims) -> Result<String, keelson_pki::Error> {
        claims.iss.clone_from(&self.issuer);
        self.keys.sign(&claims)
    }

    /// The claims of a token of ours: signature and issuer are checked, times and the existence of what
    /// it is bound to are not.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let unverified: Claims =
            jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_| TokenError::Foreign)?;
        if unverified.iss != self.issuer && unverified.iss != LEGACY_ISSUER {
            return Err(TokenError::Foreign);
        }
        self.keys.verify(token).map_err(|_| TokenError::Refused("invalid signature".into()))
    }

    /// Which of the wanted audiences (the server's own if none) the token is for; an error if none.
    pub fn match_audiences(&self, claims: &Claims, wanted: &[String]) -> Result<Vec<String>, TokenError> {
        let of_token = if claims.aud.is_empty() { &self.audiences } else { &claims.aud };
        let wanted = if wanted.is_empty() { &self.audiences } else { wanted };
        let shared: Vec<String> = of_token.iter().filter(|a| wanted.contains(a)).cloned().collect();
        if shared.is_empty() {
            return Err(TokenError::Refused(format!(
                "token audiences {} is invalid for the target audiences {}",
                crate::authz::rbac::rule::quoted(of_token),
                crate::authz::rbac::rule::quoted(wanted)
            )));
        }
        Ok(shared)
    }
}

/// The issuer of tokens in secrets of type `kubernetes.io/service-account-token`.
pub const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

/// How far clocks may be apart, in seconds.
const LEEWAY: i64 = 60;

/// Whether now lies within the token's times.
pub fn check_times(claims: &Claims, now: i64) -> Result<(), TokenError> {
    let refused = |text: &str| Err(TokenError::Refused(text.into()));
    if claims.nbf.is_some_and(|nbf| now + LEEWAY < nbf) {
        return refused("service account token is not valid yet");
    }
    if claims.exp.is_some_and(|exp| now - LEEWAY > exp) {
        return refused("service account token has expired");
    }
    if claims.iat.is_some_and(|iat| now + LEEWAY < iat) {
        return refused("service account token is issued in the future");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
