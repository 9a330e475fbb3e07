//! The decision for one database: which of its targets its Service shall have. Pure, and no clock of its own.
//!
//! | targets that are not in maintenance                  | plan                                     |
//! | ---                                                  | ---                                      |
//! | any of them Unknown and not tried yet                | keep: an early guess could take a good address away |
//! | any, but what the cluster holds is not known         | keep: who is published there is Up until disproved |
//! | none Up, and any of them Unknown for all its tries   | keep: not knowing is no reason to take the last address away |
//! | all others                                           | publish those that are Up, be they none, as far as the policy lets |
//!
//! Where several rules of a policy speak, the upper one wins:
//!
//! | rule          | what it does                                       | what it wins over                        |
//! | ---           | ---                                                | ---                                      |
//! | `exactlyOne`  | never two members; two that pass: nobody new       | all others: no tier, failback, flapping or number brings a second one in |
//! | `minHealthy`  | with fewer healthy ones, published ones stay       | maintenance, flapping and health: the last ones of a Service are not taken out |
//! | maintenance   | takes a target out, as if it were Down             | health: it says nothing, whatever its checks say |
//! | flapping      | takes a target out until it was well for longer    | health; the last ones that are Up stay in |
//! | `priority`    | the lower tiers wait until those above are too weak | health: those that wait are Up         |
//!
//! Above all of them but maintenance stands a hold, in a freeze: what is published stays, and all else goes on (see `hold`).
//!
//! `minHealthy` never adds what is not published: with nothing there that could stay, a Service may be empty.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::health::State;
pub use policy::{Failback, MinHealthy, Policy};
pub use policy_note::PolicyNote;
use tiers::Tiers;

mod exactly_one;
mod freeze_hold;
mod min_healthy;
mod policy;
mod policy_note;
mod tiers;

/// A target as the cluster shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    pub ip: IpAddr,
    /// The DNS label of this replica in a headless Service.
    pub hostname: Option<String>,
}

/// The targets that a Service has or shall have: sorted, none twice. Many hold the same ones, so they are shared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members(Arc<[Member]>);

impl Members {
    pub fn iter(&self) -> std::slice::Iter<'_, Member> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.binary_search_by(|member| member.ip.cmp(&ip)).is_ok()
    }
}

impl Members {
    /// What makes these of `held`: `+10.0.0.3, -10.0.0.2`; empty if the addresses are the same.
    pub fn changes_from(&self, held: &Members) -> String {
        let added = self
            .iter()
            .filter(|member| !held.contains(member.ip))
            .map(|member| format!("+{}", member.ip));
        let removed = held
            .iter()
            .filter(|member| !self.contains(member.ip))
            .map(|member| format!("-{}", member.ip));
        added.chain(removed).collect::<Vec<_>>().join(", ")
    }
}

impl FromIterator<Member> for Members {
    fn from_iter<I: IntoIterator<Item = Member>>(members: I) -> Self {
        let mut members: Vec<Member> = members.into_iter().collect();
        members.sort();
        members.dedup_by(|b, a| a.ip == b.ip);
        Self(members.into())
    }
}

/// `10.0.0.1, 10.0.0.2`, or `none`.
impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (i, member) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{}", member.ip)?;
        }
        Ok(())
    }
}

/// What shall be done about one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Leave the cluster as it is.
    Keep(KeepReason),
    /// The Service shall have exactly these members.
    Publish(Members),
}

/// Why the cluster is left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeepReason {
    /// These targets have had no verdict yet, and the cluster did not show them at start.
    NoVerdictYet(Vec<IpAddr>),
    /// No target is up, and of these all verdicts have been inconclusive, for the reasons given.
    AllInconclusive(Vec<(IpAddr, String)>),
    /// What the cluster holds is not known yet.
    NotSynced,
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, targets): (_, Vec<String>) = match self {
            KeepReason::NoVerdictYet(targets) => {
                ("no verdict yet for", targets.iter().map(IpAddr::to_string).collect())
            }
            KeepReason::AllInconclusive(targets) => (
                "no target is up, and all verdicts are inconclusive for",
                targets.iter().map(|(ip, reason)| format!("{ip} ({reason})")).collect(),
            ),
            KeepReason::NotSynced => return f.write_str("the cluster has not been read yet"),
        };
        write!(f, "{what} {}", targets[..targets.len().min(MAX_LISTED)].join(", "))?;
        match targets.len().checked_sub(MAX_LISTED) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, " and {more} more"),
        }
    }
}

/// Targets that a reason names.
const MAX_LISTED: usize = 3;

/// One target of a database, as far as the decision goes.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub member: &'a Member,
    pub state: State,
    /// When it came into its state, or out of maintenance after that.
    pub since: Instant,
    /// Whether there has been any verdict.
    pub checked: bool,
    /// Whether the newest verdict that was not inconclusive was a Pass.
    pub passing: bool,
    /// When the newest Pass came.
    pub passed_at: Option<Instant>,
    /// From when on that is too old to say how the target is now; none for never.
    pub stale_at: Option<Instant>,
    /// Why the newest verdict was not a Pass.
    pub reason: Option<&'a str>,
    /// The tier; 0 is preferred.
    pub priority: u32,
    pub in_maintenance: bool,
    /// Until when it is out for flapping, if it is.
    pub suppressed_until: Option<Instant>,
    /// Whether it left so shortly before a freeze that it comes back.
    pub restored_by_freeze: bool,
}

impl Candidate<'_> {
    fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Whether it is no longer known how the target is: it has been tried in vain since.
    fn is_stale(&self, now: Instant) -> bool {
        self.stale_at.is_some_and(|stale_at| stale_at <= now)
    }

    /// Whether the target is known to pass now.
    fn passes(&self, now: Instant) -> bool {
        self.passing && !self.is_stale(now)
    }
}

/// A database, as far as the decision goes.
#[derive(Debug, Clone, Copy)]
pub struct Pool<'a> {
    pub targets: &'a [Candidate<'a>],
    pub policy: &'a Policy,
    /// When a person last asked for a failback.
    pub failback_requested_at: Option<Instant>,
    /// Whether nothing may be taken out, because so many targets fail together.
    pub holds_removals: bool,
}

/// What is decided, what the policy had to do with it, and when to decide anew although nothing else has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub plan: Plan,
    pub notes: Vec<PolicyNote>,
    pub reevaluate_at: Option<Instant>,
}

impl Decision {
    fn keep(why: KeepReason) -> Self {
        Self { plan: Plan::Keep(why), notes: Vec::new(), reevaluate_at: None }
    }
}

/// Which of the healthy ones are members.
#[derive(Default)]
struct Selection<'a> {
    members: Vec<Candidate<'a>>,
    note: Option<PolicyNote>,
    reevaluate_at: Option<Instant>,
}

/// Decides for one database, from all of its targets. `published` are the members that the cluster holds by a decision of
/// ours or held at first sight; none if it has not been seen.
pub fn decide(pool: &Pool, published: Option<&Members>, now: Instant) -> Decision {
    let up = match up(pool, published) {
        Ok(up) => up,
        Err(why) => return Decision::keep(why),
    };
    let none = Members::default();
    let published = published.unwrap_or(&none);
    let needed = needed_members(pool);
    let out = |target: &Candidate| target.suppressed_until.filter(|until| *until > now);
    let Selection { members: mut chosen, note, reevaluate_at: again } = if pool.policy.exactly_one {
        exactly_one::select(&up, published, now)
    } else {
        let (failback, asked) = (pool.policy.failback, pool.failback_requested_at);
        let tiers =
            Tiers { published, needed: needed.max(1), failback, failback_requested_at: asked, now };
        tiers.select(&not_suppressed(&up, needed.max(1), out))
    };
    let mut notes: Vec<PolicyNote> = note.into_iter().collect();
    notes.extend(degraded_tier_note(pool, &chosen));
    // What a hold brings back counts as if it had never left, or it would push out again what stays in its place.
    let returns = |target: &Candidate| {
        pool.holds_removals
            && !pool.policy.exactly_one
            && target.restored_by_freeze
            && !target.is_up()
    };
    let may_stay = |target: &Candidate| published.contains(target.member.ip) || returns(target);
    notes.extend(min_healthy::retain(&mut chosen, pool.targets, may_stay, needed));
    if pool.holds_removals {
        notes.extend(freeze_hold::retain(
            &mut chosen,
            pool.targets,
            published,
            pool.policy.exactly_one,
        ));
    }
    let members: Members = chosen.iter().map(|target| target.member.clone()).collect();
    if !pool.policy.exactly_one {
        notes.extend(flapping_note(&up, &members, out));
    }
    let again = again.into_iter().chain(up.iter().filter_map(out)).min();
    Decision { plan: Plan::Publish(members), notes, reevaluate_at: again }
}

/// The targets that are Up and not in maintenance, if that is all that needs to be known.
fn up<'a>(pool: &Pool<'a>, published: Option<&Members>) -> Result<Vec<Candidate<'a>>, KeepReason> {
    let asked = || pool.targets.iter().filter(|target| !target.in_maintenance);
    let unknown = |tried: bool| {
        asked().filter(move |target| target.state == State::Unknown && target.checked == tried)
    };
    let untried: Vec<IpAddr> = unknown(false).map(|target| target.member.ip).collect();
    if !untried.is_empty() {
        return Err(KeepReason::NoVerdictYet(untried));
    }
    let published = published.ok_or(KeepReason::NotSynced)?;
    let up: Vec<_> = asked().filter(|target| target.is_up()).copied().collect();
    let inconclusive: Vec<_> = unknown(true)
        .map(|target| (target.member.ip, target.reason.unwrap_or_default().to_owned()))
        .collect();
    if up.is_empty() && !inconclusive.is_empty() {
        return Err(KeepReason::AllInconclusive(inconclusive));
    }
    // Of several published ones only one may stay, and which one their checks must tell.
    let rivals = || up.iter().filter(|target| published.contains(target.member.ip));
    if pool.policy.exactly_one && rivals().count() > 1 && rivals().any(|target| !target.checked) {
        return Err(KeepReason::NoVerdictYet(
            rivals().filter(|target| !target.checked).map(|target| target.member.ip).collect(),
        ));
    }
    Ok(up)
}

/// How many healthy members the policy asks for.
fn needed_members(pool: &Pool) -> usize {
    let preferred = pool.targets.iter().map(|target| target.priority).min();
    let preferred = pool.targets.iter().filter(|target| Some(target.priority) == preferred).count();
    let needed = pool.policy.min_healthy.to_count(preferred);
    if pool.policy.exactly_one { needed.min(1) } else { needed }
}

/// Those of the targets that are not out for flapping, and as many of the others as it takes to have enough: of these, those
/// that have been well for longest.
fn not_suppressed<'a>(
    up: &[Candidate<'a>],
    enough: usize,
    out: impl Fn(&Candidate) -> Option<Instant>,
) -> Vec<Candidate<'a>> {
    let (mut flapping, mut steady): (Vec<Candidate>, Vec<Candidate>) =
        up.iter().copied().partition(|target| out(target).is_some());
    flapping.sort_by_key(|target| (target.since, target.member.ip));
    flapping.truncate(enough.saturating_sub(steady.len()));
    steady.extend(flapping);
    steady
}

fn flapping_note(
    up: &[Candidate],
    members: &Members,
    out: impl Fn(&Candidate) -> Option<Instant>,
) -> Option<PolicyNote> {
    let held = || {
        up.iter()
            .filter(|target| !members.contains(target.member.ip))
            .filter(|target| out(target).is_some())
    };
    let until = held().filter_map(&out).min()?;
    let mut out: Vec<IpAddr> = held().map(|target| target.member.ip).collect();
    out.sort();
    Some(PolicyNote::Flapping { out, until })
}

/// Tells when the healthy members are not those of the preferred tier alone.
fn degraded_tier_note(pool: &Pool, chosen: &[Candidate]) -> Option<PolicyNote> {
    let preferred = pool.targets.iter().map(|target| target.priority).min()?;
    let tier = chosen.iter().map(|target| target.priority).max()?;
    (tier > preferred && !pool.policy.exactly_one).then_some(PolicyNote::DegradedTier { tier })
}

#[cfg(test)]
mod tests;
