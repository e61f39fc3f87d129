//! ServiceCIDRs: ready once they are protected, and kept while addresses of theirs are in use.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use keelson_api_types::{Reason, StatusError, meta};
use serde_json::{Value, json};

use super::claims::{address_claim, address_gvr};
use super::{cidr_gvr, nets};
use crate::admission::items;
use crate::types::Objects;

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// Until every server has heard that no more addresses may be taken.
const GRACE: SignedDuration = SignedDuration::from_secs(10);

/// What a ServiceCIDR needs.
#[derive(Debug, PartialEq)]
enum Step {
    Keep,
    Update(Value),
    Status(Value),
    /// To be looked at again at this time.
    Wait(Timestamp),
}

/// One pass over all; returns when to make another even if nothing changes.
pub async fn sync(objects: &dyn Objects) -> Result<Option<Timestamp>, StatusError> {
    let gvr = cidr_gvr();
    let all = objects.list(&gvr, "");
    let addresses: Vec<IpAddr> = objects
        .list(&address_gvr(), "")
        .iter()
        .filter_map(|o| address_claim(o))
        .filter_map(|(claim, managed)| managed.then_some(claim.number))
        .collect();
    let mut again: Option<Timestamp> = None;
    for cidr in &all {
        let written = match decide(cidr, &all, &addresses, Timestamp::now()) {
            Step::Keep => continue,
            Step::Wait(at) => {
                again = Some(again.map_or(at, |a| a.min(at)));
                continue;
            }
            Step::Update(cidr) => objects.update(&gvr, "", "", cidr).await,
            Step::Status(cidr) => objects.update(&gvr, "", "status", cidr).await,
        };
        match written {
            Err(error) if !matches!(error.reason(), Reason::Conflict | Reason::NotFound) => {
                return Err(error);
            }
            _ => {}
        }
    }
    Ok(again)
}

fn decide(cidr: &Value, all: &[Arc<Value>], addresses: &[IpAddr], now: Timestamp) -> Step {
    let deleted = meta::parse_time(meta::string(cidr, "deletionTimestamp"));
    let finalizers = items(&cidr["metadata"]["finalizers"]);
    let protected = finalizers.iter().any(|f| f == FINALIZER);
    let Some(deleted) = deleted else {
        if !protected {
            let mut cidr = cidr.clone();
            crate::admission::push(&mut cidr["metadata"], "finalizers", FINALIZER.into());
            return Step::Update(cidr);
        }
        return condition(cidr, "True", "", "Kubernetes Service CIDR is ready");
    };
    if !protected {
        return Step::Keep;
    }
    let others: Vec<IpNet> =
        all.iter().filter(|o| meta::name(o) != meta::name(cidr)).flat_map(|o| nets(o)).collect();
    let own = nets(cidr);
    let covered = own.iter().all(|net| others.iter().any(|other| other.contains(net)));
    let orphan = |ip: &IpAddr| own.iter().any(|n| n.contains(ip)) && !others.iter().any(|n| n.contains(ip));
    if !covered && addresses.iter().any(orphan) {
        let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
        return condition(cidr, "False", "Terminating", message);
    }
    if now < deleted + GRACE {
        return Step::Wait(deleted + GRACE);
    }
    let mut cidr = cidr.clone();
    if let Some(list) = cidr["metadata"]["finalizers"].as_array_mut() {
        list.retain(|f| f != FINALIZER);
    }
    Step::Update(cidr)
}

/// Sets the `Ready` condition unless it says so already.
fn condition(cidr: &Value, status: &str, reason: &str, message: &str) -> Step {
    let conditions = items(&cidr["status"]["conditions"]);
    let ready = conditions.iter().find(|c| c["type"] == "Ready");
    // The default one is made ready in words of its own.
    if ready.is_some_and(|c| c["status"] == status && c["reason"].as_str().unwrap_or_default() == reason) {
        return Step::Keep;
    }
    let mut conditions: Vec<Value> = conditions.iter().filter(|c| c["type"] != "Ready").cloned().collect();
    conditions.push(json!({"type": "Ready", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": meta::now_rfc3339()}));
    let mut cidr = cidr.clone();
    cidr["status"]["conditions"] = conditions.into();
    Step::Status(cidr)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(name: &str, net: &str) -> Value {
        json!({"metadata": {"name": name, "finalizers": [FINALIZER]}, "spec": {"cidrs": [net]}})
    }

    fn deleted(mut cidr: Value, at: Timestamp) -> Value {
        cidr["metadata"]["deletionTimestamp"] = meta::rfc3339(at).into();
        cidr
    }

    #[test]
    fn a_new_range_is_protected_then_ready() {
        let now = Timestamp::now();
        let mut new = cidr("a", "10.1.0.0/24");
        new["metadata"]["finalizers"] = json!([]);
        let Step::Update(protected) = decide(&new, &[], &[], now) else { panic!("it is to be protected") };
        assert_eq!(protected["metadata"]["finalizers"], json!([FINALIZER]));
        let Step::Status(ready) = decide(&protected, &[], &[], now) else { panic!("it is to be ready") };
        assert_eq!(ready["status"]["conditions"][0]["status"], "True");
        assert_eq!(decide(&ready, &[], &[], now), Step::Keep);
    }

    #[test]
    fn a_range_in_use_stays_until_its_addresses_are_gone_or_in_another() {
        let now = Timestamp::from_second(1_800_000_100).unwrap();
        let at = |seconds| now - SignedDuration::from_secs(seconds);
        let doomed = deleted(cidr("a", "10.1.0.0/24"), at(60));
        let used = ["10.1.0.7".parse().unwrap()];
        let Step::Status(blocked) = decide(&doomed, &[], &used, now) else { panic!("it is in use") };
        assert_eq!(blocked["status"]["conditions"][0]["reason"], "Terminating");
        let wider = [Arc::new(cidr("b", "10.1.0.0/16"))];
        assert!(matches!(decide(&doomed, &wider, &used, now), Step::Update(_)));
        let Step::Update(released) = decide(&doomed, &[], &[], now) else { panic!("it is free") };
        assert_eq!(released["metadata"]["finalizers"], json!([]));
        let young = deleted(cidr("a", "10.1.0.0/24"), at(4));
        assert_eq!(decide(&young, &[], &[], now), Step::Wait(at(4) + GRACE));
    }
}
