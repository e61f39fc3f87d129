//! `--sort-by`: numbers, quantities and times by their size, all else as text; what is absent comes first.

use std::cmp::Ordering;

use keelson_api_types::quantity::Quantity;
use serde_json::Value;

use crate::jsonpath::{Template, text_of};

pub fn compare(template: &Template, a: &Value, b: &Value) -> Ordering {
    match (template.select(a).first(), template.select(b).first()) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(a), Some(b)) => compare_values(a, b),
    }
}

fn compare_values(a: &Value, b: &Value) -> Ordering {
    if let (Some(a), Some(b)) = (a.as_f64(), b.as_f64()) {
        return a.total_cmp(&b);
    }
    let (a, b) = (text_of(a), text_of(b));
    match (Quantity::parse(&a), Quantity::parse(&b)) {
        (Ok(a), Ok(b)) => a.nanos().cmp(&b.nanos()),
        _ => natural(&a, &b),
    }
}

/// `web-2` before `web-10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (x, y) = (digits(a), digits(b));
        if x > 0 && y > 0 {
            let number = |t: &str| t.trim_start_matches('0').to_owned();
            let (m, n) = (number(&a[..x]), number(&b[..y]));
            match m.len().cmp(&n.len()).then_with(|| m.cmp(&n)) {
                Ordering::Equal => (a, b) = (&a[x..], &b[y..]),
                other => return other,
            }
            continue;
        }
        let (mut left, mut right) = (a.chars(), b.chars());
        match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (x, y) if x != y => return x.cmp(&y),
            _ => (a, b) = (left.as_str(), right.as_str()),
        }
    }
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_sort_by_their_meaning() {
        let sorted = |values: &[Value]| {
            let mut values = values.to_vec();
            values.sort_by(compare_values);
            values
        };
        assert_eq!(sorted(&[json!(10), json!(9)]), [json!(9), json!(10)]);
        assert_eq!(sorted(&[json!("1Gi"), json!("900Mi")]), [json!("900Mi"), json!("1Gi")]);
        assert_eq!(sorted(&[json!("web-10"), json!("web-2")]), [json!("web-2"), json!("web-10")]);
        assert_eq!(sorted(&[json!("b"), json!("a")]), [json!("a"), json!("b")]);
    }
}
