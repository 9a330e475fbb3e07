//! Which news are told when: the same thing at most once a minute, with how often it happened. No clock of its own.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::notice::{About, News};

/// The least time between two tellings of the same thing.
const APART: Duration = Duration::from_secs(60);

/// After this long without news of a thing, the next begin a new Event, as with Kubernetes' own controllers.
const FORGOTTEN: Duration = Duration::from_secs(360);

/// The most things that are remembered.
const ROOM: usize = 2048;

/// What makes two news the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Thing {
    pub about: About,
    pub reason: String,
    pub subject: String,
}

/// What is to be told now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    pub thing: Thing,
    /// The newest of them.
    pub news: News,
    /// How many there are of them.
    pub count: u32,
    /// What was told before in the same words.
    pub before: Option<Told>,
}

/// An Event that is in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub name: String,
    /// The UID of what it regards.
    pub uid: String,
    /// How often it has happened, as it says.
    pub count: u32,
}

#[derive(Debug)]
struct Entry {
    /// The newest, and how many have come since they were told last.
    pending: Option<(News, u32)>,
    /// The words that were told last, with the Event that says them, and when.
    told: Option<(String, Told, Instant)>,
}

impl Entry {
    /// When it may be told again.
    fn due(&self, now: Instant) -> Instant {
        self.told.as_ref().map_or(now, |(_, _, at)| *at + APART)
    }
}

/// All that is to be told, and what has been.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: HashMap<Thing, Entry>,
}

impl Ledger {
    /// Takes news in. Returns whether there was room.
    pub(super) fn hear(&mut self, news: News, now: Instant) -> bool {
        if self.entries.len() >= ROOM {
            self.forget(now);
        }
        let thing = Thing {
            about: news.about.clone(),
            reason: news.reason.clone(),
            subject: news.subject.clone(),
        };
        if self.entries.len() >= ROOM && !self.entries.contains_key(&thing) {
            return false;
        }
        let entry = self.entries.entry(thing).or_insert(Entry { pending: None, told: None });
        let count = entry.pending.as_ref().map_or(0, |(_, count)| *count);
        entry.pending = Some((news, count.saturating_add(1)));
        true
    }

    /// What has waited longest of all that may be told; else how long until something may.
    pub(super) fn due(&self, now: Instant) -> Result<Due, Option<Duration>> {
        let waiting = self
            .entries
            .iter()
            .filter_map(|(thing, entry)| Some((entry.due(now), thing, entry.pending.as_ref()?)));
        let first = waiting.min_by_key(|(due, _, (news, _))| ((*due).max(now), news.at));
        let (due, thing, (news, count)) = first.ok_or(None)?;
        if due > now {
            return Err(Some(due - now));
        }
        let told = self.entries[thing].told.as_ref();
        let before = told.filter(|(note, _, at)| *note == news.note && now - *at < FORGOTTEN);
        Ok(Due {
            thing: thing.clone(),
            news: news.clone(),
            count: *count,
            before: before.map(|(_, told, _)| told.clone()),
        })
    }

    /// Takes note that it was told, by this Event.
    pub(super) fn told(&mut self, due: Due, told: Told, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&due.thing) {
            entry.pending = None;
            entry.told = Some((due.news.note, told, now));
        }
    }

    /// Takes note that it can't be told.
    pub(super) fn give_up(&mut self, thing: &Thing) {
        if let Some(entry) = self.entries.get_mut(thing) {
            entry.pending = None;
            if entry.told.is_none() {
                self.entries.remove(thing);
            }
        }
    }

    /// Forgets what is to be told and older than this. Says whether anything is left to be told.
    pub(super) fn forget_older(&mut self, age: Duration, now: Instant) -> bool {
        self.entries.retain(|_, entry| {
            let old = |(news, _): &mut (News, u32)| now.saturating_duration_since(news.at) > age;
            entry.pending.take_if(old);
            entry.pending.is_some() || entry.told.is_some()
        });
        self.entries.values().any(|entry| entry.pending.is_some())
    }

    fn forget(&mut self, now: Instant) {
        self.entries.retain(|_, entry| {
            let old = entry.told.as_ref().is_none_or(|(_, _, at)| now - *at >= FORGOTTEN);
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

    fn news(subject: &str, note: &str, at: Instant) -> News {
        News {
            about: About::Database(DatabaseId {
                namespace: "prod".into(),
                service: "mysql".into(),
            }),
            reason: "TargetDown".into(),
            action: "Check",
            warning: true,
            subject: subject.into(),
            note: note.into(),
            at,
        }
    }

    fn tell(ledger: &mut Ledger, now: Instant) -> (String, u32, Option<u32>) {
        let due = ledger.due(now).expect("something to tell");
        let said = (due.news.note.clone(), due.count, due.before.as_ref().map(|told| told.count));
        let count = due.count + said.2.unwrap_or_default();
        ledger.told(due, Told { name: "mysql.1".into(), uid: "uid".into(), count }, now);
        said
    }

    #[test]
    fn the_same_thing_is_told_once_a_minute_with_its_count_and_its_newest_words() {
        let now = clock::now();
        let mut ledger = Ledger::default();
        ledger.hear(news("a", "refused", now), now);
        assert_eq!(tell(&mut ledger, now), ("refused".into(), 1, None));
        for _ in 0..3 {
            ledger.hear(news("a", "refused", now), now);
        }
        assert_eq!(ledger.due(now), Err(Some(MINUTE)));
        assert_eq!(tell(&mut ledger, now + MINUTE), ("refused".into(), 3, Some(1)));
        ledger.hear(news("a", "refused", now), now);
        ledger.hear(news("a", "silent", now), now);
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
        let mut ledger = Ledger::default();
        let later = now + Duration::from_millis(1);
        ledger.hear(news("b", "b", later), later);
        ledger.hear(news("a", "a", now), later);
        assert_eq!(tell(&mut ledger, later).0, "a");
        assert_eq!(tell(&mut ledger, later).0, "b");
    }

    #[test]
    fn after_a_long_quiet_a_new_event_begins() {
        let now = clock::now();
        let mut ledger = Ledger::default();
        ledger.hear(news("a", "refused", now), now);
        tell(&mut ledger, now);
        let later = now + FORGOTTEN;
        ledger.hear(news("a", "refused", later), later);
        assert_eq!(tell(&mut ledger, later), ("refused".into(), 1, None));
    }

    #[test]
    fn there_is_room_for_so_many_and_what_is_old_makes_room() {
        let now = clock::now();
        let mut ledger = Ledger::default();
        for index in 0..ROOM {
            assert!(ledger.hear(news(&index.to_string(), "x", now), now));
        }
        assert!(!ledger.hear(news("one more", "x", now), now));
        assert!(ledger.hear(news("0", "x", now), now), "what is known has its place");
        while let Ok(due) = ledger.due(now) {
            ledger.told(due, Told { name: "mysql.1".into(), uid: "uid".into(), count: 1 }, now);
        }
        assert!(!ledger.hear(news("one more", "x", now), now));
        assert!(ledger.hear(news("one more", "x", now), now + FORGOTTEN));
        assert_eq!(ledger.entries.len(), 1);
    }

    #[test]
    fn what_another_replica_tells_is_kept_for_a_while() {
        let now = clock::now();
        let mut ledger = Ledger::default();
        ledger.hear(news("a", "x", now), now);
        ledger.hear(news("b", "x", now + MINUTE), now);
        assert!(ledger.forget_older(MINUTE, now + MINUTE));
        assert_eq!(ledger.entries.len(), 2);
        assert!(ledger.forget_older(MINUTE, now + MINUTE * 2));
        assert_eq!(ledger.due(now).map(|due| due.thing.subject), Ok("b".into()));
        assert!(!ledger.forget_older(MINUTE, now + MINUTE * 3));
        assert!(ledger.entries.is_empty());
    }

    #[test]
    fn what_cannot_be_told_is_dropped_and_may_come_again_at_once() {
        let now = clock::now();
        let mut ledger = Ledger::default();
        ledger.hear(news("a", "x", now), now);
        let due = ledger.due(now).expect("due");
        ledger.give_up(&due.thing);
        assert_eq!(ledger.due(now), Err(None));
        ledger.hear(news("a", "x", now), now);
        assert!(ledger.due(now).is_ok());
    }
}
