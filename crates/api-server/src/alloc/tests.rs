use std::collections::HashSet;

use serde_json::{Value, json};

use super::testing::MapPorts;
use super::*;
use crate::admission::testing::MapObjects;
use crate::config::PortRange;
use crate::strategies::Strategy;
use crate::strategies::service::Service;

/// A cluster of servers that share what is stored.
struct Cluster {
    objects: MapObjects,
    ports: Arc<MapPorts>,
    range: IpNet,
}

impl Cluster {
    fn new(range: &str) -> Self {
        Self { objects: MapObjects::default(), ports: Arc::default(), range: range.parse().unwrap() }
    }

    /// A server that has heard of nothing yet.
    fn server(&self) -> Allocators {
        Allocators::new(&[self.range], PortRange { first: 30000, last: 30031 }, self.ports.clone())
    }

    async fn create(&self, server: &Allocators, spec: Value) -> Result<Value, StatusError> {
        let mut service = service(spec);
        create(server, &self.objects, &mut service, false).await?.commit(&self.objects).await;
        Ok(service)
    }

    async fn refused(&self, server: &Allocators, spec: Value) -> StatusError {
        self.create(server, spec).await.expect_err("a refusal")
    }
}

fn service(spec: Value) -> Value {
    let mut service = json!({"metadata": {"name": "s", "namespace": "default"}, "spec": spec});
    Service.default(&mut service);
    service
}

fn plain() -> Value {
    json!({"ports": [{"port": 80}]})
}

fn fixed(ip: &str) -> Value {
    json!({"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}]})
}

fn node_port(port: u16) -> Value {
    json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]})
}

#[tokio::test]
async fn dynamic_addresses_leave_the_lower_band_free() {
    let cluster = Cluster::new("10.96.0.0/16");
    let server = cluster.server();
    for _ in 0..50 {
        let s = cluster.create(&server, plain()).await.unwrap();
        let ip: std::net::Ipv4Addr = s["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
        assert!(ip.to_bits() - u32::from_be_bytes([10, 96, 0, 0]) > 256, "{ip}");
        assert_eq!(s["spec"]["clusterIPs"], json!([s["spec"]["clusterIP"]]));
        assert_eq!(s["spec"]["ipFamilies"], json!(["IPv4"]));
        assert_eq!(s["spec"]["ipFamilyPolicy"], "SingleStack");
        let address = cluster.objects.get(&claims::address_gvr(), "", &ip.to_string()).expect("an IPAddress");
        assert_eq!(
            address["spec"]["parentRef"],
            json!({"resource": "services", "namespace": "default", "name": "s"})
        );
    }
}

#[tokio::test]
async fn a_full_range_is_an_error_and_every_address_is_used_first() {
    let mut cluster = Cluster::new("10.0.0.0/28");
    // Neither server hears of what the other takes: the claims alone keep them apart.
    let servers = [cluster.server(), cluster.server()];
    let mut seen = HashSet::new();
    for i in 0..14 {
        let s = cluster.create(&servers[i % 2], plain()).await.unwrap();
        assert!(seen.insert(s["spec"]["clusterIP"].to_string()));
    }
    assert_eq!(cluster.refused(&servers[0], plain()).await.code(), 500);
    let more = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.1.0.0/28"]}});
    cluster.objects = cluster.objects.with("networking.k8s.io", "servicecidrs", more);
    let s = cluster.create(&servers[0], plain()).await.unwrap();
    assert!(s["spec"]["clusterIP"].as_str().unwrap().starts_with("10.1.0."), "{s}");
}

#[tokio::test]
async fn a_taken_address_and_one_out_of_range_are_refused() {
    let cluster = Cluster::new("10.96.0.0/16");
    let servers = [cluster.server(), cluster.server()];
    cluster.create(&servers[0], fixed("10.96.0.10")).await.unwrap();
    for server in &servers {
        let text = cluster.refused(server, fixed("10.96.0.10")).await.message().to_owned();
        assert!(text.contains("provided IP is already allocated"), "{text}");
    }
    for other in ["10.97.0.1", "10.96.0.0"] {
        let text = cluster.refused(&servers[0], fixed(other)).await.message().to_owned();
        assert!(text.contains("the provided network does not match the current range"), "{text}");
    }
}

#[tokio::test]
async fn a_write_that_fails_gives_back_what_it_took() {
    let cluster = Cluster::new("10.96.0.0/16");
    let server = cluster.server();
    let mut failed = service(node_port(30001));
    let reservation = create(&server, &cluster.objects, &mut failed, false).await.unwrap();
    reservation.roll_back(&cluster.objects).await;
    let mut dry = service(node_port(30001));
    create(&server, &cluster.objects, &mut dry, true).await.unwrap().commit(&cluster.objects).await;
    cluster.create(&server, node_port(30001)).await.unwrap();
    assert_eq!(cluster.objects.list(&claims::address_gvr(), "").len(), 1);
    let error = cluster.refused(&server, node_port(30001)).await;
    assert!(error.message().contains("spec.ports[0].nodePort"), "{}", error.message());
    assert!(error.message().contains("provided port is already allocated"));
    assert_eq!(cluster.objects.list(&claims::address_gvr(), "").len(), 1);
}

#[tokio::test]
async fn a_node_port_that_another_server_gave_is_not_given_again() {
    let cluster = Cluster::new("10.96.0.0/16");
    let servers = [cluster.server(), cluster.server()];
    let mut seen = HashSet::new();
    for i in 0..32 {
        let any = json!({"type": "NodePort", "ports": [{"port": 80}]});
        let s = cluster.create(&servers[i % 2], any).await.unwrap();
        assert!(seen.insert(s["spec"]["ports"][0]["nodePort"].as_u64().unwrap()));
    }
    let any = json!({"type": "NodePort", "ports": [{"port": 80}]});
    assert!(cluster.refused(&servers[1], any).await.message().contains("range is full"));
}

#[tokio::test]
async fn protocols_share_a_node_port() {
    let cluster = Cluster::new("10.96.0.0/16");
    let ports = json!([
        {"name": "tcp", "port": 53, "protocol": "TCP"},
        {"name": "udp", "port": 53, "protocol": "UDP"},
    ]);
    let s = cluster.create(&cluster.server(), json!({"type": "NodePort", "ports": ports})).await.unwrap();
    assert_eq!(s["spec"]["ports"][0]["nodePort"], s["spec"]["ports"][1]["nodePort"]);
}

#[tokio::test]
async fn changing_the_type_frees_ports_and_deleting_frees_all() {
    let cluster = Cluster::new("10.96.0.0/16");
    let server = cluster.server();
    let s = cluster.create(&server, node_port(30001)).await.unwrap();
    let mut changed = s.clone();
    changed["spec"]["type"] = json!("ClusterIP");
    changed["spec"]["ports"][0].as_object_mut().unwrap().remove("nodePort");
    let reservation = update(&server, &cluster.objects, &mut changed, &s, false).await.unwrap();
    reservation.commit(&cluster.objects).await;
    let other = cluster.create(&server, node_port(30001)).await.unwrap();
    server.release(&cluster.objects, &other).await;
    cluster.create(&server, node_port(30001)).await.unwrap();
    server.release(&cluster.objects, &changed).await;
    assert_eq!(cluster.objects.list(&claims::address_gvr(), "").len(), 1);
}

#[tokio::test]
async fn load_takes_what_stored_services_hold() {
    let stored = json!({"metadata": {"namespace": "n", "name": "old"}, "spec": {"type": "NodePort",
        "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 1, "nodePort": 30005}]}});
    let mut cluster = Cluster::new("10.96.0.0/16");
    cluster.objects = MapObjects::default().with("", "services", stored);
    let server = cluster.server();
    server.load(&cluster.objects);
    let mut dry = service(fixed("10.96.0.1"));
    assert!(create(&server, &cluster.objects, &mut dry, true).await.is_err());
}

#[tokio::test]
async fn headless_and_named_services_take_nothing() {
    let cluster = Cluster::new("10.0.0.0/30");
    let server = cluster.server();
    for _ in 0..8 {
        let headless = json!({"clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}});
        let s = cluster.create(&server, headless).await.unwrap();
        assert_eq!(s["spec"]["clusterIP"], "None");
        let named = json!({"type": "ExternalName", "externalName": "example.com"});
        let s = cluster.create(&server, named).await.unwrap();
        assert!(s["spec"].get("clusterIP").is_none());
    }
}
