//! What is counted by stack: memory, threads, and what Go counts that is not measured here.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use keelson_api_types::StatusError;
use keelson_daemon::{heap, threads};

use super::builder::{Builder, Unit};
use super::{TEXT, file, refused};
use crate::body::Response;
use crate::request::Query;
use crate::response::text;

/// Between who is sampled and the sample, by how their names begin or what they have in them; and how deep they are.
const ALLOCATOR: [&str; 2] = ["alloc::alloc::", "alloc::raw_vec::"];
const SAMPLER: [&str; 4] =
    ["keelson_host::heap::", "keelson_host::threads::", "::__rust_alloc", "::__rust_realloc"];
const WITHIN: usize = 24;

#[derive(Clone, Copy)]
pub enum Counted {
    Allocs,
    Block,
    /// Go's threads of its own; here the system's, for a task that waits has no stack.
    Goroutine,
    Heap,
    Mutex,
}

/// By stack, one value for each unit.
type Counts = HashMap<Arc<[usize]>, Vec<i64>>;

impl Counted {
    pub fn named(path: &str) -> Option<Self> {
        [Self::Allocs, Self::Block, Self::Goroutine, Self::Heap, Self::Mutex]
            .into_iter()
            .find(|counted| path.strip_prefix('/') == Some(counted.name()))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Allocs => "allocs",
            Self::Block => "block",
            Self::Goroutine => "goroutine",
            Self::Heap => "heap",
            Self::Mutex => "mutex",
        }
    }

    fn units(self) -> &'static [Unit] {
        match self {
            Self::Allocs | Self::Heap => &[
                ("alloc_objects", "count"),
                ("alloc_space", "bytes"),
                ("inuse_objects", "count"),
                ("inuse_space", "bytes"),
            ],
            Self::Goroutine => &[("goroutine", "count")],
            Self::Block | Self::Mutex => &[("contentions", "count"), ("delay", "nanoseconds")],
        }
    }

    fn period(self) -> (Unit, i64) {
        match self {
            Self::Allocs | Self::Heap => (("space", "bytes"), heap::RATE as i64),
            Self::Goroutine => (("goroutine", "count"), 1),
            Self::Block | Self::Mutex => (("contentions", "count"), 1),
        }
    }

    /// The place of the unit that is shown first.
    fn shown(self) -> usize {
        match self {
            Self::Allocs | Self::Block | Self::Mutex => 1,
            Self::Goroutine => 0,
            Self::Heap => 3,
        }
    }

    fn counts(self) -> std::io::Result<Counts> {
        Ok(match self {
            Self::Allocs | Self::Heap => heap::sites()
                .into_iter()
                .map(|site| {
                    let (all, live) = (site.allocated, site.live);
                    let values = [all.objects, all.bytes, live.objects, live.bytes];
                    (site.stack, values.map(|value| value as i64).to_vec())
                })
                .collect(),
            Self::Goroutine => {
                let mut counts = Counts::new();
                for stack in threads::stacks()? {
                    counts.entry(stack.into()).or_insert_with(|| vec![0])[0] += 1;
                }
                counts
            }
            Self::Block | Self::Mutex => Counts::new(),
        })
    }

    /// The profile as it is, or what `seconds` add to it; `debug` makes it text.
    pub async fn serve(self, query: &Query) -> Result<Response, StatusError> {
        let debug =
            query.get("debug").and_then(|debug| debug.parse().ok()).is_some_and(|debug: i64| debug != 0);
        let mut before = None;
        if let Some(asked) = query.get("seconds").filter(|asked| !asked.is_empty()) {
            let Some(seconds) = asked.parse().ok().filter(|seconds| *seconds > 0) else {
                let why = "invalid value for \"seconds\" - must be a positive integer";
                return Ok(refused(StatusCode::BAD_REQUEST, why));
            };
            if debug {
                return Ok(refused(StatusCode::BAD_REQUEST, "seconds and debug params are incompatible"));
            }
            before = Some((self.counts().map_err(StatusError::internal)?, seconds));
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
        // To find the names takes long.
        let written = tokio::task::spawn_blocking(move || self.written(before, debug));
        let (name, content) = written.await.map_err(StatusError::internal)?.map_err(StatusError::internal)?;
        if debug { Ok(text(StatusCode::OK, TEXT, content)) } else { file(&name, content) }
    }

    fn written(self, before: Option<(Counts, u64)>, debug: bool) -> std::io::Result<(String, Vec<u8>)> {
        let mut counts = self.counts()?;
        let (mut name, mut nanos) = (self.name().to_owned(), 0);
        if let Some((before, seconds)) = before {
            (name, nanos) = (name + "-delta", seconds as i64 * 1_000_000_000);
            counts = added(before, counts);
        }
        let mut rows: Vec<_> = counts.into_iter().collect();
        rows.sort_by_key(|(_, values)| Reverse(values[self.shown()]));
        let mut builder = Builder::new(self.units(), self.period());
        builder.shown(self.units()[self.shown()].0);
        let rows = rows.into_iter().map(|(stack, values)| (asked(builder.places(&stack), &builder), values));
        let rows: Vec<_> = rows.collect();
        if debug {
            return Ok((name, self.legible(&builder, &rows).into_bytes()));
        }
        rows.into_iter().for_each(|(places, values)| builder.sample(places, values));
        Ok((name, builder.packed(SystemTime::now(), nanos)?))
    }

    /// What is counted, then a line for each place.
    fn legible(self, builder: &Builder, rows: &[(Vec<u64>, Vec<i64>)]) -> String {
        let mut page = format!("{}:", self.name());
        self.units().iter().for_each(|(kind, unit)| page += &format!(" {kind}/{unit}"));
        for (places, values) in rows {
            page += "\n\n";
            values.iter().for_each(|value| page += &format!("{value} "));
            for place in places {
                let (function, file, line) = builder.described(*place);
                page += &format!("\n\t{function} {file}:{line}");
            }
        }
        page + "\n"
    }
}

fn added(before: Counts, mut after: Counts) -> Counts {
    for (stack, earlier) in before {
        let later = after.entry(stack).or_insert_with(|| vec![0; earlier.len()]);
        later.iter_mut().zip(earlier).for_each(|(later, earlier)| *later -= earlier);
    }
    after.retain(|_, values| values.iter().any(|value| *value != 0));
    after
}

/// The stack without the sampler's own part.
fn asked(mut places: Vec<u64>, builder: &Builder) -> Vec<u64> {
    let own = |place: &u64| {
        let (name, ..) = builder.described(*place);
        let bare = name.trim_start_matches('<');
        ALLOCATOR.iter().any(|part| bare.starts_with(part)) || SAMPLER.iter().any(|part| name.contains(part))
    };
    let last = places.iter().take(WITHIN).rposition(own);
    places.drain(..last.map_or(0, |last| last + 1));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_may_be_negative_and_is_not_shown_where_it_is_nothing() {
        let counts = |rows: &[(usize, [i64; 2])]| -> Counts {
            rows.iter().map(|(stack, values)| ([*stack].into(), values.to_vec())).collect()
        };
        let before = counts(&[(1, [5, 50]), (2, [3, 3]), (3, [9, 2])]);
        let after = counts(&[(1, [5, 50]), (2, [4, 3]), (3, [9, 1]), (4, [1, 1])]);
        assert_eq!(added(before, after), counts(&[(2, [1, 0]), (3, [0, -1]), (4, [1, 1])]));
    }
}
