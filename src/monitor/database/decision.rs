//! The decision for a database: from the health of its targets, its policy and its names to a plan.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::recent_failures::RecentFailures;
use super::{DatabaseMonitor, is_out};
use crate::config::Check;
use crate::freeze::Freeze;
use crate::health::Health;
use crate::monitor::{DatabasePlan, TargetState};
use crate::plan::{self, Candidate, Decision, KeepReason, NameFacts, Plan, Pool};

/// Intervals for which a conclusive verdict counts: one or two tries may be inconclusive.
const FRESH_INTERVALS: u32 = 3;

impl DatabaseMonitor {
    /// Returns the addresses that may answer while the plan is not to publish. A plan to publish
    /// clears the removed ones.
    fn may_answer(&mut self, plan: &Plan) -> Arc<[IpAddr]> {
        if matches!(plan, Plan::Publish(_)) {
            self.removed = Vec::new();
            return Arc::default();
        }
        let here =
            self.targets.iter().filter(|target| !is_out(target)).map(|target| target.member.ip);
        let mut may_answer: Vec<IpAddr> = here.chain(self.removed.iter().copied()).collect();
        may_answer.sort();
        may_answer.dedup();
        may_answer.into()
    }

    /// Decides anew. Called after all that can change a plan: a transition, the first verdict of a
    /// target, and every change of what a policy depends on.
    pub(in crate::monitor) fn decide(&mut self, freeze: &mut Freeze, now: Instant) {
        self.decide_once(freeze, now);
        if self.settle_addresses(now) {
            self.decide_once(freeze, now);
        }
    }

    fn decide_once(&mut self, freeze: &mut Freeze, now: Instant) {
        if freeze.frozen().is_none() {
            self.recent_failures.expire(now);
        }
        self.report_tally(freeze, now);
        let hold = freeze
            .holds_removals()
            .then(|| Hold { left: freeze.frozen().map(|_| &self.recent_failures) });
        let decision = self.decision(hold.as_ref(), now);
        let Decision { plan, mut notes, reevaluate_at, exchanged, memberships } = decision;
        for (target, membership) in self.targets.iter_mut().zip(memberships) {
            target.membership = membership;
        }
        self.has_decided |= matches!(plan, Plan::Publish(_));
        self.policy_state.exchanged = exchanged;
        notes.extend(self.trouble_notes());
        let before = std::mem::replace(&mut self.policy_state.notes, notes);
        let hold_ends_at = self.update_empty_hold(&plan, now);
        let kept_ends_at = self.update_kept(now);
        let maintenance_due_at = self.policy_state.maintenance_due_at;
        self.policy_state.reevaluate_at =
            [reevaluate_at, hold_ends_at, kept_ends_at, maintenance_due_at]
                .into_iter()
                .flatten()
                .chain(self.recent_failures.next_expiry(now))
                .min();
        self.announce_notes(&before, now);
        self.announce_freeze(freeze, now);
        let may_answer = self.may_answer(&plan);
        self.plan.send_if_modified(|existing| {
            let changed = existing.plan != plan
                || existing.may_answer != may_answer
                || !Arc::ptr_eq(&existing.database, &self.database);
            *existing = DatabasePlan { database: self.database.clone(), plan, may_answer };
            changed
        });
    }
}

/// The hold of a freeze that has begun or is likely.
pub(super) struct Hold<'a> {
    /// The targets that a freeze restores.
    left: Option<&'a RecentFailures>,
}

/// Time for which addresses that are new by DNS may hold up an empty decision, beside the timeout
/// of their check: their first try may start late.
const EMPTY_HOLD_SLACK: Duration = Duration::from_secs(1);

impl DatabaseMonitor {
    /// Returns the decision of this moment.
    pub(super) fn decision(&self, hold: Option<&Hold>, now: Instant) -> Decision {
        let Self { database, targets, policy_state, .. } = self;
        let left = hold.and_then(|hold| hold.left);
        let restored_by_freeze = |index: usize| left.is_some_and(|left| left.contains(index));
        let checks = database.addresses.iter().map(|address| &*address.check);
        let candidates: Vec<Candidate> = targets
            .iter()
            .zip(checks)
            .enumerate()
            .map(|(index, (target, check))| Candidate {
                restored_by_freeze: restored_by_freeze(index),
                ..candidate(target, check)
            })
            .collect();
        let names = self.name_facts();
        let hold_is_over = self.empty_hold_ends_at().is_some_and(|ends_at| ends_at <= now);
        let pool = Pool {
            targets: &candidates,
            policy: &database.policy,
            failback_requested_at: policy_state.failback_requested_at,
            holds_removals: hold.is_some(),
            names: &names,
            late_arrivals_hold_empty: !hold_is_over,
        };
        plan::decide(&pool, policy_state.published.as_ref(), now)
    }

    fn name_facts(&self) -> Vec<NameFacts<'_>> {
        let Some(dns) = &self.dns else { return Vec::new() };
        let facts = dns.file().names.iter().zip(dns.names()).map(|(entry, status)| NameFacts {
            name: &entry.name,
            priority: entry.priority,
            state: &status.state,
        });
        facts.collect()
    }

    /// Returns the time until which addresses that are new by DNS may hold up an empty decision, if
    /// they do.
    fn empty_hold_ends_at(&self) -> Option<Instant> {
        let timeouts = self.database.addresses.iter().map(|address| address.check.timeout);
        let longest = timeouts.max()?.saturating_add(EMPTY_HOLD_SLACK);
        self.policy_state.held_empty_since?.checked_add(longest)
    }

    /// Notes whether addresses that are new by DNS hold up an empty decision. A hold that was too
    /// long ends for all of them, until there is a member again: a name with another address at
    /// each answer must not keep a dead one in. Returns the end of the hold.
    fn update_empty_hold(&mut self, plan: &Plan, now: Instant) -> Option<Instant> {
        match plan {
            Plan::Keep(KeepReason::NoVerdictYet(waiting)) => {
                let is_late = |ip: &IpAddr| {
                    let of_ip = |target: &&TargetState| target.member.ip == *ip;
                    self.targets.iter().find(of_ip).is_some_and(|target| target.origin.is_late)
                };
                if waiting.iter().all(is_late) {
                    self.policy_state.held_empty_since.get_or_insert(now);
                }
                self.empty_hold_ends_at()
            }
            Plan::Publish(members) if !members.is_empty() => {
                self.policy_state.held_empty_since = None;
                None
            }
            Plan::Keep(_) | Plan::Publish(_) => None,
        }
    }
}

/// Returns the time at which the newest conclusive verdict is too old to count. As many failures
/// would have made the target Down before.
fn stale_at(health: &Health, check: &Check) -> Option<Instant> {
    let intervals = check.thresholds.unhealthy.max(FRESH_INTERVALS);
    let time = check.interval.checked_mul(intervals)?.checked_add(check.timeout)?;
    health.known_at().checked_add(time)
}

pub(super) fn known_to_pass(target: &TargetState, check: &Check, now: Instant) -> bool {
    target.passing() && stale_at(&target.health, check).is_none_or(|stale_at| stale_at > now)
}

fn candidate<'a>(target: &'a TargetState, check: &Check) -> Candidate<'a> {
    let health = &target.health;
    Candidate {
        member: &target.member,
        state: health.state(),
        since: target
            .maintenance_ended_at
            .map_or(health.since(), |returned| health.since().max(returned)),
        checked: health.is_checked(),
        passing: target.passing(),
        passed_at: health.passed_at(),
        stale_at: stale_at(health, check),
        reason: health.reason(),
        priority: target.priority,
        in_maintenance: target.maintenance.is_some(),
        suppressed_until: target.out_until(),
        backing: target.origin.backing,
        is_late_arrival: target.origin.is_late,
        restored_by_freeze: false,
    }
}
