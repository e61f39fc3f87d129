//! Slices for Endpoints that somebody wrote for a Service without selector.

use std::net::IpAddr;

use keelson_client::Meta;

use super::slices::Desired;
use crate::views::{Address, Endpoint, EndpointConditions, EndpointPort, Endpoints};

const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

pub fn is_mirrored(endpoints: &Meta) -> bool {
    !endpoints.is_deleting()
        && endpoints.labels.get(SKIP).is_none_or(|v| v != "true")
        && !endpoints.annotations.contains_key(LEADER)
}

pub fn desired(endpoints: &Endpoints) -> Vec<Desired> {
    let mut groups: Vec<Desired> = Vec::new();
    for subset in &endpoints.subsets {
        let mut ports: Vec<EndpointPort> = subset
            .ports
            .iter()
            .map(|p| EndpointPort {
                name: p.name.clone(),
                port: Some(p.port),
                protocol: if p.protocol.is_empty() { "TCP".to_owned() } else { p.protocol.clone() },
                app_protocol: p.app_protocol.clone(),
            })
            .collect();
        ports.sort();
        let ready = subset.addresses.iter().map(|a| (a, true));
        for (address, ready) in ready.chain(subset.not_ready_addresses.iter().map(|a| (a, false))) {
            let address_type = match address.ip.parse::<IpAddr>() {
                Ok(IpAddr::V4(_)) => "IPv4",
                Ok(IpAddr::V6(_)) => "IPv6",
                Err(_) => continue,
            };
            let endpoint = mirrored(address, ready);
            match groups.iter_mut().find(|g| g.address_type == address_type && g.ports == ports) {
                Some(group) => group.endpoints.push(endpoint),
                None => groups.push(Desired {
                    address_type: address_type.to_owned(),
                    ports: ports.clone(),
                    endpoints: vec![endpoint],
                }),
            }
        }
    }
    groups
}

fn mirrored(address: &Address, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: EndpointConditions { ready: Some(ready), serving: None, terminating: None },
        hostname: Some(address.hostname.clone()).filter(|h| !h.is_empty()),
        target_ref: address.target_ref.clone(),
        node_name: address.node_name.clone(),
        zone: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_are_grouped_by_family_and_ports() {
        let endpoints: Endpoints = serde_json::from_value(json!({"metadata": {"name": "e"}, "subsets": [
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "::1"}], "notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 80}]}]}))
        .unwrap();
        let groups = desired(&endpoints);
        let summary: Vec<_> = groups.iter().map(|g| (&*g.address_type, g.endpoints.len())).collect();
        assert_eq!(summary, [("IPv4", 2), ("IPv6", 1)]);
        assert_eq!(groups[0].endpoints[1].conditions.ready, Some(false));
        assert!(is_mirrored(&endpoints.metadata));
        let skipped = Meta { labels: [(SKIP.to_owned(), "true".to_owned())].into(), ..Meta::default() };
        assert!(!is_mirrored(&skipped));
    }
}
