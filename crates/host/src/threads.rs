//! What the process's threads are at: each is told by a signal to write down its own stack.

use std::io::{Error, ErrorKind, Result};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Ignored unless it is handled, as Go has it for the same use.
const SIGNAL: libc::c_int = libc::SIGURG;
const DEPTH: usize = 128;
/// How long a thread may take to answer: one that the kernel holds up does not.
const PATIENCE: Duration = Duration::from_millis(200);

/// The thread that is asked, or one of the two below.
static ASKED: AtomicI32 = AtomicI32::new(NOBODY);
const NOBODY: i32 = 0;
const WRITING: i32 = -1;
const WRITTEN: i32 = -2;

static LENGTH: AtomicUsize = AtomicUsize::new(0);
static FRAMES: [AtomicUsize; DEPTH] = [const { AtomicUsize::new(0) }; DEPTH];

/// The return addresses of each thread's stack, the innermost first. Who does not answer in time is left out.
pub fn stacks() -> Result<Vec<Vec<usize>>> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    handle()?;
    let mut stacks = Vec::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        let name = task?.file_name();
        let thread = name.to_str().and_then(|name| name.parse().ok()).ok_or(ErrorKind::InvalidData)?;
        stacks.extend(ask(thread)?);
    }
    Ok(stacks)
}

#[allow(unsafe_code)]
fn handle() -> Result<()> {
    // SAFETY: a zeroed action is one with an empty mask; the handler does only what a handler may.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = note as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigaction(SIGNAL, &action, ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

#[allow(unsafe_code)]
fn ask(thread: i32) -> Result<Option<Vec<usize>>> {
    ASKED.store(thread, Ordering::Release);
    // SAFETY: a signal that is handled, to a thread of this process.
    if unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, SIGNAL) } != 0 {
        ASKED.store(NOBODY, Ordering::Relaxed);
        let error = Error::last_os_error();
        // It has ended meanwhile.
        return if error.raw_os_error() == Some(libc::ESRCH) { Ok(None) } else { Err(error) };
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ASKED.load(Ordering::Acquire) {
            WRITTEN => break,
            WRITING => wait(WRITING, PATIENCE),
            asked => match deadline.checked_duration_since(Instant::now()) {
                Some(left) => wait(asked, left),
                // From here on it finds that it is not asked any more.
                None if ASKED
                    .compare_exchange(asked, NOBODY, Ordering::Acquire, Ordering::Acquire)
                    .is_ok() =>
                {
                    return Ok(None);
                }
                None => {}
            },
        }
    }
    let frames = &FRAMES[..LENGTH.load(Ordering::Relaxed)];
    Ok(Some(frames.iter().map(|frame| frame.load(Ordering::Relaxed)).collect()))
}

/// Waits until `ASKED` is something else, woken by who changes it last.
#[allow(unsafe_code)]
fn wait(seen: i32, time: Duration) {
    let time = libc::timespec { tv_sec: time.as_secs() as _, tv_nsec: time.subsec_nanos() as _ };
    // SAFETY: both pointers are to what lives longer than the call.
    unsafe { libc::syscall(libc::SYS_futex, ASKED.as_ptr(), libc::FUTEX_WAIT, seen, &time) };
}

/// Allocates nothing and takes no lock: the thread may hold any. The unwinder finds its tables without one
/// (`_dl_find_object`, glibc 2.35).
#[allow(unsafe_code)]
extern "C" fn note(_signal: libc::c_int) {
    // SAFETY: calls that are safe in a handler; `errno` is as it was when it returns.
    unsafe {
        let errno = *libc::__errno_location();
        let own = libc::syscall(libc::SYS_gettid) as i32;
        if ASKED.compare_exchange(own, WRITING, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            let mut depth = 0;
            backtrace::trace_unsynchronized(|frame| {
                FRAMES[depth].store(frame.ip() as usize, Ordering::Relaxed);
                depth += 1;
                depth < DEPTH
            });
            LENGTH.store(depth, Ordering::Relaxed);
            ASKED.store(WRITTEN, Ordering::Release);
            libc::syscall(libc::SYS_futex, ASKED.as_ptr(), libc::FUTEX_WAKE, i32::MAX);
        }
        *libc::__errno_location() = errno;
    }
}
