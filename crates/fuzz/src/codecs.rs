//! Decoders: what they take they give back the same.

use keelson_machinery::{FieldValidation, cbor, decode, encode, proto, prune};
use keelson_schema::builtin;

use crate::{deployment, size};

pub(crate) fn json(data: &[u8]) {
    let decoded = decode::json_strict(data);
    decode::strict::problems(Some(deployment()), data);
    let (value, _) = match decoded {
        Ok(decoded) => decoded,
        Err(error) => return drop(error.request_message("apps/v1", "Deployment", data)),
    };
    let canonical = encode::canonical(&value);
    let (again, duplicates) = decode::json_strict(&canonical).expect("what was encoded is JSON");
    assert!(duplicates.is_empty(), "{duplicates:?}");
    assert_eq!(encode::canonical(&again), canonical);
    let mut object = value;
    if prune::check(deployment(), &mut object, FieldValidation::Ignore).is_ok() {
        prune::default(deployment(), &mut object);
        let mut twice = object.clone();
        prune::default(deployment(), &mut twice);
        assert_eq!(twice, object, "defaults are set once");
    }
}

pub(crate) fn yaml(data: &[u8]) {
    let Ok((value, _)) = decode::yaml(data) else { return };
    assert!(size(&value) <= (16 << 20) + 64 * data.len(), "aliases make {} of {}", size(&value), data.len());
    let text = encode::yaml(&value);
    let (again, _) = decode::yaml(text.as_bytes()).unwrap_or_else(|error| panic!("{error} in {text}"));
    assert_eq!(again, value, "through {text}");
}

/// Two bytes choose the kind.
pub(crate) fn proto(data: &[u8]) {
    let _ = proto::open(data);
    let [high, low, message @ ..] = data else { return };
    let definitions = builtin().definitions();
    let ty = definitions[usize::from(u16::from_be_bytes([*high, *low])) % definitions.len()].ty();
    let Ok(value) = proto::decode(ty, message) else { return };
    assert!(size(&value) <= 4096 + 256 * data.len(), "{} of {}", size(&value), data.len());
    let Ok(encoded) = proto::encode_message(ty, &value) else { return };
    let again = proto::decode(ty, &encoded).expect("what was encoded is a message");
    assert_eq!(proto::encode_message(ty, &again).ok(), Some(encoded), "of {value}");
}

pub(crate) fn cbor(data: &[u8]) {
    for ty in [None, builtin().for_kind("", "v1", "Secret")] {
        let Ok(value) = cbor::decode(ty, data) else { continue };
        assert!(size(&value) <= 64 * data.len(), "{} of {}", size(&value), data.len());
        assert_eq!(cbor::decode(ty, &cbor::encode_item(ty, &value)), Ok(value));
    }
}
