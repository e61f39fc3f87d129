//! Each node gets its share of the pods' network.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use keelson_client::{EventType, Key, WorkQueue, object_ref};
use parking_lot::Mutex;
use serde_json::json;

use crate::context::{Context, enqueue};
use crate::kit::Error;
use crate::views::Node;

/// The pods' network, cut into nodes' shares.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    base: u32,
    /// Prefix lengths of the whole and of a share.
    length: u8,
    share: u8,
}

impl Plan {
    pub fn new((base, length): (Ipv4Addr, u8), share: u8) -> Plan {
        Plan { base: base.into(), length, share }
    }

    /// The first share that nobody has.
    pub fn first_free(&self, taken: &BTreeSet<String>) -> Option<String> {
        let count = 1u64 << (self.share - self.length);
        (0..count).map(|i| self.name(i)).find(|share| !taken.contains(share))
    }

    fn name(&self, index: u64) -> String {
        let offset = u32::try_from(index << (32 - self.share)).unwrap_or(0);
        format!("{}/{}", Ipv4Addr::from(self.base + offset), self.share)
    }
}

pub async fn run(context: Arc<Context>) {
    let Ok(network) = context.config.pod_network() else { return };
    let plan = Plan::new(network, context.config.node_cidr_mask);
    let queue = WorkQueue::new();
    enqueue(&context.informers.nodes, &queue);
    let events = context.events("nodeipam-controller");
    // Shares just given, until the informer shows them.
    let given: Arc<Mutex<BTreeSet<(String, String)>>> = Arc::default();
    let this = context.clone();
    let reconcile = move |key: Key| {
        let (context, events, given) = (this.clone(), events.clone(), given.clone());
        async move {
            let Some(node) = context.informers.nodes.get(&key) else {
                given.lock().retain(|(name, _)| *name != key.name);
                return Ok(());
            };
            if !node.spec.pod_cidr.is_empty() || node.metadata.is_deleting() {
                given.lock().retain(|(name, _)| *name != key.name);
                return Ok(());
            }
            let nodes = context.informers.nodes.list();
            let mut taken: BTreeSet<String> = nodes.iter().flat_map(|n| n.spec.pod_cidrs.clone()).collect();
            taken.extend(nodes.iter().map(|n| n.spec.pod_cidr.clone()));
            taken.extend(given.lock().iter().filter(|(n, _)| *n != key.name).map(|(_, s)| s.clone()));
            let Some(share) = plan.first_free(&taken) else {
                let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
                events.event(&object_ref(&*node), EventType::Normal, "CIDRNotAvailable", message);
                return Err(Error::NotYet("the pods' network has no share left".to_owned()));
            };
            given.lock().insert((key.name.clone(), share.clone()));
            let patch = json!({ "spec": { "podCIDR": share, "podCIDRs": [share] } });
            let patched = context.requests.patch::<Node>(&node.metadata, None, &patch).await;
            patched.map(drop).inspect_err(|_| given.lock().retain(|(name, _)| *name != key.name))
        }
    };
    // One worker: a share is given to one node only.
    context.work("node-ipam", queue, 1, reconcile).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_given_in_order_and_again_when_free() {
        let plan = Plan::new((Ipv4Addr::new(10, 244, 0, 0), 16), 24);
        let taken = |shares: &[&str]| shares.iter().map(|s| (*s).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(plan.first_free(&taken(&[])).unwrap(), "10.244.0.0/24");
        let second = taken(&["10.244.0.0/24", "10.244.2.0/24"]);
        assert_eq!(plan.first_free(&second).unwrap(), "10.244.1.0/24");
        let small = Plan::new((Ipv4Addr::new(10, 0, 0, 0), 24), 25);
        assert_eq!(small.first_free(&taken(&["10.0.0.0/25", "10.0.0.128/25"])), None);
    }
}
