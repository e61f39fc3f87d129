//! Bearer tokens that somebody else knows: a TokenReview sent to a webhook.

use std::time::Duration;

use serde_json::json;

use super::TokenUser;
use super::cache::{Outcome, TokenCache};
use super::config::TokenWebhook;
use crate::errors::chain;
use crate::remote::{RemoteError, Webhook};
use crate::token::TokenError;
use crate::token::request::string_list;
use crate::types::UserInfo;

const TIMEOUT: Duration = Duration::from_secs(30);

pub struct WebhookTokens {
    webhook: Webhook,
    api_version: String,
    ttl: Duration,
    cache: TokenCache,
}

impl WebhookTokens {
    pub fn new(config: &TokenWebhook) -> Result<Self, RemoteError> {
        Ok(Self {
            webhook: Webhook::from_kubeconfig(&config.kubeconfig, TIMEOUT)?,
            api_version: format!("authentication.k8s.io/{}", config.version),
            ttl: config.cache_ttl(),
            cache: TokenCache::new(),
        })
    }

    /// `wanted` are the audiences asked for, `own` those of the server, which a webhook that names none means.
    pub async fn authenticate(&self, token: &str, wanted: &[String], own: &[String]) -> Outcome {
        // An error says nothing about the token.
        let ttl = |outcome: &Outcome| match outcome {
            Err(TokenError::Refused(_)) => Duration::ZERO,
            _ => self.ttl,
        };
        self.cache.get_or(token, wanted, self.ask(token, wanted, own), ttl).await
    }

    async fn ask(&self, token: &str, wanted: &[String], own: &[String]) -> Outcome {
        let mut review =
            json!({"apiVersion": self.api_version, "kind": "TokenReview", "spec": {"token": token}});
        if !wanted.is_empty() {
            review["spec"]["audiences"] = json!(wanted);
        }
        let answer = self.webhook.review(&review).await.map_err(|error| {
            let text = chain(&error);
            tracing::error!(error = text, "the token webhook failed");
            TokenError::Refused(text)
        })?;
        let status = &answer["status"];
        let named = string_list(&status["audiences"]);
        let got = if named.is_empty() { own } else { &named };
        let wanted = if wanted.is_empty() { own } else { wanted };
        let audiences: Vec<String> = wanted.iter().filter(|a| got.contains(a)).cloned().collect();
        if status["authenticated"] != true {
            return Err(match status["error"].as_str() {
                Some(error) if !error.is_empty() => TokenError::Refused(error.to_owned()),
                _ => TokenError::Foreign,
            });
        }
        if audiences.is_empty() {
            return Err(TokenError::Foreign);
        }
        let user: UserInfo = serde_json::from_value(status["user"].clone())
            .map_err(|e| TokenError::Refused(format!("the token webhook's user is not readable: {e}")))?;
        Ok(TokenUser { user, audiences })
    }
}
