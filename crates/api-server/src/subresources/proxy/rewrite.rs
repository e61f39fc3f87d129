//! A proxied server does not know where it is reached: links in its pages and redirects get the prefix.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::{DeflateDecoder, GzDecoder};
use flate2::write::{DeflateEncoder, GzEncoder};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, Limited};
use keelson_api_types::StatusError;

use crate::body::{Body, Response};

/// Pages beyond this size are not looked into.
const PAGE_LIMIT: usize = 8 << 20;
/// What lets a page's origin call us; it is not the page's to decide.
const CORS: [&str; 4] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
];
/// Which attributes of which elements hold a link, as HTML has them.
const LINKS: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];
/// Elements whose content is text, whatever it looks like.
const RAW: [&str; 4] = ["script", "style", "textarea", "title"];

/// Where a page was asked for and where it came from.
pub struct Links {
    /// The path of the proxied root, without a slash at the end.
    pub prefix: String,
    /// Host and port of the proxied server.
    pub backend: String,
    /// The host that the client asked for.
    pub host: String,
}

/// The answer with its redirect or its page's links leading through the proxy.
pub async fn answer(mut response: Response, links: &Links) -> Result<Response, StatusError> {
    for header in CORS {
        response.headers_mut().remove(header);
    }
    if let Some(location) = response.headers().get(LOCATION).and_then(|v| v.to_str().ok()) {
        if let Some(Ok(moved)) = links.moved(location).map(|m| HeaderValue::from_str(&m)) {
            response.headers_mut().insert(LOCATION, moved);
        }
        return Ok(response);
    }
    let Some(coding) = Coding::of_page(response.headers()) else { return Ok(response) };
    let (mut parts, body) = response.into_parts();
    let broken = |e: &dyn std::fmt::Display| {
        StatusError::service_unavailable(format!("error trying to reach service: {e}"))
    };
    let whole = Limited::new(body, PAGE_LIMIT).collect().await.map_err(|e| broken(&e))?.to_bytes();
    if whole.is_empty() {
        // The answer to HEAD, mostly: its headers are about the page as it is.
        return Ok(http::Response::from_parts(parts, Body::empty()));
    }
    let page = coding.open(&whole).map_err(|e| broken(&e))?;
    let page = coding.close(&links.rewrite(&page)).map_err(|e| broken(&e))?;
    parts.headers.remove(CONTENT_LENGTH);
    Ok(http::Response::from_parts(parts, Body::from(page)))
}

#[derive(Clone, Copy)]
enum Coding {
    Plain,
    Gzip,
    Deflate,
}

impl Coding {
    /// How a page is packed; `None` for what is no page, or cannot be read.
    fn of_page(headers: &HeaderMap) -> Option<Self> {
        let header = |name| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let kind = header(CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
        match (kind, header(CONTENT_ENCODING)) {
            ("text/html", "") => Some(Self::Plain),
            ("text/html", "gzip") => Some(Self::Gzip),
            ("text/html", "deflate") => Some(Self::Deflate),
            _ => None,
        }
    }

    fn open(self, bytes: &Bytes) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        match self {
            Self::Plain => return Ok(bytes.to_vec()),
            Self::Gzip => GzDecoder::new(&bytes[..]).take(PAGE_LIMIT as u64).read_to_end(&mut out)?,
            Self::Deflate => DeflateDecoder::new(&bytes[..]).take(PAGE_LIMIT as u64).read_to_end(&mut out)?,
        };
        Ok(out)
    }

    fn close(self, page: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Plain => Ok(page.to_vec()),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(page)?;
                encoder.finish()
            }
            Self::Deflate => {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(page)?;
                encoder.finish()
            }
        }
    }
}

impl Links {
    /// The link with the prefix, if it is an absolute path on the proxied server or on ours.
    fn moved(&self, url: &str) -> Option<String> {
        let (origin, rest) = match url.split_once("//") {
            Some((scheme, rest)) if scheme.is_empty() || scheme.ends_with(':') && !scheme.contains('/') => {
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                (Some(&rest[..end]), &rest[end..])
            }
            _ => (None, url),
        };
        let ours = origin == Some(self.host.as_str());
        let same = origin.is_none_or(|o| o == self.backend) || ours;
        if !same || !rest.starts_with('/') {
            return None;
        }
        // What names our own host keeps doing so.
        let before = if ours { &url[..url.len() - rest.len()] } else { "" };
        let prefix = if rest.starts_with(&self.prefix) { "" } else { &self.prefix };
        Some(format!("{before}{prefix}{rest}"))
    }

    fn rewrite(&self, page: &[u8]) -> Vec<u8> {
        let Ok(text) = std::str::from_utf8(page) else { return page.to_vec() };
        let mut out = String::with_capacity(text.len() + 256);
        let mut rest = text;
        while let Some(open) = rest.find('<') {
            out.push_str(&rest[..open]);
            rest = &rest[open..];
            if let Some(comment) = rest.strip_prefix("<!--") {
                let end = comment.find("-->").map_or(rest.len(), |at| at + "<!---->".len());
                out.push_str(&rest[..end]);
                rest = &rest[end..];
                continue;
            }
            let mut end = self.tag(rest, &mut out);
            if let Some(name) = RAW.iter().find(|n| name_of(rest).eq_ignore_ascii_case(n)) {
                let closing = find_ignoring_case(&rest[end..], &format!("</{name}"));
                let text = closing.unwrap_or(rest.len() - end);
                out.push_str(&rest[end..end + text]);
                end += text;
            }
            rest = &rest[end..];
        }
        out.push_str(rest);
        out.into_bytes()
    }

    /// Writes the tag that `text` begins with, its links rewritten; returns its length.
    fn tag(&self, text: &str, out: &mut String) -> usize {
        let name = name_of(text);
        let known = LINKS.iter().find(|(element, _)| name.eq_ignore_ascii_case(element));
        let mut at = 1 + name.len();
        out.push_str(&text[..at]);
        // A `<` alone is text.
        if name.is_empty() {
            return at;
        }
        while let Some(c) = text[at..].chars().next().filter(|c| *c != '>') {
            if c.is_whitespace() || c == '/' {
                out.push(c);
                at += c.len_utf8();
                continue;
            }
            let (attribute, value, end) = attribute(&text[at..]);
            let is_link = known.is_some_and(|(_, all)| all.iter().any(|a| attribute.eq_ignore_ascii_case(a)));
            match value
                .filter(|_| is_link)
                .and_then(|(from, to)| Some((from, to, self.moved(&text[at + from..at + to])?)))
            {
                Some((from, to, moved)) => {
                    out.push_str(&text[at..at + from]);
                    out.push_str(&moved);
                    out.push_str(&text[at + to..at + end]);
                }
                None => out.push_str(&text[at..at + end]),
            }
            at += end;
        }
        at
    }
}

/// The element that a tag opens; empty for closing tags and what is none.
fn name_of(tag: &str) -> &str {
    let name = tag.strip_prefix('<').unwrap_or_default();
    let end = name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len());
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) { &name[..end] } else { "" }
}

/// The name of the attribute that `text` begins with, where its value is, and where all of it ends.
fn attribute(text: &str) -> (&str, Option<(usize, usize)>, usize) {
    let name_end =
        text.find(|c: char| c.is_whitespace() || matches!(c, '=' | '>' | '/')).unwrap_or(text.len());
    // A lone `=` must not stop the way through the tag.
    let name_end = name_end.max(text.chars().next().map_or(0, char::len_utf8));
    let name = &text[..name_end];
    let skip = |from: usize| from + (text[from..].len() - text[from..].trim_start().len());
    let equals = skip(name_end);
    if !text[equals..].starts_with('=') {
        return (name, None, name_end);
    }
    let start = skip(equals + 1);
    match text[start..].chars().next().filter(|c| matches!(c, '"' | '\'')) {
        Some(quote) => {
            let from = start + 1;
            let to = text[from..].find(quote).map_or(text.len(), |at| from + at);
            (name, Some((from, to)), (to + 1).min(text.len()))
        }
        None => {
            let to = text[start..]
                .find(|c: char| c.is_whitespace() || c == '>')
                .map_or(text.len(), |at| start + at);
            (name, Some((start, to)), to)
        }
    }
}

fn find_ignoring_case(text: &str, wanted: &str) -> Option<usize> {
    let wanted = wanted.as_bytes();
    text.as_bytes().windows(wanted.len()).position(|w| w.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        Links { prefix: "/p/proxy".into(), backend: "10.0.0.1:80".into(), host: "api:6443".into() }
    }

    #[test]
    fn links_of_the_proxied_server_get_the_prefix() {
        for (link, moved) in [
            ("/a?b=/c", Some("/p/proxy/a?b=/c")),
            ("/", Some("/p/proxy/")),
            ("http://10.0.0.1:80/a", Some("/p/proxy/a")),
            ("//10.0.0.1:80/a", Some("/p/proxy/a")),
            ("https://api:6443/a", Some("https://api:6443/p/proxy/a")),
            ("/p/proxy/a", Some("/p/proxy/a")),
            ("http://10.0.0.1:80", None),
            ("http://o.org/a", None),
            ("//o.org/a", None),
            ("a/b", None),
            ("#x", None),
            ("", None),
            ("mailto:a@b", None),
            ("a//b", None),
        ] {
            assert_eq!(links().moved(link).as_deref(), moved, "{link}");
        }
    }

    #[test]
    fn pages_change_in_their_links_alone() {
        for (page, expected) in [
            ("<a class=\"x\" href=\"/r\">t</a>", "<a class=\"x\" href=\"/p/proxy/r\">t</a>"),
            ("<IMG SRC='/p.png'/>", "<IMG SRC='/p/proxy/p.png'/>"),
            ("<a href = /r>t", "<a href = /p/proxy/r>t"),
            ("<a data=\"/r\">", "<a data=\"/r\">"),
            ("<img alt=\"a > b\" src=\"/r\">", "<img alt=\"a > b\" src=\"/p/proxy/r\">"),
            ("<!-- <a href=\"/r\"> --><a href=\"/r\">", "<!-- <a href=\"/r\"> --><a href=\"/p/proxy/r\">"),
            (
                "<script src=\"/j\">'<a href=\"/r\">'</Script>",
                "<script src=\"/p/proxy/j\">'<a href=\"/r\">'</Script>",
            ),
            ("1 < 2 && href=\"/r\"", "1 < 2 && href=\"/r\""),
            ("<a href=\"/r", "<a href=\"/p/proxy/r"),
            ("<a =>b", "<a =>b"),
            ("<", "<"),
            ("<!-- open", "<!-- open"),
        ] {
            assert_eq!(String::from_utf8(links().rewrite(page.as_bytes())).expect("text"), expected);
        }
    }

    #[test]
    fn packed_pages_stay_packed() {
        for coding in [Coding::Gzip, Coding::Deflate] {
            let packed: Bytes = coding.close(b"<a href=\"/r\">").expect("packs").into();
            assert_eq!(coding.open(&packed).expect("unpacks"), b"<a href=\"/r\">");
        }
    }
}
