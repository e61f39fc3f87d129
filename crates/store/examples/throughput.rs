//! How many writes the embedded store takes, in wall time and per second of CPU.
//!
//! `cargo run --release -p keelson-store --example throughput -- [FOLDER]`

use std::sync::Arc;
use std::time::{Duration, Instant};

use keelson_store::{EmbeddedConfig, RangeOptions, Store, StoreConfig, Write};

const VALUE: usize = 2048;

/// User and system time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    // Fields 14 and 15 of proc(5), in hundredths of a second on Linux.
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn number_of(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

async fn measure<F: Future<Output = usize>>(what: &str, work: F) {
    let (start, start_cpu) = (Instant::now(), cpu());
    let written = number_of("/proc/self/io", "write_bytes");
    let count = work.await;
    let (wall, cpu) = (start.elapsed().as_secs_f64(), (cpu() - start_cpu).as_secs_f64());
    let written = (number_of("/proc/self/io", "write_bytes") - written) as f64 / count as f64 / 1024.0;
    println!(
        "{what:<44} {:>9.0}/s {:>9.0}/CPU-s {written:>7.1} KiB written each, RSS {} KiB",
        count as f64 / wall,
        count as f64 / cpu.max(0.001),
        number_of("/proc/self/status", "VmRSS"),
    );
}

async fn writes(store: Arc<dyn Store>, at_once: usize, each: usize, round: usize, create: bool) -> usize {
    let tasks: Vec<_> = (0..at_once)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let value = bytes::Bytes::from(vec![b'x'; VALUE]);
                for turn in 0..each {
                    let key = format!("/registry/pods/namespace-{}/pod-{round}-{task}-{turn}", turn % 20);
                    let write = if create {
                        Write::create(key, value.clone())
                    } else {
                        Write::put(key, value.clone())
                    };
                    store.write(write).await.expect("write");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("task");
    }
    at_once * each
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let path = folder.join(format!("throughput-{}.redb", std::process::id()));
    let config = EmbeddedConfig::new(&path);
    let store = keelson_store::open(StoreConfig::Embedded(config)).await.expect("open");
    println!("{VALUE}-byte values, file {}", path.display());
    let (one, some, many) = (store.clone(), store.clone(), store.clone());
    measure("create, 1 at once", writes(one, 1, 300, 0, true)).await;
    measure("create, 16 at once", writes(some.clone(), 16, 200, 1, true)).await;
    measure("create, 64 at once", writes(many.clone(), 64, 200, 2, true)).await;
    measure("create, 512 at once", writes(many.clone(), 512, 40, 3, true)).await;
    measure("update, 64 at once", writes(many, 64, 200, 2, false)).await;
    measure("range of everything", async {
        store.range("/registry/", RangeOptions::default()).await.expect("range").kvs.len()
    })
    .await;
    let upto = store.revision().await.expect("revision");
    measure("compaction of 12,800 replaced values", async {
        store.compact(upto).await.expect("compact");
        writes(some, 1, 1, 9, true).await;
        12_800
    })
    .await;
    drop(store);
    drop(std::fs::remove_file(path));
}
