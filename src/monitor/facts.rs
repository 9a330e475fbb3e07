//! The facts about the checks as a whole, kept where any thread can read them while the monitor
//! stands still.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::health::Verdict;
use crate::schedule::TargetKey;

/// Inconclusive tries in a row that make a run, however few targets there are.
const MIN_INCONCLUSIVE: usize = 3;

/// The value for no time.
const NONE: u64 = u64::MAX;

/// The facts, as the monitor writes them and others read them. Without a lock, which a monitor that
/// stands still might hold.
pub(super) struct Facts {
    origin: Instant,
    late_since: AtomicU64,
    inconclusive_since: AtomicU64,
}

impl Facts {
    pub(super) fn new(origin: Instant) -> Self {
        Self { origin, late_since: AtomicU64::new(NONE), inconclusive_since: AtomicU64::new(NONE) }
    }

    pub(super) fn set_late_since(&self, since: Option<Instant>) {
        self.late_since.store(self.nanos(since), Ordering::Relaxed);
    }

    pub(super) fn set_inconclusive_since(&self, since: Option<Instant>) {
        self.inconclusive_since.store(self.nanos(since), Ordering::Relaxed);
    }

    pub(super) fn late_since(&self) -> Option<Instant> {
        self.instant(self.late_since.load(Ordering::Relaxed))
    }

    pub(super) fn inconclusive_since(&self) -> Option<Instant> {
        self.instant(self.inconclusive_since.load(Ordering::Relaxed))
    }

    fn nanos(&self, since: Option<Instant>) -> u64 {
        since.map_or(NONE, |since| since.saturating_duration_since(self.origin).as_nanos() as u64)
    }

    fn instant(&self, nanos: u64) -> Option<Instant> {
        (nanos != NONE).then(|| self.origin + Duration::from_nanos(nanos))
    }
}

/// The inconclusive tries since the last one that was not.
pub(super) struct InconclusiveRun {
    /// The number of targets.
    targets: usize,
    since: Option<Instant>,
    tries: usize,
    /// The targets that were tried in it. Tries alone say nothing of one with a long interval,
    /// which may pass each time it is its turn.
    tried_targets: BTreeSet<TargetKey>,
}

impl InconclusiveRun {
    /// Creates an empty run, for this number of targets.
    pub(super) fn new(targets: usize) -> Self {
        Self { targets, since: None, tries: 0, tried_targets: BTreeSet::new() }
    }

    /// Returns the number of targets.
    pub(super) fn targets(&self) -> usize {
        self.targets
    }

    /// Sets the number of targets.
    pub(super) fn set_targets(&mut self, targets: usize) {
        self.targets = targets;
    }

    /// Counts the verdict of one more try.
    pub(super) fn observe(&mut self, target: TargetKey, verdict: &Verdict, now: Instant) {
        if !matches!(verdict, Verdict::Inconclusive(_)) {
            (self.since, self.tries) = (None, 0);
            self.tried_targets.clear();
            return;
        }
        self.since.get_or_insert(now);
        self.tries += 1;
        self.tried_targets.insert(target);
    }

    /// Returns the start of the run, once each target was tried in it.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
            .filter(|_| self.tries >= MIN_INCONCLUSIVE && self.tried_targets.len() >= self.targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn facts_are_read_as_they_were_written() {
        let origin = clock::now();
        let facts = Facts::new(origin);
        assert_eq!((facts.late_since(), facts.inconclusive_since()), (None, None));
        let later = origin + Duration::from_millis(1500);
        facts.set_late_since(Some(later));
        facts.set_inconclusive_since(Some(origin));
        assert_eq!((facts.late_since(), facts.inconclusive_since()), (Some(later), Some(origin)));
        facts.set_late_since(None);
        assert_eq!(facts.late_since(), None);
    }

    #[test]
    fn a_run_counts_once_every_target_has_been_tried() {
        let start = clock::now();
        let inconclusive = Verdict::Inconclusive("no file descriptors".into());
        for (tries, targets, since) in
            [(2, 1, None), (3, 1, Some(start)), (3, 4, None), (4, 4, Some(start))]
        {
            let mut run = InconclusiveRun::new(targets);
            let at = |second| start + Duration::from_secs(second);
            (0..tries).for_each(|nth| run.observe(nth as usize % targets, &inconclusive, at(nth)));
            assert_eq!(run.since(), since, "{tries} tries of {targets} targets");
        }
        let mut run = InconclusiveRun::new(1);
        for conclusive in [Verdict::Pass, Verdict::Fail("refused".into())] {
            run.observe(0, &conclusive, start);
            assert_eq!(run.since(), None, "{conclusive:?}");
            (0..9).for_each(|_| run.observe(0, &inconclusive, start));
        }
    }

    #[test]
    fn a_run_says_nothing_of_a_target_that_is_rarely_tried() {
        let start = clock::now();
        let inconclusive = Verdict::Inconclusive("no such program".into());
        let at = |second| start + Duration::from_secs(second);
        let mut run = InconclusiveRun::new(3);
        for minute in 0..3 {
            run.observe(0, &Verdict::Pass, at(60 * minute));
            for second in (1..60).step_by(5) {
                [1, 2].into_iter().for_each(|target| {
                    run.observe(target, &inconclusive, at(60 * minute + second))
                });
                assert_eq!(run.since(), None, "in minute {minute}, after {second} s");
            }
        }
        run.observe(0, &inconclusive, at(180));
        assert_eq!(run.since(), Some(at(121)), "now all are");
    }
}
