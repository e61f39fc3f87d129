//! What a node may and may not reach.

use serde_json::json;

use super::*;
use crate::authz::testing::{resource, user};

fn authorizer() -> NodeAuthorizer {
    let authorizer = NodeAuthorizer::default();
    authorizer.write(|g| {
        g.put_pod(&json!({
            "metadata": {"namespace": "ns", "name": "p1"},
            "spec": {
                "nodeName": "n1",
                "serviceAccountName": "sa1",
                "imagePullSecrets": [{"name": "pull"}],
                "volumes": [
                    {"name": "a", "secret": {"secretName": "vol-secret"}},
                    {"name": "b", "configMap": {"name": "vol-cm"}},
                    {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}},
                    {"name": "d", "projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}},
                    {"name": "e", "ephemeral": {}},
                ],
                "containers": [{"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "env-secret"}}}],
                                "envFrom": [{"configMapRef": {"name": "env-cm"}}]}],
            },
        }));
        g.put_pod(&json!({"metadata": {"namespace": "ns", "name": "mirror", "annotations": {"kubernetes.io/config.mirror": "x"}},
            "spec": {"nodeName": "n1", "serviceAccountName": "stolen"}}));
        g.put_volume(&json!({"metadata": {"name": "pv1"}, "spec": {"claimRef": {"namespace": "ns", "name": "claim"},
            "csi": {"nodeStageSecretRef": {"namespace": "other", "name": "stage"}}}}));
        g.put_owned(Owned::VolumeAttachment, "", "va1", "n1");
    });
    authorizer
}

fn check(node: &str, verb: &str, group: &str, res: &str, namespace: &str, name: &str) -> Decision {
    let (res, sub) = res.split_once('/').unwrap_or((res, ""));
    let u = user(&format!("system:node:{node}"), &["system:nodes", "system:authenticated"]);
    let mut a = resource(&u, verb, group, res, namespace, name);
    a.subresource = sub;
    authorizer().authorize(&a)
}

#[test]
fn a_node_reaches_what_its_pods_refer_to_and_nothing_else() {
    let reachable = [
        ("get", "", "secrets", "ns", "vol-secret"),
        ("watch", "", "secrets", "ns", "env-secret"),
        ("get", "", "secrets", "ns", "pull"),
        ("get", "", "secrets", "other", "stage"),
        ("list", "", "configmaps", "ns", "vol-cm"),
        ("get", "", "configmaps", "ns", "env-cm"),
        ("get", "", "configmaps", "ns", "kube-root-ca.crt"),
        ("get", "", "persistentvolumeclaims", "ns", "claim"),
        ("get", "", "persistentvolumeclaims", "ns", "p1-e"),
        ("get", "", "persistentvolumes", "", "pv1"),
        ("create", "", "serviceaccounts/token", "ns", "sa1"),
        ("get", "", "serviceaccounts", "ns", "sa1"),
        ("get", "", "pods", "ns", "p1"),
        ("get", "storage.k8s.io", "volumeattachments", "", "va1"),
    ];
    for (verb, group, res, namespace, name) in reachable {
        let allow = Decision::Allow(String::new());
        assert_eq!(check("n1", verb, group, res, namespace, name), allow, "{verb} {res} {name}");
        assert_eq!(
            check("n2", verb, group, res, namespace, name),
            Decision::NoOpinion("no relationship found between node 'n2' and this object".into()),
            "{verb} {res} {name}"
        );
    }
    assert!(matches!(
        check("n1", "create", "", "serviceaccounts/token", "ns", "stolen"),
        Decision::NoOpinion(_)
    ));
    assert!(matches!(check("n1", "get", "", "secrets", "ns", "other"), Decision::NoOpinion(_)));
    assert_eq!(
        check("n1", "list", "", "secrets", "ns", ""),
        Decision::NoOpinion("No Object name found".into())
    );
}

#[test]
fn a_node_has_its_own_node_and_lease() {
    let cases = [
        ("get", "", "nodes", "", "n1", true),
        ("get", "", "nodes", "", "n2", false),
        ("list", "", "nodes", "", "", false),
        ("create", "", "nodes", "", "", true),
        ("patch", "", "nodes/status", "", "n1", true),
        ("delete", "", "nodes", "", "n1", false),
        ("update", "coordination.k8s.io", "leases", "kube-node-lease", "n1", true),
        ("update", "coordination.k8s.io", "leases", "kube-node-lease", "n2", false),
        ("create", "coordination.k8s.io", "leases", "kube-system", "", false),
        ("list", "", "services", "", "", true),
        ("create", "", "events", "ns", "", true),
        ("create", "authentication.k8s.io", "tokenreviews", "", "", true),
        ("list", "", "pods", "", "", false),
        ("patch", "", "pods/status", "ns", "p1", true),
        ("create", "apps", "deployments", "ns", "", false),
    ];
    for (verb, group, res, namespace, name, want) in cases {
        let allowed = matches!(check("n1", verb, group, res, namespace, name), Decision::Allow(_));
        assert_eq!(allowed, want, "{verb} {res} {name}");
    }
}

#[test]
fn listing_pods_needs_the_nodes_own_selector() {
    let u = user("system:node:n1", &["system:nodes"]);
    for (selector, want) in [
        ("spec.nodeName=n1", true),
        ("status.phase!=Failed,spec.nodeName==n1", true),
        ("spec.nodeName=n2", false),
        ("spec.nodeName!=n1", false),
    ] {
        let mut a = resource(&u, "watch", "", "pods", "", "");
        a.field_selector = Some(selector);
        assert_eq!(matches!(authorizer().authorize(&a), Decision::Allow(_)), want, "{selector}");
    }
}

#[test]
fn what_a_deleted_pod_referred_to_is_out_of_reach() {
    let authorizer = authorizer();
    let u = user("system:node:n1", &["system:nodes"]);
    authorizer.write(|g| g.remove_pod("ns", "p1"));
    for (res, namespace, name) in
        [("secrets", "ns", "pull"), ("secrets", "other", "stage"), ("persistentvolumes", "", "pv1")]
    {
        assert!(matches!(
            authorizer.authorize(&resource(&u, "get", "", res, namespace, name)),
            Decision::NoOpinion(_)
        ));
    }
}

#[test]
fn only_the_group_makes_a_node() {
    let u = user("system:node:n1", &["system:authenticated"]);
    assert_eq!(
        authorizer().authorize(&resource(&u, "get", "", "nodes", "", "n1")),
        Decision::NoOpinion(String::new())
    );
}
