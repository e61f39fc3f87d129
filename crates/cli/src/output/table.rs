//! Tables made by the server.

use serde_json::Value;

use crate::tabs;
use crate::value::{list, number, text};

/// What the command line adds to the server's columns.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub wide: bool,
    pub no_headers: bool,
    pub with_namespace: bool,
    pub show_labels: bool,
    /// Keys of labels with a column each.
    pub label_columns: Vec<String>,
    /// Names become `kind/name` when several types are shown.
    pub kind_prefix: Option<String>,
    /// The first column tells what happened.
    pub with_event: bool,
}

/// Rows of one type; keeps columns aligned over several prints, as a watch needs.
#[derive(Debug, Default)]
pub struct TablePrinter {
    options: Options,
    columns: Vec<(usize, String)>,
    widths: Vec<usize>,
    header_printed: bool,
}

impl TablePrinter {
    pub fn new(options: Options) -> TablePrinter {
        TablePrinter { options, ..TablePrinter::default() }
    }

    /// The lines for a `Table`; the header comes before the first.
    pub fn lines(&mut self, table: &Value, event: &str) -> String {
        self.learn_columns(table);
        let mut lines: Vec<Vec<String>> = Vec::new();
        if !self.header_printed && !self.options.no_headers && !self.columns.is_empty() {
            self.header_printed = true;
            lines.push(self.header());
        }
        lines.extend(list(table, "/rows").iter().map(|row| self.row(row, event)));
        self.align(&lines)
    }

    fn learn_columns(&mut self, table: &Value) {
        let definitions = list(table, "/columnDefinitions");
        if !definitions.is_empty() {
            let shown = definitions
                .iter()
                .enumerate()
                .filter(|(_, c)| self.options.wide || number(c, "/priority") == 0);
            self.columns = shown.map(|(index, c)| (index, text(c, "/name").to_uppercase())).collect();
        }
    }

    fn header(&self) -> Vec<String> {
        let options = &self.options;
        let mut cells = Vec::new();
        cells.extend(options.with_event.then(|| "EVENT".to_owned()));
        cells.extend(options.with_namespace.then(|| "NAMESPACE".to_owned()));
        cells.extend(self.columns.iter().map(|(_, name)| name.clone()));
        cells.extend(
            options.label_columns.iter().map(|key| key.rsplit('/').next().unwrap_or(key).to_uppercase()),
        );
        cells.extend(options.show_labels.then(|| "LABELS".to_owned()));
        cells
    }

    fn row(&self, row: &Value, event: &str) -> Vec<String> {
        let options = &self.options;
        let labels = crate::value::map(row, "/object/metadata/labels");
        let values = list(row, "/cells");
        let mut cells = Vec::new();
        cells.extend(options.with_event.then(|| event.to_owned()));
        cells.extend(options.with_namespace.then(|| text(row, "/object/metadata/namespace").to_owned()));
        for (position, (index, _)) in self.columns.iter().enumerate() {
            let cell = values.get(*index).map(cell_text).unwrap_or_default();
            cells.push(match &options.kind_prefix {
                Some(kind) if position == 0 => format!("{kind}/{cell}"),
                _ => cell,
            });
        }
        let value_of =
            |key: &String| labels.and_then(|l| l.get(key)).and_then(Value::as_str).unwrap_or_default();
        cells.extend(options.label_columns.iter().map(|key| value_of(key).to_owned()));
        cells.extend(options.show_labels.then(|| labels_text(labels)));
        cells
    }

    /// Widths only grow, so that later rows stand below earlier ones.
    fn align(&mut self, lines: &[Vec<String>]) -> String {
        use unicode_width::UnicodeWidthStr;
        let longest = lines.iter().map(Vec::len).max().unwrap_or_default();
        self.widths.resize(self.widths.len().max(longest), 0);
        for line in lines {
            for (width, cell) in self.widths.iter_mut().zip(line) {
                *width = (*width).max(cell.width() + tabs::TABLE.padding).max(tabs::TABLE.min_width);
            }
        }
        let mut out = String::new();
        for line in lines {
            for (index, cell) in line.iter().enumerate() {
                out.push_str(cell);
                if index + 1 < line.len() {
                    let gap = self.widths[index].saturating_sub(cell.width());
                    out.extend(std::iter::repeat_n(' ', gap));
                }
            }
            out.push('\n');
        }
        out
    }
}

/// `a=1,b=2`, `<none>` without labels.
pub fn labels_text(labels: Option<&serde_json::Map<String, Value>>) -> String {
    match labels {
        Some(labels) if !labels.is_empty() => {
            let pairs: Vec<String> =
                labels.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
            pairs.join(",")
        }
        _ => "<none>".to_owned(),
    }
}

/// A cell on one line: what follows a line break is left out.
fn cell_text(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => match text.find(['\n', '\r', '\u{c}']) {
            Some(end) => format!("{}...", &text[..end]),
            None => text.replace('\t', "\\t"),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(options: Options, expected: &str) {
        let row = |name: &str, restarts: i64, labels: Value| {
            json!({"cells": [name, restarts, "10.0.0.1"],
                "object": {"metadata": {"name": name, "namespace": "ns", "labels": labels}}})
        };
        let table = json!({
            "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Restarts", "priority": 0}, {"name": "IP", "priority": 1}],
            "rows": [row("a", 0, json!({"app": "x"})), row("long-name", 12, Value::Null)],
        });
        assert_eq!(TablePrinter::new(options).lines(&table, "ADDED"), expected);
    }

    #[test]
    fn tables_show_the_columns_wanted() {
        check(Options::default(), "NAME        RESTARTS\na           0\nlong-name   12\n");
        check(Options { no_headers: true, ..Options::default() }, "a           0\nlong-name   12\n");
        check(
            Options { wide: true, with_namespace: true, ..Options::default() },
            "NAMESPACE   NAME        RESTARTS   IP\nns          a           0          10.0.0.1\nns          long-name   12         10.0.0.1\n",
        );
        check(
            Options {
                label_columns: vec!["k.io/app".into(), "app".into()],
                show_labels: true,
                ..Options::default()
            },
            "NAME        RESTARTS   APP   APP   LABELS\na           0                x     app=x\nlong-name   12                     <none>\n",
        );
        check(
            Options { kind_prefix: Some("pod".into()), ..Options::default() },
            "NAME            RESTARTS\npod/a           0\npod/long-name   12\n",
        );
    }
}
