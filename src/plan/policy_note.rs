//! The notes of a decision: the effects of a policy, and doubts about what is published. Typed for
//! programs, a sentence for people.

use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use crate::health::INCONCLUSIVE_TOLERANCE;

/// An effect of a policy, or a doubt about what is published.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants describe their fields")]
pub enum PolicyNote {
    /// More than one target of an `exactlyOne` database passes; the published one stays, if it is
    /// among them.
    SplitBrain { passing: Vec<IpAddr>, published: Option<IpAddr> },
    /// Fewer are healthy than `minHealthy` asks for; these stay although they are not.
    BelowMinHealthy { healthy: usize, needed: usize, kept: Vec<IpAddr> },
    /// A lower tier serves, because those above are too weak or may not return yet.
    DegradedTier { tier: u32 },
    /// The tiers down to this one are healthy again. They take over at this time; if it is none,
    /// on request.
    FailbackWaits { tier: u32, until: Option<Instant> },
    /// These are up, but suppressed for flapping; the first of them until this time.
    Flapping { out: Vec<IpAddr>, until: Instant },
    /// These stay although they should leave, because of a freeze.
    KeptByFreeze { kept: Vec<IpAddr> },
    /// These are published, but all of their verdicts have been inconclusive for too long. The
    /// reason is that of the first one.
    ChecksInconclusive { ips: Vec<IpAddr>, reason: String },
}

impl PolicyNote {
    /// Returns whether both are notes of the same kind, perhaps of other targets or another time.
    pub fn same_kind(&self, other: &PolicyNote) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl fmt::Display for PolicyNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyNote::SplitBrain { passing, published } => {
                write!(f, "split brain: {} pass, where one should; ", list(passing))?;
                match published {
                    Some(ip) => write!(f, "{ip}, which is published, stays alone"),
                    None => f.write_str("none of them is published until it passes alone"),
                }
            }
            PolicyNote::BelowMinHealthy { healthy, needed, kept } => {
                write!(f, "{healthy} healthy, where minHealthy asks for {needed}; ")?;
                match kept.as_slice() {
                    [] => f.write_str("nothing else is published that could stay"),
                    [one] => write!(f, "{one} stays although it is not"),
                    more => write!(f, "{} stay although they are not", list(more)),
                }
            }
            PolicyNote::DegradedTier { tier } => write!(f, "tier {tier} serves"),
            PolicyNote::FailbackWaits { tier, until: Some(_) } => {
                write!(f, "tier {tier} is healthy again, and takes over after the failback delay")
            }
            PolicyNote::FailbackWaits { tier, until: None } => {
                write!(f, "tier {tier} is healthy again; {MANUAL_FAILBACK}")
            }
            PolicyNote::KeptByFreeze { kept } => {
                let stay = if kept.len() == 1 { "stays" } else { "stay" };
                write!(f, "{} {stay}: {MANY_FAIL}", list(kept))
            }
            PolicyNote::ChecksInconclusive { ips, reason } => {
                let over = humantime::format_duration(INCONCLUSIVE_TOLERANCE);
                let stay = if ips.len() == 1 { "it stays" } else { "they stay" };
                write!(
                    f,
                    "the checks of {} have been inconclusive for over {over} ({reason}); {stay} \
                     published, dead or alive; fix the cause on the side of the daemon",
                    list(ips)
                )
            }
            PolicyNote::Flapping { out, .. } => {
                write!(f, "{} flapped, and must be healthy for longer", list(out))
            }
        }
    }
}

const MANUAL_FAILBACK: &str = "run `external-endpoints failback` to let it take over";
const MANY_FAIL: &str = "so many targets fail together that the fault is probably the daemon's own";

/// Addresses that a sentence lists.
const MAX_LISTED: usize = 5;

fn list(ips: &[IpAddr]) -> String {
    let shown: Vec<String> = ips.iter().take(MAX_LISTED).map(IpAddr::to_string).collect();
    match ips.len().saturating_sub(MAX_LISTED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
