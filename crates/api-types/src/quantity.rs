//! Resource quantities (`500m`, `1.5Gi`, `2e3`): exact to a nano, printed in upstream's canonical form.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
const DECIMAL: [(&str, i32); 9] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15)];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// Which family of suffixes a quantity prints with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    DecimalSi,
    BinarySi,
    DecimalExponent,
}

/// A fixed-point number of nanos with the format that it was written in. Equality and order are of the
/// number alone. Beyond ±1.7e29 it saturates.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    pub fn parse(text: &str) -> Result<Quantity, ParseError> {
        let (number, suffix) = split(text)?;
        let (negative, digits) = match number.as_bytes().first() {
            Some(b'-') => (true, &number[1..]),
            Some(b'+') => (false, &number[1..]),
            _ => (false, number),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(if fraction.contains('.') { ParseError::Format } else { ParseError::Numeric });
        }
        let (format, base2, exponent) = interpret(suffix)?;
        let nanos = scale(whole, fraction, base2, exponent);
        // A fraction of one unit written with a binary suffix is kept readable as a decimal.
        let format =
            if format == Format::BinarySi && nanos > 0 && nanos < NANO { Format::DecimalSi } else { format };
        let nanos = if format == Format::BinarySi { nanos.min(i64::MAX as i128 * NANO) } else { nanos };
        Ok(Quantity { nanos: if negative { -nanos } else { nanos }, format })
    }

    pub fn from_value(value: i64, format: Format) -> Quantity {
        Quantity { nanos: value as i128 * NANO, format }
    }

    pub fn from_milli(milli: i64) -> Quantity {
        Quantity { nanos: milli as i128 * (NANO / 1000), format: Format::DecimalSi }
    }

    pub fn nanos(&self) -> i128 {
        self.nanos
    }

    /// In thousandths, rounded away from zero, saturating.
    pub fn milli(&self) -> i64 {
        clamp(div_up(self.nanos, NANO / 1000))
    }

    /// In units, rounded away from zero, saturating.
    pub fn value(&self) -> i64 {
        clamp(div_up(self.nanos, NANO))
    }

    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    pub fn sign(&self) -> i32 {
        self.nanos.signum() as i32
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// The sum; a zero on the left takes the right side's format, as upstream's does.
    pub fn add(&self, other: &Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Self::saturated(self.nanos.saturating_add(other.nanos), format)
    }

    pub fn sub(&self, other: &Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Self::saturated(self.nanos.saturating_sub(other.nanos), format)
    }

    pub fn neg(&self) -> Quantity {
        Quantity { nanos: -self.nanos, format: self.format }
    }

    pub fn mul(&self, by: i64) -> Quantity {
        Self::saturated(self.nanos.saturating_mul(by as i128), self.format)
    }

    /// The least number has no positive counterpart: it would not survive a change of sign.
    fn saturated(nanos: i128, format: Format) -> Quantity {
        Quantity { nanos: nanos.max(-i128::MAX), format }
    }
}

/// The canonical text of a quantity, or why it is none; saves the value when only the text matters.
pub fn canonical(text: &str) -> Result<String, ParseError> {
    // The commonest forms are canonical already: avoid the arithmetic for them.
    let digits = text.trim_end_matches(['m', 'M', 'G', 'T', 'k']);
    let plain = !digits.is_empty()
        && digits.len() <= 3
        && text.len() - digits.len() <= 1
        && !digits.starts_with('0')
        && digits.bytes().all(|b| b.is_ascii_digit());
    if plain || text == "0" {
        return Ok(text.to_owned());
    }
    Quantity::parse(text).map(|q| q.to_string())
}

impl FromStr for Quantity {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Quantity, ParseError> {
        Quantity::parse(text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        match self.format {
            Format::BinarySi if self.nanos.abs() >= 1024 * NANO => {
                let mut mantissa = div_up(self.nanos, NANO);
                let mut power = 0;
                while mantissa % 1024 == 0 && power + 1 < BINARY.len() {
                    mantissa /= 1024;
                    power += 1;
                }
                write!(f, "{mantissa}{}", BINARY[power])
            }
            format => {
                let (mantissa, exponent) = thousands(self.nanos);
                match format {
                    Format::DecimalExponent if exponent == 0 => write!(f, "{mantissa}"),
                    Format::DecimalExponent => write!(f, "{mantissa}e{exponent}"),
                    _ if exponent == 18 => write!(f, "{mantissa}E"),
                    _ => {
                        let suffix = DECIMAL.iter().find(|(_, e)| *e == exponent).map_or("", |(s, _)| s);
                        write!(f, "{mantissa}{suffix}")
                    }
                }
            }
        }
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    /// From a string, or a number as upstream also takes it.
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Quantity, D::Error> {
        let text = match serde_json::Value::deserialize(d)? {
            serde_json::Value::String(s) => s,
            serde_json::Value::Number(n) => n.to_string(),
            serde_json::Value::Null => return Ok(Quantity::ZERO),
            _ => return Err(serde::de::Error::custom(ParseError::Format)),
        };
        Quantity::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Splits at the end of the number and checks the shape of the suffix.
fn split(text: &str) -> Result<(&str, &str), ParseError> {
    let bytes = text.as_bytes();
    let signed = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
    let end = signed + bytes[signed..].iter().take_while(|b| b.is_ascii_digit() || **b == b'.').count();
    if end == signed {
        return Err(ParseError::Format);
    }
    let suffix = &text[end..];
    let letters = suffix.bytes().take_while(|b| b"eEinumkKMGTP".contains(b)).count();
    let mut rest = &suffix[letters..];
    if let Some(after) = rest.strip_prefix(['+', '-']) {
        rest = after;
    }
    if rest.bytes().all(|b| b.is_ascii_digit()) {
        Ok((&text[..end], suffix))
    } else {
        Err(ParseError::Format)
    }
}

/// The format, whether the base is 1024's family, and the exponent (of 2 or of 10).
fn interpret(suffix: &str) -> Result<(Format, bool, i32), ParseError> {
    if let Some((_, e)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Ok((Format::DecimalSi, false, *e));
    }
    if suffix == "E" {
        return Ok((Format::DecimalSi, false, 18));
    }
    if let Some(i) = BINARY.iter().position(|s| *s == suffix) {
        return Ok((Format::BinarySi, true, 10 * i as i32));
    }
    if let Some(exponent) = suffix.strip_prefix(['e', 'E']) {
        let exponent: i32 = exponent.parse().map_err(|_| ParseError::Suffix)?;
        return Ok((Format::DecimalExponent, false, exponent));
    }
    Err(ParseError::Suffix)
}

/// whole.fraction × base^exponent in nanos, rounded up where it is finer than a nano.
fn scale(whole: &str, fraction: &str, base2: bool, exponent: i32) -> i128 {
    let digits: String = whole.chars().chain(fraction.chars()).skip_while(|c| *c == '0').collect();
    if digits.is_empty() {
        return 0;
    }
    let mut mantissa = digits.parse::<i128>().unwrap_or(i128::MAX);
    let mut power = 9 - fraction.len() as i64;
    if base2 {
        mantissa = mantissa.saturating_mul(1i128 << exponent);
    } else {
        power += exponent as i64;
    }
    for _ in 0..power.clamp(0, 200) {
        mantissa = mantissa.saturating_mul(10);
    }
    if power < 0 {
        let divisor = 10i128.checked_pow((-power).min(60) as u32);
        mantissa = divisor.map_or(1, |d| div_up(mantissa, d));
    }
    mantissa
}

/// Mantissa without factors of 1000, and the exponent of ten, at most that of `E`.
fn thousands(nanos: i128) -> (i128, i32) {
    let (mut mantissa, mut exponent) = (nanos, -9);
    while mantissa % 1000 == 0 && exponent < 18 {
        mantissa /= 1000;
        exponent += 3;
    }
    (mantissa, exponent)
}

fn div_up(n: i128, d: i128) -> i128 {
    let q = n / d;
    if n % d == 0 { q } else { q + n.signum() }
}

fn clamp(n: i128) -> i64 {
    n.clamp(i64::MIN as i128, i64::MAX as i128) as i64
}
