//! Two servers of one cluster over one etcd, and the ranges that addresses come from.

use std::collections::HashSet;
use std::sync::Arc;

use futures::future::{BoxFuture, join_all};
use futures::{FutureExt, StreamExt};
use keelson_store::{EmbeddedConfig, Result, Revision, Store, StoreConfig, WatchStream};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::{CONFIG_MAPS, Client, Server, config_map, eventually};
use keelson_testkit::EtcdServer;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const CIDRS: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

fn service(name: &str, spec: Value) -> Value {
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ports": [{"port": 80}]}});
    for (field, value) in spec.as_object().unwrap() {
        service["spec"][field] = value.clone();
    }
    service
}

async fn ready(admin: &Client, name: &str) {
    eventually("the range is ready", || async {
        let cidr = admin.get(&format!("{CIDRS}/{name}")).await.json();
        let ready = &cidr["status"]["conditions"][0];
        let good = (&ready["type"], &ready["status"]) == (&json!("Ready"), &json!("True"));
        let kept = cidr["metadata"]["finalizers"] == json!(["networking.k8s.io/service-cidr-finalizer"]);
        if good && kept { Ok(()) } else { Err(cidr.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn two_servers_never_give_the_same_address_or_port() {
    let etcd = EtcdServer::start().await;
    let config = keelson_store::EtcdConfig::new(vec![etcd.endpoint()]);
    let store = keelson_store::open(keelson_store::StoreConfig::Etcd(config.clone())).await.unwrap();
    let other = keelson_store::open(keelson_store::StoreConfig::Etcd(config)).await.unwrap();
    let servers = [
        Server::over(store, |c| c.service_cidr = "10.99.0.0/26".parse().unwrap()).await,
        Server::over(other, |c| c.service_cidr = "10.99.0.0/26".parse().unwrap()).await,
    ];
    let admins = [servers[0].admin(), servers[1].admin()];
    // Of 62 addresses the kubernetes Service has one.
    let creates = (0..61).map(|i| {
        let admin = admins[i % 2].clone();
        async move { admin.post(SERVICES, &service(&format!("s-{i}"), json!({"type": "NodePort"}))).await }
    });
    let (mut ips, mut ports) = (HashSet::new(), HashSet::new());
    for reply in join_all(creates).await {
        let made = reply.expect(201);
        assert!(ips.insert(made["spec"]["clusterIP"].as_str().unwrap().to_owned()), "{made}");
        assert!(ports.insert(made["spec"]["ports"][0]["nodePort"].as_u64().unwrap()), "{made}");
    }
    let full = admins[1].post(SERVICES, &service("full", json!({}))).await;
    full.refused(500, "InternalError", "range is full");
    let taken = ports.iter().next().unwrap();
    let port =
        json!({"type": "NodePort", "clusterIP": "10.99.0.1", "ports": [{"port": 80, "nodePort": taken}]});
    for admin in &admins {
        let twice = admin.post(SERVICES, &service("twice", port.clone())).await;
        twice.refused(422, "Invalid", "provided IP is already allocated");
    }
    // What one frees, the other can give.
    let freed = admins[0].get(&format!("{SERVICES}/s-7")).await.json();
    admins[0].delete(&format!("{SERVICES}/s-7"), None).await.expect(200);
    let again = json!({"type": "NodePort", "clusterIP": freed["spec"]["clusterIP"],
        "ports": [{"port": 80, "nodePort": freed["spec"]["ports"][0]["nodePort"]}]});
    admins[1].post(SERVICES, &service("again", again)).await.expect(201);
    let addresses = admins[0].get(ADDRESSES).await.json();
    assert_eq!(addresses["items"].as_array().map(Vec::len), Some(62));
}

#[tokio::test]
async fn a_second_range_serves_until_it_is_deleted_and_no_longer_used() {
    let server = Server::start().await;
    let admin = server.admin();
    ready(&admin, "kubernetes").await;
    let outside = json!({"clusterIP": "10.200.0.77"});
    let refused = admin.post(SERVICES, &service("s", outside.clone())).await;
    refused.refused(422, "Invalid", "the provided network does not match the current range");
    let cidr = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"},
        "spec": {"cidrs": ["10.200.0.0/24"]}});
    admin.post(CIDRS, &cidr).await.expect(201);
    ready(&admin, "more").await;
    admin.post(SERVICES, &service("s", outside.clone())).await.expect(201);
    let address = admin.get(&format!("{ADDRESSES}/10.200.0.77")).await.expect(200);
    assert_eq!(
        address["spec"]["parentRef"],
        json!({"resource": "services", "namespace": "default", "name": "s"})
    );
    assert_eq!(address["metadata"]["labels"]["ipaddress.kubernetes.io/managed-by"], "ipallocator.k8s.io");

    admin.delete(&format!("{CIDRS}/more"), None).await;
    eventually("the range waits for its address", || async {
        let cidr = admin.get(&format!("{CIDRS}/more")).await.json();
        let condition = &cidr["status"]["conditions"][0];
        if condition["reason"] == "Terminating" { Ok(()) } else { Err(cidr.to_string()) }
    })
    .await;
    let refused = admin.post(SERVICES, &service("t", json!({"clusterIP": "10.200.0.78"}))).await;
    refused.refused(422, "Invalid", "the provided network does not match the current range");
    admin.delete(&format!("{SERVICES}/s"), None).await.expect(200);
    admin.get(&format!("{ADDRESSES}/10.200.0.77")).await.expect(404);
    eventually("the range is gone", || async {
        let reply = admin.get(&format!("{CIDRS}/more")).await;
        if reply.status == 404 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
}

#[tokio::test]
async fn a_services_address_that_somebody_deletes_comes_back() {
    let server = Server::start().await;
    let admin = server.admin();
    let made = admin.post(SERVICES, &service("s", json!({}))).await.expect(201);
    let path = format!("{ADDRESSES}/{}", made["spec"]["clusterIP"].as_str().unwrap());
    let before = admin.get(&path).await.expect(200);
    admin.delete(&path, None).await;
    eventually("the address is claimed again", || async {
        let reply = admin.get(&path).await;
        let back = reply.status == 200 && reply.json()["metadata"]["uid"] != before["metadata"]["uid"];
        if back { Ok(()) } else { Err(reply.text()) }
    })
    .await;
}

/// A store whose changes are told only while `open` says so.
struct Late {
    inner: Arc<dyn Store>,
    open: watch::Receiver<bool>,
}

impl Store for Late {
    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> BoxFuture<'a, Result<WatchStream>> {
        async move {
            let told = self.inner.watch(prefix, after).await?;
            let open = self.open.clone();
            let held = told.then(move |item| {
                let mut open = open.clone();
                async move { open.wait_for(|open| *open).await.map(|_| item).unwrap() }
            });
            Ok(held.boxed())
        }
        .boxed()
    }

    keelson_store::delegate!(inner: get, range, write, revision, request_progress, compact, advance, lease, renew, revoke);
}

/// Two servers of one store, with a ConfigMap `x`; the second hears of no changes while the switch says so.
async fn one_late() -> (tempfile::TempDir, [Server; 2], watch::Sender<bool>) {
    let folder = tempfile::tempdir().unwrap();
    let embedded = EmbeddedConfig::new(folder.path().join("store.redb"));
    let inner = keelson_store::open(StoreConfig::Embedded(embedded)).await.unwrap();
    let (open, told) = watch::channel(true);
    let prompt = Server::over(inner.clone(), |_| {}).await;
    let late = Server::over(Arc::new(Late { inner, open: told }), |_| {}).await;
    let created = prompt.admin().post(CONFIG_MAPS, &config_map("x")).await.expect(201);
    assert_eq!(late.admin().get(&format!("{CONFIG_MAPS}/x")).await.expect(200), created);
    (folder, [prompt, late], open)
}

#[tokio::test]
async fn a_consistent_read_waits_for_all_that_was_acknowledged() {
    let (_folder, [prompt, late], open) = one_late().await;
    let (prompt, late, path) = (prompt.admin(), late.admin(), format!("{CONFIG_MAPS}/x"));
    open.send_replace(false);
    let new = prompt.patch(&path, "merge", &json!({"data": {"a": "2"}})).await.expect(200);
    let (any, reader, fresh) = (format!("{path}?resourceVersion=0"), late.clone(), path.clone());
    let (one, list) = (reader.clone(), reader);
    let one = tokio::spawn(async move { one.get(&fresh).await.expect(200) });
    let list = tokio::spawn(async move { list.get(CONFIG_MAPS).await.expect(200) });
    assert_eq!(
        late.get(&any).await.expect(200)["data"]["a"],
        "1",
        "who asks for anything gets what there is"
    );
    open.send_replace(true);
    assert_eq!(one.await.unwrap(), new);
    assert_eq!(list.await.unwrap()["items"][0]["data"]["a"], "2");
}

#[tokio::test]
async fn a_write_that_undoes_anothers_is_not_taken_for_an_empty_one() {
    let (_folder, [prompt, late], open) = one_late().await;
    let (prompt, late, path) = (prompt.admin(), late.admin(), format!("{CONFIG_MAPS}/x"));
    open.send_replace(false);
    prompt.patch(&path, "merge", &json!({"data": {"a": "2"}})).await.expect(200);
    let undone = late.patch(&path, "merge", &json!({"data": {"a": "1"}})).await.expect(200);
    assert_eq!(prompt.get(&path).await.expect(200), undone);
    open.send_replace(true);
}

#[tokio::test]
async fn the_kubernetes_service_has_the_servers_that_live() {
    let etcd = EtcdServer::start().await;
    let config = keelson_store::EtcdConfig::new(vec![etcd.endpoint()]);
    let open =
        || async { keelson_store::open(keelson_store::StoreConfig::Etcd(config.clone())).await.unwrap() };
    let at = |ip: &'static str| {
        move |c: &mut keelson_api_server::config::Config| c.advertise_address = Some(ip.parse().unwrap())
    };
    let first = Server::over(open().await, at("192.0.2.1")).await;
    let mut second = Server::over(open().await, at("192.0.2.2")).await;
    let admin = first.admin();
    let endpoints = |want: &'static [&'static str]| {
        let admin = admin.clone();
        async move {
            eventually("the endpoints are those of the servers", || async {
                let object = admin.get("/api/v1/namespaces/default/endpoints/kubernetes").await.json();
                let slice = admin
                    .get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes")
                    .await
                    .json();
                let of = |list: &Value, pointer: &str| -> Vec<String> {
                    let ips =
                        list.as_array().into_iter().flatten().filter_map(|a| a.pointer(pointer)?.as_str());
                    ips.map(str::to_owned).collect()
                };
                let same = of(&object["subsets"][0]["addresses"], "/ip") == want
                    && of(&slice["endpoints"], "/addresses/0") == want;
                if same { Ok(()) } else { Err(format!("{object} {slice}")) }
            })
            .await
        }
    };
    endpoints(&["192.0.2.1", "192.0.2.2"]).await;
    // One that dies without a word: its lease ends.
    let store = open().await;
    let lease = store.lease(std::time::Duration::from_secs(2)).await.unwrap();
    let key = keelson_store::Write::put("/registry/masterleases/192.0.2.3", "{}").with_lease(lease);
    store.write(key).await.unwrap();
    endpoints(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]).await;
    endpoints(&["192.0.2.1", "192.0.2.2"]).await;
    // One that is stopped says so.
    second.shut_down();
    second.stopped().await;
    endpoints(&["192.0.2.1"]).await;
    // What somebody takes away comes back.
    admin.delete("/api/v1/namespaces/default/endpoints/kubernetes", None).await.expect(200);
    endpoints(&["192.0.2.1"]).await;
}
