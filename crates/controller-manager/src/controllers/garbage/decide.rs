//! What becomes of an object, by the state of its owners.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use keelson_client::Meta;

/// Propagation policies of the API.
pub const FOREGROUND: &str = "Foreground";
const BACKGROUND: &str = "Background";
const ORPHAN: &str = "Orphan";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerState {
    /// It is there, and stays or goes without regard to what it owns.
    Solid,
    /// It waits for its dependents to be deleted.
    Waiting,
    Absent,
    /// Nobody can tell: nothing is deleted on a guess.
    Unknown,
}

impl OwnerState {
    pub fn of(owner: &Meta) -> OwnerState {
        match owner.is_deleting() && owner.finalizers.iter().any(|f| f == super::FOREGROUND) {
            true => OwnerState::Waiting,
            false => OwnerState::Solid,
        }
    }
}

#[derive(Debug, PartialEq)]
pub enum Action {
    Keep,
    /// The owners that remain.
    Disown(Vec<OwnerReference>),
    /// With this propagation policy.
    Delete(&'static str),
}

/// `states` are those of the object's owners, in order.
pub fn decide(object: &Meta, states: &[OwnerState], has_dependents: bool) -> Action {
    let has = |state| states.contains(&state);
    if states.is_empty() || has(OwnerState::Unknown) {
        return Action::Keep;
    }
    if has(OwnerState::Solid) {
        let pairs = object.owner_references.iter().zip(states);
        let solid: Vec<_> = pairs.filter(|(_, s)| **s == OwnerState::Solid).map(|(o, _)| o.clone()).collect();
        return if solid.len() == states.len() { Action::Keep } else { Action::Disown(solid) };
    }
    if has(OwnerState::Waiting) && has_dependents {
        return Action::Delete(FOREGROUND);
    }
    let finalizer = |name: &str| object.finalizers.iter().any(|f| f == name);
    if finalizer(super::ORPHAN) {
        Action::Delete(ORPHAN)
    } else if finalizer(super::FOREGROUND) {
        Action::Delete(FOREGROUND)
    } else {
        Action::Delete(BACKGROUND)
    }
}

#[cfg(test)]
mod tests {
    use super::OwnerState::*;
    use super::*;

    #[test]
    fn an_object_goes_with_its_last_owner() {
        let owner = |name: &str| OwnerReference { name: name.into(), ..OwnerReference::default() };
        let object = Meta { owner_references: vec![owner("a"), owner("b")], ..Meta::default() };
        let check = |states: [OwnerState; 2], dependents, expected| {
            assert_eq!(decide(&object, &states, dependents), expected, "{states:?}");
        };
        check([Solid, Solid], false, Action::Keep);
        check([Solid, Absent], false, Action::Disown(vec![owner("a")]));
        check([Waiting, Solid], true, Action::Disown(vec![owner("b")]));
        check([Absent, Absent], true, Action::Delete("Background"));
        check([Absent, Waiting], false, Action::Delete("Background"));
        check([Absent, Waiting], true, Action::Delete("Foreground"));
        check([Absent, Unknown], false, Action::Keep);
        let orphaning = Meta { finalizers: vec!["orphan".into()], ..object.clone() };
        assert_eq!(decide(&orphaning, &[Absent, Absent], false), Action::Delete("Orphan"));
    }
}
