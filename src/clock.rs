//! The one place that reads a clock, so that everything else takes time as an argument or can be tested under paused time.

use std::time::{Instant, SystemTime};

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
