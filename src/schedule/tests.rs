//! Schedules under a clock that the test sets.

use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);
const EACH_SECOND: Cadence = Cadence { interval: SECOND, recheck: SECOND };

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A schedule under a clock of its own, and when its tries started.
struct Run {
    schedule: Schedule,
    origin: Instant,
    now: Duration,
    /// Tries under way: when they end, when they started, of what.
    under_way: BinaryHeap<Reverse<(Duration, Duration, TargetKey)>>,
    starts: Vec<(Duration, TargetKey)>,
    delays: Vec<Duration>,
    /// Targets whose state is in doubt.
    in_doubt: Vec<TargetKey>,
}

impl Run {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        let origin = Instant::now();
        Self {
            schedule: Schedule::new(origin),
            origin,
            now: Duration::ZERO,
            under_way: BinaryHeap::new(),
            starts: Vec::new(),
            delays: Vec::new(),
            in_doubt: Vec::new(),
        }
    }

    fn of(rhythms: &[Cadence]) -> Self {
        let mut run = Self::new();
        run.add(rhythms);
        run
    }

    fn add(&mut self, rhythms: &[Cadence]) -> Vec<TargetKey> {
        self.schedule.add(rhythms, self.origin + self.now)
    }

    /// Runs on for `time`; each try takes as long as `takes` says.
    fn on(&mut self, time: Duration, takes: impl Fn(TargetKey) -> Duration) {
        let end = self.now + time;
        while self.now < end {
            let wait = match self.schedule.next(self.origin + self.now) {
                Next::Start { key, due } => {
                    self.starts.push((self.now, key));
                    self.delays.push(self.now - (due - self.origin));
                    self.under_way.push(Reverse((self.now + takes(key), self.now, key)));
                    continue;
                }
                Next::Wait(at) => at - self.origin,
                Next::Idle => end,
            };
            let ends = self.under_way.peek().map_or(end, |Reverse((ends, ..))| *ends);
            self.now = wait.min(ends).min(end).max(self.now);
            self.end_tries();
        }
    }

    fn end_tries(&mut self) {
        while let Some(&Reverse((ends, started, key))) = self.under_way.peek()
            && ends <= self.now
        {
            self.under_way.pop();
            let in_doubt = self.in_doubt.contains(&key);
            let pause = if in_doubt { Pause::Recheck } else { Pause::Interval };
            self.schedule.complete(key, self.origin + started, self.origin + ends, pause);
        }
    }

    /// Starts of one target, in milliseconds.
    fn starts_of(&self, key: TargetKey) -> Vec<u128> {
        self.starts
            .iter()
            .filter(|(_, started)| *started == key)
            .map(|(at, _)| at.as_millis())
            .collect()
    }

    /// Returns the most starts in any 10 ms, from `from` on.
    fn most_in_10_ms(&self, from: Duration) -> usize {
        let starts: Vec<Duration> =
            self.starts.iter().map(|(at, _)| *at).filter(|at| *at >= from).collect();
        let within = |at: &Duration| {
            starts.iter().filter(|other| *other >= at && **other < *at + ms(10)).count()
        };
        starts.iter().map(within).max().unwrap_or(0)
    }
}

#[test]
fn targets_of_one_interval_are_spread_evenly_over_it() {
    let mut run = Run::of(&[EACH_SECOND; 4]);
    run.on(SECOND * 3, |_| ms(7));
    assert_eq!(run.starts_of(0), [0, 1000, 2000]);
    assert_eq!(run.starts_of(1), [250, 1250, 2250]);
    assert_eq!(run.starts_of(3), [750, 1750, 2750]);
    assert!(run.delays.iter().all(Duration::is_zero), "{:?}", run.delays);
}

#[test]
fn a_slow_try_is_followed_at_once_and_misses_are_not_made_up() {
    let mut run = Run::of(&[EACH_SECOND]);
    run.on(ms(3500), |_| ms(1010));
    assert_eq!(run.starts_of(0), [0, 1010, 2020, 3030]);
    let mut run = Run::of(&[EACH_SECOND]);
    run.on(SECOND, |_| ms(3450));
    run.on(ms(4500), |_| ms(1));
    assert_eq!(
        run.starts_of(0),
        [0, 3450, 4000, 5000],
        "two in half an interval would be no real interval"
    );
    assert!(run.delays.iter().all(Duration::is_zero), "it was not late: its try was under way");
}

#[test]
fn first_tries_and_doubts_follow_the_recheck_interval() {
    let rhythm = Cadence { interval: SECOND * 10, recheck: SECOND };
    let mut run = Run::of(&[rhythm; 2]);
    run.in_doubt.push(1);
    run.on(ms(3600), |_| ms(1));
    assert_eq!(run.starts_of(0), [0]);
    assert_eq!(run.starts_of(1), [500, 1500, 2500, 3500]);
    run.in_doubt.clear();
    run.on(SECOND * 30, |_| ms(1));
    assert_eq!(run.starts_of(0), [0, 10_000, 20_000, 30_000]);
    // The last in doubt started at 4.5 s, and settled it only when it ended.
    assert_eq!(run.starts_of(1)[4..], [4500, 15_000, 25_000]);
}

#[test]
fn after_a_stall_each_target_starts_once_without_a_burst() {
    let mut run = Run::of(&[EACH_SECOND; 1000]);
    run.on(SECOND * 2, |_| ms(1));
    let before = run.starts.len();
    run.now += ms(3300);
    run.end_tries();
    let stalled = run.now;
    run.on(ms(1500), |_| ms(1));
    let most = run.most_in_10_ms(stalled);
    assert!(most <= 22, "{most} starts in 10 ms, where 10 are even and 12 the pace");
    let made_up =
        run.starts[before..].iter().filter(|(at, _)| *at < stalled + SECOND * 9 / 10).count();
    assert!(
        (950..=1100).contains(&made_up),
        "{made_up} starts for 1,000 targets that each missed three"
    );
    run.on(SECOND * 3, |_| ms(1));
    assert!(
        run.delays[run.delays.len() - 1000..].iter().all(Duration::is_zero),
        "the schedule is even again"
    );
    let half = run.starts.windows(2).all(|pair| pair[0].0 <= pair[1].0);
    assert!(half, "starts are in order");
}

// A turn of the monitor takes two milliseconds, and here its thread wakes one too late each time.
#[test]
fn turns_that_begin_late_do_not_fall_behind() {
    let mut run = Run::of(&vec![EACH_SECOND; 10_000]);
    while run.now < SECOND * 3 {
        while let Next::Start { key, due } = run.schedule.next(run.origin + run.now) {
            run.delays.push(run.now - (due - run.origin));
            run.under_way.push(Reverse((run.now, run.now, key)));
        }
        run.now += ms(3);
        run.end_tries();
    }
    let latest = run.delays.iter().max().expect("tries");
    assert!(run.delays.len() >= 29_000 && *latest <= ms(3), "{latest:?}");
}

#[test]
fn more_than_can_be_done_slows_all_targets_alike() {
    // One try at a time of 10 ms each: a hundred a second where a thousand are asked for.
    let mut run = Run::of(&[EACH_SECOND; 1000]);
    while run.now < SECOND * 100 {
        if let Next::Start { key, .. } = run.schedule.next(run.origin + run.now) {
            run.starts.push((run.now, key));
            let started = run.origin + run.now;
            run.now += ms(10);
            run.schedule.complete(key, started, run.origin + run.now, Pause::Interval);
        } else {
            run.now += ms(1);
        }
    }
    let counts: Vec<usize> = (0..1000).map(|key| run.starts_of(key).len()).collect();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(*least >= 9 && *most <= 11, "from {least} to {most} tries");
}

#[test]
fn a_change_keeps_the_phases_of_the_targets_that_stay() {
    let mut run = Run::of(&[EACH_SECOND; 4]);
    run.on(ms(1900), |_| ms(1));
    run.schedule.remove(1);
    let added = run.add(&[EACH_SECOND; 3]);
    assert_eq!(added[0], 1, "a free key is used again");
    run.on(ms(3000), |_| ms(1));
    assert_eq!(run.starts_of(0), [0, 1000, 2000, 3000, 4000]);
    assert_eq!(run.starts_of(2), [500, 1500, 2500, 3500, 4500]);
    // Key 1 is a new target now. The gap that it left, of 500 ms, got two of the three, the
    // next gap the third.
    let mut phases: Vec<u128> =
        added.iter().map(|key| run.starts_of(*key).last().unwrap() % 1000).collect();
    phases.sort();
    assert_eq!(phases, [166, 333, 625], "{:?}", run.starts);
}

#[test]
fn targets_that_come_by_themselves_make_nobody_late() {
    let mut run = Run::of(&vec![EACH_SECOND; 10]);
    run.on(3 * SECOND, |_| ms(1));
    run.delays.clear();
    for _ in 0..500 {
        run.schedule.add_due(&EACH_SECOND, run.origin + run.now);
    }
    run.on(SECOND, |_| ms(1));
    let latest = run.delays.iter().max().expect("tries");
    assert!(run.delays.len() >= 510 && *latest <= ms(5), "{} tries, {latest:?}", run.delays.len());
}

#[test]
fn a_target_removed_in_flight_keeps_its_key_until_the_end() {
    let mut run = Run::of(&[EACH_SECOND; 2]);
    run.on(ms(10), |_| ms(100));
    run.schedule.remove(0);
    assert_eq!(run.add(&[EACH_SECOND]), [2]);
    run.on(SECOND * 2, |_| ms(1));
    assert_eq!(run.starts_of(0), [0]);
    assert_eq!(run.add(&[EACH_SECOND]), [0]);
}

proptest! {
    #[test]
    fn tries_are_half_an_interval_apart_and_none_is_forgotten(
        intervals in prop::collection::vec(50u64..2000, 1..20),
        takes in prop::collection::vec(0u64..3000, 20),
        stall in 0u64..5000,
    ) {
        let rhythms: Vec<Cadence> =
            intervals.iter().map(|i| Cadence { interval: ms(*i), recheck: ms(*i) }).collect();
        let mut run = Run::of(&rhythms);
        let takes = |key: TargetKey| ms(takes[key]);
        run.on(SECOND * 3, takes);
        run.now += ms(stall);
        run.end_tries();
        run.on(SECOND * 10, takes);
        for (key, interval) in intervals.iter().enumerate() {
            let starts = run.starts_of(key);
            let longest = u128::from(interval * 2 + stall) + takes(key).as_millis() + 100;
            for pair in starts.windows(2) {
                prop_assert!(pair[1] - pair[0] + 1 >= u128::from(interval / 2), "{key}: {pair:?}");
                prop_assert!(pair[1] - pair[0] <= longest, "{key}: {pair:?}");
            }
            prop_assert!(starts.last().is_some_and(|last| run.now.as_millis() - last <= longest));
        }
    }
}
