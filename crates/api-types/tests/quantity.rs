use keelson_api_types::quantity::{ParseError, Quantity, canonical};
use proptest::prelude::*;

#[test]
fn prints_the_canonical_form() {
    for (given, want) in [
        ("0", "0"),
        ("0Ki", "0"),
        ("100m", "100m"),
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1.5", "1500m"),
        ("1500m", "1500m"),
        ("1000", "1k"),
        ("1024", "1024"),
        ("1Ki", "1Ki"),
        ("1024Ki", "1Mi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("1e3", "1e3"),
        ("12e2", "1200"),
        ("1E", "1E"),
        ("1000E", "1000E"),
        ("2e-3", "2e-3"),
        ("-5Mi", "-5Mi"),
        ("0.1n", "1n"),
        ("64Mi", "64Mi"),
        ("100000Ki", "100000Ki"),
        ("+3", "3"),
        ("1.", "1"),
        (".5", "500m"),
    ] {
        assert_eq!(canonical(given).as_deref(), Ok(want), "{given}");
        assert_eq!(Quantity::parse(given).map(|q| q.to_string()).as_deref(), Ok(want), "{given}");
    }
}

#[test]
fn refuses_what_is_no_quantity() {
    for (given, want) in [
        ("", ParseError::Format),
        ("abc", ParseError::Format),
        ("1.2.3", ParseError::Format),
        ("5 Mi", ParseError::Format),
        ("1mm", ParseError::Suffix),
        ("1Kii", ParseError::Suffix),
        ("1e", ParseError::Suffix),
    ] {
        assert_eq!(Quantity::parse(given), Err(want), "{given}");
    }
}

#[test]
fn rounds_up_and_compares_across_formats() {
    let q = |s: &str| Quantity::parse(s).expect(s);
    assert_eq!(q("1m").value(), 1);
    assert_eq!(q("1500u").milli(), 2);
    assert_eq!(q("-1m").value(), -1);
    assert_eq!(q("1Ki"), q("1024"));
    assert!(q("1M") < q("1Mi"));
    assert_eq!(q("1").add(&q("500m")).to_string(), "1500m");
    assert_eq!(q("1Gi").sub(&q("512Mi")).to_string(), "512Mi");
    assert_eq!(Quantity::ZERO.add(&q("1Gi")).to_string(), "1Gi");
}

proptest! {
    #[test]
    fn canonical_form_is_a_fixed_point(n in -1_000_000_000i64..1_000_000_000, suffix in "(n|u|m||k|M|G|Ki|Mi|Gi|e3|e-3)") {
        let q = Quantity::parse(&format!("{n}{suffix}")).expect("valid");
        let text = q.to_string();
        let again = Quantity::parse(&text).expect("canonical parses");
        prop_assert_eq!(again, q);
        prop_assert_eq!(again.to_string(), text);
    }

    #[test]
    fn never_panics(text in "[-+0-9.eEinumkKMGTP]{0,40}") {
        let _ = Quantity::parse(&text).map(|q| (q.to_string(), q.milli(), q.value()));
    }
}

#[test]
fn what_saturates_still_changes_its_sign() {
    let most = Quantity::parse(&"9".repeat(40)).unwrap();
    let least = Quantity::ZERO.sub(&most).sub(&most);
    assert_eq!(least.neg(), most);
    assert_eq!(least.to_string(), format!("-{most}"));
}
