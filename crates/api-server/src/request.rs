//! What a request asks for, read from its method, path and query as upstream's request info resolver does.

use std::time::Duration;

use http::Method;
use percent_encoding::percent_decode_str;

/// The decoded query, in order, duplicates kept.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(raw: Option<&str>) -> Self {
        let pairs = raw.unwrap_or_default().split('&').filter(|p| !p.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(k, v)| (plus(k), plus(v)))
                .collect(),
        )
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// As Go's decoder reads booleans of query strings: present and empty means true, `0` and `false` mean false.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.get(name).map(|v| !matches!(v, "0" | "false"))
    }
}

impl Query {
    /// `timeout`, in Go's notation; less than nothing counts as nothing. The error is Go's.
    pub fn timeout(&self) -> Result<Option<Duration>, String> {
        self.get("timeout").filter(|text| !text.is_empty()).map(duration).transpose()
    }
}

/// A duration as Go writes it: `1h2m3.5s`.
fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
        };
        seconds += number * unit;
        rest = &rest[end..];
    }
    if negative {
        return Ok(Duration::ZERO);
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| invalid())
}

fn plus(text: &str) -> String {
    if text.contains(['%', '+']) {
        percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
    } else {
        text.to_owned()
    }
}

/// The parts of a request that authorization, routing and audit read. Empty strings mean "none".
#[derive(Debug, Clone, Default)]
pub struct RequestInfo {
    pub is_resource: bool,
    pub path: String,
    pub verb: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource: the path a `proxy` request is for, without the leading slash,
    /// as the client wrote it.
    pub rest: String,
    /// A `/watch/…` path of old.
    pub legacy_watch: bool,
}

impl RequestInfo {
    pub fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let mut info =
            Self { path: path.to_owned(), verb: method.as_str().to_ascii_lowercase(), ..Self::default() };
        let raw: Vec<&str> = path.trim_matches('/').split('/').collect();
        let mut parts = raw.as_slice();
        if parts.len() < 3 {
            return info;
        }
        match parts[0] {
            "api" => parts = &parts[1..],
            "apis" if parts.len() >= 4 => {
                info.group = decode(parts[1]);
                parts = &parts[2..];
            }
            _ => return info,
        }
        info.is_resource = true;
        info.version = decode(parts[0]);
        parts = &parts[1..];
        info.verb = verb_of(method).to_owned();
        if parts[0] == "watch" && parts.len() > 1 {
            info.legacy_watch = true;
            info.verb = "watch".into();
            parts = &parts[1..];
        }
        if parts[0] == "namespaces" && parts.len() > 1 {
            info.namespace = decode(parts[1]);
            if parts.len() > 2 && !matches!(parts[2], "status" | "finalize") {
                parts = &parts[2..];
            }
        }
        info.resource = decode(parts[0]);
        info.name = parts.get(1).map(|p| decode(p)).unwrap_or_default();
        info.subresource = parts.get(2).map(|p| decode(p)).unwrap_or_default();
        if parts.len() > 3 {
            info.rest = parts[3..].join("/");
            // The trailing slash is part of a proxied path.
            if path.ends_with('/') {
                info.rest.push('/');
            }
        }
        info.resolve_collection(query);
        info
    }

    /// Requests on a collection are list, watch or deletecollection; a field selector may narrow to a name.
    fn resolve_collection(&mut self, query: &Query) {
        let by_name = || {
            let selector = query.get("fieldSelector")?;
            let name = selector.split(',').find_map(|term| {
                term.strip_prefix("metadata.name==").or_else(|| term.strip_prefix("metadata.name="))
            })?;
            Some(name.to_owned())
        };
        match self.verb.as_str() {
            "get" if self.name.is_empty() => {
                let watch = query.flag("watch").unwrap_or(false);
                self.verb = if watch { "watch" } else { "list" }.into();
                self.name = by_name().unwrap_or_default();
            }
            // `?watch=true` on one object is a watch of old as well.
            "get" if self.subresource.is_empty() && query.flag("watch") == Some(true) => {
                self.verb = "watch".into();
            }
            "delete" if self.name.is_empty() => self.verb = "deletecollection".into(),
            "watch" if self.name.is_empty() => self.name = by_name().unwrap_or_default(),
            _ => {}
        }
    }

    /// Whether this names one object by its path, not by a selector.
    pub fn on_collection(&self) -> bool {
        matches!(self.verb.as_str(), "list" | "watch" | "deletecollection" | "create")
            && self.subresource.is_empty()
    }

    /// Requests that last as long as their client likes and are not counted as in flight.
    pub fn is_long_running(&self) -> bool {
        self.verb == "watch"
            || !self.is_resource && self.path.starts_with("/debug/pprof/")
            || matches!(self.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward")
    }
}

fn verb_of(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

fn decode(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, target: &str, expected: &str) {
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        let i = RequestInfo::parse(&method, path, &Query::parse(query));
        let got = format!(
            "{} {} g={} v={} ns={} r={} sub={} n={} rest={}",
            i.is_resource, i.verb, i.group, i.version, i.namespace, i.resource, i.subresource, i.name, i.rest
        );
        assert_eq!(got, expected, "{target}");
    }

    #[test]
    fn durations_read_as_go_reads_them() {
        let check = |text, expected: Result<Duration, &str>| {
            assert_eq!(duration(text), expected.map_err(str::to_owned), "{text}");
        };
        check("32s", Ok(Duration::from_secs(32)));
        check("1h2m3.5s", Ok(Duration::from_millis(3_723_500)));
        check("0", Ok(Duration::ZERO));
        check("-1s", Ok(Duration::ZERO));
        check("30", Err("time: missing unit in duration \"30\""));
        check("3x", Err("time: unknown unit \"x\" in duration \"3x\""));
        check("abc", Err("time: invalid duration \"abc\""));
        check("-", Err("time: invalid duration \"-\""));
    }

    #[test]
    fn paths_resolve_as_upstream_resolves_them() {
        let get = || Method::GET;
        check(get(), "/api/v1/namespaces", "true list g= v=v1 ns= r=namespaces sub= n= rest=");
        check(get(), "/api/v1/namespaces/a", "true get g= v=v1 ns=a r=namespaces sub= n=a rest=");
        check(
            Method::PUT,
            "/api/v1/namespaces/a/finalize",
            "true update g= v=v1 ns=a r=namespaces sub=finalize n=a rest=",
        );
        check(get(), "/api/v1/namespaces/a/pods", "true list g= v=v1 ns=a r=pods sub= n= rest=");
        check(get(), "/api/v1/namespaces/a/pods/p/log", "true get g= v=v1 ns=a r=pods sub=log n=p rest=");
        check(
            get(),
            "/api/v1/namespaces/a/pods/p/proxy/x/y%20z/",
            "true get g= v=v1 ns=a r=pods sub=proxy n=p rest=x/y%20z/",
        );
        check(
            get(),
            "/apis/apps/v1/deployments?watch=1",
            "true watch g=apps v=v1 ns= r=deployments sub= n= rest=",
        );
        check(
            get(),
            "/apis/apps/v1/deployments?fieldSelector=metadata.name%3Dx",
            "true list g=apps v=v1 ns= r=deployments sub= n=x rest=",
        );
        check(
            Method::DELETE,
            "/apis/apps/v1/namespaces/a/deployments",
            "true deletecollection g=apps v=v1 ns=a r=deployments sub= n= rest=",
        );
        check(get(), "/api/v1/watch/namespaces/a/pods/p", "true watch g= v=v1 ns=a r=pods sub= n=p rest=");
        check(get(), "/api/v1", "false get g= v= ns= r= sub= n= rest=");
        check(get(), "/apis/apps/v1", "false get g= v= ns= r= sub= n= rest=");
        check(get(), "/healthz/ping", "false get g= v= ns= r= sub= n= rest=");
    }
}
