//! The command line as a whole.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::cluster::{self, ClusterCommand};
use crate::image::{self, ImageCommand};

/// Talks to a Kubernetes cluster, and raises one
#[derive(Debug, Parser)]
#[command(name = "ctl", version, propagate_version = false, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Raise, show and remove a cluster on this machine
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Build and import container images
    #[command(subcommand)]
    Image(ImageCommand),
}

/// Runs one command; the exit code is 0, 1 for a failure, 2 for a command line that is not understood.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Cluster(command) => cluster::run(command).await,
        Command::Image(command) => image::run(command).await,
    }
}
