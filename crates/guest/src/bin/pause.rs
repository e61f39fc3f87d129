//! The process that holds a pod sandbox's namespaces open.
//!
//! It is PID 1 of the sandbox. With a shared PID namespace it is also the parent of every orphan in
//! the pod, so it reaps; SIGTERM and SIGINT end it at once, as the runtime expects.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

fn main() {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        signals.add(signal);
    }
    if signals.thread_block().is_err() {
        std::process::exit(1);
    }
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => reap(),
            Ok(_) => return,
            Err(_) => std::process::exit(1),
        }
    }
}

/// Collects every child that has ended; one SIGCHLD may stand for several.
fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}
