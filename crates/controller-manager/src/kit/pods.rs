//! Pods from templates, and the events that tell of them.

use keelson_client::{EventRecorder, EventType, Meta, Projected, object_ref};
use serde_json::{Map, Value, json};

use super::{Bare, Error, Requests, controller_ref};
use crate::views::Pod;

/// A pod from a template, owned by `owner`. The API server makes its name from the owner's.
pub fn from_template<O: Projected>(template: &Value, owner: &O) -> Value {
    let mut name = owner.meta().name.clone();
    // Room for a dash and five random characters in a name of 253; longer ones are cut by the API server too.
    name.truncate(247);
    let mut metadata = Map::new();
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template.pointer(&format!("/metadata/{field}")).filter(|v| !v.is_null()) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    metadata.insert("generateName".to_owned(), format!("{name}-").into());
    metadata.insert("ownerReferences".to_owned(), json!([controller_ref(owner)]));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": template.get("spec").cloned().unwrap_or_default(),
    })
}

/// Creates a pod and tells so in an event of its owner.
pub async fn create<O: Projected>(
    requests: &Requests,
    events: &EventRecorder,
    owner: &O,
    pod: &Value,
) -> Result<Bare, Error> {
    let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
    match requests.create::<Pod>(namespace, pod).await {
        Ok(made) => {
            let message = format!("Created pod: {}", made.metadata.name);
            events.event(&object_ref(owner), EventType::Normal, "SuccessfulCreate", message);
            Ok(made)
        }
        Err(error) => {
            if !error.is_namespace_terminating() {
                let message = format!("Error creating: {}", error.answer());
                events.event(&object_ref(owner), EventType::Warning, "FailedCreate", message);
            }
            Err(error)
        }
    }
}

/// Deletes a pod and tells so in an event of its owner. One that is gone already is fine.
pub async fn delete<O: Projected>(
    requests: &Requests,
    events: &EventRecorder,
    owner: &O,
    pod: &Meta,
) -> Result<(), Error> {
    match requests.delete::<Pod>(pod).await {
        Ok(()) => {
            let message = format!("Deleted pod: {}", pod.name);
            events.event(&object_ref(owner), EventType::Normal, "SuccessfulDelete", message);
            Ok(())
        }
        Err(error) if error.is_not_found() => Err(error),
        Err(error) => {
            let message = format!("Error deleting: {}", error.answer());
            events.event(&object_ref(owner), EventType::Warning, "FailedDelete", message);
            Err(error)
        }
    }
}
