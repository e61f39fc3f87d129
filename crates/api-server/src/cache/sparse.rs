//! Reads only some fields of an encoded object: what selectors look at is a small part of it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// The fields to read, as a tree of their names. Where nothing is below a name, all of its value is read.
#[derive(Debug, Default)]
pub struct Wanted {
    below: Vec<(Box<str>, Wanted)>,
}

impl Wanted {
    /// Dotted paths, like those of field selectors.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a str>) -> Self {
        let mut wanted = Self::default();
        for path in paths {
            let names = path.split('.');
            names.fold(&mut wanted, |at, name| {
                let known = at.below.iter().position(|(n, _)| **n == *name);
                let known = known.unwrap_or_else(|| {
                    at.below.push((name.into(), Self::default()));
                    at.below.len() - 1
                });
                &mut at.below[known].1
            });
        }
        wanted
    }

    /// The object without the rest; lists on the way to a wanted field are left out.
    pub fn read(&self, bytes: &[u8]) -> serde_json::Result<Value> {
        let mut de = serde_json::Deserializer::from_slice(bytes);
        let value = de.deserialize_map(Fields(self))?;
        de.end().map(|()| value)
    }
}

impl<'de> DeserializeSeed<'de> for &Wanted {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<Value, D::Error> {
        match self.below.is_empty() {
            true => serde::Deserialize::deserialize(de),
            false => de.deserialize_any(Fields(self)),
        }
    }
}

struct Fields<'a>(&'a Wanted);

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(found) = map.next_key_seed(Name(self.0))? {
            match found {
                Some((name, wanted)) => {
                    out.insert((**name).into(), map.next_value_seed(wanted)?);
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Object(out))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

/// A key, looked up without copying it.
struct Name<'a>(&'a Wanted);

impl<'de, 'a> DeserializeSeed<'de> for Name<'a> {
    type Value = Option<&'a (Box<str>, Wanted)>;

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<Self::Value, D::Error> {
        de.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Name<'a> {
    type Value = Option<&'a (Box<str>, Wanted)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.below.iter().find(|(n, _)| **n == *name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_wanted_is_read() {
        let object = json!({
            "metadata": {"name": "a", "labels": {"x": "y"}, "uid": "u"},
            "spec": {"nodeName": "n", "containers": [{"name": "c"}], "template": [1]},
            "status": "odd",
        });
        let read =
            |paths: &[&str]| Wanted::new(paths.iter().copied()).read(object.to_string().as_bytes()).unwrap();
        assert_eq!(
            read(&["metadata.labels", "spec.nodeName", "spec.template.x", "status.phase"]),
            json!({"metadata": {"labels": {"x": "y"}}, "spec": {"nodeName": "n", "template": null}, "status": null})
        );
        assert_eq!(read(&["spec", "absent.field"]), json!({"spec": object["spec"]}));
        assert_eq!(read(&[]), json!({}));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["[]", "1", "{", "{}x", "null"] {
            assert!(Wanted::default().read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
