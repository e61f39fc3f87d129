//! `ctl explain`: what fields a type has, from the server's OpenAPI documents.

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;

use crate::client::Call;
use crate::context::Context;
use crate::value::{list, map, text};

const WIDTH: usize = 76;

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// TYPE[.FIELD…]
    target: String,
    /// Show the fields of fields
    #[arg(long)]
    recursive: bool,
    /// Of this GROUP/VERSION
    #[arg(long)]
    api_version: Option<String>,
    /// plaintext
    #[arg(short = 'o', long, default_value = "plaintext")]
    output: String,
}

pub async fn run(context: &Context, args: ExplainArgs) -> anyhow::Result<()> {
    if args.output != "plaintext" {
        bail!("unrecognized format: {:?}; plaintext is expected", args.output);
    }
    let mapper = context.mapper().await?;
    let mut parts = args.target.split('.');
    let word = parts.next().unwrap_or_default();
    // `deployments.apps.spec`: the longest beginning that is a type.
    let words: Vec<&str> = args.target.split('.').collect();
    let (mut mapping, used) = (1..=words.len())
        .rev()
        .filter(|count| *count == 1 || words[1..*count].iter().all(|w| !w.is_empty()))
        .find_map(|count| Some((mapper.find(&words[..count].join(".")).ok()?, count)))
        .with_context(|| format!("the server doesn't have a resource type {word:?}"))?;
    if let Some(wanted) = &args.api_version {
        let (group, version) = wanted.split_once('/').unwrap_or(("", wanted));
        mapping = mapper
            .for_kind(group, version, &mapping.kind)
            .with_context(|| format!("couldn't find resource for {wanted:?}, Kind={}", mapping.kind))?;
    }
    let fields: Vec<&str> = words[used..].iter().copied().filter(|w| !w.is_empty()).collect();
    let index = context.rest.json(Call::get("/openapi/v3")).await?;
    let place = match mapping.group.as_str() {
        "" => format!("api/{}", mapping.version),
        group => format!("apis/{group}/{}", mapping.version),
    };
    let url = index["paths"][&place]["serverRelativeURL"].as_str();
    let url = url.with_context(|| format!("couldn't find resource for {}", mapping.api_version()))?;
    let document = context.rest.json(Call::get(url)).await?;
    let kind = (mapping.group.as_str(), mapping.version.as_str(), mapping.kind.as_str());
    crate::io::print(&explain(&document, kind, &fields, args.recursive)?);
    Ok(())
}

/// The text for a kind, or one of its fields.
fn explain(
    document: &Value,
    kind: (&str, &str, &str),
    fields: &[&str],
    recursive: bool,
) -> anyhow::Result<String> {
    let (group, version, name) = kind;
    let schemas = map(document, "/components/schemas").context("the document has no schemas")?;
    let of_kind = |schema: &&Value| {
        list(schema, "/x-kubernetes-group-version-kind")
            .iter()
            .any(|k| text(k, "/group") == group && text(k, "/version") == version && text(k, "/kind") == name)
    };
    let schema =
        schemas.values().find(of_kind).with_context(|| format!("GVK {name} not found in OpenAPI schema"))?;
    let mut out = String::new();
    if !group.is_empty() {
        out += &format!("GROUP:      {group}\n");
    }
    out += &format!("KIND:       {name}\nVERSION:    {version}\n\n");
    let mut current = Node { document, schema };
    let mut described = String::new();
    for field in fields {
        let parent = current.inside();
        let Some(child) = parent.resolved().pointer("/properties").and_then(|p| p.get(*field)) else {
            bail!("field {field:?} does not exist");
        };
        current = Node { document, schema: child };
        described = format!("FIELD: {field} <{}>\n{}\n\n", current.type_name(), current.enumeration(0));
    }
    out += &described;
    out += "DESCRIPTION:\n";
    match current.description().as_str() {
        "" => out += "    <empty>\n",
        // Upstream indents the end of the text as well.
        description => out += &format!("{}    \n", indented(description, 4)),
    }
    let listed = current.fields(1, recursive, &mut Vec::new());
    if !listed.is_empty() {
        out += &format!("FIELDS:\n{listed}");
    }
    Ok(out + "\n")
}

#[derive(Clone, Copy)]
struct Node<'a> {
    document: &'a Value,
    schema: &'a Value,
}

impl<'a> Node<'a> {
    fn with(self, schema: &'a Value) -> Node<'a> {
        Node { schema, ..self }
    }

    /// The schema's reference, directly or as the one of an allOf.
    fn reference(self) -> Option<&'a str> {
        self.schema.get("$ref").or(self.schema.pointer("/allOf/0/$ref")).and_then(Value::as_str)
    }

    fn resolved(self) -> &'a Value {
        let name = self.reference().and_then(|r| r.strip_prefix("#/components/schemas/"));
        name.and_then(|name| self.document["components"]["schemas"].get(name)).unwrap_or(self.schema)
    }

    /// Through lists and maps to what they hold.
    fn inside(self) -> Node<'a> {
        let resolved = self.resolved();
        match resolved.get("items").or(resolved.get("additionalProperties")) {
            Some(inner) if inner.is_object() && resolved.get("properties").is_none() => {
                self.with(inner).inside()
            }
            _ => self,
        }
    }

    /// What the schema says, then what it is made of, down to the type that it holds.
    fn description(self) -> String {
        let named = self
            .schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|r| r.strip_prefix("#/components/schemas/"));
        let schema =
            named.and_then(|name| self.document["components"]["schemas"].get(name)).unwrap_or(self.schema);
        let mut out = match text(schema, "/description") {
            "" => String::new(),
            own => format!("{own}\n"),
        };
        for part in list(schema, "/allOf") {
            out += &self.with(part).description();
        }
        for inner in [schema.get("items"), schema.get("additionalProperties")].into_iter().flatten() {
            out += &self.with(inner).description();
        }
        out
    }

    fn type_name(self) -> String {
        if let Some(reference) = self.reference() {
            let resolved = self.resolved();
            if resolved.get("properties").is_some() || text(resolved, "/type") == "object" {
                return reference.rsplit(['.', '/']).next().unwrap_or_default().to_owned();
            }
            return match text(resolved, "/type") {
                "" => reference.rsplit(['.', '/']).next().unwrap_or_default().to_owned(),
                "string" if reference.ends_with("Time") || reference.ends_with("Quantity") => {
                    "string".to_owned()
                }
                kind => kind.to_owned(),
            };
        }
        match text(self.schema, "/type") {
            "array" => format!("[]{}", self.with(&self.schema["items"]).type_name()),
            "object" => match self.schema.get("additionalProperties").filter(|p| p.is_object()) {
                Some(values) => format!("map[string]{}", self.with(values).type_name()),
                None => "Object".to_owned(),
            },
            "" => "Object".to_owned(),
            kind => kind.to_owned(),
        }
    }

    fn enumeration(self, indent: usize) -> String {
        let values = list(self.resolved(), "/enum");
        if values.is_empty() {
            return String::new();
        }
        let values: Vec<String> =
            values.iter().map(|v| v.as_str().map_or(v.to_string(), str::to_owned)).collect();
        let pad = " ".repeat(indent);
        if indent == 0 {
            format!("ENUM:\n    {}\n", values.join("\n    "))
        } else {
            let shown = values.len().min(4);
            let more = if values.len() > shown { ", ...." } else { "" };
            format!("{pad}enum: {}{more}\n", values[..shown].join(", "))
        }
    }

    /// The fields; recursive ones without descriptions, and a type inside itself only once.
    fn fields(self, level: usize, recursive: bool, above: &mut Vec<&'a str>) -> String {
        let inner = self.inside();
        let reference = inner.reference();
        if reference.is_some_and(|r| above.contains(&r)) {
            return String::new();
        }
        above.extend(reference);
        let schema = inner.resolved();
        let required: Vec<&str> = list(schema, "/required").iter().filter_map(Value::as_str).collect();
        let pad = "  ".repeat(level);
        let mut out = String::new();
        for (name, property) in map(schema, "/properties").into_iter().flatten() {
            let node = self.with(property);
            let needed = if required.contains(&name.as_str()) { " -required-" } else { "" };
            out += &format!("{pad}{name}\t<{}>{needed}\n", node.type_name());
            out += &node.enumeration(level * 2);
            if recursive {
                out += &node.fields(level + 1, true, above);
            } else {
                // Only its own: what its type is about stands with the type.
                let description = match text(property, "/description") {
                    "" => "<no description>",
                    own => own,
                };
                out += &indented(description, level * 2 + 2);
                out += "\n";
            }
        }
        if reference.is_some() {
            above.pop();
        }
        out
    }
}

/// Lines of at most the page's width, indented; lists and blank lines stay as they are.
fn indented(text: &str, indent: usize) -> String {
    let pad = " ".repeat(indent);
    let mut out = String::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.len() + 1 + word.len() > WIDTH {
                out += &format!("{pad}{line}\n");
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        out += &if line.is_empty() { "\n".to_owned() } else { format!("{pad}{line}\n") };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Value {
        json!({"components": {"schemas": {
            "a.v1.Thing": {
                "description": "Thing is a thing.", "type": "object", "required": ["spec"],
                "properties": {
                    "spec": {"description": "The spec.", "allOf": [{"$ref": "#/components/schemas/a.v1.ThingSpec"}]},
                    "names": {"type": "array", "items": {"type": "string"}},
                },
                "x-kubernetes-group-version-kind": [{"group": "a", "version": "v1", "kind": "Thing"}],
            },
            "a.v1.ThingSpec": {"description": "Spec type.", "type": "object", "properties": {
                "count": {"type": "integer", "description": "How many."},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "again": {"$ref": "#/components/schemas/a.v1.ThingSpec"},
            }},
        }}})
    }

    #[test]
    fn kinds_and_fields_are_explained() {
        let text = explain(&document(), ("a", "v1", "Thing"), &[], false).expect("text");
        assert!(
            text.starts_with(
                "GROUP:      a\nKIND:       Thing\nVERSION:    v1\n\nDESCRIPTION:\n    Thing is a thing.\n"
            ),
            "{text}"
        );
        assert!(text.contains("  names\t<[]string>\n    <no description>\n"), "{text}");
        assert!(text.contains("  spec\t<ThingSpec> -required-\n    The spec.\n\n"), "{text}");
        let text = explain(&document(), ("a", "v1", "Thing"), &["spec", "count"], false).expect("text");
        assert!(text.contains("FIELD: count <integer>\n\n\nDESCRIPTION:\n    How many.\n"), "{text}");
        assert!(explain(&document(), ("a", "v1", "Thing"), &["nope"], false).is_err());
    }

    #[test]
    fn recursion_ends() {
        let text = explain(&document(), ("a", "v1", "Thing"), &[], true).expect("text");
        assert!(
            text.contains("    again\t<ThingSpec>\n    count\t<integer>\n    labels\t<map[string]string>\n"),
            "{text}"
        );
    }
}
