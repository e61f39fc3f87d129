//! What requests occupy: seats, for a time.

use std::time::Duration;

/// Work in seat-nanoseconds, and virtual time, which is work per queue.
pub(super) type Work = i128;

/// How long a request is taken to last before any has ended.
pub(super) const GUESS: Duration = Duration::from_millis(3);

/// What a request occupies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Seats while it runs.
    pub seats: u32,
    /// Seats that it keeps for `lingering` once it has ended.
    pub final_seats: u32,
    pub lingering: Duration,
}

impl Estimate {
    pub const ONE: Self = Self::seats(1);

    pub const fn seats(seats: u32) -> Self {
        Self { seats, final_seats: 0, lingering: Duration::ZERO }
    }

    /// The most it occupies at any time.
    pub fn width(&self) -> u32 {
        self.seats.max(self.final_seats)
    }

    /// Of a request that lasts so long.
    pub(super) fn work(&self, time: Duration) -> Work {
        work(self.seats, time) + work(self.final_seats, self.lingering)
    }
}

pub(super) fn work(seats: u32, time: Duration) -> Work {
    Work::from(seats) * time.as_nanos() as Work
}
