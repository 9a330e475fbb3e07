//! How much of one kind of work a turn of the monitor does before all others have their turn.

use std::time::{Duration, Instant};

use crate::clock;

/// A turn with all kinds of work in it is then still far shorter than a check may be late.
const TIME: Duration = Duration::from_millis(2);

/// So many, however quick they are.
const STEPS: usize = 256;

/// Steps of one kind of work that are left to a turn.
pub(super) struct Budget {
    until: Instant,
    steps: usize,
}

impl Budget {
    pub fn new() -> Self {
        Self { until: clock::now() + TIME, steps: STEPS }
    }

    /// Takes a step, if there is one left. The first always is: a slow step must not stop the work for good.
    pub fn take(&mut self) -> bool {
        let may = self.steps == STEPS || (self.steps > 0 && clock::now() < self.until);
        self.steps = self.steps.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_turn_has_so_many_steps_and_so_much_time_but_at_least_one_step() {
        let mut quick = Budget::new();
        assert_eq!((0..2 * STEPS).filter(|_| quick.take()).count(), STEPS);
        let mut slow = Budget::new();
        tokio::time::advance(TIME * 2).await;
        assert_eq!([slow.take(), slow.take(), slow.take()], [true, false, false]);
    }
}
