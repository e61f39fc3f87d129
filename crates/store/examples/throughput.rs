//! What a write costs the embedded store in wall time, CPU, bytes and syncs: through the write-ahead log, and with a
//! durable commit of redb for each batch instead; then how the two relate.
//!
//! `cargo run --release -p keelson-store --example throughput -- [FOLDER]`

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keelson_store::embedded::fault::Faults;
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

/// What one operation cost.
struct Cost {
    rate: f64,
    cpu_rate: f64,
    kib: f64,
    syncs: f64,
}

async fn measure<F: Future<Output = usize>>(what: &str, disk: &Faults, work: F) -> Cost {
    let (start, start_cpu) = (Instant::now(), cpu());
    let (written, syncs) = (number_of("/proc/self/io", "write_bytes"), disk.syncs());
    let count = work.await as f64;
    let (wall, cpu) = (start.elapsed().as_secs_f64(), (cpu() - start_cpu).as_secs_f64());
    let cost = Cost {
        rate: count / wall,
        cpu_rate: count / cpu.max(0.001),
        kib: (number_of("/proc/self/io", "write_bytes") - written) as f64 / count / 1024.0,
        syncs: (disk.syncs() - syncs) as f64 / count,
    };
    println!(
        "{what:<38} {:>9.0}/s {:>9.0}/CPU-s {:>7.1} KiB {:>6.3} syncs each, RSS {} KiB",
        cost.rate,
        cost.cpu_rate,
        cost.kib,
        cost.syncs,
        number_of("/proc/self/status", "VmRSS"),
    );
    cost
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

async fn run(folder: &Path, without_log: bool) -> Vec<(&'static str, Cost)> {
    let path = folder.join(format!("throughput-{}.redb", std::process::id()));
    let mut config = EmbeddedConfig::new(&path);
    let disk = Arc::new(Faults::default());
    disk.set_without_log(without_log);
    config.faults = Some(disk.clone());
    let store = keelson_store::open(StoreConfig::Embedded(config)).await.expect("open");
    println!(
        "{VALUE}-byte values, {} log, file {}",
        if without_log { "without" } else { "with" },
        path.display()
    );
    let mut costs = Vec::new();
    for (round, (what, at_once, each)) in [
        ("create, 1 at once", 1, 300),
        ("create, 16 at once", 16, 200),
        ("create, 64 at once", 64, 200),
        ("create, 512 at once", 512, 40),
    ]
    .into_iter()
    .enumerate()
    {
        costs.push((what, measure(what, &disk, writes(store.clone(), at_once, each, round, true)).await));
    }
    let update = "update, 64 at once";
    costs.push((update, measure(update, &disk, writes(store.clone(), 64, 200, 2, false)).await));
    let everything =
        async { store.range("/registry/", RangeOptions::default()).await.expect("range").kvs.len() };
    measure("range of everything", &disk, everything).await;
    let compaction = async {
        store.compact(store.revision().await.expect("revision")).await.expect("compact");
        writes(store.clone(), 1, 1, 9, true).await;
        12_800
    };
    measure("compaction of 12,800 replaced values", &disk, compaction).await;
    drop(store);
    for end in ["", ".wal"] {
        drop(std::fs::remove_file(format!("{}{end}", path.display())));
    }
    costs
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let (before, after) = (run(&folder, true).await, run(&folder, false).await);
    println!("with the log, as a multiple of without");
    for ((what, without), (_, with)) in before.into_iter().zip(after) {
        println!(
            "{what:<38} {:>8.2} writes/s {:>8.2} writes/CPU-s {:>8.3} bytes {:>8.3} syncs",
            with.rate / without.rate,
            with.cpu_rate / without.cpu_rate,
            with.kib / without.kib,
            with.syncs / without.syncs,
        );
    }
}
