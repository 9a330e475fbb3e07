//! The changes of a database's addresses while it is checked: by an answer of DNS, by what its
//! Service is, and by decisions that let one address take the place of another.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answers::ServiceFacts;
use super::dns_addresses::{DnsAddresses, Observed, Reading};
use super::name_status::{Failing, NameStatus};
use super::{DatabaseMonitor, renewed, target};
use crate::config::{Address, Database};
use crate::freeze::Freeze;
use crate::health::{self, InitialMembership, State, Thresholds, Verdict};
use crate::monitor::TargetState;
use crate::monitor::snapshot::Origin;
use crate::names::{Backing, LookupResult, ServiceTarget, TargetFacts};
use crate::plan::Members;
use crate::resolve::{self, LookupOutcome, NameKey};

/// Time for which an address that is new by DNS and has never passed is tried at each recheck
/// interval, so that the pace for targets that are Down does not hold up a failover.
const ARRIVAL_WINDOW: Duration = Duration::from_secs(60);

/// The time at which addresses that an answer adds come into a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// By the first answer, before the first decision. The decision waits for their verdicts.
    First,
    /// Later.
    Late,
}

/// The targets of the config before, by their IP.
pub(super) type KnownTargets = HashMap<IpAddr, (Address, TargetState)>;

impl DatabaseMonitor {
    /// Applies the outcome of a lookup of the name with this index.
    pub(in crate::monitor) fn apply_lookup(
        &mut self,
        name: usize,
        outcome: &Arc<LookupOutcome>,
        freeze: &mut Freeze,
        now: Instant,
    ) {
        let Self { dns, targets, policy_state, .. } = self;
        let Some(dns) = dns else { return };
        let before = Signature::of(&dns.names()[name]);
        let facts = |ip| facts(targets, policy_state.published.as_ref(), ip);
        let observed = dns.observe(name, outcome, facts, now);
        let arrival = match (before.has_resolved, self.has_decided) {
            (false, false) => Arrival::First,
            _ => Arrival::Late,
        };
        self.record_lookup(name, &observed, now);
        self.announce_lookup(name, &observed, outcome, now);
        let after = self.dns.as_ref().map(|dns| Signature::of(&dns.names()[name]));
        if after.is_some_and(|after| after != before) {
            self.refresh_addresses(arrival, now);
            self.decide(freeze, now);
        }
    }

    /// Counts lookups without a good answer, and lets the name be asked at its usual pace again
    /// once it has other addresses.
    fn record_lookup(&mut self, name: usize, observed: &Observed, now: Instant) {
        let Some(dns) = &mut self.dns else { return };
        let status = &mut dns.names_mut()[name];
        if observed.result != LookupResult::Good {
            let new = Failing { since: now, lookups: 0, announced: false };
            let failing = status.failing.get_or_insert(new);
            failing.lookups = failing.lookups.saturating_add(1);
        } else if !observed.changes.added.is_empty() {
            // The resolver ends its hurry by itself.
            status.hurried_for = Vec::new();
        }
    }

    /// Applies the facts about the Service. Returns whether they have changed.
    pub(in crate::monitor) fn set_service_facts(
        &mut self,
        service: ServiceFacts,
        freeze: &mut Freeze,
        now: Instant,
    ) -> bool {
        let Self { dns, targets, policy_state, .. } = self;
        let facts = |ip| facts(targets, policy_state.published.as_ref(), ip);
        let Some(dns) = dns else { return false };
        let Some(newly_refused) = dns.set_service(service, facts, now) else { return false };
        self.announce_newly_refused(&newly_refused, now);
        self.refresh_addresses(Arrival::Late, now);
        self.decide(freeze, now);
        true
    }

    /// Adopts members that may belong to a name that has no answer. The cluster holds them.
    pub(super) fn adopt(&mut self, members: &Members, reading: Reading, now: Instant) {
        let Some(dns) = &mut self.dns else { return };
        dns.adopt(members, reading, now);
        self.refresh_addresses(Arrival::First, now);
        for (target, address) in self.targets.iter_mut().zip(&self.database.addresses) {
            if members.contains(target.member.ip) {
                let (published, thresholds) =
                    (InitialMembership::Published, address.check.thresholds);
                health::initialize(&mut target.health, published, thresholds, now);
            }
        }
    }

    /// Takes over a changed file for the addresses of its names. Returns the database to check,
    /// with the origins of its addresses.
    pub(super) fn replace_file(
        &mut self,
        file: &Arc<Database>,
        now: Instant,
    ) -> (Arc<Database>, Vec<Origin>) {
        let Self { dns, targets, policy_state, .. } = self;
        let facts = |ip| facts(targets, policy_state.published.as_ref(), ip);
        let newly_refused = match dns {
            Some(dns) if !file.names.is_empty() => dns.replace_file(file, facts, now),
            _ => {
                *dns = DnsAddresses::new(file).map(Box::new);
                Vec::new()
            }
        };
        self.announce_newly_refused(&newly_refused, now);
        let Self { dns, policy_state, .. } = self;
        let Some(dns) = dns else {
            return (file.clone(), vec![Origin::default(); file.addresses.len()]);
        };
        if let Some(published) = &policy_state.published {
            dns.adopt(published, Reading::Later, now);
        }
        let (addresses, origins) = dns.effective().into_iter().unzip();
        (dns.with_addresses(addresses), origins)
    }

    /// Brings the targets to the addresses that are known now.
    pub(super) fn refresh_addresses(&mut self, arrival: Arrival, now: Instant) {
        let Some(dns) = &self.dns else { return };
        let (addresses, origins): (Vec<Address>, Vec<Origin>) = dns.effective().into_iter().unzip();
        let is_same_refused = *dns.refused() == *self.database.refused_answers;
        if addresses != self.database.addresses || !is_same_refused {
            self.replace_targets(dns.with_addresses(addresses), now);
            self.forget_hurries();
        }
        self.set_origins(origins, arrival, now);
        self.initialize_arrivals(now);
        self.update_maintenance(now);
    }

    /// Forgets the failing targets that are no longer there. The resolver ends its hurry by itself.
    fn forget_hurries(&mut self) {
        let Self { dns, targets, .. } = self;
        for status in dns.iter_mut().flat_map(|dns| dns.names_mut()) {
            let is_target = |ip: &IpAddr| targets.iter().any(|target| target.member.ip == *ip);
            status.hurried_for.retain(is_target);
        }
    }

    /// Replaces the targets. One whose check is the same keeps its health. Returns those that are
    /// no longer there.
    pub(super) fn replace_targets(
        &mut self,
        database: Arc<Database>,
        now: Instant,
    ) -> KnownTargets {
        let before = std::mem::replace(&mut self.database, database);
        let database = &self.database;
        self.recent_failures.reindex(&before, database);
        let targets = before.addresses.iter().cloned().zip(std::mem::take(&mut self.targets));
        let mut known: KnownTargets =
            targets.map(|(address, target)| (address.ip, (address, target))).collect();
        let renew = |address: &Address| match known.remove(&address.ip) {
            Some((old, target)) => renewed(target, &old, address, now),
            None => target(address, now),
        };
        self.targets = database.addresses.iter().map(renew).collect();
        known
    }

    /// Sets where each target comes from.
    pub(super) fn set_origins(&mut self, origins: Vec<Origin>, arrival: Arrival, now: Instant) {
        for (target, origin) in self.targets.iter_mut().zip(origins) {
            let is_new = !target.health.is_initialized() && target.origin.entry.is_none();
            let arrives = is_new && origin.entry.is_some() && origin.backing.is_of_an_answer();
            let before = std::mem::replace(&mut target.origin, origin);
            target.origin.arrived_at = before.arrived_at.or(arrives.then_some(now));
            target.origin.is_late = before.is_late || arrives && arrival == Arrival::Late;
        }
    }

    /// Starts the health of targets that came after the cluster was read.
    fn initialize_arrivals(&mut self, now: Instant) {
        let Some(published) = &self.policy_state.published else { return };
        for (target, address) in self.targets.iter_mut().zip(&self.database.addresses) {
            let membership = match published.contains(target.member.ip) {
                true => InitialMembership::Published,
                false => InitialMembership::Unpublished,
            };
            health::initialize(&mut target.health, membership, address.check.thresholds, now);
        }
    }

    /// Returns the thresholds for the target with this index. One pass is enough for an address
    /// that is new by DNS and has never passed.
    pub(super) fn thresholds(&self, index: usize) -> Thresholds {
        let thresholds = self.database.addresses[index].check.thresholds;
        match self.is_arriving(index) {
            true => Thresholds { healthy: 1, ..thresholds },
            false => thresholds,
        }
    }

    fn is_arriving(&self, index: usize) -> bool {
        let target = &self.targets[index];
        target.origin.arrived_at.is_some() && target.health.passed_at().is_none()
    }

    /// Returns whether the target is tried at each recheck interval because it has just come.
    pub(super) fn is_just_arrived(&self, index: usize, now: Instant) -> bool {
        let arrived_at = self.targets[index].origin.arrived_at;
        self.is_arriving(index)
            && arrived_at.is_some_and(|at| now.saturating_duration_since(at) < ARRIVAL_WINDOW)
    }

    /// Has the name of a target asked at once when the target fails while it is Up, and at its
    /// usual pace again when it passes.
    pub(super) fn hurry_name(&mut self, index: usize, verdict: &Verdict) {
        let target = &self.targets[index];
        let (ip, is_up) = (target.member.ip, target.health.state() == State::Up);
        let (Some(dns), Some(entry)) = (&mut self.dns, target.origin.entry) else { return };
        let status = &mut dns.names_mut()[entry];
        let is_listed = status.hurried_for.contains(&ip);
        let command = match verdict {
            Verdict::Fail(_) if is_up && !is_listed => {
                status.hurried_for.push(ip);
                resolve::Command::Hurry
            }
            Verdict::Pass if is_listed => {
                status.hurried_for.retain(|failed| *failed != ip);
                if !status.hurried_for.is_empty() {
                    return;
                }
                resolve::Command::Calm
            }
            _ => return,
        };
        let key = dns.key(entry);
        self.resolver_commands.push(command(key));
    }

    /// Returns the keys of the names in the order of the file, with the way to ask for each.
    pub(in crate::monitor) fn wanted_names(&self) -> Vec<(NameKey, resolve::Wanted)> {
        let Some(dns) = &self.dns else { return Vec::new() };
        (0..dns.names().len()).map(|index| (dns.key(index), dns.wanted(index))).collect()
    }

    /// Returns the way in which the name with this index is to be asked for.
    pub(in crate::monitor) fn wanted_name(&self, name: usize) -> Option<resolve::Wanted> {
        self.dns.as_ref().map(|dns| dns.wanted(name))
    }

    /// Returns whether any target fails for which the name with this key is asked at once.
    pub(in crate::monitor) fn hurries(&self, name: usize) -> bool {
        self.dns.as_ref().is_some_and(|dns| !dns.names()[name].hurried_for.is_empty())
    }

    /// Returns whether the name of the target with this index is a guess.
    pub(in crate::monitor) fn is_name_a_guess(&self, index: usize) -> bool {
        self.targets[index].origin.is_guess
    }

    /// Returns whether any lookup of the name with this index has been applied.
    pub(in crate::monitor) fn has_lookup(&self, name: usize) -> bool {
        self.dns.as_ref().is_some_and(|dns| dns.names()[name].newest.is_some())
    }

    /// Returns the commands to the resolver since the last call.
    pub(in crate::monitor) fn take_resolver_commands(&mut self) -> Vec<resolve::Command> {
        std::mem::take(&mut self.resolver_commands)
    }

    /// Releases the addresses whose place another has taken, once the decision is carried out, and
    /// drops those that nobody needs. Returns whether the targets have changed.
    pub(super) fn settle_addresses(&mut self, now: Instant) -> bool {
        if self.dns.is_none() {
            return false;
        }
        // An exchange is carried out once the cluster no longer holds the address.
        let exchanged: Vec<IpAddr> = match &self.policy_state.published {
            Some(published) => {
                let all = self.policy_state.exchanged.iter().copied();
                all.filter(|ip| !published.contains(*ip)).collect()
            }
            None => Vec::new(),
        };
        self.announce_exchange(&exchanged);
        let Self { dns, targets, policy_state, .. } = self;
        let Some(dns) = dns else { return false };
        dns.release(&exchanged);
        let facts = |ip| facts(targets, policy_state.published.as_ref(), ip);
        let has_dropped = dns.drop_unneeded(facts);
        if has_dropped || !exchanged.is_empty() {
            self.refresh_addresses(Arrival::Late, now);
        }
        has_dropped || !exchanged.is_empty()
    }
}

/// The part of a name's state that a decision depends on.
#[derive(PartialEq, Eq)]
struct Signature {
    was_asked: bool,
    has_resolved: bool,
    addresses: Vec<(IpAddr, Backing, Option<Arc<ServiceTarget>>)>,
    refused: Vec<IpAddr>,
}

impl Signature {
    fn of(status: &NameStatus) -> Self {
        let state = &status.state;
        Self {
            was_asked: state.was_asked(),
            has_resolved: state.has_resolved(),
            addresses: state
                .addresses()
                .map(|(ip, backing)| (ip, backing, state.service_target(ip).cloned()))
                .collect(),
            refused: status.refused.iter().map(|refused| refused.ip).collect(),
        }
    }
}

/// Returns the facts about a target that decide whether its address is still needed. While it is
/// not known what the cluster holds, every address may be published.
fn facts(targets: &[TargetState], published: Option<&Members>, ip: IpAddr) -> TargetFacts {
    let target = targets.iter().find(|target| target.member.ip == ip);
    TargetFacts {
        is_up: target.is_some_and(|target| target.health.state() == State::Up),
        is_published: published.is_none_or(|published| published.contains(ip)),
    }
}
