//! Tables: the columns of `kubectl get`, from the machinery for built-in kinds, from the definition for
//! custom ones.

use keelson_machinery::table::{self, Timestamp};
use serde_json::Value;

use crate::registry::Resource;

/// A table up to and including the opening bracket of its rows; `metadata` is encoded.
pub fn table_head(resource: &Resource, api_version: &str, columns: bool, metadata: &str) -> String {
    let definitions: Vec<Value> = match (columns, &resource.custom) {
        (false, _) => Vec::new(),
        (true, Some(custom)) => {
            table::generic_columns(custom.columns()).iter().map(table::Column::to_value).collect()
        }
        (true, None) => {
            let gvr = &resource.gvr;
            table::columns(&gvr.group, &gvr.version, &gvr.resource)
                .iter()
                .map(table::Column::to_value)
                .collect()
        }
    };
    let definitions = Value::from(definitions);
    format!(
        "{{\"kind\":\"Table\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"columnDefinitions\":{definitions},\"rows\":["
    )
}

/// One row's cells.
pub fn cells(resource: &Resource, object: &Value) -> Vec<Value> {
    let now = Timestamp::now();
    match &resource.custom {
        Some(custom) => table::generic(custom.columns(), object, now),
        None => table::row(&resource.gvr, object, now),
    }
}
