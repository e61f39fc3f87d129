//! A cluster's files.

use keelson_pki::{Ca, CertificateInfo, ClusterIdentity, Request, Usage, ensure_all};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

fn identity() -> ClusterIdentity {
    ClusterIdentity {
        name: "keelson".to_owned(),
        server: "https://127.0.0.1:6443".to_owned(),
        node_name: "node-1".to_owned(),
        node_ips: vec!["192.0.2.7".parse().unwrap()],
        service_ip: "10.96.0.1".parse().unwrap(),
        cluster_domain: "cluster.local".to_owned(),
        extra_sans: vec!["keelson.example".to_owned()],
    }
}

fn info(etc: &Path, name: &str) -> CertificateInfo {
    CertificateInfo::from_pem(&std::fs::read_to_string(etc.join("pki").join(name)).unwrap()).unwrap()
}

fn kubeconfig(etc: &Path, name: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(etc.join(name)).unwrap()).unwrap()
}

fn changed(etc: &Path, identity: &ClusterIdentity) -> Vec<String> {
    let done = ensure_all(etc, identity).unwrap();
    done.changed.iter().map(|p| p.strip_prefix(etc).unwrap().display().to_string()).collect()
}

#[test]
fn everything_is_made_once() {
    let etc = tempfile::tempdir().unwrap();
    assert_eq!(changed(etc.path(), &identity()).len(), 2 * 2 + 2 + 14 * 2 + 6);
    assert_eq!(changed(etc.path(), &identity()), Vec::<String>::new());
    let done = ensure_all(etc.path(), &identity()).unwrap();
    let days = done.renew_at.duration_since(SystemTime::now()).unwrap().as_secs() / 86400;
    assert_eq!(days, 243, "two thirds of a year");
}

#[test]
fn only_the_owner_reads_keys_and_kubeconfigs() {
    let etc = tempfile::tempdir().unwrap();
    ensure_all(etc.path(), &identity()).unwrap();
    let files = |dir: &Path| std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()).collect::<Vec<_>>();
    for file in files(&etc.path().join("pki")).into_iter().chain(files(etc.path())).filter(|f| f.is_file()) {
        let ending = file.extension().unwrap().to_str().unwrap();
        let wanted = if matches!(ending, "key" | "kubeconfig") { 0o600 } else { 0o644 };
        let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, wanted, "{}", file.display());
    }
}

#[test]
fn each_certificate_has_the_name_that_authorization_knows() {
    let etc = tempfile::tempdir().unwrap();
    ensure_all(etc.path(), &identity()).unwrap();
    for (file, cn, org) in [
        ("admin.crt", "kubernetes-admin", Some("system:masters")),
        ("api-server-kubelet-client.crt", "kube-apiserver-kubelet-client", Some("system:masters")),
        ("scheduler-client.crt", "system:kube-scheduler", None),
        ("controller-manager-client.crt", "system:kube-controller-manager", None),
        ("node-agent-client.crt", "system:node:node-1", Some("system:nodes")),
        ("node-agent.crt", "system:node:node-1", Some("system:nodes")),
        ("net-proxy-client.crt", "system:kube-proxy", None),
        ("dns-client.crt", "system:keelson-dns", None),
        ("front-proxy-client.crt", "front-proxy-client", None),
    ] {
        let info = info(etc.path(), file);
        assert_eq!(info.common_name, cn, "{file}");
        assert_eq!(info.organizations.first().map(String::as_str), org, "{file}");
    }
    let sans = info(etc.path(), "api-server.crt").sans;
    for name in [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        "10.96.0.1",
        "192.0.2.7",
        "node-1",
        "keelson.example",
    ] {
        assert!(sans.contains(name), "{name} is not in {sans:?}");
    }
}

#[test]
fn daemons_refer_to_files_and_the_admin_carries_its_own() {
    let etc = tempfile::tempdir().unwrap();
    ensure_all(etc.path(), &identity()).unwrap();
    let dns = kubeconfig(etc.path(), "dns.kubeconfig");
    let user = &dns["users"][0]["user"];
    for path in [
        &user["client-certificate"],
        &user["client-key"],
        &dns["clusters"][0]["cluster"]["certificate-authority"],
    ] {
        assert!(Path::new(path.as_str().unwrap()).is_file(), "{path}");
    }
    let admin = kubeconfig(etc.path(), "admin.kubeconfig");
    assert!(admin["users"][0]["user"]["client-key-data"].is_string());
    assert_eq!(admin["current-context"], "kubernetes-admin@keelson");
    assert_eq!(admin["clusters"][0]["cluster"]["server"], "https://127.0.0.1:6443");
}

#[test]
fn a_new_address_renews_what_names_it() {
    let etc = tempfile::tempdir().unwrap();
    ensure_all(etc.path(), &identity()).unwrap();
    let moved = ClusterIdentity { node_ips: vec!["192.0.2.8".parse().unwrap()], ..identity() };
    let changed = changed(etc.path(), &moved);
    assert!(changed.contains(&"pki/api-server.crt".to_owned()), "{changed:?}");
    assert!(
        !changed.iter().any(|f| f.contains("client") || f.contains("ca.") || f.contains("kubeconfig")),
        "{changed:?}"
    );
}

#[test]
fn what_is_damaged_or_nearly_over_is_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let etc = dir.path();
    ensure_all(etc, &identity()).unwrap();
    let pki = etc.join("pki");
    std::fs::write(pki.join("dns.crt"), "").unwrap();
    std::fs::remove_file(pki.join("scheduler.key")).unwrap();
    // The admin's ends soon: its renewal shows in the kubeconfig that carries it.
    let ca = Ca::load(&pki.join("ca.crt"), &pki.join("ca.key")).unwrap();
    let short = Request {
        cn: "kubernetes-admin".to_owned(),
        orgs: vec!["system:masters".to_owned()],
        sans: vec![],
        usage: Usage::Client,
        ttl: Duration::from_secs(30),
    };
    // 30 s of 330 s of life are left: the certificate was valid from five minutes ago.
    let issued = ca.issue(&short).unwrap();
    std::fs::write(pki.join("admin.crt"), issued.cert_pem).unwrap();
    std::fs::write(pki.join("admin.key"), issued.key_pem).unwrap();
    let mut changed = changed(etc, &identity());
    changed.sort();
    assert_eq!(
        changed,
        [
            "admin.kubeconfig",
            "pki/admin.crt",
            "pki/admin.key",
            "pki/dns.crt",
            "pki/dns.key",
            "pki/scheduler.crt",
            "pki/scheduler.key"
        ]
    );
}

#[test]
fn a_lost_authority_key_is_an_error_and_not_a_new_authority() {
    let etc = tempfile::tempdir().unwrap();
    ensure_all(etc.path(), &identity()).unwrap();
    let key = etc.path().join("pki/ca.key");
    std::fs::remove_file(&key).unwrap();
    let error = ensure_all(etc.path(), &identity()).unwrap_err();
    assert_eq!(error.to_string(), format!("read {}", key.display()));
}
