use std::collections::HashMap;

use super::*;

const QUEUING: Queuing = Queuing { queues: 64, length: 50, hand: 6 };
const MS: Duration = Duration::from_millis(1);

type Set = QueueSet<&'static str, &'static str>;

fn hash(flow: &str) -> u64 {
    flow.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

fn start(set: &mut Set, now: Duration, flow: &'static str, seats: u32) -> Start {
    set.start(now, hash(flow), Estimate::seats(seats), flow, || flow)
}

/// A closed loop: every flow keeps so many requests under way, each of which lasts as given.
struct Simulation {
    set: Set,
    now: Duration,
    /// What a flow keeps up, the seats and the time of each request.
    flows: Vec<(&'static str, usize, u32, Duration)>,
    /// Started ones, with their ends.
    running: HashMap<usize, Duration>,
    waiting: Vec<usize>,
    done: HashMap<&'static str, usize>,
    refused: HashMap<&'static str, usize>,
    longest_wait: HashMap<&'static str, Duration>,
}

impl Simulation {
    fn new(mode: Mode, limit: u64, flows: Vec<(&'static str, usize, u32, Duration)>) -> Self {
        Self {
            set: Set::new(Duration::ZERO, mode, limit),
            now: Duration::ZERO,
            flows,
            running: HashMap::new(),
            waiting: Vec::new(),
            done: HashMap::new(),
            refused: HashMap::new(),
            longest_wait: HashMap::new(),
        }
    }

    fn run_until(&mut self, end: Duration) {
        while self.now < end {
            self.submit();
            self.look_for_started();
            let next = self.running.iter().min_by_key(|(key, at)| (**at, **key)).map(|(k, at)| (*k, *at));
            let Some((key, at)) = next else {
                self.now = self.set.next_release().unwrap_or(end).min(end);
                self.set.sync(self.now);
                continue;
            };
            self.now = self.set.next_release().map_or(at, |release| release.min(at));
            if self.now < at {
                self.set.sync(self.now);
                continue;
            }
            self.running.remove(&key);
            let tag = self.set.requests[key].tag;
            self.set.leave(self.now, key, Refusal::Cancelled);
            *self.done.entry(tag).or_default() += 1;
        }
    }

    fn submit(&mut self) {
        for (flow, count, seats, _) in self.flows.clone() {
            let mut have = self.set.requests().filter(|(_, r)| r.tag == flow).count();
            while have < count {
                match start(&mut self.set, self.now, flow, seats) {
                    Start::Refused(_) => {
                        *self.refused.entry(flow).or_default() += 1;
                        break;
                    }
                    Start::Queued(key) | Start::Executing(key) => self.waiting.push(key),
                }
                have += 1;
            }
        }
    }

    fn look_for_started(&mut self) {
        let set = &self.set;
        let (started, waiting): (Vec<usize>, _) =
            self.waiting.drain(..).partition(|key| set.requests[*key].started.is_some());
        self.waiting = waiting;
        for key in started {
            let request = &set.requests[key];
            let begun = request.started.unwrap_or_default();
            let time = self.flows.iter().find(|(flow, ..)| *flow == request.tag).map_or(MS, |f| f.3);
            let wait = self.longest_wait.entry(request.tag).or_default();
            *wait = (*wait).max(begun - request.arrived);
            self.running.insert(key, begun + time);
        }
    }
}

#[test]
fn a_flood_leaves_another_flow_its_share() {
    let flows = vec![("flood", 400, 1, 10 * MS), ("calm", 2, 1, 10 * MS)];
    let mut simulation = Simulation::new(Mode::Queue(QUEUING), 10, flows);
    simulation.run_until(10_000 * MS);
    let done = &simulation.done;
    // Two at a time of 10 ms each would make 2000 in ten seconds; the calm flow gets nearly all of that,
    // the flood the rest of the 10000 that ten seats can do.
    assert!(done["calm"] > 1000, "{done:?}");
    assert!(done["flood"] > 7000, "{done:?}");
    assert!(simulation.longest_wait["calm"] < 60 * MS, "{:?}", simulation.longest_wait);
    assert!(simulation.longest_wait["flood"] > 200 * MS, "{:?}", simulation.longest_wait);
}

#[test]
fn two_greedy_flows_share_evenly_whatever_they_ask_for() {
    let one = Queuing { queues: 128, length: 50, hand: 1 };
    let flows = vec![("a", 40, 1, 10 * MS), ("b", 10, 1, 10 * MS)];
    let mut simulation = Simulation::new(Mode::Queue(one), 8, flows);
    simulation.run_until(10_000 * MS);
    let (a, b) = (simulation.done["a"] as f64, simulation.done["b"] as f64);
    assert!((a / b - 1.0).abs() < 0.05, "{a} against {b}");
}

#[test]
fn wide_requests_pay_for_their_seats() {
    let one = Queuing { queues: 128, length: 50, hand: 1 };
    let flows = vec![("wide", 20, 4, 10 * MS), ("narrow", 20, 1, 10 * MS)];
    let mut simulation = Simulation::new(Mode::Queue(one), 8, flows);
    simulation.run_until(10_000 * MS);
    let ratio = simulation.done["narrow"] as f64 / simulation.done["wide"] as f64;
    assert!((3.0..5.0).contains(&ratio), "{:?}", simulation.done);
}

#[test]
fn a_full_queue_refuses() {
    let mut set = Set::new(MS, Mode::Queue(Queuing { queues: 1, length: 2, hand: 1 }), 1);
    let outcomes: Vec<Start> = (0..4).map(|_| start(&mut set, MS, "a", 1)).collect();
    let wanted =
        [Start::Executing(0), Start::Queued(1), Start::Queued(2), Start::Refused(Refusal::QueueFull)];
    assert_eq!(outcomes, wanted);
}

#[test]
fn without_queues_what_does_not_fit_is_refused() {
    let mut set = Set::new(MS, Mode::Reject, 2);
    assert_eq!(start(&mut set, MS, "a", 2), Start::Executing(0));
    assert_eq!(start(&mut set, MS, "b", 1), Start::Refused(Refusal::ConcurrencyLimit));
    assert_eq!(set.leave(3 * MS, 0, Refusal::Cancelled), Left::Executed(2 * MS));
    assert!(matches!(start(&mut set, 3 * MS, "b", 1), Start::Executing(_)));
}

#[test]
fn the_exempt_are_never_refused() {
    let mut set = Set::new(MS, Mode::Exempt, 0);
    for _ in 0..1000 {
        assert!(matches!(start(&mut set, MS, "a", 10), Start::Executing(_)));
    }
    assert_eq!(set.seats(), 10_000);
}

#[test]
fn a_request_that_gives_up_makes_room_for_the_next() {
    let mut set = Set::new(MS, Mode::Queue(QUEUING), 1);
    let Start::Executing(first) = start(&mut set, MS, "a", 1) else { panic!("there was room") };
    let Start::Queued(second) = start(&mut set, MS, "b", 1) else { panic!("there was none") };
    let Start::Queued(third) = start(&mut set, 2 * MS, "c", 1) else { panic!("there was none") };
    assert_eq!(set.leave(3 * MS, second, Refusal::TimeOut), Left::Waiting);
    assert!(set.take_woken().is_empty());
    set.leave(4 * MS, first, Refusal::Cancelled);
    assert_eq!(set.take_woken(), ["c"]);
    set.leave(5 * MS, third, Refusal::Cancelled);
    assert!(set.is_idle() && set.seats() == 0 && set.active_queues() == 0);
    assert_eq!((set.totals.dispatched, set.totals.timed_out), (2, 1));
}

#[test]
fn seats_linger_for_the_watchers_of_a_write() {
    let mut set = Set::new(MS, Mode::Queue(QUEUING), 3);
    let estimate = Estimate { seats: 1, final_seats: 3, lingering: 5 * MS };
    let Start::Executing(key) = set.start(MS, 1, estimate, "w", || "w") else { panic!("there was room") };
    set.leave(2 * MS, key, Refusal::Cancelled);
    let Start::Queued(_) = start(&mut set, 3 * MS, "r", 1) else { panic!("seats are kept") };
    assert_eq!(set.next_release(), Some(7 * MS));
    set.sync(7 * MS);
    assert_eq!(set.take_woken(), ["r"]);
    assert_eq!(set.requests().next().and_then(|(_, r)| r.started), Some(7 * MS));
}

#[test]
fn what_is_too_wide_for_the_level_goes_alone() {
    let mut set = Set::new(MS, Mode::Queue(QUEUING), 2);
    let Start::Executing(first) = start(&mut set, MS, "a", 1) else { panic!("there was room") };
    assert!(matches!(start(&mut set, MS, "wide", 5), Start::Queued(_)));
    set.leave(2 * MS, first, Refusal::Cancelled);
    assert_eq!((set.take_woken(), set.seats()), (vec!["wide"], 5));
}

#[test]
fn a_change_of_the_configuration_loses_no_request() {
    let mut set = Set::new(MS, Mode::Queue(QUEUING), 1);
    let Start::Executing(first) = start(&mut set, MS, "a", 1) else { panic!("there was room") };
    for flow in ["b", "c", "d"] {
        assert!(matches!(start(&mut set, MS, flow, 1), Start::Queued(_)));
    }
    set.configure(2 * MS, Mode::Queue(Queuing { queues: 2, length: 1, hand: 1 }), 2);
    assert_eq!(set.take_woken().len(), 1);
    set.configure(3 * MS, Mode::Reject, 4);
    assert_eq!((set.take_woken().len(), set.executing()), (2, 4));
    let keys: Vec<usize> = set.requests().map(|(key, _)| key).filter(|k| *k != first).collect();
    set.leave(4 * MS, first, Refusal::Cancelled);
    for key in keys {
        set.leave(4 * MS, key, Refusal::Cancelled);
    }
    assert_eq!((set.queues.len(), set.seats()), (0, 0));
}

#[test]
fn demand_is_averaged_over_time() {
    let mut set = Set::new(Duration::ZERO, Mode::Queue(QUEUING), 10);
    let Start::Executing(key) = start(&mut set, Duration::ZERO, "a", 4) else { panic!("there was room") };
    set.leave(10 * MS, key, Refusal::Cancelled);
    let seen = set.take_demand(40 * MS);
    assert_eq!((seen.max, (seen.average * 1000.0).round()), (4, 1000.0));
    assert_eq!(set.take_demand(50 * MS).max, 0);
}

#[test]
fn seats_are_given_back_while_a_list_is_sent() {
    let mut set = Set::new(MS, Mode::Queue(Queuing { queues: 1, length: 9, hand: 1 }), 8);
    let Start::Executing(list) = start(&mut set, MS, "list", 8) else { panic!("there was room") };
    let Start::Queued(get) = start(&mut set, 2 * MS, "get", 1) else { panic!("there was none") };
    set.narrow(11 * MS, list, 7);
    assert_eq!((set.take_woken(), set.seats()), (vec!["get"], 8));
    set.narrow(11 * MS, list, 7);
    set.narrow(12 * MS, list, 9);
    assert_eq!(set.seats(), 8);
    // The list has paid for what it used, the get for what is guessed.
    assert_eq!(set.queues[0].next_r, work(8, 10 * MS) + work(1, GUESS));
    set.leave(21 * MS, list, Refusal::Cancelled);
    set.leave(21 * MS, get, Refusal::Cancelled);
    assert_eq!(set.queues[0].next_r, work(8, 10 * MS) + work(7, 10 * MS) + work(1, 10 * MS));
    assert!(set.is_idle() && set.seats() == 0);
}

#[test]
fn who_asks_for_little_does_not_wait_for_those_who_began_long_requests() {
    let queuing = Queuing { queues: 128, length: 50, hand: 6 };
    let lists = [("a", 90), ("b", 100), ("c", 110)].map(|(flow, time)| (flow, 80, 8, time * MS));
    let mut flows = lists.to_vec();
    flows.push(("get", 1, 1, MS));
    let mut simulation = Simulation::new(Mode::Queue(queuing), 366, flows);
    simulation.run_until(10_000 * MS);
    // No longer than it takes the next of them to end.
    assert!(simulation.longest_wait["get"] <= 110 * MS, "{:?}", simulation.longest_wait);
}
