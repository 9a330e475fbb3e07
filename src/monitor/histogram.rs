//! How often something took how long: plain counts with one owner, as small and quick as thousands of them need to be.

use std::time::Duration;

/// As many bounds as any histogram here has.
const MAX_BOUNDS: usize = 14;

#[derive(Debug, Clone)]
pub struct DurationHistogram {
    bounds: &'static [Duration],
    /// By bucket: up to its bound and over the one before; the last is over all bounds.
    counts: [u64; MAX_BOUNDS + 1],
    sum: Duration,
}

impl DurationHistogram {
    /// `bounds` are sorted, and at most fourteen.
    pub fn new(bounds: &'static [Duration]) -> Self {
        assert!(bounds.len() <= MAX_BOUNDS && bounds.is_sorted(), "{bounds:?}");
        Self { bounds, counts: [0; MAX_BOUNDS + 1], sum: Duration::ZERO }
    }

    pub fn observe(&mut self, duration: Duration) {
        self.counts[self.bounds.partition_point(|bound| *bound < duration)] += 1;
        self.sum += duration;
    }

    /// The bounds, each with how many took at most that long.
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

/// Some milliseconds as a duration, for bounds.
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
