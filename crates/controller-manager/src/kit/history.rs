//! The templates that an object had, as ControllerRevisions.

use std::sync::Arc;

use keelson_api_types::LabelSelector;
use keelson_client::{Informer, Projected};
use serde_json::{Value, json};

use super::{Error, Requests, claim::claim, controller_ref, error::gone_is_fine, hash, only_if};
use crate::views::ControllerRevision;

/// The label with the hash, or the revision's name, that pods carry too.
pub const REVISION_LABEL: &str = "controller-revision-hash";
/// Names that are tried for one template.
const COLLISIONS: i32 = 10;

/// All revisions of an object.
pub struct History {
    /// That of the present template.
    pub update: Revision,
    /// The others, the oldest first.
    pub old: Vec<Arc<ControllerRevision>>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Revision {
    pub name: String,
    pub hash: String,
    pub template: Value,
}

impl Revision {
    pub fn of(revision: &ControllerRevision) -> Revision {
        let mut template = revision.data.pointer("/spec/template").cloned().unwrap_or_default();
        if let Some(template) = template.as_object_mut() {
            template.remove("$patch");
        }
        let hash = revision.metadata.labels.get(REVISION_LABEL).cloned().unwrap_or_default();
        Revision { name: revision.metadata.name.clone(), hash, template }
    }
}

/// A strategic merge patch that brings the template back.
fn data(template: &Value) -> Value {
    let mut template = template.clone();
    template["$patch"] = "replace".into();
    json!({ "spec": { "template": template } })
}

/// Finds or makes the revision of the present template, and sees to it that it is the newest.
pub async fn sync<O: Projected>(
    requests: &Requests,
    owner: &O,
    selector: &LabelSelector,
    informer: &Informer<ControllerRevision>,
    template: &Value,
) -> Result<History, Error> {
    let mut all = claim(requests, owner, selector, informer).await?;
    all.sort_by_key(|r| (r.revision, r.metadata.name.clone()));
    let wanted = data(template);
    let newest = all.last().map_or(0, |r| r.revision);
    if let Some(index) = all.iter().rposition(|r| r.data == wanted) {
        let found = all.remove(index);
        if found.revision < newest {
            let patch = json!({ "metadata": only_if(&found.metadata), "revision": newest + 1 });
            requests.patch::<ControllerRevision>(&found.metadata, None, &patch).await?;
        }
        return Ok(History { update: Revision::of(&found), old: all });
    }
    let update = create(requests, owner, template, &wanted, newest + 1).await?;
    Ok(History { update, old: all })
}

async fn create<O: Projected>(
    requests: &Requests,
    owner: &O,
    template: &Value,
    data: &Value,
    number: i64,
) -> Result<Revision, Error> {
    let meta = owner.meta();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    for collisions in 0..COLLISIONS {
        let hash = hash::short(template, (collisions > 0).then_some(collisions));
        let mut name = meta.name.clone();
        name.truncate(223);
        let name = format!("{name}-{hash}");
        let mut labels = template.pointer("/metadata/labels").cloned().unwrap_or(json!({}));
        labels["controller.kubernetes.io/hash"] = hash.clone().into();
        labels[REVISION_LABEL] = hash.clone().into();
        let object = json!({
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {
                "name": name,
                "labels": labels,
                "annotations": meta.annotations,
                "ownerReferences": [controller_ref(owner)],
            },
            "data": data,
            "revision": number,
        });
        match requests.create::<ControllerRevision>(namespace, &object).await {
            Ok(_) => return Ok(Revision { name, hash, template: template.clone() }),
            Err(error) if error.is_conflict() => {
                let known: ControllerRevision = requests.get(namespace, &name).await?;
                if known.data == *data && known.metadata.controller().is_some_and(|o| o.uid == meta.uid) {
                    return Ok(Revision::of(&known));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::NotYet(format!("all names for a revision of {} are taken", meta.key())))
}

/// Deletes the oldest revisions that no pod has, beyond the limit.
pub async fn truncate(
    requests: &Requests,
    old: &[Arc<ControllerRevision>],
    limit: Option<i32>,
    in_use: impl Fn(&Revision) -> bool,
) -> Result<(), Error> {
    let unused: Vec<_> = old.iter().filter(|r| !in_use(&Revision::of(r))).collect();
    let surplus = unused.len().saturating_sub(usize::try_from(limit.unwrap_or(10)).unwrap_or(0));
    for revision in unused.into_iter().take(surplus) {
        gone_is_fine(requests.delete::<ControllerRevision>(&revision.metadata).await)?;
    }
    Ok(())
}
