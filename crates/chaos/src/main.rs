use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use keelson_chaos::cluster::Backend;
use keelson_chaos::run::{Round, round};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Random faults against real API servers, and a check of what clients saw meanwhile
///
/// The API server is `keelson-api-server` beside this program, or $KEELSON_API_SERVER.
#[derive(Debug, Parser)]
#[command(name = "keelson-chaos", version)]
struct Cli {
    /// The first round's; the next ones count on
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// In all, starting and checking included
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
    /// Of faults in one round
    #[arg(long, default_value_t = 45)]
    round: u64,
    /// Both in turn unless named
    #[arg(long)]
    backend: Option<Backend>,
}

#[derive(Default)]
struct Totals {
    rounds: usize,
    operations: usize,
    sessions: usize,
    events: usize,
    faults: usize,
    unproven: usize,
    violations: usize,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let begin = Instant::now();
    let mut ended = Ended::listen()?;
    let mut totals = Totals::default();
    let backends = cli.backend.map_or(vec![Backend::Embedded, Backend::Etcd], |one| vec![one]);
    for (seed, backend) in (cli.seed..).zip(backends.into_iter().cycle()) {
        let left = Duration::from_secs(cli.seconds).saturating_sub(begin.elapsed());
        if left.is_zero() {
            break;
        }
        let faults = left.min(Duration::from_secs(cli.round));
        // A round that is dropped ends its processes and unmounts its disk.
        let round = tokio::select! {
            round = round(seed, backend, faults) => round?,
            () = ended.recv() => return Ok(ExitCode::FAILURE),
        };
        totals.add(&round);
        tell(seed, backend, &round);
    }
    println!(
        "{} s, {} rounds, {} faults, {} operations, {} watches, {} events, {} looks unproven, {} violations",
        begin.elapsed().as_secs(),
        totals.rounds,
        totals.faults,
        totals.operations,
        totals.sessions,
        totals.events,
        totals.unproven,
        totals.violations
    );
    Ok(if totals.violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The signals that end this program.
struct Ended {
    interrupt: Signal,
    terminate: Signal,
}

impl Ended {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

impl Totals {
    fn add(&mut self, round: &Round) {
        self.rounds += 1;
        self.operations += round.operations;
        self.sessions += round.sessions;
        self.events += round.report.events;
        self.faults += round.steps.len();
        self.unproven += round.report.unproven;
        self.violations += round.report.violations.len();
    }
}

fn tell(seed: u64, backend: Backend, round: &Round) {
    let (Round { operations, sessions, report, .. }, faults) = (round, round.steps.len());
    println!(
        "seed {seed}, {backend:?}: {faults} faults, {operations} operations, {sessions} watches, {} events, {} unproven, {} \
         violations",
        report.events,
        report.unproven,
        report.violations.len()
    );
    // One of each rule says most; the first is the nearest to the cause.
    let mut told = std::collections::BTreeSet::new();
    for violation in report.violations.iter().filter(|violation| told.insert(violation.rule)) {
        println!("{violation}");
    }
    for log in &round.logs {
        println!("--- end of a server's log\n{log}");
    }
}
