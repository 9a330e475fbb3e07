//! `minHealthy`: below it, the most recently healthy published targets stay, so that no check
//! empties a Service.

use std::cmp::Reverse;
use std::time::Instant;

use super::{Candidate, PolicyNote};
use crate::names::Backing;

/// Adds targets that `may_stay` to the healthy `members`, up to `needed`.
///
/// Targets that are Up come first: they are out for another reason, such as maintenance, and
/// answer. The others follow, the most recently healthy ones first, and then those in maintenance.
/// Those whose place another has taken are last: those that are Up, for the longest time first, and
/// then the others.
pub(super) fn retain<'a>(
    members: &mut Vec<Candidate<'a>>,
    targets: &[Candidate<'a>],
    may_stay: impl Fn(&Candidate) -> bool,
    needed: usize,
) -> Option<PolicyNote> {
    let healthy = members.len();
    let missing = needed.checked_sub(healthy).filter(|missing| *missing > 0)?;
    let is_member =
        |target: &Candidate| members.iter().any(|member| member.member.ip == target.member.ip);
    let mut rest: Vec<_> =
        targets.iter().filter(|target| may_stay(target) && !is_member(target)).copied().collect();
    rest.sort_by_key(rank);
    rest.truncate(missing);
    let kept = rest.iter().map(|target| target.member.ip).collect();
    members.extend(rest);
    Some(PolicyNote::BelowMinHealthy { healthy, needed, kept })
}

/// The rank of a target.
type Rank<'a> = (u8, Option<Reverse<Instant>>, Option<Instant>, u32, &'a super::Member);

/// Returns the rank of a target: the lowest stays first.
pub(super) fn rank<'a>(target: &Candidate<'a>) -> Rank<'a> {
    let is_released = target.backing == Backing::Released;
    let class = match (target.is_up(), target.in_maintenance) {
        (true, _) if is_released => 3,
        (false, _) if is_released => 4,
        (true, _) => 0,
        (false, false) => 1,
        (false, true) => 2,
    };
    // A target that is Down was healthy until it went Down.
    let healthy_until = (!target.is_up()).then_some(Reverse(target.since));
    let healthy_since = (class == 3).then_some(target.since);
    (class, healthy_until, healthy_since, target.priority, target.member)
}
