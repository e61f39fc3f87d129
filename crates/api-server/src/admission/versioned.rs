//! The objects of a request in the version that a webhook or a policy wants to see.

use std::borrow::Cow;

use keelson_api_types::{Gvk, StatusError};
use serde_json::Value;

use super::matching::Target;
use crate::types::{AdmissionRequest, Objects};

pub struct Versioned<'a> {
    pub object: Option<Cow<'a, Value>>,
    pub old: Option<Cow<'a, Value>>,
}

impl<'a> Versioned<'a> {
    pub async fn new(
        objects: &dyn Objects,
        r: &'a AdmissionRequest<'_>,
        target: &Target,
    ) -> Result<Self, StatusError> {
        Ok(Self {
            object: shown(objects, r.object.as_deref(), target).await?,
            old: shown(objects, r.old, target).await?,
        })
    }
}

async fn shown<'a>(
    objects: &dyn Objects,
    object: Option<&'a Value>,
    target: &Target,
) -> Result<Option<Cow<'a, Value>>, StatusError> {
    match object {
        Some(object) if Gvk::of(object).is_some_and(|gvk| gvk != target.gvk) => {
            Ok(Some(Cow::Owned(objects.as_served(&target.gvr, object.clone()).await?)))
        }
        other => Ok(other.map(Cow::Borrowed)),
    }
}
