//! How endpoints are spread over slices, with as few changes as possible.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use keelson_client::Meta;

use super::{HEADLESS, MANAGED_BY, SERVICE_NAME};
use crate::views::{Endpoint, EndpointPort, EndpointSlice};

/// Endpoints in one slice at most.
const PER_SLICE: usize = 100;

/// Endpoints of one family that share their ports.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    pub address_type: String,
    pub ports: Vec<EndpointPort>,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Debug, PartialEq)]
pub enum Op {
    Create { address_type: String, ports: Vec<EndpointPort>, endpoints: Vec<Endpoint> },
    Update { slice: Meta, endpoints: Vec<Endpoint> },
    Delete(Meta),
}

/// The labels of a slice: its owner's, and those that say whose it is.
pub fn labels(
    service: &str,
    inherited: &BTreeMap<String, String>,
    headless: bool,
    manager: &str,
) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<_, _> = inherited
        .iter()
        .filter(|(key, _)| {
            ![HEADLESS, MANAGED_BY, SERVICE_NAME, super::legacy::MANAGED_BY.0].contains(&key.as_str())
        })
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    labels.insert(SERVICE_NAME.to_owned(), service.to_owned());
    labels.insert(MANAGED_BY.to_owned(), manager.to_owned());
    if headless {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

/// What tells an endpoint from others, whatever its conditions are.
fn identity(endpoint: &Endpoint) -> (&[String], Option<&str>) {
    (&endpoint.addresses, endpoint.target_ref.as_ref().map(|t| t.uid.as_str()))
}

/// The way from the present to the wanted slices: an endpoint stays in its slice, new ones fill what has room, the
/// rest goes to new slices. With `placeholder` a family without endpoints has one empty slice.
pub fn plan(
    desired: Vec<Desired>,
    present: &[Arc<EndpointSlice>],
    labels: &BTreeMap<String, String>,
    placeholder: bool,
) -> Vec<Op> {
    let mut ops = Vec::new();
    let mut kept = vec![false; present.len()];
    for group in desired {
        let slices: Vec<usize> =
            (0..present.len()).filter(|i| !kept[*i] && fits(&present[*i], &group)).collect();
        if group.endpoints.is_empty() {
            match slices.first() {
                Some(first) if placeholder => {
                    kept[*first] = true;
                    update(&mut ops, &present[*first], Vec::new(), labels);
                }
                None if placeholder => ops.push(Op::Create {
                    address_type: group.address_type,
                    ports: group.ports,
                    endpoints: Vec::new(),
                }),
                _ => {}
            }
            continue;
        }
        let (mut contents, mut waiting) = keep_in_place(&group, &slices, present);
        // The fullest first, so that the emptiest may go.
        let mut order: Vec<usize> = (0..slices.len()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(contents[*i].len()));
        for i in order {
            let room = PER_SLICE - contents[i].len().min(PER_SLICE);
            let count =
                if contents[i].is_empty() && waiting.is_empty() { 0 } else { room.min(waiting.len()) };
            contents[i].extend(waiting.drain(..count));
        }
        for (index, endpoints) in slices.into_iter().zip(contents) {
            if !endpoints.is_empty() {
                kept[index] = true;
                update(&mut ops, &present[index], endpoints, labels);
            }
        }
        while !waiting.is_empty() {
            let endpoints = waiting.drain(..PER_SLICE.min(waiting.len())).collect();
            let (address_type, ports) = (group.address_type.clone(), group.ports.clone());
            ops.push(Op::Create { address_type, ports, endpoints });
        }
    }
    let gone = present.iter().zip(&kept).filter(|(_, kept)| !**kept);
    ops.extend(gone.map(|(slice, _)| Op::Delete(slice.metadata.clone())));
    ops
}

fn fits(slice: &EndpointSlice, group: &Desired) -> bool {
    let mut ports = slice.ports.clone();
    ports.sort();
    slice.address_type == group.address_type && ports == group.ports
}

/// The wanted endpoints of each slice that are in it already, as they are to be, and all the others.
fn keep_in_place(
    group: &Desired,
    slices: &[usize],
    present: &[Arc<EndpointSlice>],
) -> (Vec<Vec<Endpoint>>, VecDeque<Endpoint>) {
    let mut wanted: Vec<Option<&Endpoint>> = group.endpoints.iter().map(Some).collect();
    let mut contents = Vec::new();
    for index in slices {
        let mut stays = Vec::new();
        for endpoint in present[*index].endpoints.iter().take(PER_SLICE) {
            let found = wanted.iter_mut().find(|w| w.is_some_and(|w| identity(w) == identity(endpoint)));
            stays.extend(found.and_then(Option::take).cloned());
        }
        contents.push(stays);
    }
    (contents, wanted.into_iter().flatten().cloned().collect())
}

fn update(
    ops: &mut Vec<Op>,
    slice: &EndpointSlice,
    endpoints: Vec<Endpoint>,
    labels: &BTreeMap<String, String>,
) {
    if slice.endpoints != endpoints || slice.metadata.labels != *labels {
        ops.push(Op::Update { slice: slice.metadata.clone(), endpoints });
    }
}

#[cfg(test)]
mod tests {
    use super::super::pods;
    use super::*;
    use crate::views::{Pod, Service};
    use serde_json::json;

    fn service(more: serde_json::Value) -> Service {
        let mut value = json!({"metadata": {"name": "web", "namespace": "d"},
            "spec": {"selector": {"a": "b"}, "ipFamilies": ["IPv4"], "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web"}]}});
        for (key, field) in more.as_object().unwrap() {
            value["spec"][key] = field.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    fn pod(n: usize, port: i32, ready: &str) -> Arc<Pod> {
        let ip = format!("10.0.{}.{}", n / 250, n % 250 + 1);
        let value = json!({
            "metadata": {"name": format!("p{n}"), "namespace": "d", "uid": format!("u{n}"), "labels": {"a": "b"}},
            "spec": {"nodeName": "n1", "hostname": "h", "subdomain": "web", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": port, "protocol": "TCP"}]}]},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": ready}]},
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn all_labels() -> BTreeMap<String, String> {
        labels("web", &BTreeMap::new(), false, "m")
    }

    fn slice(
        name: &str,
        address_type: &str,
        ports: &[EndpointPort],
        endpoints: &[Endpoint],
    ) -> Arc<EndpointSlice> {
        Arc::new(EndpointSlice {
            metadata: Meta { name: name.into(), labels: all_labels(), ..Meta::default() },
            address_type: address_type.into(),
            endpoints: endpoints.to_vec(),
            ports: ports.to_vec(),
        })
    }

    fn desired(pods: &[Arc<Pod>]) -> Vec<Desired> {
        pods::desired(&service(json!({})), pods, |_| Some("z".into()))
    }

    #[test]
    fn pods_become_endpoints_with_their_conditions() {
        let groups = desired(&[pod(1, 8080, "True"), pod(2, 8080, "False"), pod(3, 9090, "True")]);
        assert_eq!(groups.len(), 2);
        let first = &groups[0];
        assert_eq!((first.ports[0].port, first.endpoints.len()), (Some(8080), 2));
        assert_eq!(first.endpoints[0].conditions.ready, Some(true));
        assert_eq!(first.endpoints[1].conditions.ready, Some(false));
        assert_eq!(first.endpoints[0].hostname.as_deref(), Some("h"));
        assert_eq!(first.endpoints[0].zone.as_deref(), Some("z"));
        let all =
            pods::desired(&service(json!({"publishNotReadyAddresses": true})), &[pod(2, 1, "False")], |_| {
                None
            });
        let conditions = &all[0].endpoints[0].conditions;
        assert_eq!((conditions.ready, conditions.serving), (Some(true), Some(false)));
    }

    #[test]
    fn no_pods_leave_an_empty_slice_per_family() {
        let both = pods::desired(&service(json!({"ipFamilies": ["IPv4", "IPv6"]})), &[], |_| None);
        let ops = plan(both, &[], &all_labels(), true);
        assert!(
            matches!(&ops[..], [Op::Create { .. }, Op::Create { address_type, .. }] if address_type == "IPv6")
        );
        assert_eq!(plan(desired(&[]), &[slice("a", "IPv4", &[], &[])], &all_labels(), true), []);
    }

    #[test]
    fn slices_are_filled_before_new_ones_are_made() {
        let pods: Vec<_> = (0..150).map(|n| pod(n, 80, "True")).collect();
        let groups = desired(&pods);
        let sizes = |ops: &[Op]| -> Vec<usize> {
            ops.iter()
                .map(|op| match op {
                    Op::Create { endpoints, .. } | Op::Update { endpoints, .. } => endpoints.len(),
                    Op::Delete(_) => 0,
                })
                .collect()
        };
        assert_eq!(sizes(&plan(groups.clone(), &[], &all_labels(), true)), [100, 50]);
        let ports = &groups[0].ports;
        let endpoints = &groups[0].endpoints;
        let present = [
            slice("a", "IPv4", ports, &endpoints[..100]),
            slice("b", "IPv4", ports, &endpoints[100..140]),
            slice("c", "IPv4", &[], &[]),
        ];
        let ops = plan(groups.clone(), &present, &all_labels(), true);
        assert!(
            matches!(&ops[..], [Op::Update { slice, endpoints }, Op::Delete(gone)]
                if slice.name == "b" && endpoints.len() == 50 && gone.name == "c"),
            "{ops:?}"
        );
        // A pod that is not ready any more changes its slice alone.
        let mut fewer = pods.clone();
        fewer[3] = pod(3, 80, "False");
        let present =
            [slice("a", "IPv4", ports, &endpoints[..100]), slice("b", "IPv4", ports, &endpoints[100..])];
        let ops = plan(desired(&fewer), &present, &all_labels(), true);
        assert!(matches!(&ops[..], [Op::Update { slice, .. }] if slice.name == "a"), "{ops:?}");
    }
}
