//! The membership of each target: the rule that puts it into the plan, or that keeps it out.
//!
//! The first row that fits counts.
//!
//! | plan | target | membership |
//! | --- | --- | --- |
//! | keep | any | `Undecided` |
//! | in | stays for `minHealthy` | `KeptByMinHealthy` |
//! | in | stays in a freeze | `KeptByFreeze` |
//! | in | departing or adopted | `NotReplaced` |
//! | in | suppressed for flapping, but needed | `NeededDespiteFlapping` |
//! | in | of a tier below the preferred one | `LowerTierServes` |
//! | in | any other | `Healthy` |
//! | out | in maintenance | `Maintenance` |
//! | out | by DNS, after the first decision, unchecked | `NotChecked` |
//! | out | departing and unchecked | `NoLongerGiven` |
//! | out | another has taken its place by DNS | `Replaced` |
//! | out | Down | `Down` |
//! | out | Unknown | `NoVerdict` |
//! | out, `exactlyOne` | passes, in a split brain | `SplitBrain` |
//! | out, `exactlyOne` | another is in | `OtherWriter` |
//! | out, `exactlyOne` | none is in | `SeveralClaim` |
//! | out | suppressed for flapping | `Flapping` |
//! | out | of a tier that waits for its failback | `FailbackWaits` |
//! | out | of a tier above those that serve | `TierTooWeak` |
//! | out | any other: of a lower tier | `LowerTier` |

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use super::standing::Standing;
use super::{Candidate, Members, Plan, PolicyNote, Pool, needed_members, preferred_tier};
use crate::health::State;
use crate::names::Backing;

/// The rule that puts a target into the plan, or that keeps it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the variants describe their fields")]
pub enum Membership {
    /// Nothing is decided yet, so the cluster stays as it is.
    #[default]
    Undecided,
    /// In: it is Up.
    Healthy,
    /// In: it is Up, and the tiers above are too weak or may not return yet. This is the preferred
    /// one.
    LowerTierServes { preferred: u32 },
    /// In: it is suppressed for flapping until this time, but without it too few are left.
    NeededDespiteFlapping { until: Instant },
    /// In: DNS no longer gives it, or has not given it yet, but none takes its place.
    NotReplaced,
    /// In: it is not healthy, but it stays as fewer are healthy than `minHealthy` asks for.
    KeptByMinHealthy { healthy: usize, needed: usize },
    /// In: it should leave, but a freeze holds it.
    KeptByFreeze,
    /// Out: it is in maintenance.
    Maintenance,
    /// Out: it came by DNS and has had no verdict yet.
    NotChecked,
    /// Out: DNS no longer gives it, and it has had no verdict yet.
    NoLongerGiven,
    /// Out: another has taken its place by DNS.
    Replaced,
    /// Out: it is Down.
    Down,
    /// Out: all of its verdicts are inconclusive.
    NoVerdict,
    /// Out: more than one target of an `exactlyOne` database passes.
    SplitBrain,
    /// Out: it is Up, but this one is published, of which there may be one only.
    OtherWriter { writer: IpAddr },
    /// Out: it is Up beside others of an `exactlyOne` database, and none of them is published.
    SeveralClaim,
    /// Out: it is suppressed for flapping until this time.
    Flapping { until: Instant },
    /// Out: its tier is strong enough again, and takes over from this one at this time; if it is
    /// none, on request.
    FailbackWaits { serving: u32, until: Option<Instant> },
    /// Out: down to its tier, fewer are healthy than are needed, and this tier serves meanwhile.
    TierTooWeak { healthy: usize, needed: usize, serving: u32 },
    /// Out: a preferred tier serves, or will after its failback; this one.
    LowerTier { behind: u32 },
}

impl Membership {
    /// Returns whether the plan has the target; none if nothing is decided.
    pub fn is_in(&self) -> Option<bool> {
        match self {
            Membership::Undecided => None,
            Membership::Healthy
            | Membership::LowerTierServes { .. }
            | Membership::NeededDespiteFlapping { .. }
            | Membership::NotReplaced
            | Membership::KeptByMinHealthy { .. }
            | Membership::KeptByFreeze => Some(true),
            Membership::Maintenance
            | Membership::NotChecked
            | Membership::NoLongerGiven
            | Membership::Replaced
            | Membership::Down
            | Membership::NoVerdict
            | Membership::SplitBrain
            | Membership::OtherWriter { .. }
            | Membership::SeveralClaim
            | Membership::Flapping { .. }
            | Membership::FailbackWaits { .. }
            | Membership::TierTooWeak { .. }
            | Membership::LowerTier { .. } => Some(false),
        }
    }

    /// Returns the word for programs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Membership::Undecided => "undecided",
            Membership::Healthy => "healthy",
            Membership::LowerTierServes { .. } => "lowerTierServes",
            Membership::NeededDespiteFlapping { .. } => "neededDespiteFlapping",
            Membership::NotReplaced => "notReplaced",
            Membership::KeptByMinHealthy { .. } => "keptByMinHealthy",
            Membership::KeptByFreeze => "keptByFreeze",
            Membership::Maintenance => "maintenance",
            Membership::NotChecked => "notChecked",
            Membership::NoLongerGiven => "noLongerGiven",
            Membership::Replaced => "replaced",
            Membership::Down => "down",
            Membership::NoVerdict => "noVerdict",
            Membership::SplitBrain => "splitBrain",
            Membership::OtherWriter { .. } => "otherWriter",
            Membership::SeveralClaim => "severalClaim",
            Membership::Flapping { .. } => "flapping",
            Membership::FailbackWaits { .. } => "failbackWaits",
            Membership::TierTooWeak { .. } => "tierTooWeak",
            Membership::LowerTier { .. } => "lowerTier",
        }
    }
}

/// Returns the membership of each target of a pool, in its order.
pub(super) fn of_targets(
    pool: &Pool,
    standing: &Standing,
    (plan, notes): (&Plan, &[PolicyNote]),
    now: Instant,
) -> Vec<Membership> {
    let Plan::Publish(members) = plan else {
        return vec![Membership::Undecided; pool.targets.len()];
    };
    let counted = Pool { targets: &standing.targets, ..*pool };
    let facts = Facts::new(&counted, standing, members, notes, now);
    // Both hold some of the targets of the pool, in its order.
    let mut counted = standing.targets.iter().peekable();
    let mut late = standing.late_arrivals.iter().peekable();
    let of_target = |target: &Candidate| {
        let is_same = |other: &&Candidate| other.member.ip == target.member.ip;
        if let Some(standing) = counted.next_if(is_same) {
            return facts.membership(standing, target);
        }
        let is_late = late.next_if(is_same).is_some();
        match target.in_maintenance {
            true => Membership::Maintenance,
            false if is_late => Membership::NotChecked,
            false => Membership::NoLongerGiven,
        }
    };
    pool.targets.iter().map(of_target).collect()
}

/// The facts of a decision that the memberships follow from.
struct Facts<'a> {
    pool: &'a Pool<'a>,
    members: &'a Members,
    kept_by_min_healthy: BTreeSet<IpAddr>,
    kept_by_freeze: BTreeSet<IpAddr>,
    replaced: BTreeSet<IpAddr>,
    split: BTreeSet<IpAddr>,
    healthy: usize,
    needed: usize,
    /// The lowest tier of the members that no rule keeps.
    serving: u32,
    preferred: u32,
    /// The tier that waits for its failback, with the time.
    failback: Option<(u32, Option<Instant>)>,
    now: Instant,
}

impl<'a> Facts<'a> {
    fn new(
        pool: &'a Pool,
        standing: &Standing,
        members: &'a Members,
        notes: &[PolicyNote],
        now: Instant,
    ) -> Self {
        let preferred = preferred_tier(pool).unwrap_or_default();
        let mut facts = Self {
            pool,
            members,
            kept_by_min_healthy: BTreeSet::new(),
            kept_by_freeze: BTreeSet::new(),
            replaced: standing.out.iter().copied().collect(),
            split: BTreeSet::new(),
            healthy: 0,
            needed: needed_members(pool, &standing.late_arrivals),
            serving: preferred,
            preferred,
            failback: None,
            now,
        };
        for note in notes {
            match note {
                PolicyNote::BelowMinHealthy { healthy, kept, .. } => {
                    facts.healthy = *healthy;
                    facts.kept_by_min_healthy = kept.iter().copied().collect();
                }
                PolicyNote::KeptByFreeze { kept } => {
                    facts.kept_by_freeze = kept.iter().copied().collect();
                }
                PolicyNote::SplitBrain { passing, .. } => {
                    facts.split = passing.iter().copied().collect();
                }
                PolicyNote::FailbackWaits { tier, until } => {
                    facts.failback = Some((*tier, *until));
                }
                _ => {}
            }
        }
        let serves = |target: &&Candidate| {
            let ip = target.member.ip;
            let is_kept = facts.kept_by_min_healthy.contains(&ip);
            members.contains(ip) && !is_kept && !facts.kept_by_freeze.contains(&ip)
        };
        let serving = pool.targets.iter().filter(serves).map(|target| target.priority).max();
        facts.serving = serving.unwrap_or(preferred);
        facts
    }

    fn suppressed_until(&self, target: &Candidate) -> Option<Instant> {
        target.suppressed_until.filter(|until| *until > self.now)
    }

    /// Returns the membership of a target that counts. `asked` is the same target as people asked
    /// for it: one that is replaced counts as in maintenance, too.
    fn membership(&self, target: &Candidate, asked: &Candidate) -> Membership {
        let ip = target.member.ip;
        if self.members.contains(ip) {
            return self.inside(target);
        }
        match target.state {
            _ if asked.in_maintenance => Membership::Maintenance,
            _ if self.replaced.contains(&ip) => Membership::Replaced,
            State::Down => Membership::Down,
            State::Unknown => Membership::NoVerdict,
            State::Up if self.pool.policy.exactly_one => self.second_writer(ip),
            State::Up => self.outside(target),
        }
    }

    fn inside(&self, target: &Candidate) -> Membership {
        let Facts { healthy, needed, preferred, .. } = *self;
        let exactly_one = self.pool.policy.exactly_one;
        let ip = target.member.ip;
        if self.kept_by_min_healthy.contains(&ip) {
            return Membership::KeptByMinHealthy { healthy, needed };
        }
        if self.kept_by_freeze.contains(&ip) {
            return Membership::KeptByFreeze;
        }
        match (target.backing, self.suppressed_until(target)) {
            (Backing::Departing | Backing::Adopted, _) => Membership::NotReplaced,
            (_, Some(until)) if !exactly_one => Membership::NeededDespiteFlapping { until },
            _ if target.priority > preferred && !exactly_one => {
                Membership::LowerTierServes { preferred }
            }
            _ => Membership::Healthy,
        }
    }

    fn second_writer(&self, ip: IpAddr) -> Membership {
        match self.members.iter().next() {
            _ if self.split.contains(&ip) => Membership::SplitBrain,
            Some(writer) => Membership::OtherWriter { writer: writer.ip },
            None => Membership::SeveralClaim,
        }
    }

    /// Returns the membership of a target that is Up and out, without `exactlyOne`.
    fn outside(&self, target: &Candidate) -> Membership {
        let (tier, serving, needed) = (target.priority, self.serving, self.needed.max(1));
        if let Some(until) = self.suppressed_until(target) {
            return Membership::Flapping { until };
        }
        match self.failback {
            Some((preferred, until)) if tier <= preferred => {
                Membership::FailbackWaits { serving, until }
            }
            None if tier < serving => {
                let is_strong = |other: &&Candidate| {
                    other.priority <= tier && self.suppressed_until(other).is_none()
                };
                let healthy = self.pool.up().filter(is_strong).count();
                Membership::TierTooWeak { healthy, needed, serving }
            }
            Some((preferred, _)) if tier < serving => Membership::LowerTier { behind: preferred },
            _ => Membership::LowerTier { behind: serving },
        }
    }
}
