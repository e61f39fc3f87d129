//! Bootstrapping twice is bootstrapping once.

use std::sync::Arc;

use keelson_api_types::Gvr;
use serde_json::json;

use super::*;
use crate::admission::testing::MapObjects;

fn settings() -> Settings {
    Settings {
        service_cidr: "10.96.0.0/16".parse().expect("a range"),
        advertise: "192.0.2.7:6443".parse().expect("an address"),
        client_ca: "CA".into(),
        front_proxy_ca: Some("PROXY".into()),
        request_header: Default::default(),
    }
}

#[tokio::test]
async fn a_second_run_writes_nothing_and_restores_what_was_taken() {
    let map = Arc::new(MapObjects::default());
    let objects: Arc<dyn Objects> = map.clone();
    run(&objects, &settings()).await.expect("the first run");
    let service = objects.get(&Gvr::new("", "v1", "services"), "default", "kubernetes").expect("the Service");
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
    let roles = Gvr::new(RBAC_GROUP, "v1", "clusterroles");
    let mut rounds = 0;
    while !aggregate::stale(&objects.list(&roles, "")).is_empty() {
        aggregate_roles(objects.as_ref()).await.expect("a pass");
        rounds += 1;
        assert!(rounds < 5, "aggregation does not settle");
    }
    let admin = objects.get(&roles, "", "admin").expect("the role");
    assert!(admin["rules"].as_array().is_some_and(|r| r.len() > 10));

    let before = *map.writes.lock();
    run(&objects, &settings()).await.expect("the second run");
    assert_eq!(*map.writes.lock(), before);

    let services = Gvr::new("", "v1", "services");
    let mut service = Value::clone(&service);
    service["spec"]["ports"] = json!([]);
    objects.update(&services, "default", "", service).await.expect("an update");
    run(&objects, &settings()).await.expect("the third run");
    let service = objects.get(&services, "default", "kubernetes").expect("the Service");
    assert_eq!(service["spec"]["ports"][0]["targetPort"], 6443);
}

#[tokio::test]
async fn the_day_since_when_tokens_are_tracked_is_kept_if_it_can_be() {
    let objects: Arc<dyn Objects> = Arc::new(MapObjects::default());
    run(&objects, &settings()).await.expect("the first run");
    let maps = Gvr::new("", "v1", "configmaps");
    let stored = || {
        let map = objects.get(&maps, "kube-system", "kube-apiserver-legacy-service-account-token-tracking");
        Value::clone(&map.expect("the map"))
    };
    for (given, kept) in [("2024-02-01", true), ("9999-01-01", false), ("soon", false)] {
        let mut map = stored();
        map["data"]["since"] = given.into();
        objects.update(&maps, "kube-system", "", map).await.expect("an update");
        run(&objects, &settings()).await.expect("another run");
        assert_eq!(stored()["data"]["since"] == given, kept, "{given}");
        assert!(stored()["data"]["since"].as_str().is_some_and(|s| s.parse::<jiff::civil::Date>().is_ok()));
    }
}
