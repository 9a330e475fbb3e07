//! The addresses of a database with names: from the newest DNS answers, and from the members that
//! were published before there was any.
//!
//! An IP can be known in several ways. The first of these owns it, and gives it its check, its tier
//! and its other attributes:
//!
//! | known as | |
//! | --- | --- |
//! | an IP of the file | whatever DNS says of it |
//! | current | in the newest answer of the first such name of the file |
//! | adopted | published when the daemon first looked; see [`DnsAddresses::adopt`] |
//! | departing, released | in an older answer of the first such name |

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::answers::{self, ServiceFacts};
use super::name_status::{MAX_REFUSED, NameStatus};
use crate::config::{Address, Database, NameKind, RejectedAddress};
use crate::monitor::snapshot::Origin;
use crate::names::{Backing, Changes, Families, LookupResult, NameState, TargetFacts};
use crate::plan::Members;
use crate::resolve::{LookupOutcome, NameKey, Wanted};

/// The addresses of a database whose entries are names.
pub(super) struct DnsAddresses {
    /// The database as the file has it.
    file: Arc<Database>,
    /// The IPs of the file.
    file_ips: BTreeSet<IpAddr>,
    /// By the index of the name in the file's database.
    names: Vec<NameStatus>,
    /// The adopted addresses, with the index of the name whose attributes they have.
    adopted: BTreeMap<IpAddr, usize>,
    /// The IPs that a config has removed while they were published. They are not adopted.
    removed: Vec<IpAddr>,
    service: ServiceFacts,
}

/// The effects of one lookup on the database.
pub(super) struct Observed {
    pub changes: Changes,
    pub result: LookupResult,
    /// The addresses of the name before the lookup, if it had any good answer.
    pub before: Option<Vec<IpAddr>>,
    /// Addresses that may not be published and were not refused before.
    pub newly_refused: Vec<RejectedAddress>,
    /// True if there are too many addresses to follow, and there were not before.
    pub newly_too_many: bool,
}

/// The reading of the cluster that members come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// The first one, before any decision.
    First,
    /// The one after a write of this replica, or of the one that writes.
    AfterWrite,
    Later,
}

/// Addresses that may not be published any more, with the index of their name.
pub(super) type NewlyRefused = Vec<(usize, Vec<RejectedAddress>)>;

/// An address with its origin.
pub(super) type Effective = Vec<(Address, Origin)>;

impl DnsAddresses {
    /// Creates the addresses of a database, if it has names.
    pub(super) fn new(file: &Arc<Database>) -> Option<Self> {
        (!file.names.is_empty()).then(|| Self {
            file: file.clone(),
            file_ips: ips(file),
            names: vec![NameStatus::default(); file.names.len()],
            adopted: BTreeMap::new(),
            removed: Vec::new(),
            service: ServiceFacts::default(),
        })
    }

    /// Returns the database as the file has it.
    pub(super) fn file(&self) -> &Arc<Database> {
        &self.file
    }

    /// Returns the names, in the order of the file.
    pub(super) fn names(&self) -> &[NameStatus] {
        &self.names
    }

    /// Returns the same, to change.
    pub(super) fn names_mut(&mut self) -> &mut [NameStatus] {
        &mut self.names
    }

    /// Returns the key of the name with this index.
    pub(super) fn key(&self, index: usize) -> NameKey {
        let entry = &self.file.names[index];
        NameKey { name: entry.name.clone(), kind: entry.kind }
    }

    /// Returns the way in which the name with this index is to be asked for.
    pub(super) fn wanted(&self, index: usize) -> Wanted {
        Wanted { families: self.families(index), refresh: self.file.names[index].refresh }
    }

    /// Returns the families that are followed for a name; none while the Service is not known.
    fn families(&self, index: usize) -> Option<Families> {
        self.file.names[index].families.or(self.service.families)
    }

    /// Returns the version of the file's database that has these addresses.
    pub(super) fn with_addresses(&self, addresses: Vec<Address>) -> Arc<Database> {
        let refused_answers = self.refused().into();
        Arc::new(Database { addresses, refused_answers, ..Database::clone(&self.file) })
    }

    /// Takes over another version of the file's database. The state of a name that both have is
    /// kept. `facts` tells of the targets.
    pub(super) fn replace_file(
        &mut self,
        file: &Arc<Database>,
        facts: impl Fn(IpAddr) -> TargetFacts,
        now: Instant,
    ) -> NewlyRefused {
        let before = std::mem::replace(&mut self.file, file.clone());
        self.file_ips = ips(file);
        let mut known: BTreeMap<_, _> = before
            .names
            .iter()
            .zip(std::mem::take(&mut self.names))
            .enumerate()
            .map(|(index, (entry, status))| ((entry.kind, entry.name.clone()), (index, status)))
            .collect();
        let mut moved = BTreeMap::new();
        for (index, entry) in file.names.iter().enumerate() {
            let known = known.remove(&(entry.kind, entry.name.clone()));
            let (old, status) = known.unzip();
            moved.extend(old.map(|old| (old, index)));
            self.names.push(status.unwrap_or_default());
        }
        self.adopted = std::mem::take(&mut self.adopted)
            .into_iter()
            .filter_map(|(ip, lender)| {
                let lender = moved.get(&lender).copied();
                Some((ip, lender.or_else(|| self.first_that_accepts(ip))?))
            })
            .collect();
        // An IP that leaves the file may be one that a new name stands for. Without a new name it
        // was removed on purpose.
        if self.names.iter().all(|status| status.state.was_asked()) {
            self.removed.extend(ips(&before).difference(&self.file_ips));
        }
        let file_ips = &self.file_ips;
        self.removed.retain(|ip| !file_ips.contains(ip));
        self.reconsider(facts, now)
    }

    /// Takes over the facts about the Service. Returns the addresses that may not be published any
    /// more, if the facts have changed.
    pub(super) fn set_service(
        &mut self,
        service: ServiceFacts,
        facts: impl Fn(IpAddr) -> TargetFacts,
        now: Instant,
    ) -> Option<NewlyRefused> {
        if self.service == service {
            return None;
        }
        self.service = service;
        Some(self.reconsider(facts, now))
    }

    /// Applies the newest answers once more, after a change of what is followed. Returns the
    /// addresses that may not be published any more, with the index of their name.
    fn reconsider(&mut self, facts: impl Fn(IpAddr) -> TargetFacts, now: Instant) -> NewlyRefused {
        let mut newly_refused = Vec::new();
        for index in 0..self.names.len() {
            let Some(newest) = self.names[index].newest.clone() else { continue };
            let observed = self.observe(index, &newest, &facts, now);
            newly_refused.push((index, observed.newly_refused));
        }
        let mut adopted = std::mem::take(&mut self.adopted);
        adopted.retain(|ip, _| self.first_that_accepts(*ip).is_some());
        self.adopted = adopted;
        newly_refused
    }

    /// Applies the outcome of a lookup of the name with this index.
    pub(super) fn observe(
        &mut self,
        index: usize,
        outcome: &Arc<LookupOutcome>,
        facts: impl Fn(IpAddr) -> TargetFacts,
        now: Instant,
    ) -> Observed {
        let entry = &self.file.names[index];
        let rejection = |ip| answers::rejection(entry, &self.file, &self.service, ip);
        let families = self.families(index).unwrap_or(Families::BOTH);
        let mut refused = BTreeMap::new();
        let lookup = answers::filter(outcome, entry, &self.file, families, rejection, &mut refused);
        let result = lookup.result();
        let status = &mut self.names[index];
        let before = status.state.has_resolved().then(|| current(&status.state));
        let changes = status.state.observe(&lookup, &entry.settings, facts, now);
        status.state.forget(|ip| rejection(ip).is_some());
        let newly_refused = status.record_refused(refused, now);
        status.newest = Some(outcome.clone());
        let had_too_many = status.has_too_many;
        if result == LookupResult::Good {
            status.has_too_many = changes.left_out > 0;
        }
        let newly_too_many = status.has_too_many && !had_too_many;
        let has_changed = !changes.added.is_empty() || !changes.departed.is_empty();
        status.changes += u64::from(has_changed && before.is_some());
        self.lend_anew(now);
        self.settle_ownership();
        Observed { changes, result, before, newly_refused, newly_too_many }
    }

    /// Lends attributes of another name to adopted addresses whose name has resolved without them:
    /// they may be of a name that has not, or of one that is `rotating`.
    fn lend_anew(&mut self, now: Instant) {
        let adopted: Vec<(IpAddr, usize)> = self.adopted.iter().map(|it| (*it.0, *it.1)).collect();
        for (ip, lender) in adopted {
            let is_open = !self.names[lender].state.has_resolved();
            let Some(lender) = Some(lender).filter(|_| is_open).or_else(|| self.lender(ip)) else {
                continue;
            };
            self.lend(ip, lender, now);
        }
    }

    /// Lends the attributes of a name to an address. A `rotating` name that has resolved takes it
    /// for seen: each answer is only a part.
    fn lend(&mut self, ip: IpAddr, lender: usize, now: Instant) {
        let status = &mut self.names[lender];
        if self.file.names[lender].settings.rotating && status.state.has_resolved() {
            status.state.adopt(ip, now);
            self.adopted.remove(&ip);
        } else {
            self.adopted.insert(ip, lender);
        }
    }

    /// Forgets what is known in a weaker way than another name or the file has it.
    fn settle_ownership(&mut self) {
        for index in 0..self.names.len() {
            let state = &self.names[index].state;
            let owned_elsewhere: Vec<IpAddr> = state
                .addresses()
                .map(|(ip, _)| ip)
                .filter(|ip| !state.has_answered(*ip))
                .filter(|ip| {
                    let mut others = self.names.iter();
                    self.is_in_file(*ip) || others.any(|other| other.state.has_answered(*ip))
                })
                .collect();
            self.names[index].state.forget(|ip| owned_elsewhere.contains(&ip));
        }
        if !self.adopted.is_empty() {
            let known = self.known();
            self.adopted.retain(|ip, _| !known.contains(ip));
        }
    }

    /// Returns the IPs of the file, and those that any answer has had.
    fn known(&self) -> BTreeSet<IpAddr> {
        let of_names = self.names.iter().flat_map(|status| status.state.addresses());
        self.file_ips.iter().copied().chain(of_names.map(|(ip, _)| ip)).collect()
    }

    fn is_in_file(&self, ip: IpAddr) -> bool {
        self.file_ips.contains(&ip)
    }

    /// Adopts members that nothing accounts for: while a name has had no good answer, they may be
    /// its addresses, and a restart without DNS must change nothing. A name with `rotating` may
    /// have them although its answers lack them. The first such name lends its attributes.
    ///
    /// When the cluster is first read, all are adopted: an answer that came before that may be one
    /// that has moved to an address which is not up. So are all that another replica has written:
    /// its DNS server may say something else, and a takeover must change nothing.
    pub(super) fn adopt(&mut self, members: &Members, reading: Reading, now: Instant) {
        self.removed.retain(|ip| members.contains(*ip));
        let known = self.known();
        for ip in members.iter().map(|member| member.ip) {
            let is_known =
                known.contains(&ip) || self.adopted.contains_key(&ip) || self.removed.contains(&ip);
            if is_known {
                continue;
            }
            let lender = self.lender(ip).or_else(|| match reading {
                Reading::First | Reading::AfterWrite => self.first_that_accepts(ip),
                Reading::Later => None,
            });
            if let Some(lender) = lender {
                self.lend(ip, lender, now);
            }
        }
    }

    /// Returns the first name that may have an address which no answer has.
    fn lender(&self, ip: IpAddr) -> Option<usize> {
        (0..self.names.len()).find(|index| {
            let (entry, status) = (&self.file.names[*index], &self.names[*index]);
            (!status.state.has_resolved() || entry.settings.rotating) && self.accepts(*index, ip)
        })
    }

    fn first_that_accepts(&self, ip: IpAddr) -> Option<usize> {
        (0..self.names.len()).find(|index| self.accepts(*index, ip))
    }

    /// Returns whether an answer of the name with this index may have the address.
    fn accepts(&self, index: usize, ip: IpAddr) -> bool {
        let entry = &self.file.names[index];
        let families = self.families(index).unwrap_or(Families::BOTH);
        families.contains(ip) && answers::rejection(entry, &self.file, &self.service, ip).is_none()
    }

    /// Releases addresses whose place another has taken, by a decision that was carried out.
    pub(super) fn release(&mut self, exchanged: &[IpAddr]) {
        for status in &mut self.names {
            status.state.exchange(|ip| exchanged.contains(&ip));
        }
        self.adopted.retain(|ip, _| !exchanged.contains(ip));
    }

    /// Drops addresses that nobody needs any more. Returns whether there were any.
    pub(super) fn drop_unneeded(&mut self, facts: impl Fn(IpAddr) -> TargetFacts) -> bool {
        let mut dropped = false;
        for status in &mut self.names {
            dropped |= !status.state.drop_unneeded(&facts).is_empty();
        }
        if self.names.iter().all(|status| status.state.has_resolved()) {
            let before = self.adopted.len();
            self.adopted.retain(|ip, _| facts(*ip).is_published);
            dropped |= self.adopted.len() != before;
        }
        dropped
    }

    /// Returns the addresses of the newest answers that may not be published.
    pub(super) fn refused(&self) -> Vec<RejectedAddress> {
        let refused = self.names.iter().flat_map(|status| status.refused.iter().cloned());
        refused.take(MAX_REFUSED).collect()
    }

    /// Returns how many members the name with this index lends its attributes to.
    pub(super) fn count_lent(&self, index: usize) -> usize {
        self.adopted.values().filter(|lender| **lender == index).count()
    }

    /// Returns the SRV records of the newest answer that have a port which the database has not.
    pub(super) fn foreign_ports(&self, index: usize) -> Vec<String> {
        let parts = self.names[index].newest.iter().flat_map(|newest| &newest.parts);
        let records = parts.filter_map(|part| part.service.as_ref());
        let foreign = records.filter(|record| !answers::has_port(&self.file, record.port));
        foreign
            .map(|record| format!("{}: the database has no port {}", record.host, record.port))
            .collect()
    }

    /// Returns all addresses with their origins: those of the file, then those of the names.
    pub(super) fn effective(&self) -> Effective {
        let file = self.file.addresses.iter().map(|address| (address.clone(), Origin::default()));
        let mut owners: BTreeMap<IpAddr, (u8, usize, Backing)> = BTreeMap::new();
        let known = self.names.iter().enumerate().flat_map(|(index, status)| {
            status.state.addresses().map(move |(ip, backing)| (ip, index, backing))
        });
        let adopted = self.adopted.iter().map(|(ip, lender)| (*ip, *lender, Backing::Adopted));
        for (ip, index, backing) in known.chain(adopted) {
            if self.is_in_file(ip) {
                continue;
            }
            let owner = (precedence(backing), index, backing);
            owners.entry(ip).and_modify(|it| *it = owner.min(*it)).or_insert(owner);
        }
        let mut by_name: Vec<_> = owners.into_iter().collect();
        by_name.sort_by_key(|(ip, (_, index, _))| (*index, *ip));
        let by_name = by_name
            .into_iter()
            .map(|(ip, (_, index, backing))| self.named_address(ip, index, backing));
        file.chain(by_name).collect()
    }

    /// Returns an address of a name. While no answer has had it, and the database has several
    /// names, it may be of another one: then only its check and tier are lent.
    fn named_address(&self, ip: IpAddr, index: usize, backing: Backing) -> (Address, Origin) {
        let (entry, state) = (&self.file.names[index], &self.names[index].state);
        let service_target = state.service_target(ip);
        let mut address = entry.address(ip, service_target.map(|target| &**target));
        let is_of_service = entry.kind == NameKind::Service && service_target.is_none();
        let is_adopted = backing == Backing::Adopted || state.is_adopted(ip);
        let is_guess = is_of_service || is_adopted && self.names.len() > 1;
        if is_of_service {
            address.name = None;
        }
        if is_guess {
            address.maintenance = None;
        }
        let name = address.name.clone();
        let entry = Some(index);
        (address, Origin { name, entry, backing, is_guess, ..Origin::default() })
    }
}

fn ips(file: &Database) -> BTreeSet<IpAddr> {
    file.addresses.iter().map(|address| address.ip).collect()
}

/// Returns the addresses of the newest good answer.
pub(super) fn current(state: &NameState) -> Vec<IpAddr> {
    let current = state.addresses().filter(|(_, backing)| *backing == Backing::Current);
    current.map(|(ip, _)| ip).collect()
}

/// Returns the rank among those that know an IP: the lowest owns it.
fn precedence(backing: Backing) -> u8 {
    match backing {
        Backing::Current => 0,
        Backing::Adopted => 1,
        Backing::Departing => 2,
        Backing::Released => 3,
    }
}
