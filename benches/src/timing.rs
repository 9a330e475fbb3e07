//! The timing of checks: rate, drift and bursts. Pure: times come in as numbers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::machine::MILLI;

/// One check, as the targets' side saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// Nanoseconds on any clock.
    pub at: u64,
    pub target: Ipv4Addr,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Timing {
    /// The median over all targets of how much slower (or, if negative, faster) their checks come
    /// than the interval says.
    pub drift_ppm: f64,
    /// The drift of the target that is furthest off, in either direction.
    pub worst_drift_ppm: f64,
    /// The busiest 10 ms over the mean of 10 ms.
    pub burst: f64,
}

const BIN: u64 = 10 * MILLI;

/// Computes the timing. Returns `None` if there are too few checks.
pub(crate) fn analyze(arrivals: &[Arrival], interval: u64) -> Option<Timing> {
    let mut by_target: BTreeMap<Ipv4Addr, Vec<u64>> = BTreeMap::new();
    for arrival in arrivals {
        by_target.entry(arrival.target).or_default().push(arrival.at);
    }
    let mut drifts: Vec<f64> =
        by_target.values().filter_map(|times| drift_ppm(times, interval)).collect();
    let drift_ppm = median(&mut drifts)?;
    let worst_drift_ppm = drifts.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs()))?;
    let mut times: Vec<u64> = arrivals.iter().map(|arrival| arrival.at).collect();
    times.sort_unstable();
    Some(Timing { drift_ppm, worst_drift_ppm, burst: burst(&times)? })
}

/// Fits a line through the times of one target's checks, and returns how much its slope differs
/// from the interval.
fn drift_ppm(times: &[u64], interval: u64) -> Option<f64> {
    let (first, interval) = (*times.first()?, interval as f64);
    // A missing check moves those after it by a whole interval, which is no drift.
    let mut turn = 0.0;
    let mut points = vec![(0.0, 0.0)];
    for pair in times.windows(2) {
        turn += ((pair[1] - pair[0]) as f64 / interval).round().max(1.0);
        points.push((turn, (pair[1] - first) as f64));
    }
    let count = points.len() as f64;
    if count < 3.0 {
        return None;
    }
    let mean_x = points.iter().map(|point| point.0).sum::<f64>() / count;
    let mean_y = points.iter().map(|point| point.1).sum::<f64>() / count;
    let covariance: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    Some((covariance / variance / interval - 1.0) * 1e6)
}

/// Returns the busiest 10 ms over the mean, wherever they begin. The times are sorted.
fn burst(times: &[u64]) -> Option<f64> {
    let span = times.last()?.checked_sub(*times.first()?).filter(|span| *span > 0)?;
    let mut first = 0;
    let mut most = 0;
    for (last, time) in times.iter().enumerate() {
        while time - times[first] >= BIN {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    Some(most as f64 / (times.len() as f64 * BIN as f64 / span as f64))
}

/// Sorts the values and returns the one in the middle.
pub(crate) fn median(values: &mut [f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// Sorts the values and returns the one below which this share lies.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    Some(values[(last as f64 * share).round() as usize])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::SECOND;

    /// Returns twenty rounds of this many targets, evenly spread.
    fn steady(targets: u64, interval: u64) -> Vec<Arrival> {
        let arrival = |turn: u64| Arrival {
            at: SECOND + turn * interval / targets,
            target: Ipv4Addr::from(u32::try_from(turn % targets).expect("small")),
        };
        (0..20 * targets).map(arrival).collect()
    }

    #[test]
    fn even_checks_neither_drift_nor_burst() {
        let timing = analyze(&steady(1000, SECOND), SECOND).expect("enough");
        assert!(timing.drift_ppm.abs() < 0.01 && timing.worst_drift_ppm.abs() < 0.01, "{timing:?}");
        assert!((timing.burst - 1.0).abs() < 0.01, "{timing:?}");
    }

    #[test]
    fn a_longer_interval_is_drift() {
        let timing = analyze(&steady(1000, 1_005_500_000), SECOND).expect("enough");
        assert!((timing.drift_ppm - 5_500.0).abs() < 1.0, "{timing:?}");
    }

    #[test]
    fn a_missing_check_is_no_drift() {
        let mut arrivals = steady(100, SECOND);
        arrivals.remove(777);
        let timing = analyze(&arrivals, SECOND).expect("enough");
        assert!(timing.worst_drift_ppm.abs() < 0.01, "{timing:?}");
    }

    #[test]
    fn the_target_that_is_furthest_off_shows() {
        let mut arrivals = steady(100, SECOND);
        let slow = Ipv4Addr::from(7);
        for arrival in arrivals.iter_mut().filter(|arrival| arrival.target == slow) {
            arrival.at -= (arrival.at - SECOND) / 1000;
        }
        let timing = analyze(&arrivals, SECOND).expect("enough");
        assert!(
            (timing.worst_drift_ppm + 1000.0).abs() < 1.0 && timing.drift_ppm.abs() < 1.0,
            "{timing:?}"
        );
    }

    #[test]
    fn a_stall_that_is_made_up_for_is_a_burst() {
        let mut arrivals = steady(1000, SECOND);
        // Checks that were due in these 30 ms come at their end, so these 10 ms have four times
        // their share.
        for arrival in &mut arrivals {
            let within = arrival.at % SECOND;
            if within < 30 * MILLI {
                arrival.at = arrival.at - within + 30 * MILLI;
            }
        }
        let timing = analyze(&arrivals, SECOND).expect("enough");
        assert!((timing.burst - 4.0).abs() < 0.1, "{timing:?}");
    }

    #[test]
    fn too_little_says_nothing() {
        assert_eq!(analyze(&[], SECOND), None);
        assert_eq!(analyze(&steady(1, SECOND)[..2], SECOND), None);
    }

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let mut values = [3.0, 1.0, 2.0];
        assert_eq!(median(&mut values), Some(2.0));
        assert_eq!(quantile(&mut values, 1.0), Some(3.0));
        assert_eq!(median(&mut []), None);
    }
}
