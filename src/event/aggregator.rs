//! The aggregation of repetitions, as client-go's EventAggregator does it: an Event is published at
//! most once a minute, with the number of times that it happened. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::notice::{Notice, Reason, Regarding};

/// The least time between two publications of the same Event.
const MIN_INTERVAL: Duration = Duration::from_secs(60);

/// The time after which a repetition starts a new Event. Kubernetes' own controllers use the same.
const SERIES_WINDOW: Duration = Duration::from_secs(360);

/// The number of keys that are remembered.
const CAPACITY: usize = 2048;

/// The key that repetitions share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct EventKey {
    pub regarding: Regarding,
    pub reason: Reason,
    pub dedup_key: String,
}

/// Notices that wait to be published as one Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    pub key: EventKey,
    /// The newest notice.
    pub notice: Notice,
    /// The number of notices.
    pub count: u32,
    /// The Event that has the same note and can count them.
    pub existing: Option<Recorded>,
}

/// An Event that is in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recorded {
    pub name: String,
    /// The UID of the object that it regards.
    pub uid: String,
    /// The number of happenings that it counts.
    pub count: u32,
}

/// The next thing to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Publish this.
    Due(Box<Pending>),
    /// Wait for this long.
    Wait(Duration),
    /// Wait for a notice.
    Idle,
}

#[derive(Debug, Default)]
struct Entry {
    /// The newest notice, and the number of notices since the last publication.
    pending: Option<(Notice, u32)>,
    published: Option<Published>,
}

/// The last publication of a key.
#[derive(Debug)]
struct Published {
    note: String,
    recorded: Recorded,
    at: Instant,
}

impl Entry {
    /// Returns when a notice may be published.
    fn due(&self, now: Instant) -> Instant {
        self.published.as_ref().map_or(now, |published| published.at + MIN_INTERVAL)
    }
}

/// The notices that wait to be published, and the Events that they may be counted in.
#[derive(Debug, Default)]
pub(super) struct EventAggregator {
    entries: HashMap<EventKey, Entry>,
}

impl EventAggregator {
    /// Adds a notice. Returns whether there was room for it.
    pub(super) fn add(&mut self, notice: Notice, now: Instant) -> bool {
        if self.entries.len() >= CAPACITY {
            self.evict(now);
        }
        let key = EventKey {
            regarding: notice.regarding.clone(),
            reason: notice.reason,
            dedup_key: notice.dedup_key.clone(),
        };
        if self.entries.len() >= CAPACITY && !self.entries.contains_key(&key) {
            return false;
        }
        let entry = self.entries.entry(key).or_default();
        let count = entry.pending.as_ref().map_or(0, |(_, count)| *count);
        entry.pending = Some((notice, count.saturating_add(1)));
        true
    }

    /// Returns the Event that has been due for longest, or the time until one is due.
    pub(super) fn next(&self, now: Instant) -> Next {
        let waiting = self
            .entries
            .iter()
            .filter_map(|(key, entry)| Some((entry.due(now), key, entry.pending.as_ref()?)));
        let first = waiting.min_by_key(|(due, _, (notice, _))| ((*due).max(now), notice.at));
        let Some((due, key, (notice, count))) = first else { return Next::Idle };
        if due > now {
            return Next::Wait(due - now);
        }
        let published = self.entries[key].published.as_ref();
        let repeated = published.filter(|published| {
            published.note == notice.note && now - published.at < SERIES_WINDOW
        });
        Next::Due(Box::new(Pending {
            key: key.clone(),
            notice: notice.clone(),
            count: *count,
            existing: repeated.map(|published| published.recorded.clone()),
        }))
    }

    /// Returns whether any notice waits to be published.
    pub(super) fn has_pending(&self) -> bool {
        self.entries.values().any(|entry| entry.pending.is_some())
    }

    /// Records that the notices were published with this Event.
    pub(super) fn on_published(&mut self, pending: Pending, recorded: Recorded, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&pending.key) {
            let note = pending.notice.note;
            *entry =
                Entry { pending: None, published: Some(Published { note, recorded, at: now }) };
        }
    }

    /// Discards the notices of this key.
    pub(super) fn discard(&mut self, key: &EventKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.pending = None;
            if entry.published.is_none() {
                self.entries.remove(key);
            }
        }
    }

    /// Discards the notices that are older than this.
    pub(super) fn expire(&mut self, age: Duration, now: Instant) {
        self.entries.retain(|_, entry| {
            entry.pending.take_if(|(notice, _)| now.saturating_duration_since(notice.at) > age);
            entry.pending.is_some() || entry.published.is_some()
        });
    }

    /// Forgets the Events that no repetition can be counted in any more.
    fn evict(&mut self, now: Instant) {
        self.entries.retain(|_, entry| {
            let current = entry.published.as_ref().is_some_and(|it| now - it.at < SERIES_WINDOW);
            entry.pending.is_some() || current
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::config::DatabaseId;

    const MINUTE: Duration = Duration::from_secs(60);

    fn notice(dedup_key: &str, note: &str, at: Instant) -> Notice {
        let id = DatabaseId { namespace: "prod".into(), service: "mysql".into() };
        Notice::new(Regarding::Database(id), Reason::TargetDown, note, at).with_dedup_key(dedup_key)
    }

    fn due(aggregator: &EventAggregator, now: Instant) -> Pending {
        match aggregator.next(now) {
            Next::Due(pending) => *pending,
            next => panic!("nothing is due: {next:?}"),
        }
    }

    /// Publishes what is due. Returns its note, its count, and the count of the Event before it.
    fn publish(aggregator: &mut EventAggregator, now: Instant) -> (String, u32, Option<u32>) {
        let pending = due(aggregator, now);
        let existing = pending.existing.as_ref().map(|recorded| recorded.count);
        let (note, new) = (pending.notice.note.clone(), pending.count);
        let count = new + existing.unwrap_or_default();
        let recorded = Recorded { name: "mysql.1".into(), uid: "uid".into(), count };
        aggregator.on_published(pending, recorded, now);
        (note, new, existing)
    }

    #[test]
    fn repetitions_are_counted_once_a_minute_with_the_newest_note() {
        let now = clock::now();
        let mut aggregator = EventAggregator::default();
        aggregator.add(notice("a", "refused", now), now);
        assert_eq!(publish(&mut aggregator, now), ("refused".into(), 1, None));
        for _ in 0..3 {
            aggregator.add(notice("a", "refused", now), now);
        }
        assert_eq!(aggregator.next(now), Next::Wait(MINUTE));
        assert_eq!(publish(&mut aggregator, now + MINUTE), ("refused".into(), 3, Some(1)));
        aggregator.add(notice("a", "refused", now), now);
        aggregator.add(notice("a", "silent", now), now);
        assert_eq!(
            publish(&mut aggregator, now + 2 * MINUTE),
            ("silent".into(), 2, None),
            "another note is another Event"
        );
        assert_eq!(aggregator.next(now + 3 * MINUTE), Next::Idle);
    }

    #[test]
    fn different_keys_do_not_wait_and_the_oldest_goes_first() {
        let now = clock::now();
        let mut aggregator = EventAggregator::default();
        let later = now + Duration::from_millis(1);
        aggregator.add(notice("b", "b", later), later);
        aggregator.add(notice("a", "a", now), later);
        assert_eq!(publish(&mut aggregator, later).0, "a");
        assert_eq!(publish(&mut aggregator, later).0, "b");
    }

    #[test]
    fn a_repetition_after_the_window_starts_a_new_event() {
        let now = clock::now();
        let mut aggregator = EventAggregator::default();
        aggregator.add(notice("a", "refused", now), now);
        publish(&mut aggregator, now);
        let later = now + SERIES_WINDOW;
        aggregator.add(notice("a", "refused", later), later);
        assert_eq!(publish(&mut aggregator, later), ("refused".into(), 1, None));
    }

    #[test]
    fn the_capacity_is_limited_and_old_events_make_room() {
        let now = clock::now();
        let mut aggregator = EventAggregator::default();
        for index in 0..CAPACITY {
            assert!(aggregator.add(notice(&index.to_string(), "x", now), now));
        }
        assert!(!aggregator.add(notice("one more", "x", now), now));
        assert!(aggregator.add(notice("0", "x", now), now), "a known key has room");
        while let Next::Due(pending) = aggregator.next(now) {
            let recorded = Recorded { name: "mysql.1".into(), uid: "uid".into(), count: 1 };
            aggregator.on_published(*pending, recorded, now);
        }
        assert!(!aggregator.add(notice("one more", "x", now), now));
        assert!(aggregator.add(notice("one more", "x", now), now + SERIES_WINDOW));
        assert_eq!(aggregator.entries.len(), 1);
    }

    #[test]
    fn a_standby_retains_notices_for_a_while() {
        let now = clock::now();
        let mut aggregator = EventAggregator::default();
        aggregator.add(notice("a", "x", now), now);
        aggregator.add(notice("b", "x", now + MINUTE), now);
        aggregator.expire(MINUTE, now + MINUTE);
        assert!(aggregator.has_pending());
        assert_eq!(aggregator.entries.len(), 2);
        aggregator.expire(MINUTE, now + MINUTE * 2);
        assert!(aggregator.has_pending());
        assert_eq!(due(&aggregator, now).key.dedup_key, "b");
        aggregator.expire(MINUTE, now + MINUTE * 3);
        assert!(!aggregator.has_pending());
        assert!(aggregator.entries.is_empty());
    }

    #[test]
    fn a_discarded_notice_may_come_again_at_once() {
        let now = clock::now();
        let mut aggregator = EventAggregator::default();
        aggregator.add(notice("a", "x", now), now);
        let pending = due(&aggregator, now);
        aggregator.discard(&pending.key);
        assert_eq!(aggregator.next(now), Next::Idle);
        aggregator.add(notice("a", "x", now), now);
        assert!(matches!(aggregator.next(now), Next::Due(_)));
    }
}
