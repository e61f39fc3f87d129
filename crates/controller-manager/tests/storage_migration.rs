//! What is in the store after a StorageVersionMigration.

use std::path::Path;
use std::time::Duration;

use keelson_client::rest::{self, patch};
use keelson_controller_manager::config::{Config, FeatureGates};
use keelson_daemon::Daemon;
use keelson_store::{EmbeddedConfig, StoreConfig};
use keelson_testkit::{Builder, ControlPlane, eventually};
use kube::Client;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const WAIT: Duration = Duration::from_secs(60);
const MIGRATIONS: &str = "/apis/storagemigration.k8s.io/v1beta1/storageversionmigrations";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v2/namespaces/default/widgets";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

fn plane() -> Builder {
    ControlPlane::builder().config("runtimeConfig", json!({"storagemigration.k8s.io/v1beta1": true}))
}

/// A client with all rights, once there is a namespace to work in.
async fn admin(plane: &ControlPlane) -> Client {
    let admin = plane.admin().await;
    let look = || rest::get::<Value>(&admin, "/api/v1/namespaces/default");
    eventually(WAIT, "the namespace is there", look).await;
    admin
}

/// Runs the controllers, with their own rights.
fn manage(plane: &ControlPlane) -> JoinHandle<()> {
    let config = Config {
        kubeconfig: plane.kubeconfig("controller-manager"),
        pki_dir: plane.pki(),
        leader_election: false,
        feature_gates: FeatureGates { storage_version_migrator: true },
        ..Config::default()
    };
    tokio::spawn(async move {
        keelson_controller_manager::run(config, Daemon::new("controller-manager")).await.expect("it runs");
    })
}

async fn get(client: &Client, path: &str) -> Value {
    rest::get(client, path).await.unwrap_or_else(|error| panic!("get {path}: {error}"))
}

async fn create(client: &Client, path: &str, object: Value) -> Value {
    rest::create(client, path, &object).await.unwrap_or_else(|error| panic!("create {object}: {error}"))
}

async fn migrate(client: &Client, name: &str, group: &str, resource: &str) {
    let object = json!({"apiVersion": "storagemigration.k8s.io/v1beta1", "kind": "StorageVersionMigration",
        "metadata": {"name": name}, "spec": {"resource": {"group": group, "resource": resource}}});
    create(client, MIGRATIONS, object).await;
}

/// Waits until a migration has ended; its conditions as `TYPE STATUS REASON: MESSAGE`.
async fn ended(client: &Client, name: &str) -> Vec<String> {
    eventually(WAIT, "the migration has ended", || async {
        let now = get(client, &format!("{MIGRATIONS}/{name}")).await;
        let text = |c: &Value, field: &str| c[field].as_str().unwrap_or_default().to_owned();
        let conditions = now["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let said: Vec<String> = conditions
            .iter()
            .map(|c| {
                format!(
                    "{} {} {}: {}",
                    text(c, "type"),
                    text(c, "status"),
                    text(c, "reason"),
                    text(c, "message")
                )
            })
            .collect();
        let over = said.iter().any(|c| c.starts_with("Running False"));
        if over { Ok(said) } else { Err(format!("{now}")) }
    })
    .await
}

const SUCCEEDED: [&str; 2] = [
    "Running False MigrationCompleted: Migration completed",
    "Succeeded True StorageVersionMigrationSucceeded: ",
];

/// What the store holds under a key, once the server is gone.
async fn stored(root: &Path, key: &str) -> Vec<u8> {
    let embedded = EmbeddedConfig::new(root.join("var/lib/keelson/api-server/store.redb"));
    let store = keelson_store::open(StoreConfig::Embedded(embedded)).await.expect("the store opens");
    store.get(key).await.expect("the store answers").kv.expect("the key exists").value.to_vec()
}

/// Widgets in v1, which is stored, and v2, which is the same.
fn definition() -> Value {
    let version = |name: &str| {
        json!({"name": name, "served": true, "storage": name == "v1", "schema": {"openAPIV3Schema":
            {"type": "object", "properties": {"size": {"type": "integer"}}}}})
    };
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [version("v1"), version("v2")]}})
}

async fn change(client: &Client, operations: Value) -> Result<Value, kube::Error> {
    rest::patch(client, &format!("{DEFINITIONS}/widgets.example.com"), patch::JSON, &operations).await
}

/// Waits until widgets are served, with another storage version than `before`; the hash of the present one.
async fn served(client: &Client, before: &str) -> String {
    eventually(WAIT, "widgets are stored otherwise", || async {
        let found: Result<Value, _> = rest::get(client, "/apis/example.com/v2").await;
        let list = found.map_err(|error| error.to_string())?;
        let hash = list["resources"][0]["storageVersionHash"].as_str().unwrap_or_default().to_owned();
        if hash == before { Err(hash) } else { Ok(hash) }
    })
    .await
}

/// Three widgets that are stored in v1, though v2 is the storage version by now.
async fn old_widgets(admin: &Client) {
    create(admin, DEFINITIONS, definition()).await;
    let hash = served(admin, "").await;
    for i in 0..3 {
        let widget = json!({"apiVersion": "example.com/v2", "kind": "Widget",
            "metadata": {"name": format!("w{i}")}, "size": i});
        create(admin, WIDGETS, widget).await;
    }
    let switch = json!([
        {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true},
    ]);
    change(admin, switch).await.expect("the definition changes");
    served(admin, &hash).await;
}

/// What a definition says of migrations, and the versions in which it has objects.
async fn stored_versions(admin: &Client) -> (Value, Value) {
    let definition = get(admin, &format!("{DEFINITIONS}/widgets.example.com")).await;
    let conditions = definition["status"]["conditions"].as_array().expect("conditions");
    let migrating = conditions.iter().find(|c| c["type"] == "StorageMigrating").expect("the condition");
    assert_eq!(migrating["status"], "False");
    (migrating["message"].clone(), definition["status"]["storedVersions"].clone())
}

#[tokio::test]
async fn objects_move_to_the_storage_version_and_the_old_version_may_go() {
    let mut plane = plane().start().await.expect("a server");
    let admin = admin(&plane).await;
    let _manager = manage(&plane);
    old_widgets(&admin).await;
    let without_v1 = json!([{"op": "remove", "path": "/spec/versions/0"}]);
    change(&admin, without_v1.clone()).await.expect_err("objects are stored in v1");

    migrate(&admin, "first", "example.com", "widgets").await;
    migrate(&admin, "second", "example.com", "widgets").await;
    assert_eq!(ended(&admin, "first").await, SUCCEEDED);
    assert_eq!(ended(&admin, "second").await, SUCCEEDED);
    let migrated = get(&admin, WIDGETS).await;
    let done = "The migration has succeeded and the stored versions have been updated";
    assert_eq!(stored_versions(&admin).await, (json!(done), json!(["v2"])));
    // There was nothing left to do for another.
    migrate(&admin, "third", "example.com", "widgets").await;
    assert_eq!(ended(&admin, "third").await, SUCCEEDED);
    assert_eq!(get(&admin, WIDGETS).await["items"], migrated["items"]);
    change(&admin, without_v1).await.expect("nothing is stored in v1");

    plane.kill().await.expect("the server ends");
    for i in 0..3 {
        let raw = stored(plane.root(), &format!("/registry/example.com/widgets/default/w{i}")).await;
        let object: Value = serde_json::from_slice(&raw).expect("JSON");
        assert_eq!((&object["apiVersion"], &object["size"]), (&json!("example.com/v2"), &json!(i)));
        assert_eq!(object["metadata"]["generation"], 1);
    }
}

#[tokio::test]
async fn a_refused_object_fails_the_migration_and_its_version_stays_known() {
    let plane = plane().start().await.expect("a server");
    let admin = admin(&plane).await;
    let _manager = manage(&plane);
    old_widgets(&admin).await;
    let group = "admissionregistration.k8s.io/v1";
    let policy = json!({"apiVersion": group, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "keep"},
        "spec": {"validations": [{"expression": "object.size != 1", "message": "one stays"}],
            "matchConstraints": {"resourceRules": [{"apiGroups": ["example.com"], "apiVersions": ["*"],
                "resources": ["widgets"], "operations": ["UPDATE"]}]}}});
    let binding = json!({"apiVersion": group, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "keep"},
        "spec": {"policyName": "keep", "validationActions": ["Deny"]}});
    create(&admin, &format!("/apis/{group}/validatingadmissionpolicies"), policy).await;
    create(&admin, &format!("/apis/{group}/validatingadmissionpolicybindings"), binding).await;
    eventually(WAIT, "the policy counts", || async {
        let patched: Result<Value, _> =
            rest::patch(&admin, &format!("{WIDGETS}/w1?dryRun=All"), patch::MERGE, &json!({})).await;
        if patched.is_err() { Ok(()) } else { Err("allowed") }
    })
    .await;
    migrate(&admin, "m", "example.com", "widgets").await;
    let said = ended(&admin, "m").await;
    let failed = "Failed True StorageVersionMigrationFailed: migration encountered unhandled error: ";
    assert!(said[1].starts_with(failed) && said[1].ends_with("one stays"), "{said:?}");
    assert_eq!(stored_versions(&admin).await, (json!("The migration has failed"), json!(["v1", "v2"])));
}

#[tokio::test]
async fn what_is_stored_as_it_is_to_be_stays_untouched() {
    let plane = plane().start().await.expect("a server");
    let admin = admin(&plane).await;
    let _manager = manage(&plane);
    let rbac = "rbac.authorization.k8s.io";
    // Of every kind that the server has objects of by itself; some of their names are no plain path segments.
    let resources = [
        ("", "v1", "namespaces"),
        ("", "v1", "services"),
        (rbac, "v1", "clusterroles"),
        (rbac, "v1", "clusterrolebindings"),
        (rbac, "v1", "roles"),
        ("apiregistration.k8s.io", "v1", "apiservices"),
        ("flowcontrol.apiserver.k8s.io", "v1", "flowschemas"),
        ("flowcontrol.apiserver.k8s.io", "v1", "prioritylevelconfigurations"),
        ("networking.k8s.io", "v1", "ipaddresses"),
        ("scheduling.k8s.io", "v1", "priorityclasses"),
    ];
    let path = |group: &str, version: &str, resource: &str| match group {
        "" => format!("/api/{version}/{resource}"),
        _ => format!("/apis/{group}/{version}/{resource}"),
    };
    // All that nobody else writes by now.
    let settled = |path: String| {
        let admin = &admin;
        let of_status = path.contains("flowschemas") || path.contains("apiservices");
        eventually(WAIT, "the server has said how its objects are", move || {
            let path = path.clone();
            async move {
                let mut items = get(admin, &path).await["items"].as_array().cloned().unwrap_or_default();
                items.retain(|o| o["aggregationRule"].is_null());
                let said = !of_status || items.iter().all(|o| o["status"]["conditions"].is_array());
                if said && !items.is_empty() { Ok(items) } else { Err(format!("{path}: {items:?}")) }
            }
        })
    };
    for (group, version, resource) in resources {
        let path = path(group, version, resource);
        let before = settled(path.clone()).await;
        migrate(&admin, resource, group, resource).await;
        assert_eq!(ended(&admin, resource).await, SUCCEEDED, "{resource}");
        assert_eq!(settled(path).await, before, "{resource}");
    }
}

#[tokio::test]
async fn secrets_are_encrypted_with_the_new_key_and_what_cannot_be_migrated_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("encryption.yaml");
    let write = |keys: &[&str]| {
        let keys: Vec<Value> = keys
            .iter()
            .map(|name| json!({"name": name, "secret": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}))
            .collect();
        let document = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
            "resources": [{"resources": ["secrets"], "providers": [{"aesgcm": {"keys": keys}}]}]});
        std::fs::write(&file, document.to_string()).expect("a configuration");
    };
    write(&["one"]);
    let mut plane = plane().config("encryption", json!({"file": file})).start().await.expect("a server");
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}});
    let created = create(&admin(&plane).await, SECRETS, secret).await;
    plane.kill().await.expect("the server ends");
    assert!(stored(plane.root(), "/registry/secrets/default/s").await.starts_with(b"k8s:enc:aesgcm:v1:one:"));
    write(&["two", "one"]);
    plane.restart().await.expect("the server starts again");

    let admin = admin(&plane).await;
    let _manager = manage(&plane);
    migrate(&admin, "secrets", "", "secrets").await;
    migrate(&admin, "statuses", "", "componentstatuses").await;
    assert_eq!(ended(&admin, "secrets").await, SUCCEEDED);
    let mut migrated = get(&admin, &format!("{SECRETS}/s")).await;
    assert_ne!(migrated["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    migrated["metadata"]["resourceVersion"] = created["metadata"]["resourceVersion"].clone();
    assert_eq!(migrated, created);
    let failed = "Failed True StorageVersionMigrationFailed: resource \"/v1, Resource=componentstatuses\" does not \
                  support discovery operations: [update patch list]";
    assert_eq!(ended(&admin, "statuses").await, [SUCCEEDED[0], failed]);
    plane.kill().await.expect("the server ends");
    assert!(stored(plane.root(), "/registry/secrets/default/s").await.starts_with(b"k8s:enc:aesgcm:v1:two:"));
}
