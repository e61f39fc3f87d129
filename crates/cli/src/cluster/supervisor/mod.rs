//! Keeps the daemons of one cluster running where no init system does (`ctl cluster supervise`).
//!
//! *Invariant:* the supervisor's own end changes nothing for the daemons; the next one adopts them by their
//! pid files. A component is restarted at once when it ran for a while, and with growing delay when it keeps ending.

mod control;
mod process;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub use control::{Answer, ComponentState, Request, ask};
pub use process::{Process, Spec};

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// A run at least this long counts as sound: the next start is immediate again.
const SOUND_RUN: Duration = Duration::from_secs(10);
/// How long a component may take to end before it is killed.
pub const PATIENCE: Duration = Duration::from_secs(10);

enum Command {
    Stop(oneshot::Sender<()>),
    Restart(oneshot::Sender<()>),
}

struct Handle {
    commands: mpsc::Sender<Command>,
    state: Arc<Mutex<ComponentState>>,
}

/// Runs until it is told to exit. Refuses to start beside another supervisor of the same cluster.
pub async fn run(specs: Vec<Spec>, socket: &Path) -> anyhow::Result<()> {
    if matches!(ask(socket, &Request::Status).await, Ok(Some(_))) {
        anyhow::bail!("a supervisor already listens on {}", socket.display());
    }
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).with_context(|| format!("listen on {}", socket.display()))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("restrict {}", socket.display()))?;

    let handles: Arc<BTreeMap<String, Handle>> = Arc::new(specs.into_iter().map(watch_over).collect());
    let (leave, mut leaving) = mpsc::channel::<()>(1);
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        tokio::select! {
            connection = listener.accept() => {
                let (stream, _) = connection.context("accept a control connection")?;
                let (handles, leave) = (Arc::clone(&handles), leave.clone());
                tokio::spawn(async move {
                    if let Err(error) = serve(stream, &handles, &leave).await {
                        tracing::warn!("control connection: {error:#}");
                    }
                });
            }
            _ = leaving.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    let _ = std::fs::remove_file(socket);
    Ok(())
}

async fn serve(
    stream: UnixStream,
    handles: &BTreeMap<String, Handle>,
    leave: &mpsc::Sender<()>,
) -> anyhow::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        let request: Request = serde_json::from_str(&line).context("read a request")?;
        let exit = matches!(request, Request::Exit);
        let mut answer = serde_json::to_vec(&carry_out(request, handles).await)?;
        answer.push(b'\n');
        write.write_all(&answer).await?;
        if exit {
            let _ = leave.send(()).await;
        }
    }
    Ok(())
}

async fn carry_out(request: Request, handles: &BTreeMap<String, Handle>) -> Answer {
    let (names, command): (_, fn(oneshot::Sender<()>) -> Command) = match request {
        Request::Status => {
            let states = handles.values().map(|h| h.state.lock().expect("no panic holds it").clone());
            return Answer::Components(states.collect());
        }
        Request::Exit => return Answer::Done,
        Request::Stop(names) => (names, Command::Stop),
        Request::Restart(names) => (names, Command::Restart),
    };
    let mut waiting = Vec::new();
    for name in names {
        let Some(handle) = handles.get(&name) else {
            return Answer::Failed(format!("no component {name:?}"));
        };
        let (done, ended) = oneshot::channel();
        let _ = handle.commands.send(command(done)).await;
        waiting.push(ended);
    }
    for ended in waiting {
        let _ = ended.await;
    }
    Answer::Done
}

fn watch_over(spec: Spec) -> (String, Handle) {
    let (commands, inbox) = mpsc::channel(4);
    let state = ComponentState { name: spec.name.clone(), pid: None, restarts: 0, last_exit: None };
    let state = Arc::new(Mutex::new(state));
    let name = spec.name.clone();
    tokio::spawn(keep_running(spec, inbox, Arc::clone(&state)));
    (name, Handle { commands, state })
}

/// The life of one component: run it, wait for its end or a command, start it again.
async fn keep_running(spec: Spec, mut inbox: mpsc::Receiver<Command>, state: Arc<Mutex<ComponentState>>) {
    let note = |change: &dyn Fn(&mut ComponentState)| change(&mut state.lock().expect("no panic holds it"));
    let mut delay = Duration::ZERO;
    loop {
        let began = Instant::now();
        let command = match Process::adopt(&spec.pid_file).map_or_else(|| Process::start(&spec), Ok) {
            Ok(mut process) => {
                let pid = process.pid();
                tracing::info!(component = spec.name, pid, "runs");
                note(&|s| s.pid = Some(pid));
                let command = tokio::select! {
                    how = process.ended() => { note(&|s| s.last_exit = Some(how.clone())); None }
                    command = inbox.recv() => {
                        // The supervisor itself ends: the component runs on.
                        let Some(command) = command else { return };
                        let how = process.stop(PATIENCE).await;
                        note(&|s| s.last_exit = Some(how.clone()));
                        Some(command)
                    }
                };
                let _ = std::fs::remove_file(&spec.pid_file);
                command
            }
            Err(error) => {
                tracing::error!(component = spec.name, "{error:#}");
                note(&|s| s.last_exit = Some(format!("{error:#}")));
                None
            }
        };
        note(&|s| s.pid = None);
        let command = match command {
            Some(command) => Some(command),
            None => {
                delay = next_delay(delay, began.elapsed());
                tracing::warn!(component = spec.name, "ended; starts again in {delay:?}");
                tokio::time::timeout(delay, inbox.recv()).await.ok().flatten()
            }
        };
        match command {
            Some(Command::Stop(done)) => {
                let _ = done.send(());
                match stopped(&mut inbox).await {
                    Some(done) => drop(done.send(())),
                    None => return,
                }
                delay = Duration::ZERO;
            }
            Some(Command::Restart(done)) => {
                let _ = done.send(());
                delay = Duration::ZERO;
            }
            None if inbox.is_closed() => return,
            None => note(&|s| s.restarts += 1),
        }
    }
}

/// Waits, stopped, for the command to start again; None when the supervisor ends.
async fn stopped(inbox: &mut mpsc::Receiver<Command>) -> Option<oneshot::Sender<()>> {
    loop {
        match inbox.recv().await? {
            Command::Stop(done) => drop(done.send(())),
            Command::Restart(done) => return Some(done),
        }
    }
}

fn next_delay(last: Duration, ran: Duration) -> Duration {
    if ran >= SOUND_RUN {
        Duration::ZERO
    } else if last.is_zero() {
        FIRST_DELAY
    } else {
        (last * 2).min(LONGEST_DELAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_that_keeps_ending_waits_ever_longer() {
        let quick = Duration::from_millis(5);
        let mut delay = Duration::ZERO;
        let delays: Vec<_> = std::iter::repeat_with(|| {
            delay = next_delay(delay, quick);
            delay.as_millis()
        })
        .take(8)
        .collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(next_delay(LONGEST_DELAY, SOUND_RUN), Duration::ZERO);
    }

    async fn pid(socket: &Path, previous: Option<i32>) -> i32 {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let answer = ask(socket, &Request::Status).await;
            if let Ok(Some(Answer::Components(states))) = &answer
                && let Some(pid) = states[0].pid.filter(|pid| Some(*pid) != previous)
            {
                return pid;
            }
            assert!(Instant::now() < deadline, "last answer: {answer:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_killed_component_comes_back_and_outlives_its_supervisor() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s.sock");
        let spec = Spec {
            name: "sleeper".into(),
            program: "/bin/sleep".into(),
            args: vec!["600".into()],
            log: dir.path().join("sleeper.log"),
            pid_file: dir.path().join("sleeper.pid"),
        };
        let (specs, path) = (vec![spec.clone()], socket.clone());
        let first = tokio::spawn(async move { run(specs, &path).await });
        let before = pid(&socket, None).await;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(before), nix::sys::signal::Signal::SIGKILL)
            .unwrap();
        let after = pid(&socket, Some(before)).await;
        ask(&socket, &Request::Exit).await.unwrap();
        first.await.unwrap().unwrap();

        let (specs, path) = (vec![spec], socket.clone());
        let second = tokio::spawn(async move { run(specs, &path).await });
        assert_eq!(pid(&socket, None).await, after, "the second supervisor adopts what the first one left");
        ask(&socket, &Request::Stop(vec!["sleeper".into()])).await.unwrap();
        let Ok(Some(Answer::Components(states))) = ask(&socket, &Request::Status).await else {
            panic!("no status")
        };
        assert_eq!(states[0].pid, None);
        ask(&socket, &Request::Exit).await.unwrap();
        second.await.unwrap().unwrap();
    }
}
