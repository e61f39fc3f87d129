//! A proxy in front that has authenticated the caller and says who it is in headers.

use std::collections::BTreeMap;

use http::HeaderMap;
use percent_encoding::percent_decode_str;

use super::config::RequestHeader;
use super::{ANONYMOUS, AUTHENTICATED};
use crate::types::UserInfo;

/// Whom the front proxy says the caller is.
pub fn user(config: &RequestHeader, headers: &HeaderMap) -> Option<UserInfo> {
    let values = |names: &[String]| -> Vec<String> {
        let all = names.iter().flat_map(|n| headers.get_all(n));
        all.filter_map(|v| v.to_str().ok()).filter(|v| !v.is_empty()).map(str::to_owned).collect()
    };
    let name = values(&config.username_headers).into_iter().next()?;
    let mut groups = values(&config.group_headers);
    if name != ANONYMOUS && !groups.iter().any(|g| g == AUTHENTICATED) {
        groups.push(AUTHENTICATED.into());
    }
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for prefix in &config.extra_header_prefixes {
        for (key, mut values) in extra_headers(headers, &prefix.to_lowercase()) {
            extra.entry(key).or_default().append(&mut values);
        }
    }
    let uid = values(&config.uid_headers).into_iter().next().unwrap_or_default();
    Some(UserInfo { name, uid, groups, extra })
}

/// `PREFIX-key: value` headers as a user's extra fields; keys are percent-encoded.
pub fn extra_headers(headers: &HeaderMap, prefix: &str) -> BTreeMap<String, Vec<String>> {
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
    use http::{HeaderName, HeaderValue};

    #[test]
    fn the_configured_headers_name_the_user() {
        let headers: HeaderMap = [
            ("x-remote-user", "jane"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-uid", "1"),
            ("x-remote-extra-scopes%2fx", "one"),
        ]
        .into_iter()
        .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
        .collect();
        let jane = user(&RequestHeader::default(), &headers).expect("a user");
        assert_eq!((jane.name.as_str(), jane.uid.as_str(), jane.groups.len()), ("jane", "1", 3));
        assert_eq!(jane.extra["scopes/x"], ["one"]);
        let other = RequestHeader { username_headers: vec!["X-Other".into()], ..RequestHeader::default() };
        assert_eq!(user(&other, &headers), None);
    }
}
