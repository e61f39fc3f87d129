//! Where in an object we are: a chain on the stack that becomes text only when there is something to say.

use std::fmt::Write;

/// One step into an object.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// A declared field of a struct.
    Field(&'a str),
    /// A key of a map, or an undeclared field.
    Key(&'a str),
    Index(usize),
    /// A declared field that Go decodes on its own: its field stack starts anew.
    Apart(&'a str),
}

/// A step and those before it; `None` at the root.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Option<Step<'a>>,
}

impl<'a> Path<'a> {
    pub const ROOT: Path<'static> = Path { parent: None, step: None };

    pub fn then(&'a self, step: Step<'a>) -> Path<'a> {
        Path { parent: Some(self), step: Some(step) }
    }

    pub fn is_root(&self) -> bool {
        self.parent.is_none()
    }

    /// `spec.containers[0].name`, as upstream writes paths of unknown fields.
    pub fn dotted(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, Style::Dotted);
        out
    }

    /// `spec.labels[app]`, as upstream writes paths of field errors.
    pub fn bracketed(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, Style::Bracketed);
        out
    }

    /// Only the declared fields, joined by dots: Go's field stack.
    pub fn fields(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, Style::Fields);
        out
    }

    fn write(&self, out: &mut String, style: Style) {
        if let Some(parent) = self.parent {
            parent.write(out, style);
        }
        match (self.step, style) {
            (Some(Step::Apart(_)), Style::Fields) => out.clear(),
            (Some(Step::Field(name) | Step::Apart(name)), _) => push(out, name),
            (Some(Step::Key(name)), Style::Dotted) => push(out, name),
            (Some(Step::Key(name)), Style::Bracketed) => write!(out, "[{name}]").unwrap_or_default(),
            (Some(Step::Index(i)), Style::Dotted | Style::Bracketed) => {
                write!(out, "[{i}]").unwrap_or_default()
            }
            _ => {}
        }
    }
}

#[derive(Clone, Copy)]
enum Style {
    Dotted,
    Bracketed,
    Fields,
}

fn push(out: &mut String, name: &str) {
    if !out.is_empty() {
        out.push('.');
    }
    out.push_str(name);
}
