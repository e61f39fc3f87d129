//! How long an answer may take to be sent.
//!
//! Who asks for a long list and does not read it would keep the request's seats, and the objects of that moment in memory,
//! for as long as the connection lasts. As with upstream, a request is over when its time is, though it be half answered.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Version;
use hyper::rt::Executor;
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::body::Body;

tokio::task_local! {
    static END: End;
}

/// When the task that sends an answer ends, whatever it is at.
type End = Arc<Mutex<Option<Instant>>>;

/// As long as this is kept, the task that runs now ends at a time.
pub struct Limited(End);

/// Has the body's sending end at this time, be it with the stream that it is sent by or with the connection.
pub fn limit(body: Body, time: Instant, version: Version) -> Body {
    match &body {
        // The task ends with its one answer.
        _ if version == Version::HTTP_2 => _ = END.try_with(|end| *end.lock() = Some(time)),
        // What is whole is nearly sent.
        Body::Chunks(..) => return body.hold(end_at(time)),
        _ => {}
    }
    body
}

fn end_at(time: Instant) -> Option<Limited> {
    let end = END.try_with(Clone::clone).ok()?;
    *end.lock() = Some(time);
    Some(Limited(end))
}

impl Drop for Limited {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

pin_project! {
    /// Work that sends answers, one after the other.
    pub struct Sending<F> {
        #[pin]
        work: F,
        end: End,
        timer: Option<Pin<Box<Sleep>>>,
    }
}

impl<F> Sending<F> {
    pub fn new(work: F) -> Self {
        Self { work, end: End::default(), timer: None }
    }
}

impl<F: Future> Future for Sending<F> {
    /// `None` if its time was over.
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(done) = END.sync_scope(this.end.clone(), || this.work.poll(cx)) {
            return Poll::Ready(Some(done));
        }
        let Some(end) = *this.end.lock() else {
            *this.timer = None;
            return Poll::Pending;
        };
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if timer.deadline() != end {
            timer.as_mut().reset(end);
        }
        ready!(timer.as_mut().poll(cx));
        tracing::info!("an answer was not taken in the time that its request had");
        Poll::Ready(None)
    }
}

/// Runs each of HTTP/2's streams as a task.
#[derive(Clone)]
pub struct Streams;

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        tokio::spawn(Sending::new(stream));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_task_ends_when_its_time_is_over_and_only_then() {
        let mut came = 0;
        let work = Sending::new(async {
            drop(end_at(Instant::now()));
            // Nothing is being sent.
            tokio::time::sleep(Duration::from_millis(5)).await;
            came = 1;
            let _limited = end_at(Instant::now() + Duration::from_millis(5));
            std::future::pending::<()>().await;
        });
        assert_eq!(work.await, None);
        assert_eq!(came, 1);
        assert_eq!(Sending::new(async { 1 }).await, Some(1));
        assert!(end_at(Instant::now()).is_none());
    }
}
