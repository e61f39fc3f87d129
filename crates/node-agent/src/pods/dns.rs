//! The resolver configuration of a pod, and its hosts file.

use super::spec;
use crate::config::Config;
use k8s_openapi::api::core::v1::Pod;
use keelson_cri::v1::DnsConfig;
use std::net::IpAddr;

const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;

/// `None` where the pod takes the node's file as it is.
pub fn resolver(pod: &Pod, config: &Config, host_file: &str) -> DnsConfig {
    let host = parse(host_file);
    let policy = spec::spec(pod).dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster_first = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !spec::is_host_network(pod),
        _ => false,
    };
    let mut dns = if policy == "None" {
        DnsConfig::default()
    } else if cluster_first && !config.cluster_dns.is_empty() {
        let domain = &config.cluster_domain;
        let namespace = spec::namespace(pod);
        let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
        for search in host.searches {
            if !searches.contains(&search) {
                searches.push(search);
            }
        }
        DnsConfig {
            servers: config.cluster_dns.iter().map(IpAddr::to_string).collect(),
            searches,
            options: vec!["ndots:5".into()],
        }
    } else {
        host
    };
    if let Some(own) = &spec::spec(pod).dns_config {
        add(&mut dns.servers, own.nameservers.as_deref().unwrap_or_default().iter().cloned());
        add(&mut dns.searches, own.searches.as_deref().unwrap_or_default().iter().cloned());
        for option in own.options.as_deref().unwrap_or_default() {
            let name = option.name.as_deref().unwrap_or_default();
            // The pod's own value of an option goes before the one that is there.
            dns.options.retain(|o| o.split(':').next() != Some(name));
            dns.options.push(match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.to_owned(),
            });
        }
    }
    dns.servers.truncate(MAX_SERVERS);
    dns.searches.truncate(MAX_SEARCHES);
    dns
}

fn add(list: &mut Vec<String>, more: impl Iterator<Item = String>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

fn parse(file: &str) -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in file.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
            // The last line of its kind counts.
            Some("search") => dns.searches = words.map(str::to_owned).collect(),
            Some("options") => dns.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    dns
}

/// The pod's hostname, and its fully qualified name where it has a subdomain.
pub fn hostname(pod: &Pod, domain: &str) -> (String, Option<String>) {
    let spec = spec::spec(pod);
    let own = spec.hostname.as_deref().filter(|h| !h.is_empty()).unwrap_or_else(|| spec::name(pod));
    // The kernel takes 63 characters.
    let host = own[..own.len().min(63)].trim_end_matches(['-', '.']).to_owned();
    let subdomain = spec.subdomain.as_deref().filter(|s| !s.is_empty());
    let full = subdomain.map(|s| format!("{host}.{s}.{}.svc.{domain}", spec::namespace(pod)));
    match (&spec.hostname_override, full) {
        (Some(name), _) if !name.is_empty() => (name.clone(), None),
        (_, Some(full)) if spec.set_hostname_as_fqdn == Some(true) => (full.clone(), Some(full)),
        (_, full) => (host, full),
    }
}

/// `/etc/hosts` of a pod's containers.
pub fn hosts_file(pod: &Pod, ips: &[String], domain: &str, host_file: &str) -> String {
    let mut text = String::new();
    if spec::is_host_network(pod) {
        text.push_str("# Kubernetes-managed hosts file (host network).\n");
        text.push_str(host_file);
    } else {
        text.push_str(
            "# Kubernetes-managed hosts file.\n\
             127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\n\
             fe00::1\tip6-allnodes\n\
             fe00::2\tip6-allrouters\n",
        );
        let (host, full) = hostname(pod, domain);
        for ip in ips {
            match full.as_deref().filter(|f| *f != host) {
                Some(full) => text.push_str(&format!("{ip}\t{full}\t{host}\n")),
                None => text.push_str(&format!("{ip}\t{host}\n")),
            }
        }
    }
    let aliases = spec::spec(pod).host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            text.push_str(&format!("{}\t{names}\n", alias.ip));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const HOST: &str = "nameserver 9.9.9.9\nsearch corp.example\noptions timeout:1\n";

    fn config() -> Config {
        serde_json::from_value(json!({
            "kubeconfig": "k", "bind": { "address": "127.0.0.1", "port": 0 }, "pkiDir": "p", "stateDir": "s",
            "runtimeEndpoint": "r", "cniConfigDir": "c", "cniDataDir": "d", "clusterDns": ["10.96.0.10"],
        }))
        .expect("a configuration")
    }

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "n" }, "spec": spec }))
            .expect("a pod")
    }

    #[test]
    fn cluster_names_come_first_by_default() {
        let dns = resolver(&pod(json!({ "containers": [] })), &config(), HOST);
        assert_eq!(dns.servers, ["10.96.0.10"]);
        assert_eq!(
            dns.searches,
            ["n.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"]
        );
        assert_eq!(dns.options, ["ndots:5"]);
    }

    #[test]
    fn pods_of_the_hosts_network_resolve_like_the_host() {
        let dns = resolver(&pod(json!({ "containers": [], "hostNetwork": true })), &config(), HOST);
        assert_eq!((dns.servers, dns.options), (vec!["9.9.9.9".to_owned()], vec!["timeout:1".to_owned()]));
        let with = json!({ "containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet" });
        assert_eq!(resolver(&pod(with), &config(), HOST).servers, ["10.96.0.10"]);
    }

    #[test]
    fn a_policy_of_none_leaves_only_what_the_pod_says() {
        let dns = resolver(
            &pod(json!({
                "containers": [], "dnsPolicy": "None",
                "dnsConfig": { "nameservers": ["1.1.1.1"], "searches": ["x.y"], "options": [{ "name": "ndots", "value": "2" }] },
            })),
            &config(),
            HOST,
        );
        assert_eq!(
            (dns.servers[0].as_str(), dns.searches[0].as_str(), dns.options[0].as_str()),
            ("1.1.1.1", "x.y", "ndots:2")
        );
    }

    #[test]
    fn hosts_files_name_the_pod_and_its_aliases() {
        let pod = pod(json!({
            "containers": [], "hostname": "h", "subdomain": "sub",
            "hostAliases": [{ "ip": "1.2.3.4", "hostnames": ["a", "b"] }],
        }));
        let text = hosts_file(&pod, &["10.0.0.1".into()], "cluster.local", "");
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n"));
        assert!(text.contains("10.0.0.1\th.sub.n.svc.cluster.local\th\n"));
        assert!(text.ends_with("1.2.3.4\ta\tb\n"));
    }
}
