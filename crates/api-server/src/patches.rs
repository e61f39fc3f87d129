//! The four kinds of patches, from content type to patched object.

use bytes::Bytes;
use keelson_api_types::StatusError;
use keelson_machinery::apply::{self, Manager};
use keelson_machinery::patch;
use keelson_schema::Type;
use serde_json::Value;

use crate::options::WriteOptions;
use crate::registry::Resource;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchKind {
    pub fn of(content_type: &str, resource: &Resource) -> Result<Self, StatusError> {
        const ALL: [&str; 4] = [
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
            "application/apply-patch+yaml",
        ];
        match content_type {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            // The schema of a custom resource has no patch strategies.
            "application/strategic-merge-patch+json" if resource.custom.is_none() => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
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
}

impl Patch {
    pub fn parse(kind: PatchKind, body: &Bytes) -> Result<Self, StatusError> {
        let decoded = match kind {
            PatchKind::Apply => keelson_machinery::decode::yaml(body),
            _ => keelson_machinery::decode::json_strict(body),
        };
        let (body, _) =
            decoded.map_err(|e| StatusError::bad_request(format!("error decoding patch: {e}")))?;
        Ok(Self { kind, body })
    }

    /// Parses a body whose content type names another kind than the patch is treated as.
    pub fn parse_as(kind: PatchKind, content_type: &str, body: &Bytes) -> Result<Self, StatusError> {
        let mut patch = match content_type {
            "application/apply-patch+yaml" => Self::parse(PatchKind::Apply, body)?,
            _ => Self::parse(kind, body)?,
        };
        patch.kind = kind;
        Ok(patch)
    }

    pub fn kind(&self) -> PatchKind {
        self.kind
    }
}

impl Patch {
    /// The object that the patch makes of `old`, in the served version.
    pub fn apply(
        &self,
        resource: &Resource,
        options: &WriteOptions,
        subresource: &str,
        name: &str,
        old: Option<&Value>,
        warnings: &mut Vec<String>,
    ) -> Result<Value, StatusError> {
        if self.kind == PatchKind::Apply {
            return self.server_side(resource, options, subresource, name, old, warnings);
        }
        self.plain(&resource.ty, old.unwrap_or(&Value::Null))
    }

    /// One of the three patches that need nothing but the schema.
    pub fn plain(&self, ty: &Type, old: &Value) -> Result<Value, StatusError> {
        match self.kind {
            PatchKind::Json => patch::json_patch(old, &self.body).map_err(|e| e.to_status()),
            PatchKind::Strategic => patch::strategic(ty, old, &self.body).map_err(|e| e.to_status()),
            PatchKind::Merge | PatchKind::Apply => Ok(patch::merge_patch(old, &self.body)),
        }
    }

    /// Server-side apply: merges what the manager applies into the live object.
    fn server_side(
        &self,
        resource: &Resource,
        options: &WriteOptions,
        subresource: &str,
        name: &str,
        old: Option<&Value>,
        warnings: &mut Vec<String>,
    ) -> Result<Value, StatusError> {
        let mut applied = self.body.clone();
        if !applied.is_object() {
            return Err(StatusError::bad_request("error decoding YAML: an object is needed"));
        }
        crate::codec::check_fields(resource, &mut applied, options.validation, warnings)?;
        crate::meta::meta_mut(&mut applied).entry("name").or_insert_with(|| name.into());
        let now = keelson_api_types::meta::now_rfc3339();
        let api_version = resource.gvr.api_version();
        let manager = Manager {
            name: &options.field_manager,
            api_version: &api_version,
            subresource,
            resets: resource.traits.resets(subresource),
            now: &now,
        };
        apply::apply(&resource.ty, old, &applied, &manager, options.force).map_err(|e| e.to_status())
    }
}
