//! The hold of a freeze: so many targets fail together that the fault is probably on this side, so
//! nothing that is published is removed.
//!
//! | policy         | members besides the selected ones                                  |
//! | ---            | ---                                                                |
//! | not exactlyOne | all that are published or restored by the freeze                   |
//! | `exactlyOne`   | none if one is selected; else a published one; else a restored one |
//!
//! A single writer that passes shows that this side works, so it is no case for a hold.
//!
//! Maintenance is an explicit request, and removes a target all the same. Only `minHealthy`, which
//! is applied before, may keep it.

use super::min_healthy::rank;
use super::{Candidate, Members, Policy, PolicyNote};

/// Adds the targets that stay to `members`.
pub(super) fn retain<'a>(
    members: &mut Vec<Candidate<'a>>,
    targets: &[Candidate<'a>],
    published: &Members,
    policy: &Policy,
) -> Option<PolicyNote> {
    let exactly_one = policy.exactly_one;
    if exactly_one && !members.is_empty() {
        return None;
    }
    let is_member =
        |target: &Candidate| members.iter().any(|member| member.member.ip == target.member.ip);
    let is_published = |target: &Candidate| published.contains(target.member.ip);
    let claimed =
        exactly_one && targets.iter().any(|target| target.is_up() && !target.in_maintenance);
    let comes_back = |target: &Candidate| target.restored_by_freeze && !target.is_up() && !claimed;
    let stays = |target: &&Candidate| {
        !target.in_maintenance && (is_published(target) || comes_back(target))
    };
    let mut rest: Vec<_> =
        targets.iter().filter(|target| stays(target) && !is_member(target)).copied().collect();
    if exactly_one {
        rest.sort_by_key(|target| (!is_published(target), rank(target)));
        rest.truncate(1);
    }
    let mut kept: Vec<_> = rest.iter().map(|target| target.member.ip).collect();
    kept.sort();
    members.extend(rest);
    (!kept.is_empty()).then_some(PolicyNote::KeptByFreeze { kept })
}
