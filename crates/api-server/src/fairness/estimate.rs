//! How many seats a request takes, by upstream's rules: a list or the first events of a watch by the bytes they
//! send, a write by the watches it is sent to.

use std::time::Duration;

use super::level::Schema;
use super::seats::Estimate;
use crate::app::App;
use crate::request::{Query, RequestInfo};

const BYTES_PER_SEAT: usize = 100_000;
/// Lists are made while they are sent: however long, no more than this is held at once.
const MOST_BYTES: usize = 1_000_000;
const WATCHES_PER_SEAT: u32 = 10;
const MOST_LIST_SEATS: u32 = 100;
const MOST_WRITE_SEATS: u32 = 10;
/// What sending one event takes of a seat's time.
const EVENT: Duration = Duration::from_millis(5);

pub fn of(app: &App, info: &RequestInfo, query: &Query, schema: &Schema) -> Estimate {
    let widest = schema.level.widest();
    let capped = |most: u32| if widest == 0 { most } else { most.min(widest) };
    match info.verb.as_str() {
        "list" | "watch" => read(app, info, query, capped(MOST_LIST_SEATS)),
        "create" | "update" | "patch" | "delete" if info.is_resource => {
            let token = info.resource == "serviceaccounts" && info.subresource == "token";
            let watches = if token { 0 } else { app.fairness.watchers.interested(info) };
            schema.stats.watches.observe(f64::from(watches));
            write(watches, capped(MOST_WRITE_SEATS))
        }
        _ => Estimate::ONE,
    }
}

fn read(app: &App, info: &RequestInfo, query: &Query, most: u32) -> Estimate {
    let fresh = matches!(query.get("resourceVersion"), None | Some("" | "0"));
    let initial = query.flag("sendInitialEvents").unwrap_or(fresh);
    if info.verb == "watch" && !initial || !info.name.is_empty() {
        return Estimate::ONE;
    }
    let Some(resource) = app.registry.find(&info.group, &info.version, &info.resource) else {
        return Estimate::ONE;
    };
    let (count, bytes) = resource.cache.size();
    let limit = query.get("limit").and_then(|l| l.parse::<usize>().ok()).filter(|l| (1..count).contains(l));
    let part = limit.map_or(bytes, |limit| bytes / count * limit);
    Estimate::seats(seats(part).min(most.max(1)))
}

/// Seats for so many bytes that are to be sent.
pub fn seats(bytes: usize) -> u32 {
    bytes.min(MOST_BYTES).div_ceil(BYTES_PER_SEAT).max(1) as u32
}

/// Few watches cost nothing beyond the write itself; the work of more is done after it has been answered.
fn write(watches: u32, most: u32) -> Estimate {
    if watches < WATCHES_PER_SEAT {
        return Estimate::ONE;
    }
    let seats = watches.div_ceil(WATCHES_PER_SEAT);
    let final_seats = seats.min(most.max(1));
    Estimate { seats: 1, final_seats, lingering: EVENT * seats / final_seats }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_watches_keep_seats_after_a_write() {
        assert_eq!(write(9, 10), Estimate::ONE);
        assert_eq!(write(25, 10), Estimate { seats: 1, final_seats: 3, lingering: EVENT });
        assert_eq!(write(1000, 10), Estimate { seats: 1, final_seats: 10, lingering: EVENT * 10 });
    }
}
