//! The delay before the next attempt of an API call: it doubles, up to a limit, and differs from
//! caller to caller.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::time::Duration;

const MIN_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(5);

/// A delay that doubles each time, from 100 ms to 5 s.
///
/// An outage of the API ends for all callers at once. Therefore a delay can be spread by a hash of
/// the caller: to a point between half of it and all of it, another one each time. client-go uses
/// chance for the same. A hash does as well, and a run can be repeated.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    delay: Duration,
    spread: Option<Spread>,
}

/// The way in which the delays of one caller are spread.
#[derive(Debug, Clone)]
struct Spread {
    /// The hash of the caller and of its attempts so far.
    hasher: DefaultHasher,
    /// The least width of the interval in which a delay may end.
    min_width: Duration,
}

impl Default for Backoff {
    /// Returns the delay without a spread, for what no other replica does at the same time.
    fn default() -> Self {
        Self { delay: MIN_DELAY, spread: None }
    }
}

impl Backoff {
    /// Returns the delays of a caller. Its name differs from those of all others, in this replica
    /// and in others.
    pub(crate) fn spread_by(caller: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        caller.hash(&mut hasher);
        let spread = Spread { hasher, min_width: Duration::ZERO };
        Self { delay: MIN_DELAY, spread: Some(spread) }
    }

    /// Spreads each delay over this time at least, so that even the shortest delays of thousands of
    /// callers do not end together.
    pub(crate) fn over_at_least(mut self, min_width: Duration) -> Self {
        self.spread.iter_mut().for_each(|spread| spread.min_width = min_width);
        self
    }

    /// Returns the delay, and doubles the next one.
    pub(crate) fn next(&mut self) -> Duration {
        let delay = self.delay;
        self.delay = (delay * 2).min(MAX_DELAY);
        match &mut self.spread {
            Some(spread) => delay / 2 + spread.next(delay / 2),
            None => delay,
        }
    }

    /// Returns the delay, and doubles the next one. The API has asked not to be called for
    /// `retry_after`, and has probably asked the others for the same.
    pub(crate) fn next_after(&mut self, retry_after: Duration) -> Duration {
        let delay = self.next();
        match &mut self.spread {
            Some(spread) if retry_after > delay => retry_after + spread.next(retry_after / 2),
            _ => delay.max(retry_after),
        }
    }

    /// Starts again with the shortest delay.
    pub(crate) fn reset(&mut self) {
        self.delay = MIN_DELAY;
    }
}

impl Spread {
    /// Returns a part of this width, or of the least one, that nobody else gets.
    fn next(&mut self, width: Duration) -> Duration {
        self.hasher.write_u8(0);
        let part = (self.hasher.finish() >> 32) as f64 / f64::from(u32::MAX);
        width.max(self.min_width).mul_f64(part)
    }
}

/// Sleeps for the delay, or for ever if there is none.
pub(crate) async fn sleep_if(delay: Option<Duration>) {
    match delay {
        Some(delay) => tokio::time::sleep(delay).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_doubles_up_to_the_limit_and_starts_over() {
        let mut backoff = Backoff::default();
        let first: Vec<u128> = (0..8).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(first, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        backoff.reset();
        assert_eq!(backoff.next(), MIN_DELAY);
        assert_eq!(backoff.next_after(700 * MS), 700 * MS);
        assert_eq!(backoff.next_after(300 * MS), 400 * MS);
    }

    #[test]
    fn a_spread_delay_is_between_half_of_it_and_all_of_it() {
        for caller in 0..1000 {
            let (mut exact, mut spread) = (Backoff::default(), Backoff::spread_by(caller));
            let mut again = spread.clone();
            for _ in 0..8 {
                let (most, delay) = (exact.next(), spread.next());
                assert!((most / 2..=most).contains(&delay), "{delay:?} of {most:?}");
                assert_eq!(delay, again.next(), "a run can be repeated");
            }
            spread.reset();
            assert!((MIN_DELAY / 2..=MIN_DELAY).contains(&spread.next()));
            let delay = spread.next_after(6000 * MS);
            assert!((6000 * MS..=9000 * MS).contains(&delay), "{delay:?}");
            assert!(spread.next_after(10 * MS) <= 400 * MS);
        }
    }

    /// Returns the times at which callers try for the nth time, when all failed at the same moment.
    fn attempts(callers: &[(&str, String)], nth: usize) -> Vec<Duration> {
        let attempt = |caller: &(&str, String)| {
            let mut backoff = Backoff::spread_by(caller).over_at_least(500 * MS);
            (0..nth).map(|_| backoff.next()).sum()
        };
        callers.iter().map(attempt).collect()
    }

    #[test]
    fn replicas_and_namespaces_do_not_try_in_step() {
        let namespaces = (0..200).map(|number| format!("team-{number}"));
        let callers: Vec<(&str, String)> =
            namespaces.flat_map(|name| [("pod-a", name.clone()), ("pod-b", name)]).collect();
        for nth in [1, 6] {
            let times = attempts(&callers, nth);
            let in_window = |start: &Duration| {
                times.iter().filter(|time| (*start..*start + 25 * MS).contains(*time)).count()
            };
            // Even spreading would be 20 in each 25 ms of the first 500 ms, and fewer later.
            let most = times.iter().map(in_window).max().expect("an attempt");
            assert!(most <= 44, "{most} of 400 within 25 ms, at attempt {nth}");
        }
    }
}
