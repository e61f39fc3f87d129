//! What strict decoding refuses, in the order in which upstream's decoder comes upon it.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use keelson_api_types::gofmt::quote;
use keelson_schema::{Shape, Type};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::path::{Path, Step};

/// Upstream stops collecting here.
const MAX_PROBLEMS: usize = 100;

/// The unknown and the duplicate fields of a JSON document in document order: `unknown field "spec.a"`,
/// `duplicate field "spec.b"`. Without a type no field is unknown. The rest of a malformed document is not looked at.
pub fn problems(ty: Option<&Type>, json: &[u8]) -> Vec<String> {
    let found = RefCell::default();
    let at = ty.map_or(At::Untyped, At::Typed);
    let walk = Walk { at, path: &Path::ROOT, found: &found };
    let _ = walk.deserialize(&mut serde_json::Deserializer::from_slice(json));
    found.into_inner()
}

/// What the decoder makes of a value.
#[derive(Clone, Copy)]
enum At<'a> {
    Typed(&'a Type),
    /// Maps, lists and scalars as they come.
    Untyped,
    /// Kept or dropped without being looked into.
    Opaque,
}

#[derive(Clone, Copy)]
struct Walk<'a> {
    at: At<'a>,
    path: &'a Path<'a>,
    found: &'a RefCell<Vec<String>>,
}

impl<'a> Walk<'a> {
    fn report(&self, what: &str, key: &str) {
        let problem = format!("{what} field {}", quote(&self.path.then(Step::Key(key)).dotted()));
        let mut found = self.found.borrow_mut();
        if found.len() < MAX_PROBLEMS && !found.contains(&problem) {
            found.push(problem);
        }
    }

    /// What a key's value is decoded as; `None` for a field that the type does not have.
    fn below(&self, key: &str) -> Option<At<'a>> {
        let At::Typed(ty) = self.at else { return Some(self.at) };
        match &ty.shape {
            Shape::Object(object) => match object.field(key) {
                Some(field) => Some(At::Typed(&field.ty)),
                None if object.preserve_unknown => Some(At::Untyped),
                None => None,
            },
            Shape::Map(map) => Some(At::Typed(&map.value)),
            _ => Some(At::Opaque),
        }
    }

    fn item(&self) -> At<'a> {
        match self.at {
            At::Typed(ty) => ty.as_list().map_or(At::Opaque, |list| At::Typed(&list.item)),
            at => at,
        }
    }

    fn is_opaque(&self) -> bool {
        match self.at {
            At::Opaque => true,
            At::Typed(ty) => !matches!(ty.shape, Shape::Object(_) | Shape::Map(_) | Shape::List(_)),
            At::Untyped => false,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<(), D::Error> {
        if self.is_opaque() {
            return de.deserialize_ignored_any(IgnoredAny).map(drop);
        }
        de.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        for index in 0.. {
            let path = self.path.then(Step::Index(index));
            if seq.next_element_seed(Walk { at: self.item(), path: &path, ..self })?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let Some(at) = self.below(&key) else {
                self.report("unknown", &key);
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if seen.contains(&key) {
                self.report("duplicate", &key);
            }
            let path = self.path.then(Step::Key(&key));
            map.next_value_seed(Walk { at, path: &path, ..self })?;
            seen.insert(key);
        }
        Ok(())
    }
}
