//! Who leads, and when it stops.

use crate::eventually;
use crate::peer::Peer;
use keelson_client::{CancellationToken, Leader, LeaderElector, Outcome};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

type Log = Arc<Mutex<Vec<(String, Instant)>>>;

/// A candidate that writes down when its work starts and when that is dropped.
fn candidate(
    peer: &Peer,
    identity: &'static str,
    log: &Log,
    shutdown: &CancellationToken,
) -> tokio::task::JoinHandle<Outcome> {
    struct Note(Log, &'static str);
    impl Drop for Note {
        fn drop(&mut self) {
            self.0.lock().push((format!("{} stops", self.1), Instant::now()));
        }
    }
    let (client, log, shutdown) = (peer.client(), log.clone(), shutdown.clone());
    tokio::spawn(async move {
        let elector = LeaderElector::new("kube-system", "test", identity);
        let work = |leader: Leader| async move {
            log.lock().push((format!("{identity} leads"), Instant::now()));
            let _note = Note(log, identity);
            leader.shutdown.cancelled().await;
        };
        elector.run(&client, shutdown, work).await
    })
}

fn entries(log: &Log) -> Vec<String> {
    log.lock().iter().map(|(entry, _)| entry.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_gives_the_lease_back() {
    let (peer, log) = (Peer::default(), Log::default());
    let (first_end, second_end) = (CancellationToken::new(), CancellationToken::new());
    let first = candidate(&peer, "first", &log, &first_end);
    eventually(1, || log.lock().len()).await;
    let second = candidate(&peer, "second", &log, &second_end);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(entries(&log), ["first leads"]);
    let spec = peer.get("leases", "kube-system", "test").unwrap()["spec"].clone();
    assert_eq!((&spec["holderIdentity"], &spec["leaseDurationSeconds"]), (&"first".into(), &15.into()));

    first_end.cancel();
    assert_eq!(first.await.unwrap(), Outcome::Finished);
    eventually(3, || log.lock().len()).await;
    assert_eq!(entries(&log), ["first leads", "first stops", "second leads"]);
    assert_eq!(peer.get("leases", "kube-system", "test").unwrap()["spec"]["leaseTransitions"], 1);
    second_end.cancel();
    assert_eq!(second.await.unwrap(), Outcome::Finished);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_before_another_starts() {
    let (peer, other_side, log) = (Peer::default(), Peer::default(), Log::default());
    let end = CancellationToken::new();
    let first = candidate(&peer, "first", &log, &end);
    eventually(1, || log.lock().len()).await;
    let cut = Instant::now();
    peer.fail_writes(true);
    assert_eq!(first.await.unwrap(), Outcome::Lost);
    let stopped = log.lock()[1].1;
    assert!(stopped - cut <= Duration::from_secs(10), "{:?}", stopped - cut);

    // Seen from the other side of the partition, the lease is as it was, and then over.
    other_side.put("leases", peer.get("leases", "kube-system", "test").unwrap());
    let second = candidate(&other_side, "second", &log, &end);
    eventually(3, || log.lock().len()).await;
    assert_eq!(entries(&log), ["first leads", "first stops", "second leads"]);
    assert!(log.lock()[2].1 - stopped >= Duration::from_secs(5));
    end.cancel();
    second.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_its_own_identity_is_taken_over_at_once() {
    let (peer, log) = (Peer::default(), Log::default());
    let end = CancellationToken::new();
    let killed = candidate(&peer, "same", &log, &end);
    eventually(1, || log.lock().len()).await;
    killed.abort();
    let _ = killed.await;
    let again = Instant::now();
    let restarted = candidate(&peer, "same", &log, &end);
    eventually(3, || log.lock().len()).await;
    assert!(again.elapsed() < Duration::from_secs(1));
    end.cancel();
    restarted.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn shutdown_before_leadership_ends_the_wait() {
    let peer = Peer::default();
    peer.stop();
    let end = CancellationToken::new();
    let waiting = candidate(&peer, "first", &Log::default(), &end);
    tokio::time::sleep(Duration::from_secs(5)).await;
    end.cancel();
    assert_eq!(waiting.await.unwrap(), Outcome::NeverLed);
}
