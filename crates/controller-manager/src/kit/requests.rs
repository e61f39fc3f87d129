//! Requests on projections.

use std::sync::Arc;

use keelson_client::{Meta, Projected, rest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::{During, Error};

/// An object's metadata: all that is read of most answers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Bare {
    pub metadata: Meta,
}

/// The API client with operations on projected kinds. Cheap to clone.
#[derive(Clone)]
pub struct Requests {
    client: Arc<kube::Client>,
}

impl Requests {
    pub fn new(client: &kube::Client) -> Requests {
        Requests { client: Arc::new(client.clone()) }
    }

    pub fn client(&self) -> &kube::Client {
        &self.client
    }

    /// The object as it is now, not as an informer knows it.
    pub async fn get<P: Projected>(&self, namespace: &str, name: &str) -> Result<P, Error> {
        let path = rest::path::<P>(namespace, Some(name), None);
        rest::get(&self.client, &path).await.during(|| format!("get the {} {namespace}/{name}", P::KIND))
    }

    pub async fn create<P: Projected>(
        &self,
        namespace: &str,
        object: &impl Serialize,
    ) -> Result<Bare, Error> {
        let path = rest::path::<P>(namespace, None, None);
        rest::create(&self.client, &path, object)
            .await
            .during(|| format!("create a {} in {namespace:?}", P::KIND))
    }

    /// A JSON merge patch; of `status` or another subresource where one is named.
    pub async fn patch<P: Projected>(
        &self,
        meta: &Meta,
        subresource: Option<&str>,
        patch: &Value,
    ) -> Result<Bare, Error> {
        self.patch_as::<P>(meta, subresource, rest::patch::MERGE, patch).await
    }

    pub async fn patch_as<P: Projected>(
        &self,
        meta: &Meta,
        subresource: Option<&str>,
        content_type: &str,
        patch: &Value,
    ) -> Result<Bare, Error> {
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let path = rest::path::<P>(namespace, Some(&meta.name), subresource);
        let operation = || {
            let what = subresource.map(|s| format!("{s} of the ")).unwrap_or("the ".to_owned());
            format!("patch {what}{} {}", P::KIND, meta.key())
        };
        rest::patch(&self.client, &path, content_type, patch).await.during(operation)
    }

    /// Replaces `status`, provided that the object is the one that `meta` tells of.
    pub async fn patch_status<P: Projected>(
        &self,
        meta: &Meta,
        status: &impl Serialize,
    ) -> Result<Bare, Error> {
        let patch = json!({ "metadata": super::only_if(meta), "status": status });
        self.patch::<P>(meta, Some("status"), &patch).await
    }

    /// Deletes this object, not another of its name.
    pub async fn delete<P: Projected>(&self, meta: &Meta) -> Result<(), Error> {
        self.delete_with::<P>(meta, json!({})).await
    }

    /// As [`Requests::delete`], with more `DeleteOptions`.
    pub async fn delete_with<P: Projected>(&self, meta: &Meta, mut options: Value) -> Result<(), Error> {
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let path = rest::path::<P>(namespace, Some(&meta.name), None);
        options["preconditions"]["uid"] = meta.uid.clone().into();
        options["kind"] = "DeleteOptions".into();
        options["apiVersion"] = "v1".into();
        rest::delete(&self.client, &path, &options)
            .await
            .during(|| format!("delete the {} {}", P::KIND, meta.key()))
    }

    /// Takes a finalizer off.
    pub async fn remove_finalizer<P: Projected>(&self, meta: &Meta, finalizer: &str) -> Result<(), Error> {
        let rest: Vec<&String> = meta.finalizers.iter().filter(|f| *f != finalizer).collect();
        let mut metadata = super::only_if(meta);
        metadata["finalizers"] = json!(rest);
        self.patch::<P>(meta, None, &json!({ "metadata": metadata })).await.map(drop)
    }
}
