//! The command line as a whole.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::cluster::{self, ClusterCommand};
use crate::commands::*;
use crate::context::Context;
use crate::failure;
use crate::image::{self, ImageCommand};
use crate::kubeconfig::Global;

/// Talks to a Kubernetes cluster, and raises one
#[derive(Debug, Parser)]
#[command(name = "ctl", version, propagate_version = false, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Raise, show and remove a cluster on this machine
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Build and import container images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Show objects
    Get(get::GetArgs),
    /// Tell all about objects
    Describe(describe::DescribeArgs),
    /// Create objects from files or from a few words
    Create(create::CreateArgs),
    /// Bring objects to what files say
    Apply(apply::ApplyArgs),
    /// Show what apply would change
    Diff(apply::DiffArgs),
    /// Delete objects
    Delete(delete::DeleteArgs),
    /// Wait until objects are as wanted
    Wait(wait::WaitArgs),
    /// Follow and steer rollouts
    #[command(subcommand)]
    Rollout(rollout::RolloutCommand),
    /// Set how many replicas there are
    Scale(scale::ScaleArgs),
    /// Make a Service for pods
    Expose(expose::ExposeArgs),
    /// Show what containers write
    #[command(visible_alias = "log")]
    Logs(logs::LogsArgs),
    /// Run a command in a container
    Exec(exec::ExecArgs),
    /// Attach to a container's process
    Attach(exec::AttachArgs),
    /// Replace objects by what files say
    Replace(patch::ReplaceArgs),
    /// Change fields of objects
    Patch(patch::PatchArgs),
    /// Change objects in an editor
    Edit(edit::EditArgs),
    /// Change the fields of workloads that change most often
    #[command(subcommand)]
    Set(set::SetCommand),
    /// Change labels
    Label(label::LabelArgs),
    /// Change annotations
    Annotate(label::LabelArgs),
    /// Run an image in a pod
    Run(run::RunArgs),
    /// Forward local ports to a pod
    PortForward(portforward::PortForwardArgs),
    /// Show what happened
    #[command(visible_alias = "event")]
    Events(events::EventsArgs),
    /// Tell what fields a type has
    Explain(explain::ExplainArgs),
    /// Keep new pods from a node
    Cordon(drain::CordonArgs),
    /// Let a node take pods again
    Uncordon(drain::CordonArgs),
    /// Move a node's pods away
    Drain(drain::DrainArgs),
    /// Change taints of nodes
    Taint(taint::TaintArgs),
    /// Who one is and what one may do
    #[command(subcommand)]
    Auth(auth::AuthCommand),
    /// Read and change kubeconfig files
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// List the resource types that the server has
    ApiResources(info::ApiResourcesArgs),
    /// List the API versions that the server has
    ApiVersions,
    /// Show this program's and the server's versions
    Version(info::VersionArgs),
    /// Show where the control plane is
    ClusterInfo,
    /// Print a script that completes command lines in a shell
    Completion {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
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
    let result = runtime.block_on(run(cli));
    // A thread may still wait for standard input.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = failure::explain(&error);
            if !text.is_empty() {
                eprintln!("{text}");
            }
            ExitCode::from(failure::exit_code(&error))
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let command = match cli.command {
        Command::Cluster(command) => return cluster::run(command).await,
        Command::Image(command) => return image::run(command).await,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "ctl", &mut script);
            crate::io::print(&String::from_utf8_lossy(&script));
            return Ok(());
        }
        Command::Config(command) => return config::run(&cli.global, command),
        Command::Version(args) if args.client => return info::version(None, &args).await,
        command => command,
    };
    let context = Context::connect(&cli.global).await?;
    connected(&context, command).await
}

/// The commands that need a server. Boxed, since one future as large as the largest command would be moved around.
async fn connected(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        // Done before there was a connection.
        Command::Cluster(_) | Command::Image(_) | Command::Completion { .. } | Command::Config(_) => Ok(()),
        Command::Get(args) => Box::pin(get::run(context, args)).await,
        Command::Describe(args) => Box::pin(describe::run(context, args)).await,
        Command::Create(args) => Box::pin(create::run(context, args)).await,
        Command::Apply(args) => Box::pin(apply::run(context, args)).await,
        Command::Diff(args) => Box::pin(apply::diff(context, args)).await,
        Command::Delete(args) => Box::pin(delete::run(context, args)).await,
        Command::Wait(args) => Box::pin(wait::run(context, args)).await,
        Command::Rollout(command) => Box::pin(rollout::run(context, command)).await,
        Command::Scale(args) => Box::pin(scale::run(context, args)).await,
        Command::Expose(args) => Box::pin(expose::run(context, args)).await,
        Command::Logs(args) => Box::pin(logs::run(context, args)).await,
        Command::Exec(args) => Box::pin(exec::exec(context, args)).await,
        Command::Attach(args) => Box::pin(exec::attach(context, args)).await,
        Command::Replace(args) => Box::pin(patch::replace(context, args)).await,
        Command::Patch(args) => Box::pin(patch::run(context, args)).await,
        Command::Edit(args) => Box::pin(edit::run(context, args)).await,
        Command::Set(command) => Box::pin(set::run(context, command)).await,
        Command::Label(args) => Box::pin(label::run(context, args, label::LABELS)).await,
        Command::Annotate(args) => Box::pin(label::run(context, args, label::ANNOTATIONS)).await,
        Command::Run(args) => Box::pin(run::run(context, args)).await,
        Command::PortForward(args) => Box::pin(portforward::run(context, args)).await,
        Command::Events(args) => Box::pin(events::run(context, args)).await,
        Command::Explain(args) => Box::pin(explain::run(context, args)).await,
        Command::Cordon(args) => Box::pin(drain::cordon(context, args, true)).await,
        Command::Uncordon(args) => Box::pin(drain::cordon(context, args, false)).await,
        Command::Drain(args) => Box::pin(drain::drain(context, args)).await,
        Command::Taint(args) => Box::pin(taint::run(context, args)).await,
        Command::Auth(command) => Box::pin(auth::run(context, command)).await,
        Command::ApiResources(args) => Box::pin(info::api_resources(context, args)).await,
        Command::ApiVersions => Box::pin(info::api_versions(context)).await,
        Command::Version(args) => Box::pin(info::version(Some(context), &args)).await,
        Command::ClusterInfo => Box::pin(info::cluster_info(context)).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
