//! The choice of an `exactlyOne` database: a writer, of which no two may ever be published together.
//!
//! | published and Up | others Up    | members                                                     |
//! | ---              | ---          | ---                                                         |
//! | one              | none         | that one, also if it is stale                               |
//! | one              | some         | that one; a split brain if two pass, be it among them or not |
//! | one, stale       | a successor  | the successor: the old one and the new one change in one write |
//! | several          | any          | of those that pass, the one with the lowest priority, then IP |
//! | none             | one          | that one: the old one and the new one change in one write   |
//! | none             | several      | none, till one is Up alone; a split brain if two pass       |
//! | none             | several, of which one is a successor of all others | the successor            |
//! | none             | none         | none                                                        |
//!
//! Up is what the thresholds have confirmed; an Up target whose newest verdict is a failure does not pass. So while the old
//! writer fails and is not yet Down, the new one waits, and nobody calls that a split brain.
//!
//! A target is *stale* when its tries have said nothing for some intervals. It passes no more, so that it makes no split
//! brain; but it is not Down either, and is not taken out for that alone. Its *successor* is a target that passes, and came
//! Up after the stale one had passed for the last time: only a writer passes, so the place has changed hands meanwhile.
//! One that was Up beside it already claimed its place before, and that the other can't be tried any more proves nothing.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::Instant;

use super::{Candidate, Members, PolicyNote, Selection};

/// Chooses from the targets that are Up.
pub(super) fn select<'a>(up: &[Candidate<'a>], published: &Members, now: Instant) -> Selection<'a> {
    let stays = up.iter().filter(|target| published.contains(target.member.ip));
    let stays = stays
        .max_by_key(|target| (target.passes(now), Reverse((target.priority, target.member.ip))))
        .copied();
    let alone = if let [alone] = up { Some(*alone) } else { successor(up, now) };
    let passing = up.iter().filter(|target| target.passes(now));
    let mut passing: Vec<IpAddr> = passing.map(|target| target.member.ip).collect();
    passing.sort();
    let split = passing.len() > 1;
    let chosen = alone.or(stays);
    let published = stays.map(|target| target.member.ip);
    Selection {
        members: chosen.into_iter().collect(),
        note: split.then_some(PolicyNote::SplitBrain { passing, published }),
        reevaluate_at: next_stale(up, now),
    }
}

/// The one that passes, if it took over from all others.
fn successor<'a>(up: &[Candidate<'a>], now: Instant) -> Option<Candidate<'a>> {
    let mut passing = up.iter().filter(|target| target.passes(now));
    let (Some(new), None) = (passing.next(), passing.next()) else { return None };
    let others = up.iter().filter(|target| target.member.ip != new.member.ip);
    let gave_way = |old: &Candidate| {
        old.is_stale(now) && old.passed_at.is_none_or(|passed_at| passed_at <= new.since)
    };
    others.copied().all(|old| gave_way(&old)).then_some(*new)
}

/// When the next of several becomes stale unless it is tried with success before, which may change the choice.
fn next_stale(up: &[Candidate], now: Instant) -> Option<Instant> {
    let stale_at =
        up.iter().filter_map(|target| target.stale_at).filter(|stale_at| *stale_at > now);
    stale_at.min().filter(|_| up.len() > 1)
}
