//! How the server's seats are shared out among the levels from time to time, by what they have lately wanted
//! (KEP-1040): a level lends what it does not need, and never falls below what it keeps for itself.

use super::demand::DemandSeen;

/// How much of the smoothed demand stays from one period to the next.
const SMOOTHING: f64 = 0.977;
/// A level that wants nothing is counted with this much, so that there is something to divide by.
const LEAST_TARGET: f64 = 0.001;

/// What a `PriorityLevelConfiguration` says of seats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares {
    pub nominal: f64,
    /// Percent of the nominal seats that others may borrow.
    pub lendable: f64,
    /// Percent of the nominal seats that may be borrowed from others; no limit if not given.
    pub borrowing: Option<f64>,
}

/// The limits of a level in seats, and what it has lately wanted.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Limits {
    pub nominal: u64,
    pub min: u64,
    pub max: u64,
    pub current: u64,
    pub demand: DemandSeen,
    pub smoothed: f64,
    pub target: f64,
}

impl Limits {
    /// A level's limits out of `total` seats that are divided by `shares` of `sum`.
    pub fn configure(&mut self, total: u64, shares: Shares, sum: f64) {
        let fresh = *self == Self::default();
        let share = if sum > 0.0 { total as f64 * shares.nominal / sum } else { 0.0 };
        let nominal = share.ceil();
        let lendable = (nominal * shares.lendable / 100.0).round() as u64;
        self.nominal = nominal as u64;
        self.min = self.nominal - lendable.min(self.nominal);
        let borrowed = shares.borrowing.map_or(total, |percent| (nominal * percent / 100.0).round() as u64);
        self.max = self.nominal + borrowed;
        if fresh {
            self.current = self.nominal - lendable / 2;
        }
    }

    pub fn note(&mut self, seen: DemandSeen) {
        if seen.seconds <= 0.0 {
            self.demand.max = seen.max;
            return;
        }
        self.demand = seen;
        let envelope = seen.average + seen.deviation;
        self.smoothed = envelope.max(SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope);
    }
}

/// Sets every level's current limit; returns the fair fraction, which is 0 if there was nothing to divide.
/// Exempt levels take what they want, the others share the rest.
pub fn adjust(levels: &mut [(bool, &mut Limits)]) -> f64 {
    let total: u64 = levels.iter().map(|(_, l)| l.nominal).sum();
    let mut rest = total as i64;
    for (_, limits) in levels.iter_mut().filter(|(exempt, _)| *exempt) {
        limits.current = limits.min.max(limits.demand.max);
        rest -= limits.current as i64;
    }
    let mut limited: Vec<&mut Limits> =
        levels.iter_mut().filter(|(exempt, _)| !exempt).map(|(_, l)| &mut **l).collect();
    let floor = |l: &Limits| l.min.max(l.nominal.min(l.demand.max));
    let min_sum = limited.iter().map(|l| l.min as i64).sum::<i64>();
    let floor_sum = limited.iter().map(|l| floor(l) as i64).sum::<i64>();
    for limits in &mut limited {
        limits.target = limits.smoothed.max(floor(limits) as f64);
    }
    if rest <= min_sum {
        limited.iter_mut().for_each(|l| l.current = l.min);
        return 0.0;
    }
    if rest <= floor_sum {
        let fraction = (rest - min_sum) as f64 / (floor_sum - min_sum) as f64;
        for limits in &mut limited {
            limits.current = limits.min + ((floor(limits) - limits.min) as f64 * fraction).round() as u64;
        }
        return 0.0;
    }
    let items: Vec<Item> =
        limited.iter().map(|l| Item { target: l.target, low: floor(l) as f64, high: l.max as f64 }).collect();
    let Some((parts, fair)) = divide(total as f64, &items) else { return 0.0 };
    limited.iter_mut().zip(parts).for_each(|(limits, part)| limits.current = part.round() as u64);
    fair
}

/// One of those among whom something is divided: `target >= low >= 0`, `high >= low`.
#[derive(Debug, Clone, Copy)]
struct Item {
    target: f64,
    low: f64,
    high: f64,
}

impl Item {
    fn target(&self) -> f64 {
        self.target.max(LEAST_TARGET)
    }

    fn at(&self, fraction: f64) -> f64 {
        (fraction * self.target()).clamp(self.low, self.high)
    }
}

/// The one fraction of their targets (within their bounds) that adds up to `sum`, and the parts it makes;
/// `None` where the bounds leave none.
fn divide(sum: f64, items: &[Item]) -> Option<(Vec<f64>, f64)> {
    let total = |fraction: f64| items.iter().map(|i| i.at(fraction)).sum::<f64>();
    let mut bounds: Vec<f64> = items.iter().flat_map(|i| [i.low / i.target(), i.high / i.target()]).collect();
    bounds.sort_by(f64::total_cmp);
    // Between two bounds the sum grows evenly.
    let (first, end) = (*bounds.first()?, bounds.iter().position(|b| total(*b) >= sum)?);
    let (from, to) = (if end == 0 { first } else { bounds[end - 1] }, bounds[end]);
    let (below, above) = (total(from), total(to));
    if below > sum {
        return None;
    }
    let fraction = if above > below { from + (to - from) * (sum - below) / (above - below) } else { to };
    Some((items.iter().map(|i| i.at(fraction)).collect(), fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(total: u64, shares: Shares, sum: f64, max: u64, smoothed: f64) -> Limits {
        let mut limits = Limits::default();
        limits.configure(total, shares, sum);
        limits.demand.max = max;
        limits.smoothed = smoothed;
        limits
    }

    const HALF: Shares = Shares { nominal: 50.0, lendable: 50.0, borrowing: None };

    #[test]
    fn an_idle_level_lends_half_of_its_seats_to_a_busy_one() {
        let (mut busy, mut idle) = (limits(100, HALF, 100.0, 500, 500.0), limits(100, HALF, 100.0, 0, 0.0));
        assert_eq!((idle.nominal, idle.min, idle.max, idle.current), (50, 25, 150, 38));
        adjust(&mut [(false, &mut busy), (false, &mut idle)]);
        assert_eq!((busy.current, idle.current), (75, 25));
    }

    #[test]
    fn levels_that_want_too_much_get_their_nominal_seats_back() {
        let (mut a, mut b) = (limits(100, HALF, 100.0, 500, 500.0), limits(100, HALF, 100.0, 60, 60.0));
        adjust(&mut [(false, &mut a), (false, &mut b)]);
        assert_eq!((a.current, b.current), (50, 50));
    }

    #[test]
    fn borrowing_stops_at_its_limit() {
        let shares = Shares { borrowing: Some(10.0), ..HALF };
        let (mut a, mut b) = (limits(100, shares, 100.0, 500, 500.0), limits(100, HALF, 100.0, 0, 0.0));
        adjust(&mut [(false, &mut a), (false, &mut b)]);
        assert_eq!((a.current, b.current), (55, 45));
    }

    #[test]
    fn what_the_exempt_take_is_missing_for_the_others_down_to_their_minimum() {
        let exempt = Shares { nominal: 0.0, lendable: 0.0, borrowing: None };
        let mut root = limits(100, exempt, 100.0, 90, 90.0);
        let (mut a, mut b) = (limits(100, HALF, 100.0, 80, 80.0), limits(100, HALF, 100.0, 80, 80.0));
        adjust(&mut [(true, &mut root), (false, &mut a), (false, &mut b)]);
        assert_eq!((root.current, a.current, b.current), (90, 25, 25));
        root.demand.max = 30;
        adjust(&mut [(true, &mut root), (false, &mut a), (false, &mut b)]);
        assert_eq!((root.current, a.current, b.current), (30, 35, 35));
    }

    #[test]
    fn demand_falls_slowly_and_rises_at_once() {
        let mut limits = limits(100, HALF, 100.0, 0, 0.0);
        limits.note(DemandSeen { seconds: 10.0, max: 9, average: 5.0, deviation: 1.0 });
        assert_eq!(limits.smoothed, 6.0);
        limits.note(DemandSeen { seconds: 10.0, max: 0, average: 0.0, deviation: 0.0 });
        assert_eq!(limits.smoothed, 6.0 * SMOOTHING);
    }
}
