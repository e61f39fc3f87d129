//! The write-ahead log when the machine stops, the log is damaged or the disk is full.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keelson_store::embedded::fault::{Faults, Step};
use keelson_store::{
    EmbeddedConfig, Error, Expect, RangeOptions, Revision, Store, StoreConfig, Write, WriteError,
};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::support::{eventually, text};

/// Keys with their value and revision.
type State = BTreeMap<String, (String, Revision)>;

const FILES: [&str; 2] = ["store.redb", "store.redb.wal"];

async fn open(folder: &Path, faults: &Arc<Faults>) -> Result<Arc<dyn Store>, Error> {
    let mut config = EmbeddedConfig::new(folder.join(FILES[0]));
    config.faults = Some(faults.clone());
    keelson_store::open(StoreConfig::Embedded(config)).await
}

async fn state(store: &dyn Store) -> (Revision, State) {
    let all = store.range("/", RangeOptions::default()).await.unwrap();
    let keys = all.kvs.into_iter().map(|kv| (kv.key, (text(&kv.value), kv.mod_revision)));
    (all.revision, keys.collect())
}

/// What a store finds that is opened on a copy of these files, which another with these faults may be using.
async fn found_in(folder: &Path, faults: &Faults) -> (Revision, State) {
    let copy = copy_of(folder, faults);
    state(&*open(copy.path(), &Arc::default()).await.unwrap()).await
}

fn copy_of(folder: &Path, faults: &Faults) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    let _frozen = faults.freeze();
    for name in FILES.iter().filter(|name| folder.join(name).exists()) {
        fs::copy(folder.join(name), copy.path().join(name)).unwrap();
    }
    copy
}

/// Each kind of change once, and what must be there afterwards.
async fn change(store: &dyn Store, round: usize) -> Result<(), WriteError> {
    store.write(Write::put("/often", round.to_string())).await?;
    store.write(Write::create(format!("/{round}"), "x".repeat(round * 100))).await?;
    let lease = store.lease(Duration::from_secs(3600)).await.unwrap();
    store.write(Write::create(format!("/leased/{round}"), "1").with_lease(lease)).await?;
    store.write(Write::create(format!("/gone/{round}"), "1")).await?;
    store.write(Write::delete(format!("/gone/{round}"), Expect::Any)).await?;
    if round % 3 == 2 {
        store.revoke(lease).await.unwrap();
        store.compact(store.revision().await.unwrap() - 3).await.unwrap();
    }
    Ok(())
}

/// A killed process leaves all it wrote, a power failure only what was synced: both have everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_the_machine_stops_the_files_hold_what_was_acknowledged() {
    let (folder, synced) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let faults = Arc::new(Faults::default());
    faults.keep_images(synced.path().to_owned());
    let mut store = open(folder.path(), &faults).await.unwrap();
    for round in 0..12 {
        change(&*store, round).await.unwrap();
        let expected = state(&*store).await;
        assert_eq!(found_in(folder.path(), &faults).await, expected, "round {round}, killed");
        assert_eq!(found_in(synced.path(), &faults).await, expected, "round {round}, without power");
        if round % 4 == 3 {
            drop(store);
            assert_eq!(
                found_in(synced.path(), &faults).await,
                expected,
                "round {round}, closed and without power"
            );
            store = open(folder.path(), &faults).await.unwrap();
            assert_eq!(state(&*store).await, expected, "round {round}, closed");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_at_any_step_loses_nothing_acknowledged_and_is_got_over() {
    let (folder, synced) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let faults = Arc::new(Faults::default());
    faults.keep_images(synced.path().to_owned());
    let mut store = open(folder.path(), &faults).await.unwrap();
    for (round, step) in Step::ALL.into_iter().chain(Step::ALL).enumerate() {
        // The first change after opening is a checkpoint, the others go to the log.
        let checkpoint = matches!(step, Step::Checkpoint | Step::CheckpointDone);
        if !checkpoint {
            change(&*store, round).await.unwrap();
        } else {
            drop(store);
            store = open(folder.path(), &faults).await.unwrap();
        }
        let (_, mut expected) = state(&*store).await;
        faults.fail_at(step);
        let key = format!("/unknown/{round}");
        let error = store.write(Write::create(&*key, "1")).await.unwrap_err();
        assert!(matches!(error, WriteError::Unavailable(_)), "{step:?}: {error:?}");
        assert!(!faults.is_pending(), "{step:?} was not reached");
        for image in [folder.path(), synced.path()] {
            let (_, mut found) = found_in(image, &faults).await;
            found.remove(&key);
            assert_eq!(found, expected, "{step:?}, stopped in {}", image.display());
        }
        let probe =
            || async { store.write(Write::put("/probe", "1")).await.map_err(|error| error.to_string()) };
        eventually("a write when the disk works again", probe, Result::is_ok).await.unwrap();
        let (revision, now) = state(&*store).await;
        for image in [folder.path(), synced.path()] {
            assert_eq!(
                found_in(image, &faults).await,
                (revision, now.clone()),
                "{step:?}, in {}",
                image.display()
            );
        }
        expected.retain(|key, _| key != "/probe");
        assert!(expected.iter().all(|(key, value)| now.get(key) == Some(value)), "{step:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_fails_halfway_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let mut config = EmbeddedConfig::new(folder.path().join(FILES[0]));
    config.faults = Some(faults.clone());
    // Pages go to the disk early.
    config.cache_bytes = 1 << 20;
    let store = keelson_store::open(StoreConfig::Embedded(config)).await.unwrap();
    for turn in 0..60 {
        store.write(Write::create(format!("/{turn}"), vec![b'x'; 100_000])).await.unwrap();
    }
    let (_, expected) = state(&*store).await;
    faults.set_full(true);
    for _ in 0..3 {
        store.write(Write::create("/during", "1")).await.unwrap_err();
    }
    faults.set_full(false);
    let again = || async { store.write(Write::put("/after", "1")).await.map_err(|error| error.to_string()) };
    eventually("a write when there is space", again, Result::is_ok).await.unwrap();
    let (_, mut now) = state(&*store).await;
    now.remove("/after");
    assert_eq!(now.len(), expected.len());
    assert!(now == expected, "a value differs");
}

/// A lease that was granted though its caller was told of a failure runs all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_of_a_batch_that_failed_after_it_was_logged_end_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let store = open(folder.path(), &faults).await.unwrap();
    store.write(Write::put("/first", "1")).await.unwrap();
    faults.fail_at(Step::Commit);
    store.lease(Duration::from_millis(10)).await.unwrap_err();
    let probe = || async { store.write(Write::put("/first", "2")).await.map_err(|error| error.to_string()) };
    eventually("a write when the disk works again", probe, Result::is_ok).await.unwrap();
    // The first of a store has number 1.
    let hanging = || async { store.write(Write::put("/leased", "1").with_lease(1)).await.is_err() };
    eventually("the lease ends", hanging, |ended| *ended).await;
    let get = || async { store.get("/leased").await.unwrap().kv };
    eventually("what hung on it is gone", get, Option::is_none).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_log_is_taken_over_by_redb_and_started_anew() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Arc::default();
    let store = open(folder.path(), &faults).await.unwrap();
    let value = bytes::Bytes::from(vec![7; 3 << 20]);
    for turn in 0..14 {
        store.write(Write::put(format!("/{}", turn % 3), value.clone())).await.unwrap();
    }
    let expected = state(&*store).await;
    assert_eq!(found_in(folder.path(), &faults).await, expected);
    assert!(fs::metadata(folder.path().join(FILES[1])).unwrap().len() <= 16 << 20);
}

/// Also a log of another generation, which these are to each other's redb file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_another_store_or_none_is_an_empty_one() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (folder, count) in [(&one, 3), (&other, 9)] {
        let store = open(folder.path(), &Arc::default()).await.unwrap();
        for turn in 0..count {
            store.write(Write::create(format!("/{turn}"), "1")).await.unwrap();
        }
    }
    let expected = found_in(one.path(), &Faults::default()).await;
    fs::copy(other.path().join(FILES[1]), one.path().join(FILES[1])).unwrap();
    assert_eq!(found_in(one.path(), &Faults::default()).await, expected);
    fs::remove_file(one.path().join(FILES[1])).unwrap();
    let store = open(one.path(), &Arc::default()).await.unwrap();
    assert_eq!(state(&*store).await, expected);
    store.write(Write::create("/more", "1")).await.unwrap();
}

/// Wherever it is hit, but for the last entry: that one may be torn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_damaged_before_its_end_is_refused_until_it_is_cut_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), &Arc::default()).await.unwrap();
    store.write(Write::put("/first", "1")).await.unwrap();
    let (mut states, mut ends) = (Vec::new(), vec![0]);
    for turn in 0..4 {
        states.push(state(&*store).await);
        store.write(Write::create(format!("/{turn}"), vec![b'x'; 70_000 * turn])).await.unwrap();
        let log = fs::read(folder.path().join(FILES[1])).unwrap();
        ends.push(log.iter().rposition(|byte| *byte != 0).unwrap() + 1);
    }
    let image = copy_of(folder.path(), &Faults::default());
    drop(store);
    let log = image.path().join(FILES[1]);
    let whole = fs::read(&log).unwrap();
    for (entry, before) in states.iter().enumerate().take(3) {
        let place = |part: usize| ends[entry] + (ends[entry + 1] - ends[entry] - 1) * part / 4;
        for at in (0..=4).map(place) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&log, bytes).unwrap();
            let error = open(image.path(), &Arc::default()).await.err().expect("it is damaged");
            assert!(matches!(error, Error::Damaged { .. }), "{error}");
            let advice = std::error::Error::source(&error).unwrap().to_string();
            assert!(advice.contains(&format!("`truncate -s {} {}`", ends[entry], log.display())), "{advice}");
            fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(ends[entry] as u64).unwrap();
            assert_eq!(found_in(image.path(), &Faults::default()).await, *before);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_from_before_there_was_a_log_opens_and_gets_one() {
    const META: redb::TableDefinition<&str, u64> = redb::TableDefinition::new("meta");
    let folder = tempfile::tempdir().unwrap();
    let faults = Arc::default();
    let store = open(folder.path(), &faults).await.unwrap();
    change(&*store, 2).await.unwrap();
    let expected = state(&*store).await;
    drop(store);
    fs::remove_file(folder.path().join(FILES[1])).unwrap();
    let database = redb::Database::open(folder.path().join(FILES[0])).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut meta = transaction.open_table(META).unwrap();
        meta.insert("format", 1).unwrap();
        meta.remove("generation").unwrap();
    }
    transaction.commit().unwrap();
    drop(database);

    let store = open(folder.path(), &faults).await.unwrap();
    assert_eq!(state(&*store).await, expected);
    for turn in ["1", "2"] {
        store.write(Write::put("/on", turn)).await.unwrap();
    }
    assert_eq!(found_in(folder.path(), &faults).await, state(&*store).await);
    assert!(folder.path().join(FILES[1]).exists());
}

/// Fills a file system of 24 MiB to its last block.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_really_full_stops_writes_only_and_only_for_as_long() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    struct Disk(TempDir);
    impl Drop for Disk {
        fn drop(&mut self) {
            let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
        }
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: no file system to fill");
        return;
    }
    let disk = Disk(tempfile::tempdir().unwrap());
    mount(Some("tmpfs"), disk.0.path(), Some("tmpfs"), MsFlags::empty(), Some("size=24m")).unwrap();
    let store = open(disk.0.path(), &Arc::default()).await.unwrap();
    store.write(Write::create("/before", "1")).await.unwrap();
    let ballast = disk.0.path().join("ballast");
    let block = vec![1; 4096];
    let mut file = fs::File::create(&ballast).unwrap();
    while std::io::Write::write_all(&mut file, &block).is_ok() {}

    let mut acknowledged = 0;
    let error = loop {
        match store.write(Write::create(format!("/{acknowledged}"), vec![b'x'; 50_000])).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("the disk is full"), "{error}");
    for _ in 0..3 {
        drop(store.write(Write::create("/during", vec![b'x'; 3_000_000])).await.unwrap_err());
        let (_, now) = state(&*store).await;
        assert_eq!(now.keys().filter(|key| *key != "/before").count(), acknowledged, "reads go on");
    }
    fs::remove_file(&ballast).unwrap();
    store.write(Write::create("/after", "1")).await.unwrap();
    let expected = state(&*store).await;
    drop(store);
    let store = open(disk.0.path(), &Arc::default()).await.unwrap();
    assert_eq!(state(&*store).await, expected);
}

/// One step of a random history.
#[derive(Debug, Clone)]
enum Turn {
    Put(u8, u16),
    Delete(u8),
    Compact(u8),
    Reopen,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        8 => (0..6u8, 0..6000u16).prop_map(|(key, size)| Turn::Put(key, size)),
        3 => (0..6u8).prop_map(Turn::Delete),
        1 => (0..10u8).prop_map(Turn::Compact),
        1 => Just(Turn::Reopen),
    ];
    prop::collection::vec(turn, 1..25)
}

async fn play(folder: &Path, faults: &Arc<Faults>, turns: Vec<Turn>) -> Arc<dyn Store> {
    let mut store = open(folder, faults).await.unwrap();
    // A checkpoint, so that the last of the turns is in the log.
    store.write(Write::put("/first", "1")).await.unwrap();
    for turn in turns {
        match turn {
            Turn::Put(key, size) => {
                drop(store.write(Write::put(format!("/{key}"), vec![b'v'; size.into()])).await.unwrap());
            }
            Turn::Delete(key) => {
                drop(store.write(Write::delete(format!("/{key}"), Expect::Any)).await.unwrap());
            }
            Turn::Compact(back) => {
                let revision = store.revision().await.unwrap();
                store.compact(revision.saturating_sub(back.into())).await.unwrap();
            }
            Turn::Reopen => {
                drop(store);
                store = open(folder, faults).await.unwrap();
                store.write(Write::put("/first", "1")).await.unwrap();
            }
        }
    }
    store
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_becomes_of_the_last_unacknowledged_entry_the_acknowledged_ones_are_there(
        turns in turns(), size in 0..9000usize, at in 0.0..1.0f64, flip in 1..=255u8, cut in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let faults = Arc::default();
            let store = play(folder.path(), &faults, turns).await;
            let expected = state(&*store).await;
            let before = fs::read(folder.path().join(FILES[1])).unwrap_or_default();
            // Stands for one that no caller was told of.
            store.write(Write::put("/last", vec![b'l'; size])).await.unwrap();
            let image = copy_of(folder.path(), &faults);
            drop(store);
            let mut bytes = fs::read(image.path().join(FILES[1])).unwrap();
            let differs = |at: &usize| before.get(*at).copied().unwrap_or(0) != bytes[*at];
            let start = (0..bytes.len()).find(differs).unwrap();
            let end = (0..bytes.len()).rfind(differs).unwrap() + 1;
            let place = start + ((end - start) as f64 * at) as usize;
            if cut {
                bytes.truncate(place);
            } else {
                bytes[place] ^= flip;
            }
            fs::write(image.path().join(FILES[1]), bytes).unwrap();
            let store = open(image.path(), &faults).await.unwrap();
            assert_eq!(state(&*store).await, expected);
            // And the store goes on from there, also over a crash.
            store.write(Write::put("/on", "1")).await.unwrap();
            store.write(Write::put("/on", "2")).await.unwrap();
            let now = state(&*store).await;
            assert_eq!(found_in(image.path(), &faults).await, now);
        });
    }
}
