//! No object, however odd, brings a strategy down.

use futures::FutureExt;
use proptest::prelude::*;

use super::*;

/// Every entry point of a strategy.
pub fn exercise(group: &str, resource: &str, object: &Value, old: &Value) {
    let strategy = for_resource(group, resource).strategy;
    let gvr = Gvr::new(group, "v1", resource);
    let mut copy = object.clone();
    strategy.default(&mut copy);
    for subresource in ["", "status", "finalize", "approval", "ephemeralcontainers", "resize"] {
        with_ctx(&gvr, subresource, |ctx| {
            let mut new = object.clone();
            match subresource {
                "" => {
                    strategy.prepare_update(ctx, &mut new, old);
                    let _ = strategy.validate_update(&new, old);
                    let _ = strategy.reserve_update(ctx, &mut new, old).map(FutureExt::now_or_never);
                    let mut created = object.clone();
                    strategy.prepare_create(ctx, &mut created);
                    let _ = strategy.reserve_create(ctx, &mut created).map(FutureExt::now_or_never);
                }
                "status" => {
                    strategy.prepare_status_update(ctx, &mut new, old);
                    let _ = strategy.validate_status_update(&new, old);
                }
                other => {
                    strategy.prepare_subresource_update(ctx, &mut new, old);
                    let _ = strategy.validate_subresource_update(other, &new, old);
                }
            }
            let _ = strategy.released(ctx.allocators, ctx.objects, old).map(FutureExt::now_or_never);
        });
    }
    let _ = strategy.validate(object);
    let _ = strategy.warnings(object, None);
    let _ = strategy.warnings(object, Some(old));
    let _ = strategy.selectable_fields(object);
    let _ = strategy.grace(object, Some(1));
    let _ = strategy.also_changes_generation(object, old);
}

/// Field names that mean something somewhere, so that random objects get past the surface.
const KEYS: &[&str] = &[
    "metadata",
    "spec",
    "status",
    "template",
    "containers",
    "initContainers",
    "volumes",
    "name",
    "labels",
    "selector",
    "matchLabels",
    "matchExpressions",
    "ports",
    "port",
    "nodePort",
    "clusterIP",
    "clusterIPs",
    "ipFamilies",
    "type",
    "resources",
    "requests",
    "limits",
    "cpu",
    "env",
    "valueFrom",
    "fieldRef",
    "annotations",
    "projected",
    "sources",
    "ephemeral",
    "volumeClaimTemplate",
    "conditions",
    "rules",
    "subjects",
    "roleRef",
    "webhooks",
    "versions",
    "names",
    "data",
    "stringData",
    "jobTemplate",
    "schedule",
    "securityContext",
    "affinity",
    "tolerations",
    "podCIDR",
    "podCIDRs",
    "strategy",
    "rollingUpdate",
    "maxSurge",
    "updateStrategy",
    "subsets",
];

fn odd() -> impl Strategy2<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|f| json!(f)),
        "[a-zA-Z0-9./:%*_ -]{0,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "NodePort",
            "LoadBalancer",
            "None",
            "IPv4",
            "10.96.0.1",
            "1Gi",
            "Always",
            "RollingUpdate",
            "50%"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 96, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(KEYS), inner, 0..8)
                .prop_map(|map| map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

use proptest::strategy::Strategy as Strategy2;

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn odd_objects_are_survived(object in odd(), old in odd()) {
        for info in keelson_api_types::resources::ALL.iter() {
            exercise(info.group, info.resource, &object, &old);
        }
    }
}
