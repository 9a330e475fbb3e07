//! The addresses that one entry of a config has by its name, from lookups and time. Pure.
//!
//! DNS adds addresses. It takes one away only in exchange for another of the same name that is Up;
//! what DNS does not know, or says is not there, takes nothing away.
//!
//! One lookup asks for two families (RFC 1035, RFC 3596). A family that was asked and has
//! addresses is *good*; addresses that may not be published do not count. The lookup of a service
//! (RFC 2782) has such a pair of answers for each target of its SRV records.
//!
//! | A | AAAA | result | addresses |
//! | --- | --- | --- | --- |
//! | good | good | good | both families replaced |
//! | good | no records, no such name | good | A's replaced, those of AAAA depart |
//! | good | unknown | good | A's replaced, those of AAAA stay |
//! | good | not asked | good | A's replaced, those of AAAA depart |
//! | neither good, none unknown | | empty | nothing changes |
//! | neither good, one unknown | | unknown | nothing changes |
//!
//! The table reads the same with the families exchanged.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use lookup::{FamilyAnswer, Lookup, LookupPart, LookupResult, ServiceTarget};
use rotation::{AnswerCount, RotationWatch};

mod lookup;
mod rotation;

/// Addresses that one name may have. More are left out: those that are no targets yet, the highest
/// first.
pub const MAX_ADDRESSES: usize = 100;

/// With `rotating`: an address must be absent from so many answers for each known address.
const MIN_ABSENT_ANSWERS: u32 = 20;

/// The `dns` keys of an entry that decide about its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Each answer has only some of the addresses.
    pub rotating: bool,
    /// With `rotating`: the least time that an address stays without an answer that has it.
    pub forget_after: Duration,
    /// The time after which an address leaves that no answer has; for ever without.
    pub gone_after: Option<Duration>,
}

/// The way in which DNS stands behind an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backing {
    /// The newest good answer has it.
    Current,
    /// An older answer had it. It stays until another of the name that is Up takes its place.
    Departing,
    /// Another has taken its place, or `goneAfter` is over. Only an answer that has it again makes
    /// it current again.
    Released,
    /// An address that was published when the daemon first looked, and whose names have had no good
    /// answer yet. It belongs to no name, so all names of the database must resolve before another
    /// of any of them may take its place. No name has such an address.
    Adopted,
}

impl Backing {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Departing => "departing",
            Self::Released => "released",
            Self::Adopted => "adopted",
        }
    }

    /// Returns whether an answer has had the address.
    pub fn is_of_an_answer(self) -> bool {
        self != Self::Adopted
    }
}

/// The address families that are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Families {
    /// A records are asked for.
    pub ipv4: bool,
    /// AAAA records are asked for.
    pub ipv6: bool,
}

impl Families {
    /// Both families.
    pub const BOTH: Self = Self { ipv4: true, ipv6: true };

    /// Returns whether the family of this IP is followed.
    pub fn contains(self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(_) => self.ipv4,
            IpAddr::V6(_) => self.ipv6,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    backing: Backing,
    service_target: Option<Arc<ServiceTarget>>,
    /// True if no answer has had it: it was published, and the name is `rotating`.
    is_adopted: bool,
    last_seen: Instant,
    /// Good answers in a row that did not have it.
    absent_answers: u32,
}

/// The addresses of an answer, with their SRV targets.
type Answered = BTreeMap<IpAddr, Option<Arc<ServiceTarget>>>;

/// The changes that one lookup made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Addresses that were not known.
    pub added: Vec<IpAddr>,
    /// Known addresses that the name has again.
    pub returned: Vec<IpAddr>,
    /// Addresses that the name no longer has.
    pub departed: Vec<IpAddr>,
    /// Addresses beyond [`MAX_ADDRESSES`].
    pub left_out: usize,
    /// The answers look like those of a name that should be `rotating`; said once.
    pub rotation_suspected: bool,
    /// The name is `rotating`, but has only had one address so far; said once. It need not be, and
    /// a move takes `forgetAfter` with it.
    pub rotation_missing: bool,
}

/// The state of an address that decides whether it is still needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetFacts {
    /// True if it is Up.
    pub is_up: bool,
    /// True if the cluster holds it.
    pub is_published: bool,
}

/// The addresses of one name in one entry. There may be many thousands of names, so it is small.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameState {
    /// Sorted by address.
    addresses: Vec<(IpAddr, Known)>,
    newest: Option<LookupResult>,
    has_resolved: bool,
    answer_count: AnswerCount,
    rotation_watch: Option<Box<RotationWatch>>,
}

impl NameState {
    /// Returns whether a good answer has come since the start.
    pub fn has_resolved(&self) -> bool {
        self.has_resolved
    }

    /// Returns whether any answer has come, of whatever kind.
    pub fn was_asked(&self) -> bool {
        self.newest.is_some()
    }

    /// Returns the result of the newest lookup; none before the first.
    pub fn newest(&self) -> Option<LookupResult> {
        self.newest
    }

    /// Returns all known addresses in order, with DNS's word on each.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, Backing)> + '_ {
        self.addresses.iter().map(|(ip, known)| (*ip, known.backing))
    }

    /// Returns DNS's word on an address; none if the name never had it, or it was dropped.
    pub fn backing(&self, ip: IpAddr) -> Option<Backing> {
        self.known(ip).map(|known| known.backing)
    }

    /// Returns the SRV target that an address is of, if the name is a service.
    pub fn service_target(&self, ip: IpAddr) -> Option<&Arc<ServiceTarget>> {
        self.known(ip)?.service_target.as_ref()
    }

    fn position(&self, ip: IpAddr) -> Result<usize, usize> {
        self.addresses.binary_search_by_key(&ip, |(known, _)| *known)
    }

    fn known(&self, ip: IpAddr) -> Option<&Known> {
        self.position(ip).ok().map(|index| &self.addresses[index].1)
    }

    /// Inserts an address, or replaces what is known of it. Returns what was known.
    fn insert(&mut self, ip: IpAddr, known: Known) -> Option<Known> {
        match self.position(ip) {
            Ok(index) => Some(std::mem::replace(&mut self.addresses[index].1, known)),
            Err(index) => {
                // Most names have one address, and no room for more.
                self.addresses.reserve_exact(1);
                self.addresses.insert(index, (ip, known));
                None
            }
        }
    }

    /// Takes an address for one that an answer has just had. A name with `rotating` adopts what is
    /// published already, because each answer has only some of its addresses.
    pub fn adopt(&mut self, ip: IpAddr, now: Instant) {
        if self.known(ip).is_none() {
            let backing = Backing::Current;
            let known = Known {
                backing,
                service_target: None,
                is_adopted: true,
                last_seen: now,
                absent_answers: 0,
            };
            self.insert(ip, known);
        }
    }

    /// Returns whether no answer of the name has had an address that it adopted.
    pub fn is_adopted(&self, ip: IpAddr) -> bool {
        self.known(ip).is_some_and(|known| known.is_adopted)
    }

    /// Returns whether an answer of the name has had an address, and it has not been given up.
    pub fn has_answered(&self, ip: IpAddr) -> bool {
        self.known(ip).is_some_and(|known| known.backing == Backing::Current && !known.is_adopted)
    }

    /// Forgets addresses that may not be published any more, and returns them.
    pub fn forget(&mut self, may_not_stay: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
        let mut forgotten = Vec::new();
        self.addresses.retain(|(ip, _)| {
            let goes = may_not_stay(*ip);
            forgotten.extend(goes.then_some(*ip));
            !goes
        });
        forgotten
    }

    /// Applies a lookup. `facts` tells of the addresses that are targets already.
    pub fn observe(
        &mut self,
        lookup: &Lookup,
        settings: &Settings,
        facts: impl Fn(IpAddr) -> TargetFacts,
        now: Instant,
    ) -> Changes {
        let result = lookup.result();
        self.newest = Some(result);
        let mut changes = Changes::default();
        if result == LookupResult::Good {
            self.has_resolved = true;
            if settings.rotating {
                self.make_room(lookup, &facts, &mut changes);
            }
            let answered = self.limit(lookup, settings, &mut changes);
            self.mark_seen(&answered, now, &mut changes);
            self.mark_absent(lookup, &answered, settings, facts, now, &mut changes);
            self.watch_rotation(settings, now, &mut changes);
        }
        if result != LookupResult::Unknown {
            self.expire(lookup, settings, now);
        }
        changes
    }

    /// Gives up addresses of a `rotating` name that are neither Up nor in the answer, where those
    /// of the answer would be too many beside them: first those that were seen longest ago.
    fn make_room(
        &mut self,
        lookup: &Lookup,
        facts: impl Fn(IpAddr) -> TargetFacts,
        changes: &mut Changes,
    ) {
        let answered = lookup.addresses();
        let is_absent = |(ip, known): &&mut (IpAddr, Known)| {
            known.backing == Backing::Current && !answered.contains_key(ip)
        };
        let mut absent: Vec<_> = self.addresses.iter_mut().filter(is_absent).collect();
        let surplus = (answered.len() + absent.len()).saturating_sub(MAX_ADDRESSES);
        absent.retain(|(ip, _)| {
            let TargetFacts { is_up, is_published } = facts(*ip);
            !is_up && !is_published
        });
        absent.sort_by_key(|(_, known)| known.last_seen);
        for (ip, known) in absent.into_iter().take(surplus) {
            known.backing = Backing::Released;
            changes.departed.push(*ip);
        }
    }

    /// Returns at most [`MAX_ADDRESSES`] of an answer: the known ones first, then the lowest. With
    /// `rotating` these are the most of all answers together.
    fn limit(&self, lookup: &Lookup, settings: &Settings, changes: &mut Changes) -> Answered {
        let mut answered: Vec<_> = lookup.addresses().into_iter().collect();
        answered.sort_by_key(|(ip, _)| (self.known(*ip).is_none(), *ip));
        let absent = self.addresses.iter().filter(|(ip, known)| {
            known.backing == Backing::Current && !answered.iter().any(|(it, _)| it == ip)
        });
        let reserved = if settings.rotating { absent.count() } else { 0 };
        let max = MAX_ADDRESSES.saturating_sub(reserved);
        changes.left_out = answered.len().saturating_sub(max);
        answered.truncate(max);
        answered.into_iter().collect()
    }

    fn mark_seen(&mut self, answered: &Answered, now: Instant, changes: &mut Changes) {
        for (ip, service_target) in answered {
            let seen = Known {
                backing: Backing::Current,
                service_target: service_target.clone(),
                is_adopted: false,
                last_seen: now,
                absent_answers: 0,
            };
            match self.insert(*ip, seen) {
                None => changes.added.push(*ip),
                Some(Known { backing: Backing::Current, .. }) => {}
                Some(_) => changes.returned.push(*ip),
            }
        }
    }

    fn mark_absent(
        &mut self,
        lookup: &Lookup,
        answered: &Answered,
        settings: &Settings,
        facts: impl Fn(IpAddr) -> TargetFacts,
        now: Instant,
        changes: &mut Changes,
    ) {
        let current = self.addresses.iter().filter(|(_, known)| known.backing == Backing::Current);
        let current = u32::try_from(current.count()).unwrap_or(u32::MAX);
        let patience = MIN_ABSENT_ANSWERS.saturating_mul(current);
        for (ip, known) in &mut self.addresses {
            if answered.contains_key(ip) || lookup.leaves_open(*ip, known.service_target.as_deref())
            {
                continue;
            }
            known.absent_answers = known.absent_answers.saturating_add(1);
            let departs = !settings.rotating || lookup.does_not_follow(*ip) || {
                let is_old =
                    now.saturating_duration_since(known.last_seen) >= settings.forget_after;
                known.absent_answers >= patience && (is_old || !facts(*ip).is_up)
            };
            if departs && known.backing == Backing::Current {
                known.backing = Backing::Departing;
                changes.departed.push(*ip);
            }
        }
    }

    fn watch_rotation(&mut self, settings: &Settings, now: Instant, changes: &mut Changes) {
        if settings.rotating {
            changes.rotation_missing = self.answer_count.observe(self.addresses.len());
        } else if self.rotation_watch.is_some() || !changes.departed.is_empty() {
            let watch = self.rotation_watch.get_or_insert_default();
            changes.rotation_suspected = watch.observe(changes, now);
        }
    }

    /// Ends what no answer has had for too long. What the lookup leaves open stays, and so does
    /// what a `rotating` name has not given up: an answer of it lacks most addresses.
    fn expire(&mut self, lookup: &Lookup, settings: &Settings, now: Instant) {
        let Some(gone_after) = settings.gone_after else { return };
        for (ip, known) in &mut self.addresses {
            let is_over = now.saturating_duration_since(known.last_seen) >= gone_after;
            let is_absent = !settings.rotating || known.backing != Backing::Current;
            if is_over && is_absent && !lookup.leaves_open(*ip, known.service_target.as_deref()) {
                known.backing = Backing::Released;
            }
        }
    }

    /// Records a decision that was carried out: of the departing addresses, those that it left out
    /// because a current one of the name is a member.
    pub fn exchange(&mut self, left_out: impl Fn(IpAddr) -> bool) {
        for (ip, known) in &mut self.addresses {
            if known.backing == Backing::Departing && left_out(*ip) {
                known.backing = Backing::Released;
            }
        }
    }

    /// Drops the addresses that nobody needs any more, and returns them.
    ///
    /// | published | backing | health | |
    /// | --- | --- | --- | --- |
    /// | yes | departing, released | any | stays |
    /// | no | departing | Up | stays: it waits in a lower tier, in maintenance or for flapping |
    /// | no | departing | Down, untried | dropped |
    /// | no | released | any | dropped |
    pub fn drop_unneeded(&mut self, facts: impl Fn(IpAddr) -> TargetFacts) -> Vec<IpAddr> {
        let mut dropped = Vec::new();
        self.addresses.retain(|(ip, known)| {
            let stays = match known.backing {
                Backing::Current | Backing::Adopted => true,
                Backing::Departing => {
                    let TargetFacts { is_up, is_published } = facts(*ip);
                    is_published || is_up
                }
                Backing::Released => facts(*ip).is_published,
            };
            if !stays {
                dropped.push(*ip);
            }
            stays
        });
        dropped
    }
}

/// The first and the longest pause after a lookup that was not good.
const RETRY_DELAY: Duration = Duration::from_secs(1);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);
/// The shortest pause after a good lookup, whatever its TTL.
const MIN_REFRESH: Duration = Duration::from_secs(1);
/// A wait beyond this is made up to a tenth longer, so that names do not stay in step.
const JITTERED_ABOVE: Duration = Duration::from_secs(10);

/// Returns the wait until a name is asked again.
///
/// | newest result | wait |
/// | --- | --- |
/// | good | its TTL, within 1 s and `refresh` |
/// | empty, unknown | 1, 2, 4, … 30 s, by the number of such results in a row |
///
/// `jitter` is a number of 0 to 1.
pub fn next_lookup_after(
    good_ttl: Option<u32>,
    failures: u32,
    refresh: Duration,
    jitter: f64,
) -> Duration {
    let wait = match good_ttl {
        Some(ttl) => Duration::from_secs(ttl.into()).clamp(MIN_REFRESH, refresh.max(MIN_REFRESH)),
        None => {
            let doubled = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
            RETRY_DELAY.saturating_mul(doubled).min(MAX_RETRY_DELAY)
        }
    };
    if wait <= JITTERED_ABOVE { wait } else { wait + wait.mul_f64(jitter.clamp(0.0, 1.0) / 10.0) }
}

#[cfg(test)]
mod tests;
