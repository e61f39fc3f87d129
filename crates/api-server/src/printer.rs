//! Tables: the columns of `kubectl get`, from the machinery for built-in kinds, from the definition for
//! custom ones.

use serde_json::Value;

use crate::registry::Resource;

/// A table up to and including the opening bracket of its rows.
pub fn table_head(_resource: &Resource, _columns: bool, metadata: &str) -> String {
    format!(
        "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata},\"columnDefinitions\":[],\"rows\":["
    )
}

/// One row's cells.
pub fn cells(_resource: &Resource, _object: &Value) -> Vec<Value> {
    Vec::new()
}
