//! `ctl exec` and `ctl attach`: a process in a container, with this terminal as its own where wanted.

use std::io::IsTerminal;

use anyhow::{Context as _, bail};
use clap::Args;
use futures::SinkExt;
use k8s_openapi::api::core::v1::Pod;
use keelson_client::kube::Api;
use keelson_client::kube::api::{AttachParams, AttachedProcess, TerminalSize};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::pods;
use crate::context::Context;
use crate::failure::Failure;
use crate::resources::Found;

#[derive(Debug, Args)]
pub struct ExecArgs {
    /// POD or TYPE/NAME
    target: String,
    /// Command and arguments after --
    #[arg(last = true, required = true)]
    command: Vec<String>,
    #[command(flatten)]
    streams: StreamArgs,
}

#[derive(Debug, Args)]
pub struct AttachArgs {
    /// POD or TYPE/NAME
    target: String,
    #[command(flatten)]
    streams: StreamArgs,
}

#[derive(Debug, Default, Args)]
pub struct StreamArgs {
    /// The container
    #[arg(short = 'c', long)]
    pub container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Give the process a terminal
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Say nothing beside the output
    #[arg(short = 'q', long)]
    pub quiet: bool,
}

pub async fn exec(context: &Context, args: ExecArgs) -> anyhow::Result<()> {
    let pod = pods::one(context, &args.target).await?;
    pods::refuse_ended(&pod.object, "exec into")?;
    let container = pods::container(&pod.object, args.streams.container.as_deref(), args.streams.quiet)?;
    let (api, params) = prepare(context, &pod, container, &args.streams)?;
    let process = api.exec(&pod.name, args.command, &params).await.map_err(|e| refused(context, e))?;
    drive(process, &params).await
}

pub async fn attach(context: &Context, args: AttachArgs) -> anyhow::Result<()> {
    let pod = pods::one(context, &args.target).await?;
    attach_to(context, &pod, &args.streams).await
}

pub async fn attach_to(context: &Context, pod: &Found, streams: &StreamArgs) -> anyhow::Result<()> {
    pods::refuse_ended(&pod.object, "attach to")?;
    let container = pods::container(&pod.object, streams.container.as_deref(), streams.quiet)?;
    let (api, params) = prepare(context, pod, container, streams)?;
    if params.tty && params.stdin && !streams.quiet {
        eprintln!("If you don't see a command prompt, try pressing enter.");
    }
    let process = api.attach(&pod.name, &params).await.map_err(|e| refused(context, e))?;
    drive(process, &params).await
}

fn prepare(
    context: &Context,
    pod: &Found,
    container: String,
    streams: &StreamArgs,
) -> anyhow::Result<(Api<Pod>, AttachParams)> {
    let mut tty = streams.tty;
    if tty && streams.stdin && !std::io::stdin().is_terminal() {
        eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
        tty = false;
    }
    let mut params = AttachParams::default().container(container).stdin(streams.stdin).stdout(true);
    // A terminal has one output.
    params = params.stderr(!tty).tty(tty).max_stdin_buf_size(64 << 10).max_stdout_buf_size(64 << 10);
    let namespace = pod.namespace.as_deref().unwrap_or("default");
    Ok((Api::namespaced(context.websockets()?, namespace), params))
}

/// The server's refusal in its own words.
pub fn refused(context: &Context, error: keelson_client::kube::Error) -> anyhow::Error {
    match error {
        keelson_client::kube::Error::Api(status) => {
            let status = serde_json::to_value(&status).unwrap_or_default();
            Failure::Status(Box::new(status)).into()
        }
        keelson_client::kube::Error::UpgradeConnection(error) => {
            anyhow::anyhow!("unable to upgrade connection: {error}")
        }
        other => context.rest.unreachable(&other),
    }
}

async fn drive(mut process: AttachedProcess, params: &AttachParams) -> anyhow::Result<()> {
    let raw = (params.tty && params.stdin).then(RawTerminal::enter).transpose()?;
    let status = process.take_status();
    let output = process.stdout().map(|from| tokio::spawn(copy_out(from, std::io::stdout())));
    let errors = process.stderr().map(|from| tokio::spawn(copy_out(from, std::io::stderr())));
    if let Some(to) = process.stdin() {
        pump_stdin(to);
    }
    if let Some(sizes) = process.terminal_size() {
        tokio::spawn(follow_size(sizes));
    }
    for copy in [output, errors].into_iter().flatten() {
        let _ = copy.await;
    }
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    drop(raw);
    ended(status)
}

/// Standard input blocks its thread, so it is read on one that nobody waits for.
fn pump_stdin(mut to: impl tokio::io::AsyncWrite + Unpin + Send + 'static) {
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Vec<u8>>(16);
    std::thread::spawn(move || {
        use std::io::Read;
        let mut buffer = vec![0; 32 << 10];
        while let Ok(read) = std::io::stdin().lock().read(&mut buffer) {
            if read == 0 || sender.blocking_send(buffer[..read].to_vec()).is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some(bytes) = receiver.recv().await {
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    });
}

/// The last reader of these bytes is this process, so a blocking write holds up nobody else.
async fn copy_out(mut from: impl AsyncRead + Unpin, mut to: impl std::io::Write) {
    let mut buffer = vec![0; 32 << 10];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 || to.write_all(&buffer[..read]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

async fn follow_size(mut sizes: futures::channel::mpsc::Sender<TerminalSize>) {
    let Ok(mut changes) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change())
    else {
        return;
    };
    loop {
        if let Some((width, height)) = terminal_size()
            && sizes.send(TerminalSize { width, height }).await.is_err()
        {
            return;
        }
        if changes.recv().await.is_none() {
            return;
        }
    }
}

/// Columns and rows of this terminal.
fn terminal_size() -> Option<(u16, u16)> {
    let (width, height) = terminal_size::terminal_size()?;
    Some((width.0, height.0))
}

fn ended(status: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Status>) -> anyhow::Result<()> {
    let Some(status) = status else { bail!("the connection ended before the command did") };
    if status.status.as_deref() == Some("Success") {
        return Ok(());
    }
    let causes = status.details.and_then(|d| d.causes).unwrap_or_default();
    let code = causes.iter().find(|c| c.reason.as_deref() == Some("ExitCode"));
    match code.and_then(|c| c.message.as_deref()).and_then(|m| m.parse::<i64>().ok()) {
        Some(code) => Err(Failure::Command((code & 0xff) as u8).into()),
        None => bail!("{}", status.message.unwrap_or_else(|| "the command failed".to_owned())),
    }
}

/// A terminal that passes every key on; restored when dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> anyhow::Result<RawTerminal> {
        let before = tcgetattr(std::io::stdin()).context("read the terminal's settings")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw).context("set the terminal to raw")?;
        Ok(RawTerminal(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0);
    }
}
