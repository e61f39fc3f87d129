//! The rules beside the type: bounds, patterns, formats, enumerations and the logical junctors.

use super::walk;
use keelson_api_types::field::child;
use keelson_api_types::{FieldError, FieldErrorKind, duration, meta};
use keelson_schema::{Rules, Type};
use regex::Regex;
use serde_json::Value;

pub(super) fn check(r: &Rules, ty: &Type, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if !r.enumeration.is_empty() && !r.enumeration.contains(value) {
        let supported: Vec<String> = r.enumeration.iter().map(plain).collect();
        errors.push(FieldError::not_supported(path, value.clone(), &supported));
    }
    match value {
        Value::Number(n) => number(r, n.as_f64().unwrap_or_default(), value, path, errors),
        Value::String(s) => text(r, s, path, errors),
        Value::Array(items) => list(r, items, path, errors),
        Value::Object(map) => {
            for name in r.required.iter().filter(|name| !map.contains_key(*name)) {
                errors.push(FieldError::required(child(path, name), ""));
            }
            if let Some(max) = r.max_properties.filter(|max| map.len() > *max) {
                errors.push(FieldError::too_many(path, map.len(), max));
            }
            if let Some(min) = r.min_properties.filter(|min| map.len() < *min) {
                errors.push(bad(path, value, format!("should have at least {min} properties")));
            }
        }
        _ => {}
    }
    junctors(r, ty, value, path, errors);
}

fn number(r: &Rules, n: f64, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if let Some(min) = r.minimum {
        if r.exclusive_minimum && n <= min {
            errors.push(bad(path, value, format!("should be greater than {min}")));
        } else if n < min {
            errors.push(bad(path, value, format!("should be greater than or equal to {min}")));
        }
    }
    if let Some(max) = r.maximum {
        if r.exclusive_maximum && n >= max {
            errors.push(bad(path, value, format!("should be less than {max}")));
        } else if n > max {
            errors.push(bad(path, value, format!("should be less than or equal to {max}")));
        }
    }
    if let Some(step) = r.multiple_of.filter(|step| *step != 0.0 && (n / step).fract() != 0.0) {
        errors.push(bad(path, value, format!("should be a multiple of {step}")));
    }
}

fn text(r: &Rules, s: &str, path: &str, errors: &mut Vec<FieldError>) {
    let length = s.chars().count();
    if let Some(max) = r.max_length.filter(|max| length > *max) {
        errors.push(FieldError::too_long(path, max));
    }
    if let Some(min) = r.min_length.filter(|min| length < *min) {
        errors.push(bad(path, &s.into(), format!("should be at least {min} chars long")));
    }
    if let Some(pattern) = &r.pattern {
        // A pattern that this engine cannot compile was refused with the CRD.
        if Regex::new(pattern).is_ok_and(|re| !re.is_match(s)) {
            errors.push(bad(path, &s.into(), format!("should match '{pattern}'")));
        }
    }
    if let Some(format) = r.format.as_deref().filter(|f| !format_ok(f, s)) {
        let detail =
            format!("{path} in body must be of type {format}: {}", keelson_api_types::gofmt::quote(s));
        errors.push(FieldError::invalid(path, s, detail));
    }
}

fn list(r: &Rules, items: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    if let Some(max) = r.max_items.filter(|max| items.len() > *max) {
        errors.push(FieldError::too_many(path, items.len(), max));
    }
    if let Some(min) = r.min_items.filter(|min| items.len() < *min) {
        errors.push(bad(path, &items.to_vec().into(), format!("should have at least {min} items")));
    }
    if r.unique_items && (1..items.len()).any(|i| items[..i].contains(&items[i])) {
        errors.push(bad(path, &items.to_vec().into(), "shouldn't contain duplicates".to_owned()));
    }
}

fn junctors(r: &Rules, _ty: &Type, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let holds = |ty: &Type| {
        let mut inner = Vec::new();
        walk(ty, value, path, false, &mut inner);
        inner.is_empty()
    };
    for ty in &r.all_of {
        walk(ty, value, path, false, errors);
    }
    let mut fail = |what: &str| {
        let detail = format!("{} {what}", quoted(path));
        errors.push(FieldError::new(FieldErrorKind::Invalid, path, Some(value.clone()), detail));
    };
    if !r.any_of.is_empty() && !r.any_of.iter().any(holds) {
        fail("must validate at least one schema (anyOf)");
    }
    if !r.one_of.is_empty() {
        match r.one_of.iter().filter(|ty| holds(ty)).count() {
            1 => {}
            0 => fail("must validate one and only one schema (oneOf). Found none valid"),
            n => {
                fail(&format!("must validate one and only one schema (oneOf). Found {n} valid alternatives"))
            }
        }
    }
    if r.not.as_deref().is_some_and(holds) {
        fail("must not validate the schema (not)");
    }
}

/// The formats that upstream knows; an unknown one says nothing.
fn format_ok(format: &str, s: &str) -> bool {
    match format {
        "date-time" | "datetime" => meta::parse_time(s).is_some(),
        "date" => s.len() == 10 && meta::parse_time(&format!("{s}T00:00:00Z")).is_some(),
        "duration" => duration::parse_go(s).is_some(),
        "ipv4" => s.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => s.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => s.split_once('/').is_some_and(|(ip, bits)| {
            let max = match ip.parse::<std::net::IpAddr>() {
                Ok(ip) if ip.is_ipv4() => 32,
                Ok(_) => 128,
                Err(_) => return false,
            };
            bits.parse::<u8>().is_ok_and(|b| b <= max)
        }),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => {
            let hex = s.replace('-', "");
            hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
        }
        "email" => s.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty()),
        "uri" => s.split_once(':').is_some_and(|(scheme, _)| !scheme.is_empty()) || s.starts_with('/'),
        _ => true,
    }
}

fn bad(path: &str, value: &Value, what: String) -> FieldError {
    FieldError::invalid(path, value.clone(), format!("{path} in body {what}"))
}

fn quoted(path: &str) -> String {
    keelson_api_types::gofmt::quote(if path.is_empty() { "<nil>" } else { path })
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
