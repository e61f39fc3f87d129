//! Which old value a new one continues, and whether it changed.

use serde_json::{Map, Value as Json};

/// A value with the old one that it continues, and the nearest value around it that has one: errors of what did
/// not change are no reason to refuse an update.
#[derive(Clone, Copy, Default)]
pub(super) struct Correlation<'a> {
    own: Option<Pair<'a>>,
    around: Option<Pair<'a>>,
}

#[derive(Clone, Copy)]
struct Pair<'a> {
    new: &'a Json,
    old: &'a Json,
}

impl<'a> Correlation<'a> {
    pub(super) fn root(new: &'a Json, old: Option<&'a Json>) -> Self {
        Correlation { own: old.map(|old| Pair { new, old }), around: None }
    }

    pub(super) fn key(self, schema: &Json, name: &str) -> Self {
        let Some(pair) = self.own else { return self };
        // Both are of one version: nothing of the old one's can be seen.
        if self.around.is_none() && matches!(name, "apiVersion" | "kind") {
            return Correlation::default();
        }
        let known = schema["properties"].get(name).is_some() || schema["additionalProperties"].is_object();
        let own = match (pair.new.get(name), pair.old.get(name)) {
            (Some(new), Some(old)) if known => Some(Pair { new, old }),
            _ => None,
        };
        Correlation { own, around: Some(pair) }
    }

    pub(super) fn index(self, schema: &Json, item: &'a Json) -> Self {
        let Some(pair) = self.own else { return self };
        let own = find_item(schema, pair.old, item).map(|old| Pair { new: item, old });
        Correlation { own, around: Some(pair) }
    }

    /// Errors below `allOf` count unless all that is around them is unchanged.
    pub(super) fn of_all_of(self) -> Self {
        Correlation { own: None, around: self.around }
    }

    pub(super) fn is_unchanged(self) -> bool {
        self.own.or(self.around).is_some_and(|pair| pair.new == pair.old)
    }
}

/// The old list's item with the keys of a new one; only map lists have such.
pub(super) fn find_item<'a>(schema: &Json, old: &'a Json, item: &Json) -> Option<&'a Json> {
    if schema["x-kubernetes-list-type"] != "map" {
        return None;
    }
    let names: Vec<&str> =
        schema["x-kubernetes-list-map-keys"].as_array()?.iter().filter_map(Json::as_str).collect();
    let defaults = schema["items"]["properties"].as_object();
    let keys = keys_of(&names, item, defaults)?;
    old.as_array()?.iter().find(|old| keys_of(&names, old, defaults).as_ref() == Some(&keys))
}

fn keys_of<'a>(
    names: &[&str],
    item: &'a Json,
    properties: Option<&'a Map<String, Json>>,
) -> Option<Vec<&'a Json>> {
    let value = |name: &&str| {
        let default = || properties.and_then(|p| p.get(*name)).and_then(|p| p.get("default"));
        item.get(*name).or_else(default).filter(|v| !v.is_object() && !v.is_array() && !v.is_null())
    };
    names.iter().map(value).collect()
}
