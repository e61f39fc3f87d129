//! The OpenAPI documents, v3 per group and version and v2 in one, written from the tables and the schemas.
//!
//! Documents are written piece by piece into bytes: a whole document never exists as a tree of values.

mod crd;
mod gnostic;
mod paths;
mod schemas;

pub use gnostic::v2_protobuf;
use keelson_api_types::resources::ResourceInfo;
use paths::{Operations, PathItem};
use schemas::{Refs, Style};
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};

/// A served version of a custom resource.
#[derive(Clone, Debug, Default)]
pub struct CrdSchema {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub list_kind: String,
    pub plural: String,
    pub namespaced: bool,
    /// `openAPIV3Schema`, null when there is none.
    pub schema: Value,
    pub has_status: bool,
    pub has_scale: bool,
    /// Fields that select, without the leading dot.
    pub selectable: Vec<String>,
    /// Of all the above, made on first use.
    pub hash: OnceLock<String>,
    /// Whether clients are told of the schema, found out on first use: it takes far longer than writing it.
    pub told: OnceLock<bool>,
}

impl CrdSchema {
    fn hash(&self) -> &str {
        self.hash.get_or_init(|| {
            let mut hash = Fnv::default();
            for text in [&self.group, &self.version, &self.kind, &self.list_kind, &self.plural] {
                hash.add(text);
            }
            hash.add(&format!(
                "{}{}{}{:?}",
                self.namespaced, self.has_status, self.has_scale, self.selectable
            ));
            hash.add(&self.schema.to_string());
            hash.hex()
        })
    }
}

/// The built-in resources that are served.
pub type Builtin<'a> = &'a [&'static ResourceInfo];

/// What `/openapi/v3` answers: where each group and version's document is. The hash in the address changes
/// with the content, so that clients may cache by it.
pub fn v3_index(builtin: Builtin<'_>, extra: &[Arc<CrdSchema>]) -> Value {
    let mut paths = serde_json::Map::new();
    let custom = extra.iter().map(|c| (c.group.as_str(), c.version.as_str()));
    for (group, version) in builtin.iter().map(|r| (r.group, r.version)).chain(custom) {
        let path = root_path(group, version);
        let path = path.trim_start_matches('/');
        if !paths.contains_key(path) {
            let address = format!("/openapi/v3/{path}?hash={}", v3_hash(builtin, group, version, extra));
            paths.insert(path.to_owned(), json!({"serverRelativeURL": address}));
        }
    }
    json!({"paths": paths})
}

/// The hash of one v3 document, in upper-case hex like upstream's; also fit for its ETag.
pub fn v3_hash(builtin: Builtin<'_>, group: &str, version: &str, extra: &[Arc<CrdSchema>]) -> String {
    let mut hash = own_hash(builtin.iter().filter(|r| r.group == group && r.version == version));
    hash.add(group);
    hash.add(version);
    for c in extra.iter().filter(|c| c.group == group && c.version == version) {
        hash.add(c.hash());
    }
    hash.hex()
}

/// The hash of the v2 document.
pub fn v2_hash(builtin: Builtin<'_>, extra: &[Arc<CrdSchema>]) -> String {
    let mut hash = own_hash(builtin.iter());
    extra.iter().for_each(|c| hash.add(c.hash()));
    hash.hex()
}

/// Of what this program makes of built-in resources.
fn own_hash<'a>(builtin: impl Iterator<Item = &'a &'static ResourceInfo>) -> Fnv {
    let mut hash = Fnv::default();
    hash.add(env!("CARGO_PKG_VERSION"));
    hash.add(include_str!("openapi/schemas.rs"));
    hash.add(include_str!("openapi/paths.rs"));
    for r in builtin {
        [r.group, r.version, r.resource].iter().for_each(|part| hash.add(part));
    }
    hash
}

/// The v3 document of a group and version as JSON; None when nothing is served under it.
pub fn v3(builtin: Builtin<'_>, group: &str, version: &str, extra: &[Arc<CrdSchema>]) -> Option<Vec<u8>> {
    let served = |g: &str, v: &str| g == group && v == version;
    let items: Vec<PathItem> = builtin
        .iter()
        .filter(|r| served(r.group, r.version))
        .map(|r| PathItem::builtin(r))
        .chain(extra.iter().filter(|c| served(&c.group, &c.version)).map(|c| crd::item(c)))
        .collect();
    if items.is_empty() {
        return None;
    }
    let mut out = Writer::new(r#"{"openapi":"3.0.0","info":{"title":"Kubernetes","version":"unversioned"}"#);
    let mut refs = Refs::default();
    out.open("paths");
    write_paths(&mut out, &items, Style::V3, &mut refs);
    out.close();
    out.open("components");
    out.open("schemas");
    write_schemas(&mut out, extra, Style::V3, refs, Some((group, version)));
    out.close();
    out.entry("securitySchemes", &security());
    out.close();
    Some(out.finish())
}

/// The v2 document as JSON.
pub fn v2(builtin: Builtin<'_>, extra: &[Arc<CrdSchema>]) -> Vec<u8> {
    let items = builtin.iter().map(|r| PathItem::builtin(r)).chain(extra.iter().map(|c| crd::item(c)));
    let items: Vec<PathItem> = items.collect();
    let mut out = Writer::new(r#"{"swagger":"2.0","info":{"title":"Kubernetes","version":"unversioned"}"#);
    let mut refs = Refs::default();
    out.open("paths");
    write_paths(&mut out, &items, Style::V2, &mut refs);
    out.close();
    out.open("definitions");
    write_schemas(&mut out, extra, Style::V2, refs, None);
    out.close();
    out.entry("securityDefinitions", &security());
    out.entry("security", &json!([{"BearerToken": []}]));
    out.finish()
}

fn write_paths(out: &mut Writer, items: &[PathItem], style: Style, refs: &mut Refs) {
    for item in items {
        for (path, value) in item.paths(&Operations { style }, refs) {
            out.entry(&path, &value);
        }
    }
}

fn write_schemas(
    out: &mut Writer,
    extra: &[Arc<CrdSchema>],
    style: Style,
    mut refs: Refs,
    only: Option<(&str, &str)>,
) {
    for c in extra {
        if only.is_none_or(|(g, v)| c.group == g && c.version == v) {
            for (name, schema) in crd::schemas(c, style, &mut refs) {
                out.entry(&name, &schema);
            }
        }
    }
    while let Some(name) = refs.next() {
        if let Some(schema) = schemas::definition(&name, style, &mut refs) {
            out.entry(&name, &schema);
        }
    }
}

/// `/api/v1` or `/apis/group/version`.
fn root_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

fn security() -> Value {
    json!({"BearerToken": {"type": "apiKey", "in": "header", "name": "authorization", "description": "Bearer token"}})
}

/// JSON objects written as they come, with the commas in place.
struct Writer {
    out: Vec<u8>,
    first: bool,
    depth: usize,
}

impl Writer {
    fn new(head: &str) -> Writer {
        Writer { out: head.as_bytes().to_vec(), first: false, depth: 1 }
    }

    fn key(&mut self, key: &str) {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        serde_json::to_writer(&mut self.out, key).unwrap_or_default();
        self.out.push(b':');
    }

    fn open(&mut self, key: &str) {
        self.key(key);
        self.out.push(b'{');
        self.first = true;
        self.depth += 1;
    }

    fn close(&mut self) {
        self.out.push(b'}');
        self.first = false;
        self.depth -= 1;
    }

    fn entry(&mut self, key: &str, value: &Value) {
        self.key(key);
        serde_json::to_writer(&mut self.out, value).unwrap_or_default();
    }

    fn finish(mut self) -> Vec<u8> {
        while self.depth > 0 {
            self.close();
        }
        self.out
    }
}

/// FNV-1a over two lanes: a content hash, not a secret.
struct Fnv(u64, u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325, 0x8422_2325_cbf2_9ce4)
    }
}

impl Fnv {
    fn add(&mut self, text: &str) {
        for b in text.bytes().chain([0]) {
            self.0 = (self.0 ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
            self.1 = (self.1 ^ u64::from(b).rotate_left(7)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn hex(&self) -> String {
        format!("{:016X}{:016X}", self.0, self.1)
    }
}
