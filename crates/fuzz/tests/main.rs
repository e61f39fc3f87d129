//! The corpus, and some hundreds of mutations of it by a fixed seed. `KEELSON_FUZZ_MUTATIONS` and `KEELSON_FUZZ_SEED`
//! make it more, and others.

use std::cell::Cell;
use std::fs;
use std::panic::{catch_unwind, set_hook, take_hook};
use std::path::Path;
use std::sync::Once;

use keelson_fuzz::{TARGETS, Target};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const LONGEST: usize = 4096;
const SYNTAX: &[u8] = b"{}[]\":,0-.\n\\u&?=/%$";

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

thread_local! {
    /// Of tasks too, where it goes no further.
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let told = take_hook();
        set_hook(Box::new(move |info| {
            PANICKED.set(true);
            told(info);
        }));
    });
}

fn check(name: &str, target: Target, data: &[u8]) {
    if catch_unwind(|| target(data)).is_err() || PANICKED.get() {
        panic!("{name}, with {}", data.escape_ascii());
    }
}

/// One to four small changes, or a part of another input.
fn mutate(data: &mut Vec<u8>, other: &[u8], random: &mut StdRng) {
    for _ in 0..random.random_range(1..5) {
        let at = random.random_range(0..=data.len());
        let end = random.random_range(at..=data.len().min(at + 16));
        match random.random_range(0..6) {
            0 => data.insert(at, random.random()),
            1 => data.insert(at, SYNTAX[random.random_range(0..SYNTAX.len())]),
            2 => drop(data.drain(at..end)),
            3 => {
                let part = data[at..end].to_vec();
                data.splice(at..at, part);
            }
            4 if at < data.len() => data[at] ^= 1 << random.random_range(0..8),
            _ => {
                let from = random.random_range(0..=other.len());
                data.splice(at..end, other[from..].iter().take(64).copied());
            }
        }
    }
    data.truncate(LONGEST);
}

fn setting(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |text| text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

fn run(name: &str) {
    watch_panics();
    let target = TARGETS.iter().find(|(other, _)| *other == name).unwrap().1;
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "no corpus for {name}");
    corpus.iter().for_each(|data| check(name, target, data));
    let mut random = StdRng::seed_from_u64(setting("KEELSON_FUZZ_SEED", 1));
    for _ in 0..setting("KEELSON_FUZZ_MUTATIONS", 500) {
        let mut data = corpus[random.random_range(0..corpus.len())].clone();
        mutate(&mut data, &corpus[random.random_range(0..corpus.len())], &mut random);
        check(name, target, &data);
    }
}

macro_rules! targets {
    ($($test:ident $name:literal)*) => {
        $(#[test] fn $test() { run($name) })*

        #[test]
        fn every_target_is_run() {
            let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$($name),*]);
        }
    };
}

targets! {
    json "json"
    yaml "yaml"
    proto "proto"
    cbor "cbor"
    json_patch "json-patch"
    merge_patch "merge-patch"
    strategic_patch "strategic-patch"
    apply "apply"
    managed_fields "managed-fields"
    selector "selector"
    quantity "quantity"
    names "names"
    cel "cel"
    schema "schema"
    spdy "spdy"
    websocket "websocket"
    url "url"
}
