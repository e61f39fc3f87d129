//! Named formats: `format.dns1123Label()`, `format.named("uri")`, and what they validate.

use super::{Call, Outcome, Row, mismatch, url::Url};
use crate::value::{Opaque, Value};
use base64::Engine;
use keelson_api_types::names;

pub(super) const ROWS: &[Row] = &[
    ("format.named", "format-named", "(string) -> optional(format)", |a| {
        let [Value::String(name)] = a else { return mismatch() };
        let found = FORMATS.iter().find(|(known, _)| *known == &**name);
        Ok(found.map_or(Value::Optional(None), |(_, f)| Value::some(Value::Opaque(Opaque::Format(f)))))
    }),
    ("validate", "format-validate", "format.(string) -> optional(list(string))", |a| {
        let [Value::Opaque(Opaque::Format(format)), Value::String(text)] = a else { return mismatch() };
        let problems: Vec<_> = (format.validate)(text).into_iter().map(Value::from).collect();
        Ok(if problems.is_empty() { Value::Optional(None) } else { Value::some(Value::list(problems)) })
    }),
];

/// A format that strings can be held to.
#[derive(Debug)]
pub struct NamedFormat {
    pub name: &'static str,
    /// What is wrong with a string.
    pub validate: fn(&str) -> Vec<String>,
    /// How long the regular expression is, for costs.
    pub(crate) regex_size: u64,
}

const DATE_TIME_SIZE: u64 = 154;

static FORMATS: [(&str, NamedFormat); 13] = [
    ("dns1123Label", NamedFormat { name: "DNS1123Label", validate: names::dns1123_label, regex_size: 30 }),
    (
        "dns1123Subdomain",
        NamedFormat { name: "DNS1123Subdomain", validate: names::dns1123_subdomain, regex_size: 60 },
    ),
    ("dns1035Label", NamedFormat { name: "DNS1035Label", validate: names::dns1035_label, regex_size: 30 }),
    ("qualifiedName", NamedFormat { name: "QualifiedName", validate: names::qualified_name, regex_size: 60 }),
    (
        "dns1123LabelPrefix",
        NamedFormat {
            name: "DNS1123LabelPrefix",
            validate: |s| names::dns1123_label(&names::mask_trailing_dash(s)),
            regex_size: 30,
        },
    ),
    (
        "dns1123SubdomainPrefix",
        NamedFormat {
            name: "DNS1123SubdomainPrefix",
            validate: |s| names::dns1123_subdomain(&names::mask_trailing_dash(s)),
            regex_size: 60,
        },
    ),
    (
        "dns1035LabelPrefix",
        NamedFormat {
            name: "DNS1035LabelPrefix",
            validate: |s| names::dns1035_label(&names::mask_trailing_dash(s)),
            regex_size: 30,
        },
    ),
    ("labelValue", NamedFormat { name: "LabelValue", validate: names::label_value, regex_size: 40 }),
    (
        "uri",
        NamedFormat {
            name: "URI",
            validate: |s| {
                Url::parse(s, true).err().map(|e| format!("parse {s:?}: {e}")).into_iter().collect()
            },
            regex_size: 1103,
        },
    ),
    (
        "uuid",
        NamedFormat {
            name: "uuid",
            validate: |s| unless(is_uuid(s), "does not match the UUID format"),
            regex_size: 84,
        },
    ),
    (
        "byte",
        NamedFormat {
            name: "byte",
            validate: |s| {
                unless(
                    !s.is_empty() && base64::engine::general_purpose::STANDARD.decode(s).is_ok(),
                    "invalid base64",
                )
            },
            regex_size: 84,
        },
    ),
    (
        "date",
        NamedFormat {
            name: "date",
            validate: |s| unless(s.len() == 10 && s.parse::<jiff::civil::Date>().is_ok(), "invalid date"),
            regex_size: DATE_TIME_SIZE,
        },
    ),
    (
        "datetime",
        NamedFormat {
            name: "datetime",
            validate: |s| unless(crate::time::parse_timestamp(s).is_some(), "invalid datetime"),
            regex_size: DATE_TIME_SIZE,
        },
    ),
];

fn unless(valid: bool, problem: &str) -> Vec<String> {
    if valid { Vec::new() } else { vec![problem.to_owned()] }
}

/// With hyphens or without.
fn is_uuid(text: &str) -> bool {
    matches!(text.len(), 32 | 36) && uuid::Uuid::try_parse(text).is_ok()
}

/// Declares each format's own function.
pub(super) fn constants(declare: &mut impl FnMut(&str, &str, &str, Call)) {
    const CALLS: [Call; 13] = [
        format::<0>,
        format::<1>,
        format::<2>,
        format::<3>,
        format::<4>,
        format::<5>,
        format::<6>,
        format::<7>,
        format::<8>,
        format::<9>,
        format::<10>,
        format::<11>,
        format::<12>,
    ];
    for ((name, _), call) in FORMATS.iter().zip(CALLS) {
        let function = format!("format.{name}");
        declare(&function, &function, "() -> format", call);
    }
}

fn format<'a, const N: usize>(_: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Opaque(Opaque::Format(&FORMATS[N].1)))
}
