//! Services in, scripts out.

use std::time::Duration;

use keelson_net_plan::planner::{Options, Planner, StaleFlow};
use keelson_net_plan::{Endpoint, Protocol, Service, ServiceName, ServicePort};

fn planner() -> Planner {
    let pod_cidr = "10.244.0.0/16".parse().unwrap();
    Planner::new(Options { table: "t".into(), pod_cidr, node_port_addresses: Vec::new() })
}

fn name(name: &str) -> ServiceName {
    ServiceName { namespace: "ns".into(), name: name.into() }
}

fn endpoint(last: u8, local: bool) -> Endpoint {
    Endpoint {
        address: [10, 244, 0, last].into(),
        port: 8080,
        ready: true,
        serving: true,
        terminating: false,
        local,
    }
}

fn service(last: u8, endpoints: Vec<Endpoint>) -> Service {
    let port =
        ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: None, endpoints };
    Service { cluster_ips: vec![[10, 96, 0, last].into()], ports: vec![port], ..Service::default() }
}

/// A script with the digests at the ends of chains' names as `#`.
fn readable(script: &str) -> String {
    let is_digest = |part: &str| part.len() == 16 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let word = |word: &str| match word.rsplit_once('/') {
        Some((name, last)) if is_digest(last) => format!("{name}/#"),
        _ => word.to_owned(),
    };
    let lines = script.lines().map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn check(script: &str, want: &[&str]) {
    let script = readable(script);
    let lines: Vec<&str> = script.lines().collect();
    assert_eq!(lines, want, "\n{script}");
}

#[test]
fn a_new_service_adds_one_chain_and_its_elements() {
    let change = planner().set(&name("web"), Some(service(7, vec![endpoint(1, true), endpoint(2, true)])));
    check(
        &change.script,
        &[
            "add chain ip t svc-ns/web/tcp/http/#",
            "add rule ip t svc-ns/web/tcp/http/# meta l4proto { tcp, udp, sctp } dnat ip addr . port to numgen random \
             mod 2 map { 0 : 10.244.0.1 . 8080, 1 : 10.244.0.2 . 8080 }",
            "add element ip t cluster-ips { 10.96.0.7 }",
            "add element ip t hairpin { 10.244.0.1 . 10.244.0.1, 10.244.0.2 . 10.244.0.2 }",
            "add element ip t service-ips { 10.96.0.7 . tcp . 80 : goto svc-ns/web/tcp/http/# }",
        ],
    );
}

#[test]
fn a_changed_endpoint_touches_only_its_chain() {
    let mut planner = planner();
    planner.set(&name("web"), Some(service(7, vec![endpoint(1, true)])));
    planner.set(&name("other"), Some(service(8, vec![endpoint(1, true)])));
    let change = planner.set(&name("web"), Some(service(7, vec![endpoint(2, true)])));
    check(
        &change.script,
        &[
            "add chain ip t svc-ns/web/tcp/http/#",
            "add rule ip t svc-ns/web/tcp/http/# meta l4proto { tcp, udp, sctp } dnat to 10.244.0.2:8080",
            "delete element ip t service-ips { 10.96.0.7 . tcp . 80 }",
            // 10.244.0.1 stays: the other Service has it too.
            "add element ip t hairpin { 10.244.0.2 . 10.244.0.2 }",
            "add element ip t service-ips { 10.96.0.7 . tcp . 80 : goto svc-ns/web/tcp/http/# }",
        ],
    );
    assert_eq!(planner.set(&name("web"), Some(service(7, vec![endpoint(2, true)]))).script, "");
}

#[test]
fn rules_that_nothing_leads_to_outlive_a_sweep() {
    let mut planner = planner();
    planner.set(&name("web"), Some(service(7, vec![endpoint(1, true)])));
    assert!(!planner.has_leftovers());
    planner.set(&name("web"), Some(service(7, vec![endpoint(2, true)])));
    assert!(planner.has_leftovers());
    check(&planner.sweep(), &[]);
    check(
        &planner.sweep(),
        &["flush chain ip t svc-ns/web/tcp/http/#", "delete chain ip t svc-ns/web/tcp/http/#"],
    );
    assert!(!planner.has_leftovers());
}

#[test]
fn rules_that_are_wanted_again_are_led_to_again() {
    let mut planner = planner();
    let mut sticky = service(7, vec![endpoint(1, true)]);
    sticky.affinity = Some(Duration::from_secs(60));
    planner.set(&name("web"), Some(sticky.clone()));
    for sweeps in 0..2 {
        planner.set(&name("web"), None);
        (0..sweeps).for_each(|_| drop(planner.sweep()));
        check(
            &planner.set(&name("web"), Some(sticky.clone())).script,
            &[
                "add element ip t cluster-ips { 10.96.0.7 }",
                "add element ip t hairpin { 10.244.0.1 . 10.244.0.1 }",
                "add element ip t service-ips { 10.96.0.7 . tcp . 80 : goto svc-ns/web/tcp/http/# }",
            ],
        );
        assert!(!planner.has_leftovers());
    }
}

#[test]
fn a_service_without_endpoints_rejects() {
    let mut planner = planner();
    planner.set(&name("web"), Some(service(7, vec![endpoint(1, true)])));
    let change = planner.set(&name("web"), Some(service(7, vec![])));
    check(
        &change.script,
        &[
            "delete element ip t hairpin { 10.244.0.1 . 10.244.0.1 }",
            "delete element ip t service-ips { 10.96.0.7 . tcp . 80 }",
            "add element ip t no-endpoint-services { 10.96.0.7 . tcp . 80 : goto reject-it }",
        ],
    );
}

#[test]
fn a_removed_service_leaves_nothing() {
    let mut planner = planner();
    let empty = planner.whole();
    let mut full = service(7, vec![endpoint(1, true), endpoint(2, false)]);
    full.ports[0].node_port = Some(30080);
    full.affinity = Some(Duration::from_secs(10800));
    full.external_ips = vec![[192, 0, 2, 9].into()];
    planner.set(&name("web"), Some(full));
    planner.set(&name("web"), None);
    assert_eq!(planner.whole(), empty);
    assert_eq!(planner.services(), 0);
}

#[test]
fn the_outside_sees_only_local_endpoints_under_policy_local() {
    let mut local = service(7, vec![endpoint(1, true), endpoint(2, false)]);
    local.ports[0].node_port = Some(30080);
    local.external_local = true;
    let script = readable(&planner().set(&name("web"), Some(local.clone())).script);
    assert!(script.contains("add rule ip t ext-ns/web/tcp/http/# goto local-ns/web/tcp/http/#"), "{script}");
    assert!(
        script.contains("local-ns/web/tcp/http/# meta l4proto { tcp, udp, sctp } dnat to 10.244.0.1:8080"),
        "{script}"
    );
    assert!(!script.contains("meta mark"), "the client's address is kept: {script}");

    local.ports[0].endpoints.remove(0);
    let script = planner().set(&name("web"), Some(local)).script;
    assert!(script.contains("no-endpoint-node-ports { tcp . 30080 : drop }"), "{script}");
}

#[test]
fn the_outside_sees_all_endpoints_where_only_the_inside_is_local() {
    let mut local = service(7, vec![endpoint(2, false)]);
    local.ports[0].node_port = Some(30080);
    local.internal_local = true;
    let script = readable(&planner().set(&name("web"), Some(local)).script);
    assert!(script.contains("no-endpoint-services { 10.96.0.7 . tcp . 80 : drop }"), "{script}");
    assert!(script.contains("add rule ip t ext-ns/web/tcp/http/# goto all-ns/web/tcp/http/#"), "{script}");
    assert!(
        script.contains("all-ns/web/tcp/http/# meta l4proto { tcp, udp, sctp } dnat to 10.244.0.2:8080"),
        "{script}"
    );
}

#[test]
fn ending_endpoints_serve_when_no_other_is_left() {
    let ending = |last| Endpoint { ready: false, terminating: true, ..endpoint(last, true) };
    let script = planner().set(&name("web"), Some(service(7, vec![ending(1)]))).script;
    assert!(script.contains("dnat to 10.244.0.1:8080"), "{script}");
    let script = planner().set(&name("web"), Some(service(7, vec![ending(1), endpoint(2, true)]))).script;
    assert!(script.contains("dnat to 10.244.0.2:8080"), "{script}");
}

#[test]
fn udp_flows_to_backends_that_are_gone_are_forgotten() {
    let udp = |endpoints| {
        let mut service = service(7, endpoints);
        service.ports[0].protocol = Protocol::Udp;
        service
    };
    let mut planner = planner();
    let flow = |backend| StaleFlow { address: Some([10, 96, 0, 7].into()), port: 80, backend };
    let none = planner.set(&name("dns"), Some(udp(vec![]))).stale_flows;
    assert!(none.is_empty());
    let first = planner.set(&name("dns"), Some(udp(vec![endpoint(1, true)]))).stale_flows;
    assert_eq!(first.into_iter().collect::<Vec<_>>(), [flow(None)]);
    let moved = planner.set(&name("dns"), Some(udp(vec![endpoint(2, true)]))).stale_flows;
    assert_eq!(moved.into_iter().collect::<Vec<_>>(), [flow(Some([10, 244, 0, 1].into()))]);
    let gone = planner.set(&name("dns"), None).stale_flows;
    assert_eq!(gone.into_iter().collect::<Vec<_>>(), [flow(Some([10, 244, 0, 2].into()))]);
}
