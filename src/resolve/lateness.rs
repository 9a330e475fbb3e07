//! The log line about names that are asked late: at most one a minute, with what is short.
//!
//! Names that DNS does not answer wait for each other, which holds up no other name. There is no
//! line about that, because each of these databases reports that its name is not resolved.

use std::time::{Duration, Instant};

use tracing::warn;

use super::queue::Shortage;

/// The least time between two lines.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The lookups that began late since the last line.
#[derive(Debug)]
pub(super) struct LatenessLog {
    shortage: Shortage,
    count: u64,
    latest: Duration,
    logged_at: Option<Instant>,
}

impl Default for LatenessLog {
    fn default() -> Self {
        let (count, latest) = (0, Duration::ZERO);
        Self { shortage: Shortage::None, count, latest, logged_at: None }
    }
}

impl LatenessLog {
    /// Records what is short until the next lookup begins.
    pub(super) fn set_shortage(&mut self, shortage: Shortage) {
        self.shortage = shortage;
    }

    /// Records a lookup that begins late, and logs it unless a line was logged lately.
    pub(super) fn record(&mut self, late_by: Duration, max_qps: u32, now: Instant) {
        if self.shortage == Shortage::SlowQuestions {
            return;
        }
        self.count += 1;
        self.latest = self.latest.max(late_by);
        let is_due = |at: Instant| now.saturating_duration_since(at) >= LOG_INTERVAL;
        if !self.logged_at.is_none_or(is_due) {
            return;
        }
        let seconds = self.latest.as_secs();
        let reason = match self.shortage {
            Shortage::Budget => {
                format!(
                    "more names are due than {max_qps} questions a second allow; raise --dns-qps"
                )
            }
            Shortage::OpenQuestions => {
                "DNS is slow, and as many questions are in the air as may be".to_owned()
            }
            Shortage::None | Shortage::SlowQuestions => {
                "this process has too little CPU time".to_owned()
            }
        };
        warn!(lookups = self.count, "names are asked late, by up to {seconds}s: {reason}");
        (self.count, self.latest, self.logged_at) = (0, Duration::ZERO, Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn names_without_answers_that_wait_make_no_line() {
        let now = clock::now();
        for (shortage, has_line) in [
            (Shortage::SlowQuestions, false),
            (Shortage::OpenQuestions, true),
            (Shortage::Budget, true),
            (Shortage::None, true),
        ] {
            let mut log = LatenessLog::default();
            log.set_shortage(shortage);
            log.record(Duration::from_secs(5), 500, now);
            assert_eq!(log.logged_at.is_some(), has_line, "{shortage:?}");
        }
    }

    #[test]
    fn a_shortage_that_is_over_is_no_reason() {
        let mut log = LatenessLog::default();
        log.set_shortage(Shortage::Budget);
        log.set_shortage(Shortage::None);
        assert_eq!(log.shortage, Shortage::None);
    }
}
