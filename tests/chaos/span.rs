//! Spans of time, and the excused ones: when nobody could have written, to the moment, from what was done.

use super::record::{At, Fault, Kind, Record};
use super::scenario::ReplicaFault;

/// From one moment to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub from: At,
    pub until: At,
}

impl Span {
    pub(crate) fn new(from: At, until: At) -> Span {
        Span { from, until }
    }

    pub(crate) fn touches(&self, other: &Span) -> bool {
        self.from <= other.until && other.from <= self.until
    }
}

/// The spans in which a write could not be had: the API was away, or whoever held the Lease was, and nobody else could have it.
pub(crate) fn excused(record: &Record) -> Vec<Span> {
    record.faults.iter().filter_map(|fault| excuse(record, fault)).collect()
}

fn excuse(record: &Record, fault: &Fault) -> Option<Span> {
    let limits = &record.limits;
    match &fault.kind {
        Kind::Api(_) => Some(Span::new(fault.from, fault.until + limits.backoff)),
        Kind::Stall => Some(Span::new(fault.from, fault.until)),
        Kind::Replica(how, who) => {
            let held = record.held(fault.from).filter(|held| held.holder.as_ref() == Some(who))?;
            // One that was on its way may have been stored since: the API or the network held it back.
            let on_its_way =
                record.leases.iter().filter(|lease| lease.holder.as_ref() == Some(who));
            let on_its_way =
                on_its_way.filter(|lease| lease.at > fault.from && lease.at < fault.until);
            let stored = on_its_way.map(|lease| lease.at).fold(held.at, At::max);
            // Others count from when they saw the renewal, which they could not while the API was away.
            let seen = record.faults.iter().filter(|other| {
                matches!(other.kind, Kind::Api(_))
                    && other.from <= stored + limits.slack / 2
                    && stored <= other.until
            });
            let renewed = seen.map(|other| other.until).fold(stored, At::max);
            let runs_out = renewed + limits.lease;
            let back = match how {
                // Who is started again is another.
                ReplicaFault::Killed | ReplicaFault::Ended => runs_out,
                // It saw nothing while it was stopped, and has to find out all that happened.
                ReplicaFault::Stopped => fault.until + limits.detection.max(limits.recovery),
                // The pauses between its tries are before it.
                ReplicaFault::CutOff => fault.until + limits.backoff,
            };
            // Whoever has it then may write.
            let taken = record
                .leases
                .iter()
                .find(|next| next.at > fault.from && next.holder.as_ref() != Some(who));
            let taken = taken.filter(|next| next.holder.is_some()).map_or(At::MAX, |next| next.at);
            // One that goes on before its Lease ran out has it again; after that it is anyone's.
            let goes_on = matches!(how, ReplicaFault::Stopped | ReplicaFault::CutOff);
            let again = goes_on && fault.until <= runs_out;
            let end = if again { back } else { runs_out };
            Some(Span::new(fault.from, end.min(taken).max(fault.from)))
        }
    }
}

/// What of a span none of the others covers: the first such moment, and the last.
pub(crate) fn uncovered(whole: Span, covers: &mut [Span]) -> Option<Span> {
    covers.sort();
    let mut at = whole.from;
    for cover in covers.iter() {
        if cover.from > at {
            break;
        }
        at = at.max(cover.until);
    }
    if at >= whole.until {
        return None;
    }
    // As far as the next cover.
    let next = covers.iter().map(|cover| cover.from).filter(|from| *from > at).min();
    Some(Span::new(at, next.unwrap_or(whole.until).min(whole.until)))
}
