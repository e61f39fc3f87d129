//! A client that gets and lists.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;

use super::{KEYS, World, breathe, goes_on};
use crate::history::{Answer, Call, Fresh, Revision};

pub struct Reader<'a> {
    world: World<'a>,
    client: usize,
    random: StdRng,
    /// The newest revision that it was shown.
    newest: Revision,
}

impl<'a> Reader<'a> {
    pub fn new(world: World<'a>, client: usize, seed: u64) -> Self {
        Self { world, client, random: StdRng::seed_from_u64(seed), newest: 0 }
    }

    pub async fn run(mut self, stop: watch::Receiver<bool>) {
        while goes_on(&stop) {
            let failed = self.turn().await;
            breathe(&mut self.random, failed).await;
        }
    }

    /// Returns whether there was no use in it.
    async fn turn(&mut self) -> bool {
        let fresh = match self.random.random_range(0..10) {
            0..6 => Fresh::Consistent,
            6 if self.newest > 0 => Fresh::AtLeast(self.newest),
            _ => Fresh::Any,
        };
        let call = if self.random.random_ratio(1, 3) { Call::List(fresh) } else { Call::Get(fresh) };
        let (key, paged) = (self.random.random_range(0..KEYS), self.random.random_ratio(1, 3));
        // Pages of a past moment are another thing than a state that is new enough.
        let paged = paged && fresh == Fresh::Consistent;
        let server = self.world.any_server(&mut self.random);
        let shown = match self.world.request(self.client, server, key, call, paged).await {
            Answer::Found(object) => object.revision,
            Answer::Listed { revision, .. } => revision,
            Answer::Absent => 0,
            _ => return true,
        };
        self.newest = self.newest.max(shown);
        false
    }
}
