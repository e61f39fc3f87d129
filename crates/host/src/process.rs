//! Processes by pidfd: the descriptor pins the process, so that neither a wait nor a signal can hit another one that
//! was given the same pid since.

use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Context, Error, Result};

/// A process, our child or not.
pub struct Process {
    pid: Pid,
    fd: AsyncFd<OwnedFd>,
}

impl Process {
    /// Needs a tokio runtime.
    #[allow(unsafe_code)]
    pub fn open(pid: i32) -> Result<Self> {
        let no_pid = || std::io::Error::from(std::io::ErrorKind::InvalidInput);
        let pid = Pid::from_raw(pid).ok_or_else(no_pid).context("open process", pid)?;
        let name = pid.as_raw_nonzero();
        let fd = pidfd_open(pid, PidfdFlags::NONBLOCK).context("open process", name)?;
        // SAFETY: the descriptor is owned by the AsyncFd from here on and nobody else closes it while registered.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }
            .map_err(|error| Error::new("watch process", name, error.into_parts().1))?;
        Ok(Self { pid, fd })
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Waits until it has ended; a child is then still to be reaped.
    pub async fn ended(&self) {
        // A pidfd becomes readable when its process ends.
        let _ = self.fd.readable().await;
    }

    /// SIGTERM. One that has ended already is left alone.
    pub fn terminate(&self) {
        let _ = pidfd_send_signal(self.fd.get_ref(), Signal::TERM);
    }

    /// SIGKILL.
    pub fn kill(&self) {
        let _ = pidfd_send_signal(self.fd.get_ref(), Signal::KILL);
    }
}
