//! The selection of an `exactlyOne` database: a writer, of which no two may be published together.
//!
//! | published and Up | others Up | members |
//! | --- | --- | --- |
//! | one | none | that one, also if it is stale |
//! | one | some | that one; a split brain if any two pass |
//! | one, stale | a successor | the successor: old and new change in one write |
//! | several | any | of those that pass, the one with the lowest priority, then IP |
//! | none | one | that one: old and new change in one write |
//! | none | several | none until one is Up alone; a split brain if two pass |
//! | none | several, one the successor | the successor |
//! | none | none | none |
//!
//! Up is confirmed by the thresholds. An Up target whose newest verdict is a failure does not pass.
//! So while the old writer fails and is not yet Down, the new one waits, and that is no split
//! brain.
//!
//! A target is *stale* when its tries have been inconclusive for some intervals. It no longer
//! passes, so it makes no split brain. It is not Down either, so it is not removed for that alone.
//! Its *successor* is a target that passes, and came Up after the last Pass of the stale one: only
//! a writer passes, so the role has moved. A target that was Up beside it claimed the role before,
//! and an inconclusive check of the other proves nothing.
//!
//! A target that takes the place of a published one by DNS counts as published here.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::Instant;

use super::{Candidate, Members, NameFacts, PolicyNote, Selection};
use crate::names::Backing;

/// Selects from the targets that are Up.
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
        note: split.then_some(PolicyNote::SplitBrain { passing, published, name: None }),
        reevaluate_at: next_stale(up, now),
    }
}

/// Completes the note on a split brain by the name that gives both targets, if they are an IPv4 and
/// an IPv6. They are probably one machine.
pub(super) fn name_both_families(notes: &mut [PolicyNote], names: &[NameFacts]) {
    for note in notes {
        let PolicyNote::SplitBrain { passing, name, .. } = note else { continue };
        let [one, other] = passing.as_slice() else { continue };
        if one.is_ipv4() == other.is_ipv4() {
            continue;
        }
        let gives = |ip| move |name: &&NameFacts| name.state.backing(ip) == Some(Backing::Current);
        let both = names.iter().filter(gives(*one)).find(gives(*other));
        *name = both.map(|name| name.name.to_owned());
    }
}

/// Returns the target that passes, if it is the successor of all others.
fn successor<'a>(up: &[Candidate<'a>], now: Instant) -> Option<Candidate<'a>> {
    let mut passing = up.iter().filter(|target| target.passes(now));
    let (Some(new), None) = (passing.next(), passing.next()) else { return None };
    let others = up.iter().filter(|target| target.member.ip != new.member.ip);
    let gave_way = |old: &Candidate| {
        old.is_stale(now) && old.passed_at.is_none_or(|passed_at| passed_at <= new.since)
    };
    others.copied().all(|old| gave_way(&old)).then_some(*new)
}

/// Returns the time at which the next of several targets becomes stale, which may change the
/// selection.
fn next_stale(up: &[Candidate], now: Instant) -> Option<Instant> {
    let stale_at =
        up.iter().filter_map(|target| target.stale_at).filter(|stale_at| *stale_at > now);
    stale_at.min().filter(|_| up.len() > 1)
}
