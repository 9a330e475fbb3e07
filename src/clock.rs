//! The clocks. Only this module reads one, so that all others take the time as an argument or can
//! be tested under paused time.

use std::ops::Add;
use std::time::{Duration, Instant, SystemTime};

/// Returns the monotonic time. It comes from tokio, so that a test can pause it.
#[expect(clippy::disallowed_methods, reason = "this module owns the clock")]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Converts a monotonic time to the calendar time, for people to read.
#[expect(clippy::disallowed_methods, reason = "this module owns the clock")]
pub(crate) fn to_wall_clock(instant: Instant) -> SystemTime {
    let (wall, now) = (SystemTime::now(), now());
    let time = wall.checked_sub(now.saturating_duration_since(instant));
    let time = time.and_then(|time| time.checked_add(instant.saturating_duration_since(now)));
    time.unwrap_or(wall)
}

/// The last second that RFC 3339 can express, at the end of the year 9999, since 1970.
const LAST_SECOND: Duration = Duration::from_secs(253_402_300_799);

/// Formats a calendar time by RFC 3339, in UTC, to the millisecond. A time before 1970 or after the
/// year 9999 becomes the nearest that can be expressed.
pub(crate) fn rfc3339_millis(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(within_rfc3339(time)).to_string()
}

/// Formats a calendar time like [`rfc3339_millis`], to the second.
pub(crate) fn rfc3339_seconds(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(within_rfc3339(time)).to_string()
}

fn within_rfc3339(time: SystemTime) -> SystemTime {
    time.clamp(SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + LAST_SECOND)
}

/// A time of `CLOCK_BOOTTIME`, which goes on while the machine is suspended. The clock of
/// [`Instant`] stands still meanwhile, and can't be used where other machines wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BootInstant(Duration);

impl BootInstant {
    pub(crate) fn saturating_duration_since(self, earlier: BootInstant) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for BootInstant {
    type Output = BootInstant;

    fn add(self, time: Duration) -> BootInstant {
        BootInstant(self.0.saturating_add(time))
    }
}

/// Returns the time of `CLOCK_BOOTTIME`.
pub(crate) fn boot_now() -> BootInstant {
    let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    BootInstant(Duration::try_from(since_boot).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_that_rfc3339_lacks_becomes_the_nearest() {
        let epoch = SystemTime::UNIX_EPOCH;
        let table = [
            (epoch - Duration::from_secs(1), "1970-01-01T00:00:00.000Z"),
            (epoch + Duration::from_millis(1_234_567_890_123), "2009-02-13T23:31:30.123Z"),
            (epoch + LAST_SECOND, "9999-12-31T23:59:59.000Z"),
            (epoch + LAST_SECOND + Duration::from_secs(1), "9999-12-31T23:59:59.000Z"),
        ];
        for (time, text) in table {
            assert_eq!(rfc3339_millis(time), text);
            assert_eq!(rfc3339_seconds(time), format!("{}Z", &text[..19]));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn every_time_can_be_formatted(seconds in any::<u64>(), nanos in 0..1_000_000_000_u32) {
            let duration = Duration::new(seconds, nanos);
            let epoch = SystemTime::UNIX_EPOCH;
            let times = [epoch.checked_add(duration), epoch.checked_sub(duration)];
            for time in times.into_iter().flatten() {
                prop_assert_eq!(rfc3339_millis(time).len(), 24);
            }
            let instants = [now().checked_add(duration), now().checked_sub(duration)];
            for instant in instants.into_iter().flatten() {
                prop_assert_eq!(rfc3339_seconds(to_wall_clock(instant)).len(), 20);
            }
        }
    }
}
