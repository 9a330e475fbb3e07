//! A histogram of durations: plain counts with one owner, small and quick enough for thousands of
//! them.

use std::time::Duration;

/// The most bounds that a histogram has.
const MAX_BOUNDS: usize = 14;

#[derive(Debug, Clone)]
pub struct DurationHistogram {
    bounds: &'static [Duration],
    /// By bucket: up to its bound, and above the one before. The last bucket has no bound.
    counts: [u64; MAX_BOUNDS + 1],
    sum: Duration,
}

impl DurationHistogram {
    /// Creates an empty histogram. `bounds` are sorted, and at most [`MAX_BOUNDS`].
    pub fn new(bounds: &'static [Duration]) -> Self {
        assert!(bounds.len() <= MAX_BOUNDS && bounds.is_sorted(), "{bounds:?}");
        Self { bounds, counts: [0; MAX_BOUNDS + 1], sum: Duration::ZERO }
    }

    pub fn observe(&mut self, duration: Duration) {
        self.counts[self.bounds.partition_point(|bound| *bound < duration)] += 1;
        self.sum += duration;
    }

    /// Returns the bounds, each with the number of durations up to it.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let mut up_to = 0;
        self.bounds.iter().zip(&self.counts).map(move |(bound, count)| {
            up_to += count;
            (*bound, up_to)
        })
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn sum(&self) -> Duration {
        self.sum
    }
}

/// Returns milliseconds as a duration, for bounds.
pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_took_at_most_its_bound() {
        const BOUNDS: [Duration; 3] = [ms(1), ms(5), ms(10)];
        let mut histogram = DurationHistogram::new(&BOUNDS);
        for took in [0, 1, 2, 5, 6, 11, 60_000] {
            histogram.observe(ms(took));
        }
        assert_eq!(histogram.buckets().collect::<Vec<_>>(), [(ms(1), 2), (ms(5), 4), (ms(10), 5)]);
        assert_eq!((histogram.count(), histogram.sum()), (7, ms(60_025)));
    }
}
