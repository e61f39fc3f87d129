//! Who is asking: front proxy headers, client certificates, bearer tokens, else anonymous; then, where
//! asked and allowed, somebody else (impersonation).

pub mod bootstrap_token;
pub mod certificate;
pub mod impersonation;
pub mod service_account;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::request::Parts;
use percent_encoding::percent_decode_str;

use crate::token::{TokenError, Tokens};
use crate::types::{Authenticator, AuthnError, Authorizer, Objects, PeerCert, UserInfo};
use certificate::{Certificates, Origin};

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
    certificates: Certificates,
    tokens: Arc<Tokens>,
    verified: service_account::Verified,
    objects: Arc<dyn Objects>,
    authorizer: Arc<dyn Authorizer>,
    anonymous: bool,
}

impl Authenticators {
    pub fn new(
        certificates: Certificates,
        tokens: Arc<Tokens>,
        objects: Arc<dyn Objects>,
        authorizer: Arc<dyn Authorizer>,
        anonymous: bool,
    ) -> Self {
        Self {
            certificates,
            tokens,
            verified: service_account::Verified::default(),
            objects,
            authorizer,
            anonymous,
        }
    }

    /// Whom a bearer token stands for; `audiences` are those of the server itself when empty.
    pub async fn token(&self, token: &str, audiences: &[String]) -> Result<TokenUser, TokenError> {
        let found = service_account::authenticate(
            &self.tokens,
            &self.verified,
            self.objects.as_ref(),
            token,
            audiences,
        )
        .await;
        let mut found = match found {
            Err(TokenError::Foreign) => bootstrap_token::authenticate(self.objects.as_ref(), token)
                .map(|user| TokenUser { user, audiences: self.tokens.audiences().to_vec() }),
            other => other,
        }?;
        found.user.groups.push(AUTHENTICATED.into());
        Ok(found)
    }

    async fn identify(&self, parts: &Parts, peer: Option<&PeerCert>) -> Result<Option<UserInfo>, AuthnError> {
        if let Some(peer) = peer {
            match self.certificates.identify(peer)? {
                Origin::FrontProxy => {
                    if let Some(user) = front_proxy_user(parts) {
                        return Ok(Some(user));
                    }
                }
                Origin::Client(mut user) => {
                    user.groups.push(AUTHENTICATED.into());
                    return Ok(Some(user));
                }
            }
        }
        let Some(token) = bearer_token(parts) else {
            return Ok(self.anonymous.then(anonymous));
        };
        match self.token(&token, &[]).await {
            Ok(found) => Ok(Some(found.user)),
            Err(TokenError::Foreign) => Err(AuthnError::Invalid("invalid bearer token".into())),
            Err(TokenError::Refused(why)) => Err(AuthnError::Invalid(why)),
        }
    }
}

impl Authenticator for Authenticators {
    fn authenticate<'a>(
        &'a self,
        parts: &'a Parts,
        peer: Option<&'a PeerCert>,
    ) -> BoxFuture<'a, Result<Option<UserInfo>, AuthnError>> {
        async move {
            let Some(user) = self.identify(parts, peer).await? else { return Ok(None) };
            impersonation::apply(user, &parts.headers, self.authorizer.as_ref()).map(Some)
        }
        .boxed()
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

/// Whom the front proxy says the caller is.
fn front_proxy_user(parts: &Parts) -> Option<UserInfo> {
    let values = |name: &str| -> Vec<String> {
        let all = parts.headers.get_all(name).iter();
        all.filter_map(|v| v.to_str().ok()).filter(|v| !v.is_empty()).map(str::to_owned).collect()
    };
    let name = values("x-remote-user").into_iter().next()?;
    let mut groups = values("x-remote-group");
    if name != ANONYMOUS && !groups.iter().any(|g| g == AUTHENTICATED) {
        groups.push(AUTHENTICATED.into());
    }
    Some(UserInfo {
        name,
        uid: values("x-remote-uid").into_iter().next().unwrap_or_default(),
        groups,
        extra: extra_headers(&parts.headers, "x-remote-extra-"),
    })
}

/// `PREFIX-key: value` headers as a user's extra fields; keys are percent-encoded.
fn extra_headers(headers: &http::HeaderMap, prefix: &str) -> BTreeMap<String, Vec<String>> {
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let (Some(key), Ok(value)) = (name.as_str().strip_prefix(prefix), value.to_str()) else { continue };
        let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
        extra.entry(key).or_default().push(value.to_owned());
    }
    extra
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

    #[test]
    fn the_front_proxy_names_the_user() {
        let user = front_proxy_user(&parts(&[
            ("x-remote-user", "jane"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-extra-scopes%2fx", "one"),
        ]))
        .expect("a user");
        assert_eq!((user.name.as_str(), user.groups.len()), ("jane", 3));
        assert_eq!(user.extra["scopes/x"], ["one"]);
        assert_eq!(front_proxy_user(&parts(&[])), None);
    }
}
