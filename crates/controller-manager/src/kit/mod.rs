//! What several controllers need: requests with errors that say what failed, ownership, pods from templates.

pub mod batch;
pub mod claim;
pub mod conditions;
pub mod error;
pub mod expect;
pub mod hash;
pub mod history;
pub mod pods;
pub mod requests;

pub use conditions::Condition;
pub use error::{During, Error};
pub use requests::{Bare, Requests};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use keelson_client::{Key, Meta, Projected};
use serde_json::{Value, json};

/// `apps/v1`, or `v1` for the core group.
pub fn api_version<P: Projected>() -> String {
    match P::GROUP {
        "" => P::VERSION.to_owned(),
        group => format!("{group}/{}", P::VERSION),
    }
}

/// The reference that makes `owner` the controller of what carries it.
pub fn controller_ref<P: Projected>(owner: &P) -> OwnerReference {
    OwnerReference {
        api_version: api_version::<P>(),
        kind: P::KIND.to_owned(),
        name: owner.meta().name.clone(),
        uid: owner.meta().uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The key of the controller of an object, if that is a `P`.
pub fn controller_key<P: Projected>(meta: &Meta) -> Option<Key> {
    let owner = meta.controller()?;
    let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
    (owner.kind == P::KIND && group == P::GROUP)
        .then(|| Key::new(meta.namespace.clone().unwrap_or_default(), &owner.name))
}

/// Values of the index under which objects are found by their controller: its uid, or [`orphans`].
pub fn by_controller(meta: &Meta) -> Vec<String> {
    match meta.controller() {
        Some(owner) => vec![owner.uid.clone()],
        None => vec![orphans(meta.namespace.as_deref().unwrap_or_default())],
    }
}

/// The name of the index of [`by_controller`].
pub const CONTROLLER: &str = "controller";

/// The index value of a namespace's objects without a controller.
pub fn orphans(namespace: &str) -> String {
    format!("orphans/{namespace}")
}

/// A number, or a percentage of `total`, of an `IntOrString` field.
pub fn scaled(value: Option<&Value>, total: i32, round_up: bool) -> i32 {
    match value {
        Some(Value::Number(n)) => n.as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(0),
        Some(Value::String(text)) => {
            let percent: i64 = text.strip_suffix('%').and_then(|t| t.parse().ok()).unwrap_or(0);
            let product = percent * i64::from(total);
            let scaled = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(scaled).unwrap_or(i32::MAX)
        }
        _ => 0,
    }
}

/// A merge patch of `metadata.resourceVersion`, which makes the patch fail when the object is another by now.
pub fn only_if(meta: &Meta) -> Value {
    json!({ "uid": meta.uid, "resourceVersion": meta.resource_version })
}

/// Now, to the second, as the API's `Time` is.
pub fn now() -> jiff::Timestamp {
    jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_asked() {
        let quarter = json!("25%");
        assert_eq!(scaled(Some(&quarter), 10, true), 3);
        assert_eq!(scaled(Some(&quarter), 10, false), 2);
        assert_eq!(scaled(Some(&json!(4)), 10, false), 4);
        assert_eq!(scaled(None, 10, false), 0);
    }
}
