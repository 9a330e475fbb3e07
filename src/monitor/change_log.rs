//! The newest changes of a database's targets, for the page of the database.
//!
//! The number that is kept is bounded over all databases together, and a reason that repeats is
//! kept once, so that databases which flap without end cannot use up the memory.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// The changes of one database that are kept.
const MAX_CHANGES: usize = 50;

/// The least that is kept, however many databases there are.
const MIN_CHANGES: usize = 5;

/// The changes of all databases that are kept.
const MAX_TOTAL: usize = 50_000;

/// The longest reason that is kept, in bytes.
const MAX_REASON: usize = 300;

/// The kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// The target came up.
    Up,
    /// The target went down.
    Down,
    /// The maintenance began.
    MaintenanceBegan,
    /// The maintenance ended.
    MaintenanceEnded,
    /// The cluster holds it from now on.
    Published,
    /// The cluster no longer holds it.
    Unpublished,
}

/// A change of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub at: Instant,
    pub ip: IpAddr,
    pub kind: ChangeKind,
    pub reason: Option<Arc<str>>,
}

/// The newest changes of a database, oldest first.
#[derive(Debug)]
pub(super) struct ChangeLog {
    capacity: usize,
    /// Shared with snapshots, which copy nothing.
    changes: Arc<VecDeque<Change>>,
}

impl Default for ChangeLog {
    fn default() -> Self {
        Self { capacity: MAX_CHANGES, changes: Arc::default() }
    }
}

impl ChangeLog {
    /// Sets the number that is kept, if there are `databases` databases.
    pub(super) fn set_databases(&mut self, databases: usize) {
        self.capacity = (MAX_TOTAL / databases.max(1)).clamp(MIN_CHANGES, MAX_CHANGES);
        if self.changes.len() > self.capacity {
            let surplus = self.changes.len() - self.capacity;
            let changes = Arc::make_mut(&mut self.changes);
            changes.drain(..surplus);
            changes.shrink_to_fit();
        }
    }

    /// Adds a change, in place of the oldest if there is no room.
    pub(super) fn record(
        &mut self,
        ip: IpAddr,
        kind: ChangeKind,
        reason: Option<&str>,
        at: Instant,
    ) {
        let reason = reason.map(|reason| self.shared(reason));
        let changes = Arc::make_mut(&mut self.changes);
        while changes.len() >= self.capacity {
            changes.pop_front();
        }
        changes.push_back(Change { at, ip, kind, reason });
    }

    /// Returns the start of a reason, shared with an earlier change that has the same.
    fn shared(&self, reason: &str) -> Arc<str> {
        let mut ends = (0..=reason.len().min(MAX_REASON)).rev();
        let end = ends.find(|end| reason.is_char_boundary(*end)).unwrap_or_default();
        let reason = &reason[..end];
        let mut known = self.changes.iter().rev().filter_map(|change| change.reason.as_ref());
        known.find(|known| ***known == *reason).cloned().unwrap_or_else(|| reason.into())
    }

    /// Returns the changes for readers outside the monitor.
    pub(super) fn snapshot(&self) -> Arc<VecDeque<Change>> {
        self.changes.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::clock;

    const IP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn the_oldest_changes_make_room() {
        let mut log = ChangeLog::default();
        for number in 0..60 {
            log.record(IP, ChangeKind::Down, Some(&number.to_string()), clock::now());
        }
        let reasons: Vec<_> = log.snapshot().iter().map(|change| change.reason.clone()).collect();
        assert_eq!((reasons.len(), reasons[0].as_deref()), (50, Some("10")));
        // A snapshot keeps what it has.
        let before = log.snapshot();
        for (databases, kept) in [(1, 50), (1000, 50), (2000, 25), (10_000, 5), (1_000_000, 5)] {
            log.set_databases(databases);
            log.record(IP, ChangeKind::Up, None, clock::now());
            let changes = log.snapshot();
            assert!(changes.len() <= kept, "{databases} databases");
            assert_eq!(changes.back().map(|change| change.kind), Some(ChangeKind::Up));
        }
        assert_eq!(before.len(), 50);
    }

    #[test]
    fn a_reason_is_kept_once_and_not_at_any_length() {
        let mut log = ChangeLog::default();
        let long = "ü".repeat(500);
        for reason in ["connect: refused", &long, "connect: refused", &long] {
            log.record(IP, ChangeKind::Down, Some(reason), clock::now());
        }
        let reasons: Vec<_> =
            log.snapshot().iter().filter_map(|change| change.reason.clone()).collect();
        assert!(Arc::ptr_eq(&reasons[0], &reasons[2]) && Arc::ptr_eq(&reasons[1], &reasons[3]));
        assert_eq!(reasons[1].len(), MAX_REASON);
        assert!(size_of::<Change>() <= 56, "times {MAX_TOTAL} changes");
    }
}
