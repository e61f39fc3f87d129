//! How long the refused are told to wait: longer while a level keeps refusing, shorter again when it no longer does.

use std::collections::VecDeque;

const MOST: u64 = 32;

/// The refusals of one level by seconds.
#[derive(Debug)]
pub struct RetryAfter {
    history: VecDeque<(u64, u64)>,
    second: u64,
    count: u64,
    seconds: u64,
    raised: Option<u64>,
}

impl Default for RetryAfter {
    fn default() -> Self {
        Self { history: VecDeque::new(), second: 0, count: 0, seconds: 1, raised: None }
    }
}

impl RetryAfter {
    pub fn seconds(&self) -> u64 {
        self.seconds
    }

    /// Notes a refusal in this second.
    pub fn dropped(&mut self, now: u64) {
        if now == self.second {
            self.count += 1;
            return;
        }
        self.history.push_back((self.second, self.count));
        (self.second, self.count) = (now, 1);
        let keep = (2 * self.seconds).min(MOST);
        while self.history.front().is_some_and(|(second, _)| now - second > keep) {
            self.history.pop_front();
        }
        self.adapt(now);
    }

    /// Doubles on at least three refusals a second, falls by one on less than one.
    fn adapt(&mut self, now: u64) {
        let recent = self.history.iter().filter(|(second, _)| now - second <= self.seconds);
        let refused: u64 = recent.map(|(_, count)| count).sum();
        let rested = self.raised.is_none_or(|at| now - at >= self.seconds);
        if rested && refused >= 3 * self.seconds {
            self.seconds = (2 * self.seconds).min(MOST);
            self.raised = Some(now);
        } else if refused < self.seconds && self.seconds > 1 {
            self.seconds -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_under_refusals_and_falls_after_them() {
        let mut retry = RetryAfter::default();
        let mut seen = vec![retry.seconds()];
        for second in 1..=40 {
            (0..200).for_each(|_| retry.dropped(second));
            if seen.last() != Some(&retry.seconds()) {
                seen.push(retry.seconds());
            }
        }
        assert_eq!(seen, [1, 2, 4, 8, 16, 32]);
        for second in (100..2000).step_by(40) {
            retry.dropped(second);
        }
        assert_eq!(retry.seconds(), 1);
    }
}
