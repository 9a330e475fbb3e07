//! The decision for one database: which of its targets its Service shall have. Pure.
//!
//! | targets that are not in maintenance      | plan                                             |
//! | ---                                      | ---                                              |
//! | any Unknown and not checked yet          | keep: an early guess could remove a good address |
//! | any, but the cluster is not synced       | keep: published targets are Up until disproved   |
//! | none Up, and any Unknown after all tries | keep: ignorance must not remove the last address |
//! | all others                               | publish those that are Up, as the policy allows  |
//!
//! Names keep the cluster as it is, too:
//!
//! | names | plan |
//! | --- | --- |
//! | any not asked yet | keep: its answer may have what is published |
//! | none resolved, no other address, nothing published | keep: there is nothing to decide about |
//! | one gave addresses since, all unchecked; no member else | keep, but not for long |
//!
//! A target that DNS no longer gives leaves only in exchange for another (see `standing`).
//!
//! Where several rules of a policy apply, the upper one wins:
//!
//! | rule | effect | wins over |
//! | --- | --- | --- |
//! | `exactlyOne` | never two members; if two pass, no new one | all others: none adds a second |
//! | `minHealthy` | with fewer healthy ones, published ones stay | all below |
//! | DNS | removes a target whose successor is Up | all below |
//! | maintenance | removes a target as if it were Down | all below |
//! | freeze | published ones stay (see `freeze_hold`) | all below |
//! | flapping | removes a target until it is Up for longer | health, but the last ones stay |
//! | `priority` | lower tiers wait until upper ones are weak | health: those that wait are Up |
//!
//! `minHealthy` never adds a target that is not published, so a Service without any may be empty.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::health::State;
use crate::names::{Backing, NameState};
pub use keep_reason::KeepReason;
pub use membership::Membership;
pub use policy::{Failback, MinHealthy, Policy};
pub(crate) use policy_note::list_ips;
pub use policy_note::{NotReplacedReason, PolicyNote};
use standing::Standing;
use tiers::Tiers;

mod exactly_one;
mod freeze_hold;
mod keep_reason;
mod membership;
mod min_healthy;
mod not_replaced;
mod policy;
mod policy_note;
mod standing;
mod tiers;

/// A target as it stands in a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// The IP that clients are sent to.
    pub ip: IpAddr,
    /// The DNS label of this replica in a headless Service.
    pub hostname: Option<String>,
}

/// The targets that a Service has or shall have: sorted, without duplicates, and cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members(Arc<[Member]>);

impl Members {
    /// Returns the members in order of their address.
    pub fn iter(&self) -> std::slice::Iter<'_, Member> {
        self.0.iter()
    }

    /// Returns the number of members.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether this address is a member.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.binary_search_by(|member| member.ip.cmp(&ip)).is_ok()
    }

    /// Returns the difference to `existing`: `+10.0.0.3, -10.0.0.2`; empty if the addresses are the
    /// same.
    pub fn changes_from(&self, existing: &Members) -> String {
        let added = self
            .iter()
            .filter(|member| !existing.contains(member.ip))
            .map(|member| format!("+{}", member.ip));
        let removed = existing
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

/// The decision for one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Leave the cluster as it is.
    Keep(KeepReason),
    /// The Service shall have exactly these members.
    Publish(Members),
}

/// One target of a database, with all that a decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The target as it would stand in the Service.
    pub member: &'a Member,
    /// The state of its health.
    pub state: State,
    /// The time at which it came into its state, or out of maintenance after that.
    pub since: Instant,
    /// True if there has been any verdict.
    pub checked: bool,
    /// True if the newest conclusive verdict was a Pass.
    pub passing: bool,
    /// The time of the newest Pass.
    pub passed_at: Option<Instant>,
    /// The time from which on the newest conclusive verdict is too old to count; none for never.
    pub stale_at: Option<Instant>,
    /// The reason of the newest verdict, if it was not a Pass.
    pub reason: Option<&'a str>,
    /// The tier; 0 is preferred.
    pub priority: u32,
    /// True while an annotation of the Service puts it in maintenance.
    pub in_maintenance: bool,
    /// The end of its suppression for flapping, if it is suppressed.
    pub suppressed_until: Option<Instant>,
    /// The way in which the names of the database stand behind it; current for an IP of the config.
    /// Of several names the order is current, departing, released.
    pub backing: Backing,
    /// True if it came by DNS after the first decision. While unchecked, such a target holds up no
    /// decision but one that would leave no member.
    pub is_late_arrival: bool,
    /// True if it left so shortly before a freeze that the freeze brings it back.
    pub restored_by_freeze: bool,
}

impl Candidate<'_> {
    fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Returns whether the target has been tried without a conclusive verdict for too long.
    fn is_stale(&self, now: Instant) -> bool {
        self.stale_at.is_some_and(|stale_at| stale_at <= now)
    }

    /// Returns whether the target passes, by a verdict that is not stale.
    fn passes(&self, now: Instant) -> bool {
        self.passing && !self.is_stale(now)
    }
}

/// A database, with all that a decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Pool<'a> {
    /// All targets of the database.
    pub targets: &'a [Candidate<'a>],
    /// The policy of the database.
    pub policy: &'a Policy,
    /// The time of the last request for a failback.
    pub failback_requested_at: Option<Instant>,
    /// True if a freeze holds back all removals.
    pub holds_removals: bool,
    /// The names of the database.
    pub names: &'a [NameFacts<'a>],
    /// True while targets that came by DNS and are not checked yet may hold up a decision that
    /// would leave no member. This ends, so that a name with another address at each answer does
    /// not keep a dead one in.
    pub late_arrivals_hold_empty: bool,
}

/// A name of the database, as far as a decision depends on it.
#[derive(Debug, Clone, Copy)]
pub struct NameFacts<'a> {
    /// The name.
    pub name: &'a str,
    /// The tier of its addresses; the preferred one, if they have several.
    pub priority: u32,
    /// The answers.
    pub state: &'a NameState,
}

impl<'a> Pool<'a> {
    /// Returns the targets that are not in maintenance.
    fn available(&self) -> impl Iterator<Item = &'a Candidate<'a>> + use<'a> {
        self.targets.iter().filter(|target| !target.in_maintenance)
    }

    /// Returns those of them that are Up.
    fn up(&self) -> impl Iterator<Item = &'a Candidate<'a>> + use<'a> {
        self.available().filter(|target| target.is_up())
    }
}

/// The plan, the effects of the policy on it, and the time at which to decide anew although nothing
/// else has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The plan.
    pub plan: Plan,
    /// The effects of the policy on the plan.
    pub notes: Vec<PolicyNote>,
    /// The time at which the plan can change without a new verdict.
    pub reevaluate_at: Option<Instant>,
    /// The targets that the plan leaves out because others take their place, and those that were
    /// released before. Once the plan is carried out, they are released.
    pub exchanged: Vec<IpAddr>,
    /// The membership of each target of the pool, in its order.
    pub memberships: Vec<Membership>,
}

impl Decision {
    fn keep(why: KeepReason) -> Self {
        Self {
            plan: Plan::Keep(why),
            notes: Vec::new(),
            reevaluate_at: None,
            exchanged: Vec::new(),
            memberships: Vec::new(),
        }
    }
}

/// The healthy targets that are chosen as members.
#[derive(Default)]
struct Selection<'a> {
    members: Vec<Candidate<'a>>,
    note: Option<PolicyNote>,
    reevaluate_at: Option<Instant>,
}

/// Decides for one database. `published` are the members that the cluster held when it was first
/// read, or holds by a decision; none if it has not been read.
pub fn decide(pool: &Pool, published: Option<&Members>, now: Instant) -> Decision {
    let none = Members::default();
    let standing = Standing::of(pool, published.unwrap_or(&none), now);
    let mut decision = decide_standing(pool, &standing, published, now);
    let outcome = (&decision.plan, decision.notes.as_slice());
    decision.memberships = membership::of_targets(pool, &standing, outcome, now);
    decision
}

/// Decides on the targets of a pool by their standing.
fn decide_standing(
    pool: &Pool,
    standing: &Standing,
    published: Option<&Members>,
    now: Instant,
) -> Decision {
    let counted = &Pool { targets: &standing.targets, ..*pool };
    if let Some(reason) = keep_reason(counted, standing, published) {
        return Decision::keep(reason);
    }
    let published = published.cloned().unwrap_or_default();
    let mut decision = select(counted, standing, &published, now);
    let Plan::Publish(members) = &decision.plan else { return decision };
    let untried = standing.untried();
    if members.is_empty() && !untried.is_empty() && pool.late_arrivals_hold_empty {
        return Decision::keep(KeepReason::NoVerdictYet(untried));
    }
    decision.notes.extend(not_replaced::notes(pool, standing, members));
    let out = standing.out.iter().copied();
    decision.exchanged = out.filter(|ip| !members.contains(*ip)).collect();
    decision
}

/// Selects the members by the policy.
fn select(pool: &Pool, standing: &Standing, published: &Members, now: Instant) -> Decision {
    let up: Vec<Candidate> = pool.up().copied().collect();
    let needed = needed_members(pool, &standing.late_arrivals);
    let inherited = &standing.inherited;
    let out = |target: &Candidate| target.suppressed_until.filter(|end| *end > now);
    let Selection { members: mut chosen, note, reevaluate_at } = if pool.policy.exactly_one {
        exactly_one::select(&up, inherited, now)
    } else {
        let (failback, failback_requested_at) = (pool.policy.failback, pool.failback_requested_at);
        let (published, needed) = (inherited, needed.max(1));
        let tiers = Tiers { published, needed, failback, failback_requested_at, now };
        tiers.select(&not_suppressed(&up, needed, out))
    };
    let mut notes: Vec<PolicyNote> = note.into_iter().collect();
    exactly_one::name_both_families(&mut notes, pool.names);
    notes.extend(degraded_tier_note(pool, &chosen));
    // A target that a freeze restores counts as if it had never left. Otherwise it would replace
    // one that stays for `minHealthy`.
    let returns = |target: &Candidate| {
        pool.holds_removals
            && !pool.policy.exactly_one
            && target.restored_by_freeze
            && !target.is_up()
    };
    let may_stay = |target: &Candidate| published.contains(target.member.ip) || returns(target);
    notes.extend(min_healthy::retain(&mut chosen, pool.targets, may_stay, needed));
    if pool.holds_removals {
        notes.extend(freeze_hold::retain(&mut chosen, pool.targets, published, pool.policy));
    }
    let members: Members = chosen.iter().map(|target| target.member.clone()).collect();
    if !pool.policy.exactly_one {
        notes.extend(flapping_note(&up, &members, out));
    }
    let reevaluate_at = reevaluate_at.into_iter().chain(up.iter().filter_map(out)).min();
    let plan = Plan::Publish(members);
    let (exchanged, memberships) = (Vec::new(), Vec::new());
    Decision { plan, notes, reevaluate_at, exchanged, memberships }
}

/// Returns the reason to keep the cluster as it is, if too little is known for a decision.
fn keep_reason(
    pool: &Pool,
    standing: &Standing,
    published: Option<&Members>,
) -> Option<KeepReason> {
    let names_that = |is: fn(&NameState) -> bool| {
        let names = pool.names.iter().filter(move |name| is(name.state));
        names.map(|name| name.name.to_owned()).collect::<Vec<String>>()
    };
    // Which of the published members are adopted is known once the cluster has been read.
    if published.is_none() && !pool.names.is_empty() {
        return Some(KeepReason::NotSynced);
    }
    let not_asked = names_that(|name| !name.was_asked());
    if !not_asked.is_empty() {
        return Some(KeepReason::NoAnswerYet(not_asked));
    }
    let unknown = |checked: bool| {
        pool.available()
            .filter(move |target| target.state == State::Unknown && target.checked == checked)
    };
    let unchecked: Vec<IpAddr> = unknown(false).map(|target| target.member.ip).collect();
    if !unchecked.is_empty() {
        return Some(KeepReason::NoVerdictYet(unchecked));
    }
    let Some(published) = published else { return Some(KeepReason::NotSynced) };
    let has_no_target = pool.targets.is_empty() && standing.late_arrivals.is_empty();
    let unresolved = names_that(|name| !name.has_resolved());
    let none_resolved = !unresolved.is_empty() && unresolved.len() == pool.names.len();
    if none_resolved && has_no_target {
        return Some(KeepReason::NamesUnresolved(unresolved));
    }
    let inconclusive: Vec<_> = unknown(true)
        .map(|target| (target.member.ip, target.reason.unwrap_or_default().to_owned()))
        .collect();
    if pool.up().next().is_none() && !inconclusive.is_empty() {
        return Some(KeepReason::AllInconclusive(inconclusive));
    }
    // Of several published targets only one may stay, and only their checks can show which one.
    let rivals = || pool.up().filter(|target| published.contains(target.member.ip));
    if pool.policy.exactly_one && rivals().count() > 1 && rivals().any(|target| !target.checked) {
        return Some(KeepReason::NoVerdictYet(
            rivals().filter(|target| !target.checked).map(|target| target.member.ip).collect(),
        ));
    }
    None
}

/// Returns the number of healthy members that the policy requires. A percentage is of the targets
/// that DNS gives or has not given up.
fn needed_members(pool: &Pool, late_arrivals: &[Candidate]) -> usize {
    let backed = pool
        .targets
        .iter()
        .filter(|target| matches!(target.backing, Backing::Current | Backing::Adopted));
    let backed = backed.chain(late_arrivals);
    let preferred = preferred_tier(pool);
    let preferred = backed.filter(|target| Some(target.priority) == preferred).count();
    let needed = pool.policy.min_healthy.to_count(preferred);
    if pool.policy.exactly_one { needed.min(1) } else { needed }
}

/// Returns the preferred tier. It is that of a name even while the name has no address.
fn preferred_tier(pool: &Pool) -> Option<u32> {
    let of_targets = pool.targets.iter().map(|target| target.priority);
    of_targets.chain(pool.names.iter().map(|name| name.priority)).min()
}

/// Returns the targets that are not suppressed for flapping. If these are not enough, adds those of
/// the others that have been Up for longest.
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

/// Returns a note if suppressed targets are left out.
fn flapping_note(
    up: &[Candidate],
    members: &Members,
    out: impl Fn(&Candidate) -> Option<Instant>,
) -> Option<PolicyNote> {
    let suppressed = || {
        up.iter()
            .filter(|target| !members.contains(target.member.ip))
            .filter(|target| out(target).is_some())
    };
    let until = suppressed().filter_map(&out).min()?;
    let mut out: Vec<IpAddr> = suppressed().map(|target| target.member.ip).collect();
    out.sort();
    Some(PolicyNote::Flapping { out, until })
}

/// Returns a note if a tier below the preferred one serves.
fn degraded_tier_note(pool: &Pool, chosen: &[Candidate]) -> Option<PolicyNote> {
    let preferred = preferred_tier(pool)?;
    let tier = chosen.iter().map(|target| target.priority).max()?;
    (tier > preferred && !pool.policy.exactly_one).then_some(PolicyNote::DegradedTier { tier })
}

#[cfg(test)]
mod tests;
