//! A client that creates, updates, patches and deletes.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{KEYS, World, breathe, goes_on};
use crate::history::{Answer, Call, Fresh, Key, Revision};

pub struct Writer<'a> {
    world: World<'a>,
    client: usize,
    random: StdRng,
    /// What it last knew of each key.
    known: [Revision; KEYS as usize],
}

impl<'a> Writer<'a> {
    pub fn new(world: World<'a>, client: usize, seed: u64) -> Self {
        Self { world, client, random: StdRng::seed_from_u64(seed), known: [0; KEYS as usize] }
    }

    pub async fn run(mut self, stop: watch::Receiver<bool>) {
        while goes_on(&stop) {
            let answer = self.turn().await;
            breathe(&mut self.random, matches!(answer, Answer::Unknown(_))).await;
        }
    }

    async fn turn(&mut self) -> Answer {
        let key = self.random.random_range(0..KEYS);
        let server = self.world.any_server(&mut self.random);
        let value = self.world.notes.value(self.random.random_range(0..2));
        let known = self.known[usize::from(key)];
        let call = match self.random.random_range(0..10) {
            0..2 => Call::Create { value },
            2..5 => Call::Update { value, expected: self.read(server, key).await.max(1) },
            // Of a version that somebody else may have replaced long ago.
            5 => Call::Update { value, expected: known.max(1) },
            6..8 => Call::Patch { value },
            8 => Call::Delete { expected: None },
            _ => Call::Delete { expected: (known > 0).then_some(known) },
        };
        let answer = self.world.request(self.client, server, key, call, false).await;
        if let Answer::Wrote(object) = answer {
            self.known[usize::from(key)] = object.revision;
        }
        answer
    }

    async fn read(&mut self, server: usize, key: Key) -> Revision {
        let call = Call::Get(Fresh::Consistent);
        if let Answer::Found(object) = self.world.request(self.client, server, key, call, false).await {
            self.known[usize::from(key)] = object.revision;
        }
        self.known[usize::from(key)]
    }

    /// A last write to each key, seen by watches of either side: the revisions that watches have to reach.
    pub async fn finish(&mut self, patience: Duration) -> Option<Vec<Revision>> {
        let end = Instant::now() + patience;
        let mut goal = Vec::new();
        for key in 0..KEYS {
            self.put(key, 0, end).await?;
            goal.push(self.put(key, 1, end).await?);
        }
        Some(goal)
    }

    /// Writes a key until that is acknowledged.
    async fn put(&mut self, key: Key, side: u64, end: Instant) -> Option<Revision> {
        let mut exists = true;
        while Instant::now() < end {
            let value = self.world.notes.value(side);
            let call = if exists { Call::Patch { value } } else { Call::Create { value } };
            let server = self.world.any_server(&mut self.random);
            match self.world.request(self.client, server, key, call, false).await {
                Answer::Wrote(object) => return Some(object.revision),
                Answer::Refused(404) => exists = false,
                Answer::Refused(409) => exists = true,
                _ => breathe(&mut self.random, true).await,
            }
        }
        None
    }
}
