//! The four kinds of patches, from content type to patched object.

use std::sync::{Arc, LazyLock};

use keelson_api_types::{StatusError, gofmt};
use keelson_machinery::apply::{self, Manager};
use keelson_machinery::{DecodeError, FieldValidation, cbor, decode, patch, prune};
use keelson_schema::{Link, List, ListKind, Shape, Type};
use serde_json::{Value, json};

use crate::options::WriteOptions;
use crate::registry::Resource;
use crate::verbs::write::Writer;

const APPLY_CBOR: &str = "application/apply-patch+cbor";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchKind {
    pub fn of(content_type: &str, resource: &Resource) -> Result<Self, StatusError> {
        const ALL: [&str; 5] = [
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
            "application/apply-patch+yaml",
            APPLY_CBOR,
        ];
        match content_type {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            // The schema of a custom resource has no patch strategies.
            "application/strategic-merge-patch+json" if resource.custom.is_none() => Ok(Self::Strategic),
            "application/apply-patch+yaml" | APPLY_CBOR => Ok(Self::Apply),
            _ => {
                let all = ALL.iter().filter(|t| resource.custom.is_none() || !t.contains("strategic"));
                Err(StatusError::unsupported_media_type(&all.copied().collect::<Vec<_>>()))
            }
        }
    }
}

/// A decoded patch.
pub struct Patch {
    kind: PatchKind,
    body: Value,
    /// What strict decoding has against the patch itself.
    problems: Vec<String>,
}

impl Patch {
    pub fn parse(kind: PatchKind, content_type: &str, body: &[u8]) -> Result<Self, StatusError> {
        let fail = |prefix: &'static str| {
            move |error: DecodeError| {
                let text = match error {
                    DecodeError::Json(text) | DecodeError::Cbor(text) => text,
                    other => other.to_string(),
                };
                StatusError::bad_request(format!("{prefix}: {text}"))
            }
        };
        if content_type == APPLY_CBOR {
            let body = cbor::decode(None, body).map_err(fail("error decoding YAML"))?;
            return Ok(Self { kind, body, problems: Vec::new() });
        }
        if kind == PatchKind::Apply {
            const YAML: &str = "error decoding YAML: error converting YAML to JSON";
            let (body, problems) = decode::yaml(body).map_err(fail(YAML))?;
            return Ok(Self { kind, body, problems });
        }
        let (value, duplicates) = decode::json_strict(body).map_err(fail("error decoding patch"))?;
        let problems = match kind {
            PatchKind::Json => json_patch_problems(body),
            _ if duplicates.is_empty() => duplicates,
            _ => decode::strict::problems(None, body),
        };
        Ok(Self { kind, body: value, problems })
    }

    pub fn kind(&self) -> PatchKind {
        self.kind
    }

    /// The object that the patch makes of `old`, in the served version, not yet checked against its schema unless
    /// it was applied.
    pub fn apply(
        &self,
        writer: &Writer<'_>,
        name: &str,
        old: Option<&Value>,
        warnings: &mut Vec<String>,
    ) -> Result<Value, StatusError> {
        let Writer { resource, options, subresource, .. } = *writer;
        if self.kind != PatchKind::Apply {
            return self.plain(&resource.ty, old.unwrap_or(&Value::Null));
        }
        let now = keelson_api_types::meta::now_rfc3339();
        let manager = Manager {
            name: &options.field_manager,
            api_version: &resource.gvr.api_version(),
            subresource,
            resets: resource.traits.resets(subresource),
            versions: writer.versions(),
            now: &now,
        };
        self.server_side(&resource.ty, options, &manager, name, old, warnings)
    }

    /// One of the three patches that need nothing but the schema.
    pub fn plain(&self, ty: &Type, old: &Value) -> Result<Value, StatusError> {
        match self.kind {
            PatchKind::Json => patch::json_patch(old, &self.body).map_err(|e| e.to_status()),
            PatchKind::Strategic => patch::strategic(ty, old, &self.body).map_err(|e| e.to_status()),
            PatchKind::Merge | PatchKind::Apply => Ok(patch::merge_patch(old, &self.body)),
        }
    }

    /// Makes the result of a plain patch an object of its type. What strict decoding has against patch and result is
    /// refused or warned of.
    pub fn check(
        &self,
        ty: &Type,
        validation: FieldValidation,
        object: &mut Value,
        warnings: &mut Vec<String>,
    ) -> Result<(), StatusError> {
        let checked = prune::check(ty, object, validation).and_then(|unknown| {
            prune::strict(validation, self.problems.iter().cloned().chain(unknown).collect())
        });
        let said = checked.map_err(|error| {
            let shown = match self.kind {
                PatchKind::Strategic => gofmt::plus_v(&self.body),
                _ => object.to_string(),
            };
            patch::invalid_result(shown, &error.to_string())
        })?;
        warnings.extend(said);
        Ok(())
    }

    /// Server-side apply: merges what the manager applies into the live object.
    pub fn server_side(
        &self,
        ty: &Type,
        options: &WriteOptions,
        manager: &Manager<'_>,
        name: &str,
        old: Option<&Value>,
        warnings: &mut Vec<String>,
    ) -> Result<Value, StatusError> {
        if !self.body.is_object() {
            let found = prune::kind_of(&self.body);
            return Err(StatusError::bad_request(format!(
                "error decoding YAML: error unmarshaling JSON: json: cannot unmarshal {found} into Go value of type \
                 map[string]interface {{}}"
            )));
        }
        let run = |applied: &Value| {
            apply::apply(ty, old, applied, manager, options.force).map_err(|e| e.to_status())
        };
        let mut applied = self.body.clone();
        match prune::check(ty, &mut applied, FieldValidation::Warn) {
            Ok(unknown) if unknown.is_empty() => {}
            // Apply refuses what its schema does not have whatever the validation, in its own words.
            Ok(_) => drop(run(&self.body)?),
            Err(error) => {
                run(&self.body)?;
                return Err(StatusError::bad_request(error.to_string()));
            }
        }
        crate::meta::meta_mut(&mut applied).entry("name").or_insert_with(|| name.into());
        let merged = run(&applied)?;
        let said = prune::strict(options.validation, self.problems.clone()).map_err(|_| {
            let problems = self.problems.join(", ");
            StatusError::bad_request(format!(
                "error strict decoding YAML: error converting YAML to JSON: {problems}"
            ))
        })?;
        warnings.extend(said);
        Ok(merged)
    }
}

/// Unknown and repeated members of a JSON patch's operations.
fn json_patch_problems(body: &[u8]) -> Vec<String> {
    static OPERATIONS: LazyLock<Option<Type>> = LazyLock::new(|| {
        let (text, any) = (json!({"type": "string"}), json!({"x-kubernetes-preserve-unknown-fields": true}));
        let operation =
            json!({"type": "object", "properties": {"op": text, "path": text, "from": text, "value": any}});
        let item = Link::Owned(Arc::new(keelson_schema::from_json_schema(&operation).ok()?));
        Some(Type::new(Shape::List(List { item, kind: ListKind::Atomic })))
    });
    let Some(ty) = &*OPERATIONS else { return Vec::new() };
    decode::strict::problems(Some(ty), body).into_iter().map(|p| format!("json patch {p}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_is_checked_like_a_body() {
        let check = |kind, body: &'static str, expected: &[&str]| {
            let patch = Patch::parse(kind, "", body.as_bytes()).unwrap();
            assert_eq!(patch.problems, expected, "{body}");
        };
        check(PatchKind::Merge, r#"{"a":{"b":1,"b":2}}"#, &[r#"duplicate field "a.b""#]);
        check(
            PatchKind::Json,
            r#"[{"op":"add","path":"/a","path":"/b","foo":1,"value":{"x":1,"x":2}}]"#,
            &[r#"json patch duplicate field "[0].path""#, r#"json patch unknown field "[0].foo""#],
        );
        let refused = |kind, body: &'static str, expected: &str| {
            let error = Patch::parse(kind, "", body.as_bytes()).err().unwrap();
            assert!(error.message().starts_with(expected), "{}", error.message());
        };
        refused(PatchKind::Merge, "{", "error decoding patch: unexpected end of JSON input");
        refused(PatchKind::Apply, "a: [", "error decoding YAML: error converting YAML to JSON: yaml: ");
    }
}
