//! One database: applies verdicts to the health of its targets, and decides its plan anew when
//! something that the plan depends on has changed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::info;

use super::histogram::{DurationHistogram, ms};
use super::{DatabasePlan, DatabaseSnapshot, ProbeReport, TargetCounters, TargetState};
use crate::annotations::{self, Maintenance, ServiceAnnotations};
use crate::config::{Address, Check, Database, DatabaseId};
use crate::freeze::Freeze;
use crate::health::{self, Health, InitialMembership, State, Transition, Verdict};
use crate::notice::Recorder;
use crate::plan::{self, Candidate, Decision, Member, Members, Plan, PolicyNote, Pool};
use crate::schedule::Pause;
use recent_failures::RecentFailures;

mod announcements;
mod recent_failures;

/// Intervals for which a conclusive verdict counts: one or two tries may be inconclusive.
const FRESH_INTERVALS: u32 = 3;

/// The bounds of the durations of tries.
const DURATION_BOUNDS: [Duration; 14] = [
    Duration::from_micros(500),
    ms(1),
    Duration::from_micros(2500),
    ms(5),
    ms(10),
    ms(25),
    ms(50),
    ms(100),
    ms(250),
    ms(500),
    ms(1000),
    ms(2500),
    ms(5000),
    ms(10_000),
];

/// The state of one database. Only the monitor changes it.
pub(super) struct DatabaseMonitor {
    database: Arc<Database>,
    targets: Vec<TargetState>,
    plan: watch::Sender<DatabasePlan>,
    policy_state: PolicyState,
    recent_failures: RecentFailures,
    /// The addresses that could answer when they left the config, until the next plan to publish.
    removed: Vec<IpAddr>,
    check_duration: DurationHistogram,
    recorder: Recorder,
}

/// The inputs of the policy besides health, and its effects.
#[derive(Default)]
struct PolicyState {
    /// The members that the cluster holds; none before it has been read.
    published: Option<Members>,
    /// The annotation for maintenance.
    maintenance: Option<Box<str>>,
    /// The annotation that asks for a failback.
    failback: Option<Box<str>>,
    failback_requested_at: Option<Instant>,
    notes: Vec<PolicyNote>,
    /// The problems of the Service's annotations.
    problems: Vec<String>,
    /// The time at which to decide anew although nothing else has changed.
    reevaluate_at: Option<Instant>,
    /// The reevaluation that the monitor knows of.
    scheduled_reevaluation: Option<Instant>,
}

impl DatabaseMonitor {
    /// Creates a database of which nothing is known.
    pub(super) fn new(database: &Arc<Database>, recorder: Recorder, now: Instant) -> Self {
        let targets: Vec<TargetState> =
            database.addresses.iter().map(|address| target(address, now)).collect();
        let policy_state = PolicyState::default();
        let plan = decide(database, &targets, &policy_state, None, now).plan;
        let (plan_sender, _) = watch::channel(DatabasePlan {
            database: database.clone(),
            plan,
            may_answer: Arc::default(),
        });
        Self {
            database: database.clone(),
            targets,
            plan: plan_sender,
            policy_state,
            recent_failures: RecentFailures::default(),
            removed: Vec::new(),
            check_duration: DurationHistogram::new(&DURATION_BOUNDS),
            recorder,
        }
    }

    /// Returns the config of the database.
    pub(super) fn config(&self) -> &Arc<Database> {
        &self.database
    }

    /// Returns the newest plan, and each newer one.
    pub(super) fn plan(&self) -> watch::Receiver<DatabasePlan> {
        self.plan.subscribe()
    }

    /// Takes over the database of a new config. A target whose check is the same keeps its health.
    /// Any other target must be initialized and checked first, and until then nothing is decided.
    pub(super) fn reload(&mut self, database: &Arc<Database>, freeze: &mut Freeze, now: Instant) {
        if self.database == *database {
            return;
        }
        let before = std::mem::replace(&mut self.database, database.clone());
        self.recent_failures.reindex(&before, database);
        let known = before.addresses.iter().zip(std::mem::take(&mut self.targets));
        let mut known: HashMap<IpAddr, _> =
            known.map(|(address, target)| (address.ip, (address, target))).collect();
        let renew = |address: &Address| match known.remove(&address.ip) {
            Some((old, target)) => renewed(target, old, address, now),
            None => target(address, now),
        };
        self.targets = database.addresses.iter().map(renew).collect();
        self.removed.extend(
            known.into_values().filter(|(_, target)| !is_out(target)).map(|(old, _)| old.ip),
        );
        self.removed.retain(|ip| !database.addresses.iter().any(|address| address.ip == *ip));
        // Nothing is decided before it is known which of the new targets are published.
        if self.targets.iter().any(|target| !target.health.is_initialized()) {
            self.policy_state.published = None;
        }
        self.update_maintenance(now);
        self.decide(freeze, now);
    }

    /// Returns whether the members that the cluster holds are known.
    pub(super) fn is_synced(&self) -> bool {
        self.policy_state.published.is_some()
    }

    /// Returns a copy for readers outside the monitor.
    pub(super) fn snapshot(&self) -> DatabaseSnapshot {
        DatabaseSnapshot {
            id: self.database.id.clone(),
            plan: self.plan.borrow().plan.clone(),
            policy: self.database.policy.clone(),
            notes: self.policy_state.notes.clone(),
            problems: self.policy_state.problems.clone(),
            targets: self.targets.clone(),
            refused: self.database.rejected.clone(),
            check_duration: self.check_duration.clone(),
        }
    }

    /// Applies the verdict on the target numbered `index`. Returns the pause before its next try.
    pub(super) fn on_result(
        &mut self,
        index: usize,
        report: &ProbeReport,
        freeze: &mut Freeze,
    ) -> Pause {
        let &ProbeReport { ref verdict, started, ended: now, .. } = report;
        let duration = now.saturating_duration_since(started);
        self.check_duration.observe(duration);
        let target = &mut self.targets[index];
        target.last_check = Some((now, duration));
        match verdict {
            Verdict::Pass => target.counts.pass += 1,
            Verdict::Fail(_) => target.counts.fail += 1,
            Verdict::Inconclusive(_) => target.counts.inconclusive += 1,
        }
        self.log_inconclusive(index, verdict);
        let target = &mut self.targets[index];
        let check = &self.database.addresses[index].check;
        let (first, doubted) = (!target.health.is_checked(), target.health.in_doubt());
        let before = (known_to_pass(target, check, now), target.health.inconclusive_since());
        let transition = health::observe(&mut target.health, verdict, check.thresholds, now);
        let after = (known_to_pass(target, check, now), target.health.inconclusive_since());
        let turned = self.database.policy.exactly_one && before.0 != after.0 || before.1 != after.1;
        self.count_flip(index, transition, now);
        self.announce_transition(index, transition, now);
        self.log_unsynced_failure(index);
        let in_doubt = self.targets[index].health.in_doubt();
        if transition.is_some() {
            self.note_failure(index, freeze, now);
        }
        if first || turned || transition.is_some() {
            self.decide(freeze, now);
        } else if doubted != in_doubt {
            self.report_tally(freeze, now);
        }
        if in_doubt { Pause::Recheck } else { Pause::Interval }
    }

    /// Applies the members that the cluster holds when it is first read.
    pub(super) fn set_initial_members(
        &mut self,
        members: &Members,
        freeze: &mut Freeze,
        now: Instant,
    ) {
        let first = self.policy_state.published.is_none();
        self.policy_state.published.get_or_insert_with(|| members.clone());
        for index in 0..self.targets.len() {
            let target = &mut self.targets[index];
            let membership = if members.contains(target.member.ip) {
                InitialMembership::Published
            } else {
                InitialMembership::Unpublished
            };
            let thresholds = self.database.addresses[index].check.thresholds;
            let transition = health::initialize(&mut target.health, membership, thresholds, now);
            self.announce_transition(index, transition, now);
            if transition.is_some() {
                self.note_failure(index, freeze, now);
            }
        }
        self.decide(freeze, now);
        if first {
            freeze.database_synced(now);
        }
    }

    /// Applies the members that the cluster holds by a decision of this replica, or of the one that
    /// writes.
    pub(super) fn set_published_members(
        &mut self,
        members: Members,
        freeze: &mut Freeze,
        now: Instant,
    ) {
        let changed =
            self.policy_state.published.as_ref().is_some_and(|published| *published != members);
        if changed {
            self.policy_state.published = Some(members);
            self.decide(freeze, now);
        }
    }

    /// Applies the annotations of the Service.
    pub(super) fn set_annotations(
        &mut self,
        annotations: ServiceAnnotations,
        freeze: &mut Freeze,
        now: Instant,
    ) {
        self.policy_state.maintenance = annotations.maintenance.map(String::into_boxed_str);
        // An annotation that exists when the cluster is first read may be an old request.
        let synced = self.policy_state.published.is_some();
        let failback = annotations.failback.map(String::into_boxed_str);
        let changed = failback.is_some() && self.policy_state.failback != failback;
        self.policy_state.failback = failback;
        self.update_maintenance(now);
        if changed && synced {
            let DatabaseId { namespace, service } = &self.database.id;
            info!(%namespace, %service, "a failback is asked for");
            self.policy_state.failback_requested_at = Some(now);
        }
        self.decide(freeze, now);
    }

    /// Puts the targets in maintenance that the annotation and the config name.
    fn update_maintenance(&mut self, now: Instant) {
        let known = |ip: IpAddr| self.targets.iter().any(|target| target.member.ip == ip);
        let annotation = self.policy_state.maintenance.as_deref().unwrap_or_default();
        let Maintenance { targets: maintenance, mut problems } =
            annotations::parse_maintenance(annotation, known);
        problems.extend(annotations::failback_problem(self.policy_state.failback.as_deref()));
        self.log_problems(&problems);
        self.policy_state.problems = problems;
        for index in 0..self.targets.len() {
            let ip = self.targets[index].member.ip;
            let by_annotation =
                maintenance.iter().find(|(of, _)| *of == ip).map(|(_, reason)| reason.clone());
            self.set_maintenance(
                index,
                by_annotation.or_else(|| self.database.addresses[index].maintenance.clone()),
                now,
            );
        }
    }

    fn set_maintenance(&mut self, index: usize, reason: Option<Arc<str>>, now: Instant) {
        let DatabaseId { namespace, service } = &self.database.id;
        let target = &mut self.targets[index];
        if target.maintenance == reason {
            return;
        }
        let address = target.member.ip;
        match &reason {
            Some(reason) => {
                info!(%namespace, %service, %address, %reason, "target is in maintenance")
            }
            None => {
                info!(%namespace, %service, %address, "maintenance of target is over");
                target.maintenance_ended_at = Some(now);
            }
        }
        target.maintenance = reason;
    }

    /// Returns the time of the next reevaluation, if the monitor does not know of it yet.
    pub(super) fn take_reevaluation(&mut self) -> Option<Instant> {
        let changed = self.policy_state.reevaluate_at != self.policy_state.scheduled_reevaluation;
        self.policy_state.scheduled_reevaluation = self.policy_state.reevaluate_at;
        self.policy_state.reevaluate_at.filter(|_| changed)
    }

    /// Resets the reevaluation that the monitor knows of.
    pub(super) fn reset_reevaluation(&mut self) {
        self.policy_state.scheduled_reevaluation = None;
    }

    /// Decides anew, if the time for it has come.
    pub(super) fn reevaluate_if_due(&mut self, freeze: &mut Freeze, now: Instant) {
        if self.policy_state.reevaluate_at.is_some_and(|reevaluate_at| reevaluate_at <= now) {
            self.decide(freeze, now);
        }
    }

    fn count_flip(&mut self, index: usize, transition: Option<Transition>, now: Instant) {
        if let Some(Transition { from: State::Up | State::Down, to }) = transition {
            let flaps = self.targets[index].flaps.get_or_insert_default();
            flaps.record_flip(to, self.database.policy.max_flips, now);
        }
    }

    /// Returns a note on published targets whose verdicts have been inconclusive for too long. It
    /// is the note from before if the targets are the same.
    fn inconclusive_note(&self) -> Option<PolicyNote> {
        let published = self.policy_state.published.as_ref()?;
        let is_inconclusive = |target: &&TargetState| {
            published.contains(target.member.ip) && target.health.inconclusive_since().is_some()
        };
        let mut targets: Vec<&TargetState> = self.targets.iter().filter(is_inconclusive).collect();
        targets.sort_by_key(|target| target.member.ip);
        let reason = targets.first()?.health.reason().unwrap_or_default();
        let ips: Vec<IpAddr> = targets.iter().map(|target| target.member.ip).collect();
        let same = |note: &&PolicyNote| match note {
            PolicyNote::ChecksInconclusive { ips: before, .. } => *before == ips,
            _ => false,
        };
        let before = self.policy_state.notes.iter().find(same).cloned();
        Some(
            before.unwrap_or_else(|| PolicyNote::ChecksInconclusive {
                ips,
                reason: reason.to_owned(),
            }),
        )
    }

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
    pub(super) fn decide(&mut self, freeze: &mut Freeze, now: Instant) {
        if freeze.frozen().is_none() {
            self.recent_failures.expire(now);
        }
        self.report_tally(freeze, now);
        let hold = freeze
            .holds_removals()
            .then(|| Hold { left: freeze.frozen().map(|_| &self.recent_failures) });
        let decision =
            decide(&self.database, &self.targets, &self.policy_state, hold.as_ref(), now);
        let Decision { plan, mut notes, reevaluate_at, exchanged: _ } = decision;
        notes.extend(self.inconclusive_note());
        let before = std::mem::replace(&mut self.policy_state.notes, notes);
        self.policy_state.reevaluate_at =
            reevaluate_at.into_iter().chain(self.recent_failures.next_expiry(now)).min();
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

/// Returns whether the target is Down or in maintenance.
fn is_out(target: &TargetState) -> bool {
    target.health.state() == State::Down || target.maintenance.is_some()
}

/// The hold of a freeze that has begun or is likely.
struct Hold<'a> {
    /// The targets that a freeze restores.
    left: Option<&'a RecentFailures>,
}

/// Returns a target of which nothing is known.
fn target(address: &Address, now: Instant) -> TargetState {
    TargetState {
        member: Member { ip: address.ip, hostname: address.hostname.clone() },
        health: Health::new(now),
        last_check: None,
        counts: TargetCounters::default(),
        priority: address.priority,
        maintenance: address.maintenance.clone(),
        maintenance_ended_at: None,
        flaps: None,
    }
}

/// Returns the target for a new config. Its health is kept only with its check.
fn renewed(known: TargetState, old: &Address, address: &Address, now: Instant) -> TargetState {
    let new = target(address, now);
    if old.check == address.check {
        return TargetState { member: new.member, priority: new.priority, ..known };
    }
    let TargetState { counts, maintenance, maintenance_ended_at, .. } = known;
    TargetState { counts, maintenance, maintenance_ended_at, ..new }
}

fn decide(
    database: &Database,
    targets: &[TargetState],
    policy_state: &PolicyState,
    hold: Option<&Hold>,
    now: Instant,
) -> Decision {
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
    let (policy, failback_requested_at) = (&database.policy, policy_state.failback_requested_at);
    let pool = Pool {
        targets: &candidates,
        policy,
        failback_requested_at,
        holds_removals: hold.is_some(),
        names: &[],
        late_arrivals_hold_empty: false,
    };
    plan::decide(&pool, policy_state.published.as_ref(), now)
}

/// Returns the time at which the newest conclusive verdict is too old to count. As many failures
/// would have made the target Down before.
fn stale_at(health: &Health, check: &Check) -> Option<Instant> {
    let intervals = check.thresholds.unhealthy.max(FRESH_INTERVALS);
    let time = check.interval.checked_mul(intervals)?.checked_add(check.timeout)?;
    health.known_at().checked_add(time)
}

fn known_to_pass(target: &TargetState, check: &Check, now: Instant) -> bool {
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
        backing: crate::names::Backing::Current,
        is_late_arrival: false,
        restored_by_freeze: false,
    }
}

#[cfg(test)]
mod tests;
