//! The standing of the targets that DNS gives or has given: the effect of their backing on a
//! decision.
//!
//! | target | counts as |
//! | --- | --- |
//! | current, or of an IP entry | any other |
//! | current, came by DNS after the first decision, unchecked | none, but see below |
//! | departing, unchecked | none |
//! | departing, and each name that gave it up has a successor | out |
//! | departing, else | any other |
//! | adopted, all names have resolved, and any of them has a successor | out |
//! | adopted, else | any other |
//! | released | out |
//!
//! The rows on unchecked targets are for those that are not published. A published one is as any
//! other.
//!
//! A *successor* is a target that the name currently gives, and that is Up, not in maintenance and
//! not suppressed for flapping. Another entry may own it.
//!
//! A target that is *out* counts as one in maintenance. Only `minHealthy` may keep it, after all
//! others, if it is published. It leaves in a freeze too: DNS and the check of its successor are
//! two witnesses.
//!
//! The successors of a published target that is out count as published when writers and tiers are
//! selected. Otherwise two of them would empty an `exactlyOne` Service, and a name that moves would
//! end the delay of a failback.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use super::{Candidate, Members, NameFacts, Pool};
use crate::health::State;
use crate::names::Backing;

/// The targets of a database by their standing.
pub(super) struct Standing<'a> {
    /// The targets that count. Those that are out are in maintenance.
    pub targets: Vec<Candidate<'a>>,
    /// The unchecked targets that came by DNS after the first decision. They count for nothing but
    /// percentages.
    pub late_arrivals: Vec<Candidate<'a>>,
    /// The targets that are out, with those that have been released before.
    pub out: Vec<IpAddr>,
    /// The published members, and the successors of those that are out.
    pub inherited: Members,
    /// The targets that may take the place of others.
    pub successors: Successors<'a>,
}

impl<'a> Standing<'a> {
    /// Returns the standing of all targets of a pool.
    pub(super) fn of(pool: &Pool<'a>, published: &Members, now: Instant) -> Self {
        let (mut targets, mut late_arrivals, mut out) = (Vec::new(), Vec::new(), Vec::new());
        let mut heirs: Vec<&Candidate> = Vec::new();
        let successors = Successors::of(pool, now);
        for target in pool.targets {
            let ip = target.member.ip;
            let is_published = published.contains(ip);
            if target.is_untried() && !is_published {
                match target.backing {
                    Backing::Departing => continue,
                    Backing::Current if target.is_late_arrival => {
                        late_arrivals.push(*target);
                        continue;
                    }
                    Backing::Current | Backing::Adopted | Backing::Released => {}
                }
            }
            if !successors.replace(target) {
                targets.push(*target);
                continue;
            }
            if is_published {
                heirs.extend(successors.heirs(target));
            }
            out.push(ip);
            targets.push(Candidate {
                in_maintenance: true,
                backing: Backing::Released,
                restored_by_freeze: false,
                ..*target
            });
        }
        let inherited = match heirs.as_slice() {
            [] => published.clone(),
            heirs => {
                let heirs = heirs.iter().map(|target| target.member);
                published.iter().chain(heirs).cloned().collect()
            }
        };
        Self { targets, late_arrivals, out, inherited, successors }
    }

    /// Returns the late arrivals that may hold up a decision: those that are not in maintenance.
    pub(super) fn untried(&self) -> Vec<IpAddr> {
        let untried = self.late_arrivals.iter().filter(|target| !target.in_maintenance);
        untried.map(|target| target.member.ip).collect()
    }
}

/// The targets that may take the place of others, with the names that currently give them.
pub(super) struct Successors<'a> {
    names: &'a [NameFacts<'a>],
    by_name: Vec<Vec<&'a Candidate<'a>>>,
}

impl<'a> Successors<'a> {
    pub(super) fn of(pool: &Pool<'a>, now: Instant) -> Self {
        let is_given = |target: &Candidate| target.backing == Backing::Current;
        if pool.targets.iter().all(is_given) {
            return Self { names: pool.names, by_name: Vec::new() };
        }
        let is_fit = |target: &&Candidate| {
            let is_suppressed = target.suppressed_until.is_some_and(|end| end > now);
            is_given(target) && target.is_up() && !target.in_maintenance && !is_suppressed
        };
        let fit = pool.targets.iter().filter(is_fit);
        let fit: BTreeMap<IpAddr, &Candidate> =
            fit.map(|target| (target.member.ip, target)).collect();
        let of_name = |name: &NameFacts| {
            let current = name.state.addresses().filter(|(_, it)| *it == Backing::Current);
            current.filter_map(|(ip, _)| fit.get(&ip).copied()).collect()
        };
        Self { names: pool.names, by_name: pool.names.iter().map(of_name).collect() }
    }

    /// Returns the numbers of the names that have given up this target and have no successor for
    /// it, in order.
    pub(super) fn names_without(&self, target: &Candidate) -> Vec<usize> {
        let gave_up = |index: &usize| {
            self.names[*index].state.backing(target.member.ip) == Some(Backing::Departing)
        };
        let has_none = |index: &usize| self.by_name[*index].is_empty();
        (0..self.by_name.len()).filter(gave_up).filter(has_none).collect()
    }

    /// Returns whether the target is out.
    fn replace(&self, target: &Candidate) -> bool {
        match target.backing {
            Backing::Current => false,
            Backing::Released => true,
            Backing::Departing => {
                self.of_names(target).next().is_some() && self.names_without(target).is_empty()
            }
            Backing::Adopted => {
                self.names.iter().all(|name| name.state.has_resolved())
                    && self.by_name.iter().any(|successors| !successors.is_empty())
            }
        }
    }

    /// Returns the successors of the names that a target belongs to or belonged to.
    fn of_names(&self, target: &Candidate) -> impl Iterator<Item = &'a Candidate<'a>> {
        let ip = target.member.ip;
        let is_adopted = target.backing == Backing::Adopted;
        let names = self.names.iter().zip(&self.by_name);
        let names = names.filter(move |(name, _)| is_adopted || name.state.backing(ip).is_some());
        names.flat_map(|(_, successors)| successors.iter().copied())
    }

    /// Returns the successors that take the place of a target: those of its tier, or of the
    /// preferred one if there is none.
    fn heirs(&self, target: &Candidate) -> Vec<&'a Candidate<'a>> {
        let tiers = || self.of_names(target).map(|heir| heir.priority);
        let tier = tiers().find(|tier| *tier == target.priority).or(tiers().min());
        self.of_names(target).filter(|heir| Some(heir.priority) == tier).collect()
    }
}

impl Candidate<'_> {
    /// Returns whether nothing is known of the target.
    fn is_untried(&self) -> bool {
        self.state == State::Unknown && !self.checked
    }
}
