//! Claims in memory, for tests.

use std::collections::HashMap;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use jiff::Timestamp;
use keelson_api_types::StatusError;
use parking_lot::Mutex;

use super::claims::{Claim, Owner, PortClaims};

#[derive(Default)]
pub struct MapPorts(Mutex<HashMap<u16, Owner>>);

impl PortClaims for MapPorts {
    fn claim<'a>(&'a self, port: u16, owner: &'a Owner) -> BoxFuture<'a, Result<bool, StatusError>> {
        let mut map = self.0.lock();
        let free = !map.contains_key(&port);
        if free {
            map.insert(port, owner.clone());
        }
        ready(Ok(free)).boxed()
    }

    fn release(&self, port: u16) -> BoxFuture<'_, Result<(), StatusError>> {
        self.0.lock().remove(&port);
        ready(Ok(())).boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Claim<u16>>, StatusError>> {
        let since = Timestamp::now();
        let map = self.0.lock();
        let claims =
            map.iter().map(|(port, owner)| Claim { number: *port, owner: Some(owner.clone()), since });
        ready(Ok(claims.collect())).boxed()
    }
}
