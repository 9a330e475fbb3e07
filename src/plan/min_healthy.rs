//! `minHealthy`: below it, the most recently healthy published targets stay, so that no check
//! empties a Service.

use std::cmp::Reverse;
use std::time::Instant;

use super::{Candidate, PolicyNote};

/// Adds targets that `may_stay` to the healthy `members`, up to `needed`.
///
/// Targets that are Up come first: they are out for another reason, such as maintenance, and
/// answer. The others follow, the most recently healthy ones first, and those in maintenance last.
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

/// Returns the rank of a target: the lowest stays first.
pub(super) fn rank<'a>(
    target: &Candidate<'a>,
) -> (u8, Option<Reverse<Instant>>, u32, &'a super::Member) {
    let class = match (target.is_up(), target.in_maintenance) {
        (true, _) => 0,
        (false, false) => 1,
        (false, true) => 2,
    };
    // A target that is Down was healthy until it went Down.
    (class, (!target.is_up()).then_some(Reverse(target.since)), target.priority, target.member)
}
