//! Profiles of the process, as `go tool pprof` would read them.

use std::io::Read;

use flate2::read::GzDecoder;
use prost::Message;
use serde_json::json;

use crate::support::{CONFIG_MAPS, Client, Server, config_map};

#[path = "../src/profiling/profile.rs"]
#[allow(dead_code)]
mod profile;
use profile::Profile;

const LARGE: usize = 900_000;

impl Profile {
    fn text(&self, id: i64) -> &str {
        &self.string_table[id as usize]
    }

    /// What all samples of a type come to, of those that have such a function on their stacks.
    fn sum(&self, sample_type: &str, function: &str) -> i64 {
        let at = self.sample_type.iter().position(|t| self.text(t.r#type) == sample_type).unwrap();
        let named = |location: &u64| {
            let location = &self.location[*location as usize - 1];
            self.text(self.function[location.line[0].function_id as usize - 1].name).contains(function)
        };
        let samples = self.sample.iter().filter(|s| s.location_id.iter().any(named));
        samples.map(|s| s.value[at]).sum()
    }
}

async fn profile(client: &Client, name: &str) -> Profile {
    let answer = client.get(&format!("/debug/pprof/{name}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let file = name.split_once('?').map_or(name.to_owned(), |(name, _)| format!("{name}-delta"));
    assert_eq!(answer.headers["content-disposition"], format!("attachment; filename=\"{file}\""));
    let mut plain = Vec::new();
    GzDecoder::new(&answer.bytes[..]).read_to_end(&mut plain).unwrap();
    Profile::decode(&plain[..]).unwrap()
}

/// Writes objects that a heap of this size cannot be without.
async fn write(client: &Client) {
    // Of a hundred about 35 are sampled: four deviations are half of what is held.
    for n in 0..100 {
        let mut large = config_map(&format!("large-{n}"));
        large["data"] = json!({"text": "x".repeat(LARGE)});
        client.post(CONFIG_MAPS, &large).await.expect(201);
    }
}

#[tokio::test]
async fn a_heap_profile_tells_who_holds_the_cached_objects() {
    let server = Server::start().await;
    let admin = server.admin();
    write(&admin).await;
    let heap = profile(&admin, "heap").await;
    let types: Vec<_> = heap.sample_type.iter().map(|t| (heap.text(t.r#type), heap.text(t.unit))).collect();
    let wanted = [
        ("alloc_objects", "count"),
        ("alloc_space", "bytes"),
        ("inuse_objects", "count"),
        ("inuse_space", "bytes"),
    ];
    assert_eq!(types, wanted);
    assert_eq!((heap.text(heap.default_sample_type), heap.period), ("inuse_space", 2 << 20));
    let held = heap.sum("inuse_space", "keelson_api_server::");
    assert!(held > 50 * LARGE as i64, "{held}");
    assert!(heap.sum("alloc_space", "keelson_api_server::") > held);
    assert_eq!(heap.sum("alloc_space", "keelson_host::heap::"), 0, "the sampler shows itself");

    let allocs = profile(&admin, "allocs").await;
    assert_eq!(allocs.text(allocs.default_sample_type), "alloc_space");
    let text = admin.get("/debug/pprof/heap?debug=1").await;
    assert_eq!(text.headers["content-type"], "text/plain; charset=utf-8");
    let text = text.text();
    assert!(
        text.starts_with("heap: alloc_objects/count ") && text.contains("keelson_api_server::"),
        "{text}"
    );
}

#[tokio::test]
async fn a_profile_of_some_seconds_is_what_they_added() {
    let server = Server::start().await;
    let admin = server.admin();
    write(&admin).await;
    let delta = profile(&admin, "heap?seconds=1").await;
    assert_eq!(delta.duration_nanos, 1_000_000_000);
    let added = delta.sum("inuse_space", "keelson_api_server::");
    assert!(added < 5 * LARGE as i64, "{added}");
    for (query, why) in [
        ("seconds=0", "invalid value for \"seconds\" - must be a positive integer\n"),
        ("seconds=1&debug=1", "seconds and debug params are incompatible\n"),
    ] {
        let refused = admin.get(&format!("/debug/pprof/heap?{query}")).await;
        assert_eq!((refused.status.as_u16(), refused.text().as_str()), (400, why));
    }
}

#[tokio::test]
async fn what_is_not_measured_is_an_empty_profile() {
    let server = Server::start().await;
    for name in ["block", "mutex"] {
        let profile = profile(&server.admin(), name).await;
        let types: Vec<_> = profile.sample_type.iter().map(|t| profile.text(t.r#type)).collect();
        assert_eq!((types, profile.sample.len()), (vec!["contentions", "delay"], 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_threads_tell_what_they_are_at() {
    let server = Server::start().await;
    let threads = profile(&server.admin(), "goroutine").await;
    assert_eq!(threads.text(threads.sample_type[0].r#type), "goroutine");
    assert!(threads.sum("goroutine", "multi_thread::worker::") >= 1, "{:?}", threads.string_table);
    assert!(threads.sum("goroutine", "keelson_host::threads::") == 0, "the handler shows itself");
    let unknown = server.admin().get("/debug/pprof/threadcreate").await;
    assert_eq!((unknown.status.as_u16(), unknown.text().starts_with("Unknown profile")), (404, true));
}
