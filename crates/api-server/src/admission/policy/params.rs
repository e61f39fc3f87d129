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
        let found = match &self.selector {
            None => objects.get(&kind.gvr, namespace, &self.name).into_iter().collect(),
            Some(selector) => {
                let mut all = objects.list(&kind.gvr, namespace);
                all.retain(|o| selector.matches(meta::labels(o).unwrap_or(&Map::new())));
                all
            }
        };
        if found.is_empty() && self.denies_without {
            return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
        }
        let mut params = Vec::with_capacity(found.len());
        for object in found {
            let shown = objects.as_served(&kind.gvr, Value::clone(&object)).await;
            params.push(Some(Arc::new(shown.map_err(|e| e.message().to_owned())?)));
        }
        Ok(params)
    }
}
