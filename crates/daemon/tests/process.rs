//! A daemon as a process: what it prints, how it ends. The test program runs itself as the daemon.

use keelson_daemon::{Daemon, Program, Validate, run_from};
use serde::Deserialize;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::Duration;

const ARGS: &str = "KEELSON_TEST_DAEMON_ARGS";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Config {
    behaviour: String,
}

impl Validate for Config {
    fn validate(&self) -> Vec<String> {
        vec![]
    }
}

/// Not a test of its own: what the others start.
#[test]
fn as_daemon() {
    let Ok(args) = std::env::var(ARGS) else { return };
    let args: Vec<String> =
        std::iter::once("keelson-test".to_owned()).chain(args.lines().map(str::to_owned)).collect();
    let program = Program::new("keelson-test").about("Tests").drain(Duration::from_millis(300));
    let code = run_from(program, args, async |config: Config, daemon: Daemon| {
        daemon.notify_serving(([127, 0, 0, 1], 6443).into());
        match config.behaviour.as_str() {
            "serve" => daemon.shutdown.cancelled().await,
            "hang" => std::future::pending().await,
            _ => {
                let missing = std::fs::read("/nowhere/at-all");
                anyhow::Context::context(missing, "read the state")?;
            }
        }
        Ok(())
    });
    std::process::exit(if code == ExitCode::SUCCESS { 0 } else { numeric(code) });
}

/// `ExitCode` hides its number; its debug form does not.
fn numeric(code: ExitCode) -> i32 {
    let text = format!("{code:?}");
    text.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "process::as_daemon", "--nocapture"]).env(ARGS, args.join("\n"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn config(text: &str) -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
}

fn check(output: &Output, code: i32, says: &str) {
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(says), "{says:?} is not in: {text}");
}

#[test]
fn help_and_version_are_answered_and_a_wrong_flag_is_not() {
    check(&command(&["--help"]).output().unwrap(), 0, "[default: /etc/keelson/test.yaml]");
    check(&command(&["--version"]).output().unwrap(), 0, concat!("keelson-test ", env!("CARGO_PKG_VERSION")));
    check(&command(&["--nonsense"]).output().unwrap(), 2, "unexpected argument");
}

#[test]
fn a_bad_configuration_has_an_exit_code_of_its_own() {
    let (_good, good) = config("behaviour: serve");
    let (_bad, bad) = config("behaviour: serve\nextra: 1");
    check(&command(&["--config", &good, "--check-config"]).output().unwrap(), 0, "is valid");
    check(&command(&["--config", &bad]).output().unwrap(), 78, "extra: unknown field");
    check(
        &command(&["--config", "/nowhere.yaml"]).output().unwrap(),
        78,
        "read the configuration /nowhere.yaml: No such",
    );
}

#[test]
fn a_failure_is_told_once_with_its_cause() {
    let (_file, path) = config("behaviour: fail");
    check(
        &command(&["--config", &path]).output().unwrap(),
        1,
        "keelson-test failed: read the state: No such file",
    );
}

/// Starts a daemon, waits until it says that it serves, sends SIGTERM.
fn terminated(behaviour: &str) -> Output {
    let (_file, path) = config(&format!("behaviour: {behaviour}"));
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("notify");
    let ready = UnixDatagram::bind(&socket).unwrap();
    ready.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let daemon = command(&["--config", &path]).env("NOTIFY_SOCKET", &socket).spawn().unwrap();
    let mut message = [0; 100];
    let length = ready.recv(&mut message).unwrap();
    assert_eq!(&message[..length], b"READY=1\nX_KEELSON_ADDRESS=127.0.0.1:6443");
    assert!(Command::new("kill").arg(daemon.id().to_string()).status().unwrap().success());
    daemon.wait_with_output().unwrap()
}

#[test]
fn sigterm_ends_it_in_order() {
    check(&terminated("serve"), 0, "keelson-test ends");
}

#[test]
fn one_that_does_not_end_is_ended() {
    check(&terminated("hang"), 1, "did not end within 300ms of being told to");
}
