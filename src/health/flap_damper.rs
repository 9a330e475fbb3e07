//! Flap damping, as routers do it (RFC 2439): a target that flips too often is suppressed until it
//! has been Up for a back-off.
//!
//! | flip | too many flips in the window, or suppressed | effect |
//! | --- | --- | --- |
//! | to Up | no | not suppressed |
//! | to Up | yes | suppressed for the back-off, which doubles |
//! | to Down | any | as before: time spent Down does not count |

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::State;

/// Time over which flips are counted.
pub(super) const FLIP_WINDOW: Duration = Duration::from_secs(10 * 60);

/// The shortest and the longest time for which a target is suppressed.
pub(super) const MIN_BACKOFF: Duration = Duration::from_secs(60);
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(15 * 60);

/// Time without a flip after which the back-off starts short again.
const RESET_AFTER: Duration = Duration::from_secs(30 * 60);

/// The flips of one target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FlapDamper {
    /// Flips in the window, at most one more than is allowed.
    recent_flips: VecDeque<Instant>,
    last_flip: Option<Instant>,
    backoff: Option<Duration>,
    suppressed_until: Option<Instant>,
}

impl FlapDamper {
    /// Counts a flip between Up and Down. More than `allowed` in the window suppress the target.
    pub fn record_flip(&mut self, to: State, allowed: u32, now: Instant) {
        let allowed = usize::try_from(allowed).unwrap_or(usize::MAX);
        let age = |at: Instant| now.saturating_duration_since(at);
        if self.last_flip.replace(now).is_none_or(|last| age(last) > RESET_AFTER) {
            self.backoff = None;
        }
        self.recent_flips.retain(|at| age(*at) < FLIP_WINDOW);
        self.recent_flips.push_back(now);
        while self.recent_flips.len() > allowed.saturating_add(1) {
            self.recent_flips.pop_front();
        }
        if to == State::Down {
            self.suppressed_until = self.suppressed_until.filter(|until| *until > now);
        }
        if to == State::Up && (self.recent_flips.len() > allowed || self.suppressed_until.is_some())
        {
            let backoff =
                self.backoff.map_or(MIN_BACKOFF, |backoff| (backoff * 2).min(MAX_BACKOFF));
            self.backoff = Some(backoff);
            self.suppressed_until = now.checked_add(backoff);
        }
    }

    /// Returns the end of the suppression, if the target stays Up.
    pub fn suppressed_until(&self) -> Option<Instant> {
        self.suppressed_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Returns the rest of the back-off after flips at these seconds, the last of them to Up.
    fn after(flips: &[u64]) -> Option<u64> {
        let start = start();
        let mut flaps = FlapDamper::default();
        for (index, at) in flips.iter().enumerate() {
            let to = if (flips.len() - index) % 2 == 1 { State::Up } else { State::Down };
            flaps.record_flip(to, 5, start + Duration::from_secs(*at));
        }
        let last = start + Duration::from_secs(*flips.last().expect("a flip"));
        flaps.suppressed_until().map(|until| until.saturating_duration_since(last).as_secs())
    }

    #[test]
    fn five_flips_in_ten_minutes_are_allowed_and_six_are_not() {
        assert_eq!(after(&[1, 2, 3, 4, 5]), None);
        assert_eq!(after(&[1, 2, 3, 4, 5, 6]), Some(60));
        assert_eq!(after(&[1, 2, 3, 4, 5, 600]), Some(60));
        assert_eq!(after(&[1, 2, 3, 4, 5, 601]), None);
    }

    #[test]
    fn the_backoff_doubles_up_to_a_limit_and_resets_when_quiet() {
        let flaps: Vec<u64> = (1..=18).collect();
        let backoff = |last: usize| after(&flaps[..last]);
        assert_eq!([6, 8, 10, 12, 14, 16].map(backoff), [60, 120, 240, 480, 900, 900].map(Some));
        let again: Vec<u64> = (1..=8).chain(1809..=1814).collect();
        assert_eq!(after(&again), Some(60), "over half an hour after");
        let just: Vec<u64> = (1..=8).chain(1808..=1813).collect();
        assert_eq!(after(&just), Some(240), "half an hour after");
        let sooner: Vec<u64> = (1..=8).chain(1700..=1705).collect();
        assert_eq!(after(&sooner), Some(240));
    }

    #[test]
    fn a_target_that_goes_down_while_suppressed_stays_out_longer() {
        // Suppressed for 60 s at 6, Down at 7, and Up again when the old flips are out of the
        // window.
        assert_eq!(after(&[1, 2, 3, 4, 5, 6, 7, 650]), Some(120));
        // Up for all of the back-off, so no longer suppressed; the next flip is one too many.
        assert_eq!(after(&[1, 2, 3, 4, 5, 6, 70, 80]), Some(120));
        assert_eq!(
            after(&[1, 2, 3, 4, 5, 6, 66, 700]),
            None,
            "Down at the very end of the back-off"
        );
        assert_eq!(after(&[1, 2, 3, 4, 5, 6, 700, 710]), None);
    }

    proptest! {
        #[test]
        fn only_too_many_flips_suppress_and_never_beyond_the_limit(
            pauses in prop::collection::vec(0..400_u64, 1..60),
            allowed in 1..8_u32,
        ) {
            let mut now = start();
            let mut flaps = FlapDamper::default();
            let mut to = State::Down;
            let mut flips = Vec::new();
            for pause in pauses {
                now += Duration::from_secs(pause);
                flaps.record_flip(to, allowed, now);
                flips.push(now);
                let age = |at: &Instant| now.saturating_duration_since(*at);
                let recent = flips.iter().filter(|at| age(at) < FLIP_WINDOW).count();
                if to == State::Up {
                    let backoff = flaps
                        .suppressed_until()
                        .map(|end| end.saturating_duration_since(now));
                    let is_in_range =
                        |backoff: Duration| (MIN_BACKOFF..=MAX_BACKOFF).contains(&backoff);
                    prop_assert!(backoff.is_none_or(is_in_range));
                    prop_assert!(recent <= allowed as usize || backoff.is_some());
                }
                prop_assert!(flaps.recent_flips.len() <= allowed as usize + 1);
                to = if to == State::Up { State::Down } else { State::Up };
            }
        }
    }
}
