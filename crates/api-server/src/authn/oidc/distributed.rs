//! Claims that an issuer keeps elsewhere (OpenID Connect Core 1.0, section 5.6.2): a token names an endpoint,
//! which answers with another token that holds the claim.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Mutex;

use super::claims::{self, Claims};
use super::keys::Keys;
use super::{untrusted, untrusted_issuer};
use crate::errors::chain;
use crate::remote::Remote;

/// Issuers whose keys are remembered.
const REMEMBERED: usize = 64;

/// The keys of the issuers of such answers.
#[derive(Default)]
pub struct Resolver(Mutex<HashMap<String, Arc<Keys>>>);

impl Resolver {
    /// Puts `claim` into the claims if they say where it is to be had.
    pub async fn expand(
        &self,
        remote: &Remote,
        claim: &str,
        audiences: &[String],
        claims: &mut Claims,
    ) -> Result<(), String> {
        let Some((endpoint, access)) = endpoint(claim, claims)? else { return Ok(()) };
        let answer = remote.get(&endpoint, access.as_deref()).await;
        let answer =
            answer.map_err(|e| format!("while getting distributed claim {claim:?}: {}", chain(&e)))?;
        let token = String::from_utf8_lossy(&answer).trim().to_owned();
        let issuer = untrusted_issuer(&token).ok_or_else(|| {
            format!("getting untrusted issuer from endpoint {endpoint} failed for claim {claim:?}")
        })?;
        let keys = self.keys(remote, &issuer).await?;
        let failed = |e: String| format!("verify distributed claim token: {e}");
        let now = jiff::Timestamp::now().as_second();
        claims::check(&untrusted(&token).unwrap_or_default(), audiences, now).map_err(failed)?;
        let found = keys.verify(remote, &token).await.map_err(failed)?;
        let value = found.get(claim).cloned().ok_or_else(|| {
            format!("jwt returned by distributed claim endpoint {endpoint:?} did not contain claim: {claim}")
        })?;
        claims.insert(claim.to_owned(), value);
        Ok(())
    }

    async fn keys(&self, remote: &Remote, issuer: &str) -> Result<Arc<Keys>, String> {
        let mut known = self.0.lock().await;
        if let Some(keys) = known.get(issuer) {
            return Ok(keys.clone());
        }
        let found = Keys::discover(remote, issuer, "").await;
        let keys = Arc::new(
            found.map_err(|e| format!("verifying untrusted issuer {issuer} failed: {}", chain(&e)))?,
        );
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(issuer.to_owned(), keys.clone());
        Ok(keys)
    }
}

/// Where a claim that is not there is to be had, and with which token.
fn endpoint(claim: &str, claims: &Claims) -> Result<Option<(String, Option<String>)>, String> {
    if claims.contains_key(claim) {
        return Ok(None);
    }
    let Some(names) = claims.get("_claim_names") else { return Ok(None) };
    let names = names.as_object().ok_or("oidc: error parsing distributed claim names")?;
    let sources = claims.get("_claim_sources").ok_or("oidc: no claim sources")?;
    let sources = sources.as_object().ok_or("oidc: could not parse claim sources")?;
    let Some(source) = names.get(claim).and_then(Value::as_str) else { return Ok(None) };
    let found = sources.get(source).ok_or_else(|| {
        format!("id token _claim_names contained a source {source} missing in _claims_sources")
    })?;
    let text = |key: &str| found[key].as_str().filter(|t| !t.is_empty()).map(str::to_owned);
    Ok(text("endpoint").map(|endpoint| (endpoint, text("access_token"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_token_says_where_its_claim_is() {
        let of = |value: Value| endpoint("groups", &value.as_object().cloned().unwrap_or_default());
        let named = json!({"_claim_names": {"groups": "s"},
            "_claim_sources": {"s": {"endpoint": "https://x/g", "access_token": "t"}}});
        assert_eq!(of(named), Ok(Some(("https://x/g".into(), Some("t".into())))));
        assert_eq!(of(json!({"groups": ["a"], "_claim_names": {"groups": "s"}})), Ok(None));
        assert_eq!(of(json!({})), Ok(None));
        assert!(of(json!({"_claim_names": {"groups": "s"}, "_claim_sources": {}})).is_err());
    }
}
