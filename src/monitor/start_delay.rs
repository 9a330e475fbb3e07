//! The delay between when a try is due and when it starts: counts it, and reports when there is
//! more to do than can be done.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::histogram::{DurationHistogram, ms};

/// The bounds of the delays.
const DELAY_BOUNDS: [Duration; 11] = [
    ms(1),
    Duration::from_micros(2500),
    ms(5),
    ms(10),
    ms(25),
    ms(50),
    ms(100),
    ms(250),
    ms(500),
    ms(1000),
    ms(2500),
];

/// Time over which delays are evaluated. A short stall is not reported.
const EVALUATION_WINDOW: Duration = Duration::from_secs(10);

/// The resource of which there is too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bottleneck {
    Descriptors,
    Commands,
    Processor,
}

impl Bottleneck {
    fn advice(self) -> &'static str {
        match self {
            Bottleneck::Descriptors => {
                "more file descriptors are needed (`ulimit -n`), or longer intervals, or shorter \
                 timeouts"
            }
            Bottleneck::Commands => {
                "more commands must run at once (--max-exec), or exec checks need longer intervals \
                 or shorter timeouts"
            }
            Bottleneck::Processor => "more processor time is needed, or longer intervals",
        }
    }
}

/// The delays of all starts, and the window that is being evaluated.
pub(super) struct StartDelay {
    delays: DurationHistogram,
    late: u64,
    /// Waiting tries that were late already at the end of the last window.
    waiting: u64,
    /// The highest number of late tries so far. A try that leaves the config while it waits does
    /// not lower it.
    max_late: u64,
    window_started_at: Instant,
    started: u64,
    started_late: u64,
    overloaded: bool,
    /// The start of the first of the latest windows in a row in which most tries started late, and
    /// exec checks were not the bottleneck.
    late_since: Option<Instant>,
}

impl StartDelay {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            delays: DurationHistogram::new(&DELAY_BOUNDS),
            late: 0,
            waiting: 0,
            max_late: 0,
            window_started_at: now,
            started: 0,
            started_late: 0,
            overloaded: false,
            late_since: None,
        }
    }

    /// Counts the start of a try, of a target with this interval.
    pub(super) fn observe(&mut self, delay: Duration, interval: Duration) {
        self.delays.observe(delay);
        self.started += 1;
        if is_late(delay, interval) {
            self.late += 1;
            self.started_late += 1;
        }
    }

    /// Returns whether the window is over.
    pub(super) fn is_window_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.window_started_at) >= EVALUATION_WINDOW
    }

    /// Sets the number of waiting tries that are late already. Each try is counted once: among
    /// these until it starts, and among those that started late from then on.
    pub(super) fn set_waiting(&mut self, late: u64) {
        self.waiting = late;
        self.max_late = self.max_late.max(self.late + late);
    }

    /// Evaluates the window once it is over, and logs the beginning and the end of an overload.
    pub(super) fn evaluate(&mut self, now: Instant, bottleneck: impl Fn() -> Bottleneck) {
        if !self.is_window_over(now) {
            return;
        }
        let (started, late) = (self.started, self.started_late);
        let began = std::mem::replace(&mut self.window_started_at, now);
        (self.started, self.started_late) = (0, 0);
        let mostly_late = match (started, bottleneck()) {
            // The config causes that, so no other replica could do better.
            (_, Bottleneck::Commands) => false,
            (0, bottleneck) => bottleneck == Bottleneck::Descriptors,
            (_, _) => late * 2 > started,
        };
        self.late_since = self.late_since.or(Some(began)).filter(|_| mostly_late);
        // A try that never starts is late too.
        let waiting = self.waiting;
        // One in ten is more than a single slow target or a single stall.
        let overloaded = (late + waiting) * 10 > started + waiting;
        if overloaded && !self.overloaded {
            let advice = bottleneck().advice();
            warn!(
                started,
                late,
                waiting,
                advice,
                "checks start late: there is more to do than can be done, and all targets are \
                 tried less often"
            );
        }
        if !overloaded && self.overloaded {
            info!(started, late, "checks start in time again");
        }
        self.overloaded = overloaded;
    }

    /// Returns the time since which most tries start late, or none starts although some wait.
    /// Returns none if that is not so, or if exec checks are the bottleneck.
    pub(super) fn late_since(&self) -> Option<Instant> {
        self.late_since
    }

    pub(super) fn delays(&self) -> &DurationHistogram {
        &self.delays
    }

    /// Returns the number of tries that started more than half an interval late, or have waited as
    /// long.
    pub(super) fn late_starts(&self) -> u64 {
        self.late.max(self.max_late)
    }

    #[cfg(test)]
    pub(super) fn is_overloaded(&self) -> bool {
        self.overloaded
    }
}

/// Returns whether a start with this delay makes its target be tried less often than it should be.
pub(super) fn is_late(delay: Duration, interval: Duration) -> bool {
    delay > interval / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_one_late_start_in_ten_is_an_overload() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let start = Instant::now();
        let mut start_delay = StartDelay::new(start);
        let mut run = |late: u64, at: Duration| {
            for index in 0..100 {
                start_delay.observe(if index < late { ms(501) } else { ms(500) }, ms(1000));
            }
            start_delay.evaluate(start + at, || Bottleneck::Processor);
            (start_delay.is_overloaded(), start_delay.late_starts())
        };
        assert_eq!(run(100, EVALUATION_WINDOW - ms(1)), (false, 100), "it is too early to say");
        assert_eq!(run(0, EVALUATION_WINDOW), (true, 100));
        assert_eq!(run(10, EVALUATION_WINDOW * 2), (false, 110));
        assert_eq!(run(11, EVALUATION_WINDOW * 3), (true, 121));
    }

    #[test]
    fn tries_that_wait_and_never_start_are_late_and_count_once() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let start = Instant::now();
        let mut start_delay = StartDelay::new(start);
        let mut run = |late: u32, waiting, windows: u32| {
            (0..100).for_each(|index| {
                start_delay.observe(if index < late { ms(501) } else { ms(0) }, ms(1000))
            });
            start_delay.set_waiting(waiting);
            start_delay.evaluate(start + EVALUATION_WINDOW * windows, || Bottleneck::Commands);
            (start_delay.is_overloaded(), start_delay.late_starts())
        };
        assert_eq!(run(0, 11, 1), (false, 11), "11 of 111");
        assert_eq!(run(0, 12, 2), (true, 12), "12 of 112");
        assert_eq!(run(0, 12, 3), (true, 12), "the same ones still wait");
        assert_eq!(run(5, 7, 4), (true, 12), "five of them have started");
        assert_eq!(run(0, 0, 5), (false, 12), "the others have left the config");
        assert_eq!(run(9, 0, 6), (false, 14));
    }

    #[test]
    fn most_tries_are_late_from_the_start_of_the_first_such_window() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let start = Instant::now();
        let mut start_delay = StartDelay::new(start);
        let mut run = |late: u32, started: u32, bottleneck, windows: u32| {
            (0..started).for_each(|index| {
                start_delay.observe(if index < late { ms(501) } else { ms(0) }, ms(1000))
            });
            start_delay.evaluate(start + EVALUATION_WINDOW * windows, || bottleneck);
            start_delay.late_since()
        };
        assert_eq!(run(50, 100, Bottleneck::Processor, 1), None);
        assert_eq!(run(51, 100, Bottleneck::Processor, 2), Some(start + EVALUATION_WINDOW));
        assert_eq!(
            run(0, 0, Bottleneck::Descriptors, 3),
            Some(start + EVALUATION_WINDOW),
            "all wait"
        );
        assert_eq!(run(100, 100, Bottleneck::Processor, 4), Some(start + EVALUATION_WINDOW));
        assert_eq!(run(0, 0, Bottleneck::Processor, 5), None, "nothing is due");
        assert_eq!(run(51, 100, Bottleneck::Processor, 6), Some(start + EVALUATION_WINDOW * 5));
    }

    #[test]
    fn exec_checks_that_wait_for_each_other_blame_no_replica() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let start = Instant::now();
        let mut start_delay = StartDelay::new(start);
        for (windows, started) in [(1, 100), (2, 0), (3, 100)] {
            (0..started).for_each(|_| start_delay.observe(ms(501), ms(1000)));
            start_delay.evaluate(start + EVALUATION_WINDOW * windows, || Bottleneck::Commands);
            assert_eq!(start_delay.late_since(), None, "window {windows}");
        }
        assert_eq!(
            (start_delay.is_overloaded(), start_delay.late_starts()),
            (true, 200),
            "the overload is reported all the same"
        );
    }
}
