//! Keeps claims and Services in step: claims that a dead server has left are removed, Services from before claims
//! (or whose claim somebody deleted) get theirs, and memory and ServiceCIDRs follow what there is.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use keelson_api_types::{Gvr, StatusError};
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::claims::{self, Claim, Owner, address_claim, address_gvr};
use super::{Allocators, Held, cidr_gvr, cidrs};
use crate::types::{Change, Object, Objects};

/// Upstream's.
const EVERY: Duration = Duration::from_secs(180);
const RETRY: Duration = Duration::from_secs(2);
/// A claim may be older than its Service by what a request may last.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// Serves until shutdown.
pub async fn run(allocators: Allocators, objects: Arc<dyn Objects>, shutdown: CancellationToken) {
    let services = Gvr::new("", "v1", "services");
    let mut service_changes = objects.subscribe(&services);
    let mut address_changes = objects.subscribe(&address_gvr());
    let mut cidr_changes = objects.subscribe(&cidr_gvr());
    let mut pass = tokio::time::interval(EVERY);
    pass.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // When ServiceCIDRs are to be looked at again.
    let mut look: Option<Instant> = None;
    loop {
        let look_again = async {
            match look {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let (broken, ranges) = tokio::select! {
            Some(change) = service_changes.recv() => {
                note(&allocators, &change, ports);
                (false, false)
            }
            Some(change) = address_changes.recv() => {
                note(&allocators, &change, address);
                let deleted = matches!(&change, Change::Delete(_));
                // A range that is being deleted may wait for just that address.
                (matches!(&change, Change::Delete(o) if is_held(objects.as_ref(), &services, o)), deleted)
            }
            Some(_) = cidr_changes.recv() => {
                allocators.read_ranges(objects.as_ref());
                (false, true)
            }
            _ = pass.tick() => (true, true),
            () = look_again => (false, true),
            () = shutdown.cancelled() => return,
            else => return,
        };
        if broken && let Err(error) = repair(&allocators, objects.as_ref()).await {
            tracing::warn!(
                error = error.message(),
                "cannot compare claims of addresses and ports with Services"
            );
        }
        if ranges {
            look = match cidrs::sync(objects.as_ref()).await {
                Ok(at) => at.map(|at| {
                    Instant::now() + Timestamp::now().duration_until(at).try_into().unwrap_or_default()
                }),
                Err(error) => {
                    tracing::warn!(error = error.message(), "cannot bring the ServiceCIDRs up to date");
                    Some(Instant::now() + RETRY)
                }
            };
        }
    }
}

fn address(object: &Object) -> Option<Held> {
    let ip = object.name.parse().ok()?;
    Some(Held { addresses: [ip].into(), ports: Default::default() })
}

fn ports(object: &Object) -> Option<Held> {
    let service: Value = object.parse().ok()?;
    Some(Held { addresses: Default::default(), ..Held::of(&service) })
}

fn note(allocators: &Allocators, change: &Change, held: impl Fn(&Object) -> Option<Held>) {
    match change {
        Change::Snapshot(all) => all.iter().filter_map(held).for_each(|h| allocators.note(&h)),
        Change::Put(object) => held(object).iter().for_each(|h| allocators.note(h)),
        Change::Delete(object) => held(object).iter().for_each(|h| allocators.forget(h)),
    }
}

/// Whether the Service of a deleted IPAddress still has that address.
fn is_held(objects: &dyn Objects, services: &Gvr, deleted: &Object) -> bool {
    let claim = deleted.parse().ok().and_then(|o: Value| address_claim(&o));
    let Some((Claim { number, owner: Some(owner), .. }, true)) = claim else { return false };
    let service = objects.get(services, &owner.namespace, &owner.name);
    service.is_some_and(|s| Held::of(&s).addresses.contains(&number))
}

/// One pass over all claims.
async fn repair(allocators: &Allocators, objects: &dyn Objects) -> Result<(), StatusError> {
    // Claims are read before the Services that may have been made with them since.
    let ports = allocators.inner.claims.list().await?;
    let addresses: Vec<_> =
        objects.list(&address_gvr(), "").iter().filter_map(|o| address_claim(o)).collect();
    let services: Vec<(Owner, Held)> = objects
        .list(&Gvr::new("", "v1", "services"), "")
        .iter()
        .map(|s| (Owner::of(s), Held::of(s)))
        .collect();
    let now = Timestamp::now();
    let (managed, foreign): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|(_, managed)| *managed);
    let held = pairs(&services, |h| h.addresses.iter().copied().collect());
    let plan = compare(&held, managed.into_iter().map(|(claim, _)| claim), now);
    let foreign: Vec<_> = foreign.into_iter().map(|(c, _)| c.number).collect();
    for ip in plan.remove {
        tracing::warn!(%ip, "a cluster address is claimed for a Service that does not have it; giving it back");
        let held = Held { addresses: [ip].into(), ports: Default::default() };
        allocators.free(objects, &held).await;
    }
    for (ip, owner) in plan.claim.into_iter().filter(|(ip, _)| !foreign.contains(ip)) {
        tracing::warn!(%ip, ?owner, "a Service's cluster address is not claimed; claiming it");
        claims::address(objects, ip, &owner).await?;
    }
    let held = pairs(&services, |h| h.ports.iter().copied().collect());
    let plan = compare(&held, ports.into_iter(), now);
    for port in plan.remove {
        tracing::warn!(port, "a node port is claimed for a Service that does not have it; giving it back");
        let held = Held { addresses: Default::default(), ports: [port].into() };
        allocators.free(objects, &held).await;
    }
    for (port, owner) in plan.claim {
        allocators.inner.claims.claim(port, &owner).await?;
    }
    Ok(())
}

fn pairs<N>(services: &[(Owner, Held)], of: impl Fn(&Held) -> Vec<N>) -> Vec<(N, Owner)> {
    let all = services.iter().flat_map(|(owner, held)| of(held).into_iter().map(|n| (n, owner.clone())));
    all.collect()
}

/// What to do about claims that are not as Services have it.
#[derive(Debug, PartialEq, Eq)]
struct Plan<N> {
    remove: Vec<N>,
    claim: Vec<(N, Owner)>,
}

/// `held` is what Services have. A number that two Services have stays with whom the claim says.
fn compare<N: Copy + Eq + Hash>(
    held: &[(N, Owner)],
    claims: impl Iterator<Item = Claim<N>>,
    now: Timestamp,
) -> Plan<N> {
    let mut owners: HashMap<N, Vec<&Owner>> = HashMap::new();
    for (number, owner) in held {
        owners.entry(*number).or_default().push(owner);
    }
    let mut plan = Plan { remove: Vec::new(), claim: Vec::new() };
    for claim in claims {
        let having = owners.remove(&claim.number).unwrap_or_default();
        let right = claim.owner.as_ref().is_some_and(|owner| having.contains(&owner));
        let is_young = now.duration_since(claim.since) < GRACE;
        if right || having.is_empty() && is_young {
            continue;
        }
        plan.remove.push(claim.number);
        plan.claim.extend(having.first().map(|owner| (claim.number, (*owner).clone())));
    }
    plan.claim.extend(owners.into_iter().filter_map(|(n, having)| Some((n, (*having.first()?).clone()))));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        Owner { namespace: "n".into(), name: name.into() }
    }

    #[test]
    fn claims_follow_what_services_have() {
        let now = Timestamp::now();
        let (old, young) = (now - SignedDuration::from_secs(61), now - SignedDuration::from_secs(5));
        let claim = |number: u16, name: &str, since| Claim { number, owner: Some(owner(name)), since };
        // (what Services have, a claim, removed, claimed)
        let cases = [
            (vec![(1, "a")], Some(claim(1, "a", old)), vec![], vec![]),
            (vec![(1, "a")], None, vec![], vec![(1, "a")]),
            (vec![], Some(claim(1, "a", young)), vec![], vec![]),
            (vec![], Some(claim(1, "a", old)), vec![1], vec![]),
            (vec![(1, "a")], Some(claim(1, "b", young)), vec![1], vec![(1, "a")]),
            (vec![(1, "a"), (1, "b")], Some(claim(1, "b", old)), vec![], vec![]),
        ];
        for (held, claims, remove, wanted) in cases {
            let held: Vec<_> = held.into_iter().map(|(n, name)| (n, owner(name))).collect();
            let wanted = wanted.into_iter().map(|(n, name)| (n, owner(name))).collect();
            assert_eq!(compare(&held, claims.into_iter(), now), Plan { remove, claim: wanted }, "{held:?}");
        }
    }
}
