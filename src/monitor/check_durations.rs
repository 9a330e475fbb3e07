//! The durations of tries, by the kind of their check.
//!
//! A histogram of each database would be most of the metrics: with its fourteen bounds it has as
//! many series as three targets have together.

use std::time::Duration;

use super::histogram::{DurationHistogram, ms};
use crate::config::{CHECK_KINDS, CheckKind};

const BOUNDS: [Duration; 14] = [
    Duration::from_micros(500),
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
    ms(5000),
    ms(10_000),
];

/// The durations of all tries since the daemon started.
#[derive(Debug, Clone, Default)]
pub struct CheckDurations {
    /// In the order of [`CHECK_KINDS`]; none for a kind that was never tried.
    by_kind: [Option<Box<DurationHistogram>>; CHECK_KINDS.len()],
}

impl CheckDurations {
    /// Counts a try.
    pub fn observe(&mut self, kind: &CheckKind, duration: Duration) {
        let kind = kind.name();
        if let Some(index) = CHECK_KINDS.iter().position(|other| *other == kind) {
            let histogram = &mut self.by_kind[index];
            histogram
                .get_or_insert_with(|| Box::new(DurationHistogram::new(&BOUNDS)))
                .observe(duration);
        }
    }

    /// Returns the kinds that were tried, each with its durations.
    pub fn by_kind(&self) -> impl Iterator<Item = (&'static str, &DurationHistogram)> {
        let kinds = CHECK_KINDS.iter().zip(&self.by_kind);
        kinds.filter_map(|(kind, histogram)| Some((*kind, histogram.as_deref()?)))
    }
}
