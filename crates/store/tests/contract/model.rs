//! Random histories against a model small enough to be right by inspection.

use std::collections::BTreeMap;
use std::sync::Arc;

use keelson_store::{Error, EventKind, Expect, RangeOptions, Revision, Store, Write, WriteError};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::contract::contract;
use crate::support::{events, text};

contract! { random_histories_match_the_model }

type State = BTreeMap<String, (String, Revision, Revision)>;

#[derive(Debug, Clone)]
enum Step {
    /// Key, value, and how far the expected revision is from the true one; `None` expects nothing.
    Put(u8, u16, Option<i8>),
    Create(u8, u16),
    Delete(u8, Option<i8>),
    Range {
        prefix: u8,
        back: u8,
        limit: u8,
    },
    Compact {
        back: u8,
    },
}

/// Every state the store has had.
#[derive(Default)]
struct Model {
    states: Vec<State>,
    log: Vec<String>,
    compacted: Revision,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let drift = prop::option::of(prop_oneof![4 => Just(0_i8), 1 => -2_i8..3]);
    let step = prop_oneof![
        6 => (0_u8..12, any::<u16>(), drift.clone()).prop_map(|(k, v, d)| Step::Put(k, v, d)),
        3 => (0_u8..12, any::<u16>()).prop_map(|(k, v)| Step::Create(k, v)),
        3 => (0_u8..12, drift).prop_map(|(k, d)| Step::Delete(k, d)),
        3 => (0_u8..4, 0_u8..20, 0_u8..6).prop_map(|(prefix, back, limit)| Step::Range { prefix, back, limit }),
        1 => (0_u8..20).prop_map(|back| Step::Compact { back }),
    ];
    prop::collection::vec(step, 60)
}

fn key(number: u8) -> String {
    format!("/{}/{number}", number % 3)
}

impl Model {
    fn revision(&self) -> Revision {
        self.states.len() as Revision
    }

    fn now(&self) -> State {
        self.states.last().cloned().unwrap_or_default()
    }

    fn expect(&self, key: &str, drift: Option<i8>) -> Expect {
        match (drift, self.now().get(key)) {
            (None, _) => Expect::Any,
            (Some(drift), Some((.., revision))) => {
                Expect::Revision(revision.saturating_add_signed(drift.into()))
            }
            (Some(_), None) => Expect::Absent,
        }
    }

    /// What the write must do; `None` for a conflict.
    fn apply(&mut self, write: &Write) -> Option<Revision> {
        let mut state = self.now();
        let current = state.get(&write.key).cloned();
        let as_expected = match write.expect {
            Expect::Any => true,
            Expect::Absent => current.is_none(),
            Expect::Revision(revision) => current.as_ref().is_some_and(|(.., at)| *at == revision),
        };
        if !as_expected {
            return None;
        }
        let revision = self.revision() + 1;
        match &write.value {
            Some(value) => {
                let created = current.map_or(revision, |(_, created, _)| created);
                state.insert(write.key.clone(), (text(value), created, revision));
                self.log.push(format!("+{}={}@{revision}", write.key, text(value)));
            }
            None => match current {
                Some((value, ..)) => {
                    state.remove(&write.key);
                    self.log.push(format!("-{}={value}@{revision}", write.key));
                }
                None => return Some(self.revision()),
            },
        }
        self.states.push(state);
        Some(revision)
    }
}

async fn write(store: &Arc<dyn Store>, model: &mut Model, write: Write) {
    let before = model.now();
    match (store.write(write.clone()).await, model.apply(&write)) {
        (Ok(written), Some(revision)) => {
            assert_eq!(written.revision, revision, "{write:?}");
            let previous = written.previous.map(|kv| (text(&kv.value), kv.create_revision, kv.mod_revision));
            assert_eq!(previous, before.get(&write.key).cloned(), "{write:?}");
        }
        (Err(WriteError::Conflict { current }), None) => {
            let current = current.map(|kv| (text(&kv.value), kv.create_revision, kv.mod_revision));
            assert_eq!(current, before.get(&write.key).cloned(), "{write:?}");
        }
        (result, model) => panic!("{write:?}: {result:?}, the model says {model:?}"),
    }
}

async fn range(store: &Arc<dyn Store>, model: &Model, prefix: u8, back: u8, limit: usize) {
    let at = model.revision().saturating_sub(back.into()).max(1);
    let prefix = if prefix == 3 { "/".to_owned() } else { format!("/{prefix}/") };
    let options = RangeOptions { at: Some(at), limit, start_after: None };
    let result = store.range(&prefix, options).await;
    if at < model.compacted {
        assert!(matches!(result, Err(Error::Compacted { .. })), "at {at}: {result:?}");
        return;
    }
    let ranged = result.unwrap();
    let state = model.states[at as usize - 1].iter().filter(|(key, _)| key.starts_with(&prefix));
    let mut expected: Vec<_> =
        state.map(|(k, (v, created, modified))| (k.clone(), v.clone(), *created, *modified)).collect();
    let more = limit > 0 && expected.len() > limit;
    if more {
        expected.truncate(limit);
    }
    let found: Vec<_> = ranged
        .kvs
        .into_iter()
        .map(|kv| (kv.key, text(&kv.value), kv.create_revision, kv.mod_revision))
        .collect();
    assert_eq!((found, ranged.more), (expected, more), "{prefix} at {at}, limit {limit}");
}

async fn random_histories_match_the_model(store: Arc<dyn Store>) {
    let seed: [u8; 32] = rand::random();
    println!("seed {seed:?}");
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let mut watch = store.watch("/", 1).await.unwrap();
    let mut model = Model { states: vec![State::default()], ..Model::default() };
    for _ in 0..6 {
        for step in steps().new_tree(&mut runner).unwrap().current() {
            match step {
                Step::Put(number, value, drift) => {
                    let key = key(number);
                    let expect = model.expect(&key, drift);
                    let value = Some(value.to_string().into());
                    write(&store, &mut model, Write { key, expect, value, lease: None }).await;
                }
                Step::Create(number, value) => {
                    write(&store, &mut model, Write::create(key(number), value.to_string())).await;
                }
                Step::Delete(number, drift) => {
                    let key = key(number);
                    let expect = model.expect(&key, drift);
                    write(&store, &mut model, Write::delete(key, expect)).await;
                }
                Step::Range { prefix, back, limit } => {
                    range(&store, &model, prefix, back, limit.into()).await
                }
                Step::Compact { back } => {
                    let upto = model.revision().saturating_sub(back.into()).max(1);
                    store.compact(upto).await.unwrap();
                    model.compacted = model.compacted.max(upto);
                }
            }
        }
        range(&store, &model, 3, 0, 0).await;
    }
    let seen = events(&mut watch, model.log.len()).await;
    assert_eq!(crate::support::brief(&seen), model.log);
    assert!(seen.iter().all(|event| event.kind == EventKind::Put || event.previous.is_some()));
}
