//! Tables: the columns of `get` and the cells of each object, as upstream prints them.
//!
//! A row always has the cells of the wide columns too (priority 1); clients leave them out.

mod batch;
mod core;
mod custom;
mod network;
mod object;
mod pod;
mod policy;
mod storage;

use keelson_api_types::{Gvr, meta};
use object::Obj;
use serde_json::{Value, json};
use std::sync::LazyLock;

pub use custom::{generic, generic_columns};
pub use jiff::Timestamp;

/// One column of a Table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// OpenAPI type: `string`, `integer`, `date`, …
    pub kind: String,
    pub format: String,
    pub description: String,
    /// 0 is always shown, 1 only by `-o wide`.
    pub priority: i32,
}

impl Column {
    fn new(name: &str, kind: &str, format: &str, priority: i32) -> Column {
        Column {
            name: name.to_owned(),
            kind: kind.to_owned(),
            format: format.to_owned(),
            description: String::new(),
            priority,
        }
    }

    /// The `columnDefinitions` entry.
    pub fn to_value(&self) -> Value {
        json!({
            "name": self.name,
            "type": self.kind,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        })
    }
}

type Known = (&'static str, &'static str, &'static str, Vec<Column>);

static COLUMNS: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let mut out: Vec<Known> = Vec::new();
    for line in include_str!("../data/table-columns.tsv").lines().skip(1) {
        let col: Vec<&'static str> = line.split('\t').collect();
        let [group, version, resource, name, kind, format, priority] = col[..] else { continue };
        let column = Column::new(name, kind, format, priority.trim().parse().unwrap_or(0));
        match out.last_mut() {
            Some(last) if (last.0, last.1, last.2) == (group, version, resource) => last.3.push(column),
            _ => out.push((group, version, resource, vec![column])),
        }
    }
    out
});

/// The columns of a built-in resource; name and age for one that has none of its own.
pub fn columns(group: &str, version: &str, resource: &str) -> Vec<Column> {
    COLUMNS
        .iter()
        .find(|k| (k.0, k.1, k.2) == (group, version, resource))
        .map_or_else(plain_columns, |k| k.3.clone())
}

fn plain_columns() -> Vec<Column> {
    vec![Column::new("Name", "string", "name", 0), Column::new("Created At", "date", "", 0)]
}

/// The cells of one object of a built-in resource, one per column.
pub fn row(gvr: &Gvr, object: &Value, now: Timestamp) -> Vec<Value> {
    let o = Obj::new(object, now);
    let mut cells = cells(&gvr.group, &gvr.resource, &o);
    let known = COLUMNS.iter().find(|k| (k.0, k.1, k.2) == (&*gvr.group, &*gvr.version, &*gvr.resource));
    cells.resize(known.map_or(2, |k| k.3.len()), Value::Null);
    cells
}

fn cells(group: &str, resource: &str, o: &Obj) -> Vec<Value> {
    match (group, resource) {
        ("", "pods") => pod::pod(o),
        ("" | "events.k8s.io", "events") => core::event(o),
        ("", _) => core::cells(resource, o),
        ("apps" | "batch" | "autoscaling" | "policy", _) => batch::cells(resource, o),
        ("networking.k8s.io" | "discovery.k8s.io", _) => network::cells(resource, o),
        ("storage.k8s.io", _) => storage::cells(resource, o),
        _ => policy::cells(resource, o),
    }
}

/// Name and creation time, for resources without a printer.
fn plain(o: &Obj) -> Vec<Value> {
    vec![o.name(), json!(meta::string(o.value(), "creationTimestamp"))]
}
