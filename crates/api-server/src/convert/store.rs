//! Custom objects between the store and the version of a request.

use std::sync::Arc;

use bytes::Bytes;
use keelson_api_types::StatusError;
use serde_json::Value;

use crate::cache::{Entry, Json, Labels, splice_revision};
use crate::codec;
use crate::custom::Custom;
use crate::registry::Resource;
use crate::types::Objects;

/// Entries as the resource's version shows them: those that are in it already as they are, the others converted in one
/// go. An entry remembers what it was converted to.
pub async fn shown(
    objects: &dyn Objects,
    resource: &Resource,
    mut entries: Vec<Arc<Entry>>,
) -> Result<Vec<Arc<Entry>>, StatusError> {
    let Some(custom) = &resource.custom else { return Ok(entries) };
    let mut foreign = Vec::new();
    for (i, slot) in entries.iter_mut().enumerate() {
        if custom.is_own(&slot.json) {
            continue;
        }
        match slot.remembered(custom.id) {
            Some(entry) => *slot = entry,
            None => foreign.push(i),
        }
    }
    let parsed: Result<Vec<Value>, _> = foreign.iter().map(|i| stored(&entries[*i])).collect();
    let converted = custom.versions.convert(objects, parsed?, &resource.gvr.api_version()).await?;
    for (i, object) in foreign.into_iter().zip(converted) {
        let entry = Arc::new(entry(resource, &entries[i], &object));
        entries[i].remember(custom.id, entry.clone());
        entries[i] = entry;
    }
    Ok(entries)
}

/// An object as it is written: in the storage version.
pub async fn to_storage(
    objects: &dyn Objects,
    custom: &Custom,
    object: &Value,
) -> Result<Bytes, StatusError> {
    let stored = &custom.versions.stored;
    if object["apiVersion"] == **stored {
        return Ok(codec::encode(object).into());
    }
    let mut object = object.clone();
    crate::meta::meta_mut(&mut object).remove("resourceVersion");
    let converted = custom.versions.convert(objects, vec![object], stored).await?;
    Ok(converted.first().map(codec::encode).unwrap_or_default().into())
}

/// The object without its revision, which is no business of a converter.
fn stored(entry: &Entry) -> Result<Value, StatusError> {
    let mut object = entry.decode().map_err(StatusError::internal)?;
    crate::meta::meta_mut(&mut object).remove("resourceVersion");
    Ok(object)
}

fn entry(resource: &Resource, from: &Entry, object: &Value) -> Entry {
    let bytes = splice_revision(&codec::encode(object), from.revision);
    let fields = resource.index.fields(object);
    Entry::new(from.key.clone(), from.revision, Json::shared(bytes), Labels::of(object), fields)
}
