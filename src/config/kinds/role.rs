//! The role that a server must have and the lag that a replica may have, which several kinds of
//! check ask for.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::config::language::scalars::{keywords, parse_duration_within, scalar};
use crate::config::language::spanned::Field;
use crate::config::problem::{Collector, Reported};

keywords! {
    /// The role that a server must have.
    pub Role, "`any`, `primary` or `replica`" {
        /// Any role.
        Any = "any" | "all" | "both",
        /// The role that takes writes.
        Primary = "primary" | "master" | "leader" | "writer",
        /// The role that follows a primary.
        Replica = "replica" | "slave" | "secondary" | "standby" | "follower" | "reader",
    }
}

/// The time by which a replica may be behind its primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MaxLag(pub Duration);

scalar!(
    MaxLag,
    "a duration like `30s`",
    {
        "type": "string",
        "pattern": "^ *([0-9]+(\\.[0-9]+)? *[a-zA-Zµ]+ *)+$",
        "x-limits": "`1s` to `24h`",
    },
    |scalar, expected| parse_duration_within(scalar, "1s"..="24h", expected).map(MaxLag)
);

impl Serialize for MaxLag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

/// Returns the end of a check's summary.
pub(super) fn suffix(role: Role) -> String {
    if role == Role::Any { String::new() } else { format!(" as {}", role.as_str()) }
}

/// A limit that is lower than what a kind of server can show.
pub(super) struct LagResolution {
    /// The lowest limit that the kind can hold.
    pub lowest: Duration,
    /// The reason, as the end of a sentence.
    pub reason: &'static str,
}

/// Returns the checked limit. Reports one that can't be held.
pub(super) fn compile_max_lag(
    max_lag: &Field<MaxLag>,
    role: &Field<Role>,
    resolution: &LagResolution,
    problems: &mut Collector,
) -> Result<Option<Duration>, Reported> {
    let Some(limit) = max_lag.optional()? else { return Ok(None) };
    let Some(written) = max_lag.given() else { return Ok(None) };
    if role.value() == Some(&Role::Primary) {
        let message = "`maxLag` has no effect with `role: primary`, because a primary has no lag; \
                       remove one of them";
        return Err(problems.error_at_key(&written.location, message));
    }
    if limit.0 < resolution.lowest {
        let lowest = humantime::format_duration(resolution.lowest);
        let message = format!("{}; write at least `{lowest}`", resolution.reason);
        return Err(problems.error_at(&written.location, message));
    }
    Ok(Some(limit.0))
}
