//! Tokens of service accounts, bound to their pod, renewed when four fifths of their life are over.

use crate::context::Context;
use crate::pods::spec;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequestSpec};
use k8s_openapi::api::core::v1::Pod;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// A token older than this is renewed whatever its life.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// After a failed renewal the old token is kept this long before another attempt.
const RETRY: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wanted {
    pub volume: String,
    pub path: String,
    pub audience: String,
    pub seconds: i64,
}

/// The tokens of one pod.
#[derive(Debug, Default)]
pub struct Tokens {
    held: HashMap<Wanted, Held>,
}

#[derive(Debug)]
struct Held {
    token: String,
    renew_at: Instant,
    ends_at: Instant,
}

impl Tokens {
    pub fn refresh_at(&self) -> Option<Instant> {
        self.held.values().map(|h| h.renew_at).min()
    }

    pub async fn get(&mut self, ctx: &Context, pod: &Pod, wanted: &Wanted) -> Result<String, String> {
        let now = Instant::now();
        if let Some(held) = self.held.get(wanted)
            && now < held.renew_at
        {
            return Ok(held.token.clone());
        }
        match request(ctx, pod, wanted).await {
            Ok(held) => {
                let token = held.token.clone();
                self.held.insert(wanted.clone(), held);
                Ok(token)
            }
            // While the API cannot be reached the old token serves as long as it lives.
            Err(error) => match self.held.get_mut(wanted) {
                Some(held) if now < held.ends_at => {
                    held.renew_at = now + RETRY;
                    Ok(held.token.clone())
                }
                _ => Err(error),
            },
        }
    }
}

async fn request(ctx: &Context, pod: &Pod, wanted: &Wanted) -> Result<Held, String> {
    let account =
        spec::spec(pod).service_account_name.as_deref().filter(|a| !a.is_empty()).unwrap_or("default");
    let spec = TokenRequestSpec {
        audiences: Some(wanted.audience.clone()).filter(|a| !a.is_empty()).map(|a| vec![a]),
        expiration_seconds: Some(wanted.seconds),
        bound_object_ref: Some(BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        }),
    };
    let status = ctx
        .api
        .token(spec::namespace(pod), account, spec)
        .await
        .map_err(|e| format!("failed to fetch token: {}", super::chain(&e)))?;
    let token = status.token.filter(|t| !t.is_empty()).ok_or("the API answered without a token")?;
    let end = status.expiration_timestamp.map_or(jiff::Timestamp::now(), |t| t.0);
    let left = end.duration_since(jiff::Timestamp::now());
    let life = Duration::from_secs(left.as_secs().max(1) as u64);
    let now = Instant::now();
    // Pods that start together shall not renew together.
    let jitter = Duration::from_millis(rand::random_range(0..=life.as_millis().min(10_000) as u64 / 10));
    Ok(Held {
        token,
        renew_at: now + (life * 4 / 5).min(LONGEST) - jitter.min(life / 10),
        ends_at: now + life,
    })
}
