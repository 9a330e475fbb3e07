//! One snapshot for all readers of about the same time, so that the cost for the checks does not
//! depend on the number of readers.
//!
//! A request is only a flag. A reader that leaves before the snapshot is ready has cost nothing
//! that the next reader does not use. The monitor makes a snapshot over as many turns as it takes,
//! so its databases need not be of the same moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::budget::Budget;
use super::database::DatabaseMonitor;
use super::snapshot::{DatabaseSnapshot, Snapshot};
use crate::clock;
use crate::probe::Waker;
use crate::schedule::Schedule;

/// The time for which a snapshot is fresh: this many times as long as it took to make, so that
/// snapshots cost at most a fiftieth of the time of the checks, but at most [`MAX_AGE`].
const FRESH_FACTOR: u32 = 50;
const MAX_AGE: Duration = Duration::from_millis(250);

/// The end of the readers.
#[derive(Clone)]
pub(super) struct SnapshotReader {
    newest: watch::Receiver<Option<Arc<Snapshot>>>,
    requested: Arc<AtomicBool>,
    waker: Waker,
}

/// The end of the monitor, which makes snapshots on request.
pub(super) struct SnapshotWriter {
    newest: watch::Sender<Option<Arc<Snapshot>>>,
    /// The time until which the published snapshot is fresh.
    fresh_until: Option<Instant>,
    requested: Arc<AtomicBool>,
    unfinished: Option<Unfinished>,
}

/// The snapshot that is being made.
struct Unfinished {
    begun: Instant,
    /// The time it has taken so far.
    effort: Duration,
    databases: Vec<DatabaseSnapshot>,
}

/// Creates the two ends. `waker` wakes the thread of the writer.
pub(super) fn channel(waker: Waker) -> (SnapshotWriter, SnapshotReader) {
    let (newest, newest_out) = watch::channel(None);
    let requested = Arc::new(AtomicBool::new(false));
    let writer = SnapshotWriter {
        newest,
        fresh_until: None,
        requested: requested.clone(),
        unfinished: None,
    };
    (writer, SnapshotReader { newest: newest_out, requested, waker })
}

impl SnapshotReader {
    /// Returns a snapshot that is fresh at the time of the call; none if the writer is gone.
    pub(super) async fn get(&self) -> Option<Arc<Snapshot>> {
        let requested_at = clock::now();
        let mut newest = self.newest.clone();
        loop {
            let snapshot = newest.borrow_and_update().clone();
            if let Some(snapshot) = snapshot.filter(|snapshot| requested_at <= snapshot.fresh_until)
            {
                return Some(snapshot);
            }
            self.requested.store(true, Ordering::SeqCst);
            self.waker.wake();
            newest.changed().await.ok()?;
        }
    }
}

impl SnapshotWriter {
    /// Returns whether a snapshot is being made.
    pub(super) fn is_busy(&self) -> bool {
        self.unfinished.is_some()
    }

    /// Begins a snapshot if one is requested, and returns whether one is being made. `now` may be
    /// the start of the turn.
    pub(super) fn begin_if_requested(&mut self, now: Instant) -> bool {
        // A reader that asked in time may be scheduled late.
        if self.fresh_until.is_some_and(|fresh_until| fresh_until + MAX_AGE < now) {
            self.withdraw();
        }
        if self.requested.swap(false, Ordering::SeqCst) && self.unfinished.is_none() {
            // The clock is read after the flag, so no reader that set the flag asked later than
            // this: either the published snapshot serves all of them, or the new one does.
            let now = clock::now();
            if self.fresh_until.is_none_or(|fresh_until| fresh_until < now) {
                self.withdraw();
                self.unfinished =
                    Some(Unfinished { begun: now, effort: Duration::ZERO, databases: Vec::new() });
            }
        }
        self.is_busy()
    }

    /// Frees the snapshot that is published. Wakes no reader, as they all wait for the next one.
    fn withdraw(&mut self) {
        self.fresh_until = None;
        let mut old = None;
        self.newest.send_if_modified(|newest| {
            old = newest.take();
            false
        });
    }

    /// Continues the snapshot that is being made, and returns whether all databases are in it.
    pub(super) fn advance(&mut self, databases: &[DatabaseMonitor], schedule: &Schedule) -> bool {
        let Some(Unfinished { effort, databases: made, .. }) = &mut self.unfinished else {
            return false;
        };
        let (start, mut budget) = (clock::now(), Budget::new());
        made.reserve_exact(databases.len() - made.len());
        while made.len() < databases.len() && budget.try_spend() {
            made.push(databases[made.len()].snapshot(schedule));
        }
        *effort += clock::now().saturating_duration_since(start);
        made.len() == databases.len()
    }

    /// Publishes the snapshot that is being made. `finish` gets the time until which it is fresh,
    /// and the databases.
    pub(super) fn publish(
        &mut self,
        finish: impl FnOnce(Instant, Vec<DatabaseSnapshot>) -> Snapshot,
    ) {
        if let Some(Unfinished { begun, effort, databases }) = self.unfinished.take() {
            let fresh_until = begun + (effort * FRESH_FACTOR).min(MAX_AGE);
            self.fresh_until = Some(fresh_until);
            self.newest.send_replace(Some(Arc::new(finish(fresh_until, databases))));
        }
    }

    /// Restarts the snapshot that is being made, because the databases have changed.
    pub(super) fn restart(&mut self) {
        if let Some(unfinished) = &mut self.unfinished {
            unfinished.databases.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::monitor::{CheckDurations, DurationHistogram};

    fn snapshot(fresh_until: Instant, databases: Vec<DatabaseSnapshot>) -> Snapshot {
        Snapshot {
            fresh_until,
            databases,
            check_durations: CheckDurations::default(),
            start_delay: DurationHistogram::new(&[]),
            started_late: 0,
            frozen: None,
        }
    }

    /// Makes a snapshot that takes this long if one is requested, and returns whether it was.
    fn make_in(writer: &mut SnapshotWriter, effort: Duration) -> bool {
        let made = writer.begin_if_requested(clock::now())
            && writer.advance(&[], &Schedule::new(clock::now()));
        writer.unfinished.iter_mut().for_each(|unfinished| unfinished.effort = effort);
        writer.publish(snapshot);
        made
    }

    fn make(writer: &mut SnapshotWriter) -> bool {
        make_in(writer, MAX_AGE)
    }

    fn ends() -> (SnapshotWriter, SnapshotReader) {
        channel(
            crate::probe::Reactor::new()
                .and_then(|mut reactor| reactor.waker())
                .expect("an epoll instance"),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn readers_of_about_the_same_time_share_a_snapshot() {
        let (mut writer, reader) = ends();
        assert!(!make(&mut writer), "no reader has requested one");
        let (first, second) = (reader.get(), reader.get());
        let mut both = Box::pin(futures::future::join(first, second));
        assert!((&mut both).now_or_never().is_none());
        assert!(make(&mut writer));
        let (Some(first), Some(second)) = both.await else { panic!("none") };
        assert!(Arc::ptr_eq(&first, &second));
        tokio::time::advance(MAX_AGE).await;
        let third = reader.get().now_or_never().flatten().expect("it is there");
        assert!(Arc::ptr_eq(&first, &third) && !make(&mut writer));
        tokio::time::advance(Duration::from_millis(1)).await;
        let mut later = Box::pin(reader.get());
        assert!((&mut later).now_or_never().is_none(), "it is too old");
        assert!(make(&mut writer));
        assert!(!Arc::ptr_eq(&first, &later.await.expect("a newer one")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_that_took_little_time_is_fresh_briefly() {
        let (mut writer, reader) = ends();
        assert!(
            reader.get().now_or_never().is_none() && make_in(&mut writer, Duration::from_millis(1))
        );
        tokio::time::advance(Duration::from_millis(50)).await;
        assert!(reader.get().now_or_never().is_some());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(reader.get().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn readers_that_leave_cause_one_snapshot_at_most() {
        let (mut writer, reader) = ends();
        for _ in 0..1000 {
            assert!(reader.get().now_or_never().is_none());
        }
        assert!(make(&mut writer));
        assert!(!make(&mut writer));
        // A request while a snapshot is being made is answered by that snapshot.
        tokio::time::advance(MAX_AGE * 2).await;
        assert!(reader.get().now_or_never().is_none());
        assert!(writer.begin_if_requested(clock::now()));
        let mut late = Box::pin(reader.get());
        assert!((&mut late).now_or_never().is_none());
        assert!(make(&mut writer));
        assert!(late.now_or_never().flatten().is_some() && !make(&mut writer));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_during_a_turn_is_answered_by_a_newer_snapshot() {
        let (mut writer, reader) = ends();
        assert!(
            reader.get().now_or_never().is_none() && make_in(&mut writer, Duration::from_millis(1))
        );
        tokio::time::advance(Duration::from_millis(50)).await;
        let turn = clock::now();
        assert!(reader.get().now_or_never().is_some(), "it is fresh until now");
        tokio::time::advance(Duration::from_millis(1)).await;
        let mut late = Box::pin(reader.get());
        assert!((&mut late).now_or_never().is_none());
        assert!(writer.begin_if_requested(turn) && writer.advance(&[], &Schedule::new(turn)));
        writer.publish(snapshot);
        assert!(late.now_or_never().flatten().is_some(), "it is as new as requested");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_is_scheduled_late_gets_what_it_asked_for() {
        let (mut writer, reader) = ends();
        let mut late = Box::pin(reader.get());
        assert!(
            (&mut late).now_or_never().is_none() && make_in(&mut writer, Duration::from_millis(1))
        );
        tokio::time::advance(MAX_AGE).await;
        assert!(!make(&mut writer));
        assert!(late.now_or_never().flatten().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_snapshot_is_freed_and_an_ended_monitor_gives_none() {
        let (mut writer, reader) = ends();
        assert!(reader.get().now_or_never().is_none() && make(&mut writer));
        tokio::time::advance(MAX_AGE * 2 + Duration::from_millis(1)).await;
        assert!(!make(&mut writer) && reader.newest.borrow().is_none());
        drop(writer);
        assert!(reader.get().await.is_none());
    }
}
