//! The versions of a custom resource: which schema each has, and how an object gets from one to another.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use keelson_api_types::{Gvk, Reason, StatusError};
use keelson_machinery::prune::{self, FieldValidation};
use keelson_schema::Link;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::webhook::Webhook;
use crate::cache::{Indexer, Texts};
use crate::meta::string;
use crate::types::Objects;

/// What all versions of one definition share.
pub struct Versions {
    pub kind: String,
    /// By `apiVersion`; those that are not served as well.
    pub types: HashMap<String, Version>,
    /// The `apiVersion` that objects are written in.
    pub stored: String,
    /// `None`: versions differ in their names alone.
    pub webhook: Option<Webhook>,
    /// The definition has changed or is gone: who watches starts over.
    pub closed: CancellationToken,
    /// The definition is being deleted: nothing new is created.
    pub terminating: AtomicBool,
}

pub struct Version {
    pub ty: Link,
    /// JSON pointers to the selectable fields.
    pub selectable: Vec<String>,
    /// A JSON pointer to what its `scale` shows as the wanted replicas.
    pub replicas: Option<String>,
}

impl Versions {
    /// Converts objects and drops what the version does not know; those that are in it already stay as they are.
    ///
    /// # Errors
    /// A version is none of these, the webhook fails, or what it made is not of the version's types.
    pub async fn convert(
        &self,
        objects: &dyn Objects,
        list: Vec<Value>,
        to: &str,
    ) -> Result<Vec<Value>, StatusError> {
        let foreign: Vec<bool> = list.iter().map(|o| string(o, "apiVersion") != to).collect();
        let mut list = self.convert_whole(objects, list, to).await?;
        if let Some(target) = self.types.get(to) {
            for (object, _) in list.iter_mut().zip(foreign).filter(|(_, foreign)| *foreign) {
                prune::check(&target.ty, object, FieldValidation::Ignore)
                    .map_err(|e| failed(e.to_string()))?;
            }
        }
        Ok(list)
    }

    /// Converts objects, with what the version may not know.
    ///
    /// # Errors
    /// A version is none of these, or the webhook fails.
    pub async fn convert_whole(
        &self,
        objects: &dyn Objects,
        mut list: Vec<Value>,
        to: &str,
    ) -> Result<Vec<Value>, StatusError> {
        if !self.types.contains_key(to) {
            return Err(failed(format!("request to convert CR to an invalid group/version: {to}")));
        }
        let mut foreign = Vec::new();
        for (i, object) in list.iter().enumerate() {
            let from = string(object, "apiVersion");
            if !self.types.contains_key(from) {
                return Err(failed(format!("request to convert CR from an invalid group/version: {from}")));
            }
            if from != to {
                foreign.push(i);
            }
        }
        if let Some(first) = foreign.first() {
            let from = Gvk::from_api_version(string(&list[*first], "apiVersion"), &self.kind);
            let originals: Vec<Value> = foreign.iter().map(|i| list[*i].take()).collect();
            let converted = match &self.webhook {
                None => originals.into_iter().map(|o| renamed(o, to)).collect(),
                Some(webhook) => webhook.convert(objects, &from, originals, to).await.map_err(failed)?,
            };
            for (i, object) in foreign.into_iter().zip(converted) {
                list[i] = object;
            }
        }
        Ok(list)
    }
}

fn renamed(mut object: Value, api_version: &str) -> Value {
    object["apiVersion"] = json!(api_version);
    object
}

/// Upstream hands these errors on without a reason.
pub fn failed(message: String) -> StatusError {
    StatusError::new(500, Reason::Unknown, message)
}

impl Indexer for Versions {
    fn fields(&self, object: &Value) -> Texts {
        let text = |pointer: &String| match object.pointer(pointer) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let version = self.types.get(string(object, "apiVersion"));
        version.into_iter().flat_map(|v| &v.selectable).map(text).collect()
    }

    fn sources(&self) -> Vec<String> {
        Vec::new()
    }

    fn renews(&self) -> bool {
        true
    }

    /// Objects written before the schema changed read as if they were written now.
    fn renew(&self, object: &mut Value) -> bool {
        let version = self.types.get(string(object, "apiVersion"));
        version.is_some_and(|v| prune::renew(&v.ty, object))
    }
}
