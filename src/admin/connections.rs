//! The open connections to the pages: their limit, and the choice of the one that is closed for a
//! new one.
//!
//! At the limit, the first row that fits decides:
//!
//! | open connections | evicted |
//! | --- | --- |
//! | some wait for a request longer than [`GRACE`] | the longest wait of the busiest of these |
//! | one address has more than its share | the longest wait of that address |
//! | some wait for a request | none yet: the new one waits until a wait exceeds [`GRACE`] |
//! | none waits | the oldest answer of the busiest address |
//!
//! The busiest address is the one with the most connections.
//!
//! A new connection is therefore accepted soon, and a flood from one address evicts only its own
//! connections. A client that sends its request at once, as the kubelet does, gets its answer under
//! any load.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::clock;

/// The time that a connection may wait for a request before it can be evicted. A healthy client
/// needs far less.
const GRACE: Duration = Duration::from_millis(50);

/// The activity of a connection. Those that come first in this order are evicted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Activity {
    /// Waiting for a request or the rest of its head, since this time.
    Waiting(Instant),
    /// Answering a request, since this time.
    Answering(Instant),
}

/// The activity of a connection, shared with the task that serves it.
#[derive(Clone)]
pub(super) struct Tracker(Arc<Mutex<Activity>>);

impl Tracker {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Activity::Waiting(clock::now()))))
    }

    /// Marks the connection as answering until the result is dropped.
    pub(super) fn answer(&self) -> Answering {
        self.set(Activity::Answering(clock::now()));
        Answering(self.clone())
    }

    fn set(&self, activity: Activity) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = activity;
    }

    fn get(&self) -> Activity {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A guard that exists while a request is being answered.
pub(super) struct Answering(Tracker);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.set(Activity::Waiting(clock::now()));
    }
}

struct Connection {
    source: IpAddr,
    tracker: Tracker,
    task: JoinHandle<()>,
}

/// All connections that are open.
pub(super) struct Connections {
    max: usize,
    open: Vec<Connection>,
}

impl Connections {
    /// Returns an empty set for at most `max` connections.
    pub(super) fn new(max: usize) -> Self {
        Self { max, open: Vec::new() }
    }

    /// Adds a connection, after an eviction if needed. `start` spawns the task that serves it.
    pub(super) async fn add(
        &mut self,
        peer: IpAddr,
        start: impl FnOnce(Tracker) -> JoinHandle<()>,
    ) {
        self.open.retain(|connection| !connection.task.is_finished());
        while self.open.len() >= self.max {
            match self.evict() {
                Some(Eviction::Now(index)) => {
                    let mut evicted = self.open.swap_remove(index).task;
                    evicted.abort();
                    // Its descriptor is free once the task has ended. The error is its abortion.
                    let _ = (&mut evicted).await;
                }
                Some(Eviction::Later(delay)) => {
                    tokio::time::sleep(delay).await;
                    self.open.retain(|connection| !connection.task.is_finished());
                }
                None => break,
            }
        }
        let tracker = Tracker::new();
        self.open.push(Connection { source: source(peer), task: start(tracker.clone()), tracker });
    }

    fn evict(&self) -> Option<Eviction> {
        let activities =
            self.open.iter().map(|connection| (connection.source, connection.tracker.get()));
        eviction(&activities.collect::<Vec<_>>(), self.max / 4, clock::now())
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.open.iter().for_each(|connection| connection.task.abort());
    }
}

/// Returns the address by which connections are counted. A host can use any IPv6 address of its
/// /64, so the whole /64 counts as one.
fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

/// The step that makes room for a new connection.
#[derive(Debug, PartialEq, Eq)]
enum Eviction {
    /// Close the connection with this index.
    Now(usize),
    /// Wait this long, then decide again.
    Later(Duration),
}

/// Decides by the table above. `share` is the number of connections that one address may have.
fn eviction(open: &[(IpAddr, Activity)], share: usize, now: Instant) -> Option<Eviction> {
    let mut counts = HashMap::new();
    open.iter().for_each(|(source, _)| *counts.entry(*source).or_insert(0_usize) += 1);
    // The first in the order of activities, of the address with the most connections.
    let first = |candidates: &dyn Fn(&(IpAddr, Activity)) -> bool| {
        let candidates = open.iter().enumerate().filter(|(_, connection)| candidates(connection));
        let first =
            candidates.min_by_key(|(_, (source, activity))| (Reverse(counts[source]), *activity));
        first.map(|(index, _)| index)
    };
    let grace_end = |activity: Activity| match activity {
        Activity::Waiting(since) => Some(since + GRACE),
        Activity::Answering(_) => None,
    };
    let stale = first(&|(_, activity)| grace_end(*activity).is_some_and(|end| end <= now));
    let too_many =
        || first(&|(source, activity)| counts[source] > share && grace_end(*activity).is_some());
    if let Some(index) = stale.or_else(too_many) {
        return Some(Eviction::Now(index));
    }
    match open.iter().filter_map(|(_, activity)| grace_end(*activity)).min() {
        Some(end) => Some(Eviction::Later(end.saturating_duration_since(now))),
        None => first(&|_| true).map(Eviction::Now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
    const C: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 3));

    const SHARE: usize = 2;

    #[test]
    fn evictions_follow_the_table() {
        let now = clock::now() + Duration::from_secs(100);
        let ago = |tenths: u32| now - GRACE * tenths / 10;
        let (waiting, answering) = (|t| Activity::Waiting(ago(t)), |t| Activity::Answering(ago(t)));
        let table = [
            // Some are beyond the grace: the longest wait of the address with the most.
            (vec![(A, waiting(20)), (A, waiting(30)), (A, answering(40))], Eviction::Now(1)),
            (vec![(A, waiting(50)), (B, waiting(20)), (B, waiting(30))], Eviction::Now(2)),
            (vec![(A, waiting(20)), (B, waiting(5)), (B, waiting(5))], Eviction::Now(0)),
            (vec![(A, waiting(10)), (B, waiting(30)), (C, waiting(20))], Eviction::Now(1)),
            // One address has more than its share.
            (
                vec![(A, waiting(9)), (B, waiting(1)), (B, waiting(2)), (B, answering(9))],
                Eviction::Now(2),
            ),
            // All have just been opened.
            (
                vec![(A, waiting(4)), (B, waiting(1)), (B, answering(9))],
                Eviction::Later(GRACE * 6 / 10),
            ),
            // None waits.
            (vec![(A, answering(90)), (B, answering(20)), (B, answering(30))], Eviction::Now(2)),
        ];
        for (row, (open, expected)) in table.into_iter().enumerate() {
            assert_eq!(eviction(&open, SHARE, now), Some(expected), "row {row}");
        }
        assert_eq!(eviction(&[], SHARE, now), None);
    }

    #[test]
    fn a_flood_of_one_address_evicts_no_other() {
        let start = clock::now();
        let mut open = vec![(B, Activity::Waiting(start))];
        for number in 1..1000 {
            let now = start + Duration::from_micros(number);
            if open.len() == 64 {
                let Some(Eviction::Now(index)) = eviction(&open, 16, now) else {
                    panic!("it waits: {open:?}")
                };
                open.swap_remove(index);
            }
            open.push((A, Activity::Waiting(now)));
        }
        assert!(open.iter().any(|(source, _)| *source == B));
    }

    #[test]
    fn a_network_of_64_bits_counts_as_one_address() {
        let source = |ip: &str| super::source(ip.parse().expect("an IP"));
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:10.0.0.1"), A);
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
    }
}
