//! Validating and mutating admission policies, against a real API server.

use serde_json::{Value, json};

use crate::support::{CONFIG_MAPS, Client, DEPLOYMENTS, Reply, Server, config_map, deployment, eventually};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

fn rules(operations: Value, group: &str, resource: &str) -> Value {
    json!({"resourceRules": [{"operations": operations, "apiGroups": [group], "apiVersions": ["*"], "resources": [resource]}]})
}

/// Creates a policy, `validating` or `mutating`, with one binding, and waits until the server goes by it.
async fn bind(admin: &Client, kind: &str, name: &str, spec: Value, mut binding: Value) {
    let (policies, bindings) =
        (format!("{GROUP}/{kind}admissionpolicies"), format!("{GROUP}/{kind}admissionpolicybindings"));
    admin.post(&policies, &json!({"metadata": {"name": name}, "spec": spec})).await.expect(201);
    binding["policyName"] = name.into();
    if kind == "validating" && binding["validationActions"].is_null() {
        binding["validationActions"] = json!(["Deny"]);
    }
    admin
        .post(&bindings, &json!({"metadata": {"name": format!("{name}-binding")}, "spec": binding}))
        .await
        .expect(201);
    admin.get(&policies).await.expect(200);
    admin.get(&bindings).await.expect(200);
}

fn warnings(reply: &Reply) -> Vec<&str> {
    reply.headers.get_all("warning").iter().map(|w| w.to_str().unwrap()).collect()
}

#[tokio::test]
async fn a_validation_that_does_not_hold_refuses_the_write() {
    let server = Server::start().await;
    let admin = server.admin();
    let spec = json!({
        "matchConstraints": rules(json!(["CREATE", "UPDATE"]), "apps", "deployments"),
        "matchConditions": [{"name": "not-exempt", "expression": "!has(object.metadata.labels) || !('exempt' in object.metadata.labels)"}],
        "variables": [
            {"name": "replicas", "expression": "object.spec.replicas"},
            {"name": "tooMany", "expression": "variables.replicas > 5"},
        ],
        "validations": [
            {"expression": "!variables.tooMany", "messageExpression": "'replicas must be no greater than 5, not ' + string(variables.replicas)", "reason": "Forbidden"},
            {"expression": "object.metadata.name != 'bad'", "message": "bad is no name"},
            {"expression": "request.operation == 'CREATE' && request.userInfo.username == 'kubernetes-admin' && namespaceObject.metadata.name == 'default' && authorizer.group('').resource('pods').check('create').allowed()"},
        ],
    });
    bind(&admin, "validating", "limit", spec, json!({})).await;
    let create = |name: &str, replicas: i64| {
        let mut object = deployment(name);
        object["spec"]["replicas"] = replicas.into();
        object
    };
    let start = "ValidatingAdmissionPolicy 'limit' with binding 'limit-binding' denied request";
    let refused = admin.post(DEPLOYMENTS, &create("d", 6)).await.expect(403);
    let message =
        format!("deployments.apps \"d\" is forbidden: {start}: replicas must be no greater than 5, not 6");
    assert_eq!((&refused["message"], &refused["reason"]), (&json!(message), &json!("Forbidden")));
    assert_eq!(
        refused["details"]["causes"][0]["message"],
        format!("{start}: replicas must be no greater than 5, not 6")
    );
    admin.post(DEPLOYMENTS, &create("bad", 1)).await.refused(
        422,
        "Invalid",
        &format!("{start}: bad is no name"),
    );
    admin.post(DEPLOYMENTS, &create("d", 5)).await.expect(201);
    let change = json!({"spec": {"replicas": 4}});
    admin.patch(&format!("{DEPLOYMENTS}/d"), "merge", &change).await.refused(
        422,
        "Invalid",
        "failed expression: request.operation == 'CREATE'",
    );
    let mut exempt = create("e", 9);
    exempt["metadata"]["labels"] = json!({"exempt": "yes"});
    admin.post(DEPLOYMENTS, &exempt).await.expect(201);
}

#[tokio::test]
async fn actions_warn_instead_and_errors_go_by_the_failure_policy() {
    let server = Server::start().await;
    let admin = server.admin();
    let spec = |failure: &str, expression: &str| {
        json!({"failurePolicy": failure, "matchConstraints": rules(json!(["CREATE"]), "", "configmaps"),
            "validations": [{"expression": expression, "message": "so it is"}]})
    };
    bind(
        &admin,
        "validating",
        "warn",
        spec("Fail", "object.data.a == '2'"),
        json!({"validationActions": ["Warn", "Audit"]}),
    )
    .await;
    bind(&admin, "validating", "ignored", spec("Ignore", "object.data.missing == 'x'"), json!({})).await;
    let created = admin.post(CONFIG_MAPS, &config_map("x")).await;
    assert_eq!(
        warnings(&created),
        [
            r#"299 - "Validation failed for ValidatingAdmissionPolicy 'warn' with binding 'warn-binding': so it is""#
        ]
    );
    created.expect(201);
    bind(&admin, "validating", "strict", spec("Fail", "object.data.missing == 'x'"), json!({})).await;
    admin.post(CONFIG_MAPS, &config_map("y")).await.refused(
        422,
        "Invalid",
        "ValidatingAdmissionPolicy 'strict' with binding 'strict-binding' denied request: expression 'object.data.missing == 'x'' resulted in error: no such key: missing",
    );
}

#[tokio::test]
async fn parameters_come_from_objects_that_the_binding_names() {
    let server = Server::start().await;
    let admin = server.admin();
    let schema = json!({"type": "object", "properties": {"maxReplicas": {"type": "integer"}}});
    let crd = json!({"metadata": {"name": "limits.rules.example.com"}, "spec": {
        "group": "rules.example.com", "scope": "Namespaced",
        "names": {"plural": "limits", "singular": "limit", "kind": "Limit", "listKind": "LimitList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    admin.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &crd).await.expect(201);
    let path = "/apis/rules.example.com/v1/namespaces/default/limits";
    eventually("the resource is served", || async {
        match admin.get(path).await.status.as_u16() {
            200 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    let spec = json!({
        "paramKind": {"apiVersion": "rules.example.com/v1", "kind": "Limit"},
        "matchConstraints": rules(json!(["CREATE"]), "apps", "deployments"),
        "validations": [{"expression": "object.spec.replicas <= params.maxReplicas", "messageExpression": "'at most ' + string(params.maxReplicas)"}],
    });
    let reference = json!({"selector": {"matchLabels": {"use": "me"}}, "parameterNotFoundAction": "Deny"});
    bind(&admin, "validating", "limit", spec, json!({"paramRef": reference})).await;
    admin.post(DEPLOYMENTS, &deployment("d")).await.refused(
        422,
        "Invalid",
        "denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction",
    );
    let limit = |name: &str, max: i64| json!({"apiVersion": "rules.example.com/v1", "kind": "Limit", "metadata": {"name": name, "labels": {"use": "me"}}, "maxReplicas": max});
    admin.post(path, &limit("wide", 3)).await.expect(201);
    admin.get(path).await.expect(200);
    admin.post(DEPLOYMENTS, &deployment("d")).await.expect(201);
    admin.post(path, &limit("narrow", 1)).await.expect(201);
    admin.get(path).await.expect(200);
    admin.post(DEPLOYMENTS, &deployment("e")).await.refused(422, "Invalid", "denied request: at most 1");
    let unknown = json!({
        "paramKind": {"apiVersion": "rules.example.com/v1", "kind": "Nothing"},
        "matchConstraints": rules(json!(["CREATE"]), "", "configmaps"),
        "validations": [{"expression": "true"}],
    });
    let named = json!({"paramRef": {"name": "n", "parameterNotFoundAction": "Allow"}});
    bind(&admin, "validating", "lost", unknown, named).await;
    admin.post(CONFIG_MAPS, &config_map("x")).await.refused(
        422,
        "Invalid",
        "ValidatingAdmissionPolicy 'lost' denied request: failed to configure policy: failed to find resource referenced by paramKind: 'rules.example.com/v1, Kind=Nothing'",
    );
}

#[tokio::test]
async fn a_policys_status_tells_what_its_expressions_get_wrong() {
    let server = Server::start().await;
    let admin = server.admin();
    let policies = format!("{GROUP}/validatingadmissionpolicies");
    let policy = |name: &str, expression: &str| {
        json!({"metadata": {"name": name}, "spec": {"matchConstraints": rules(json!(["CREATE"]), "apps", "deployments"),
            "validations": [{"expression": expression}]}})
    };
    let policy = |name: &str, expression: &str| {
        let mut policy = policy(name, expression);
        policy["spec"]["matchConstraints"]["resourceRules"][0]["apiVersions"] = json!(["v1"]);
        policy
    };
    admin.post(&policies, &policy("right", "object.spec.replicas > 1")).await.expect(201);
    admin.post(&policies, &policy("wrong", "object.spec.replicas > '1'")).await.expect(201);
    let checked = |name: &'static str| {
        let (admin, path) = (admin.clone(), format!("{policies}/{name}"));
        eventually("the policy is checked", move || {
            let (admin, path) = (admin.clone(), path.clone());
            async move {
                let policy = admin.get(&path).await.expect(200);
                match policy["status"]["observedGeneration"] == policy["metadata"]["generation"] {
                    true => Ok(policy),
                    false => Err(policy.to_string()),
                }
            }
        })
    };
    assert_eq!(checked("right").await["status"]["typeChecking"], json!({}));
    let wrong = checked("wrong").await;
    let warning = &wrong["status"]["typeChecking"]["expressionWarnings"][0];
    assert_eq!(warning["fieldRef"], "spec.validations[0].expression");
    let text = warning["warning"].as_str().unwrap();
    assert!(text.starts_with("apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'"), "{text}");
}

#[tokio::test]
async fn a_policy_that_does_not_compile_is_not_stored() {
    let server = Server::start().await;
    let admin = server.admin();
    let policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": rules(json!(["CREATE"]), "", "configmaps"),
        "matchConditions": [{"name": "m", "expression": "1 +"}],
        "variables": [{"name": "in", "expression": "1"}],
        "validations": [{"expression": "object.data", "messageExpression": "1"}, {"expression": "variables.no"}],
        "auditAnnotations": [{"key": "k", "valueExpression": "true"}]}});
    let refused = admin.post(&format!("{GROUP}/validatingadmissionpolicies"), &policy).await.expect(422);
    let causes: Vec<String> = refused["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| {
            format!(
                "{}: {}",
                c["field"].as_str().unwrap(),
                c["message"].as_str().unwrap().lines().next().unwrap()
            )
        })
        .collect();
    let wanted = [
        "spec.matchConditions[0].expression: Invalid value: \"1 +\": compilation failed: ERROR: <input>:1:4: Syntax error",
        "spec.variables[0].name: Invalid value: \"in\": must be a valid CEL identifier",
        "spec.validations[0].expression: Invalid value: \"object.data\": must evaluate to bool but got dyn",
        "spec.validations[0].messageExpression: Invalid value: \"1\": must evaluate to string but got int",
        "spec.validations[1].expression: Invalid value: \"variables.no\": compilation failed: ERROR: <input>:1:10: undefined field 'no'",
        "spec.auditAnnotations[0].valueExpression: Invalid value: \"true\": must evaluate to one of [string null_type] but got bool",
    ];
    assert_eq!(causes.len(), wanted.len(), "{causes:#?}");
    for (cause, wanted) in causes.iter().zip(wanted) {
        assert!(cause.starts_with(wanted), "{cause}\n{wanted}");
    }
}

#[tokio::test]
async fn a_mutating_policy_applies_and_patches() {
    let server = Server::start().await;
    let admin = server.admin();
    let spec = |kind: &str, mutation: Value, reinvocation: &str| {
        let mut mutation = mutation;
        mutation["patchType"] = kind.into();
        json!({"matchConstraints": rules(json!(["CREATE"]), "apps", "deployments"), "failurePolicy": "Fail",
            "reinvocationPolicy": reinvocation, "mutations": [mutation]})
    };
    let apply = |expression: &str| json!({"applyConfiguration": {"expression": expression}});
    let patch = |expression: &str| json!({"jsonPatch": {"expression": expression}});
    let sidecar = r#"Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{
        initContainers: [Object.spec.template.spec.initContainers{name: "mesh", image: "mesh:1", restartPolicy: "Always"}]}}}}"#;
    bind(&admin, "mutating", "sidecar", spec("ApplyConfiguration", apply(sidecar), "Never"), json!({})).await;
    let label = r#"[JSONPatch{op: "add", path: "/metadata/labels", value: {}},
        JSONPatch{op: "add", path: "/metadata/labels/" + jsonpatch.escapeKey("example.com/env"), value: "test"}]"#;
    bind(&admin, "mutating", "label", spec("JSONPatch", patch(label), "Never"), json!({})).await;
    let created = admin.post(DEPLOYMENTS, &deployment("d")).await.expect(201);
    assert_eq!(created["metadata"]["labels"], json!({"example.com/env": "test"}));
    let template = &created["spec"]["template"]["spec"];
    assert_eq!(template["initContainers"][0]["name"], "mesh");
    assert_eq!(template["initContainers"][0]["terminationMessagePolicy"], "File");
    assert_eq!(template["containers"][0]["name"], "c");
}

#[tokio::test]
async fn a_mutation_that_fails_refuses_the_write() {
    let server = Server::start().await;
    let admin = server.admin();
    let spec = |expression: &str| {
        json!({"matchConstraints": rules(json!(["CREATE"]), "apps", "deployments"), "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]})
    };
    let atomic = "Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'a': 'b'}}}}";
    bind(&admin, "mutating", "atomic", spec(atomic), json!({})).await;
    let refused = admin.post(DEPLOYMENTS, &deployment("d")).await;
    refused.refused(
        403,
        "Invalid",
        "policy 'atomic' with binding 'atomic-binding' denied request: error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector",
    );
}

#[tokio::test]
async fn policies_that_ask_for_it_see_what_later_ones_made() {
    let server = Server::start().await;
    let admin = server.admin();
    let spec = |condition: &str, expression: &str, reinvocation: &str| {
        json!({"matchConstraints": rules(json!(["CREATE"]), "", "configmaps"), "reinvocationPolicy": reinvocation,
            "matchConditions": [{"name": "c", "expression": condition}],
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}]})
    };
    let add =
        |key: &str, value: &str| format!("[JSONPatch{{op: 'add', path: '/data/{key}', value: {value}}}]");
    bind(
        &admin,
        "mutating",
        "a-counts",
        spec("true", &add("count", "string(size(object.data))"), "IfNeeded"),
        json!({}),
    )
    .await;
    bind(
        &admin,
        "mutating",
        "b-adds",
        spec("!('more' in object.data)", &add("more", "'1'"), "Never"),
        json!({}),
    )
    .await;
    let created = admin.post(CONFIG_MAPS, &config_map("x")).await.expect(201);
    assert_eq!(created["data"], json!({"a": "1", "count": "3", "more": "1"}));
}

#[tokio::test]
async fn match_conditions_keep_a_webhook_from_being_called() {
    let server = Server::start().await;
    let admin = server.admin();
    let hook = crate::support::webhook::Webhook::start(|_| json!({"allowed": false})).await;
    let mut value = hook.hook("v.example.com", json!([{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]));
    value["matchConditions"] = json!([
        {"name": "named", "expression": "object.metadata.name.startsWith('no')"},
        {"name": "data", "expression": "object.data.a == '1'"},
    ]);
    let path = format!("{GROUP}/validatingwebhookconfigurations");
    admin.post(&path, &json!({"metadata": {"name": "v"}, "webhooks": [value]})).await.expect(201);
    admin.get(&path).await.expect(200);
    admin.post(CONFIG_MAPS, &config_map("yes")).await.expect(201);
    admin.post(CONFIG_MAPS, &config_map("no")).await.expect(400);
    let mut empty = config_map("nothing");
    empty["data"] = json!({});
    admin.post(CONFIG_MAPS, &empty).await.refused(
        403,
        "Forbidden",
        "configmaps \"nothing\" is forbidden: expression 'object.data.a == '1'' resulted in error: no such key: a",
    );
}

#[tokio::test]
async fn who_writes_a_policy_must_be_able_to_read_its_parameters() {
    let server = Server::start().await;
    let (admin, jane) = (server.admin(), server.client("jane", &["devs"]));
    let role = |rules: Value| json!({"metadata": {"name": "writer"}, "rules": rules});
    let writes = json!({"verbs": ["*"], "apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"]});
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    admin.post(roles, &role(json!([writes]))).await.expect(201);
    let bound = json!({"metadata": {"name": "writer"}, "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "ClusterRole", "name": "writer", "apiGroup": "rbac.authorization.k8s.io"}});
    admin.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &bound).await.expect(201);

    let (policies, bindings) = (
        format!("{GROUP}/validatingadmissionpolicies"),
        format!("{GROUP}/validatingadmissionpolicybindings"),
    );
    let policy = json!({"metadata": {"name": "p"}, "spec": {
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": rules(json!(["CREATE"]), "apps", "deployments"),
        "validations": [{"expression": "params.data.a == '1'"}]}});
    let binding = |policy: &str| {
        json!({"metadata": {"name": "b"}, "spec": {"policyName": policy, "validationActions": ["Deny"],
            "paramRef": {"name": "c", "namespace": "default", "parameterNotFoundAction": "Deny"}}})
    };
    eventually("jane may write policies", || async {
        let reply = jane.get(&policies).await;
        if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
    let refused = |reply: Reply, parts: [&str; 2]| {
        let who = "user &{jane  [devs system:authenticated] map[authentication.kubernetes.io/credential-id:[";
        for part in [who].into_iter().chain(parts) {
            reply.refused(422, "Invalid", part);
        }
    };
    refused(
        jane.post(&policies, &policy).await,
        [
            "spec.paramKind: Forbidden: ",
            r#"must have "get" permission on all objects of the referenced paramKind (kind=ConfigMap, apiVersion=v1)"#,
        ],
    );
    refused(
        jane.post(&bindings, &binding("p")).await,
        [
            "spec.paramRef: Forbidden: unable to get policy p to determine minimum required permissions and user",
            r#"does not have "get" permission for all groups, versions and resources"#,
        ],
    );
    admin.post(&policies, &policy).await.expect(201);
    refused(
        jane.post(&bindings, &binding("p")).await,
        [
            "spec.paramRef: Forbidden: user",
            r#"does not have "get" permission on the object referenced by paramRef"#,
        ],
    );
    // What is not about the parameters may be changed without the right to read them.
    let path = format!("{policies}/p");
    jane.patch(&path, "merge", &json!({"spec": {"failurePolicy": "Ignore"}})).await.expect(200);
    let other = json!({"spec": {"paramKind": {"kind": "Secret"}}});
    jane.patch(&path, "merge", &other).await.refused(422, "Invalid", "kind=Secret");

    let reads = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"]});
    admin.put(&format!("{roles}/writer"), &role(json!([writes, reads]))).await.expect(200);
    eventually("jane may read the parameters", || async {
        let reply = jane.post(&bindings, &binding("p")).await;
        if reply.status == 201 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
}
