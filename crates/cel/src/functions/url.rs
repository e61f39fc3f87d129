//! URLs as Go's `net/url` reads and writes them.

use super::{Outcome, Row, fail, mismatch};
use crate::value::{Key, Opaque, Text, Value};
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub(super) const ROWS: &[Row] = &[
    ("url", "string_to_url", "(string) -> url", |a| {
        let [Value::String(text)] = a else { return mismatch() };
        // Only what is absolute is a URL; its fragment is set apart only then.
        let url = Url::parse(text, true).and_then(|_| Url::parse(text, false));
        match url {
            Ok(url) => Ok(Value::Opaque(Opaque::Url(Arc::new(url)))),
            Err(why) => {
                fail(format!("URL parse error during conversion from string: parse {:?}: {why}", &**text))
            }
        }
    }),
    ("isURL", "is_url_string", "(string) -> bool", |a| match a {
        [Value::String(text)] => Ok(Url::parse(text, true).is_ok().into()),
        _ => mismatch(),
    }),
    ("getScheme", "url_get_scheme", "url.() -> string", |a| part(a, |url| url.scheme.clone())),
    ("getHost", "url_get_host", "url.() -> string", |a| part(a, |url| url.host.clone())),
    ("getHostname", "url_get_hostname", "url.() -> string", |a| part(a, |url| url.split_host().0.to_owned())),
    ("getPort", "url_get_port", "url.() -> string", |a| part(a, |url| url.split_host().1.to_owned())),
    ("getEscapedPath", "url_get_escaped_path", "url.() -> string", |a| part(a, Url::escaped_path)),
    ("getQuery", "url_get_query", "url.() -> map(string, list(string))", query),
];

/// The parts of a URL: the host decoded, path and query as they were written.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Url {
    text: String,
    scheme: String,
    host: String,
    path: String,
    query: String,
}

impl Url {
    /// `request` demands an absolute URL or path and takes no fragment apart, as for a request line.
    ///
    /// # Errors
    /// Why it is none, in upstream's words.
    pub(super) fn parse(text: &str, request: bool) -> Result<Url, String> {
        let whole = text;
        let text = if request { text } else { text.split_once('#').map_or(text, |(before, _)| before) };
        if text.bytes().any(|b| b < b' ' || b == 0x7f) {
            return Err("net/url: invalid control character in URL".into());
        }
        if text.is_empty() && request {
            return Err("empty url".into());
        }
        let (scheme, rest) = split_scheme(text)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut url =
            Url { text: whole.into(), scheme: scheme.to_lowercase(), query: query.into(), ..Url::default() };
        if text == "*" {
            url.path = "*".into();
            return Ok(url);
        }
        let mut path = rest;
        if !rest.starts_with('/') {
            if !scheme.is_empty() {
                return Ok(url);
            }
            if request {
                return Err("invalid URI for request".into());
            }
            if rest.split('/').next().is_some_and(|first| first.contains(':')) {
                return Err("first path segment in URL cannot contain colon".into());
            }
        }
        let authority_allowed = !scheme.is_empty() || !request && !rest.starts_with("///");
        if let Some(authority) = rest.strip_prefix("//").filter(|_| authority_allowed) {
            let end = authority.find('/').unwrap_or(authority.len());
            path = &authority[end..];
            url.host = host(&authority[..end])?;
        }
        check_escapes(path)?;
        url.path = path.into();
        Ok(url)
    }

    /// Host and port, an IPv6 address without its brackets.
    fn split_host(&self) -> (&str, &str) {
        let (host, port) = match self.host.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.is_empty() => {
                (host, port)
            }
            _ => (&*self.host, ""),
        };
        (host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host), port)
    }

    fn escaped_path(&self) -> String {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&b);
        if self.path == "*" || self.path.bytes().all(|b| plain(b) || b"!'()*[]%".contains(&b)) {
            return self.path.clone();
        }
        let mut out = String::new();
        for b in percent_decode_str(&self.path) {
            if plain(b) { out.push(b.into()) } else { out.push_str(&format!("%{b:02X}")) }
        }
        out
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn split_scheme(text: &str) -> Result<(&str, &str), String> {
    for (at, b) in text.bytes().enumerate() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme".into()),
            b':' => return Ok((&text[..at], &text[at + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn host(authority: &str) -> Result<String, String> {
    let (user, host) =
        authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let user_ok = |b: u8| b.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&b);
    if user.is_some_and(|user| !user.bytes().all(user_ok)) {
        return Err("net/url: invalid userinfo".into());
    }
    let port = if host.starts_with('[') {
        let end = host.rfind(']').ok_or("missing ']' in host")?;
        &host[end + 1..]
    } else {
        host.find(':').map_or("", |at| &host[at..])
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    if !(port.is_empty() || port.starts_with(':') && digits.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!("invalid port {port:?} after host"));
    }
    let host_ok = |b: u8| b >= 0x80 || b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]<>\"%".contains(&b);
    if let Some(c) = host.chars().find(|c| c.is_ascii() && !host_ok(*c as u8)) {
        return Err(format!("invalid character {:?} in host name", c.to_string()));
    }
    check_escapes(host)?;
    Ok(percent_decode_str(host).decode_utf8_lossy().into_owned())
}

fn check_escapes(text: &str) -> Result<(), String> {
    for (at, _) in text.match_indices('%') {
        let escape = &text.as_bytes()[at..text.len().min(at + 3)];
        if escape.len() < 3 || !escape[1..].iter().all(u8::is_ascii_hexdigit) {
            return Err(format!("invalid URL escape {:?}", String::from_utf8_lossy(escape)));
        }
    }
    Ok(())
}

fn part<'a>(args: &[Value<'a>], f: fn(&Url) -> String) -> Outcome<'a> {
    match args {
        [Value::Opaque(Opaque::Url(url))] => Ok(f(url).into()),
        _ => mismatch(),
    }
}

fn query<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Opaque(Opaque::Url(url))] = args else { return mismatch() };
    let mut values: BTreeMap<String, Vec<Value<'a>>> = BTreeMap::new();
    for pair in url.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if check_escapes(key).is_err() || check_escapes(value).is_err() {
            continue;
        }
        let decode =
            |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        values.entry(decode(key)).or_default().push(decode(value).into());
    }
    let entries =
        values.into_iter().map(|(key, list)| (Key::String(Text::Shared(key.into())), Value::list(list)));
    Ok(Value::map(entries.collect()))
}
