//! Small grammars.

use keelson_api_types::{FieldSelector, LabelSelector, Quantity, names};

pub(crate) fn selector(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(selector) = LabelSelector::parse(text) {
        let shown = selector.to_string();
        assert_eq!(LabelSelector::parse(&shown).map(|s| s.to_string()), Ok(shown), "of {text:?}");
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        let shown = selector.to_string();
        let again =
            FieldSelector::parse(&shown).unwrap_or_else(|error| panic!("{shown:?} of {text:?}: {error}"));
        let same = again.terms.len() == selector.terms.len()
            && selector.terms.iter().all(|term| again.terms.contains(term));
        assert!(same, "{again:?} of {text:?} through {shown:?}");
    }
}

/// One, or two on a line each to reckon with.
pub(crate) fn quantity(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parsed = text.split('\n').map(Quantity::parse);
    let Some(Ok(one)) = parsed.next() else { return };
    let shown = one.to_string();
    let again = Quantity::parse(&shown).unwrap_or_else(|error| panic!("{shown:?} of {text:?}: {error}"));
    assert_eq!(again.to_string(), shown, "of {text:?}");
    let _ = (one.value(), one.milli(), one.as_f64(), one.neg(), one.mul(i64::MIN));
    if let Some(Ok(other)) = parsed.next() {
        let _ = (one.add(&other).to_string(), one.sub(&other).to_string());
    }
}

pub(crate) fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for check in [
        names::dns1123_label,
        names::dns1123_subdomain,
        names::dns1035_label,
        names::wildcard_dns1123_subdomain,
        names::qualified_name,
        names::label_value,
        names::config_map_key,
        names::env_var_name,
        names::c_identifier,
        names::port_name,
        names::percent,
        names::http_header_name,
        names::path_segment_name,
    ] {
        check(text);
    }
    if names::dns1123_label(text).is_empty() {
        assert!(names::dns1123_subdomain(text).is_empty() && text.len() < 64, "{text:?}");
    }
    names::mask_trailing_dash(text);
}
