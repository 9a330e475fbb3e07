//! The throttle of one database's writes: never two within 200 ms, and repairs ever more rarely
//! while someone undoes them. It has no clock of its own.

use std::time::{Duration, Instant};

use super::queue::Urgency;
use crate::publish::backoff::Backoff;

/// The least time between two writes. Decisions within it become one write.
const MIN_DELAY: Duration = Duration::from_millis(200);

/// The time without a write after which the delays before repairs are short again.
const RESET_AFTER: Duration = Duration::from_secs(10);

/// The delay before a repair that is only reached when someone keeps undoing the repairs.
const CONTENDED_AFTER: Duration = Duration::from_millis(1500);

/// The size of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteSize {
    /// The write only creates an object that the next one fills. The two count as one.
    Placeholder,
    Full,
}

/// The throttle of one database's writes.
#[derive(Default)]
pub(crate) struct WriteThrottle {
    last_write: Option<Instant>,
    repairs: Backoff,
    /// The delay before the next repair, if longer than that before other writes.
    repair_delay: Duration,
    /// True if the next write counts as one with the last.
    is_in_batch: bool,
}

impl WriteThrottle {
    /// Returns the delay before a write of this urgency; none if it may be made at once.
    pub(crate) fn delay(&self, urgency: Urgency, now: Instant) -> Option<Duration> {
        let last_write = self.last_write.filter(|_| !self.is_in_batch)?;
        let delay = match urgency {
            Urgency::Repair => self.repair_delay.max(MIN_DELAY),
            Urgency::Removal | Urgency::Change => MIN_DELAY,
        };
        let rest = delay.saturating_sub(now.saturating_duration_since(last_write));
        (!rest.is_zero()).then_some(rest)
    }

    /// Records a write that begins.
    pub(crate) fn record_write(&mut self, urgency: Urgency, size: WriteSize, now: Instant) {
        let is_placeholder = size == WriteSize::Placeholder;
        let was_in_batch = std::mem::replace(&mut self.is_in_batch, is_placeholder);
        let last_write = self.last_write.replace(now);
        if last_write.is_none_or(|last| now.saturating_duration_since(last) > RESET_AFTER) {
            self.repairs.reset();
            self.repair_delay = Duration::ZERO;
        }
        if urgency == Urgency::Repair && !was_in_batch {
            self.repair_delay = self.repairs.next();
        }
    }

    /// Records that the plan takes another write, which counts as one with the last.
    pub(crate) fn continue_batch(&mut self) {
        self.is_in_batch = true;
    }

    /// Returns whether someone keeps undoing the writes.
    pub(crate) fn is_contended(&self) -> bool {
        self.repair_delay > CONTENDED_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn two_writes_are_never_closer_than_they_may_be() {
        let now = clock::now();
        let mut throttle = WriteThrottle::default();
        assert_eq!(throttle.delay(Urgency::Repair, now), None);
        throttle.record_write(Urgency::Change, WriteSize::Full, now);
        for urgency in [Urgency::Removal, Urgency::Change, Urgency::Repair] {
            assert_eq!(throttle.delay(urgency, now + ms(50)), Some(ms(150)));
            assert_eq!(throttle.delay(urgency, now + ms(200)), None);
        }
    }

    #[test]
    fn a_placeholder_and_the_write_that_fills_it_are_one() {
        let now = clock::now();
        let mut throttle = WriteThrottle::default();
        throttle.record_write(Urgency::Change, WriteSize::Placeholder, now);
        assert_eq!(throttle.delay(Urgency::Change, now), None);
        throttle.record_write(Urgency::Change, WriteSize::Full, now);
        assert_eq!(throttle.delay(Urgency::Change, now), Some(MIN_DELAY));
    }

    /// Repairs as fast as they may be made, with the delay of each after the one before.
    #[test]
    fn repairs_become_rare_and_hold_up_no_removal() {
        let mut now = clock::now();
        let mut throttle = WriteThrottle::default();
        let mut delays = Vec::new();
        for _ in 0..8 {
            throttle.record_write(Urgency::Repair, WriteSize::Full, now);
            assert_eq!(throttle.delay(Urgency::Removal, now), Some(MIN_DELAY));
            let delay = throttle.delay(Urgency::Repair, now).expect("a delay");
            delays.push(delay.as_millis());
            now += delay;
        }
        assert_eq!(delays, [200, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert!(throttle.is_contended());
        throttle.record_write(Urgency::Repair, WriteSize::Full, now + RESET_AFTER + ms(1));
        assert!(!throttle.is_contended());
    }
}
