//! The health of one target: a pure state machine from verdicts to Up and Down, with thresholds; no clock of its own.

use std::time::Instant;

/// The outcome of one try of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The target answered as the check asks.
    Pass,
    /// The target did not; the reason names the phase (`connect: refused`).
    Fail(String),
    /// The try says nothing about the target, because the fault is on our side. It never moves a state.
    Inconclusive(String),
}

/// What is known of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No verdict yet, and not seen in the cluster.
    Unknown,
    Up,
    Down,
}

/// How many consecutive verdicts flip a state. Both are at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    pub healthy: u32,
    pub unhealthy: u32,
}

/// A state that flipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    pub from: State,
    pub to: State,
}

/// Passes or failures in a row, as of the newest verdict that was one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streak {
    None,
    Passes(u32),
    Failures(u32),
}
#[allow(dead_code)]
fn _todo(_: Instant) {}
