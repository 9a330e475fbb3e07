//! The deadlines of the probes in flight.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::slab::{ProbeId, Slab};

/// The deadlines, in a queue for each timeout that a check has.
///
/// Probes of one timeout end in the order in which they start, so each queue is sorted, and a start
/// takes constant time. A probe that ends early stays until it is at the front of its queue.
#[derive(Default)]
pub(super) struct Deadlines(BTreeMap<Duration, VecDeque<(Instant, ProbeId)>>);

impl Deadlines {
    pub(super) fn push(&mut self, id: ProbeId, timeout: Duration, now: Instant, probes: &Slab) {
        let queue = self.0.entry(timeout).or_default();
        drop_ended(queue, probes);
        queue.push_back((now + timeout, id));
    }

    /// Returns the earliest deadline of a probe in flight.
    pub(super) fn earliest(&mut self, probes: &Slab) -> Option<Instant> {
        self.0.values_mut().for_each(|queue| drop_ended(queue, probes));
        self.0.values().filter_map(|queue| queue.front()).map(|(deadline, _)| *deadline).min()
    }

    /// Returns the shortest timeout of a probe in flight.
    pub(super) fn shortest_timeout(&mut self, probes: &Slab) -> Option<Duration> {
        self.0.iter_mut().find_map(|(timeout, queue)| {
            drop_ended(queue, probes);
            (!queue.is_empty()).then_some(*timeout)
        })
    }

    /// Removes and returns the probes in flight whose deadline has come.
    pub(super) fn take_expired(&mut self, now: Instant, probes: &Slab) -> Vec<ProbeId> {
        let mut expired = Vec::new();
        for queue in self.0.values_mut() {
            while let Some(&(deadline, id)) = queue.front() {
                let in_flight = probes.contains(id);
                if in_flight && deadline > now {
                    break;
                }
                queue.pop_front();
                expired.extend(in_flight.then_some(id));
            }
        }
        expired
    }
}

/// Drops the probes that have ended from the front.
fn drop_ended(queue: &mut VecDeque<(Instant, ProbeId)>, probes: &Slab) {
    while queue.front().is_some_and(|(_, id)| !probes.contains(*id)) {
        queue.pop_front();
    }
}
