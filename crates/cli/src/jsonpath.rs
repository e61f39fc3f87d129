//! The JSONPath dialect of `-o jsonpath`: text with expressions in braces.
//!
//! See <https://kubernetes.io/docs/reference/kubectl/jsonpath/>. An expression selects nodes with `.field`, `['field']`,
//! `[0]`, `[1:3]`, `[0,2]`, `[*]`, `..field` and `[?(@.a=="b")]`; `{range …}…{end}` repeats, `{"\n"}` is text. A field that is not
//! there selects nothing.

use serde_json::Value;

mod filter;
mod parse;

pub use parse::ParseError;

/// A parsed template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    /// Several paths in one pair of braces print side by side.
    Paths(Vec<Operand>),
    Range(Path, Vec<Part>),
}

/// A path or a quoted literal.
#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(Path),
    Literal(Value),
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Path {
    /// Starts at the document (`$`) even inside a range.
    absolute: bool,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Wildcard,
    Recursive,
    Index(i64),
    Slice(Option<i64>, Option<i64>, i64),
    Union(Vec<Step>),
    Chain(Vec<Step>),
    Filter(filter::Filter),
}

impl Template {
    pub fn parse(text: &str) -> Result<Template, ParseError> {
        Ok(Template { parts: parse::template(text)? })
    }

    /// A lone path, with braces and the leading dot left to the writer's taste: for `--sort-by`, `custom-columns`, `wait`.
    pub fn relaxed(text: &str) -> Result<Template, ParseError> {
        let inner = text.trim();
        let inner = inner.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(inner);
        if inner.contains('{') || inner.contains('}') {
            return Err(ParseError::new(format!(
                "unexpected path string, expected a 'name1.name2' or '.name1.name2' or '{{name1.name2}}' or '{{.name1.name2}}', found {text:?}"
            )));
        }
        let dotted =
            if inner.starts_with(['.', '[', '$', '@']) { inner.to_owned() } else { format!(".{inner}") };
        Template::parse(&format!("{{{dotted}}}"))
    }

    /// The text that the template makes of a document.
    pub fn render(&self, root: &Value) -> String {
        let mut out = String::new();
        render(&self.parts, root, root, &mut out);
        out
    }

    /// The nodes that its expressions select.
    pub fn select<'a>(&'a self, root: &'a Value) -> Vec<&'a Value> {
        let paths = self.parts.iter().filter_map(|part| match part {
            Part::Paths(operands) => Some(operands),
            _ => None,
        });
        paths.flatten().flat_map(|operand| operand.select(root, root)).collect()
    }
}

impl Operand {
    fn select<'a>(&'a self, root: &'a Value, current: &'a Value) -> Vec<&'a Value> {
        match self {
            Operand::Path(path) => path.select(root, current),
            Operand::Literal(value) => vec![value],
        }
    }
}

impl Path {
    fn select<'a>(&'a self, root: &'a Value, current: &'a Value) -> Vec<&'a Value> {
        let start = if self.absolute { root } else { current };
        self.steps.iter().fold(vec![start], |nodes, step| {
            nodes.into_iter().flat_map(|node| step.select(root, node)).collect()
        })
    }
}

impl Step {
    fn select<'a>(&'a self, root: &'a Value, node: &'a Value) -> Vec<&'a Value> {
        match self {
            Step::Field(name) => node.get(name).into_iter().collect(),
            Step::Wildcard => children(node),
            Step::Recursive => descendants(node),
            Step::Index(index) => node.as_array().and_then(|a| element(a, *index)).into_iter().collect(),
            Step::Slice(from, to, step) => {
                node.as_array().map(|a| slice(a, *from, *to, *step)).unwrap_or_default()
            }
            Step::Union(steps) => steps.iter().flat_map(|step| step.select(root, node)).collect(),
            Step::Chain(steps) => steps.iter().fold(vec![node], |nodes, step| {
                nodes.into_iter().flat_map(|node| step.select(root, node)).collect()
            }),
            Step::Filter(filter) => {
                children(node).into_iter().filter(|child| filter.matches(root, child)).collect()
            }
        }
    }
}

fn children(node: &Value) -> Vec<&Value> {
    match node {
        Value::Array(items) => items.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

fn descendants(node: &Value) -> Vec<&Value> {
    let mut all = vec![node];
    for child in children(node) {
        all.extend(descendants(child));
    }
    all
}

fn element(items: &[Value], index: i64) -> Option<&Value> {
    let position = if index < 0 { index + items.len() as i64 } else { index };
    usize::try_from(position).ok().and_then(|i| items.get(i))
}

fn slice(items: &[Value], from: Option<i64>, to: Option<i64>, step: i64) -> Vec<&Value> {
    let len = items.len() as i64;
    let place = |i: i64| (if i < 0 { i + len } else { i }).clamp(0, len) as usize;
    let (from, to) = (place(from.unwrap_or(0)), place(to.unwrap_or(len)));
    items.iter().take(to).skip(from).step_by(step.max(1) as usize).collect()
}

fn render(parts: &[Part], root: &Value, current: &Value, out: &mut String) {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Paths(operands) => {
                for operand in operands {
                    let texts: Vec<String> = operand.select(root, current).into_iter().map(text_of).collect();
                    out.push_str(&texts.join(" "));
                }
            }
            Part::Range(path, body) => {
                for node in path.select(root, current) {
                    render(body, root, node, out);
                }
            }
        }
    }
}

/// A node as printed: strings bare, composites as JSON.
pub fn text_of(node: &Value) -> String {
    match node {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(template: &str, expected: &str) {
        let document = json!({
            "kind": "List",
            "items": [
                {"metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "x"}}, "status": {"n": 1, "ready": true}},
                {"metadata": {"name": "b", "labels": {}}, "status": {"n": 2, "conditions": [{"type": "Ready", "status": "True"}]}},
                {"metadata": {"name": "c"}, "status": {"n": 30}},
            ],
        });
        let parsed = Template::parse(template).unwrap_or_else(|e| panic!("{template}: {e}"));
        assert_eq!(parsed.render(&document), expected, "{template}");
    }

    #[test]
    fn templates_select_what_the_dialect_says() {
        check("{.kind}", "List");
        check("{$.kind}", "List");
        check("{.items[*].metadata.name}", "a b c");
        check("{.items[0].metadata.name}", "a");
        check("{.items[-1].metadata.name}", "c");
        check("{.items[0:2].metadata.name}", "a b");
        check("{.items[::2].metadata.name}", "a c");
        check("{.items[0,2].metadata.name}", "a c");
        check("{.items[*]['metadata.name','status.n']}", "a 1 b 2 c 30");
        check("{..name}", "a b c");
        check("{.items[0].metadata.labels.app\\.kubernetes\\.io/name}", "x");
        check("{.items[0].metadata.labels['app\\.kubernetes\\.io/name']}", "x");
        check("{.missing.field}", "");
        check("{.items[0].status}", "{\"n\":1,\"ready\":true}");
        check("name: {.items[1].metadata.name}!", "name: b!");
    }

    #[test]
    fn ranges_repeat_their_body() {
        check("{range .items[*]}{.metadata.name}{\"\\t\"}{.status.n}{\"\\n\"}{end}", "a\t1\nb\t2\nc\t30\n");
        check("{range .items[*]}[{.metadata.name}] {end}", "[a] [b] [c] ");
        check("{range .items[*]}{$.kind}{end}", "ListListList");
        check("{range .items[*]}{range .status.conditions[*]}{.type}={.status};{end}{end}", "Ready=True;");
    }

    #[test]
    fn filters_compare() {
        check("{.items[?(@.metadata.name==\"b\")].status.n}", "2");
        check("{.items[?(@.metadata.name=='b')].status.n}", "2");
        check("{.items[?(@.metadata.name!=\"b\")].status.n}", "1 30");
        check("{.items[?(@.status.n>1)].metadata.name}", "b c");
        check("{.items[?(@.status.n<=2)].metadata.name}", "a b");
        check("{.items[?(@.status.ready==true)].metadata.name}", "a");
        check("{.items[?(@.status.conditions)].metadata.name}", "b");
        check("{.items[?(@.status.conditions[?(@.type==\"Ready\")].status==\"True\")].metadata.name}", "b");
    }

    #[test]
    fn broken_templates_are_refused() {
        for bad in ["{.a", "{.a[}", "{range .a}{.b}", "{end}", "{.a[?(@.b==]}", "{\"x}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn relaxed_paths_need_no_braces() {
        let document = json!({"a": {"b": 1}});
        for path in ["a.b", ".a.b", "{a.b}", "{.a.b}"] {
            let template = Template::relaxed(path).expect(path);
            assert_eq!(template.select(&document), [&json!(1)], "{path}");
        }
    }
}
