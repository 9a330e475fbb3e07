//! The state of the monitor at one moment, for the pages that show it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Change, CheckDurations, DurationHistogram, LastHour};
use crate::annotations::Maintenance;
use crate::clock;
use crate::config::{Check, DatabaseId, RejectedAddress};
use crate::freeze::Frozen;
use crate::health::{FlapDamper, Health, Streak};
use crate::names::{Backing, LookupResult};
use crate::plan::{Member, Membership, Plan, Policy, PolicyNote};
use crate::probe::Observation;
use crate::resolve::LookupOutcome;

/// The state of all databases at nearly the same moment.
#[derive(Debug)]
pub struct Snapshot {
    /// The time until which readers get this snapshot.
    pub fresh_until: Instant,
    pub databases: Vec<DatabaseSnapshot>,
    /// The durations of tries, by the kind of their check.
    pub check_durations: CheckDurations,
    /// The delays between when tries were due and when they started.
    pub start_delay: DurationHistogram,
    /// Tries that started more than half an interval after they were due, or have waited for as
    /// long.
    pub started_late: u64,
    /// The freeze, if there is one.
    pub frozen: Option<Frozen>,
}

#[derive(Debug, Clone)]
pub struct DatabaseSnapshot {
    pub id: DatabaseId,
    pub plan: Plan,
    pub policy: Policy,
    /// The effects of the policy on the plan.
    pub notes: Vec<PolicyNote>,
    /// The problems of the Service's annotations.
    pub problems: Vec<String>,
    pub targets: Vec<TargetState>,
    /// The checks of the targets, in the same order.
    pub checks: Vec<TargetCheck>,
    /// The entries that are a name, in the order of the file.
    pub names: Vec<NameSnapshot>,
    /// The addresses that may not be published, and are no targets.
    pub refused: Vec<RejectedAddress>,
    /// The newest changes, oldest first.
    pub changes: Arc<VecDeque<Change>>,
}

/// A name of a database.
#[derive(Debug, Clone)]
pub struct NameSnapshot {
    pub name: Arc<str>,
    /// The addresses that are known, with DNS's word on each.
    pub addresses: Vec<(IpAddr, Backing)>,
    /// Members that were published before any answer, and that have its attributes.
    pub lent: usize,
    /// The result of the newest lookup; none before the first.
    pub result: Option<LookupResult>,
    /// The outcome of the newest lookup.
    pub(crate) newest: Option<Arc<LookupOutcome>>,
    /// The time since which there has been no good answer.
    pub failing_since: Option<Instant>,
    /// The good answers that had other addresses than the one before.
    pub changes: u64,
    /// The addresses of the newest answers that may not be published.
    pub refused: Vec<RejectedAddress>,
    /// The SRV records of the newest answer with a port that the database has not, as text.
    pub foreign_ports: Vec<String>,
}

/// The check of a target, and the time of its next try.
#[derive(Debug, Clone)]
pub struct TargetCheck {
    pub check: Arc<Check>,
    /// The time at which the next try is due; none while one is in flight or not scheduled yet.
    pub next_at: Option<Instant>,
}

#[derive(Debug, Clone)]
pub struct TargetState {
    pub member: Member,
    pub health: Health,
    /// The time of the newest verdict, and the duration of its try.
    pub last_check: Option<(Instant, Duration)>,
    pub counts: TargetCounters,
    /// The place that it comes from.
    pub origin: Origin,
    /// The tier; the lowest is preferred.
    pub priority: u32,
    /// The maintenance, if there is one.
    pub maintenance: Option<Arc<Maintenance>>,
    /// The end of its last maintenance.
    pub maintenance_ended_at: Option<Instant>,
    /// The flips of its state, if there were any.
    pub flaps: Option<Box<FlapDamper>>,
    /// The worst of each minute lately.
    pub last_hour: LastHour,
    /// The place in the newest plan, with the rule that gives it.
    pub membership: Membership,
    /// The details that the newest try has found; none if it found none.
    pub observation: Option<Arc<Observation>>,
    /// The trouble of its check.
    pub(crate) trouble: Trouble,
}

/// The trouble of a check that a person must mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    None,
    /// The server does not let the check log in.
    Login,
    /// The server has another role than the check asks for.
    Role,
}

impl TargetState {
    /// Returns whether the newest conclusive verdict was a Pass.
    pub fn passing(&self) -> bool {
        matches!(self.health.streak(), Streak::Passes(_))
    }

    /// Returns the end of its suppression for flapping, if it stays Up.
    pub fn out_until(&self) -> Option<Instant> {
        self.flaps.as_ref()?.suppressed_until()
    }

    /// Returns the same, but none if that does not keep it out: a rule may put it in nevertheless.
    pub fn flapping(&self) -> Option<Instant> {
        match self.membership {
            Membership::Flapping { until } if until > clock::now() => Some(until),
            _ => None,
        }
    }
}

/// The place that a target comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The name that DNS gives it for, or the target of its SRV record; none for an IP of the file.
    pub name: Option<Arc<str>>,
    /// The index of its entry among the names of the database; none for an IP of the file.
    pub entry: Option<usize>,
    /// The way in which DNS stands behind it.
    pub backing: Backing,
    /// True if its name is a guess: no answer has had it, and it may be of another name.
    pub is_guess: bool,
    /// The time at which an answer brought it.
    pub arrived_at: Option<Instant>,
    /// True if that was after the first decision, or by an answer that was not the first.
    pub is_late: bool,
}

impl Default for Origin {
    fn default() -> Self {
        Self {
            name: None,
            entry: None,
            backing: Backing::Current,
            is_guess: false,
            arrived_at: None,
            is_late: false,
        }
    }
}

/// The counters of one target since the daemon started.
#[derive(Debug, Clone, Copy, Default)]
pub struct TargetCounters {
    pub pass: u64,
    pub fail: u64,
    pub inconclusive: u64,
    pub to_up: u64,
    pub to_down: u64,
}
