use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use keelson_bench::load::{Load, Measured, percentile};
use keelson_bench::scale;
use keelson_bench::servers::Servers;

/// Measures a cluster: what each kind of request costs the server, and what it holds at rest
#[derive(Debug, Parser)]
#[command(name = "keelson-bench", version)]
struct Cli {
    #[arg(long, env = "KUBECONFIG", default_value = "/etc/keelson/admin.kubeconfig", global = true)]
    kubeconfig: PathBuf,
    /// Name or id of a server process whose CPU time counts; repeat it for several
    #[arg(long, default_value = "keelson-api-server", global = true)]
    server: Vec<String>,
    /// Requests under way at once
    #[arg(long, default_value_t = 32, global = true)]
    clients: usize,
    /// Pods in the lists
    #[arg(long, default_value_t = 10_000, global = true)]
    pods: usize,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Memory, CPU and writes of all daemons at rest
    Idle {
        /// Seconds to look
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// Create, get, patch, list, watch and delete pods
    Objects,
    /// Idle watchers, a greedy user, and a restart with many objects (the servers get a SIGKILL)
    Scale {
        /// Watches on which nothing happens
        #[arg(long, default_value_t = 10_000)]
        watchers: usize,
        /// Pods that the server holds when it is started again
        #[arg(long, default_value_t = 100_000)]
        objects: usize,
    },
    /// What `idle` and `objects` show
    All,
}

const DAEMONS: [&str; 6] = [
    "keelson-api-server",
    "keelson-scheduler",
    "keelson-controller-manager",
    "keelson-node-agent",
    "keelson-net-proxy",
    "keelson-dns",
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match &cli.command {
        Command::Idle { seconds } => idle(*seconds).await,
        Command::Objects => objects(&cli).await,
        Command::Scale { watchers, objects } => scale(&cli, *watchers, *objects).await,
        Command::All => {
            idle(10).await?;
            objects(&cli).await
        }
    }
}

async fn idle(seconds: u64) -> anyhow::Result<()> {
    let servers = Servers::named(&DAEMONS.map(str::to_owned))?;
    let (cpu, written) = (servers.cpu_seconds(), servers.written_bytes());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let per_second = |amount: f64| amount / seconds as f64;
    println!("{:<34} {:>10.1} MB in {} processes", "idle, resident", servers.resident_mb(), servers.count());
    println!("{:<34} {:>10.2} % of a core", "idle, CPU", per_second(servers.cpu_seconds() - cpu) * 100.0);
    let kilobytes = (servers.written_bytes() - written) as f64 / 1000.0;
    println!("{:<34} {:>10.1} KB/s", "idle, written", per_second(kilobytes));
    Ok(())
}

async fn objects(cli: &Cli) -> anyhow::Result<()> {
    let servers = Servers::named(&cli.server)?;
    let load = Load::connect(&cli.kubeconfig, cli.clients).await?;
    let result = measure(cli, &servers, &load).await;
    load.clean_up().await;
    result
}

async fn scale(cli: &Cli, watchers: usize, objects: usize) -> anyhow::Result<()> {
    let servers = Servers::named(&cli.server)?;
    let load = Load::connect(&cli.kubeconfig, cli.clients).await?;
    let each = scale::idle_watchers(&cli.kubeconfig, &load, watchers, &servers).await?;
    println!("{:<34} {:>10.1} KB each", format!("{watchers} idle watchers"), each / 1000.0);
    load.create(objects, &servers).await.context("create")?;
    println!("{:<34} {:>10.1} MB", format!("resident, {objects} pods written"), servers.resident_mb());
    let (latencies, lists) = scale::flood(&cli.kubeconfig, &load, 400, 10).await?;
    let p99 = percentile(&latencies, 99);
    let what = format!("get beside {lists} lists of another, p99");
    println!("{what:<34} {:>10.1} ms", p99.as_secs_f64() * 1000.0);
    let (time, servers) = scale::restart(&cli.kubeconfig, &servers).await?;
    println!("{:<34} {:>10.2} s", format!("start with {objects} pods"), time.as_secs_f64());
    println!("{:<34} {:>10.1} MB", "resident after the start", servers.resident_mb());
    load.clean_up().await;
    Ok(())
}

async fn measure(cli: &Cli, servers: &Servers, load: &Load) -> anyhow::Result<()> {
    println!(
        "{:<34} {:>10} {:>12} {:>10} {:>10}",
        "operation", "per second", "per CPU-s", "p50 ms", "p99 ms"
    );
    print("create pods", &load.create(cli.pods, servers).await.context("create")?);
    print("get", &load.get(cli.pods, cli.pods, servers).await.context("get")?);
    print("merge patch", &load.merge_patch(cli.pods.min(5000), cli.pods, servers).await.context("patch")?);
    let before = servers.resident_mb();
    print(
        &format!("list {} pods, one at a time", cli.pods),
        &load.list(10, 1, servers).await.context("list")?,
    );
    print(&format!("list {} pods, 16 at once", cli.pods), &load.list(48, 16, servers).await.context("list")?);
    println!("{:<34} {:>10.1} MB", "resident, growth by the lists", servers.resident_mb() - before);
    print("watch events, 200 × 500", &load.watch(200, 500, cli.clients, servers).await.context("watch")?);
    print("the same, one patch at a time", &load.watch(200, 500, 1, servers).await.context("watch")?);
    print("delete", &load.delete(cli.pods, servers).await.context("delete")?);
    println!("{:<34} {:>10.1} MB", "resident at the end", servers.resident_mb());
    Ok(())
}

/// Whole, where that is exact enough.
fn figure(number: f64) -> String {
    let decimals = usize::from(number < 100.0);
    format!("{number:.decimals$}")
}

fn print(what: &str, measured: &Measured) {
    let ms = |percent| measured.percentile(percent).as_secs_f64() * 1000.0;
    println!(
        "{what:<34} {:>10} {:>12} {:>10.2} {:>10.2}",
        figure(measured.per_second()),
        figure(measured.per_cpu_second()),
        ms(50),
        ms(99)
    );
}
