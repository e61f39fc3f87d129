//! Which objects a controller owns, takes over and lets go.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use keelson_api_types::LabelSelector;
use keelson_client::{Informer, Meta, Projected};
use serde_json::json;

use super::{CONTROLLER, Error, Requests, orphans};

/// The objects of a kind, as one owner sees them.
#[derive(Debug)]
pub struct Claims<P> {
    pub owned: Vec<Arc<P>>,
    /// Orphans that the selector matches.
    pub adopt: Vec<Arc<P>>,
    /// Owned, but the selector does not match any more.
    pub release: Vec<Arc<P>>,
}

/// Sorts objects by what their owner does with them. An owner that is being deleted takes over nothing and
/// lets nothing go.
pub fn plan<P: Projected>(
    owner: &Meta,
    selector: &LabelSelector,
    objects: impl IntoIterator<Item = Arc<P>>,
) -> Claims<P> {
    let mut claims = Claims { owned: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    for object in objects {
        let meta = object.meta();
        let matches = selector.matches(&meta.labels);
        match meta.controller() {
            Some(controller) if controller.uid != owner.uid => {}
            Some(_) if matches => claims.owned.push(object),
            Some(_) if !owner.is_deleting() => claims.release.push(object),
            None if matches && !owner.is_deleting() && !meta.is_deleting() => claims.adopt.push(object),
            Some(_) | None => {}
        }
    }
    claims
}

/// Carries the plan out for what an informer with the index [`CONTROLLER`] holds, and returns what the
/// owner has then.
pub async fn claim<O: Projected, P: Projected>(
    requests: &Requests,
    owner: &O,
    selector: &LabelSelector,
    informer: &Informer<P>,
) -> Result<Vec<Arc<P>>, Error> {
    let meta = owner.meta();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let mut objects = informer.by_index(CONTROLLER, &meta.uid);
    objects.extend(informer.by_index(CONTROLLER, &orphans(namespace)));
    objects.sort_by(|a, b| a.meta().name.cmp(&b.meta().name));
    let claims = plan(meta, selector, objects);
    let mut owned = claims.owned;
    if !claims.adopt.is_empty() {
        // The owner as an informer knows it may be gone already: then it takes over nothing.
        let live: super::Bare = get_bare::<O>(requests, meta).await?;
        if live.metadata.uid != meta.uid || live.metadata.is_deleting() {
            return Err(Error::NotYet(format!("the {} {} is being replaced", O::KIND, meta.key())));
        }
    }
    for object in claims.adopt {
        adopt::<P>(requests, object.meta(), super::controller_ref(owner)).await?;
        owned.push(object);
    }
    for object in claims.release {
        super::error::gone_is_fine(release::<P>(requests, object.meta(), &meta.uid).await)?;
    }
    Ok(owned)
}

async fn get_bare<O: Projected>(requests: &Requests, meta: &Meta) -> Result<super::Bare, Error> {
    use super::During;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let path = keelson_client::rest::path::<O>(namespace, Some(&meta.name), None);
    keelson_client::rest::get(requests.client(), &path)
        .await
        .during(|| format!("get the {} {}", O::KIND, meta.key()))
}

async fn adopt<P: Projected>(requests: &Requests, meta: &Meta, owner: OwnerReference) -> Result<(), Error> {
    let mut owners = meta.owner_references.clone();
    owners.retain(|o| o.uid != owner.uid);
    owners.push(owner);
    write_owners::<P>(requests, meta, &owners).await
}

async fn release<P: Projected>(requests: &Requests, meta: &Meta, owner: &str) -> Result<(), Error> {
    let owners: Vec<_> = meta.owner_references.iter().filter(|o| o.uid != owner).cloned().collect();
    write_owners::<P>(requests, meta, &owners).await
}

async fn write_owners<P: Projected>(
    requests: &Requests,
    meta: &Meta,
    owners: &[OwnerReference],
) -> Result<(), Error> {
    let mut metadata = super::only_if(meta);
    metadata["ownerReferences"] = json!(owners);
    requests.patch::<P>(meta, None, &json!({ "metadata": metadata })).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::Pod;

    fn pod(name: &str, label: &str, owner: Option<&str>) -> Arc<Pod> {
        let owners = owner.map(|uid| json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": uid, "controller": true}]));
        let value = json!({"metadata": {"name": name, "labels": {"app": label}, "ownerReferences": owners.unwrap_or(json!([]))}});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn orphans_are_adopted_strays_released_and_others_left_alone() {
        let mut owner = Meta { uid: "me".into(), ..Meta::default() };
        let selector = LabelSelector::from_map([("app", "web")]);
        let pods = [
            pod("mine", "web", Some("me")),
            pod("stray", "db", Some("me")),
            pod("orphan", "web", None),
            pod("other", "web", Some("you")),
            pod("unrelated", "db", None),
        ];
        let names = |pods: &[Arc<Pod>]| pods.iter().map(|p| p.metadata.name.clone()).collect::<Vec<_>>();
        let claims = plan(&owner, &selector, pods.clone());
        assert_eq!(names(&claims.owned), ["mine"]);
        assert_eq!(names(&claims.adopt), ["orphan"]);
        assert_eq!(names(&claims.release), ["stray"]);
        owner.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Default::default()));
        let claims = plan(&owner, &selector, pods);
        assert!(claims.adopt.is_empty() && claims.release.is_empty());
    }
}
