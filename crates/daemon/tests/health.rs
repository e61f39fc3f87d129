//! Health checks and metrics as a caller sees them, without the network.

use http_body_util::BodyExt;
use keelson_daemon::{Daemon, Health};

fn get(daemon: &Daemon, uri: &str, accept: &str) -> (u16, String) {
    let request = http::Request::get(uri).header("accept", accept).body(()).unwrap();
    let response = daemon.respond(&request);
    let status = response.status().as_u16();
    let body = futures::executor::block_on(response.into_body().collect()).unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn check(health: impl FnOnce(&Health), uri: &str, status: u16, body: &str) {
    let daemon = Daemon::new("keelson-test");
    health(&daemon.health);
    assert_eq!(get(&daemon, uri, ""), (status, body.to_owned()), "{uri}");
}

fn failing(health: &Health) {
    health.add("good", || Ok(()));
    health.add_ready("synced", || Err("pods are not".to_owned()));
}

#[test]
fn the_answer_is_ok_unless_asked_for_more() {
    check(|_| (), "/healthz", 200, "ok");
    check(|_| (), "/livez?verbose", 200, "[+]ping ok\nlivez check passed\n");
}

#[test]
fn a_failing_check_fails_readiness_and_says_which() {
    let all = "[+]ping ok\n[+]good ok\n[-]synced failed: reason withheld\n";
    check(failing, "/readyz", 500, &format!("{all}readyz check failed\n"));
    check(failing, "/healthz", 500, &format!("{all}healthz check failed\n"));
    check(failing, "/livez?verbose", 200, "[+]ping ok\n[+]good ok\nlivez check passed\n");
}

#[test]
fn one_check_has_a_path_of_its_own() {
    check(failing, "/readyz/good", 200, "ok");
    check(failing, "/livez/ping", 200, "ok");
    check(failing, "/readyz/synced", 500, "internal server error: synced failed: reason withheld\n");
    check(failing, "/readyz/nothing", 404, "404 Not Found\n");
}

#[test]
fn a_check_can_be_excluded() {
    check(failing, "/readyz?exclude=synced", 200, "ok");
}

#[test]
fn metrics_name_the_process_in_the_format_asked_for() {
    let daemon = Daemon::new("keelson-test");
    let (_, open) = get(&daemon, "/metrics", "application/openmetrics-text; version=1.0.0");
    assert!(open.contains("# TYPE process_cpu_seconds counter\n"), "{open}");
    assert!(open.ends_with("# EOF\n"), "{open}");

    let (_, old) = get(&daemon, "/metrics", "*/*");
    assert!(old.contains("# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total "), "{old}");
    assert!(
        old.contains("# TYPE keelson_build_info gauge\nkeelson_build_info{component=\"keelson-test\""),
        "{old}"
    );
    let resident = old.lines().find_map(|l| l.strip_prefix("process_resident_memory_bytes ")).unwrap();
    assert!(resident.parse::<u64>().unwrap() > 1_000_000, "{resident}");
    assert!(!old.contains("# EOF"), "{old}");
}
