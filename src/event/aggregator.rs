//! The aggregation of notices into Events: repetitions are counted, and a newer truth is written at
//! once. Pure.
//!
//! | the notice                                                | is written                  |
//! | ---                                                       | ---                         |
//! | has a key without an Event                                | at once, in a new Event     |
//! | says the same as its Event, which is the newest of its    | with the others after a     |
//! | topic                                                     | minute, in the Event        |
//! | says the same, but the topic has had another reason since | at once, in the Event       |
//! | says something else within a minute                       | at once, in the Event       |
//! | says something else later, or after the series has ended  | at once, in a new Event     |
//!
//! So no pause ever keeps an Event in the cluster that is no longer so. One Event is written at
//! most once a second. The state of members goes first, then whatever contradicts another Event.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

use crate::notice::{Notice, Reason, Regarding, Topic};

/// The least time between two writes of the same Event with the same note.
const MIN_INTERVAL: Duration = Duration::from_secs(60);

/// The least time between two writes of the same Event.
const MIN_PATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The time after which a repetition starts a new Event. Kubernetes' own controllers use the same.
const SERIES_WINDOW: Duration = Duration::from_secs(360);

/// The time for which the API keeps Events, by default. Nothing older can be contradicted.
const EVENT_TTL: Duration = Duration::from_secs(3600);

/// The number of keys that are remembered.
const CAPACITY: usize = 2048;

/// The key that repetitions share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct EventKey {
    pub regarding: Regarding,
    pub reason: Reason,
    pub dedup_key: String,
}

impl EventKey {
    fn of(notice: &Notice) -> Self {
        Self {
            regarding: notice.regarding.clone(),
            reason: notice.reason,
            dedup_key: notice.dedup_key.clone(),
        }
    }

    /// Returns the key of all notices that this one may contradict.
    fn topic(&self) -> TopicKey {
        let topic = self.reason.topic();
        TopicKey {
            regarding: self.regarding.clone(),
            topic,
            reason: (topic == Topic::Alone).then_some(self.reason),
            dedup_key: match topic {
                Topic::Members => String::new(),
                _ => self.dedup_key.clone(),
            },
        }
    }
}

/// The key that notices share of which only the newest is true.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct TopicKey {
    regarding: Regarding,
    topic: Topic,
    /// The only reason of a topic that has no other.
    reason: Option<Reason>,
    dedup_key: String,
}

/// Notices that wait to be published as one Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    pub key: EventKey,
    /// The newest notice.
    pub notice: Notice,
    /// The number of notices.
    pub count: u32,
    /// The Event that they are written in.
    pub existing: Option<Recorded>,
    /// The time of the topic's newest Event. This one must be younger, whatever clock the other was
    /// written by.
    pub newest: Option<SystemTime>,
}

/// An Event that is in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recorded {
    pub name: String,
    /// The UID of the object that it regards.
    pub uid: String,
    pub resource_version: Option<String>,
    /// The number of happenings that it counts.
    pub count: u32,
    /// The note as it is stored.
    pub note: String,
    /// The time that it shows.
    pub shown_at: SystemTime,
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
    /// The note before it was truncated; that of the Event if another process has written it.
    note: String,
    recorded: Recorded,
    at: Instant,
}

/// The newest Event of a topic.
#[derive(Debug)]
struct Newest {
    key: EventKey,
    shown_at: SystemTime,
    at: Instant,
}

/// The newest Event on a database's members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Statement<'a> {
    pub key: &'a EventKey,
    /// The note as it is stored.
    pub note: &'a str,
}

/// The notices that wait to be published, and the Events that are in the cluster.
#[derive(Debug, Default)]
pub(super) struct EventAggregator {
    entries: HashMap<EventKey, Entry>,
    topics: HashMap<TopicKey, Newest>,
}

impl EventAggregator {
    /// Adds a notice. Returns whether there was room for it.
    pub(super) fn add(&mut self, notice: Notice, now: Instant) -> bool {
        if self.entries.len() >= CAPACITY {
            self.evict(now);
        }
        let key = EventKey::of(&notice);
        if self.entries.len() >= CAPACITY && !self.entries.contains_key(&key) {
            return false;
        }
        let entry = self.entries.entry(key).or_default();
        let count = entry.pending.as_ref().map_or(0, |(_, count)| *count);
        entry.pending = Some((notice, count.saturating_add(1)));
        true
    }

    /// Returns the Event to publish first, or the time until one is due. `held_until` returns the
    /// time until which nothing is published about an object.
    pub(super) fn next(
        &self,
        held_until: impl Fn(&Regarding) -> Option<Instant>,
        now: Instant,
    ) -> Next {
        let waiting = self.entries.iter().filter_map(|(key, entry)| {
            let (notice, _) = entry.pending.as_ref()?;
            let due = self.due(key, entry, notice, now);
            let due = held_until(&key.regarding).map_or(due, |until| due.max(until));
            Some((due, self.rank(key), notice.at, key))
        });
        let first = waiting.min_by_key(|(due, rank, at, _)| ((*due).max(now), *rank, *at));
        let Some((due, _, _, key)) = first else { return Next::Idle };
        if due > now {
            return Next::Wait(due - now);
        }
        let entry = &self.entries[key];
        let Some((notice, count)) = &entry.pending else { return Next::Idle };
        Next::Due(Box::new(Pending {
            key: key.clone(),
            notice: notice.clone(),
            count: *count,
            existing: entry.existing(&notice.note, now).cloned(),
            newest: self.topics.get(&key.topic()).map(|newest| newest.shown_at),
        }))
    }

    /// Returns when a notice may be published.
    fn due(&self, key: &EventKey, entry: &Entry, notice: &Notice, now: Instant) -> Instant {
        let Some(published) = &entry.published else { return now };
        let is_newest = self.topics.get(&key.topic()).is_none_or(|newest| newest.key == *key);
        match published.note == notice.note && is_newest {
            true => published.at + MIN_INTERVAL,
            false => published.at + MIN_PATCH_INTERVAL,
        }
    }

    /// Returns the rank of a key among those that are due: the state of members comes first, then
    /// whatever another Event contradicts.
    fn rank(&self, key: &EventKey) -> u8 {
        match self.topics.get(&key.topic()) {
            _ if key.reason.topic() == Topic::Members => 0,
            Some(newest) if newest.key != *key => 1,
            _ => 2,
        }
    }

    /// Records that the notices were published with this Event. Notices that came meanwhile still
    /// wait.
    pub(super) fn on_published(&mut self, pending: Pending, recorded: Recorded, now: Instant) {
        let Pending { key, notice, count, .. } = pending;
        let newest = Newest { key: key.clone(), shown_at: recorded.shown_at, at: now };
        self.topics.insert(key.topic(), newest);
        let entry = self.entries.entry(key).or_default();
        entry.published = Some(Published { note: notice.note.clone(), recorded, at: now });
        entry.pending = entry.pending.take().and_then(|(newer, all)| {
            let rest = all.saturating_sub(count);
            (rest > 0 || newer != notice).then_some((newer, rest.max(1)))
        });
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

    /// Discards the notices about these objects. Returns their number.
    pub(super) fn discard_all(&mut self, regards: impl Fn(&Regarding) -> bool) -> u32 {
        let mut discarded: u32 = 0;
        self.entries.retain(|key, entry| {
            if let Some((_, count)) = entry.pending.take_if(|_| regards(&key.regarding)) {
                discarded = discarded.saturating_add(count);
            }
            entry.pending.is_some() || entry.published.is_some()
        });
        discarded
    }

    /// Forgets the Event of this key: it has been changed by another writer.
    pub(super) fn forget_event(&mut self, key: &EventKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.published = None;
        }
    }

    /// Discards the notices that are older than this. Returns their number.
    pub(super) fn expire(&mut self, age: Duration, now: Instant) -> u32 {
        let mut discarded: u32 = 0;
        self.entries.retain(|_, entry| {
            let old =
                |(notice, _): &mut (Notice, u32)| now.saturating_duration_since(notice.at) > age;
            if let Some((_, count)) = entry.pending.take_if(old) {
                discarded = discarded.saturating_add(count);
            }
            entry.pending.is_some() || entry.published.is_some()
        });
        discarded
    }

    /// Forgets all Events: another replica may have written newer ones. Notices still wait.
    pub(super) fn forget_events(&mut self) {
        self.topics.clear();
        self.entries.retain(|_, entry| {
            entry.published = None;
            entry.pending.is_some()
        });
    }

    /// Records an Event that was found in the cluster, and was written at this time.
    pub(super) fn on_found(&mut self, key: EventKey, recorded: Recorded, at: Instant) {
        let shown_at = recorded.shown_at;
        let newer = self.topics.get(&key.topic()).is_some_and(|newest| newest.shown_at > shown_at);
        if self.entries.len() >= CAPACITY && !self.entries.contains_key(&key) {
            return;
        }
        if !newer {
            self.topics.insert(key.topic(), Newest { key: key.clone(), shown_at, at });
        }
        let entry = self.entries.entry(key).or_default();
        if entry.published.as_ref().is_none_or(|known| known.recorded.shown_at <= shown_at) {
            let note = recorded.note.clone();
            entry.published = Some(Published { note, recorded, at });
        }
    }

    /// Returns the newest Event of each topic about which no notice waits.
    pub(super) fn statements(&self) -> impl Iterator<Item = Statement<'_>> {
        let pending = self.entries.iter().filter(|(_, entry)| entry.pending.is_some());
        let waiting: HashSet<TopicKey> = pending.map(|(key, _)| key.topic()).collect();
        let settled = self.topics.iter().filter(move |(topic, _)| !waiting.contains(topic));
        settled.filter_map(|(_, newest)| {
            let published = self.entries.get(&newest.key)?.published.as_ref()?;
            Some(Statement { key: &newest.key, note: &published.recorded.note })
        })
    }

    /// Forgets the Events that no repetition can be counted in any more and that nothing newer may
    /// contradict. If that is not enough, the oldest go too: a notice is worth more than memory.
    fn evict(&mut self, now: Instant) {
        let topics = &mut self.topics;
        topics.retain(|_, newest| now.saturating_duration_since(newest.at) < EVENT_TTL);
        self.entries.retain(|key, entry| {
            let is_newest = || topics.get(&key.topic()).is_some_and(|newest| newest.key == *key);
            let recent = |published: &Published| {
                now.saturating_duration_since(published.at) < SERIES_WINDOW || is_newest()
            };
            entry.pending.is_some() || entry.published.as_ref().is_some_and(recent)
        });
        if self.entries.len() < CAPACITY {
            return;
        }
        let idle = self.entries.iter().filter(|(_, entry)| entry.pending.is_none());
        let mut ages: Vec<(Instant, EventKey)> = idle
            .filter_map(|(key, entry)| Some((entry.published.as_ref()?.at, key.clone())))
            .collect();
        ages.sort_by_key(|(at, _)| *at);
        for (_, key) in ages.into_iter().take(CAPACITY / 8) {
            self.entries.remove(&key);
        }
    }
}

impl Entry {
    /// Returns the Event that a notice with this note is written in; none for a new one.
    fn existing(&self, note: &str, now: Instant) -> Option<&Recorded> {
        let published = self.published.as_ref()?;
        let window = if published.note == note { SERIES_WINDOW } else { MIN_INTERVAL };
        let age = now.saturating_duration_since(published.at);
        (age < window).then_some(&published.recorded)
    }
}

#[cfg(test)]
mod tests;
