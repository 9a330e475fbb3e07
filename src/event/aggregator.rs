//! Which notice are told when: the same thing at most once a minute, with how often it happened. No clock of its own.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::notice::{Notice, Reason, Regarding};

/// The least time between two tellings of the same thing.
const MIN_INTERVAL: Duration = Duration::from_secs(60);

/// After this long without notice of a thing, the next begin a new Event, as with Kubernetes' own controllers.
const SERIES_WINDOW: Duration = Duration::from_secs(360);

/// The most things that are remembered.
const CAPACITY: usize = 2048;

/// What makes two notice the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct EventKey {
    pub about: Regarding,
    pub reason: Reason,
    pub dedup_key: String,
}

/// What is to be told now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    pub key: EventKey,
    /// The newest of them.
    pub notice: Notice,
    /// How many there are of them.
    pub count: u32,
    /// What was told before in the same words.
    pub existing: Option<Recorded>,
}

/// An Event that is in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recorded {
    pub name: String,
    /// The UID of what it regards.
    pub uid: String,
    /// How often it has happened, as it says.
    pub count: u32,
}

#[derive(Debug)]
struct Entry {
    /// The newest, and how many have come since they were told last.
    pending: Option<(Notice, u32)>,
    /// The words that were told last, with the Event that says them, and when.
    recorded: Option<(String, Recorded, Instant)>,
}

impl Entry {
    /// When it may be told again.
    fn due(&self, now: Instant) -> Instant {
        self.recorded.as_ref().map_or(now, |(_, _, at)| *at + MIN_INTERVAL)
    }
}

/// All that is to be told, and what has been.
#[derive(Debug, Default)]
pub(super) struct EventAggregator {
    entries: HashMap<EventKey, Entry>,
}

impl EventAggregator {
    /// Takes notice in. Returns whether there was room.
    pub(super) fn add(&mut self, notice: Notice, now: Instant) -> bool {
        if self.entries.len() >= CAPACITY {
            self.evict(now);
        }
        let thing = EventKey {
            about: notice.regarding.clone(),
            reason: notice.reason.clone(),
            dedup_key: notice.dedup_key.clone(),
        };
        if self.entries.len() >= CAPACITY && !self.entries.contains_key(&thing) {
            return false;
        }
        let entry = self.entries.entry(thing).or_insert(Entry { pending: None, recorded: None });
        let count = entry.pending.as_ref().map_or(0, |(_, count)| *count);
        entry.pending = Some((notice, count.saturating_add(1)));
        true
    }

    /// What has waited longest of all that may be told; else how long until something may.
    pub(super) fn due(&self, now: Instant) -> Result<Pending, Option<Duration>> {
        let waiting = self
            .entries
            .iter()
            .filter_map(|(thing, entry)| Some((entry.due(now), thing, entry.pending.as_ref()?)));
        let first = waiting.min_by_key(|(due, _, (notice, _))| ((*due).max(now), notice.at));
        let (due, thing, (notice, count)) = first.ok_or(None)?;
        if due > now {
            return Err(Some(due - now));
        }
        let told = self.entries[thing].recorded.as_ref();
        let before = told.filter(|(note, _, at)| *note == notice.note && now - *at < SERIES_WINDOW);
        Ok(Pending {
            key: thing.clone(),
            notice: notice.clone(),
            count: *count,
            existing: before.map(|(_, told, _)| told.clone()),
        })
    }

    /// Takes note that it was told, by this Event.
    pub(super) fn recorded(&mut self, due: Pending, told: Recorded, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&due.key) {
            entry.pending = None;
            entry.recorded = Some((due.notice.note, told, now));
        }
    }

    /// Takes note that it can't be told.
    pub(super) fn discard(&mut self, thing: &EventKey) {
        if let Some(entry) = self.entries.get_mut(thing) {
            entry.pending = None;
            if entry.recorded.is_none() {
                self.entries.remove(thing);
            }
        }
    }

    /// Forgets what is to be told and older than this. Says whether anything is left to be told.
    pub(super) fn expire(&mut self, age: Duration, now: Instant) -> bool {
        self.entries.retain(|_, entry| {
            let old =
                |(notice, _): &mut (Notice, u32)| now.saturating_duration_since(notice.at) > age;
            entry.pending.take_if(old);
            entry.pending.is_some() || entry.recorded.is_some()
        });
        self.entries.values().any(|entry| entry.pending.is_some())
    }

    fn evict(&mut self, now: Instant) {
        self.entries.retain(|_, entry| {
            let old = entry.recorded.as_ref().is_none_or(|(_, _, at)| now - *at >= SERIES_WINDOW);
            entry.pending.is_some() || !old
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

    fn tell(aggregator: &mut EventAggregator, now: Instant) -> (String, u32, Option<u32>) {
        let due = aggregator.due(now).expect("something to tell");
        let said =
            (due.notice.note.clone(), due.count, due.existing.as_ref().map(|told| told.count));
        let count = due.count + said.2.unwrap_or_default();
        aggregator.recorded(
            due,
            Recorded { name: "mysql.1".into(), uid: "uid".into(), count },
            now,
        );
        said
    }

    #[test]
    fn the_same_thing_is_told_once_a_minute_with_its_count_and_its_newest_words() {
        let now = clock::now();
        let mut aggregator = EventAggregator::default();
        aggregator.add(notice("a", "refused", now), now);
        assert_eq!(tell(&mut aggregator, now), ("refused".into(), 1, None));
        for _ in 0..3 {
            aggregator.add(notice("a", "refused", now), now);
        }
        assert_eq!(aggregator.due(now), Err(Some(MINUTE)));
        assert_eq!(tell(&mut aggregator, now + MINUTE), ("refused".into(), 3, Some(1)));
        aggregator.add(notice("a", "refused", now), now);
        aggregator.add(notice("a", "silent", now), now);
        assert_eq!(
            tell(&mut aggregator, now + 2 * MINUTE),
            ("silent".into(), 2, None),
            "other words are another Event"
        );
        assert_eq!(aggregator.due(now + 3 * MINUTE), Err(None));
    }

    #[test]
    fn different_things_wait_for_each_other_not_at_all_and_the_oldest_goes_first() {
        let now = clock::now();
        let mut aggregator = EventAggregator::default();
        let later = now + Duration::from_millis(1);
        aggregator.add(notice("b", "b", later), later);
        aggregator.add(notice("a", "a", now), later);
        assert_eq!(tell(&mut aggregator, later).0, "a");
        assert_eq!(tell(&mut aggregator, later).0, "b");
    }

    #[test]
    fn after_a_long_quiet_a_new_event_begins() {
        let now = clock::now();
        let mut aggregator = EventAggregator::default();
        aggregator.add(notice("a", "refused", now), now);
        tell(&mut aggregator, now);
        let later = now + SERIES_WINDOW;
        aggregator.add(notice("a", "refused", later), later);
        assert_eq!(tell(&mut aggregator, later), ("refused".into(), 1, None));
    }

    #[test]
    fn there_is_room_for_so_many_and_what_is_old_makes_room() {
        let now = clock::now();
        let mut aggregator = EventAggregator::default();
        for index in 0..CAPACITY {
            assert!(aggregator.add(notice(&index.to_string(), "x", now), now));
        }
        assert!(!aggregator.add(notice("one more", "x", now), now));
        assert!(aggregator.add(notice("0", "x", now), now), "what is known has its place");
        while let Ok(due) = aggregator.due(now) {
            aggregator.recorded(
                due,
                Recorded { name: "mysql.1".into(), uid: "uid".into(), count: 1 },
                now,
            );
        }
        assert!(!aggregator.add(notice("one more", "x", now), now));
        assert!(aggregator.add(notice("one more", "x", now), now + SERIES_WINDOW));
        assert_eq!(aggregator.entries.len(), 1);
    }

    #[test]
    fn what_another_replica_tells_is_kept_for_a_while() {
        let now = clock::now();
        let mut aggregator = EventAggregator::default();
        aggregator.add(notice("a", "x", now), now);
        aggregator.add(notice("b", "x", now + MINUTE), now);
        assert!(aggregator.expire(MINUTE, now + MINUTE));
        assert_eq!(aggregator.entries.len(), 2);
        assert!(aggregator.expire(MINUTE, now + MINUTE * 2));
        assert_eq!(aggregator.due(now).map(|due| due.key.dedup_key), Ok("b".into()));
        assert!(!aggregator.expire(MINUTE, now + MINUTE * 3));
        assert!(aggregator.entries.is_empty());
    }

    #[test]
    fn what_cannot_be_told_is_dropped_and_may_come_again_at_once() {
        let now = clock::now();
        let mut aggregator = EventAggregator::default();
        aggregator.add(notice("a", "x", now), now);
        let due = aggregator.due(now).expect("due");
        aggregator.discard(&due.key);
        assert_eq!(aggregator.due(now), Err(None));
        aggregator.add(notice("a", "x", now), now);
        assert!(aggregator.due(now).is_ok());
    }
}
