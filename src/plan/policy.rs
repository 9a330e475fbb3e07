//! What a database's policy asks of its plan.

use std::time::Duration;

/// The rules that a database's plan follows. Without any, the healthy ones are published, be they none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub min_healthy: MinHealthy,
    /// At most one member ever: two targets that pass are a split brain.
    pub exactly_one: bool,
    pub failback: Failback,
    /// Flips in ten minutes after which a target that flips again stays out until it was well for long enough.
    pub max_flips: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            min_healthy: MinHealthy::Number(0),
            exactly_one: false,
            failback: Failback::Delay(Duration::from_secs(5 * 60)),
            max_flips: 5,
        }
    }
}

/// Below this many healthy members, the most recently healthy published ones stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinHealthy {
    Number(u32),
    /// Of the addresses of the preferred tier, rounded up: a lower tier is a spare, and is not expected to serve.
    Percentage(u8),
}

impl MinHealthy {
    /// How many that is, where the preferred tier has this many addresses.
    pub fn to_count(self, preferred: usize) -> usize {
        match self {
            MinHealthy::Number(number) => usize::try_from(number).unwrap_or(usize::MAX),
            MinHealthy::Percentage(percentage) => {
                preferred.saturating_mul(percentage.into()).div_ceil(100)
            }
        }
    }
}

/// When a preferred tier that is well again takes over from a lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failback {
    /// Once it has been well for so long.
    Delay(Duration),
    /// When a person asks for it.
    Manual,
}
