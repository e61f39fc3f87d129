//! What others said of a token, remembered briefly; who asks while somebody asks waits for that answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use parking_lot::Mutex;

use super::TokenUser;
use crate::token::TokenError;

/// Tokens remembered; those whose time is over go first, then all.
const REMEMBERED: usize = 32 * 1024;
/// How long a question may be under way.
const UNDER_WAY: Duration = Duration::from_secs(30);

pub type Outcome = Result<TokenUser, TokenError>;
/// `None` until it has been asked.
type Slot = Arc<tokio::sync::Mutex<Option<Outcome>>>;

pub struct TokenCache {
    /// Keys are hashes with a secret of this process: nobody can precompute collisions, and no token is kept.
    key: hmac::Key,
    slots: Mutex<HashMap<Vec<u8>, (Slot, Instant)>>,
}

impl TokenCache {
    pub fn new() -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        Self { key: key.expect("the system gives random bytes"), slots: Mutex::default() }
    }

    /// The remembered outcome, else that of `ask`, remembered for as long as `ttl` says.
    pub async fn get_or(
        &self,
        token: &str,
        audiences: &[String],
        ask: impl Future<Output = Outcome>,
        ttl: impl Fn(&Outcome) -> Duration,
    ) -> Outcome {
        let key = self.key_of(token, audiences);
        let slot = self.slot(&key);
        let mut outcome = slot.lock().await;
        if let Some(known) = &*outcome {
            return known.clone();
        }
        let found = ask.await;
        let keep = ttl(&found);
        *outcome = Some(found.clone());
        let mut slots = self.slots.lock();
        match slots.get_mut(&key) {
            Some((_, ends)) if !keep.is_zero() => *ends = Instant::now() + keep,
            _ => drop(slots.remove(&key)),
        }
        found
    }

    fn slot(&self, key: &[u8]) -> Slot {
        let now = Instant::now();
        let mut slots = self.slots.lock();
        if let Some((slot, ends)) = slots.get(key)
            && *ends > now
        {
            return slot.clone();
        }
        if slots.len() >= REMEMBERED {
            slots.retain(|_, (_, ends)| *ends > now);
        }
        if slots.len() >= REMEMBERED {
            slots.clear();
        }
        let slot = Slot::default();
        slots.insert(key.to_vec(), (slot.clone(), now + UNDER_WAY));
        slot
    }

    /// Lengths keep `ab`, `c` and `a`, `bc` apart.
    fn key_of(&self, token: &str, audiences: &[String]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.key);
        for part in std::iter::once(token).chain(audiences.iter().map(String::as_str)) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.sign().as_ref().to_vec()
    }
}

impl Default for TokenCache {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn one_question_answers_all_who_ask_meanwhile_and_after() {
        let cache = TokenCache::new();
        let asked = AtomicU32::new(0);
        let ask = |token: &'static str, keep: u64| {
            let asked = &asked;
            let work = async move {
                asked.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Err(TokenError::Foreign)
            };
            cache.get_or(token, &[], work, move |_| Duration::from_secs(keep))
        };
        let both = tokio::join!(ask("a", 60), ask("a", 60));
        assert_eq!(both, (Err(TokenError::Foreign), Err(TokenError::Foreign)));
        let _ = ask("a", 60).await;
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        let _ = (ask("b", 0).await, ask("b", 0).await);
        assert_eq!(asked.load(Ordering::SeqCst), 3, "what is kept for no time is asked anew");
    }
}
