//! What strangers send, as functions of bytes: none may panic, take memory out of proportion or break its laws.
//!
//! `tests` replays the corpus and some hundreds of mutations of it; `make fuzz` many more, by another seed each time.
//! What brings something down is kept in the corpus.

mod codecs;
mod expressions;
mod patches;
mod schemas;
mod texts;
mod urls;
mod websocket;
mod wire;

use serde_json::Value;

pub type Target = fn(&[u8]);

/// By name, as the corpus has folders.
pub const TARGETS: &[(&str, Target)] = &[
    ("json", codecs::json),
    ("yaml", codecs::yaml),
    ("proto", codecs::proto),
    ("cbor", codecs::cbor),
    ("json-patch", patches::json),
    ("merge-patch", patches::merge),
    ("strategic-patch", patches::strategic),
    ("apply", patches::apply),
    ("managed-fields", patches::managed_fields),
    ("selector", texts::selector),
    ("quantity", texts::quantity),
    ("names", texts::names),
    ("cel", expressions::evaluate),
    ("schema", schemas::schema),
    ("spdy", wire::spdy),
    ("websocket", websocket::websocket),
    ("url", urls::url),
];

/// An object and what is done to it, a line each.
fn two(data: &[u8]) -> Option<(Value, Value)> {
    let end = data.iter().position(|byte| *byte == b'\n')?;
    Some((serde_json::from_slice(&data[..end]).ok()?, serde_json::from_slice(&data[end + 1..]).ok()?))
}

fn size(value: &Value) -> usize {
    keelson_machinery::encode::canonical(value).len()
}

fn deployment() -> &'static keelson_schema::Type {
    keelson_schema::builtin().for_kind("apps", "v1", "Deployment").expect("a built-in kind")
}
