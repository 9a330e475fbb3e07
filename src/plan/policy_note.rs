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
    /// among them. They are an IPv4 and an IPv6 of this name, if it is known.
    SplitBrain { passing: Vec<IpAddr>, published: Option<IpAddr>, name: Option<String> },
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
    /// The servers of these targets do not let their checks log in. The reason is that of the
    /// first one.
    LoginRefused { ips: Vec<IpAddr>, reason: String },
    /// No target is well, and these have another role than their check asks for.
    RoleMissing { others: Vec<(IpAddr, String)> },
    /// These stay although these names no longer have them, because none takes their place.
    NotReplaced { kept: Vec<IpAddr>, names: Vec<String>, reason: NotReplacedReason },
}

/// The reason why an address that DNS no longer gives stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotReplacedReason {
    /// The names have not resolved since the start, and it was published then.
    Unresolved,
    /// None of the addresses that the names have now is up, for these reasons.
    NoneUp(Vec<(IpAddr, String)>),
}

impl PolicyNote {
    /// Returns whether both are notes of the same kind, perhaps of other targets or another time.
    pub fn same_kind(&self, other: &PolicyNote) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// Returns whether it says that checks say nothing about the health of their targets.
    pub fn is_of_inconclusive_checks(&self) -> bool {
        matches!(self, PolicyNote::ChecksInconclusive { .. } | PolicyNote::LoginRefused { .. })
    }
}

impl fmt::Display for PolicyNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyNote::SplitBrain { passing, published, name } => {
                write!(f, "split brain: {} pass, where one should; ", list_ips(passing))?;
                match published {
                    Some(ip) => write!(f, "{ip}, which is published, stays alone"),
                    None => f.write_str("none of them is published until it passes alone"),
                }?;
                match name {
                    Some(name) => write!(f, "; both are of {name}: set `families`"),
                    None => Ok(()),
                }
            }
            PolicyNote::BelowMinHealthy { healthy, needed, kept } => {
                write!(f, "{healthy} healthy, where minHealthy asks for {needed}; ")?;
                match kept.as_slice() {
                    [] => f.write_str("nothing else is published that could stay"),
                    [one] => write!(f, "{one} stays to make up the number"),
                    more => write!(f, "{} stay to make up the number", list_ips(more)),
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
                write!(f, "{} {stay}: {MANY_FAIL}", list_ips(kept))
            }
            PolicyNote::ChecksInconclusive { ips, reason } => fmt_inconclusive(ips, reason, f),
            PolicyNote::LoginRefused { ips, reason } => fmt_login_refused(ips, reason, f),
            PolicyNote::RoleMissing { others } => write!(
                f,
                "no address has the role that its check asks for: {}",
                with_reasons(others)
            ),
            PolicyNote::NotReplaced { kept, names, reason } => {
                fmt_not_replaced(kept, &names.join(", "), reason, f)
            }
            PolicyNote::Flapping { out, .. } => {
                write!(f, "{} flapped, and must be healthy for longer", list_ips(out))
            }
        }
    }
}

fn fmt_inconclusive(ips: &[IpAddr], reason: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let over = humantime::format_duration(INCONCLUSIVE_TOLERANCE);
    let stay = if ips.len() == 1 { "it stays" } else { "they stay" };
    write!(
        f,
        "the checks of {} have been inconclusive for over {over} ({reason}); {stay} published, \
         dead or alive; fix the cause on the side of the daemon",
        list_ips(ips)
    )
}

fn fmt_login_refused(ips: &[IpAddr], reason: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let whose = if ips.len() == 1 { "its" } else { "their" };
    let ips = list_ips(ips);
    write!(f, "the checks of {ips} cannot log in ({reason}); {whose} health stays as it is")
}

fn fmt_not_replaced(
    kept: &[IpAddr],
    names: &str,
    reason: &NotReplacedReason,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let (stay, them) = if kept.len() == 1 { ("stays", "it") } else { ("stay", "them") };
    write!(f, "{} {stay}: ", list_ips(kept))?;
    match reason {
        NotReplacedReason::Unresolved => {
            write!(f, "published before the start, and DNS has given no address for {names} since")
        }
        NotReplacedReason::NoneUp(others) if others.is_empty() => {
            write!(f, "DNS no longer gives {them} for {names}, and gives no other")
        }
        NotReplacedReason::NoneUp(others) => write!(
            f,
            "DNS no longer gives {them} for {names}, and none that it gives is up: {}",
            with_reasons(others)
        ),
    }
}

const MANUAL_FAILBACK: &str = "run `external-endpoints failback` to let it take over";
const MANY_FAIL: &str = "so many targets fail together that the fault is probably the daemon's own";

/// Addresses that a sentence lists.
const MAX_LISTED: usize = 5;

/// Returns addresses as a sentence lists them: some of them if there are many.
pub(crate) fn list_ips(ips: &[IpAddr]) -> String {
    list_texts(ips.iter().map(IpAddr::to_string))
}

fn with_reasons(targets: &[(IpAddr, String)]) -> String {
    list_texts(targets.iter().map(|(ip, reason)| format!("{ip} ({reason})")))
}

fn list_texts(texts: impl ExactSizeIterator<Item = String>) -> String {
    let more = texts.len().saturating_sub(MAX_LISTED);
    let shown: Vec<String> = texts.take(MAX_LISTED).collect();
    match more {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
