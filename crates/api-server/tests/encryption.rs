//! Encryption at rest: what the store holds, and that the API does not show the difference.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use keelson_api_server::config::Config;
use keelson_kms::tonic;
use keelson_kms::v2::key_management_service_server::{KeyManagementService, KeyManagementServiceServer};
use keelson_kms::v2::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};
use serde_json::{Value, json};
use tokio_stream::wrappers::UnixListenerStream;

use crate::support::{CONFIG_MAPS, Client, Server, config_map, eventually};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const KEY: &str = "/registry/secrets/default/s";

fn secret() -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "confidential"}})
}

fn keys(name: &str) -> Value {
    let secret = match name {
        "one" => "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        _ => "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=",
    };
    json!({"keys": [{"name": name, "secret": secret}]})
}

fn document(resources: &[&str], providers: Value) -> Value {
    json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
        "resources": [{"resources": resources, "providers": providers}]})
}

fn inline(providers: Value) -> impl Fn(&mut Config, &Path) {
    let document = document(&["secrets"], providers);
    move |config, _| config.encryption = Some(serde_json::from_value(document.clone()).unwrap())
}

fn from_file(config: &mut Config, dir: &Path) {
    config.encryption = Some(serde_json::from_value(json!({"file": dir.join("encryption.yaml")})).unwrap());
}

fn contains(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|w| w == part.as_bytes())
}

/// Base64 of `confidential`, as the object has it.
const DATA: &str = "Y29uZmlkZW50aWFs";

async fn data(client: &Client) -> Value {
    client.get(&format!("{SECRETS}/s")).await.expect(200)["data"]["a"].clone()
}

#[tokio::test]
async fn stored_values_are_not_plain_and_survive_a_restart() {
    for (provider, prefix) in [
        (json!({"aescbc": keys("one")}), "k8s:enc:aescbc:v1:one:"),
        (json!({"aesgcm": keys("one")}), "k8s:enc:aesgcm:v1:one:"),
        (json!({"secretbox": keys("one")}), "k8s:enc:secretbox:v1:one:"),
    ] {
        let mut plane = Server::start_with(inline(json!([provider]))).await;
        let admin = plane.admin();
        admin.post(SECRETS, &secret()).await.expect(201);
        admin.post(CONFIG_MAPS, &config_map("plain")).await.expect(201);
        let raw = plane.raw(KEY).await;
        assert!(raw.starts_with(prefix.as_bytes()), "{prefix}: {raw:?}");
        assert!(!contains(&raw, DATA) && !contains(&raw, "metadata"), "{prefix}");
        assert!(plane.raw("/registry/configmaps/default/plain").await.starts_with(b"{"));
        // What shows the configuration does not show the key.
        assert_eq!(
            admin.get("/configz").await.expect(200)["apiserver"]["encryption"],
            json!({"inline": true})
        );
        let mut watch = admin.watch(&format!("{SECRETS}?watch=1&resourceVersion=0")).await;
        assert_eq!(watch.seen().await, "ADDED s");
        plane.restart().await;
        assert_eq!(data(&plane.admin()).await, DATA);
        // Its change needs the stored state decrypted, and the watch of the store as well.
        let change = json!({"stringData": {"b": "more"}});
        plane.admin().patch(&format!("{SECRETS}/s"), "merge", &change).await.expect(200);
        assert_eq!(plane.admin().get(&format!("{SECRETS}/s")).await.expect(200)["data"]["b"], "bW9yZQ==");
    }
}

#[tokio::test]
async fn an_unchanged_write_encrypts_anew_once_the_configuration_has_another_first_key() {
    let write = |dir: &Path, providers: Value| {
        std::fs::write(dir.join("encryption.yaml"), document(&["*.*"], providers).to_string()).unwrap();
    };
    let plane = Server::start_with(move |config, dir| {
        write(dir, json!([{"identity": {}}]));
        from_file(config, dir);
    })
    .await;
    let admin = plane.admin();
    let path = format!("{SECRETS}/s");
    let created = admin.post(SECRETS, &secret()).await.expect(201);
    assert!(contains(&plane.raw(KEY).await, DATA));
    let put = async |object: &Value| admin.put(&path, object).await.expect(200);
    assert_eq!(put(&created).await["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);

    write(plane.dir(), json!([{"aesgcm": keys("one")}, {"identity": {}}]));
    eventually("the new configuration counts", || async {
        let now = admin.get(&path).await.expect(200);
        put(&now).await;
        match plane.raw(KEY).await.starts_with(b"k8s:enc:aesgcm:v1:one:") {
            true => Ok(()),
            false => Err("still plain".to_owned()),
        }
    })
    .await;
    let written = admin.get(&path).await.expect(200);
    assert_ne!(written["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    assert_eq!(put(&written).await["metadata"]["resourceVersion"], written["metadata"]["resourceVersion"]);

    // A broken file changes nothing.
    std::fs::write(plane.dir().join("encryption.yaml"), "kind: [").unwrap();
    write(plane.dir(), json!([{"secretbox": keys("two")}, {"aesgcm": keys("one")}]));
    eventually("the next key counts", || async {
        put(&admin.get(&path).await.expect(200)).await;
        let raw = plane.raw(KEY).await;
        if raw.starts_with(b"k8s:enc:secretbox:v1:two:") { Ok(()) } else { Err(format!("{raw:?}")) }
    })
    .await;
    assert_eq!(data(&admin).await, DATA);
    assert!(plane.raw("/registry/namespaces/default").await.starts_with(b"{"), "stored before, unchanged");
}

/// A key management plugin whose keys are numbers.
#[derive(Default)]
struct Plugin {
    key: AtomicU32,
    ill: AtomicBool,
    decrypted: AtomicU32,
}

fn turned(bytes: &[u8], key: u8) -> Vec<u8> {
    bytes.iter().map(|b| b ^ key.wrapping_add(0x55)).collect()
}

struct Served(Arc<Plugin>);

#[tonic::async_trait]
impl KeyManagementService for Served {
    async fn status(
        &self,
        _: tonic::Request<StatusRequest>,
    ) -> Result<tonic::Response<StatusResponse>, tonic::Status> {
        let healthz = if self.0.ill.load(Ordering::SeqCst) { "out of order" } else { "ok" };
        let key_id = self.0.key.load(Ordering::SeqCst).to_string();
        Ok(tonic::Response::new(StatusResponse { version: "v2".into(), healthz: healthz.into(), key_id }))
    }

    async fn encrypt(
        &self,
        request: tonic::Request<EncryptRequest>,
    ) -> Result<tonic::Response<EncryptResponse>, tonic::Status> {
        let key = self.0.key.load(Ordering::SeqCst);
        let ciphertext = turned(&request.into_inner().plaintext, key as u8);
        let annotations = [("version.example.com".to_owned(), vec![1])].into();
        Ok(tonic::Response::new(EncryptResponse { ciphertext, key_id: key.to_string(), annotations }))
    }

    async fn decrypt(
        &self,
        request: tonic::Request<DecryptRequest>,
    ) -> Result<tonic::Response<DecryptResponse>, tonic::Status> {
        let request = request.into_inner();
        self.0.decrypted.fetch_add(1, Ordering::SeqCst);
        let key: u8 = request.key_id.parse().map_err(|_| tonic::Status::not_found("no such key"))?;
        if !request.annotations.contains_key("version.example.com") {
            return Err(tonic::Status::invalid_argument("the annotations are lost"));
        }
        Ok(tonic::Response::new(DecryptResponse { plaintext: turned(&request.ciphertext, key) }))
    }
}

fn serve(plugin: &Arc<Plugin>, socket: &Path) {
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    let service = KeyManagementServiceServer::new(Served(plugin.clone()));
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
}

#[tokio::test]
async fn a_key_management_plugin_wraps_the_keys_and_rotates_them() {
    let plugin = Arc::new(Plugin::default());
    plugin.key.store(1, Ordering::SeqCst);
    let sockets = tempfile::tempdir().unwrap();
    let socket = sockets.path().join("kms.sock");
    serve(&plugin, &socket);
    let endpoint = format!("unix://{}", socket.display());
    let kms = json!([{"kms": {"apiVersion": "v2", "name": "vault", "endpoint": endpoint, "timeout": "2s"}}]);
    let mut plane = Server::start_with(inline(kms)).await;
    plane.admin().post(SECRETS, &secret()).await.expect(201);
    let first = plane.raw(KEY).await;
    assert!(first.starts_with(b"k8s:enc:kms:v2:vault:") && !contains(&first, DATA), "{first:?}");
    assert_eq!(plugin.decrypted.load(Ordering::SeqCst), 0, "what was written need not be asked for");

    plane.restart().await;
    let admin = plane.admin();
    assert_eq!(data(&admin).await, DATA);
    assert_eq!(plugin.decrypted.load(Ordering::SeqCst), 1);

    let path = format!("{SECRETS}/s");
    plugin.key.store(2, Ordering::SeqCst);
    eventually("the new key is used", || async {
        // A look at its health makes the server ask the plugin.
        admin.get("/readyz/kms-providers").await;
        admin.put(&path, &admin.get(&path).await.expect(200)).await.expect(200);
        if plane.raw(KEY).await == first { Err("the old key".to_owned()) } else { Ok(()) }
    })
    .await;
    plane.restart().await;
    assert_eq!(data(&plane.admin()).await, DATA);

    plugin.ill.store(true, Ordering::SeqCst);
    let admin = plane.admin();
    eventually("the server says that its plugin is not well", || async {
        let ready = admin.get("/readyz?verbose").await;
        let told = ready.status == 500 && ready.text().contains("[-]kms-providers failed");
        if told { Ok(()) } else { Err(ready.text()) }
    })
    .await;
    assert_eq!(data(&admin).await, DATA, "what is in memory is served on");
}
