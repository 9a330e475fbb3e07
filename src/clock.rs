//! The one place that reads a clock, so that everything else takes time as an argument or can be tested under paused time.

use std::ops::Add;
use std::time::{Duration, Instant, SystemTime};

/// Monotonic time. Goes through tokio, so that a test can pause it.
#[expect(clippy::disallowed_methods, reason = "this module owns the clock")]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The calendar time at which `moment` was or will be, for people to read.
#[expect(clippy::disallowed_methods, reason = "this module owns the clock")]
pub fn wall(moment: Instant) -> SystemTime {
    let now = now();
    SystemTime::now() - now.saturating_duration_since(moment) + moment.saturating_duration_since(now)
}

/// A moment on the clock that goes on while the machine is suspended, where that of [`Instant`] stands still: what counts
/// where others wait, who were not suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    pub fn saturating_duration_since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, time: Duration) -> Moment {
        Moment(self.0.saturating_add(time))
    }
}

/// Now, on the clock that is not suspended with the machine.
pub fn moment() -> Moment {
    let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Moment(Duration::try_from(since_boot).unwrap_or_default())
}
