//! How results are printed: `-o json|yaml|name|jsonpath=…|custom-columns=…` and one line per change.

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::jsonpath::{Template, text_of};
use crate::mapper::Mapping;
use crate::tabs;
use crate::value::{go_json_pretty, remove, text};

pub mod table;

/// `-o`, as most commands take it.
#[derive(Debug, Clone, Default, Args)]
pub struct OutputArgs {
    /// One of json, yaml, name, wide, jsonpath=…, jsonpath-file=…, custom-columns=…, custom-columns-file=…
    #[arg(short = 'o', long)]
    pub output: Option<String>,
    /// Keep metadata.managedFields in JSON and YAML
    #[arg(long)]
    pub show_managed_fields: bool,
}

#[derive(Clone, Debug)]
pub enum Format {
    /// The server's table or a line per change.
    Default,
    Wide,
    Json,
    Yaml,
    Name,
    JsonPath(Template),
    CustomColumns(Vec<(String, Template)>),
}

/// A format and what goes with it.
#[derive(Clone, Debug)]
pub struct Printer {
    pub format: Format,
    show_managed_fields: bool,
}

impl OutputArgs {
    pub fn printer(&self) -> anyhow::Result<Printer> {
        let format = parse(self.output.as_deref().unwrap_or_default())?;
        Ok(Printer { format, show_managed_fields: self.show_managed_fields })
    }
}

fn parse(output: &str) -> anyhow::Result<Format> {
    let (name, argument) = output.split_once('=').unwrap_or((output, ""));
    let file = || std::fs::read_to_string(argument).with_context(|| format!("read the template {argument}"));
    Ok(match name {
        "" => Format::Default,
        "wide" => Format::Wide,
        "json" => Format::Json,
        "yaml" => Format::Yaml,
        "name" => Format::Name,
        "jsonpath" | "jsonpath-as-json" if argument.is_empty() => {
            bail!("template format specified but no template given")
        }
        "jsonpath" => Format::JsonPath(Template::parse(argument)?),
        "jsonpath-file" => Format::JsonPath(Template::parse(file()?.trim_end_matches('\n'))?),
        "custom-columns" => Format::CustomColumns(custom_columns(argument)?),
        "custom-columns-file" => Format::CustomColumns(custom_columns_file(&file()?)?),
        _ => bail!(
            "unable to match a printer suitable for the output format {name:?}, allowed formats are: custom-columns,custom-columns-file,json,jsonpath,jsonpath-file,name,wide,yaml"
        ),
    })
}

fn custom_columns(spec: &str) -> anyhow::Result<Vec<(String, Template)>> {
    if spec.is_empty() {
        bail!("custom-columns format specified but no custom columns given");
    }
    let column = |part: &str| {
        let Some((header, path)) = part.split_once(':') else {
            bail!("unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>");
        };
        Ok((header.to_owned(), Template::relaxed(path)?))
    };
    split_columns(spec).into_iter().map(column).collect()
}

/// Splits at commas that are not inside brackets.
fn split_columns(spec: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0i32, 0, Vec::new());
    for (at, c) in spec.char_indices() {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&spec[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&spec[start..]);
    parts
}

/// A line of headers above a line of paths.
fn custom_columns_file(content: &str) -> anyhow::Result<Vec<(String, Template)>> {
    let mut lines = content.lines();
    let (Some(headers), Some(paths)) = (lines.next(), lines.next()) else {
        bail!("expected two lines in a custom-columns file: headers, then paths");
    };
    let pairs = headers.split_whitespace().zip(paths.split_whitespace());
    pairs.map(|(header, path)| Ok((header.to_owned(), Template::relaxed(path)?))).collect()
}

impl Printer {
    /// Whether objects themselves are printed rather than a table or a line.
    pub fn prints_objects(&self) -> bool {
        !matches!(self.format, Format::Default | Format::Wide)
    }

    /// One object, or a list of them made with [`list_of`].
    pub fn object(&self, object: &Value) -> String {
        let mut object = object.clone();
        if !self.show_managed_fields {
            hide_managed_fields(&mut object);
        }
        match &self.format {
            Format::Json | Format::Default | Format::Wide => go_json_pretty(&object) + "\n",
            Format::Yaml => crate::yaml::to_string(&object),
            Format::JsonPath(template) => template.render(&object),
            Format::Name => String::new(),
            Format::CustomColumns(columns) => columns_text(columns, &members(&object), true),
        }
    }

    /// Objects as they change: for watches, custom columns without their header after the first.
    pub fn next_object(&self, object: &Value, first: bool) -> String {
        match &self.format {
            Format::CustomColumns(columns) => columns_text(columns, &[object], first),
            Format::Yaml if !first => format!("---\n{}", self.object(object)),
            _ => self.object(object),
        }
    }

    /// What was done with an object: `pod/x created`, or the object where -o asks for it.
    pub fn change(&self, mapping: &Mapping, object: &Value, done: &str, dry_run: DryRun) {
        let label = format!("{}/{}", mapping.kind_name(), text(object, "/metadata/name"));
        match &self.format {
            Format::Default | Format::Wide => crate::outln!("{label} {done}{}", dry_run.suffix()),
            Format::Name => crate::outln!("{label}"),
            _ => crate::io::print(&self.object(object)),
        }
    }
}

/// A `List` of any objects.
pub fn list_of(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items, "metadata": {"resourceVersion": ""}})
}

fn hide_managed_fields(object: &mut Value) {
    remove(object, &["metadata", "managedFields"]);
    if let Some(items) = object.get_mut("items").and_then(Value::as_array_mut) {
        items.iter_mut().for_each(|item| remove(item, &["metadata", "managedFields"]));
    }
}

fn members(object: &Value) -> Vec<&Value> {
    match object.get("items").and_then(Value::as_array) {
        Some(items) if text(object, "/kind").ends_with("List") => items.iter().collect(),
        _ => vec![object],
    }
}

fn columns_text(columns: &[(String, Template)], objects: &[&Value], header: bool) -> String {
    let mut lines = String::new();
    if header {
        lines += &(columns.iter().map(|(h, _)| h.as_str()).collect::<Vec<_>>().join("\t") + "\n");
    }
    for object in objects {
        let cells: Vec<String> = columns.iter().map(|(_, template)| column_text(template, object)).collect();
        lines += &(cells.join("\t") + "\n");
    }
    tabs::TABLE.align(&lines)
}

fn column_text(template: &Template, object: &Value) -> String {
    let nodes = template.select(object);
    let shown: Vec<String> = nodes.iter().map(|node| go_text(node)).collect();
    if nodes.is_empty() { "<none>".to_owned() } else { shown.join(",") }
}

/// A value as Go's `%v` prints it: `map[a:1 b:2]`, `[x y]`.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<none>".to_owned(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let pairs: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}:{}", go_text(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        scalar => text_of(scalar),
    }
}

/// Whether a change is only tried, and by whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DryRun {
    #[default]
    None,
    Client,
    Server,
}

#[derive(Debug, Clone, Default, Args)]
pub struct DryRunArgs {
    /// none, client (nothing is sent) or server (sent, but not kept)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "unchanged", default_value = "none")]
    dry_run: String,
}

impl DryRunArgs {
    pub fn get(&self) -> anyhow::Result<DryRun> {
        match self.dry_run.as_str() {
            "none" => Ok(DryRun::None),
            "client" | "unchanged" => Ok(DryRun::Client),
            "server" => Ok(DryRun::Server),
            other => bail!("Invalid dry-run value ({other}). Must be \"none\", \"server\", or \"client\"."),
        }
    }
}

impl DryRun {
    /// The value of the `dryRun` parameter.
    pub fn parameter(self) -> &'static str {
        if self == DryRun::Server { "All" } else { "" }
    }

    pub fn suffix(self) -> &'static str {
        match self {
            DryRun::None => "",
            DryRun::Client => " (dry run)",
            DryRun::Server => " (server dry run)",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn custom_columns_print_what_is_there() {
        let printer = OutputArgs {
            output: Some("custom-columns=NAME:.metadata.name,X:.spec.x".into()),
            ..OutputArgs::default()
        };
        let printer = printer.printer().expect("printer");
        let list = list_of(vec![
            json!({"metadata": {"name": "a"}, "spec": {"x": 1}}),
            json!({"metadata": {"name": "bcd"}}),
        ]);
        assert_eq!(printer.object(&list), "NAME   X\na      1\nbcd    <none>\n");
    }

    #[test]
    fn managed_fields_are_hidden_unless_wanted() {
        let object = json!({"metadata": {"name": "a", "managedFields": []}});
        let args = |show| OutputArgs { output: Some("json".into()), show_managed_fields: show };
        assert!(!args(false).printer().expect("printer").object(&object).contains("managedFields"));
        assert!(args(true).printer().expect("printer").object(&object).contains("managedFields"));
    }

    #[test]
    fn unknown_formats_are_refused() {
        assert!(parse("xml").is_err());
        assert!(parse("jsonpath=").is_err());
        assert!(parse("custom-columns=A").is_err());
    }
}
