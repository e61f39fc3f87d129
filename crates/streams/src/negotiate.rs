//! The HTTP side of an upgrade: which protocol the client offers, and the answer that switches to it.

use crate::Refused;
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;

pub(crate) const SPDY_TOKEN: &str = "SPDY/3.1";
pub(crate) const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const WS_PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const WS_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const WS_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wire {
    WebSocket { protocol: String },
    Spdy { protocol: String },
}

pub(crate) struct Upgrade {
    pub wire: Wire,
    pub response: Response<()>,
    pub on: OnUpgrade,
}

/// Chooses the first of the client's protocols that we speak. A WebSocket client may offer none at all, which
/// stands for the oldest.
pub(crate) fn negotiate<B>(
    request: &mut Request<B>,
    websocket: &[&str],
    spdy: &[&str],
) -> Result<Upgrade, Refused> {
    let headers = request.headers();
    let (wire, response) = if has_token(headers, &UPGRADE, "websocket") {
        let protocol = choose(headers, &WS_PROTOCOL, websocket)?;
        let key = headers
            .get(WS_KEY)
            .ok_or_else(|| Refused::new(StatusCode::BAD_REQUEST, "missing Sec-WebSocket-Key"))?;
        let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
        let mut response = switching("websocket");
        insert(&mut response, WS_ACCEPT, &accept);
        if let Some(protocol) = &protocol {
            insert(&mut response, WS_PROTOCOL, protocol);
        }
        (Wire::WebSocket { protocol: protocol.unwrap_or_default() }, response)
    } else if has_token(headers, &UPGRADE, SPDY_TOKEN) {
        // Clients of the first version of the streams did not name it.
        let protocol = choose(headers, &STREAM_PROTOCOL, spdy)?.unwrap_or_default();
        let mut response = switching(SPDY_TOKEN);
        if !protocol.is_empty() {
            insert(&mut response, STREAM_PROTOCOL, &protocol);
        }
        (Wire::Spdy { protocol }, response)
    } else {
        return Err(Refused::new(
            StatusCode::BAD_REQUEST,
            "you must specify at least 1 of stdin, stdout, stderr over an upgraded connection: Upgrade request required",
        ));
    };
    Ok(Upgrade { wire, response, on: hyper::upgrade::on(request) })
}

fn switching(to: &'static str) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(to));
    response
}

fn insert(response: &mut Response<()>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|t| t.eq_ignore_ascii_case(token))
}

fn choose(headers: &HeaderMap, name: &HeaderName, ours: &[&str]) -> Result<Option<String>, Refused> {
    let offered: Vec<&str> = tokens(headers, name).filter(|t| !t.is_empty()).collect();
    if offered.is_empty() {
        return Ok(None);
    }
    match offered.iter().find(|t| ours.contains(t)) {
        Some(protocol) => Ok(Some((*protocol).to_owned())),
        None => Err(Refused::new(
            StatusCode::FORBIDDEN,
            format!(
                "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {ours:?}"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder();
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).expect("valid")
    }

    #[test]
    fn the_clients_first_known_protocol_wins() {
        let mut request = request(&[
            ("upgrade", "websocket"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "v9.channel.k8s.io, v5.channel.k8s.io, v4.channel.k8s.io"),
        ]);
        let upgrade =
            negotiate(&mut request, &["v4.channel.k8s.io", "v5.channel.k8s.io"], &[]).expect("agrees");
        assert_eq!(upgrade.wire, Wire::WebSocket { protocol: "v5.channel.k8s.io".into() });
        assert_eq!(upgrade.response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn offers_that_nobody_speaks_are_refused() {
        let mut request = request(&[("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v9")]);
        let refused = negotiate(&mut request, &[], &["v4.channel.k8s.io"]).err().expect("refused");
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
    }
}
