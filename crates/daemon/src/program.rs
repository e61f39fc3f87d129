//! From the command line to the exit code.

use crate::config::{self, Validate};
use crate::{Health, Metrics, logging};
use clap::{Arg, ArgAction, Command};
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Cancelled when the process has to end; children of it can be cancelled alone.
pub type Shutdown = tokio_util::sync::CancellationToken;

/// Exit codes of all daemons.
pub mod exit {
    /// It ended because something failed while it ran.
    pub const FAILURE: u8 = 1;
    /// The command line was not understood.
    pub const USAGE: u8 = 2;
    /// The configuration is unreadable or invalid (`EX_CONFIG` of sysexits.h): a restart will not help.
    pub const CONFIG: u8 = 78;
}

/// Which tokio runtime a daemon gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// One thread runs everything: the least memory, and enough for all but the API server.
    Single,
    /// This many worker threads; 0 means one per CPU.
    Multi(usize),
}

/// What a daemon is: its name and what else `main.rs` decides.
#[derive(Clone, Debug)]
pub struct Program {
    name: &'static str,
    about: &'static str,
    version: &'static str,
    runtime: Runtime,
    drain: Duration,
}

impl Program {
    /// `name` is the binary's name, `keelson-SHORT`; the default configuration is
    /// `/etc/keelson/SHORT.yaml`.
    pub const fn new(name: &'static str) -> Program {
        Program {
            name,
            about: "",
            version: env!("CARGO_PKG_VERSION"),
            runtime: Runtime::Single,
            drain: Duration::from_secs(30),
        }
    }

    /// What `--help` says first.
    pub const fn about(mut self, about: &'static str) -> Program {
        self.about = about;
        self
    }

    pub const fn runtime(mut self, runtime: Runtime) -> Program {
        self.runtime = runtime;
        self
    }

    /// How long the daemon may take to end after a signal (30 s unless said).
    pub const fn drain(mut self, drain: Duration) -> Program {
        self.drain = drain;
        self
    }

    /// The name without `keelson-`.
    pub fn short(&self) -> &'static str {
        self.name.strip_prefix("keelson-").unwrap_or(self.name)
    }

    fn default_config(&self) -> PathBuf {
        PathBuf::from(format!("/etc/keelson/{}.yaml", self.short()))
    }

    fn command(&self) -> Command {
        Command::new(self.name)
            .about(self.about)
            .version(self.version)
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_name("FILE")
                    .value_parser(clap::value_parser!(PathBuf))
                    .help(format!("Configuration, as YAML [default: {}]", self.default_config().display())),
            )
            .arg(
                Arg::new("check-config")
                    .long("check-config")
                    .action(ArgAction::SetTrue)
                    .help("Check the configuration and exit"),
            )
    }
}

impl From<&'static str> for Program {
    fn from(name: &'static str) -> Program {
        Program::new(name)
    }
}

/// What a running daemon shares with its parts. Cheap to clone.
#[derive(Clone)]
pub struct Daemon {
    pub name: &'static str,
    /// Cancelled by SIGTERM and SIGINT.
    pub shutdown: Shutdown,
    pub health: Health,
    pub metrics: Metrics,
}

impl Daemon {
    /// A daemon outside of [`run`], for tests and for what embeds one.
    pub fn new(name: &'static str) -> Daemon {
        Daemon { name, shutdown: Shutdown::new(), health: Health::default(), metrics: Metrics::new(name) }
    }

    /// Tells systemd, or whatever else set `NOTIFY_SOCKET`, that the daemon serves (sd_notify(3)).
    pub fn notify_ready(&self) {
        notify("READY=1".to_owned());
    }

    /// As [`Daemon::notify_ready`], with the address, for who asked for port 0.
    pub fn notify_serving(&self, address: SocketAddr) {
        notify(format!("READY=1\nX_KEELSON_ADDRESS={address}"));
    }
}

fn notify(state: String) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let sent = std::os::unix::net::UnixDatagram::unbound().and_then(|s| s.send_to(state.as_bytes(), path));
    if let Err(error) = sent {
        tracing::warn!(error = &error as &dyn std::error::Error, "could not notify the service manager");
    }
}

/// Runs a daemon: reads and checks its configuration, sets up logging, the runtime and signals, and
/// turns what `main` returns into an exit code. Call it once, as all that `main` does.
pub fn run<C, F>(program: impl Into<Program>, main: F) -> ExitCode
where
    C: DeserializeOwned + Validate,
    F: AsyncFnOnce(C, Daemon) -> anyhow::Result<()>,
{
    run_from(program, std::env::args_os(), main)
}

/// As [`run`], with a command line whose first word is the program's name.
pub fn run_from<C, F>(
    program: impl Into<Program>,
    args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    main: F,
) -> ExitCode
where
    C: DeserializeOwned + Validate,
    F: AsyncFnOnce(C, Daemon) -> anyhow::Result<()>,
{
    let program = program.into();
    let args = match program.command().try_get_matches_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Clap sends help and version to stdout, and counts them as success.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let path = args.get_one("config").cloned().unwrap_or_else(|| program.default_config());
    let config: C = match config::load(&path) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{}: {:#}", program.name, anyhow::Error::new(error));
            return ExitCode::from(exit::CONFIG);
        }
    };
    if args.get_flag("check-config") {
        println!("{} is valid", path.display());
        return ExitCode::SUCCESS;
    }
    if let Err(error) = logging::init(&config.logging()) {
        eprintln!("{}: {}: {:#}", program.name, path.display(), anyhow::Error::new(error));
        return ExitCode::from(exit::CONFIG);
    }
    keelson_tls::provider();
    start(&program, config, main)
}

fn start<C, F>(program: &Program, config: C, main: F) -> ExitCode
where
    F: AsyncFnOnce(C, Daemon) -> anyhow::Result<()>,
{
    let runtime = match build_runtime(program.runtime) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "could not start the runtime");
            return ExitCode::from(exit::FAILURE);
        }
    };
    let daemon = Daemon::new(program.name);
    let result = runtime.block_on(async {
        watch_signals(&daemon.shutdown)?;
        tracing::info!(version = program.version, pid = std::process::id(), "{} starts", program.name);
        let deadline = async {
            daemon.shutdown.cancelled().await;
            tokio::time::sleep(program.drain).await;
        };
        tokio::select! {
            result = main(config, daemon.clone()) => result,
            () = deadline => Err(anyhow::anyhow!("did not end within {:?} of being told to", program.drain)),
        }
    });
    // Blocking threads that hang must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match result {
        Ok(()) => {
            tracing::info!("{} ends", program.name);
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!("{} failed: {error:#}", program.name);
            ExitCode::from(exit::FAILURE)
        }
    }
}

fn build_runtime(kind: Runtime) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = match kind {
        Runtime::Single => tokio::runtime::Builder::new_current_thread(),
        Runtime::Multi(threads) => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            if threads > 0 {
                builder.worker_threads(threads);
            }
            builder
        }
    };
    // Idle blocking threads give their stacks back soon.
    builder.enable_all().thread_keep_alive(Duration::from_secs(2)).build()
}

/// The first SIGTERM or SIGINT asks the daemon to end, the second ends the process.
fn watch_signals(shutdown: &Shutdown) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = int.recv() => "SIGINT",
            };
            if shutdown.is_cancelled() {
                tracing::warn!("{name} again: ends at once");
                std::process::exit(exit::FAILURE.into());
            }
            tracing::info!("{name}: shutting down");
            shutdown.cancel();
        }
    });
    Ok(())
}
