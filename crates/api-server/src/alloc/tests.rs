use std::collections::HashSet;
use std::thread;

use serde_json::{Value, json};

use super::*;
use crate::strategies::Strategy;
use crate::strategies::service::Service;

fn allocators(range: &str) -> Allocators {
    Allocators::new(&[range.parse().unwrap()], PortRange { first: 30000, last: 30031 })
}

fn service(spec: Value) -> Value {
    let mut service = json!({"metadata": {"name": "s", "namespace": "default"}, "spec": spec});
    Service.default(&mut service);
    service
}

fn commit(reserved: Result<Option<Box<dyn Reservation>>, keelson_api_types::StatusError>) {
    reserved.unwrap().unwrap().commit();
}

#[test]
fn dynamic_addresses_leave_the_lower_band_free() {
    let pools = allocators("10.96.0.0/16");
    for _ in 0..50 {
        let mut s = service(json!({"ports": [{"port": 80}]}));
        commit(create(&pools, &mut s, false));
        let ip: std::net::Ipv4Addr = s["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
        assert!(ip.to_bits() - u32::from_be_bytes([10, 96, 0, 0]) > 256, "{ip}");
        assert_eq!(s["spec"]["clusterIPs"], json!([s["spec"]["clusterIP"]]));
        assert_eq!(s["spec"]["ipFamilies"], json!(["IPv4"]));
        assert_eq!(s["spec"]["ipFamilyPolicy"], "SingleStack");
    }
}

#[test]
fn a_full_range_is_an_error_and_every_address_is_used_first() {
    let pools = allocators("10.0.0.0/28");
    let mut seen = HashSet::new();
    for _ in 0..14 {
        let mut s = service(json!({"ports": [{"port": 80}]}));
        commit(create(&pools, &mut s, false));
        assert!(seen.insert(s["spec"]["clusterIP"].to_string()));
    }
    let mut s = service(json!({"ports": [{"port": 80}]}));
    let Err(error) = create(&pools, &mut s, false) else { panic!("the range should be full") };
    assert_eq!(error.code(), 500);
}

#[test]
fn a_taken_address_and_one_out_of_range_are_refused() {
    let pools = allocators("10.96.0.0/16");
    let fixed = |ip: &str| service(json!({"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}]}));
    commit(create(&pools, &mut fixed("10.96.0.10"), false));
    let text = |ip: &str| create(&pools, &mut fixed(ip), false).err().unwrap().message().to_owned();
    assert!(text("10.96.0.10").contains("provided IP is already allocated"), "{}", text("10.96.0.10"));
    assert!(text("10.97.0.1").contains("the provided network does not match the current range"));
    assert!(text("10.96.0.0").contains("is not in the valid range. The range of valid IPs is 10.96.0.0/16"));
}

#[test]
fn a_write_that_fails_gives_back_what_it_took() {
    let pools = allocators("10.96.0.0/16");
    let mut s = service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}));
    drop(create(&pools, &mut s, false).unwrap());
    let mut dry = service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}));
    commit(create(&pools, &mut dry, true));
    let mut again = service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}));
    commit(create(&pools, &mut again, false));
    let mut third = service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}));
    let error = create(&pools, &mut third, false).err().unwrap();
    assert!(error.message().contains("spec.ports[0].nodePort"), "{}", error.message());
    assert!(error.message().contains("provided port is already allocated"));
}

#[test]
fn protocols_share_a_node_port() {
    let pools = allocators("10.96.0.0/16");
    let ports = json!([
        {"name": "tcp", "port": 53, "protocol": "TCP"},
        {"name": "udp", "port": 53, "protocol": "UDP"},
    ]);
    let mut s = service(json!({"type": "NodePort", "ports": ports}));
    commit(create(&pools, &mut s, false));
    assert_eq!(s["spec"]["ports"][0]["nodePort"], s["spec"]["ports"][1]["nodePort"]);
}

#[test]
fn changing_the_type_frees_ports_and_addresses() {
    let pools = allocators("10.96.0.0/16");
    let mut s = service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}));
    commit(create(&pools, &mut s, false));
    let mut plain = s.clone();
    plain["spec"]["type"] = json!("ClusterIP");
    plain["spec"]["ports"][0].as_object_mut().unwrap().remove("nodePort");
    commit(update(&pools, &mut plain, &s, false));
    let mut other = service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}));
    commit(create(&pools, &mut other, false));
    pools.release(&other);
    let mut again = service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}));
    commit(create(&pools, &mut again, false));
}

#[test]
fn load_takes_what_stored_services_hold() {
    let pools = allocators("10.96.0.0/16");
    let stored = json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
        "ports": [{"port": 1, "nodePort": 30005}]}});
    pools.load([&stored]);
    let mut s =
        service(json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 80}]}));
    assert!(create(&pools, &mut s, false).is_err());
}

#[test]
fn headless_and_named_services_take_nothing() {
    let pools = allocators("10.0.0.0/30");
    for _ in 0..8 {
        let mut s = service(json!({"clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}}));
        commit(create(&pools, &mut s, false));
        assert_eq!(s["spec"]["clusterIP"], "None");
        let mut s = service(json!({"type": "ExternalName", "externalName": "example.com"}));
        commit(create(&pools, &mut s, false));
        assert!(s["spec"].get("clusterIP").is_none());
    }
}

#[test]
fn concurrent_creates_never_share() {
    let pools = allocators("10.0.0.0/24");
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let pools = pools.clone();
            thread::spawn(move || {
                (0..31)
                    .map(|_| {
                        let mut s = service(json!({"ports": [{"port": 80}]}));
                        commit(create(&pools, &mut s, false));
                        s["spec"]["clusterIP"].as_str().unwrap().to_owned()
                    })
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let all: Vec<String> = workers.into_iter().flat_map(|w| w.join().unwrap()).collect();
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
}
