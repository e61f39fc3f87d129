//! The string formats that upstream knows; names without their dashes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keelson_api_types::{duration, meta, names};
use regex::Regex;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

static HOSTNAME: LazyLock<Option<Regex>> = LazyLock::new(|| {
    // A label, or labels that end in letters.
    let label = r"[a-zA-Z0-9\p{S}\p{L}]";
    let inner = r"[a-zA-Z0-9\-\p{S}\p{L}]";
    Regex::new(&format!(
        r"^({label}((-?{label}{{0,62}})?)|({label}(({inner}{{0,61}}{label})?)(\.)){{1,}}([a-zA-Z\p{{L}}]){{2,63}})$"
    ))
    .ok()
});
static DURATION: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(\d+)\s*([A-Za-zµ]+)").ok());
static CREDIT_CARD: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|(222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35\d{3})\d{11}|6[27][0-9]{14})$",
    )
    .ok()
});

/// Whether a format is one that texts are checked against.
pub(super) fn is_text_format(format: &str) -> bool {
    !matches!(format, "int32" | "int64" | "float" | "double")
}

pub(super) fn matches(format: &str, s: &str) -> bool {
    match format.replace('-', "").as_str() {
        "bsonobjectid" => is_hex(s, 24),
        "uri" => is_uri(s),
        "email" => is_email(s),
        "hostname" => is_hostname(s),
        "ipv4" => without_zeros(s).parse::<Ipv4Addr>().is_ok(),
        "ipv6" => s.contains(':') && s.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(s),
        "mac" => is_mac(s),
        "uuid" => is_uuid(s, None),
        "uuid3" => is_uuid(s, Some(('3', false))),
        "uuid4" => is_uuid(s, Some(('4', true))),
        "uuid5" => is_uuid(s, Some(('5', true))),
        "isbn" => is_isbn10(s) || is_isbn13(s),
        "isbn10" => is_isbn10(s),
        "isbn13" => is_isbn13(s),
        "creditcard" => is_credit_card(s),
        "ssn" => is_ssn(s),
        "hexcolor" => {
            let hex = s.strip_prefix('#').unwrap_or(s);
            is_hex(hex, 3) || is_hex(hex, 6)
        }
        "rgbcolor" => is_rgb(s),
        "byte" => STANDARD.decode(s).is_ok() && !s.is_empty(),
        "date" => is_date(s),
        "duration" => is_duration(s),
        "datetime" => is_date_time(s),
        "k8sshortname" => names::dns1123_label(s).is_empty(),
        "k8slongname" => names::dns1123_subdomain(s).is_empty(),
        _ => true,
    }
}

fn is_hex(s: &str, length: usize) -> bool {
    s.len() == length && s.bytes().all(|b| b.is_ascii_hexdigit())
}

/// An absolute URI or a path, as Go's `ParseRequestURI` takes them.
fn is_uri(s: &str) -> bool {
    if s.starts_with('/') {
        return !s.contains([' ', '\x7f']) && !s.contains(|c: char| c.is_control());
    }
    let Some((scheme, rest)) = s.split_once(':') else { return false };
    let first = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    let grammar = scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    let host = rest.strip_prefix("//").map(|r| r.split(['/', '?', '#']).next().unwrap_or_default());
    let clean =
        !s.contains(|c: char| c.is_control()) && !host.unwrap_or_default().contains([' ', '<', '>', '"']);
    first && grammar && clean
}

fn is_email(s: &str) -> bool {
    let address = match (s.rfind('<'), s.strip_suffix('>')) {
        (Some(at), Some(open)) => &open[at + 1..],
        _ => s.trim(),
    };
    let Some((user, host)) = address.rsplit_once('@') else { return false };
    let atoms = |s: &str, more: &str| {
        s.split('.').all(|atom| {
            !atom.is_empty() && atom.chars().all(|c| c.is_alphanumeric() || more.contains(c) || !c.is_ascii())
        })
    };
    let quoted = user.len() > 1 && user.starts_with('"') && user.ends_with('"');
    let literal = host.starts_with('[') && host.ends_with(']');
    (quoted || atoms(user, "!#$%&'*+-/=?^_`{|}~")) && (literal || atoms(host, "!#$%&'*+-/=?^_`{|}~"))
}

fn is_hostname(s: &str) -> bool {
    let fits = HOSTNAME.as_ref().is_none_or(|re| re.is_match(s));
    fits && s.len() <= 255 && s.split('.').all(|label| label.len() <= 63)
}

/// Upstream tolerates leading zeros in addresses.
fn without_zeros(s: &str) -> String {
    let part = |p: &str| match p.trim_start_matches('0') {
        "" if !p.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    };
    s.split('.').map(part).collect::<Vec<_>>().join(".")
}

fn is_cidr(s: &str) -> bool {
    let Some((ip, bits)) = s.split_once('/') else { return false };
    let max = match (without_zeros(ip).parse::<Ipv4Addr>(), ip.parse::<Ipv6Addr>()) {
        (Ok(_), _) => 32,
        (_, Ok(_)) => 128,
        _ => return false,
    };
    bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse::<u8>().is_ok_and(|b| b <= max)
}

/// 6, 8 or 20 bytes, in pairs by colons or dashes or in fours by dots.
fn is_mac(s: &str) -> bool {
    let groups = |separator, size| {
        let parts: Vec<&str> = s.split(separator).collect();
        let bytes = parts.len() * size / 2;
        parts.iter().all(|p| is_hex(p, size)) && matches!(bytes, 6 | 8 | 20)
    };
    groups(':', 2) || groups('-', 2) || groups('.', 4)
}

/// With the version's digit, and whether the variant is fixed as well.
fn is_uuid(s: &str, version: Option<(char, bool)>) -> bool {
    let mut hex = String::with_capacity(32);
    let mut rest = s;
    for (i, size) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if i > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let Some(group) = rest.get(..size).filter(|g| is_hex(g, size)) else { return false };
        hex.push_str(group);
        rest = &rest[size..];
    }
    let at = |i| hex.chars().nth(i).unwrap_or_default();
    let versioned = version.is_none_or(|(digit, variant)| {
        at(12) == digit && (!variant || matches!(at(16).to_ascii_lowercase(), '8' | '9' | 'a' | 'b'))
    });
    rest.is_empty() && versioned
}

fn is_isbn10(s: &str) -> bool {
    let digits: String = s.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    let value = |(i, c): (usize, char)| match c {
        'X' if i == 9 => Some(10),
        c => c.to_digit(10),
    };
    let values: Option<Vec<u32>> = digits.chars().enumerate().map(value).collect();
    values.is_some_and(|v| v.len() == 10 && v.iter().zip(1..).map(|(d, i)| d * i).sum::<u32>() % 11 == 0)
}

fn is_isbn13(s: &str) -> bool {
    let digits: String = s.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    let values: Option<Vec<u32>> = digits.chars().map(|c| c.to_digit(10)).collect();
    values.is_some_and(|v| {
        v.len() == 13
            && v.iter().enumerate().map(|(i, d)| d * if i % 2 == 0 { 1 } else { 3 }).sum::<u32>() % 10 == 0
    })
}

fn is_credit_card(s: &str) -> bool {
    let digits: String = s.chars().filter(char::is_ascii_digit).collect();
    if CREDIT_CARD.as_ref().is_some_and(|re| !re.is_match(&digits)) {
        return false;
    }
    let luhn = |(i, d): (usize, u32)| match (i % 2, d * 2) {
        (0, _) => d,
        (_, twice) if twice > 9 => twice - 9,
        (_, twice) => twice,
    };
    digits.chars().rev().filter_map(|c| c.to_digit(10)).enumerate().map(luhn).sum::<u32>() % 10 == 0
}

fn is_ssn(s: &str) -> bool {
    let parts: Vec<&str> = s.split(['-', ' ']).collect();
    let digits = parts.concat();
    digits.len() == 9
        && digits.bytes().all(|b| b.is_ascii_digit())
        && s.len() == 11
        && parts.len() == 3
        && parts[0].len() == 3
        && parts[1].len() == 2
}

fn is_rgb(s: &str) -> bool {
    let Some(inner) = s.strip_prefix("rgb(").and_then(|s| s.strip_suffix(')')) else { return false };
    let part = |p: &str| p.trim().parse::<u8>().is_ok();
    inner.split(',').count() == 3 && inner.split(',').all(part)
}

fn is_date(s: &str) -> bool {
    s.len() == 10 && s.as_bytes()[4] == b'-' && meta::parse_time(&format!("{s}T00:00:00Z")).is_some()
}

fn is_duration(s: &str) -> bool {
    const UNITS: [&[&str]; 8] = [
        &["ns", "nano"],
        &["us", "µs", "micro"],
        &["ms", "milli"],
        &["s", "sec"],
        &["m", "min"],
        &["h", "hr", "hour"],
        &["d", "day"],
        &["w", "wk", "week"],
    ];
    let known = |unit: &str| {
        let unit = unit.to_lowercase();
        UNITS.iter().any(|names| names.contains(&&*unit) || names.last().is_some_and(|n| unit.starts_with(n)))
    };
    let parts = || DURATION.as_ref().into_iter().flat_map(|re| re.captures_iter(s));
    duration::parse_go(s).is_some() || parts().any(|c| known(&c[2]))
}

fn is_date_time(s: &str) -> bool {
    let lower = s.to_lowercase();
    let Some((date, time)) = lower.split_once('t') else { return false };
    let Some((clock, zone)) = time.split_at_checked(8) else { return false };
    let parts: Vec<&str> = clock.split(':').collect();
    let below = |at: usize, max: &str| {
        parts.get(at).is_some_and(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_digit()) && *p <= max)
    };
    let fraction = zone.trim_start_matches(['.', ',']).trim_start_matches(|c: char| c.is_ascii_digit());
    let offset = fraction == "z"
        || fraction.strip_prefix(['+', '-']).is_some_and(|o| {
            o.len() == 5 && o.as_bytes()[2] == b':' && o.bytes().filter(u8::is_ascii_digit).count() == 4
        });
    is_date(date) && parts.len() == 3 && below(0, "23") && below(1, "59") && below(2, "59") && offset
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn formats_accept_what_they_name() {
        for (format, good, bad) in [
            ("bsonobjectid", "507f1f77bcf86cd799439011", "507f"),
            ("uri", "https://a.b/c?d", "no"),
            ("email", "a.b@example.com", "a@"),
            ("hostname", "a-b.example.com", "-a"),
            ("ipv4", "010.0.0.1", "1.2.3"),
            ("ipv6", "::1", "1.2.3.4"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "00:1b:63:84:45:e6", "00:1b"),
            ("uuid", "F47AC10B-58cc-4372-a567-0e02b2c3d479", "f47ac10b"),
            ("uuid4", "f47ac10b-58cc-4372-a567-0e02b2c3d479", "f47ac10b-58cc-3372-a567-0e02b2c3d479"),
            ("isbn", "978-0321751041", "978-0321751042"),
            ("isbn10", "0321751043", "0321751044"),
            ("creditcard", "4111-1111-1111-1111", "4111-1111-1111-1112"),
            ("ssn", "111-11-1111", "111-1-11111"),
            ("hexcolor", "#FFFFFF", "#FFFF"),
            ("rgbcolor", "rgb(1, 2,255)", "rgb(1,2,256)"),
            ("byte", "aGVsbG8=", "%"),
            ("date", "2026-02-28", "2026-02-30"),
            ("duration", "22 days", "22 moons"),
            ("date-time", "2026-01-02T03:04:05.678+01:00", "2026-01-02 03:04"),
            ("k8s-short-name", "a-b", "a.b"),
            ("k8s-long-name", "a.b", "A"),
        ] {
            assert!(matches(format, good), "{format} {good}");
            assert!(!matches(format, bad), "{format} {bad}");
        }
    }
}
