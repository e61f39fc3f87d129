//! The field and label selectors of an access review: requirements, or a selector as a request writes it.

use keelson_api_types::field::{child, index};
use keelson_api_types::{FieldError, FieldSelector, LabelSelector, names};
use serde_json::{Value, json};

use crate::token::request::string_list;

/// What authorizers are told of a review's selector. Selectors only narrow: what is not understood may be left
/// out, and the review says so.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selector {
    pub text: Option<String>,
    /// Something has been left out.
    pub ignored: bool,
}

impl Selector {
    /// Of a `fieldSelector` or `labelSelector`.
    pub fn of(attributes: &Value, labels: bool) -> Self {
        if !attributes.is_object() {
            return Self::default();
        }
        if let Some(raw) = attributes["rawSelector"].as_str().filter(|raw| !raw.is_empty()) {
            let valid =
                if labels { LabelSelector::parse(raw).is_ok() } else { FieldSelector::parse(raw).is_ok() };
            return Self { text: valid.then(|| raw.to_owned()), ignored: !valid };
        }
        let requirements = items(attributes);
        let terms: Vec<String> =
            requirements.iter().filter_map(|r| if labels { label_term(r) } else { field_term(r) }).collect();
        Self { ignored: terms.len() < requirements.len(), text: (!terms.is_empty()).then(|| terms.join(",")) }
    }

    /// What the review's evaluation error says of it.
    pub fn complaint(&self, field: &str) -> Option<String> {
        let partially = if self.text.is_some() { "partially " } else { "" };
        self.ignored.then(|| format!("spec.resourceAttributes.{field} {partially}ignored due to parse error"))
    }
}

fn items(attributes: &Value) -> &[Value] {
    attributes["requirements"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn label_term(requirement: &Value) -> Option<String> {
    LabelSelector::from_object(Some(&json!({"matchExpressions": [requirement]}))).ok()?;
    let (key, values) = (requirement["key"].as_str()?, string_list(&requirement["values"]).join(","));
    Some(match requirement["operator"].as_str()? {
        "In" => format!("{key} in ({values})"),
        "NotIn" => format!("{key} notin ({values})"),
        "Exists" => key.to_owned(),
        _ => format!("!{key}"),
    })
}

/// Fields are compared with one value each.
fn field_term(requirement: &Value) -> Option<String> {
    let values = string_list(&requirement["values"]);
    let [value] = values.as_slice() else { return None };
    let operator = match requirement["operator"].as_str()? {
        "In" => "=",
        "NotIn" => "!=",
        _ => return None,
    };
    let escaped = value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
    Some(format!("{}{operator}{escaped}", requirement["key"].as_str()?))
}

/// Operators of newer clients are let through, so that their reviews are answered at all.
pub fn check(attributes: &Value, path: &str, labels: bool) -> Vec<FieldError> {
    if !attributes.is_object() {
        return Vec::new();
    }
    let mut errors = Vec::new();
    let raw = attributes["rawSelector"].as_str().unwrap_or_default();
    let requirements = items(attributes);
    if !raw.is_empty() && !requirements.is_empty() {
        let detail = "may not specified at the same time as requirements";
        errors.push(FieldError::invalid(child(path, "rawSelector"), raw, detail));
    }
    if raw.is_empty() && requirements.is_empty() {
        let detail = format!("when {path} is specified, requirements or rawSelector is required");
        errors.push(FieldError::required(child(path, "requirements"), detail));
    }
    for (i, requirement) in requirements.iter().enumerate() {
        let path = index(&child(path, "requirements"), i);
        let key = requirement["key"].as_str().unwrap_or_default();
        let values = string_list(&requirement["values"]);
        match requirement["operator"].as_str().unwrap_or_default() {
            "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
                child(&path, "values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
                child(&path, "values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            _ => {}
        }
        if labels {
            let of_key = names::qualified_name(key);
            errors.extend(of_key.into_iter().map(|m| FieldError::invalid(child(&path, "key"), key, m)));
            for (j, value) in values.iter().enumerate() {
                let at = index(&child(&path, "values"), j);
                let wrong = names::label_value(value);
                errors.extend(wrong.into_iter().map(|m| FieldError::invalid(at.as_str(), value.as_str(), m)));
            }
        } else if key.is_empty() {
            errors.push(FieldError::required(child(&path, "key"), "must be specified"));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_left_out_and_said() {
        let requirement = |key: &str, operator: &str, values: &[&str]| json!({"key": key, "operator": operator, "values": values});
        let fields = json!({"requirements": [requirement("spec.nodeName", "In", &["n,1"]), requirement("a", "Gt", &["1"])]});
        let got = Selector::of(&fields, false);
        assert_eq!(got.text.as_deref(), Some("spec.nodeName=n\\,1"));
        assert_eq!(
            got.complaint("fieldSelector").as_deref(),
            Some("spec.resourceAttributes.fieldSelector partially ignored due to parse error")
        );
        let labels = json!({"requirements": [requirement("a", "In", &["x", "y"]), json!({"key": "b", "operator": "DoesNotExist"})]});
        assert_eq!(
            Selector::of(&labels, true),
            Selector { text: Some("a in (x,y),!b".into()), ignored: false }
        );
        let broken = Selector::of(&json!({"rawSelector": "a in ("}), true);
        assert_eq!(
            broken.complaint("labelSelector").as_deref(),
            Some("spec.resourceAttributes.labelSelector ignored due to parse error")
        );
        assert_eq!(check(&json!({}), "p", true).len(), 1);
        assert_eq!(check(&json!({"requirements": [requirement("-", "In", &[])]}), "p", true).len(), 2);
    }
}
