//! The schedule of tries: each target at a fixed phase of its interval, sooner while its state is
//! in doubt, and never in a burst. Pure.
//!
//! The slots of a target are `start of the schedule + phase + n × interval`, so nothing drifts.
//! Phases are spread evenly over all targets of one interval. A try is due at the first slot that
//! is at least half an interval after the last start, or, while the state is in doubt, a recheck
//! interval after it.
//!
//! Overdue tries start as soon as the rate limit allows, once each. The limit is GCRA (the generic
//! cell rate algorithm): `tat` is the theoretical arrival time of the next start, and a start is
//! allowed a burst before it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

/// The factor by which a schedule that is behind exceeds its even rate.
const CATCH_UP_FACTOR: f64 = 1.2;

/// Tries that may start together at any rate: a few do no harm.
const BURST: f64 = 8.0;

/// The lateness of a timer that does not count as a backlog.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// The key of a target in the schedule. The key of a removed target is used again.
pub(crate) type TargetKey = usize;

/// The times between the tries of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cadence {
    pub interval: Duration,
    /// The interval while the state is in doubt; at most `interval`.
    pub recheck: Duration,
}

/// The pause between two tries of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    Interval,
    /// For a target whose state is in doubt.
    Recheck,
}

/// The next thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Try this target now; it was due at this time. Call [`Schedule::complete`] when the try ends.
    Start { key: TargetKey, due: Instant },
    /// Nothing before this time.
    Wait(Instant),
    /// Nothing before a try ends.
    Idle,
}

/// Nanoseconds since the start of the schedule: enough for five centuries, and quick to compare.
type Nanos = u64;

pub(crate) struct Schedule {
    origin: Instant,
    entries: Vec<Option<Entry>>,
    /// The times at which tries are due. An item that its entry no longer matches is skipped.
    queue: BinaryHeap<Reverse<(Nanos, TargetKey)>>,
    /// Tries a second of all targets together.
    rate: f64,
    /// The theoretical arrival time of the next start.
    tat: Nanos,
    /// The earliest time of the next start.
    not_before: Nanos,
}

/// A target in the schedule.
struct Entry {
    interval: Nanos,
    recheck: Nanos,
    phase: Nanos,
    /// None while a try is in flight.
    due: Option<Nanos>,
    pause: Pause,
    removed: bool,
}

impl Entry {
    fn rate(&self) -> f64 {
        let pause = match self.pause {
            Pause::Interval => self.interval,
            Pause::Recheck => self.recheck,
        };
        1e9 / pause as f64
    }

    /// Returns the first slot that is not before `after`.
    fn slot(&self, after: Nanos) -> Nanos {
        let slots = after.saturating_sub(self.phase).div_ceil(self.interval);
        self.phase.saturating_add(slots.saturating_mul(self.interval))
    }
}

impl Schedule {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            origin: now,
            entries: Vec::new(),
            queue: BinaryHeap::new(),
            rate: 0.0,
            tat: 0,
            not_before: 0,
        }
    }

    fn nanos(&self, at: Instant) -> Nanos {
        nanos(at.saturating_duration_since(self.origin))
    }

    fn instant(&self, at: Nanos) -> Instant {
        self.origin + Duration::from_nanos(at)
    }

    /// Adds targets, at phases between those of the existing ones. Nothing is known of the new
    /// targets, so their first tries are spread over their recheck interval.
    pub(crate) fn add(&mut self, rhythms: &[Cadence], now: Instant) -> Vec<TargetKey> {
        let now = self.nanos(now);
        let mut phases = self.assign_phases(rhythms);
        let mut free = (0..self.entries.len())
            .filter(|&key| self.entries[key].is_none())
            .collect::<Vec<_>>()
            .into_iter();
        let mut keys = Vec::with_capacity(rhythms.len());
        for rhythm in rhythms {
            let (interval, recheck) = (nanos(rhythm.interval).max(1), nanos(rhythm.recheck).max(1));
            let phase = phases.get_mut(&interval).and_then(Iterator::next).unwrap_or_default();
            let first = now + (phase as f64 * (recheck as f64 / interval as f64)) as Nanos;
            let key = free.next().unwrap_or_else(|| {
                self.entries.push(None);
                self.entries.len() - 1
            });
            let place = Entry {
                interval,
                recheck,
                phase,
                due: Some(first),
                pause: Pause::Recheck,
                removed: false,
            };
            self.rate += place.rate();
            self.entries[key] = Some(place);
            self.queue.push(Reverse((first, key)));
            keys.push(key);
        }
        keys
    }

    /// Returns phases for new targets, for each interval.
    fn assign_phases(&self, rhythms: &[Cadence]) -> BTreeMap<Nanos, std::vec::IntoIter<Nanos>> {
        let mut asked: BTreeMap<Nanos, usize> = BTreeMap::new();
        for rhythm in rhythms {
            *asked.entry(nanos(rhythm.interval).max(1)).or_default() += 1;
        }
        let dealt = |(interval, number)| {
            let there = self
                .entries
                .iter()
                .flatten()
                .filter(|place| !place.removed && place.interval == interval);
            (
                interval,
                spread_phases(there.map(|place| place.phase).collect(), number, interval)
                    .into_iter(),
            )
        };
        asked.into_iter().map(dealt).collect()
    }

    /// Removes a target. Its key is free once no try of it is in flight.
    pub(crate) fn remove(&mut self, key: TargetKey) {
        let Some(place) = self.entries[key].as_mut() else { return };
        self.rate -= if place.removed { 0.0 } else { place.rate() };
        place.removed = true;
        if place.due.is_some() {
            self.entries[key] = None;
        }
    }

    /// Returns the next thing to do.
    pub(crate) fn next(&mut self, now: Instant) -> Next {
        let now = self.nanos(now);
        while let Some(&Reverse((due, key))) = self.queue.peek() {
            let place = self.entries[key].as_mut().filter(|place| place.due == Some(due));
            let Some(place) = place else {
                self.queue.pop();
                continue;
            };
            let at = due.max(self.not_before);
            if at > now {
                return Next::Wait(self.instant(at));
            }
            place.due = None;
            self.queue.pop();
            self.charge(now);
            return Next::Start { key, due: self.instant(due) };
        }
        Next::Idle
    }

    /// Charges one start to the rate limit.
    fn charge(&mut self, now: Nanos) {
        // A rate that rounding has left near zero must not stop the schedule.
        let gap = 1e9 / (CATCH_UP_FACTOR * self.rate).max(1e-6);
        let slack = (gap * BURST).max(TIMER_SLACK.as_nanos() as f64);
        self.tat = self.tat.max(now) + gap as Nanos;
        self.not_before = self.tat.saturating_sub(slack as Nanos);
    }

    /// Schedules the next try of a target, after the pause. Returns false if the target has been
    /// removed meanwhile: its key is free then.
    pub(crate) fn complete(
        &mut self,
        key: TargetKey,
        started: Instant,
        now: Instant,
        pause: Pause,
    ) -> bool {
        let (started, now) = (self.nanos(started), self.nanos(now));
        let Some(place) = self.entries[key].as_mut() else { return false };
        if place.removed {
            self.entries[key] = None;
            return false;
        }
        if place.pause != pause {
            self.rate -= place.rate();
            place.pause = pause;
            self.rate += place.rate();
        }
        let next = match pause {
            Pause::Recheck => started + place.recheck,
            Pause::Interval => place.slot(started + place.interval / 2),
        };
        // A try that follows a slow one is not late: it could not start before that one ended.
        let due = next.max(now);
        place.due = Some(due);
        self.queue.push(Reverse((due, key)));
        true
    }
}

fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

/// Returns phases for new targets, as far from each other and from existing ones as possible.
fn spread_phases(mut there: Vec<Nanos>, number: usize, interval: Nanos) -> Vec<Nanos> {
    let Some(&first) = there.iter().min() else {
        return (0..number as u64)
            .map(|i| (u128::from(interval) * u128::from(i) / number as u128) as Nanos)
            .collect();
    };
    there.sort();
    there.push(first + interval);
    // The widest share of a gap comes first: each new target goes where it leaves the most room.
    let mut gaps: BinaryHeap<(Nanos, Reverse<usize>)> =
        there.windows(2).enumerate().map(|(i, pair)| (pair[1] - pair[0], Reverse(i))).collect();
    let mut newcomers = vec![0; there.len() - 1];
    for _ in 0..number {
        let Some((_, Reverse(i))) = gaps.pop() else { break };
        newcomers[i] += 1;
        gaps.push(((there[i + 1] - there[i]) / (newcomers[i] + 1), Reverse(i)));
    }
    let within = |i: usize| {
        let step = (there[i + 1] - there[i]) / (newcomers[i] + 1);
        (1..=newcomers[i])
            .map(move |n| n * step)
            .map(|offset| there[i] + offset)
            .collect::<Vec<_>>()
    };
    // The last gap reaches into the next interval.
    (0..newcomers.len())
        .flat_map(within)
        .map(|phase| if phase >= interval { phase - interval } else { phase })
        .collect()
}

#[cfg(test)]
mod tests {
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
            #[expect(
                clippy::disallowed_methods,
                reason = "any instant will do as the start of a test"
            )]
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

        /// The most starts in any 10 ms, from `from` on.
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
    fn targets_of_one_interval_are_spread_evenly_over_it_and_keep_their_phases() {
        let mut run = Run::of(&[EACH_SECOND; 4]);
        run.on(SECOND * 3, |_| ms(7));
        assert_eq!(run.starts_of(0), [0, 1000, 2000]);
        assert_eq!(run.starts_of(1), [250, 1250, 2250]);
        assert_eq!(run.starts_of(3), [750, 1750, 2750]);
        assert!(run.delays.iter().all(Duration::is_zero), "{:?}", run.delays);
    }

    #[test]
    fn a_try_that_takes_too_long_is_followed_by_the_next_at_once_and_misses_are_not_made_up_for() {
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
    fn the_first_tries_and_those_in_doubt_follow_the_recheck_interval() {
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
    fn a_target_removed_while_it_is_tried_is_not_tried_again_and_keeps_its_key_till_then() {
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
        fn tries_of_one_target_are_half_an_interval_apart_and_none_is_forgotten(
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
}
