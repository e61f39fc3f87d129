//! Durations in Go's syntax, timestamps in RFC 3339.

use jiff::Timestamp;

const NANOS: i128 = 1_000_000_000;
const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", NANOS),
    ("m", 60 * NANOS),
    ("h", 3600 * NANOS),
];
/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z, in seconds.
pub(crate) const FIRST_SECOND: i64 = -62_135_596_800;
pub(crate) const LAST_SECOND: i64 = 253_402_300_799;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("time: invalid duration {0:?}")]
pub(crate) struct DurationError(String);

/// `-1h30m`, `1.5s`, `0`, in nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError(text.to_owned());
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || number.len() > 40 {
            return Err(invalid());
        }
        let digits = |s: &str| if s.is_empty() { Ok(0) } else { s.parse::<i128>() };
        let whole = digits(whole).map_err(|_| invalid())?.checked_mul(*scale).ok_or_else(invalid)?;
        let fraction = &fraction[..fraction.len().min(18)];
        let part = digits(fraction).map_err(|_| invalid())? * scale / 10i128.pow(fraction.len() as u32);
        total = total.checked_add(whole + part).ok_or_else(invalid)?;
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

/// In seconds, as few decimals as are exact: `5400s`, `0.25s`.
pub(crate) fn duration_text(nanos: i64) -> String {
    format!("{}s", nanos as f64 / NANOS as f64)
}

pub(crate) fn timestamp_text(time: Timestamp) -> String {
    time.to_string()
}

/// RFC 3339 alone, of the years 1 to 9999.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let b = text.as_bytes();
    let shaped = b.len() >= 20
        && b[..19].iter().zip(b"0000-00-00T00:00:00").all(|(b, p)| match p {
            b'0' => b.is_ascii_digit(),
            p => b == p,
        })
        && (text.ends_with('Z')
            || b.len() >= 25 && matches!(b[b.len() - 6], b'+' | b'-') && b[b.len() - 3] == b':');
    let time: Timestamp = text.parse().ok().filter(|_| shaped)?;
    (FIRST_SECOND..=LAST_SECOND).contains(&time.as_second()).then_some(time)
}
