//! How often one database is written: never twice in 200 ms, and ever more rarely while someone undoes it. No clock of its own.

use std::time::{Duration, Instant};

use crate::publish::apply::queue::Urgency;
use crate::publish::backoff::Backoff;

/// The least time between two writes. What is decided meanwhile becomes one write.
const APART: Duration = Duration::from_millis(200);

/// After this long without a write, the pauses before repairs start short again.
const QUIET: Duration = Duration::from_secs(10);

/// Pauses before repairs grow this long only when someone keeps undoing them.
const QUARREL: Duration = Duration::from_millis(1500);

/// When a database was written last, and how soon it may be again.
#[derive(Default)]
pub(crate) struct WriteThrottle {
    last: Option<Instant>,
    repairs: Backoff,
    /// How long repairs leave alone what was written, if longer than other writes do.
    repair_pause: Duration,
    /// Whether the last write only made what the next one fills. The two count as one.
    half: bool,
}

impl WriteThrottle {
    /// How long to wait before a write like this; none if it may be at once.
    pub(crate) fn rest(&self, urgency: Urgency, now: Instant) -> Option<Duration> {
        let last = self.last.filter(|_| !self.half)?;
        let pause = if urgency == Urgency::Repair { self.repair_pause.max(APART) } else { APART };
        let rest = pause.saturating_sub(now.saturating_duration_since(last));
        (!rest.is_zero()).then_some(rest)
    }

    /// Takes note of a write that begins; `half` is one that makes what another will fill.
    pub(crate) fn begin(&mut self, urgency: Urgency, half: bool, now: Instant) {
        let whole = !std::mem::replace(&mut self.half, half);
        let last = self.last.replace(now);
        if last.is_none_or(|last| now.saturating_duration_since(last) > QUIET) {
            self.repairs.reset();
            self.repair_pause = Duration::ZERO;
        }
        if urgency == Urgency::Repair && whole {
            self.repair_pause = self.repairs.next();
        }
    }

    /// Takes note that what was decided takes another write, which counts as one with the last.
    pub(crate) fn go_on(&mut self) {
        self.half = true;
    }

    /// Whether someone keeps undoing what is written.
    pub(crate) fn is_quarrel(&self) -> bool {
        self.repair_pause > QUARREL
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
        let mut pace = WriteThrottle::default();
        assert_eq!(pace.rest(Urgency::Repair, now), None);
        pace.begin(Urgency::Change, false, now);
        for urgency in [Urgency::Removal, Urgency::Change, Urgency::Repair] {
            assert_eq!(pace.rest(urgency, now + ms(50)), Some(ms(150)));
            assert_eq!(pace.rest(urgency, now + ms(200)), None);
        }
    }

    #[test]
    fn what_makes_and_what_fills_are_one_write() {
        let now = clock::now();
        let mut pace = WriteThrottle::default();
        pace.begin(Urgency::Change, true, now);
        assert_eq!(pace.rest(Urgency::Change, now), None);
        pace.begin(Urgency::Change, false, now);
        assert_eq!(pace.rest(Urgency::Change, now), Some(APART));
    }

    /// Repairs as fast as they may be: how long each waits after the one before.
    #[test]
    fn repairs_grow_rare_and_hold_up_no_removal() {
        let mut now = clock::now();
        let mut pace = WriteThrottle::default();
        let mut rests = Vec::new();
        for _ in 0..8 {
            pace.begin(Urgency::Repair, false, now);
            assert_eq!(pace.rest(Urgency::Removal, now), Some(APART));
            let rest = pace.rest(Urgency::Repair, now).expect("a rest");
            rests.push(rest.as_millis());
            now += rest;
        }
        assert_eq!(rests, [200, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert!(pace.is_quarrel());
        pace.begin(Urgency::Repair, false, now + QUIET + ms(1));
        assert!(!pace.is_quarrel());
    }
}
