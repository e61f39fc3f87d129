//! Numbers as text and as JSON.

/// A JSON number that is an integer, also when written with a fraction of zero.
pub(crate) fn whole(number: &serde_json::Number) -> Option<i64> {
    number
        .as_i64()
        .or_else(|| number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 2f64.powi(63)).map(|n| n as i64))
}

/// The shortest text that reads back as the same number; from 1e21 on, and below 1e-4, with an exponent.
pub(crate) fn shortest(number: f64) -> String {
    general(number, 21)
}

/// As `string()` converts: an exponent already from 1e6 on, if there are fewer digits.
pub(crate) fn general(number: f64, precision: i32) -> String {
    if let Some(special) = special(number, "+Inf", "-Inf") {
        return special.to_owned();
    }
    let scientific = format!("{number:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if exponent < -4 || exponent >= precision {
        return with_exponent(mantissa, exponent);
    }
    format!("{number}")
}

/// Go's `%e` with this many decimals.
pub(crate) fn scientific(number: f64, decimals: usize) -> String {
    let text = format!("{number:.decimals$e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => with_exponent(mantissa, exponent.parse().unwrap_or_default()),
        None => text,
    }
}

pub(crate) fn special(number: f64, positive: &'static str, negative: &'static str) -> Option<&'static str> {
    match number {
        n if n.is_nan() => Some("NaN"),
        f64::INFINITY => Some(positive),
        f64::NEG_INFINITY => Some(negative),
        _ => None,
    }
}

fn with_exponent(mantissa: &str, exponent: i32) -> String {
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}
