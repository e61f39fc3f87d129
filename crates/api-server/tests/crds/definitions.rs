//! What a definition may say.

use serde_json::{Value, json};

use super::{DEFINITIONS, causes, condition, definition, serve, with_spec};
use crate::support::Server;

/// Each change of a good definition and the complaint that it earns.
async fn refuses(cases: Vec<(&str, Value, &str)>) {
    let server = Server::start().await;
    let admin = server.admin();
    for (pointer, value, complaint) in cases {
        let mut bad = definition();
        match bad.pointer_mut(pointer) {
            Some(place) => *place = value.clone(),
            None => {
                let (parent, name) = pointer.rsplit_once('/').unwrap();
                bad.pointer_mut(parent).unwrap()[name] = value.clone();
            }
        }
        let status = admin.post(DEFINITIONS, &bad).await.refused(422, "Invalid", "");
        let causes = causes(&status);
        assert!(
            causes.iter().any(|c| c.starts_with(complaint)),
            "{pointer} = {value}: {complaint}\n{causes:#?}"
        );
    }
}

#[tokio::test]
async fn names_groups_and_versions_have_their_grammar() {
    refuses(vec![
        ("/metadata/name", json!("gadgets.example.com"), r#"metadata.name: Invalid value: "gadgets.example.com": must be spec.names.plural+"."+spec.group"#),
        ("/spec/group", json!("example"), r#"spec.group: Invalid value: "example": should be a domain with at least one dot"#),
        ("/spec/group", json!("Example.com"), r#"spec.group: Invalid value: "Example.com": a lowercase RFC 1123 subdomain"#),
        ("/spec/scope", json!("Everywhere"), r#"spec.scope: Unsupported value: "Everywhere": supported values: "Cluster", "Namespaced""#),
        ("/spec/scope", json!(""), "spec.scope: Required value"),
        ("/spec/names/plural", json!("Widgets"), r#"spec.names.plural: Invalid value: "Widgets": a DNS-1035 label"#),
        ("/spec/names/kind", json!("Wid_get"), r#"spec.names.kind: Invalid value: "Wid_get": may have mixed case, but should otherwise match: a DNS-1035 label"#),
        ("/spec/names/listKind", json!("Widget"), r#"spec.names.listKind: Invalid value: "Widget": kind and listKind may not be the same"#),
        ("/spec/names/shortNames", json!(["ok", "W"]), r#"spec.names.shortNames[1]: Invalid value: "W""#),
        ("/spec/names/categories", json!(["1"]), r#"spec.names.categories[0]: Invalid value: "1""#),
        ("/spec/versions/0/name", json!("1"), r#"spec.versions[0].name: Invalid value: "1""#),
        ("/spec/versions/0/storage", json!(false), "spec.versions: Invalid value"),
        ("/spec/versions/0/deprecationWarning", json!("old"), r#"spec.versions[0].deprecationWarning: Invalid value: "old": can only be set for deprecated versions"#),
        ("/spec/versions/0/schema", json!({}), "spec.versions[0].schema.openAPIV3Schema: Required value"),
        ("/spec/preserveUnknownFields", json!(true), "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"),
    ])
    .await;
}

#[tokio::test]
async fn subresources_columns_and_selectable_fields_name_paths() {
    let paths = |spec: &str, status: &str| json!({"status": {}, "scale": {"specReplicasPath": spec, "statusReplicasPath": status}});
    let column = |c: Value| json!([c]);
    let fields = |all: &[&str]| Value::from(all.iter().map(|p| json!({"jsonPath": p})).collect::<Vec<_>>());
    refuses(vec![
        ("/spec/versions/0/subresources", paths("spec.replicas", ".status.x"), r#"spec.subresources.scale.specReplicasPath: Invalid value: "spec.replicas": must be a simple json path starting with ."#),
        ("/spec/versions/0/subresources", paths(".status.replicas", ".status.x"), r#"spec.subresources.scale.specReplicasPath: Invalid value: ".status.replicas": should be a json path under .spec"#),
        ("/spec/versions/0/subresources", paths(".spec.replicas", ""), "spec.subresources.scale.statusReplicasPath: Required value"),
        ("/spec/versions/0/additionalPrinterColumns", column(json!({"name": "A", "type": "text", "jsonPath": ".a"})), r#"spec.additionalPrinterColumns[0].type: Invalid value: "text": must be one of boolean,date,integer,number,string"#),
        ("/spec/versions/0/additionalPrinterColumns", column(json!({"name": "A", "type": "string", "jsonPath": "a"})), r#"spec.additionalPrinterColumns[0].JSONPath: Invalid value: "a": must be a simple json path starting with ."#),
        ("/spec/versions/0/additionalPrinterColumns", column(json!({"name": "A", "type": "string", "format": "x", "jsonPath": ".a"})), r#"spec.additionalPrinterColumns[0].format: Invalid value: "x": must be one of byte,date,date-time"#),
        ("/spec/versions/0/selectableFields", fields(&[".spec.nothing"]), r#"spec.selectableFields[0].jsonPath: Invalid value: ".spec.nothing": is an invalid path: does not refer to a valid field"#),
        ("/spec/versions/0/selectableFields", fields(&[".spec"]), r#"spec.selectableFields[0].jsonPath: Invalid value: ".spec": must point to a field of type string, boolean or integer."#),
        ("/spec/versions/0/selectableFields", fields(&[".spec.color", ".spec.color"]), r#"spec.selectableFields[1].jsonPath: Duplicate value: ".spec.color""#),
        ("/spec/versions/0/selectableFields", fields(&["spec"]), r#"spec.selectableFields[0].jsonPath: Invalid value: "spec": is an invalid path: expected [ or . but got: spec"#),
    ])
    .await;
}

#[tokio::test]
async fn a_conversion_by_webhook_says_which() {
    let webhook = |config: Value, versions: Value| json!({"strategy": "Webhook", "webhook": {"clientConfig": config, "conversionReviewVersions": versions}});
    let url = || json!({"url": "https://a.b/c"});
    refuses(vec![
        ("/spec/conversion", json!({"strategy": "Magic"}), r#"spec.conversion.strategy: Unsupported value: "Magic""#),
        ("/spec/conversion", json!({"strategy": "Webhook"}), "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook"),
        ("/spec/conversion", webhook(json!({}), json!(["v1"])), "spec.conversion.webhookClientConfig: Required value: exactly one of url or service is required"),
        ("/spec/conversion", webhook(json!({"url": "http://a.b"}), json!(["v1"])), r#"spec.conversion.webhookClientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme"#),
        ("/spec/conversion", webhook(json!({"url": "https://u@a.b/?x=1#y"}), json!(["v1"])), r#"spec.conversion.webhookClientConfig.url: Invalid value: "u": user information is not permitted in the URL"#),
        ("/spec/conversion", webhook(json!({"service": {"namespace": "a", "name": "b", "path": "x"}}), json!(["v1"])), r#"spec.conversion.webhookClientConfig.service.path: Invalid value: "x": must start with a '/'"#),
        ("/spec/conversion", webhook(url(), json!([])), "spec.conversion.conversionReviewVersions: Required value"),
        ("/spec/conversion", webhook(url(), json!(["v2"])), r#"spec.conversion.conversionReviewVersions: Invalid value: ["v2"]: must include at least one of v1, v1beta1"#),
        ("/spec/conversion", webhook(url(), json!(["v1", "v1"])), r#"spec.conversion.conversionReviewVersions[1]: Invalid value: "v1": duplicate version"#),
        ("/spec/conversion", json!({"strategy": "None", "webhook": {"clientConfig": url(), "conversionReviewVersions": ["v1"]}}), "spec.conversion.webhookClientConfig: Forbidden: should not be set when strategy is not set to Webhook"),
    ])
    .await;
}

#[tokio::test]
async fn a_schema_is_structural() {
    let server = Server::start().await;
    let admin = server.admin();
    let at = "spec.validation.openAPIV3Schema.properties[spec]";
    let text = || json!({"type": "string"});
    for (spec, complaint) in [
        (json!({}), format!("{at}.type: Required value: must not be empty for specified object fields")),
        (
            json!({"type": "text"}),
            format!(
                r#"{at}.type: Unsupported value: "text": supported values: "array", "boolean", "integer", "number", "object", "string""#
            ),
        ),
        (json!({"type": "array"}), format!("{at}.items: Required value: must be specified")),
        (
            json!({"type": "array", "items": {}}),
            format!("{at}.items.type: Required value: must not be empty for specified array items"),
        ),
        (
            json!({"type": "object", "properties": {"a": text()}, "additionalProperties": text()}),
            format!(
                "{at}.additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"
            ),
        ),
        (
            json!({"type": "string", "anyOf": [{"type": "string"}]}),
            format!("{at}.anyOf[0].type: Forbidden: must be empty to be structural"),
        ),
        (
            json!({"type": "string", "not": {"default": "a", "nullable": true}}),
            format!("{at}.not.nullable: Forbidden: must be false to be structural"),
        ),
        (
            json!({"type": "string", "pattern": "("}),
            format!(
                r#"{at}.pattern: Invalid value: "(": must be a valid regular expression, but isn't: error parsing regexp: "#
            ),
        ),
        (
            json!({"type": "array", "uniqueItems": true, "items": text()}),
            format!(
                "{at}.uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
            ),
        ),
        (json!({"type": "string", "$ref": "#/x"}), format!("{at}.$ref: Forbidden: $ref is not supported")),
        (
            json!({"x-kubernetes-int-or-string": true, "x-kubernetes-preserve-unknown-fields": true}),
            format!(
                "{at}.x-kubernetes-preserve-unknown-fields: Invalid value: true: must be false if x-kubernetes-int-or-string is true"
            ),
        ),
        (
            json!({"type": "string", "x-kubernetes-embedded-resource": true}),
            format!(
                r#"{at}.type: Invalid value: "string": must be object if x-kubernetes-embedded-resource is true"#
            ),
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true}),
            format!(
                "{at}.properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
            ),
        ),
        (
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": false}),
            format!(
                "{at}.x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined"
            ),
        ),
        (
            json!({"type": "string", "x-kubernetes-map-type": "atomic"}),
            format!(
                r#"{at}.type: Invalid value: "string": must be object if x-kubernetes-map-type is specified"#
            ),
        ),
        (
            json!({"type": "array", "items": text(), "x-kubernetes-list-type": "bag"}),
            format!(
                r#"{at}.x-kubernetes-list-type: Unsupported value: "bag": supported values: "atomic", "set", "map""#
            ),
        ),
        (
            json!({"type": "array", "items": text(), "x-kubernetes-list-map-keys": ["a"]}),
            format!(
                "{at}.x-kubernetes-list-type: Required value: must be map if x-kubernetes-list-map-keys is non-empty"
            ),
        ),
        (
            json!({"type": "array", "items": text(), "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"]}),
            format!(
                r#"{at}.items.type: Invalid value: "string": must be object if parent array's x-kubernetes-list-type is map"#
            ),
        ),
        (
            json!({"type": "array", "items": {"type": "object", "properties": {"a": text()}}, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"]}),
            format!(
                "{at}.items.properties[a].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            ),
        ),
        (
            json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"}),
            format!(
                "{at}.items.x-kubernetes-map-type: Invalid value: \"null\": must be atomic as item of a list with x-kubernetes-list-type=set"
            ),
        ),
        (
            json!({"type": "array", "items": {"type": "string", "nullable": true}, "x-kubernetes-list-type": "set"}),
            format!("{at}.items.nullable: Forbidden: cannot be nullable when x-kubernetes-list-type is set"),
        ),
        (
            json!({"type": "integer", "default": "a"}),
            format!(
                r#"{at}.default: Invalid value: "string": {at}.default in body must be of type integer: "string""#
            ),
        ),
        (
            json!({"type": "object", "properties": {"a": text()}, "default": {"b": 1}}),
            format!(r#"{at}.default: Invalid value: {{"b":1}}: must not have unknown fields"#),
        ),
    ] {
        let status = admin.post(DEFINITIONS, &with_spec(spec.clone())).await.refused(422, "Invalid", "");
        let causes = causes(&status);
        // Of a default's own complaint only the beginning is in our hands: its path is that of the value.
        let complaint = complaint.replace(&format!("{at}.default in body"), " in body");
        assert!(causes.iter().any(|c| c.starts_with(&complaint)), "{spec}\n{complaint}\n{causes:#?}");
    }
}

#[tokio::test]
async fn the_root_of_a_schema_is_a_resource() {
    let root = "/spec/versions/0/schema/openAPIV3Schema";
    let at = "spec.validation.openAPIV3Schema";
    let cases: Vec<(String, Value, String)> = vec![
        (
            format!("{root}/type"),
            json!("string"),
            format!(r#"{at}.type: Invalid value: "string": must be object at the root"#),
        ),
        (
            format!("{root}/nullable"),
            json!(true),
            format!("{at}.nullable: Forbidden: nullable cannot be true at the root"),
        ),
        (format!("{root}/minProperties"), json!(1), format!("{at}: Invalid value")),
        (
            format!("{root}/properties/metadata"),
            json!({"type": "object", "properties": {"labels": {"type": "object"}}}),
            format!(
                "{at}.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified"
            ),
        ),
        (
            format!("{root}/properties/kind"),
            json!({"type": "integer"}),
            format!(r#"{at}.properties[kind].type: Invalid value: "integer": must be string"#),
        ),
        (
            format!("{root}/properties/kind"),
            json!({"type": "string", "default": "A"}),
            format!("{at}.properties[kind].default: Forbidden: must not be set in top-level kind"),
        ),
    ];
    refuses(cases.iter().map(|(p, v, c)| (p.as_str(), v.clone(), c.as_str())).collect()).await;
}

#[tokio::test]
async fn versions_that_differ_are_reported_one_by_one() {
    let server = Server::start().await;
    let mut bad = definition();
    let mut second = bad["spec"]["versions"][0].clone();
    second["name"] = "v2".into();
    second["storage"] = false.into();
    second["schema"]["openAPIV3Schema"]["properties"]["spec"] = json!({});
    bad["spec"]["versions"].as_array_mut().unwrap().push(second);
    let status = server.admin().post(DEFINITIONS, &bad).await.refused(422, "Invalid", "");
    assert_eq!(
        causes(&status),
        [
            "spec.versions[1].schema.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields"
        ]
    );
}

#[tokio::test]
async fn a_stored_version_stays_until_nothing_is_stored_in_it() {
    let server = Server::start().await;
    let admin = server.admin();
    serve(&admin, &definition()).await;
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let mut second = definition()["spec"]["versions"][0].clone();
    second["name"] = "v2".into();
    let change = json!([
        {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "add", "path": "/spec/versions/1", "value": second},
    ]);
    let both = admin.patch(&path, "json", &change).await.expect(200);
    assert_eq!(both["status"]["storedVersions"], json!(["v1", "v2"]));
    let without = json!([{"op": "remove", "path": "/spec/versions/0"}]);
    let refused =
        admin.patch(&path, "json", &without).await.refused(422, "Invalid", "status.storedVersions[0]");
    assert!(
        causes(&refused)[0].contains("v1 was previously a storage version, and must remain in spec.versions")
    );
    let migrated = json!({"status": {"storedVersions": ["v2"]}});
    admin.patch(&format!("{path}/status"), "merge", &migrated).await.expect(200);
    admin.patch(&path, "json", &without).await.expect(200);
    let kind = json!({"spec": {"names": {"kind": "Gadget", "listKind": "GadgetList"}}});
    admin.patch(&path, "merge", &kind).await.refused(
        422,
        "Invalid",
        "spec.names.kind: Invalid value: \"Gadget\": field is immutable",
    );
}

#[tokio::test]
async fn groups_of_the_project_need_an_approval() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut protected = definition();
    protected["metadata"]["name"] = "widgets.foo.k8s.io".into();
    protected["spec"]["group"] = "foo.k8s.io".into();
    let key = "metadata.annotations[api-approved.kubernetes.io]";
    admin.post(DEFINITIONS, &protected).await.refused(
        422,
        "Invalid",
        &format!("{key}: Required value: protected groups must have approval annotation"),
    );
    protected["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": "yes"});
    admin.post(DEFINITIONS, &protected).await.refused(
        422,
        "Invalid",
        &format!("{key}: Invalid value: \"yes\""),
    );
    protected["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": "unapproved, a test"});
    admin.post(DEFINITIONS, &protected).await.expect(201);
    let name = "widgets.foo.k8s.io";
    let now = condition(&admin, name, "KubernetesAPIApprovalPolicyConformant", "False").await;
    let reasons = |now: &Value| {
        now["status"]["conditions"].as_array().unwrap().iter().any(|c| c["reason"] == "UnapprovedAnnotation")
    };
    assert!(reasons(&now), "{now}");
    let approved = json!({"metadata": {"annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes/enhancements/pull/1"}}});
    admin.patch(&format!("{DEFINITIONS}/{name}"), "merge", &approved).await.expect(200);
    condition(&admin, name, "KubernetesAPIApprovalPolicyConformant", "True").await;
}

#[tokio::test]
async fn a_name_in_use_is_not_given_again_until_it_is_free() {
    let server = Server::start().await;
    let admin = server.admin();
    serve(&admin, &definition()).await;
    let mut other = definition();
    other["metadata"]["name"] = "gadgets.example.com".into();
    other["spec"]["names"] =
        json!({"plural": "gadgets", "kind": "Gadget", "shortNames": ["wd"], "categories": ["all"]});
    admin.post(DEFINITIONS, &other).await.expect(201);
    let now = condition(&admin, "gadgets.example.com", "NamesAccepted", "False").await;
    let found = |kind: &str| {
        now["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).unwrap()
    };
    assert_eq!(
        (&found("NamesAccepted")["reason"], &found("NamesAccepted")["message"]),
        (&json!("ShortNamesConflict"), &json!("\"wd\" is already in use"))
    );
    assert_eq!(
        (&found("Established")["status"], &found("Established")["reason"]),
        (&json!("False"), &json!("NotAccepted"))
    );
    assert_eq!(
        now["status"]["acceptedNames"],
        json!({"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList", "categories": ["all"]})
    );
    admin.get("/apis/example.com/v1/gadgets").await.expect(404);
    admin.delete(&format!("{DEFINITIONS}/widgets.example.com"), None).await.expect(200);
    condition(&admin, "gadgets.example.com", "Established", "True").await;
    admin.get("/apis/example.com/v1/gadgets").await.expect(200);
}

#[tokio::test]
async fn unknown_formats_are_warned_about() {
    let server = Server::start().await;
    let spec = json!({"type": "object", "properties": {"a": {"type": "string", "format": "moon"}, "b": {"type": "string", "format": "date"}}});
    let reply = server.admin().post(DEFINITIONS, &with_spec(spec)).await;
    reply.expect(201);
    let warnings: Vec<&str> = reply.headers.get_all("warning").iter().map(|w| w.to_str().unwrap()).collect();
    assert_eq!(warnings, [r#"299 - "unrecognized format \"moon\"""#]);
}
