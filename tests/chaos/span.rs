//! Spans of time, and those that are excused: spans in which no replica could write, computed from
//! the faults.

use super::record::{Fault, Kind, Record, Time};
use super::scenario::ReplicaFault;

/// A span between two times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub from: Time,
    pub until: Time,
}

impl Span {
    pub(crate) fn new(from: Time, until: Time) -> Span {
        Span { from, until }
    }

    pub(crate) fn touches(&self, other: &Span) -> bool {
        self.from <= other.until && other.from <= self.until
    }
}

/// Returns the spans in which no write was possible: the API was away, or the holder of the Lease
/// was, and no other replica could acquire it.
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
            // A renewal that the API or the network held back may have been stored during the
            // fault.
            let on_its_way =
                record.leases.iter().filter(|lease| lease.holder.as_ref() == Some(who));
            let on_its_way =
                on_its_way.filter(|lease| lease.at > fault.from && lease.at < fault.until);
            let stored = on_its_way.map(|lease| lease.at).fold(held.at, Time::max);
            // Other replicas measure from when they saw the renewal, which they could not while the
            // API was away.
            let seen = record.faults.iter().filter(|other| {
                matches!(other.kind, Kind::Api(_))
                    && other.from <= stored + limits.slack / 2
                    && stored <= other.until
            });
            let renewed = seen.map(|other| other.until).fold(stored, Time::max);
            let runs_out = renewed + limits.lease;
            let back = match how {
                // A restarted replica is another holder.
                ReplicaFault::Killed | ReplicaFault::Terminated => runs_out,
                // It noticed nothing while it was suspended, and has to check everything again.
                ReplicaFault::Stopped => fault.until + limits.detection.max(limits.recovery),
                // Its delays between two attempts are shorter than this.
                ReplicaFault::CutOff => fault.until + limits.backoff,
            };
            // A new holder may write.
            let taken = record
                .leases
                .iter()
                .find(|next| next.at > fault.from && next.holder.as_ref() != Some(who));
            let taken =
                taken.filter(|next| next.holder.is_some()).map_or(Time::MAX, |next| next.at);
            // A replica that continues before its Lease has expired has it again. After that, any
            // replica may acquire it.
            let resumes = matches!(how, ReplicaFault::Stopped | ReplicaFault::CutOff);
            let again = resumes && fault.until <= runs_out;
            let end = if again { back } else { runs_out };
            Some(Span::new(fault.from, end.min(taken).max(fault.from)))
        }
    }
}

/// Returns the first part of a span that none of the others covers.
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
    // Until the next cover.
    let next = covers.iter().map(|cover| cover.from).filter(|from| *from > at).min();
    Some(Span::new(at, next.unwrap_or(whole.until).min(whole.until)))
}
