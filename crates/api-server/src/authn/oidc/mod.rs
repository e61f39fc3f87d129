//! Tokens of other issuers (OpenID Connect ID tokens): verified by the issuer's published keys, and mapped to
//! a user as `AuthenticationConfiguration` says.

mod claims;
mod distributed;
mod expressions;
mod keys;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::cache::{Outcome, TokenCache};
use super::config::{AuthenticationConfiguration, JwtAuthenticator, TokenCache as Ttl};
use super::for_this_server;
use crate::errors::chain;
use crate::remote::{Remote, RemoteError};
use crate::token::TokenError;
use crate::types::UserInfo;
use claims::Claims;
use distributed::Resolver;
use expressions::Expressions;
use keys::{Keys, KeysError};

const TIMEOUT: Duration = Duration::from_secs(30);
/// Pauses between attempts at an issuer's discovery document: from the first to the last, doubling.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// How long the issuers of a changed configuration may take to be found before it is refused.
const PATIENCE: Duration = Duration::from_secs(60);

/// Problems of an authenticator's expressions, with paths below it.
pub fn problems(jwt: &JwtAuthenticator) -> Vec<String> {
    Expressions::compile(jwt).err().unwrap_or_default()
}

/// All issuers of one configuration. Dropping it ends the search for those not found yet.
pub struct Issuers {
    all: Vec<Arc<JwtIssuer>>,
    ttl: Ttl,
    cache: TokenCache,
    search: CancellationToken,
}

struct JwtIssuer {
    config: JwtAuthenticator,
    remote: Remote,
    /// `None` until the issuer has been found.
    keys: ArcSwapOption<Keys>,
    resolver: Resolver,
    expressions: Expressions,
}

impl Issuers {
    /// Must run inside a tokio runtime: the issuers are looked for at once.
    pub fn start(config: &AuthenticationConfiguration, ttl: &Ttl) -> Result<Self, RemoteError> {
        let search = CancellationToken::new();
        let mut all = Vec::new();
        for jwt in &config.jwt {
            let issuer = Arc::new(JwtIssuer::new(jwt.clone())?);
            tokio::spawn(issuer.clone().find(search.clone()));
            all.push(issuer);
        }
        Ok(Self { all, ttl: ttl.clone(), cache: TokenCache::new(), search })
    }

    /// Waits until all issuers have been found; the error names one that has not.
    pub async fn found(&self) -> Result<(), String> {
        let wait = async {
            for issuer in &self.all {
                while issuer.keys.load().is_none() {
                    tokio::time::sleep(PAUSES.0 / 10).await;
                }
            }
        };
        let _ = tokio::time::timeout(PATIENCE, wait).await;
        match self.all.iter().find(|i| i.keys.load().is_none()) {
            None => Ok(()),
            Some(issuer) => Err(format!(
                "oidc: authenticator for issuer {:?} is not initialized",
                issuer.config.issuer.url
            )),
        }
    }

    /// Whom a token of one of the issuers stands for; `own` are the audiences of the server.
    pub async fn authenticate(&self, token: &str, wanted: &[String], own: &[String]) -> Outcome {
        let Some(issuer) = untrusted_issuer(token) else { return Err(TokenError::Foreign) };
        let Some(found) = self.all.iter().find(|i| i.config.issuer.url == issuer) else {
            return Err(TokenError::Foreign);
        };
        let ask = async {
            let user = found.authenticate(token).await.map_err(TokenError::Refused)?;
            for_this_server(user, wanted, own)
        };
        let ttl = |outcome: &Outcome| match outcome {
            Ok(_) => self.ttl.success_ttl(),
            Err(_) => self.ttl.failure_ttl(),
        };
        self.cache.get_or(token, wanted, ask, ttl).await
    }
}

impl Drop for Issuers {
    fn drop(&mut self) {
        self.search.cancel();
    }
}

impl JwtIssuer {
    fn new(config: JwtAuthenticator) -> Result<Self, RemoteError> {
        let ca = Some(config.issuer.certificate_authority.as_str()).filter(|ca| !ca.is_empty());
        let remote = Remote::new(ca, TIMEOUT)?;
        // Validation has compiled them before.
        let expressions = Expressions::compile(&config).unwrap_or_default();
        let (keys, resolver) = (ArcSwapOption::empty(), Resolver::default());
        Ok(Self { config, remote, keys, resolver, expressions })
    }

    /// Looks for the discovery document until it is there: an issuer may run in the cluster itself.
    async fn find(self: Arc<Self>, search: CancellationToken) {
        let issuer = &self.config.issuer;
        let mut pause = PAUSES.0;
        loop {
            let error: KeysError = tokio::select! {
                found = Keys::discover(&self.remote, &issuer.url, &issuer.discovery_url) => match found {
                    Ok(keys) => return self.keys.store(Some(Arc::new(keys))),
                    Err(error) => error,
                },
                () = search.cancelled() => return,
            };
            tracing::error!(issuer = issuer.url, error = chain(&error), "could not find a token issuer");
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSES.1),
                () = search.cancelled() => return,
            }
        }
    }

    async fn authenticate(&self, token: &str) -> Result<UserInfo, String> {
        let keys = self.keys.load_full().ok_or("oidc: authenticator not initialized")?;
        let failed = |e: String| format!("oidc: verify token: {e}");
        let mut claims = self.verified(&keys, token).await.map_err(failed)?;
        let groups = &self.config.claim_mappings.groups.claim;
        if !groups.is_empty() {
            let audiences = &self.config.issuer.audiences;
            let expanded = self.resolver.expand(&self.remote, groups, audiences, &mut claims).await;
            expanded.map_err(|e| format!("oidc: could not expand distributed claims: {e}"))?;
        }
        let mut user = claims::user(&self.config.claim_mappings, &claims)?;
        claims::check_required(&self.config.claim_validation_rules, &claims)?;
        self.expressions.apply(&claims, &mut user)?;
        self.expressions.check_user(&user)?;
        Ok(user)
    }

    /// Times and audience come before the signature: they cost nothing and ask nobody.
    async fn verified(&self, keys: &Keys, token: &str) -> Result<Claims, String> {
        let now = jiff::Timestamp::now().as_second();
        claims::check(&untrusted(token).ok_or("oidc: malformed jwt")?, &self.config.issuer.audiences, now)?;
        match keys.verify(&self.remote, token).await? {
            Value::Object(claims) => Ok(claims),
            _ => Err("oidc: failed to unmarshal claims".to_owned()),
        }
    }
}

/// Claims that nobody has verified.
fn untrusted(token: &str) -> Option<Claims> {
    jsonwebtoken::dangerous::insecure_decode_claims(token).ok()
}

fn untrusted_issuer(token: &str) -> Option<String> {
    let claims = untrusted(token)?;
    let issuer = claims.get("iss")?.as_str()?;
    // Google's issuer names itself in two ways.
    Some(if issuer == "accounts.google.com" { format!("https://{issuer}") } else { issuer.to_owned() })
}
