//! What is computed and never stored (scales, reviews, tokens), in the form that a client accepts.

use std::sync::LazyLock;

use http::{HeaderMap, StatusCode};
use keelson_api_types::{Gvk, Gvr, StatusError};
use keelson_machinery::table::{self, Column, Timestamp};
use serde_json::{Value, json};

use crate::app::Call;
use crate::body::Response;
use crate::negotiate::{Accepted, Form, Offer, accepted};
use crate::presenter::IncludeObject;
use crate::response;

/// A custom object's scale, as if a definition had these printer columns.
static SCALE_COLUMNS: LazyLock<[Value; 3]> = LazyLock::new(|| {
    [
        json!({"name": "Desired", "type": "integer", "jsonPath": ".spec.replicas",
            "description": "Number of desired replicas"}),
        json!({"name": "Available", "type": "integer", "jsonPath": ".status.replicas",
            "description": "Number of actual replicas"}),
        json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}),
    ]
});

pub struct View {
    accepted: Accepted,
    include_object: IncludeObject,
    /// What is shown stands for a custom object, whose columns are of a definition's kind.
    pub custom: bool,
}

impl View {
    /// Of an object of this kind; a scale is the only one that upstream prints.
    pub fn of(call: &Call, gvk: &Gvk) -> Result<Self, StatusError> {
        let offer = if gvk.kind == "Scale" { Offer::BUILTIN } else { Offer::VIEW };
        let accepted = accepted(&call.headers, call.query.get("pretty"), offer)?;
        accepted.check(false, &gvk.group, &gvk.kind)?;
        let include_object = match accepted.form {
            Form::Table => IncludeObject::parse(call.query.get("includeObject"))?,
            _ => IncludeObject::default(),
        };
        Ok(Self { accepted, include_object, custom: false })
    }

    pub fn respond(&self, headers: &HeaderMap, status: StatusCode, object: Value) -> Response {
        let shown = match self.accepted.form {
            Form::Whole => object,
            Form::Metadata | Form::MetadataList => self.partial(&object),
            Form::Table => self.table(object),
        };
        response::value(headers, status, self.accepted, &shown)
    }

    fn partial(&self, object: &Value) -> Value {
        json!({"kind": "PartialObjectMetadata", "apiVersion": self.accepted.meta, "metadata": object["metadata"]})
    }

    fn table(&self, object: Value) -> Value {
        let now = Timestamp::now();
        let (columns, cells) = if self.custom {
            (table::generic_columns(&*SCALE_COLUMNS), table::generic(&*SCALE_COLUMNS, &object, now))
        } else {
            let scales = Gvr::new("autoscaling", "v1", "scales");
            let columns = table::columns(&scales.group, &scales.version, &scales.resource);
            (columns, table::row(&scales, &object, now))
        };
        let mut row = json!({"cells": cells});
        let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
        match self.include_object {
            IncludeObject::None => {}
            IncludeObject::Metadata => row["object"] = self.partial(&object),
            IncludeObject::Object => row["object"] = object,
        }
        json!({
            "kind": "Table",
            "apiVersion": self.accepted.meta,
            "metadata": metadata,
            "columnDefinitions": columns.iter().map(Column::to_value).collect::<Vec<_>>(),
            "rows": [row],
        })
    }
}
