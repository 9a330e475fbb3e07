//! The admission of tries: a fixed number of places, shared fairly by the databases. Pure.
//!
//! A try that may not start yet waits. A free place goes to the waiting database with the fewest
//! tries in flight, and among equals to the one that got its last place the longest ago. So each
//! database has its turn, however many tries of another one hang. In this table an idle database
//! has tries of the kind, but none in flight:
//!
//! | free places | databases with such tries | in flight of this database | it may start one more |
//! | --- | --- | --- | --- |
//! | 0 | any number | any number | no |
//! | 1 or more | any number | none | yes |
//! | 1 or more | one | 1 or more | yes |
//! | as many as idle databases, or fewer | several | 1 or more | no: for each idle one |
//! | more than idle databases | several | fewer than places are free | yes |
//! | more than idle databases | several | as many as are free, or more | no: for the others |
//!
//! The result: as long as fewer databases hang than there are places, each database that does not
//! hang is tried. With more databases than places, each has one try in flight at a time. Once no
//! place is free, each other database passes a database without a try in flight at most once.
//!
//! The last row is the dynamic threshold by which switches share their memory (Choudhury and Hahne,
//! 1998): a single database gets at most half of the places, and two that want more get a third
//! each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use crate::config::DatabaseId;
use crate::schedule::TargetKey;

/// A number that a database keeps from one config to the next.
pub(super) type OwnerId = usize;

/// The places, and the tries that wait for one.
pub(super) struct AdmissionQueue {
    free: usize,
    /// Databases with tries of this kind. A single one may take all places.
    sharers: usize,
    /// Sharers without a try in flight.
    idle: usize,
    /// By owner.
    shares: Vec<Share>,
    /// The databases with waiting tries. The first is the next to start.
    queue: BTreeSet<Rank>,
    /// A try that got its place at once, and has not been returned yet.
    admitted: Option<(TargetKey, Instant)>,
    /// Counts the admissions, so that each has a number.
    admissions: u64,
}

/// Tries of one database.
#[derive(Default)]
struct Share {
    /// True if the config has such tries for it. Without any, it is not idle after its last try.
    is_sharer: bool,
    in_flight: usize,
    /// The number of its last admission.
    last_admission: u64,
    /// Each with the time at which it was due, in order of arrival.
    waiting: VecDeque<(TargetKey, Instant)>,
}

/// The rank of a database among those that wait, the lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    in_flight: usize,
    last_admission: u64,
    owner: OwnerId,
}

impl Share {
    fn rank(&self, owner: OwnerId) -> Option<Rank> {
        let Self { in_flight, last_admission, waiting, .. } = self;
        (!waiting.is_empty()).then_some(Rank {
            in_flight: *in_flight,
            last_admission: *last_admission,
            owner,
        })
    }

    fn is_idle(&self) -> bool {
        self.is_sharer && self.in_flight == 0
    }
}

impl AdmissionQueue {
    pub(super) fn new(places: usize) -> Self {
        Self {
            free: places,
            sharers: 0,
            idle: 0,
            shares: Vec::new(),
            queue: BTreeSet::new(),
            admitted: None,
            admissions: 0,
        }
    }

    /// Sets which databases have tries of this kind.
    pub(super) fn set_sharers(&mut self, owners: &BTreeSet<OwnerId>) {
        self.sharers = owners.len();
        owners.last().into_iter().for_each(|&last| self.ensure_share(last));
        for (owner, share) in self.shares.iter_mut().enumerate() {
            share.is_sharer = owners.contains(&owner);
        }
        self.idle = self.shares.iter().filter(|share| share.is_idle()).count();
    }

    /// Adds a try that is due. [`Self::try_admit`] must be called before the next one is added.
    pub(super) fn enqueue(&mut self, owner: OwnerId, key: TargetKey, due: Instant) {
        self.ensure_share(owner);
        // Nearly always nothing waits, and this is all there is to do.
        if self.queue.is_empty()
            && self.admitted.is_none()
            && self.may_start(self.shares[owner].in_flight)
        {
            self.acquire(owner);
            self.admitted = Some((key, due));
            return;
        }
        let share = &mut self.shares[owner];
        share.waiting.push_back((key, due));
        if share.waiting.len() == 1 {
            self.queue.extend(share.rank(owner));
        }
    }

    /// Returns the next try that may start, which then has a place.
    pub(super) fn try_admit(&mut self) -> Option<(TargetKey, Instant)> {
        if let Some(admitted) = self.admitted.take() {
            return Some(admitted);
        }
        // The first has the fewest in flight: if it may not start, none may.
        let rank = *self.queue.first()?;
        if !self.may_start(rank.in_flight) {
            return None;
        }
        self.queue.remove(&rank);
        let (key, due) = self.shares[rank.owner].waiting.pop_front()?;
        self.acquire(rank.owner);
        self.queue.extend(self.shares[rank.owner].rank(rank.owner));
        Some((key, due))
    }

    /// Frees a place of the database, if it has one.
    pub(super) fn release(&mut self, owner: OwnerId) {
        let Some(share) = self.shares.get_mut(owner).filter(|share| share.in_flight > 0) else {
            return;
        };
        self.free += 1;
        let waited = share.rank(owner);
        share.in_flight -= 1;
        self.idle += usize::from(share.is_idle());
        if let (Some(before), Some(after)) = (waited, share.rank(owner)) {
            self.queue.remove(&before);
            self.queue.insert(after);
        }
    }

    /// Returns whether tries of this owner are in flight or waiting.
    pub(super) fn is_used_by(&self, owner: OwnerId) -> bool {
        self.shares.get(owner).is_some_and(|share| share.in_flight > 0 || !share.waiting.is_empty())
    }

    /// Returns whether any try waits.
    pub(super) fn is_saturated(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Returns all waiting tries, each with the time at which it was due.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (TargetKey, Instant)> {
        self.queue.iter().flat_map(|rank| self.shares[rank.owner].waiting.iter().copied())
    }

    fn ensure_share(&mut self, owner: OwnerId) {
        if self.shares.len() <= owner {
            self.shares.resize_with(owner + 1, Share::default);
        }
    }

    fn acquire(&mut self, owner: OwnerId) {
        self.free -= 1;
        self.admissions += 1;
        let share = &mut self.shares[owner];
        self.idle -= usize::from(share.is_idle());
        share.in_flight += 1;
        share.last_admission = self.admissions;
    }

    /// Applies the table above.
    fn may_start(&self, in_flight: usize) -> bool {
        let leaves_enough = self.free > self.idle && in_flight < self.free;
        self.free > 0 && (in_flight == 0 || self.sharers <= 1 || leaves_enough)
    }
}

/// The numbers of the databases, which stay the same while other databases come and go.
#[derive(Default)]
pub(super) struct OwnerIds(BTreeMap<DatabaseId, OwnerId>);

impl OwnerIds {
    /// Takes over the databases of another config. A new database may get the number of a removed
    /// one, but not while tries of that one are left. They would count as those of the new one,
    /// which then might not start any.
    pub(super) fn update<'a>(
        &mut self,
        databases: impl Iterator<Item = &'a DatabaseId>,
        is_used: impl Fn(OwnerId) -> bool,
    ) {
        let databases: BTreeSet<&DatabaseId> = databases.collect();
        self.0.retain(|id, _| databases.contains(id));
        let used: BTreeSet<OwnerId> = self.0.values().copied().collect();
        let mut unused = (0..).filter(|owner| !used.contains(owner) && !is_used(*owner));
        for id in databases {
            if !self.0.contains_key(id) {
                self.0.extend(unused.next().map(|owner| (id.clone(), owner)));
            }
        }
    }

    pub(super) fn get(&self, id: &DatabaseId) -> OwnerId {
        self.0.get(id).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
