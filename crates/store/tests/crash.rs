//! `kill -9` at random points: what was acknowledged is there afterwards.
//!
//! The parent runs this same binary as the writer (see [`writer`]) and kills it after a random
//! number of acknowledgements and a random pause.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use keelson_store::{EmbeddedConfig, Expect, RangeOptions, Store, StoreConfig, Write};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const ROUNDS: usize = 200;
const PATH: &str = "KEELSON_STORE_CRASH_PATH";
const SEED: &str = "KEELSON_STORE_CRASH_SEED";
const WRITERS: u64 = 8;

/// The writing process; does nothing unless started by the test below. Several tasks write keys of
/// their own and print each acknowledgement: `key value revision`, an empty value for a deletion.
#[tokio::test(flavor = "current_thread")]
async fn writer() {
    let (Ok(path), Ok(seed)) = (std::env::var(PATH), std::env::var(SEED)) else { return };
    let seed: u64 = seed.parse().unwrap();
    let store = keelson_store::open(StoreConfig::Embedded(EmbeddedConfig::new(path))).await.unwrap();
    println!("revision {}", store.revision().await.unwrap());
    let tasks =
        (0..WRITERS).map(|task| write_for_ever(&*store, task, StdRng::seed_from_u64(seed ^ (task << 32))));
    futures::future::join_all(tasks).await;
}

async fn write_for_ever(store: &dyn Store, task: u64, mut random: StdRng) {
    for turn in 0_u64.. {
        let key = format!("/{task}/{}", random.random_range(0..20));
        let (write, value) = if random.random_ratio(1, 5) {
            (Write::delete(&*key, Expect::Any), String::new())
        } else {
            let size = random.random_range(1..4000);
            (Write::put(&*key, format!("{turn}:{}", "x".repeat(size))), turn.to_string())
        };
        if random.random_ratio(1, 50) {
            let upto = store.revision().await.unwrap();
            store.compact(upto.saturating_sub(20)).await.unwrap();
        }
        println!("begin {key} {value}");
        let written = store.write(write).await.unwrap();
        println!("done {key} {value} {}", written.revision);
        std::io::stdout().flush().unwrap();
    }
}

/// What the writers said: the last acknowledged value of each key, and the write then under way.
#[derive(Default)]
struct Account {
    acknowledged: BTreeMap<String, String>,
    under_way: BTreeMap<String, String>,
    revision: u64,
}

impl Account {
    fn note(&mut self, line: &str) -> bool {
        // The test harness prints lines of its own; a cut last line is no acknowledgement.
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["begin", key, value] => {
                self.under_way.insert(key.to_owned(), value.to_owned());
                false
            }
            ["done", key, value, revision] => {
                self.under_way.remove(key);
                self.acknowledged.insert(key.to_owned(), value.to_owned());
                self.revision = self.revision.max(revision.parse().unwrap());
                true
            }
            ["revision", revision] => {
                let revision: u64 = revision.parse().unwrap();
                assert!(revision >= self.revision, "reopened at {revision} after {}", self.revision);
                self.revision = revision;
                true
            }
            _ => false,
        }
    }
}

fn write_and_kill(path: &Path, seed: u64, random: &mut StdRng, account: &mut Account) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::writer", "--nocapture", "--test-threads=1"])
        .env(PATH, path)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let acknowledgements = random.random_range(0..60);
    let pause = Duration::from_micros(random.random_range(0..3000));
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut count = 0;
    let mut line = String::new();
    while count < acknowledgements && lines.read_line(&mut line).unwrap() > 0 {
        count += usize::from(line.ends_with('\n') && account.note(line.trim_end_matches('\n')));
        line.clear();
    }
    assert!(count == acknowledgements, "the writer ended by itself after {count} writes");
    // Where in a transaction the kill falls must not depend on the acknowledgement just read.
    let moment = Instant::now() + pause;
    while Instant::now() < moment {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    line.clear();
    while lines.read_line(&mut line).unwrap() > 0 {
        if line.ends_with('\n') {
            account.note(line.trim_end_matches('\n'));
        }
        line.clear();
    }
}

/// Every key has its last acknowledged value, or that of the write that was under way.
async fn verify(path: &Path, account: &mut Account, round: usize) {
    let store = keelson_store::open(StoreConfig::Embedded(EmbeddedConfig::new(path))).await.unwrap();
    let all = store.range("/", RangeOptions::default()).await.unwrap();
    assert!(all.revision >= account.revision, "round {round}: {} after {}", all.revision, account.revision);
    account.revision = all.revision;
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for kv in all.kvs {
        assert!(
            kv.mod_revision <= all.revision && kv.create_revision <= kv.mod_revision,
            "round {round}: {kv:?}"
        );
        let text = String::from_utf8(kv.value.to_vec()).unwrap();
        found.insert(kv.key, text.split(':').next().unwrap().to_owned());
    }
    let keys: Vec<String> =
        account.acknowledged.keys().chain(account.under_way.keys()).chain(found.keys()).cloned().collect();
    for key in keys {
        let value = found.get(&key).cloned().unwrap_or_default();
        let acknowledged = account.acknowledged.get(&key).cloned().unwrap_or_default();
        let under_way = account.under_way.get(&key);
        assert!(
            value == acknowledged || Some(&value) == under_way,
            "round {round}: {key} is {value:?}, acknowledged was {acknowledged:?}, under way {under_way:?}"
        );
    }
    account.acknowledged = found;
    account.under_way.clear();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_by_a_kill() {
    if std::env::var(PATH).is_ok() {
        return;
    }
    let seed = std::env::var("KEELSON_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("KEELSON_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let mut account = Account::default();
    for round in 0..ROUNDS {
        write_and_kill(&path, random.random(), &mut random, &mut account);
        verify(&path, &mut account, round).await;
    }
    assert!(account.revision > ROUNDS as u64, "hardly anything was written");
}
