//! A proxied server does not know where it is reached: links in its pages and redirects get the prefix.

use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http_body_util::{BodyExt, Limited};
use keelson_api_types::StatusError;

use crate::body::{Body, Response};

/// Pages beyond this size are not looked into.
const PAGE_LIMIT: usize = 8 << 20;
/// Attributes that hold a link.
const ATTRIBUTES: [&str; 10] =
    ["href", "src", "action", "background", "cite", "codebase", "data", "longdesc", "usemap", "formaction"];

pub async fn answer(mut response: Response, prefix: &str, backend: &str) -> Result<Response, StatusError> {
    if let Some(location) = response.headers().get(LOCATION).and_then(|v| v.to_str().ok()) {
        let moved = link(location, prefix, backend);
        if let Some(Ok(moved)) = moved.map(|m| HeaderValue::from_str(&m)) {
            response.headers_mut().insert(LOCATION, moved);
        }
    }
    let is_page = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.starts_with("text/html"));
    if !is_page || response.headers().contains_key(CONTENT_ENCODING) {
        return Ok(response);
    }
    let (mut parts, body) = response.into_parts();
    let whole = Limited::new(body, PAGE_LIMIT).collect().await;
    let page = whole.map_err(|e| StatusError::service_unavailable(format!("error reading the page: {e}")))?;
    parts.headers.remove(CONTENT_LENGTH);
    Ok(http::Response::from_parts(parts, Body::from(rewrite(&page.to_bytes(), prefix, backend))))
}

/// The link with the prefix, if it leads to the proxied server's root or names it.
fn link(url: &str, prefix: &str, backend: &str) -> Option<String> {
    let path = if let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) {
        rest.strip_prefix(backend)?
    } else if url.starts_with("//") {
        return None;
    } else {
        url
    };
    if !path.starts_with('/') && !path.is_empty() || path.starts_with(prefix) {
        return None;
    }
    Some(format!("{prefix}{path}"))
}

fn rewrite(page: &Bytes, prefix: &str, backend: &str) -> Bytes {
    let Ok(text) = std::str::from_utf8(page) else { return page.clone() };
    let mut out = String::with_capacity(text.len() + 256);
    let mut rest = text;
    while let Some(open) = rest.find('<') {
        let Some(close) = rest[open..].find('>').map(|at| open + at) else { break };
        out.push_str(&rest[..open]);
        tag(&rest[open..=close], prefix, backend, &mut out);
        rest = &rest[close + 1..];
    }
    out.push_str(rest);
    out.into()
}

/// Writes a tag with its links rewritten.
fn tag(tag: &str, prefix: &str, backend: &str, out: &mut String) {
    let mut rest = tag;
    while let Some(equals) = rest.find('=') {
        let name = rest[..equals].trim_end().rsplit(|c: char| c.is_whitespace()).next().unwrap_or_default();
        let after = &rest[equals + 1..];
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''));
        let Some(quote) = quote else {
            out.push_str(&rest[..=equals]);
            rest = after;
            continue;
        };
        let Some(end) = after[1..].find(quote).map(|at| at + 1) else { break };
        let value = &after[1..end];
        let is_link = ATTRIBUTES.iter().any(|a| name.eq_ignore_ascii_case(a));
        let moved = if is_link { link(value, prefix, backend).filter(|_| !value.is_empty()) } else { None };
        out.push_str(&rest[..=equals]);
        out.push(quote);
        out.push_str(moved.as_deref().unwrap_or(value));
        out.push(quote);
        rest = &after[end + 1..];
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_the_root_get_the_prefix() {
        let page = Bytes::from_static(
            b"<a class=\"x\" href=\"/rewriteme\">t</a><img src='pic.png'><a href=\"http://o.org/\">=</a>",
        );
        assert_eq!(
            rewrite(&page, "/p/proxy", "10.0.0.1:80"),
            "<a class=\"x\" href=\"/p/proxy/rewriteme\">t</a><img src='pic.png'><a href=\"http://o.org/\">=</a>"
        );
        assert_eq!(link("http://10.0.0.1:80/a", "/p", "10.0.0.1:80").as_deref(), Some("/p/a"));
    }
}
