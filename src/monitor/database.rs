//! One database: applies verdicts to the health of its targets, and decides its plan anew when
//! something that the plan depends on has changed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tracing::info;

use super::change_log::ChangeLog;
use super::{
    DatabasePlan, DatabaseSnapshot, LastHour, Minute, Origin, ProbeReport, TargetCheck,
    TargetCounters, TargetState, Trouble,
};
use crate::annotations::{Maintenance, ServiceAnnotations};
use crate::config::{Address, Database, DatabaseId};
use crate::freeze::Freeze;
use crate::health::{self, Health, InitialMembership, State, Transition, Verdict};
use crate::notice::Recorder;
use crate::plan::{KeepReason, Member, Members, Membership, Plan, PolicyNote};
use crate::probe::Observation;
use crate::resolve;
use crate::schedule::{Pause, Schedule, TargetKey};
pub(crate) use announcements::{CONCLUSIVE, end_of_missing_role, target_note};
pub(crate) use answers::ServiceFacts;
use decision::known_to_pass;

use dns_addresses::{DnsAddresses, Reading};
pub(super) use dns_notices::DnsService;
use readdress::Arrival;
use recent_failures::RecentFailures;
use trouble::{noted_trouble, trouble_of};

mod announcements;
mod answers;
mod decision;
mod dns_addresses;
mod dns_notices;
mod maintenance;
mod name_status;
mod readdress;
mod recent_failures;
mod trouble;

/// The state of one database. Only the monitor changes it.
pub(super) struct DatabaseMonitor {
    database: Arc<Database>,
    targets: Vec<TargetState>,
    plan: watch::Sender<DatabasePlan>,
    policy_state: PolicyState,
    recent_failures: RecentFailures,
    /// The addresses that could answer when they left the config, until the next plan to publish.
    removed: Vec<IpAddr>,
    changes: ChangeLog,
    recorder: Recorder,
    /// The addresses by name, if the database has names.
    dns: Option<Box<DnsAddresses>>,
    /// True once it has been decided what to publish.
    has_decided: bool,
    resolver_commands: Vec<resolve::Command>,
    /// The version that the schedule has.
    pub(super) scheduled: Scheduled,
}

/// The version of a database that the schedule has.
pub(super) struct Scheduled {
    pub database: Arc<Database>,
    /// The keys of the targets, in the order of the addresses.
    pub keys: Vec<TargetKey>,
}

/// The inputs of the policy besides health, and its effects.
#[derive(Default)]
struct PolicyState {
    /// The members that the cluster holds; none before it has been read.
    published: Option<Members>,
    /// The annotation for maintenance.
    maintenance: Option<Box<str>>,
    /// The time at which to look again for entries of that annotation that are over.
    maintenance_due_at: Option<Instant>,
    /// The annotation that asks for a failback.
    failback: Option<Box<str>>,
    failback_requested_at: Option<Instant>,
    notes: Vec<PolicyNote>,
    /// The problems of the Service's annotations.
    problems: Vec<String>,
    /// The time at which to decide anew although nothing else has changed.
    reevaluate_at: Option<Instant>,
    /// Addresses that the newest decision leaves out because another of their name takes their
    /// place.
    exchanged: Vec<IpAddr>,
    /// The time since which addresses that are new by DNS have held up a decision that would leave
    /// no member.
    held_empty_since: Option<Instant>,
    /// The time since which addresses stay that DNS no longer gives, and whether that has been
    /// announced.
    kept: Option<(Instant, bool)>,
    /// The reevaluation that the monitor knows of.
    scheduled_reevaluation: Option<Instant>,
}

impl DatabaseMonitor {
    /// Creates a database of which nothing is known.
    pub(super) fn new(database: &Arc<Database>, recorder: Recorder, now: Instant) -> Self {
        let targets: Vec<TargetState> =
            database.addresses.iter().map(|address| target(address, now)).collect();
        let policy_state = PolicyState::default();
        let dns = DnsAddresses::new(database).map(Box::new);
        let unscheduled = Arc::new(Database { addresses: Vec::new(), ..Database::clone(database) });
        let (plan, _) = watch::channel(DatabasePlan {
            database: database.clone(),
            plan: Plan::Keep(KeepReason::NotSynced),
            may_answer: Arc::default(),
        });
        let new = Self {
            database: database.clone(),
            targets,
            plan,
            policy_state,
            recent_failures: RecentFailures::default(),
            removed: Vec::new(),
            changes: ChangeLog::default(),
            recorder,
            dns,
            has_decided: false,
            resolver_commands: Vec::new(),
            scheduled: Scheduled { database: unscheduled, keys: Vec::new() },
        };
        let decision = new.decision(None, now);
        new.plan.send_modify(|existing| existing.plan = decision.plan);
        new
    }

    /// Returns the database with all addresses that are known now.
    pub(super) fn config(&self) -> &Arc<Database> {
        &self.database
    }

    /// Returns the database as the file has it.
    pub(super) fn file(&self) -> &Arc<Database> {
        self.dns.as_ref().map_or(&self.database, |dns| dns.file())
    }

    /// Returns the newest plan, and each newer one.
    pub(super) fn plan(&self) -> watch::Receiver<DatabasePlan> {
        self.plan.subscribe()
    }

    /// Takes over the database of a new config. A target whose check is the same keeps its health.
    /// Any other target must be initialized and checked first, and until then nothing is decided.
    pub(super) fn reload(&mut self, file: &Arc<Database>, freeze: &mut Freeze, now: Instant) {
        if self.file() == file {
            return;
        }
        let (database, origins) = self.replace_file(file, now);
        let gone = self.replace_targets(database, now).into_values();
        self.removed.extend(gone.filter(|(_, it)| !is_out(it)).map(|(address, _)| address.ip));
        let addresses = &self.database.addresses;
        self.removed.retain(|ip| !addresses.iter().any(|address| address.ip == *ip));
        self.set_origins(origins, Arrival::First, now);
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
    pub(super) fn snapshot(&self, schedule: &Schedule) -> DatabaseSnapshot {
        DatabaseSnapshot {
            id: self.database.id.clone(),
            plan: self.plan.borrow().plan.clone(),
            policy: self.database.policy.clone(),
            notes: self.policy_state.notes.clone(),
            problems: self.policy_state.problems.clone(),
            targets: self.targets.clone(),
            checks: self.checks(schedule),
            names: self.name_snapshots(),
            refused: self.database.rejected.clone(),
            changes: self.changes.snapshot(),
        }
    }

    /// Returns the checks of the targets, with the times of their next tries.
    fn checks(&self, schedule: &Schedule) -> Vec<TargetCheck> {
        let Scheduled { database, keys } = &self.scheduled;
        let keys = keys.iter().filter(|_| Arc::ptr_eq(database, &self.database));
        let due = keys.map(|key| schedule.due(*key)).chain(std::iter::repeat(None));
        let checks = self.database.addresses.iter().map(|address| address.check.clone());
        checks.zip(due).map(|(check, next_at)| TargetCheck { check, next_at }).collect()
    }

    /// Keeps the details that the newest try of a target has found, before its verdict.
    pub(super) fn set_observation(&mut self, index: usize, details: Option<Arc<Observation>>) {
        self.targets[index].observation = details;
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
        let target = &mut self.targets[index];
        target.last_check = Some((now, duration));
        match verdict {
            Verdict::Pass => target.counts.pass += 1,
            Verdict::Fail(_) => target.counts.fail += 1,
            Verdict::Inconclusive(_) => target.counts.inconclusive += 1,
        }
        self.log_inconclusive(index, verdict);
        self.hurry_name(index, verdict);
        let thresholds = self.thresholds(index);
        let target = &mut self.targets[index];
        let check = &self.database.addresses[index].check;
        let (first, doubted) = (!target.health.is_checked(), target.health.in_doubt());
        let has_new_reason = target.health.reason() != verdict.reason();
        let before = (known_to_pass(target, check, now), noted_trouble(target));
        let transition = health::observe(&mut target.health, verdict, thresholds, now);
        target.trouble = trouble_of(target);
        let after = (known_to_pass(target, check, now), noted_trouble(target));
        let turned = self.database.policy.exactly_one && before.0 != after.0 || before.1 != after.1;
        let turned = turned || has_new_reason && after.1 != (Trouble::None, None);
        if let Some(minute) = Minute::of(verdict, target.health.state()) {
            target.last_hour.record(minute, now);
        }
        self.count_flip(index, transition, now);
        self.announce_transition(index, transition, now);
        self.log_unsynced_failure(index);
        let in_doubt = self.targets[index].health.in_doubt();
        let pause = match in_doubt || self.is_just_arrived(index, now) {
            true => Pause::Recheck,
            false => Pause::Interval,
        };
        if transition.is_some() {
            self.note_failure(index, freeze, now);
        }
        if first || turned || transition.is_some() {
            self.decide(freeze, now);
        } else if doubted != in_doubt {
            self.report_tally(freeze, now);
        }
        pause
    }

    /// Applies the members that the cluster holds when it is first read. `own` are those of them
    /// that the daemon has written.
    pub(super) fn set_initial_members(
        &mut self,
        members: &Members,
        own: &Members,
        freeze: &mut Freeze,
        now: Instant,
    ) {
        let first = self.policy_state.published.is_none();
        let reading = match first && !self.has_decided {
            true => Reading::First,
            false => Reading::Later,
        };
        self.policy_state.published.get_or_insert_with(|| members.clone());
        self.adopt(own, reading, now);
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
            let before = self.policy_state.published.replace(members.clone());
            self.record_membership(before.as_ref(), &members, now);
            // All of them were written by this replica or by the one that writes.
            self.adopt(&members, Reading::AfterWrite, now);
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
        // An annotation that exists when the cluster is first read may be an old request.
        let synced = self.policy_state.published.is_some();
        let failback = annotations.failback.map(String::into_boxed_str);
        let changed = failback.is_some() && self.policy_state.failback != failback;
        self.policy_state.failback = failback;
        self.set_maintenance_annotation(annotations.maintenance, now);
        if changed && synced {
            let DatabaseId { namespace, service } = &self.database.id;
            info!(%namespace, %service, "a failback is asked for");
            self.policy_state.failback_requested_at = Some(now);
        }
        self.decide(freeze, now);
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
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.policy_state.reevaluate_at) {
            if is_due(self.policy_state.maintenance_due_at) {
                self.update_maintenance(now);
            }
            self.decide(freeze, now);
        }
    }

    fn count_flip(&mut self, index: usize, transition: Option<Transition>, now: Instant) {
        if let Some(Transition { from: State::Up | State::Down, to }) = transition {
            let flaps = self.targets[index].flaps.get_or_insert_default();
            flaps.record_flip(to, self.database.policy.max_flips, now);
        }
    }
}

/// Returns whether the target is Down or in maintenance.
fn is_out(target: &TargetState) -> bool {
    target.health.state() == State::Down || target.maintenance.is_some()
}

/// Returns a target of which nothing is known.
fn target(address: &Address, now: Instant) -> TargetState {
    TargetState {
        member: Member { ip: address.ip, hostname: address.hostname.clone() },
        health: Health::new(now),
        last_check: None,
        counts: TargetCounters::default(),
        origin: Origin::default(),
        priority: address.priority,
        maintenance: address
            .maintenance
            .as_ref()
            .map(|reason| Arc::new(Maintenance::by_config(reason))),
        maintenance_ended_at: None,
        flaps: None,
        last_hour: LastHour::default(),
        membership: Membership::default(),
        observation: None,
        trouble: Trouble::None,
    }
}

/// Returns the target for a new config. Its health is kept only with its check.
fn renewed(known: TargetState, old: &Address, address: &Address, now: Instant) -> TargetState {
    let new = target(address, now);
    if old.check == address.check {
        return TargetState { member: new.member, priority: new.priority, ..known };
    }
    let TargetState { counts, maintenance, maintenance_ended_at, origin, last_hour, .. } = known;
    TargetState { counts, maintenance, maintenance_ended_at, origin, last_hour, ..new }
}

#[cfg(test)]
mod tests;
