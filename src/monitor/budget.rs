//! The budget of one kind of work in a turn of the loop, so that each kind gets its share.

use std::time::{Duration, Instant};

use crate::clock;

/// Time of one kind of work in a turn. A turn with all kinds is still far shorter than a check may
/// be late.
const MAX_TIME: Duration = Duration::from_millis(2);

/// Steps of one kind of work in a turn, however quick they are.
const MAX_STEPS: usize = 256;

/// Steps between two readings of the clock, which take long beside a quick step.
const CLOCK_STRIDE: usize = 16;

/// Steps of one kind of work that are left to a turn.
pub(super) struct Budget {
    /// None before the first step.
    ends_at: Option<Instant>,
    spent: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { ends_at: None, spent: 0 }
    }

    /// Spends a step, if there is one left. The first always is: a slow step must not stop the work
    /// for good. The clock is read at steps 1, 2, 4, 8 and 16, and at each sixteenth from then on,
    /// so that slow steps are noticed early.
    pub(super) fn try_spend(&mut self) -> bool {
        self.spent += 1;
        if self.spent > MAX_STEPS {
            return false;
        }
        if !self.spent.is_power_of_two() && !self.spent.is_multiple_of(CLOCK_STRIDE) {
            return true;
        }
        let now = clock::now();
        let in_time = now < *self.ends_at.get_or_insert(now + MAX_TIME);
        if !in_time {
            self.spent = MAX_STEPS;
        }
        in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_limited_in_steps_and_time_but_has_one_step() {
        let mut quick = Budget::new();
        assert_eq!((0..2 * MAX_STEPS).filter(|_| quick.try_spend()).count(), MAX_STEPS);
        let mut slow = Budget::new();
        assert!(slow.try_spend());
        tokio::time::advance(MAX_TIME * 2).await;
        assert_eq!([slow.try_spend(), slow.try_spend()], [false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_is_read_at_few_of_many_quick_steps() {
        let mut budget = Budget::new();
        for step in 0..100 {
            assert!(budget.try_spend(), "{step}");
        }
        tokio::time::advance(MAX_TIME * 2).await;
        assert_eq!(
            std::iter::from_fn(|| budget.try_spend().then_some(())).count(),
            11,
            "up to step 111"
        );
        assert!(!budget.try_spend());
    }

    #[tokio::test(start_paused = true)]
    async fn steps_that_are_slow_from_the_first_are_soon_noticed() {
        let mut budget = Budget::new();
        let mut steps = 0;
        while budget.try_spend() {
            tokio::time::advance(MAX_TIME / 2).await;
            steps += 1;
        }
        assert!(steps <= 3, "{steps}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_counts_from_the_first_step() {
        let mut budget = Budget::new();
        tokio::time::advance(MAX_TIME * 2).await;
        assert_eq!([budget.try_spend(), budget.try_spend()], [true, true]);
    }
}
