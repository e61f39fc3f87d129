//! How many seats a priority level would use, over time.

use std::time::Duration;

/// The integrals of the demand for seats over time.
#[derive(Debug, Default)]
pub(super) struct Demand {
    now: u64,
    max: u64,
    seconds: f64,
    sum: f64,
    squares: f64,
}

/// The demand for seats over some time.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct DemandSeen {
    pub seconds: f64,
    pub max: u64,
    pub average: f64,
    pub deviation: f64,
}

impl Demand {
    pub(super) fn pass(&mut self, time: Duration) {
        let (seconds, x) = (time.as_secs_f64(), self.now as f64);
        self.seconds += seconds;
        self.sum += x * seconds;
        self.squares += x * x * seconds;
    }

    pub(super) fn set(&mut self, now: u64) {
        self.now = now;
        self.max = self.max.max(now);
    }

    pub(super) fn take(&mut self) -> DemandSeen {
        let Self { now, max, seconds, sum, squares } = std::mem::take(self);
        (self.now, self.max) = (now, now);
        if seconds <= 0.0 {
            return DemandSeen { max, ..DemandSeen::default() };
        }
        let average = sum / seconds;
        let deviation = (squares / seconds - average * average).max(0.0).sqrt();
        DemandSeen { seconds, max, average, deviation }
    }
}
