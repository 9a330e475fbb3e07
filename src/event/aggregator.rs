//! Which news are told when: the same thing at most once a minute, with how often it happened. No clock of its own.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::notice::{Notice, Regarding};

/// The least time between two tellings of the same thing.
const MIN_INTERVAL: Duration = Duration::from_secs(60);

/// After this long without news of a thing, the next begin a new Event, as with Kubernetes' own controllers.
const SERIES_WINDOW: Duration = Duration::from_secs(360);

/// The most things that are remembered.
const CAPACITY: usize = 2048;

/// What makes two news the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct EventKey {
    pub about: Regarding,
    pub reason: String,
    pub subject: String,
}

/// What is to be told now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    pub key: EventKey,
    /// The newest of them.
    pub news: Notice,
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
    /// Takes news in. Returns whether there was room.
    pub(super) fn add(&mut self, news: Notice, now: Instant) -> bool {
        if self.entries.len() >= CAPACITY {
            self.evict(now);
        }
        let thing = EventKey {
            about: news.regarding.clone(),
            reason: news.reason.clone(),
            subject: news.dedup_key.clone(),
        };
        if self.entries.len() >= CAPACITY && !self.entries.contains_key(&thing) {
            return false;
        }
        let entry = self.entries.entry(thing).or_insert(Entry { pending: None, recorded: None });
        let count = entry.pending.as_ref().map_or(0, |(_, count)| *count);
        entry.pending = Some((news, count.saturating_add(1)));
        true
    }

    /// What has waited longest of all that may be told; else how long until something may.
    pub(super) fn due(&self, now: Instant) -> Result<Pending, Option<Duration>> {
        let waiting = self
            .entries
            .iter()
            .filter_map(|(thing, entry)| Some((entry.due(now), thing, entry.pending.as_ref()?)));
        let first = waiting.min_by_key(|(due, _, (news, _))| ((*due).max(now), news.at));
        let (due, thing, (news, count)) = first.ok_or(None)?;
        if due > now {
            return Err(Some(due - now));
        }
        let told = self.entries[thing].recorded.as_ref();
        let before = told.filter(|(note, _, at)| *note == news.note && now - *at < SERIES_WINDOW);
        Ok(Pending {
            key: thing.clone(),
            news: news.clone(),
            count: *count,
            existing: before.map(|(_, told, _)| told.clone()),
        })
    }

    /// Takes note that it was told, by this Event.
    pub(super) fn recorded(&mut self, due: Pending, told: Recorded, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&due.key) {
            entry.pending = None;
            entry.recorded = Some((due.news.note, told, now));
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
            let old = |(news, _): &mut (Notice, u32)| now.saturating_duration_since(news.at) > age;
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

    fn notice(subject: &str, note: &str, at: Instant) -> Notice {
        Notice {
            regarding: Regarding::Database(DatabaseId {
                namespace: "prod".into(),
                service: "mysql".into(),
            }),
            reason: "TargetDown".into(),
            action: "Check",
            warning: true,
            dedup_key: subject.into(),
            note: note.into(),
            at,
        }
    }

    fn tell(ledger: &mut EventAggregator, now: Instant) -> (String, u32, Option<u32>) {
        let due = ledger.due(now).expect("something to tell");
        let said = (due.news.note.clone(), due.count, due.existing.as_ref().map(|told| told.count));
        let count = due.count + said.2.unwrap_or_default();
        ledger.recorded(due, Recorded { name: "mysql.1".into(), uid: "uid".into(), count }, now);
        said
    }

    #[test]
    fn the_same_thing_is_told_once_a_minute_with_its_count_and_its_newest_words() {
        let now = clock::now();
        let mut ledger = EventAggregator::default();
        ledger.add(notice("a", "refused", now), now);
        assert_eq!(tell(&mut ledger, now), ("refused".into(), 1, None));
        for _ in 0..3 {
            ledger.add(notice("a", "refused", now), now);
        }
        assert_eq!(ledger.due(now), Err(Some(MINUTE)));
        assert_eq!(tell(&mut ledger, now + MINUTE), ("refused".into(), 3, Some(1)));
        ledger.add(notice("a", "refused", now), now);
        ledger.add(notice("a", "silent", now), now);
        assert_eq!(
            tell(&mut ledger, now + 2 * MINUTE),
            ("silent".into(), 2, None),
            "other words are another Event"
        );
        assert_eq!(ledger.due(now + 3 * MINUTE), Err(None));
    }

    #[test]
    fn different_things_wait_for_each_other_not_at_all_and_the_oldest_goes_first() {
        let now = clock::now();
        let mut ledger = EventAggregator::default();
        let later = now + Duration::from_millis(1);
        ledger.add(notice("b", "b", later), later);
        ledger.add(notice("a", "a", now), later);
        assert_eq!(tell(&mut ledger, later).0, "a");
        assert_eq!(tell(&mut ledger, later).0, "b");
    }

    #[test]
    fn after_a_long_quiet_a_new_event_begins() {
        let now = clock::now();
        let mut ledger = EventAggregator::default();
        ledger.add(notice("a", "refused", now), now);
        tell(&mut ledger, now);
        let later = now + SERIES_WINDOW;
        ledger.add(notice("a", "refused", later), later);
        assert_eq!(tell(&mut ledger, later), ("refused".into(), 1, None));
    }

    #[test]
    fn there_is_room_for_so_many_and_what_is_old_makes_room() {
        let now = clock::now();
        let mut ledger = EventAggregator::default();
        for index in 0..CAPACITY {
            assert!(ledger.add(notice(&index.to_string(), "x", now), now));
        }
        assert!(!ledger.add(notice("one more", "x", now), now));
        assert!(ledger.add(notice("0", "x", now), now), "what is known has its place");
        while let Ok(due) = ledger.due(now) {
            ledger.recorded(
                due,
                Recorded { name: "mysql.1".into(), uid: "uid".into(), count: 1 },
                now,
            );
        }
        assert!(!ledger.add(notice("one more", "x", now), now));
        assert!(ledger.add(notice("one more", "x", now), now + SERIES_WINDOW));
        assert_eq!(ledger.entries.len(), 1);
    }

    #[test]
    fn what_another_replica_tells_is_kept_for_a_while() {
        let now = clock::now();
        let mut ledger = EventAggregator::default();
        ledger.add(notice("a", "x", now), now);
        ledger.add(notice("b", "x", now + MINUTE), now);
        assert!(ledger.expire(MINUTE, now + MINUTE));
        assert_eq!(ledger.entries.len(), 2);
        assert!(ledger.expire(MINUTE, now + MINUTE * 2));
        assert_eq!(ledger.due(now).map(|due| due.key.subject), Ok("b".into()));
        assert!(!ledger.expire(MINUTE, now + MINUTE * 3));
        assert!(ledger.entries.is_empty());
    }

    #[test]
    fn what_cannot_be_told_is_dropped_and_may_come_again_at_once() {
        let now = clock::now();
        let mut ledger = EventAggregator::default();
        ledger.add(notice("a", "x", now), now);
        let due = ledger.due(now).expect("due");
        ledger.discard(&due.key);
        assert_eq!(ledger.due(now), Err(None));
        ledger.add(notice("a", "x", now), now);
        assert!(ledger.due(now).is_ok());
    }
}
