//! The health of one target: a state machine from verdicts to Up and Down, with thresholds. Pure.
//!
//! | state   | Pass                           | Fail                         | Inconclusive |
//! | ---     | ---                            | ---                          | ---          |
//! | Unknown | Up, once initialized           | Down, once initialized       | stays        |
//! | Up      | stays, and resets the failures | Down at `unhealthy` in a row | stays        |
//! | Down    | Up at `healthy` in a row       | stays, and resets the passes | stays        |
//!
//! A restart must not be an outage. A target that the cluster already publishes when it is first
//! read therefore starts as Up, and leaves only as any Up target does. Verdicts that come before
//! the target is initialized count toward that.
//!
//! An Inconclusive never changes the state, but it does not refresh what is known either. The times
//! of the newest Pass and of the newest conclusive verdict are kept for decisions that depend on
//! age.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use flap_damper::FlapDamper;

mod flap_damper;

/// The outcome of one try of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The target answered as the check asks.
    Pass,
    /// The target did not; the reason names the phase (`connect: refused`).
    Fail(String),
    /// The try says nothing about the target, because the fault is on this side.
    Inconclusive(String),
}

impl Verdict {
    /// Returns the reason of a verdict that is not a Pass.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Verdict::Pass => None,
            Verdict::Fail(reason) | Verdict::Inconclusive(reason) => Some(reason),
        }
    }
}

/// The state of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// No conclusive verdict yet, and not published when the cluster was first read.
    Unknown,
    /// Healthy by the thresholds, or published when the cluster was first read.
    Up,
    /// Unhealthy by the thresholds.
    Down,
}

impl State {
    /// Returns the word for logs, metrics and the status API.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Up => "up",
            State::Down => "down",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Time for which all verdicts may be inconclusive before that is reported. A short lack of file
/// descriptors is not.
pub const INCONCLUSIVE_TOLERANCE: Duration = Duration::from_secs(60);

/// Consecutive verdicts that flip a state. Both are at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Passes in a row that flip a target to Up.
    pub healthy: u32,
    /// Failures in a row that flip a target to Down.
    pub unhealthy: u32,
}

/// Passes or failures in a row, up to the newest conclusive verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streak {
    /// No conclusive verdict yet.
    None,
    /// This many passes.
    Passes(u32),
    /// This many failures.
    Failures(u32),
}

/// A state that flipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
}

/// The state of one target, with the verdicts that led there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    state: State,
    streak: Streak,
    since: Instant,
    reason: Option<String>,
    initialized: bool,
    verdict_times: VerdictTimes,
}

/// The times of the newest verdicts of each kind; none if there has been none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct VerdictTimes {
    any: Option<Instant>,
    pass: Option<Instant>,
    /// The newest Pass or Fail.
    conclusive: Option<Instant>,
    /// The first of the inconclusive verdicts since the last conclusive one.
    inconclusive_since: Option<Instant>,
}

impl VerdictTimes {
    fn record(&mut self, verdict: &Verdict, now: Instant) {
        self.any = Some(now);
        if let Verdict::Inconclusive(_) = verdict {
            self.inconclusive_since.get_or_insert(now);
            return;
        }
        self.conclusive = Some(now);
        self.inconclusive_since = None;
        if *verdict == Verdict::Pass {
            self.pass = Some(now);
        }
    }
}

impl Health {
    /// Returns a target of which nothing is known yet.
    pub fn new(now: Instant) -> Self {
        let (state, streak, verdict_times) =
            (State::Unknown, Streak::None, VerdictTimes::default());
        Self { state, streak, since: now, reason: None, initialized: false, verdict_times }
    }

    /// Returns the state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Returns the streak.
    pub fn streak(&self) -> Streak {
        self.streak
    }

    /// Returns whether the newest verdicts speak against the state, but are too few to flip it.
    pub fn in_doubt(&self) -> bool {
        matches!(
            (self.state, self.streak),
            (State::Up, Streak::Failures(_)) | (State::Down, Streak::Passes(_))
        )
    }

    /// Returns whether [`initialize`] has been called.
    pub fn is_initialized(&self) -> bool {
        self.initialized
    }

    /// Returns whether there has been any verdict, also an inconclusive one.
    pub fn is_checked(&self) -> bool {
        self.verdict_times.any.is_some()
    }

    /// Returns the time of the newest Pass.
    pub fn passed_at(&self) -> Option<Instant> {
        self.verdict_times.pass
    }

    /// Returns the time of the newest conclusive verdict. Without one, returns the time at which
    /// the cluster showed the target.
    pub fn known_at(&self) -> Instant {
        self.verdict_times.conclusive.unwrap_or(self.since)
    }

    /// Returns the time since which all verdicts have been inconclusive, if that is longer ago than
    /// [`INCONCLUSIVE_TOLERANCE`].
    pub fn inconclusive_since(&self) -> Option<Instant> {
        let VerdictTimes { any, inconclusive_since, .. } = self.verdict_times;
        inconclusive_since.filter(|since| {
            any.is_some_and(|newest| newest.duration_since(*since) > INCONCLUSIVE_TOLERANCE)
        })
    }

    /// Returns whether the newest verdict is inconclusive.
    pub fn is_inconclusive(&self) -> bool {
        self.verdict_times.inconclusive_since.is_some()
    }

    /// Returns the time of the last change of state.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Returns the reason of the newest verdict; none if it was a Pass.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn set_state(&mut self, to: State, now: Instant) -> Option<Transition> {
        if self.state == to {
            return None;
        }
        let from = std::mem::replace(&mut self.state, to);
        self.since = now;
        Some(Transition { from, to })
    }

    /// Returns the state to which the streak leads.
    fn next_state(&self, thresholds: Thresholds) -> State {
        match (self.state, self.streak) {
            (State::Unknown, _) if !self.initialized => State::Unknown,
            (State::Unknown, Streak::Passes(_)) => State::Up,
            (State::Unknown, Streak::Failures(_)) => State::Down,
            (State::Up, Streak::Failures(n)) if n >= thresholds.unhealthy => State::Down,
            (State::Down, Streak::Passes(n)) if n >= thresholds.healthy => State::Up,
            (state, _) => state,
        }
    }
}

/// Counts a verdict, and flips the state if the streak has reached its threshold.
pub fn observe(
    health: &mut Health,
    verdict: &Verdict,
    thresholds: Thresholds,
    now: Instant,
) -> Option<Transition> {
    health.verdict_times.record(verdict, now);
    health.reason = verdict.reason().map(str::to_owned);
    health.streak = match (verdict, health.streak) {
        (Verdict::Inconclusive(_), streak) => streak,
        (Verdict::Pass, Streak::Passes(n)) => Streak::Passes(n.saturating_add(1)),
        (Verdict::Pass, _) => Streak::Passes(1),
        (Verdict::Fail(_), Streak::Failures(n)) => Streak::Failures(n.saturating_add(1)),
        (Verdict::Fail(_), _) => Streak::Failures(1),
    };
    let to = health.next_state(thresholds);
    health.set_state(to, now)
}

/// The membership of a target in its Service when the cluster is first read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitialMembership {
    /// The cluster publishes the target.
    Published,
    /// The cluster does not publish the target.
    Unpublished,
}

/// Starts a published target as Up, the first time that the cluster is read. Later calls change
/// nothing: from then on only verdicts count.
pub fn initialize(
    health: &mut Health,
    membership: InitialMembership,
    thresholds: Thresholds,
    now: Instant,
) -> Option<Transition> {
    if health.initialized {
        return None;
    }
    health.initialized = true;
    let before = health.state;
    if membership == InitialMembership::Published {
        health.set_state(State::Up, now);
    }
    let to = health.next_state(thresholds);
    health.set_state(to, now);
    (before != health.state).then_some(Transition { from: before, to: health.state })
}

#[cfg(test)]
mod tests;
