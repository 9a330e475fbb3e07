//! The choice of an `exactlyOne` database: a writer, of which no two may ever be published together.
//!
//! | published and Up | others Up    | members                                                     |
//! | ---              | ---          | ---                                                         |
//! | one              | none         | that one                                                    |
//! | one              | some         | that one; a split brain if it and another pass              |
//! | several          | any          | of those that pass, the one with the lowest priority, then IP |
//! | none             | one          | that one: the old one and the new one change in one write   |
//! | none             | several      | none, till one is Up alone; a split brain if two pass       |
//! | none             | none         | none                                                        |
//!
//! Up is what the thresholds have confirmed; an Up target whose newest verdict is a failure does not pass. So while the old
//! writer fails and is not yet Down, the new one waits, and nobody calls that a split brain.

use std::cmp::Reverse;
use std::net::IpAddr;

use super::{Candidate, Choice, Members, Note};

/// Chooses from the targets that are Up.
pub(super) fn choose<'a>(up: &[Candidate<'a>], published: &Members) -> Choice<'a> {
    let stays = up.iter().filter(|target| published.contains(target.member.ip));
    let stays = stays.max_by_key(|target| (target.passing, Reverse((target.priority, target.member.ip)))).copied();
    let alone = if let [alone] = up { Some(*alone) } else { None };
    let mut passing: Vec<IpAddr> = up.iter().filter(|target| target.passing).map(|target| target.member.ip).collect();
    passing.sort();
    let split = passing.len() > 1;
    let published = stays.map(|target| target.member.ip);
    Choice {
        members: stays.or(alone).into_iter().collect(),
        note: split.then_some(Note::SplitBrain { passing, published }),
        again: None,
    }
}
