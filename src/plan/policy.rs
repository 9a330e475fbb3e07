//! The policy of a database, as its plan follows it.

use std::time::Duration;

/// The rules of a database's plan. The default publishes exactly the healthy targets, also if there
/// are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The number of members that the policy keeps.
    pub min_healthy: MinHealthy,
    /// At most one member at any time: two targets that pass are a split brain.
    pub exactly_one: bool,
    /// The return of a preferred tier.
    pub failback: Failback,
    /// Flips in ten minutes that are allowed before a target is suppressed.
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
    /// This many members.
    Number(u32),
    /// A percentage of the addresses of the preferred tier, rounded up. A lower tier is a spare,
    /// and is not expected to serve.
    Percentage(u8),
}

impl MinHealthy {
    /// Returns the number, for a preferred tier of this many addresses.
    pub fn to_count(self, preferred: usize) -> usize {
        match self {
            MinHealthy::Number(number) => usize::try_from(number).unwrap_or(usize::MAX),
            MinHealthy::Percentage(percentage) => {
                preferred.saturating_mul(percentage.into()).div_ceil(100)
            }
        }
    }
}

/// The time at which a preferred tier that is healthy again takes over from a lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failback {
    /// Once it has been healthy for this time.
    Delay(Duration),
    /// On request.
    Manual,
}
