//! What is counted of webhooks and policies, under upstream's names and labels.

use serde_json::{Value, json};

use crate::support::webhook::Webhook;
use crate::support::{CONFIG_MAPS, Client, Server, config_map};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

async fn shows(admin: &Client, wanted: &[&str]) {
    let text = admin.get("/metrics").await.text();
    for line in wanted {
        assert!(text.lines().any(|l| l.starts_with(line)), "{line}\n{text}");
    }
}

fn rules(mut rule: Value) -> Value {
    for (field, value) in [("operations", "CREATE"), ("apiGroups", ""), ("apiVersions", "v1")] {
        rule[field] = json!([value]);
    }
    json!([rule])
}

#[tokio::test]
async fn webhooks_and_plug_ins_are_counted_by_how_they_end() {
    let hook = Webhook::start(|request| match request["name"] == "bad" {
        true => json!({"allowed": false, "status": {"code": 418}}),
        false => json!({"allowed": true}),
    })
    .await;
    let server = Server::start().await;
    let admin = server.admin();
    let only = rules(json!({"resources": ["configmaps"]}));
    let mut lost = hook.hook("lost.example.com", only.clone());
    lost["clientConfig"] = json!({"url": "https://127.0.0.1:1/"});
    lost["failurePolicy"] = "Ignore".into();
    let hooks = json!([hook.hook("v.example.com", only), lost]);
    let path = format!("{GROUP}/validatingwebhookconfigurations");
    admin.post(&path, &json!({"metadata": {"name": "v"}, "webhooks": hooks})).await.expect(201);
    admin.get(&path).await.expect(200);
    admin.post(CONFIG_MAPS, &config_map("good")).await.expect(201);
    admin.post(CONFIG_MAPS, &config_map("bad")).await.expect(418);
    let labels = r#"type="validating",operation="CREATE""#;
    shows(
        &admin,
        &[
            &format!(r#"apiserver_admission_webhook_request_total{{name="v.example.com",{labels},code="200",rejected="false"}} 1"#),
            &format!(r#"apiserver_admission_webhook_request_total{{name="v.example.com",{labels},code="418",rejected="true"}} 1"#),
            &format!(r#"apiserver_admission_webhook_request_total{{name="lost.example.com",{labels},code="503",rejected="false"}} 2"#),
            &format!(r#"apiserver_admission_webhook_rejection_count{{name="v.example.com",{labels},error_type="no_error",rejection_code="418"}} 1"#),
            r#"apiserver_admission_webhook_fail_open_count{name="lost.example.com",type="validating"} 2"#,
            &format!(r#"apiserver_admission_webhook_admission_duration_seconds_count{{name="v.example.com",{labels},rejected="true"}} 1"#),
            r#"apiserver_admission_controller_admission_duration_seconds_count{name="ValidatingAdmissionWebhook",type="validate",operation="CREATE",rejected="true"} 1"#,
            r#"apiserver_admission_controller_admission_duration_seconds_count{name="LimitRanger",type="admit",operation="CREATE",rejected="false"} "#,
        ],
    )
    .await;
}

#[tokio::test]
async fn policies_are_counted_by_binding_error_and_action() {
    let server = Server::start().await;
    let admin = server.admin();
    let matches = json!({"resourceRules": rules(json!({"resources": ["configmaps"]}))});
    for (kind, name, mut spec, mut bound) in [
        (
            "validating",
            "strict",
            json!({"validations": [{"expression": "object.metadata.name != 'bad'"}]}),
            json!({"validationActions": ["Deny", "Audit"]}),
        ),
        (
            "validating",
            "lenient",
            json!({"failurePolicy": "Ignore", "validations": [{"expression": "object.data.missing == 'x'"}]}),
            json!({"validationActions": ["Deny"]}),
        ),
        (
            "mutating",
            "marks",
            json!({"reinvocationPolicy": "Never", "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {
                "expression": "Object{metadata: Object.metadata{labels: {'a': 'b'}}}"}}]}),
            json!({}),
        ),
    ] {
        spec["matchConstraints"] = matches.clone();
        bound["policyName"] = name.into();
        for (resource, name, spec) in
            [("policies", name.to_owned(), spec), ("policybindings", format!("{name}-b"), bound)]
        {
            let path = format!("{GROUP}/{kind}admission{resource}");
            admin.post(&path, &json!({"metadata": {"name": name}, "spec": spec})).await.expect(201);
            admin.get(&path).await.expect(200);
        }
    }
    admin.post(CONFIG_MAPS, &config_map("bad")).await.expect(422);
    let validating = "apiserver_validating_admission_policy_check";
    let strict = r#"policy="strict",policy_binding="strict-b",error_type="invalid_error""#;
    let lenient = r#"policy="lenient",policy_binding="lenient-b",error_type="invalid_error""#;
    shows(
        &admin,
        &[
            &format!(r#"{validating}_total{{{strict},enforcement_action="deny"}} 1"#),
            &format!(r#"{validating}_total{{{strict},enforcement_action="audit"}} 1"#),
            &format!(r#"{validating}_total{{{lenient},enforcement_action="allow"}} 1"#),
            &format!(r#"{validating}_duration_seconds_count{{{strict},enforcement_action="deny"}} 1"#),
            r#"apiserver_mutating_admission_policy_check_total{policy="marks",policy_binding="marks-b",error_type="no_error"} 1"#,
            r#"apiserver_mutating_admission_policy_check_duration_seconds_count{policy="marks""#,
        ],
    )
    .await;
}

#[tokio::test]
async fn webhooks_whose_certificate_has_no_alternative_name_are_counted() {
    let hook = Webhook::named("127.0.0.1", &[], |_| Value::Null).await;
    let server = Server::start().await;
    let admin = server.admin();
    let hooks = json!([hook.hook("v.example.com", rules(json!({"resources": ["configmaps"]})))]);
    let path = format!("{GROUP}/validatingwebhookconfigurations");
    admin.post(&path, &json!({"metadata": {"name": "v"}, "webhooks": hooks})).await.expect(201);
    admin.get(&path).await.expect(200);
    admin.post(CONFIG_MAPS, &config_map("a")).await.expect(500);
    shows(
        &admin,
        &[
            "apiserver_webhooks_x509_missing_san_total 1",
            "apiserver_webhooks_x509_insecure_sha1_total 0",
            "apiserver_kube_aggregator_x509_missing_san_total 0",
        ],
    )
    .await;
}
