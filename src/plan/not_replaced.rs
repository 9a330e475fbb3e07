//! The notes on members that DNS no longer gives, and that stay because none takes their place.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::standing::Standing;
use super::{Candidate, Members, NameFacts, NotReplacedReason, PolicyNote, Pool};
use crate::health::State;
use crate::names::{Backing, LookupResult};

/// The result of a lookup which says that the name has no address.
const EMPTY: Option<LookupResult> = Some(LookupResult::Empty);

/// Returns a note for each group of names with such members. Nothing is said of adopted members
/// while DNS says nothing of any name: that is told for all of DNS.
pub(super) fn notes(pool: &Pool, standing: &Standing, members: &Members) -> Vec<PolicyNote> {
    let mut groups: BTreeMap<(Vec<usize>, bool), Vec<IpAddr>> = BTreeMap::new();
    let unresolved = || {
        let names = pool.names.iter().enumerate();
        names.filter(|(_, name)| !name.state.has_resolved()).map(|(index, _)| index)
    };
    let is_unknown = |name: &NameFacts| !name.state.has_resolved() && name.state.newest() != EMPTY;
    let nothing_is_known = pool.names.iter().all(is_unknown);
    for target in standing.targets.iter().filter(|target| members.contains(target.member.ip)) {
        let (names, waits) = match target.backing {
            Backing::Current | Backing::Released => continue,
            Backing::Departing => (standing.successors.names_without(target), false),
            Backing::Adopted if nothing_is_known => continue,
            Backing::Adopted if unresolved().next().is_some() => (unresolved().collect(), true),
            Backing::Adopted => ((0..pool.names.len()).collect(), false),
        };
        groups.entry((names, waits)).or_default().push(target.member.ip);
    }
    let note = |((names, waits), mut kept): ((Vec<usize>, bool), Vec<IpAddr>)| {
        kept.sort();
        let names: Vec<&NameFacts> = names.into_iter().map(|index| &pool.names[index]).collect();
        let reason = if waits {
            NotReplacedReason::Unresolved
        } else {
            NotReplacedReason::NoneUp(others(standing, &names))
        };
        let names = names.iter().map(|name| name.name.to_owned()).collect();
        PolicyNote::NotReplaced { kept, names, reason }
    };
    groups.into_iter().map(note).collect()
}

/// Returns the targets that these names currently give, each with the reason why it takes nobody's
/// place.
fn others(standing: &Standing, names: &[&NameFacts]) -> Vec<(IpAddr, String)> {
    let is_given = |target: &&Candidate| {
        let ip = target.member.ip;
        names.iter().any(|name| name.state.backing(ip) == Some(Backing::Current))
    };
    let given = standing.targets.iter().chain(&standing.late_arrivals).filter(is_given);
    let mut others: Vec<_> =
        given.map(|target| (target.member.ip, obstacle(target).to_owned())).collect();
    others.sort();
    others
}

fn obstacle<'a>(target: &Candidate<'a>) -> &'a str {
    match target.state {
        _ if target.in_maintenance => "in maintenance",
        State::Up => "must be healthy for longer, because it flapped",
        State::Unknown if !target.checked => "not checked yet",
        State::Down | State::Unknown => target.reason.unwrap_or("is down"),
    }
}
