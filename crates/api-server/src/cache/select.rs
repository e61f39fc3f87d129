//! Which entries of a resource a request is about: scope, label selector, field selector.

use keelson_api_types::{FieldSelector, LabelSelector, StatusError};

use super::entry::{Entry, Labels};

impl keelson_api_types::selector::Labels for Labels {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key)
    }
}

/// A selection, ready to be asked about entries.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Empty for all namespaces.
    namespace: String,
    labels: LabelSelector,
    fields: Vec<Term>,
}

#[derive(Debug, Clone)]
struct Term {
    field: Field,
    equal: bool,
    value: String,
}

#[derive(Debug, Clone, Copy)]
enum Field {
    Name,
    Namespace,
    /// A position among the resource's selectable fields.
    Own(usize),
}

impl Selection {
    /// Refuses fields that the resource does not select by; `names` are those beyond metadata's.
    pub fn new<S: AsRef<str>>(
        namespace: &str,
        labels: LabelSelector,
        fields: &FieldSelector,
        names: &[S],
    ) -> Result<Self, StatusError> {
        let resolve = |name: &str| match name {
            "metadata.name" => Some(Field::Name),
            "metadata.namespace" => Some(Field::Namespace),
            other => names.iter().position(|n| n.as_ref() == other).map(Field::Own),
        };
        let mut terms = Vec::with_capacity(fields.terms.len());
        for term in &fields.terms {
            let field = resolve(&term.field).ok_or_else(|| unknown(&term.field, names.is_empty()))?;
            terms.push(Term { field, equal: term.equal, value: term.value.clone() });
        }
        Ok(Self { namespace: namespace.to_owned(), labels, fields: terms })
    }

    /// The same scope without selectors, but for the one name that matches.
    pub fn in_namespace(&self) -> Self {
        let name = |t: &&Term| t.equal && matches!(t.field, Field::Name);
        let fields = self.fields.iter().filter(name).cloned().collect();
        Self { namespace: self.namespace.clone(), labels: LabelSelector::default(), fields }
    }

    /// The prefix that all selected keys share.
    pub fn prefix(&self) -> String {
        if self.namespace.is_empty() { String::new() } else { format!("{}/", self.namespace) }
    }

    /// Whether a selector (not only the scope) narrows the result.
    pub fn is_filtered(&self) -> bool {
        !self.labels.is_everything() || !self.fields.is_empty()
    }

    /// The one key that can match, if the selection says so: in all namespaces a name is no key.
    pub fn exact_key(&self, namespaced: bool) -> Option<String> {
        if namespaced && self.namespace.is_empty() {
            return None;
        }
        let name = self.fields.iter().find(|t| t.equal && matches!(t.field, Field::Name))?;
        Some(format!("{}{}", self.prefix(), name.value))
    }

    pub fn matches(&self, entry: &Entry) -> bool {
        (self.namespace.is_empty() || entry.namespace() == self.namespace) && self.matches_in_scope(entry)
    }

    /// Like [`Self::matches`] for entries already known to be in the namespace.
    pub fn matches_in_scope(&self, entry: &Entry) -> bool {
        self.fields.iter().all(|term| {
            let value = match term.field {
                Field::Name => entry.name(),
                Field::Namespace => entry.namespace(),
                Field::Own(at) => entry.fields.get(at).unwrap_or_default(),
            };
            (value == term.value) == term.equal
        }) && self.labels.matches(&entry.labels)
    }
}

fn unknown(field: &str, only_metadata: bool) -> StatusError {
    if !only_metadata {
        return unsupported_field(field);
    }
    StatusError::bad_request(format!(
        "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
    ))
}

/// The refusal of a field that its kind, which has others, does not select by.
pub fn unsupported_field(field: &str) -> StatusError {
    StatusError::bad_request(format!("field label not supported: {field}"))
}
