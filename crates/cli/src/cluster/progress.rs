//! What a waiting user sees: a spinner per step on a terminal, one line per finished step elsewhere.

use std::future::Future;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Shows `what` while the step runs, then its outcome and how long it took.
pub async fn step<T>(what: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let began = Instant::now();
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(80));
    let result = work.await;
    bar.finish_and_clear();
    let (mark, seconds) = (if result.is_ok() { "✓" } else { "✗" }, began.elapsed().as_secs_f64());
    eprintln!("{mark} {what} ({seconds:.2} s)");
    result
}
