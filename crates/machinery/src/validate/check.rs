//! One value against one schema. Checks run in upstream's order and none hides another; of the branches of a junctor
//! that all fail, the one that matched most is reported.

use super::{NOWHERE, formats, restriction};
use crate::path::{Path, Step};
use keelson_api_types::gofmt::{self, quote};
use keelson_api_types::{FieldError, FieldErrorKind};
use keelson_schema::{Link, List, ListKind, Object, Rules, Shape, Type};
use serde_json::{Map, Number, Value};

/// What a walk found, and how much of the schema fitted.
#[derive(Default)]
pub(super) struct Outcome {
    pub errors: Vec<FieldError>,
    matches: usize,
}

impl Outcome {
    fn add(&mut self, error: FieldError) {
        let same = |e: &FieldError| e.path == error.path && e.kind == error.kind && e.detail == error.detail;
        if !self.errors.iter().any(same) {
            self.errors.push(error);
        }
    }

    fn merge(&mut self, other: Outcome) {
        other.errors.into_iter().for_each(|e| self.add(e));
        self.matches += other.matches;
    }

    fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }

    /// An error that names its path in the message alone.
    fn fail(&mut self, detail: String) {
        self.add(FieldError::invalid(NOWHERE, "", detail));
    }
}

/// Validates a value whose predecessor is `old`, if that is known: an unchanged value has no errors.
pub(super) fn walk(ty: &Type, value: &Value, old: Option<&Value>, path: &Path<'_>) -> Outcome {
    let mut outcome = node(ty, value, old, path);
    if !outcome.is_valid() && old == Some(value) {
        outcome.errors.clear();
    }
    outcome
}

fn node(ty: &Type, value: &Value, old: Option<&Value>, path: &Path<'_>) -> Outcome {
    static NONE: Rules = Rules::new();
    let rules = ty.rules.as_deref().unwrap_or(&NONE);
    let mut out = Outcome::default();
    let names = type_names(ty, rules);
    if value.is_null() {
        if !names.is_empty() && !ty.nullable {
            out.add(wrong_type(path, &names.join(","), "null"));
        }
        enumeration(rules, value, path, &mut out);
        return out;
    }
    if !names.is_empty() || rules.format.is_some() {
        out.matches += 1;
        match type_error(names, rules.format.as_deref(), value, path) {
            Some(error) => out.add(error),
            None => out.matches += 1,
        }
    }
    junctors(rules, value, old, path, &mut out);
    match value {
        Value::String(s) => text(rules, s, path, &mut out),
        Value::Number(n) => number(ty, rules, n, value, path, &mut out),
        Value::Array(items) => array(ty, rules, items, old, path, &mut out),
        _ => {}
    }
    enumeration(rules, value, path, &mut out);
    if let Value::Object(map) = value {
        object(ty, rules, map, old, path, &mut out);
    }
    out.matches += 1;
    out
}

fn type_names(ty: &Type, rules: &Rules) -> &'static [&'static str] {
    if rules.untyped {
        return &[];
    }
    match &ty.shape {
        Shape::Object(_) | Shape::Map(_) => &["object"],
        Shape::List(_) => &["array"],
        Shape::Int32 | Shape::Int64 => &["integer"],
        Shape::Float => &["number"],
        Shape::Bool => &["boolean"],
        Shape::IntOrString | Shape::Quantity => &["integer", "string"],
        Shape::RawExtension | Shape::Any | Shape::FieldsV1 => &[],
        _ => &["string"],
    }
}

fn type_error(names: &[&str], format: Option<&str>, value: &Value, path: &Path<'_>) -> Option<FieldError> {
    let has = |name: &str| names.contains(&name);
    let (found, native) = match value {
        Value::Number(n) if n.is_f64() => ("number", "float64"),
        Value::Number(_) => ("integer", "int64"),
        Value::Bool(_) => ("boolean", ""),
        Value::String(_) => ("string", ""),
        Value::Array(_) => ("array", ""),
        _ => ("object", ""),
    };
    // An integral float counts as an integer, as in JSON Schema.
    let integral = found == "number" && has("integer") && value.as_f64().is_some_and(|n| n.fract() == 0.0);
    let fits = has(found) || integral || found == "integer" && has("number");
    let textual = matches!(found, "string" | "array");
    match format {
        Some(format) if !textual && !fits && native != format => Some(wrong_type(path, format, native)),
        // A format says what the text is.
        Some(_) if textual && !has("number") && !has("integer") => None,
        _ if !fits => Some(wrong_type(path, &names.join(","), found)),
        _ => None,
    }
}

fn wrong_type(path: &Path<'_>, wanted: &str, found: &str) -> FieldError {
    let path = path.dotted();
    let detail = format!("{path} in body must be of type {wanted}: {}", quote(found));
    FieldError::type_invalid(path, found, detail)
}

fn junctors(r: &Rules, value: &Value, old: Option<&Value>, path: &Path<'_>, out: &mut Outcome) {
    out.matches += 2;
    let try_all = |branches: &[Type]| -> Vec<Outcome> {
        branches.iter().map(|ty| node(ty, value, old, path)).collect()
    };
    let name = || quote(&path.dotted());
    if !r.any_of.is_empty() {
        let mut all = try_all(&r.any_of);
        match all.iter().position(Outcome::is_valid) {
            Some(at) => out.merge(all.swap_remove(at)),
            None => {
                out.fail(format!("{} must validate at least one schema (anyOf)", name()));
                best(all).into_iter().for_each(|o| out.merge(o));
            }
        }
    }
    if !r.one_of.is_empty() {
        let mut all = try_all(&r.one_of);
        let valid = all.iter().filter(|o| o.is_valid()).count();
        let fail = |out: &mut Outcome, what: String| {
            out.fail(format!("{} must validate one and only one schema (oneOf). {what}", name()));
        };
        match (valid, all.iter().position(Outcome::is_valid)) {
            (1, Some(at)) => out.merge(all.swap_remove(at)),
            (0, _) => {
                fail(out, "Found none valid".to_owned());
                best(all).into_iter().for_each(|o| out.merge(o));
            }
            (n, _) => fail(out, format!("Found {n} valid alternatives")),
        }
    }
    if !r.all_of.is_empty() {
        let all = try_all(&r.all_of);
        let valid = all.iter().filter(|o| o.is_valid()).count();
        let missed = valid < all.len();
        all.into_iter().for_each(|o| out.merge(o));
        if missed {
            let none = if valid == 0 { ". None validated" } else { "" };
            out.fail(format!("{} must validate all the schemas (allOf){none}", name()));
        }
    }
    if r.not.as_deref().is_some_and(|ty| node(ty, value, old, path).is_valid()) {
        out.fail(format!("{} must not validate the schema (not)", name()));
    }
}

/// The first of those that matched most.
fn best(all: Vec<Outcome>) -> Option<Outcome> {
    all.into_iter().reduce(|best, next| if next.matches > best.matches { next } else { best })
}

fn text(r: &Rules, s: &str, path: &Path<'_>, out: &mut Outcome) {
    out.matches += 1;
    let length = s.chars().count();
    if let Some(max) = r.max_length.filter(|max| length > *max) {
        out.add(FieldError::too_long(path.dotted(), max));
    } else if let Some(min) = r.min_length.filter(|min| length < *min) {
        out.add(bad(path, s.into(), format!("should be at least {min} chars long")));
    } else if let Some(pattern) = r.pattern.as_ref().filter(|p| !p.is_match(s)) {
        out.add(bad(path, s.into(), format!("should match '{}'", pattern.as_str())));
    }
    if let Some(format) = r.format.as_deref().filter(|f| formats::is_text_format(f)) {
        out.matches += 1;
        if !formats::matches(format, s) {
            out.add(wrong_type(path, format, s));
        }
    }
}

fn number(ty: &Type, r: &Rules, n: &Number, value: &Value, path: &Path<'_>, out: &mut Outcome) {
    out.matches += 2;
    let float = n.as_f64().unwrap_or_default();
    let integer = n.as_i64();
    let bounds = match ty.shape {
        Shape::Int32 => Some((f64::from(i32::MIN), f64::from(i32::MAX))),
        Shape::Int64 => Some((i64::MIN as f64, i64::MAX as f64)),
        Shape::Float if r.format.as_deref() == Some("float") => {
            Some((f64::from(f32::MIN), f64::from(f32::MAX)))
        }
        _ => None,
    };
    if bounds.is_some_and(|(min, max)| float < min || float > max) {
        let name = if matches!(ty.shape, Shape::Float) { "number" } else { "integer" };
        let format =
            r.format.as_ref().map_or_else(|| "(default format)".to_owned(), |f| format!("with format {f}"));
        out.fail(format!("Checked value must be of type {name} {format} in {}", path.dotted()));
    }
    let shown = |limit: f64| match integer {
        Some(_) => (limit as i64).to_string(),
        None => gofmt::float(limit),
    };
    // Integers compare as integers: a limit loses its fraction.
    let limit = |limit: f64| if integer.is_some() { limit.trunc() } else { limit };
    if let Some(step) = r.multiple_of {
        let fits = match integer {
            Some(n) if step >= 1.0 => n % (step as i64) == 0,
            _ if step < 1.0 => (1.0 / step * float).fract() == 0.0,
            _ => (float / step).fract() == 0.0,
        };
        if !fits {
            out.add(bad(path, value.clone(), format!("should be a multiple of {}", shown(step))));
        }
    }
    if let Some(min) = r.minimum {
        if r.exclusive_minimum && float <= limit(min) {
            out.add(bad(path, value.clone(), format!("should be greater than {}", shown(min))));
        } else if float < limit(min) {
            out.add(bad(path, value.clone(), format!("should be greater than or equal to {}", shown(min))));
        }
    }
    if let Some(max) = r.maximum {
        if r.exclusive_maximum && float >= limit(max) {
            out.add(bad(path, value.clone(), format!("should be less than {}", shown(max))));
        } else if float > limit(max) {
            out.add(bad(path, value.clone(), format!("should be less than or equal to {}", shown(max))));
        }
    }
}

fn array(ty: &Type, r: &Rules, items: &[Value], old: Option<&Value>, path: &Path<'_>, out: &mut Outcome) {
    out.matches += 2;
    if let Shape::List(list) = &ty.shape {
        for (i, item) in items.iter().enumerate() {
            let before = old.and_then(|old| counterpart(list, item, old));
            out.merge(walk(&list.item, item, before, &path.then(Step::Index(i))));
        }
    }
    if let Some(min) = r.min_items.filter(|min| items.len() < *min) {
        out.add(bad(path, items.len().into(), format!("should have at least {min} items")));
    }
    if let Some(max) = r.max_items.filter(|max| items.len() > *max) {
        out.add(FieldError::too_many(path.dotted(), items.len(), max));
    }
    if r.unique_items && (1..items.len()).any(|i| items[..i].contains(&items[i])) {
        out.add(bad(path, "".into(), "shouldn't contain duplicates".to_owned()));
    }
}

/// The item of the old list that this one continues: only keyed lists tell.
fn counterpart<'a>(list: &List, item: &Value, old: &'a Value) -> Option<&'a Value> {
    let ListKind::Map(keys) = &list.kind else { return None };
    let same = |other: &&Value| keys.iter().all(|k| other.get(&**k) == item.get(&**k));
    old.as_array()?.iter().find(same)
}

fn object(
    ty: &Type,
    r: &Rules,
    map: &Map<String, Value>,
    old: Option<&Value>,
    path: &Path<'_>,
    out: &mut Outcome,
) {
    out.matches += 1;
    if let Some(min) = r.min_properties.filter(|min| map.len() < *min) {
        out.add(bad(path, map.len().into(), format!("should have at least {min} properties")));
    }
    if let Some(max) = r.max_properties.filter(|max| map.len() > *max) {
        out.add(FieldError::too_many(path.dotted(), map.len(), max));
    }
    let before = |name: &str| old.and_then(|o| o.get(name));
    match &ty.shape {
        Shape::Object(object) => {
            for (name, ty) in declared(object) {
                if let Some(value) = map.get(name) {
                    out.merge(walk(ty, value, before(name), &path.then(Step::Field(name))));
                }
            }
        }
        Shape::Map(m) => {
            for (name, value) in map {
                if r.closed {
                    let at = path.then(Step::Key(name)).dotted();
                    let detail = format!("{at} in body is a forbidden property");
                    out.add(FieldError::invalid(path.dotted(), name.as_str(), detail));
                }
                out.merge(walk(&m.value, value, before(name), &path.then(Step::Key(name))));
            }
        }
        _ => {}
    }
    for name in r.required.iter().filter(|name| !map.contains_key(*name)) {
        out.add(FieldError::required(path.then(Step::Key(name)).dotted(), ""));
    }
}

/// The fields with the schemas that validate them.
fn declared(object: &Object) -> impl Iterator<Item = (&str, &Type)> {
    object.fields.iter().filter_map(|f| match &f.ty {
        Link::Owned(ty) => Some((&*f.name, &**ty)),
        _ => Some((&*f.name, restriction(object, &f.name)?)),
    })
}

fn enumeration(r: &Rules, value: &Value, path: &Path<'_>, out: &mut Outcome) {
    if !value.is_null() {
        out.matches += 1;
    }
    let same = |allowed: &Value| match (allowed, value) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Null, _) => false,
        (a, b) => a == b,
    };
    if !r.enumeration.is_empty() && !r.enumeration.iter().any(same) {
        let plain = |v: &Value| v.as_str().map_or_else(|| gofmt::json(v), str::to_owned);
        let supported: Vec<String> = r.enumeration.iter().map(plain).collect();
        out.add(FieldError::not_supported(path.dotted(), value.clone(), &supported));
    }
}

fn bad(path: &Path<'_>, value: Value, what: String) -> FieldError {
    let path = path.dotted();
    let detail = format!("{path} in body {what}");
    FieldError::new(FieldErrorKind::Invalid, path, Some(value), detail)
}
