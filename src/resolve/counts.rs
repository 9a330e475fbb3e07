//! The numbers of questions and their durations, for the metrics page.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::{Histogram, HistogramOpts};

/// The result of one question, as the metrics page has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QuestionResult {
    Answer,
    NxDomain,
    NoData,
    ServFail,
    Refused,
    Timeout,
    Truncated,
    Garbage,
    Other,
}

/// The results with the values of their label.
const RESULTS: [(QuestionResult, &str); 9] = [
    (QuestionResult::Answer, "answer"),
    (QuestionResult::NxDomain, "nxdomain"),
    (QuestionResult::NoData, "nodata"),
    (QuestionResult::ServFail, "servfail"),
    (QuestionResult::Refused, "refused"),
    (QuestionResult::Timeout, "timeout"),
    (QuestionResult::Truncated, "truncated"),
    (QuestionResult::Garbage, "garbage"),
    (QuestionResult::Other, "other"),
];

/// The upper bounds of the histogram, in seconds.
const DURATION_BOUNDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// The numbers since the start. All copies share them.
#[derive(Debug, Clone)]
pub(crate) struct Counts(Arc<Numbers>);

#[derive(Debug)]
struct Numbers {
    by_result: [AtomicU64; RESULTS.len()],
    unrelated: AtomicU64,
    late: AtomicU64,
    duration: Histogram,
}

impl Default for Counts {
    fn default() -> Self {
        let options = HistogramOpts::new(
            "external_endpoints_dns_lookup_duration_seconds",
            "Durations of questions to DNS, with all tries and aliases.",
        );
        let duration = Histogram::with_opts(options.buckets(DURATION_BOUNDS.to_vec()))
            .expect("the bounds are sorted");
        Self(Arc::new(Numbers {
            by_result: Default::default(),
            unrelated: AtomicU64::new(0),
            late: AtomicU64::new(0),
            duration,
        }))
    }
}

impl Counts {
    /// Records the end of a question.
    pub(super) fn record(&self, result: QuestionResult, duration: Duration) {
        self.0.by_result[result as usize].fetch_add(1, Ordering::Relaxed);
        self.0.duration.observe(duration.as_secs_f64());
    }

    /// Records a message that was no reply to the question of its socket.
    pub(super) fn record_unrelated(&self) {
        self.0.unrelated.fetch_add(1, Ordering::Relaxed);
    }

    /// Records a lookup that began late.
    pub(super) fn record_late(&self) {
        self.0.late.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of questions with each result.
    pub(crate) fn by_result(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.0.by_result.iter().map(|count| count.load(Ordering::Relaxed));
        RESULTS.iter().map(|(_, label)| *label).zip(counts.collect::<Vec<_>>())
    }

    /// Returns the number of messages that were no reply to the question of their socket.
    pub(crate) fn unrelated(&self) -> u64 {
        self.0.unrelated.load(Ordering::Relaxed)
    }

    /// Returns the number of lookups that began late.
    pub(crate) fn late(&self) -> u64 {
        self.0.late.load(Ordering::Relaxed)
    }

    /// Returns the histogram of durations.
    pub(crate) fn duration(&self) -> &Histogram {
        &self.0.duration
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_is_counted_under_its_own_label() {
        let counts = Counts::default();
        for (index, (result, _)) in RESULTS.iter().enumerate() {
            (0..=index).for_each(|_| counts.record(*result, Duration::ZERO));
        }
        let labels = RESULTS.iter().map(|(_, label)| *label);
        let expected: Vec<_> = labels.zip(1..).collect();
        assert_eq!(counts.by_result().collect::<Vec<_>>(), expected);
        assert_eq!(counts.duration().get_sample_count(), 45);
    }
}
