//! Who is asking: front proxy headers, client certificates, bearer tokens (service accounts, bootstrap tokens,
//! other issuers, a webhook), else anonymous. Acting as somebody else comes after: [`impersonation`].

pub mod bootstrap_token;
mod cache;
pub mod certificate;
pub mod config;
pub mod front_proxy;
pub mod impersonation;
pub mod oidc;
pub mod service_account;
mod webhook;

use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::request::Parts;

use crate::token::{TokenError, Tokens};
use crate::types::{Authenticator, AuthnError, Objects, PeerCert, UserInfo};
use certificate::{Certificates, Origin};
use config::{Anonymous, RequestHeader};
use oidc::Issuers;

pub use webhook::WebhookTokens;

pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const ANONYMOUS: &str = "system:anonymous";

/// Whom a bearer token stands for, and for which audiences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUser {
    pub user: UserInfo,
    pub audiences: Vec<String>,
}

/// The cluster's authenticator.
pub struct Authenticators {
    pub certificates: Certificates,
    pub tokens: Arc<Tokens>,
    pub verified: service_account::Verified,
    pub objects: Arc<dyn Objects>,
    /// Replaced when their configuration changes.
    pub issuers: ArcSwap<Issuers>,
    pub webhook: Option<WebhookTokens>,
    pub request_header: RequestHeader,
    pub anonymous: Anonymous,
}

impl Authenticators {
    /// Whom a bearer token stands for; `audiences` are those of the server itself when empty.
    pub async fn token(&self, token: &str, audiences: &[String]) -> Result<TokenUser, TokenError> {
        let objects = self.objects.as_ref();
        let own = self.tokens.audiences();
        let mut refusals = Vec::new();
        // The cheap ones first: the last two ask others.
        for kind in 0..4 {
            let found = match kind {
                0 => {
                    service_account::authenticate(&self.tokens, &self.verified, objects, token, audiences)
                        .await
                }
                1 => bootstrap_token::authenticate(objects, token)
                    .and_then(|user| for_this_server(user, audiences, own)),
                // Boxed: few requests come here, all would have to keep the room.
                2 => Box::pin(self.issuers.load_full().authenticate(token, audiences, own)).await,
                _ => match &self.webhook {
                    Some(webhook) => Box::pin(webhook.authenticate(token, audiences, own)).await,
                    None => Err(TokenError::Foreign),
                },
            };
            match found {
                Ok(mut found) => {
                    if !found.user.in_group(AUTHENTICATED) {
                        found.user.groups.push(AUTHENTICATED.into());
                    }
                    return Ok(found);
                }
                Err(TokenError::Refused(why)) => refusals.push(why),
                Err(TokenError::Foreign) => {}
            }
        }
        Err(if refusals.is_empty() { TokenError::Foreign } else { TokenError::Refused(refusals.join(", ")) })
    }

    async fn identify(&self, parts: &Parts, peer: Option<&PeerCert>) -> Result<Option<UserInfo>, AuthnError> {
        let mut refused = None;
        match peer.map(|peer| self.certificates.identify(peer)) {
            Some(Ok(Origin::FrontProxy)) => {
                if let Some(user) = front_proxy::user(&self.request_header, &parts.headers) {
                    return Ok(Some(user));
                }
            }
            Some(Ok(Origin::Client(mut user))) => {
                user.groups.push(AUTHENTICATED.into());
                return Ok(Some(user));
            }
            Some(Err(error)) => refused = Some(error),
            None => {}
        }
        let Some(token) = bearer_token(parts) else {
            return match refused {
                Some(error) => Err(error),
                None => Ok(self.is_open(parts.uri.path()).then(anonymous)),
            };
        };
        match self.token(&token, &[]).await {
            Ok(found) => Ok(Some(found.user)),
            Err(TokenError::Foreign) => Err(AuthnError::Invalid("invalid bearer token".into())),
            Err(TokenError::Refused(why)) => Err(AuthnError::Invalid(why)),
        }
    }

    /// Whether nobody may ask there.
    fn is_open(&self, path: &str) -> bool {
        let Anonymous { enabled, conditions } = &self.anonymous;
        *enabled && (conditions.is_empty() || conditions.iter().any(|c| c.path == path))
    }
}

/// A user that is known without audiences is so for the server's own.
fn for_this_server(user: UserInfo, wanted: &[String], own: &[String]) -> Result<TokenUser, TokenError> {
    let wanted = if wanted.is_empty() { own } else { wanted };
    let audiences: Vec<String> = wanted.iter().filter(|a| own.contains(a)).cloned().collect();
    if audiences.is_empty() { Err(TokenError::Foreign) } else { Ok(TokenUser { user, audiences }) }
}

impl Authenticator for Authenticators {
    fn authenticate<'a>(
        &'a self,
        parts: &'a Parts,
        peer: Option<&'a PeerCert>,
    ) -> BoxFuture<'a, Result<Option<UserInfo>, AuthnError>> {
        self.identify(parts, peer).boxed()
    }
}

fn anonymous() -> UserInfo {
    UserInfo { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..UserInfo::default() }
}

/// The token of an `Authorization: Bearer` header or, for browsers, of a WebSocket subprotocol.
fn bearer_token(parts: &Parts) -> Option<String> {
    const SUBPROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";
    if let Some(header) = parts.headers.get(http::header::AUTHORIZATION) {
        let (scheme, token) = header.to_str().ok()?.trim().split_once(' ')?;
        let token = token.split(' ').next().unwrap_or_default();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned());
    }
    let protocols = parts.headers.get_all(http::header::SEC_WEBSOCKET_PROTOCOL);
    protocols.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).find_map(|protocol| {
        let encoded = protocol.trim().strip_prefix(SUBPROTOCOL)?;
        String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().uri("/api");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn the_bearer_token_is_found_where_clients_put_it() {
        let encoded = format!(
            "v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.{}",
            URL_SAFE_NO_PAD.encode("tok")
        );
        type Case<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>);
        let cases: [Case<'_>; 6] = [
            (&[], None),
            (&[("authorization", "Bearer abc")], Some("abc")),
            (&[("authorization", "bearer  abc")], None),
            (&[("authorization", "Basic abc")], None),
            (&[("authorization", "Bearer ")], None),
            (&[("sec-websocket-protocol", &encoded)], Some("tok")),
        ];
        for (headers, want) in cases {
            assert_eq!(bearer_token(&parts(headers)).as_deref(), want, "{headers:?}");
        }
    }
}
