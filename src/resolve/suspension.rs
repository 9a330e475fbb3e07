//! Finds out that the machine was suspended. The clock of all timers stands still meanwhile, so
//! names would be asked too late.

use std::time::{Duration, Instant};

use crate::clock::{self, BootInstant};

const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The least difference of the clocks that counts.
const MIN_SUSPENSION: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct SuspensionWatch {
    checked_at: Instant,
    boot_time: BootInstant,
}

impl SuspensionWatch {
    pub(super) fn new(now: Instant) -> Self {
        Self { checked_at: now, boot_time: clock::boot_now() }
    }

    pub(super) fn next_check(&self) -> Instant {
        self.checked_at + CHECK_INTERVAL
    }

    /// Returns true if the machine was suspended since the last check.
    pub(super) fn has_passed(&mut self, now: Instant) -> bool {
        if now < self.next_check() {
            return false;
        }
        self.compare(now, clock::boot_now())
    }

    fn compare(&mut self, now: Instant, boot_time: BootInstant) -> bool {
        let awake = now.saturating_duration_since(self.checked_at);
        let all = boot_time.saturating_duration_since(self.boot_time);
        (self.checked_at, self.boot_time) = (now, boot_time);
        all.saturating_sub(awake) >= MIN_SUSPENSION
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_of_suspension_is_found_once() {
        let now = clock::now();
        let mut watch = SuspensionWatch::new(now);
        let (later, boot) = (now + CHECK_INTERVAL, watch.boot_time + CHECK_INTERVAL);
        assert!(!watch.compare(later, boot));
        let later = later + CHECK_INTERVAL;
        let boot = boot + CHECK_INTERVAL + Duration::from_secs(3600);
        assert!(watch.compare(later, boot));
        assert!(!watch.compare(later + CHECK_INTERVAL, boot + CHECK_INTERVAL));
    }
}
