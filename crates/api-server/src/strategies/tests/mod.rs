//! What the strategies do to objects, as tables: an object in, errors or the changed object out.

mod admits;
mod never_panics;
mod refuses;
mod roundtrip;

use keelson_api_types::FieldError;
use serde_json::{Value, json};

use super::*;
use crate::admission::testing::MapObjects;
use crate::alloc::Allocators;
use crate::alloc::testing::MapPorts;
use crate::config::PortRange;
use crate::types::UserInfo;

fn with_ctx<T>(gvr: &Gvr, subresource: &str, act: impl FnOnce(&Ctx<'_>) -> T) -> T {
    let user = UserInfo { name: "alice".into(), groups: vec!["devs".into()], ..UserInfo::default() };
    let range = "10.96.0.0/16".parse().unwrap();
    let allocators = Allocators::new(
        &[range],
        PortRange { first: 30000, last: 32767 },
        std::sync::Arc::<MapPorts>::default(),
    );
    act(&Ctx {
        gvr,
        kind: "",
        traits: &for_resource(&gvr.group, &gvr.resource).traits,
        namespaced: true,
        subresource,
        namespace: "default",
        name: "x",
        user: &user,
        dry_run: false,
        objects: &MapObjects::default(),
        allocators: &allocators,
    })
}

fn texts(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// Defaults and preparation of a create.
fn created(group: &str, resource: &str, mut object: Value) -> Value {
    let strategy = for_resource(group, resource).strategy;
    strategy.default(&mut object);
    object["metadata"]["uid"] = json!("u");
    let gvr = Gvr::new(group, "v1", resource);
    with_ctx(&gvr, "", |ctx| strategy.prepare_create(ctx, &mut object));
    strategy.default(&mut object);
    object
}

/// Creates the object and compares the errors.
fn check(group: &str, resource: &str, object: Value, expected: &[&str]) {
    let object = created(group, resource, object);
    let errors = for_resource(group, resource).strategy.validate(&object);
    assert_eq!(texts(&errors), expected, "{object:#}");
}

/// Creates `before`, updates it with `change`, and compares the errors' beginnings.
fn check_update(group: &str, resource: &str, before: Value, change: impl Fn(&mut Value), expected: &[&str]) {
    let strategy = for_resource(group, resource).strategy;
    let old = created(group, resource, before);
    assert_eq!(texts(&strategy.validate(&old)), [""; 0], "{old:#}");
    let mut new = old.clone();
    change(&mut new);
    strategy.default(&mut new);
    let gvr = Gvr::new(group, "v1", resource);
    with_ctx(&gvr, "", |ctx| strategy.prepare_update(ctx, &mut new, &old));
    let errors = texts(&strategy.validate_update(&new, &old));
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
    for (error, expected) in errors.iter().zip(expected) {
        assert!(error.starts_with(expected), "{error} should start with {expected}");
    }
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec})
}

fn one_container() -> Value {
    json!({"containers": [{"name": "c", "image": "nginx"}]})
}

fn deployment() -> Value {
    json!({
        "metadata": {"name": "d", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "d"}},
            "template": {"metadata": {"labels": {"app": "d"}}, "spec": one_container()},
        },
    })
}
