//! Waiting for something to happen to the files of a folder, by inotify.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Context, Error, Result};

/// A folder whose files are watched: what is written to them, and which come and go.
pub struct Folder {
    queue: AsyncFd<Queue>,
    path: String,
}

struct Queue(Inotify);

impl AsRawFd for Queue {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Folder {
    /// Begins to watch: what happens from now on ends [`Self::changed`]. Must be called within a tokio runtime.
    pub fn watch(path: &Path) -> Result<Self> {
        let subject = path.display();
        let inotify =
            Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).context("watch", &subject)?;
        let events = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF;
        inotify.add_watch(path, events).context("watch", &subject)?;
        // SAFETY: the queue owns the descriptor and neither replaces nor closes it while it lives.
        #[allow(unsafe_code)]
        let queue = unsafe { AsyncFd::register_with_interest(Queue(inotify), Interest::READABLE) };
        let queue = queue.context("watch", &subject)?;
        Ok(Self { queue, path: subject.to_string() })
    }

    /// Returns when something has happened since the last return. May be dropped and called again.
    pub async fn changed(&mut self) -> Result<()> {
        loop {
            let mut ready = self.queue.readable().await.context("watch", &self.path)?;
            let read = ready.try_io(|queue| match queue.get_ref().0.read_events() {
                Err(Errno::EAGAIN) => Err(io::ErrorKind::WouldBlock.into()),
                outcome => Ok(outcome),
            });
            match read {
                Ok(Ok(events)) => return events.map(drop).context("watch", &self.path),
                Ok(Err(error)) => return Err(Error::new("watch", &self.path, error)),
                // Somebody else took what was there.
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn writes_and_renames_are_noticed() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("0.log");
        std::fs::write(&file, "a").expect("writes");
        let mut folder = Folder::watch(dir.path()).expect("watches");
        let within = Duration::from_secs(10);
        std::fs::write(&file, "ab").expect("writes");
        tokio::time::timeout(within, folder.changed()).await.expect("in time").expect("a change");
        std::fs::rename(&file, dir.path().join("0.log.old")).expect("renames");
        tokio::time::timeout(within, folder.changed()).await.expect("in time").expect("a change");
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_named() {
        let error = Folder::watch(Path::new("/nowhere/at/all")).err().expect("refused");
        assert_eq!(error.to_string(), "watch /nowhere/at/all");
        assert!(error.is_not_found());
    }
}
