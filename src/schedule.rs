//! The schedule of tries: each target at a fixed phase of its interval, sooner while its state is
//! in doubt, and never in a burst. Pure.
//!
//! The slots of a target are `start of the schedule + phase + n × interval`, so nothing drifts.
//! Phases are spread evenly over all targets of one interval. A try is due at the first slot that
//! is at least half an interval after the last start, or, while the state is in doubt, a recheck
//! interval after it.
//!
//! Overdue tries start as soon as the rate limit allows, once each. A target that comes while the
//! others are checked is tried at once, beside that limit. The limit is GCRA (the generic cell rate
//! algorithm): `tat` is the theoretical arrival time of the next start, and a start is allowed a
//! burst before it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

/// The factor by which a schedule that is behind exceeds its even rate.
const CATCH_UP_FACTOR: f64 = 1.2;

/// Tries that may start together at any rate: a few do no harm.
const BURST: f64 = 8.0;

/// The lateness of a timer that does not count as a backlog. The monitor has a turn every two
/// milliseconds, and often one a little late: tries of a shorter time would fall behind for ever.
const TIMER_SLACK: Duration = Duration::from_millis(3);

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
    /// The keys without an entry.
    free: Vec<TargetKey>,
    /// The targets that were added with their first try due at once.
    added_due: u32,
    /// The starts that are not charged to the rate limit: one for each of these targets. They come
    /// by DNS, which has a limit of its own, and must not make the others late.
    free_starts: u32,
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
            free: Vec::new(),
            added_due: 0,
            free_starts: 0,
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
        let mut keys = Vec::with_capacity(rhythms.len());
        for rhythm in rhythms {
            let (interval, recheck) = (nanos(rhythm.interval).max(1), nanos(rhythm.recheck).max(1));
            let phase = phases.get_mut(&interval).and_then(Iterator::next).unwrap_or_default();
            let first = now + (phase as f64 * (recheck as f64 / interval as f64)) as Nanos;
            keys.push(self.insert(rhythm, phase, first));
        }
        keys
    }

    /// Adds a target whose first try is due at once. Its phase is the next one of a sequence that
    /// spreads evenly, however many targets are added one by one, and without a walk over the
    /// existing ones.
    pub(crate) fn add_due(&mut self, rhythm: &Cadence, now: Instant) -> TargetKey {
        const GOLDEN_RATIO: f64 = 0.618_033_988_749_895;
        self.added_due = self.added_due.wrapping_add(1);
        self.free_starts = self.free_starts.saturating_add(1);
        let fraction = (f64::from(self.added_due) * GOLDEN_RATIO).fract();
        let phase = (nanos(rhythm.interval).max(1) as f64 * fraction) as Nanos;
        let now = self.nanos(now);
        self.insert(rhythm, phase, now)
    }

    /// Inserts a target with its phase and the time of its first try.
    fn insert(&mut self, rhythm: &Cadence, phase: Nanos, first: Nanos) -> TargetKey {
        let key = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        let place = Entry {
            interval: nanos(rhythm.interval).max(1),
            recheck: nanos(rhythm.recheck).max(1),
            phase,
            due: Some(first),
            pause: Pause::Recheck,
            removed: false,
        };
        self.rate += place.rate();
        self.entries[key] = Some(place);
        self.queue.push(Reverse((first, key)));
        key
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
            self.free.push(key);
        }
    }

    /// Returns the time at which the next try of a target is due; none while one is in flight.
    pub(crate) fn due(&self, key: TargetKey) -> Option<Instant> {
        let entry = self.entries.get(key)?.as_ref()?;
        entry.due.map(|due| self.instant(due))
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
            let is_free = self.free_starts > 0;
            let at = if is_free { due } else { due.max(self.not_before) };
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
        if let Some(left) = self.free_starts.checked_sub(1) {
            self.free_starts = left;
            return;
        }
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
            self.free.push(key);
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
mod tests;
