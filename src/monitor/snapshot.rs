//! What the monitor knows at one moment, for the pages that show it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::DurationHistogram;
use crate::clock;
use crate::config::{DatabaseId, RejectedAddress};
use crate::freeze::Frozen;
use crate::health::{FlapDamper, Health, State, Streak};
use crate::plan::{Member, Plan, Policy, PolicyNote};

/// All that is known at one moment, or very nearly.
#[derive(Debug)]
pub struct Snapshot {
    /// Until when whoever asks is given this one.
    pub fresh_until: Instant,
    pub databases: Vec<DatabaseSnapshot>,
    /// How long after they were due tries started.
    pub start_delay: DurationHistogram,
    /// Tries that started more than half an interval after they were due, or have waited for as long.
    pub started_late: u64,
    /// The freeze, if there is one.
    pub frozen: Option<Frozen>,
}

#[derive(Debug, Clone)]
pub struct DatabaseSnapshot {
    pub id: DatabaseId,
    pub plan: Plan,
    pub policy: Policy,
    /// What the policy did to the plan.
    pub notes: Vec<PolicyNote>,
    /// What is wrong with the Service's annotations.
    pub problems: Vec<String>,
    pub targets: Vec<TargetState>,
    /// The addresses that may not be published, and are no targets.
    pub refused: Vec<RejectedAddress>,
    /// How long tries took.
    pub check_duration: DurationHistogram,
}

#[derive(Debug, Clone)]
pub struct TargetState {
    pub member: Member,
    pub health: Health,
    /// When the newest verdict came, and how long the try took.
    pub last: Option<(Instant, Duration)>,
    pub counts: TargetCounters,
    /// The tier; the lowest is preferred.
    pub priority: u32,
    /// Why it is in maintenance, if it is.
    pub maintenance: Option<Arc<str>>,
    /// When its last maintenance was over.
    pub returned: Option<Instant>,
    /// Its flips, if there were any.
    pub flaps: Option<Box<FlapDamper>>,
}

impl TargetState {
    /// Whether the newest verdict that was not inconclusive was a Pass.
    pub fn passing(&self) -> bool {
        matches!(self.health.streak(), Streak::Passes(_))
    }

    /// Until when it is out for flapping, if it stays Up.
    pub fn out_until(&self) -> Option<Instant> {
        self.flaps.as_ref()?.suppressed_until()
    }

    /// As above, but none if it is not Up or the time is over.
    pub fn flapping(&self) -> Option<Instant> {
        self.out_until().filter(|until| self.health.state() == State::Up && *until > clock::now())
    }
}

/// What has been counted of one target since the daemon started.
#[derive(Debug, Clone, Copy, Default)]
pub struct TargetCounters {
    pub pass: u64,
    pub fail: u64,
    pub inconclusive: u64,
    pub to_up: u64,
    pub to_down: u64,
}
