//! The last hour of a target, a minute at a time: two bits for each, so that ten thousand targets
//! need 320 kB. Pure.

use std::time::{Duration, Instant};

use crate::health::{State, Verdict};

/// The minutes that are kept, the current one included.
const MINUTES: u32 = 60;

const MINUTE: Duration = Duration::from_secs(60);

/// The bits in use of each word.
const MASK: u64 = (1 << MINUTES) - 1;

/// The worst that happened to a target in one minute. Later ones are worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Minute {
    /// No try had a conclusive verdict.
    Unchecked,
    /// All tries passed, and the target was not Down.
    Passed,
    /// A try failed, and the target was not Down.
    Failed,
    /// The target was Down.
    Down,
}

impl Minute {
    /// Returns the minute of a verdict that led to this state; none if it says nothing.
    pub(super) fn of(verdict: &Verdict, state: State) -> Option<Self> {
        match (verdict, state) {
            (Verdict::Inconclusive(_), _) => None,
            (_, State::Down) => Some(Minute::Down),
            (Verdict::Fail(_), _) => Some(Minute::Failed),
            (Verdict::Pass, _) => Some(Minute::Passed),
        }
    }
}

/// The minutes of the last hour. They are counted from the first verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LastHour {
    /// The lower bit of each minute. The newest minute is bit 0.
    low: u64,
    /// The higher bit of each minute.
    high: u64,
    /// The start of the newest minute; none before the first verdict.
    newest: Option<Instant>,
}

impl LastHour {
    /// Records what happened now. The worst of a minute counts.
    pub(super) fn record(&mut self, minute: Minute, now: Instant) {
        self.advance(now);
        let known = self.newest_minute();
        let bits = known.max(minute) as u64;
        self.low = self.low & !1 | bits & 1;
        self.high = self.high & !1 | bits >> 1;
    }

    fn newest_minute(&self) -> Minute {
        minute_at(self.low, self.high, 0)
    }

    /// Begins the minute of `now`, if it is a new one.
    fn advance(&mut self, now: Instant) {
        let newest = *self.newest.get_or_insert(now);
        let passed = now.saturating_duration_since(newest).as_secs() / MINUTE.as_secs();
        let shift = passed.min(u64::from(MINUTES)) as u32;
        self.low = self.low << shift & MASK;
        self.high = self.high << shift & MASK;
        self.newest = newest.checked_add(Duration::from_secs(passed * MINUTE.as_secs()));
    }

    /// Returns the minutes from the first known one to that of `now`.
    pub fn minutes(mut self, now: Instant) -> impl Iterator<Item = Minute> {
        let any = self.newest.is_some();
        self.advance(now);
        let known = if any { u64::BITS - (self.low | self.high).leading_zeros() } else { 0 };
        (0..known).rev().map(move |bit| minute_at(self.low, self.high, bit))
    }
}

fn minute_at(low: u64, high: u64, bit: u32) -> Minute {
    match (high >> bit & 1, low >> bit & 1) {
        (0, 0) => Minute::Unchecked,
        (0, _) => Minute::Passed,
        (_, 0) => Minute::Failed,
        (_, _) => Minute::Down,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// Returns the hour at `now` as text, after records at these seconds.
    fn hour(records: &[(u64, Minute)], now: u64) -> String {
        let start = clock::now();
        let at = |second| start + Duration::from_secs(second);
        let mut hour = LastHour::default();
        records.iter().for_each(|(second, minute)| hour.record(*minute, at(*second)));
        let letter = |minute| ['.', 'p', 'f', 'd'][minute as usize];
        hour.minutes(at(now)).map(letter).collect()
    }

    #[test]
    fn the_worst_of_a_minute_counts() {
        use Minute::{Down, Failed, Passed};
        assert_eq!(hour(&[], 500), "");
        assert_eq!(hour(&[(0, Passed)], 0), "p");
        assert_eq!(hour(&[(0, Passed), (30, Failed), (59, Passed)], 59), "f");
        assert_eq!(hour(&[(0, Down), (1, Passed), (60, Failed), (61, Passed)], 61), "df");
        assert_eq!(hour(&[(0, Passed), (179, Down)], 179), "p.d", "a minute without a verdict");
    }

    #[test]
    fn minutes_leave_after_an_hour() {
        let all: Vec<_> = (0..90).map(|minute| (minute * 60, Minute::Passed)).collect();
        assert_eq!(hour(&all, 89 * 60), "p".repeat(60));
        assert_eq!(hour(&[(0, Minute::Down)], 59 * 60), "d".to_owned() + &".".repeat(59));
        assert_eq!(hour(&[(0, Minute::Down)], 60 * 60), "");
        assert_eq!(hour(&[(0, Minute::Down)], u64::from(u32::MAX)), "");
        let again = [(0, Minute::Down), (7200, Minute::Passed)];
        assert_eq!(hour(&again, 7200), "p");
    }

    #[test]
    fn an_inconclusive_try_says_nothing() {
        let inconclusive = Verdict::Inconclusive("no descriptors".into());
        for state in [State::Up, State::Down, State::Unknown] {
            assert_eq!(Minute::of(&inconclusive, state), None);
        }
        assert_eq!(Minute::of(&Verdict::Pass, State::Down), Some(Minute::Down));
        assert_eq!(Minute::of(&Verdict::Pass, State::Up), Some(Minute::Passed));
        assert_eq!(Minute::of(&Verdict::Fail("x".into()), State::Up), Some(Minute::Failed));
        assert_eq!(size_of::<LastHour>(), 32, "times ten thousand targets");
    }
}
