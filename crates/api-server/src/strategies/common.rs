//! Checks that many kinds share: numbers, names, labels and selectors, ports, addresses.
//!
//! The texts are upstream's (`k8s.io/apimachinery/pkg/util/validation` and `pkg/apis/core/validation`):
//! clients and tests match on them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use keelson_api_types::{FieldError, names};
use serde_json::{Map, Value};

use super::check::{At, Errors, Path};
use super::edit::same;

pub const IMMUTABLE: &str = "field is immutable";
pub const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
pub const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// `errors`, and whether the spec is another than before.
pub fn immutable_spec(errors: Vec<FieldError>, object: &Value, old: &Value) -> Vec<FieldError> {
    let mut e = Errors::new();
    e.extend(errors);
    e.immutable(&At::root(object).f("spec"), &At::root(old).f("spec"));
    e.into_vec()
}

pub fn inclusive_range(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

impl Errors {
    pub fn nonnegative(&mut self, at: &At<'_>) {
        if at.i() < 0 {
            self.invalid(at, NOT_NEGATIVE);
        }
    }

    /// Every one of these members, if there, must not be negative.
    pub fn nonnegative_all(&mut self, at: &At<'_>, names: &[&str]) {
        for name in names {
            self.nonnegative(&at.f(name));
        }
    }

    pub fn positive(&mut self, at: &At<'_>) {
        if at.i() <= 0 {
            self.invalid_value(&at.path, at.i(), "must be greater than zero");
        }
    }

    pub fn in_range(&mut self, at: &At<'_>, low: i64, high: i64) {
        if !(low..=high).contains(&at.i()) {
            self.invalid_value(&at.path, at.i(), inclusive_range(low, high));
        }
    }

    pub fn immutable(&mut self, new: &At<'_>, old: &At<'_>) {
        if !same(new.value, old.value) {
            self.invalid(new, IMMUTABLE);
        }
    }

    /// A string out of a set; absent is an error of its own.
    pub fn one_of(&mut self, at: &At<'_>, valid: &[&str]) {
        if at.s().is_empty() {
            self.required(&at.path, "");
        } else if !valid.contains(&at.s()) {
            self.not_supported(at, valid);
        }
    }

    /// A string out of a set, if there is one.
    pub fn optional_one_of(&mut self, at: &At<'_>, valid: &[&str]) {
        if at.has() && !valid.contains(&at.s()) {
            self.not_supported(at, valid);
        }
    }

    pub fn required_string(&mut self, at: &At<'_>) -> bool {
        if at.s().is_empty() {
            self.required(&at.path, "");
        }
        !at.s().is_empty()
    }

    pub fn dns_label(&mut self, at: &At<'_>) {
        self.text(at, names::dns1123_label(at.s()));
    }

    pub fn dns_subdomain(&mut self, at: &At<'_>) {
        self.text(at, names::dns1123_subdomain(at.s()));
    }

    pub fn qualified_name(&mut self, at: &At<'_>) {
        self.text(at, names::qualified_name(at.s()));
    }

    pub fn config_map_key(&mut self, at: &At<'_>) {
        self.text(at, names::config_map_key(at.s()));
    }

    /// Messages about a string, which reads as empty when absent.
    pub fn text<I: Into<String>>(&mut self, at: &At<'_>, messages: impl IntoIterator<Item = I>) {
        for message in messages {
            self.invalid_value(&at.path, at.s(), message);
        }
    }

    pub fn labels(&mut self, at: &At<'_>) {
        for (key, value) in at.map().into_iter().flatten() {
            for message in names::qualified_name(key) {
                self.invalid_value(&at.path, key.as_str(), message);
            }
            let text = value.as_str().unwrap_or_default();
            for message in names::label_value(text) {
                self.invalid_value(&at.path, text, message);
            }
        }
    }

    pub fn annotations(&mut self, at: &At<'_>) {
        const LIMIT: usize = 256 * 1024;
        let mut size = 0;
        for (key, value) in at.map().into_iter().flatten() {
            for message in names::qualified_name(&key.to_lowercase()) {
                self.invalid_value(&at.path, key.as_str(), message);
            }
            size += key.len() + value.as_str().map_or(0, str::len);
        }
        if size > LIMIT {
            self.too_long(&at.path, LIMIT);
        }
    }

    /// A `LabelSelector` object; nothing to say when it is absent.
    pub fn label_selector(&mut self, at: &At<'_>) {
        self.labels(&at.f("matchLabels"));
        for requirement in at.f("matchExpressions").each() {
            let values = requirement.f("values");
            match requirement.f("operator").s() {
                "In" | "NotIn" if values.is_empty() => {
                    self.required(&values.path, "must be specified when `operator` is 'In' or 'NotIn'");
                }
                "In" | "NotIn" => {}
                "Exists" | "DoesNotExist" if !values.is_empty() => {
                    let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    self.forbidden(&values.path, detail);
                }
                "Exists" | "DoesNotExist" => {}
                other => {
                    let path = requirement.f("operator").path;
                    self.invalid_value(&path, other, "not a valid selector operator");
                }
            }
            self.qualified_name(&requirement.f("key"));
            for value in values.each() {
                self.text(&value, names::label_value(value.s()));
            }
        }
    }

    pub fn port_number(&mut self, at: &At<'_>) {
        self.in_range(at, 1, 65535);
    }

    pub fn port_number_or_name(&mut self, at: &At<'_>) {
        match at.value {
            Value::String(name) => self.text(at, names::port_name(name)),
            _ => self.port_number(at),
        }
    }

    pub fn user_or_group_id(&mut self, at: &At<'_>) {
        if at.has() {
            self.in_range(at, 0, i64::from(i32::MAX));
        }
    }

    /// An address in a field that predates strict parsing; `known` ones are left alone.
    pub fn ip(&mut self, at: &At<'_>, known: &[&str]) {
        if known.contains(&at.s()) {
            return;
        }
        match parse_ip(at.s()) {
            None => {
                let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                self.invalid_value(&at.path, at.s(), detail);
            }
            Some(_) if at.s().parse::<IpAddr>().is_err() => {
                self.invalid_value(&at.path, at.s(), "must not have leading 0s");
            }
            Some(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
                self.invalid_value(&at.path, at.s(), "must not be an IPv4-mapped IPv6 address");
            }
            Some(_) => {}
        }
    }

    /// An address in its canonical form.
    pub fn canonical_ip(&mut self, at: &At<'_>) {
        let before = self.len();
        self.ip(at, &[]);
        if let (true, Ok(ip)) = (self.len() == before, at.s().parse::<IpAddr>())
            && ip.to_string() != at.s()
        {
            self.invalid_value(&at.path, at.s(), format!("must be in canonical form (\"{ip}\")"));
        }
    }

    pub fn cidr(&mut self, at: &At<'_>, known: &[&str]) {
        let text = at.s().trim();
        if known.contains(&text) {
            return;
        }
        let Some((ip, bits)) = parse_cidr(text) else {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            self.invalid_value(&at.path, text, detail);
            return;
        };
        if text.parse::<ipnet::IpNet>().is_err() {
            self.invalid_value(&at.path, text, "must not have leading 0s in IP or prefix length");
        } else if matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some()) {
            self.invalid_value(&at.path, text, "must not have an IPv4-mapped IPv6 address");
        } else if network(ip, bits) != ip {
            self.invalid_value(&at.path, text, "must not have bits set beyond the prefix length");
        }
    }

    /// An address that traffic may be sent to.
    pub fn endpoint_ip(&mut self, at: &At<'_>) {
        let Some(ip) = parse_ip(at.s()) else {
            self.invalid_value(&at.path, at.s(), "must be a valid IP address");
            return;
        };
        let mut report = |detail: &str| self.invalid_value(&at.path, at.s(), detail);
        let link_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        let link_local_multicast = match ip {
            IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
            IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
        };
        if ip.is_unspecified() {
            report(&format!("may not be unspecified ({})", at.s()));
        }
        if ip.is_loopback() {
            report("may not be in the loopback range (127.0.0.0/8, ::1/128)");
        }
        if link_local {
            report("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
        }
        if link_local_multicast {
            report("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
        }
    }

    /// A count or a percentage.
    pub fn int_or_percent(&mut self, at: &At<'_>) {
        match at.value {
            Value::String(text) if percent(text).is_none() => {
                let detail = "a valid percent string must be a numeric string followed by an ending '%' \
                              (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                self.invalid(at, detail);
            }
            Value::String(_) => {}
            _ => self.nonnegative(at),
        }
    }

    pub fn not_more_than_100_percent(&mut self, at: &At<'_>) {
        if at.value.as_str().and_then(percent).is_some_and(|p| p > 100) {
            self.invalid(at, "must not be greater than 100%");
        }
    }

    /// A relative path without steps upwards.
    pub fn local_path(&mut self, at: &At<'_>) {
        if at.s().starts_with('/') {
            self.invalid(at, "must be a relative path");
        }
        self.no_backsteps(at);
    }

    pub fn no_backsteps(&mut self, at: &At<'_>) {
        if at.s().split('/').any(|part| part == "..") {
            self.invalid(at, "must not contain '..'");
        }
    }

    pub fn file_mode(&mut self, at: &At<'_>) {
        if at.has() && !(0..=0o777).contains(&at.i()) {
            self.invalid(at, "must be a number between 0 and 0777 (octal), both inclusive");
        }
    }

    /// `metav1.Condition`s.
    pub fn conditions(&mut self, at: &At<'_>) {
        let mut types = Vec::new();
        for condition in at.each() {
            let kind = condition.f("type");
            if types.contains(&kind.s()) {
                self.duplicate(&kind.path, kind.s());
            }
            types.push(kind.s());
            self.qualified_name(&kind);
            let status = condition.f("status");
            if !["True", "False", "Unknown"].contains(&status.s()) {
                self.not_supported(&status, &["False", "True", "Unknown"]);
            }
            if condition.f("observedGeneration").i() < 0 {
                let detail = "must be greater than or equal to zero";
                self.invalid(&condition.f("observedGeneration"), detail);
            }
            self.required_string(&condition.f("lastTransitionTime"));
            let reason = condition.f("reason");
            if self.required_string(&reason) {
                self.text(&reason, names::condition_reason(reason.s()));
            }
            for (field, most) in [(reason, 1024), (condition.f("message"), 32 * 1024)] {
                if field.len() > most {
                    self.too_long(&field.path, most);
                }
            }
        }
    }
}

fn percent(text: &str) -> Option<i64> {
    let digits = text.strip_suffix('%')?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().unwrap_or(i64::MAX))
}

/// The number in a count or a percentage.
pub fn int_or_percent_value(value: &Value) -> i64 {
    match value {
        Value::String(text) => percent(text).unwrap_or_else(|| text.parse().unwrap_or(0)),
        other => other.as_i64().unwrap_or(0),
    }
}

/// Parses as upstream's legacy parser: leading zeros in IPv4 octets are decimal.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || part.len() > 8 || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *octet = part.parse::<u32>().ok()?.try_into().ok()?;
    }
    parts.next().is_none().then(|| IpAddr::V4(Ipv4Addr::from(octets)))
}

pub fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = text.split_once('/')?;
    let ip = parse_ip(ip)?;
    if bits.is_empty() || bits.len() > 3 || !bits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let bits: u8 = bits.parse().ok()?;
    (bits <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, bits))
}

/// The network's first address.
pub fn network(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
        }
    }
}

/// What is odd, though accepted, about the spelling of an address.
pub fn ip_warnings(path: &Path<'_>, text: &str) -> Option<String> {
    let ip = parse_ip(text)?;
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
            let plain = v6.to_canonical();
            Some(format!("{path}: non-standard IP address {text:?} is invalid: use \"{plain}\""))
        }
        Err(_) => Some(format!("{path}: non-standard IP address {text:?} is invalid: use \"{ip}\"")),
        Ok(IpAddr::V6(v6)) if v6.to_string() != text => {
            Some(format!("{path}: IPv6 address {text:?} should be in RFC 5952 canonical format (\"{v6}\")"))
        }
        Ok(_) => None,
    }
}

pub fn cidr_warnings(path: &Path<'_>, text: &str) -> Vec<String> {
    let Some((ip, bits)) = parse_cidr(text.trim()) else { return Vec::new() };
    let (first, full) = (network(ip, bits), if ip.is_ipv4() { 32 } else { 128 });
    if first == ip {
        return Vec::new();
    }
    vec![format!(
        "{path}: CIDR value {text:?} is ambiguous in this context (should be \"{first}/{bits}\" or \"{ip}/{full}\"?)"
    )]
}

/// Whether a `LabelSelector` object selects these labels; `None` if it is no valid selector. An absent
/// one selects nothing, an empty one everything.
pub fn selects(selector: &At<'_>, labels: Option<&Map<String, Value>>) -> Option<bool> {
    if !selector.has() {
        return Some(false);
    }
    let label = |key: &str| labels.and_then(|l| l.get(key)).and_then(Value::as_str);
    let mut all = selector
        .f("matchLabels")
        .map()
        .into_iter()
        .flatten()
        .all(|(key, value)| label(key) == value.as_str());
    for requirement in selector.f("matchExpressions").each() {
        let values = requirement.f("values").strings();
        let found = label(requirement.f("key").s());
        all &= match (requirement.f("operator").s(), values.is_empty()) {
            ("In", false) => found.is_some_and(|v| values.contains(&v)),
            ("NotIn", false) => found.is_none_or(|v| !values.contains(&v)),
            ("Exists", true) => found.is_some(),
            ("DoesNotExist", true) => found.is_none(),
            _ => return None,
        };
    }
    Some(all)
}

pub fn selector_is_empty(selector: &At<'_>) -> bool {
    selector.f("matchLabels").is_empty() && selector.f("matchExpressions").is_empty()
}
