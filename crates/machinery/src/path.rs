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

    /// `spec.containers[0].name`, as upstream writes paths of unknown fields.
    pub fn dotted(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, true);
        out
    }

    /// Only the declared fields, joined by dots: Go's field stack.
    pub fn fields(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, false);
        out
    }

    fn write(&self, out: &mut String, all: bool) {
        if let Some(parent) = self.parent {
            parent.write(out, all);
        }
        match self.step {
            Some(Step::Field(name)) => push(out, name),
            Some(Step::Key(name)) if all => push(out, name),
            Some(Step::Index(i)) if all => write!(out, "[{i}]").unwrap_or_default(),
            _ => {}
        }
    }
}

fn push(out: &mut String, name: &str) {
    if !out.is_empty() {
        out.push('.');
    }
    out.push_str(name);
}
