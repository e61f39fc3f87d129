//! The objects that a binding gives a policy as its parameters.

use std::sync::Arc;

use keelson_api_types::{Gvk, Gvr, LabelSelector, meta};
use serde_json::{Map, Value};

use super::super::text;
use crate::types::Objects;

/// The resource of a policy's `paramKind`.
pub struct Kind {
    gvr: Gvr,
    namespaced: bool,
}

/// `spec.paramRef` of a binding.
pub struct ParamRef {
    name: String,
    namespace: String,
    selector: Option<LabelSelector>,
    denies_without: bool,
}

pub fn kind(objects: &dyn Objects, gvk: Option<&Gvk>) -> Result<Option<Kind>, String> {
    let Some(gvk) = gvk else { return Ok(None) };
    match objects.resource_of(gvk) {
        Some((gvr, namespaced)) => Ok(Some(Kind { gvr, namespaced })),
        None => Err(format!("failed to find resource referenced by paramKind: '{gvk}'")),
    }
}

impl ParamRef {
    pub fn read(value: &Value) -> Self {
        let selector = Some(&value["selector"]).filter(|v| v.is_object());
        Self {
            name: text(value, "/name").to_owned(),
            namespace: text(value, "/namespace").to_owned(),
            selector: selector
                .map(|v| LabelSelector::from_object(Some(v)).unwrap_or_else(|_| LabelSelector::nothing())),
            denies_without: value["parameterNotFoundAction"] == "Deny",
        }
    }

    /// The parameters, in the version of the policy's kind.
    ///
    /// # Errors
    /// Why the binding cannot be evaluated, in upstream's words.
    pub async fn find(
        &self,
        objects: &dyn Objects,
        kind: &Kind,
        request_namespace: &str,
    ) -> Result<Vec<Option<Arc<Value>>>, String> {
        let namespace = match (kind.namespaced, self.namespace.as_str(), request_namespace) {
            (false, "", _) => "",
            (false, ..) => {
                return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into());
            }
            (true, "", "") => {
                return Err(
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                        .into(),
                );
            }
            (true, "", of_request) => of_request,
            (true, own, _) => own,
        };
        let name = Some(&*self.name).filter(|_| self.selector.is_none());
        let found = objects.shown(&kind.gvr, namespace, name).await;
        let mut found = found.map_err(|e| e.message().to_owned())?;
        if let Some(selector) = &self.selector {
            found.retain(|o| selector.matches(meta::labels(o).unwrap_or(&Map::new())));
        }
        if found.is_empty() && self.denies_without {
            return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
        }
        Ok(found.into_iter().map(Some).collect())
    }
}
