//! `-f`: objects from files, folders and standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;

#[derive(Debug, Clone, Default, Args)]
pub struct FileArgs {
    /// File or folder with objects in YAML or JSON, or - for standard input; repeat it for several
    #[arg(short = 'f', long, value_delimiter = ',', value_hint = clap::ValueHint::AnyPath)]
    pub filename: Vec<PathBuf>,
    /// Go into the folders given by -f
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

/// An object and the file it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub source: String,
    pub object: Value,
}

impl FileArgs {
    pub fn is_empty(&self) -> bool {
        self.filename.is_empty()
    }

    /// All objects in order, lists taken apart.
    pub fn load(&self) -> anyhow::Result<Vec<Loaded>> {
        let mut loaded = Vec::new();
        for path in &self.filename {
            if path.as_os_str() == "-" {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("read standard input")?;
                objects("STDIN", &text, &mut loaded)?;
                continue;
            }
            if !path.exists() {
                bail!("the path {:?} does not exist", path.display().to_string());
            }
            for file in files(path, self.recursive)? {
                let text =
                    std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
                objects(&file.display().to_string(), &text, &mut loaded)?;
            }
        }
        if loaded.is_empty() {
            bail!("no objects passed to apply");
        }
        Ok(loaded)
    }
}

/// A file itself, or the YAML and JSON files of a folder in order of their names.
fn files(path: &Path, recursive: bool) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).with_context(|| format!("read the folder {}", path.display()))? {
        entries.push(entry.with_context(|| format!("read the folder {}", path.display()))?.path());
    }
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        if entry.is_dir() {
            if recursive {
                found.extend(files(&entry, true)?);
            }
        } else if entry.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json") {
            found.push(entry);
        }
    }
    Ok(found)
}

fn objects(source: &str, content: &str, loaded: &mut Vec<Loaded>) -> anyhow::Result<()> {
    for object in documents(source, content)? {
        let list = object["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
        match object.get("items").and_then(Value::as_array).filter(|_| list) {
            Some(items) => loaded
                .extend(items.iter().map(|item| Loaded { source: source.to_owned(), object: item.clone() })),
            None => loaded.push(Loaded { source: source.to_owned(), object }),
        }
    }
    Ok(())
}

/// The documents of a stream; an error names the file and, as the parser counts in the document, the line in the file.
fn documents(source: &str, content: &str) -> anyhow::Result<Vec<Value>> {
    if content.trim_start().starts_with('{') {
        let stream = serde_json::Deserializer::from_str(content).into_iter::<Value>();
        let parsed: Result<Vec<Value>, _> = stream.collect();
        // A flow mapping of YAML may begin so too.
        if let Ok(values) = parsed {
            return Ok(values);
        }
    }
    let mut parsed = Vec::new();
    for (first_line, text) in split(content) {
        let (value, duplicates) = keelson_machinery::decode::yaml(text.as_bytes())
            .map_err(|error| located(source, first_line, &error.to_string()))?;
        if let Some(message) = duplicates.first() {
            bail!("error parsing {source}: error converting YAML to JSON: {message}");
        }
        match value {
            Value::Null => {}
            Value::Object(_) => parsed.push(value),
            _ => bail!("error parsing {source}: line {first_line}: an object is expected, not {value}"),
        }
    }
    Ok(parsed)
}

/// The documents between `---` lines, each with the number of its first line.
fn split(content: &str) -> Vec<(usize, String)> {
    let mut documents = vec![(1, String::new())];
    for (number, line) in content.lines().enumerate() {
        if line.starts_with("---") && line[3..].trim_start().chars().next().is_none_or(|c| c == '#') {
            documents.push((number + 2, String::new()));
        } else if let Some((_, text)) = documents.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    documents
        .retain(|(_, text)| text.lines().any(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#')));
    documents
}

fn located(source: &str, first_line: usize, message: &str) -> anyhow::Error {
    let line = message.split_once("line ").and_then(|(before, rest)| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let number: usize = digits.parse().ok()?;
        Some(format!("{before}line {}{}", number + first_line - 1, &rest[digits.len()..]))
    });
    anyhow::anyhow!("error parsing {source}: {}", line.unwrap_or_else(|| message.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content: &str, kinds: &[&str]) {
        let mut loaded = Vec::new();
        objects("x.yaml", content, &mut loaded).expect("objects");
        let found: Vec<&str> = loaded.iter().map(|l| l.object["kind"].as_str().unwrap_or("?")).collect();
        assert_eq!(found, kinds, "{content}");
    }

    #[test]
    fn streams_and_lists_are_taken_apart() {
        check("kind: A\n---\n# nothing\n---\nkind: B\n", &["A", "B"]);
        check("{\"kind\": \"A\"}\n{\"kind\": \"B\"}", &["A", "B"]);
        check("kind: List\nitems:\n- kind: A\n- kind: B\n", &["A", "B"]);
        check("kind: ConfigMap\ndata:\n  a: |\n    x\n", &["ConfigMap"]);
    }

    #[test]
    fn broken_yaml_names_file_and_line() {
        let error =
            documents("web.yaml", "kind: A\n---\nkind: B\n  bad: x\n").expect_err("broken").to_string();
        assert!(error.starts_with("error parsing web.yaml: "), "{error}");
        assert!(error.contains("line 4"), "{error}");
    }
}
