//! The answers that the replicas got from DNS in a chaos run, as the checker reads them. Pure.
//!
//! Each replica asks a server of its own. A server that gives no good answer for a name takes
//! nothing away, so the newest good answer counts.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::record::{Kind, Record, Time};
use super::scenario::ReplicaFault;
use super::span::Span;

/// The number of DNS servers, one for each replica.
pub(crate) const SERVERS: usize = 2;

/// The longest wait of the daemon between two lookups that fail, with its jitter.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(33);
/// The time after which the daemon ends a lookup, and its first wait after one that fails.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// A change of what one server answers for the name of a database.
#[derive(Debug, Clone)]
pub(crate) struct DnsChange {
    pub at: Time,
    pub database: usize,
    pub server: usize,
    /// The addresses; none while the server gives no good answer.
    pub answer: Option<BTreeSet<IpAddr>>,
}

/// A span in which a server answers the same.
#[derive(Debug, Clone)]
pub(crate) struct Period {
    pub span: Span,
    pub answer: Option<BTreeSet<IpAddr>>,
    /// The time by which a replica that asks this server knows the answer. That of a fault is the
    /// time of the next good one.
    pub known_by: Time,
}

/// Returns the answers of a server for a database in order. At the start it has all addresses.
pub(crate) fn periods(record: &Record, database: usize, server: usize) -> Vec<Period> {
    let all: BTreeSet<IpAddr> = record.databases[database].iter().copied().collect();
    let of = |change: &&DnsChange| change.database == database && change.server == server;
    let changes = record.dns.iter().filter(of);
    let changes = changes.map(|change| (change.at, change.answer.clone()));
    let mut periods: Vec<Period> = [(Time::ZERO, Some(all))]
        .into_iter()
        .chain(changes)
        .map(|(at, answer)| Period { span: Span::new(at, record.end), answer, known_by: at })
        .collect();
    for index in 1..periods.len() {
        periods[index - 1].span.until = periods[index].span.from;
    }
    let mut next_known_by = record.end;
    for index in (0..periods.len()).rev() {
        let Period { span, answer, .. } = &periods[index];
        let known_by = match (answer, index) {
            (None, _) => next_known_by,
            (Some(_), 0) => Time::ZERO,
            (Some(_), _) => {
                let limit = span.from + record.limits.dns + retry_delay(&periods[..index]);
                // An answer that changes sooner may never be known.
                if span.until >= limit { limit } else { next_known_by.max(limit) }
            }
        };
        periods[index].known_by = known_by;
        next_known_by = known_by;
    }
    periods
}

/// Returns the longest wait for the end of the next lookup after these periods. The waits double,
/// so the last one is about as long as the fault.
///
/// A good answer that is over before this wait is may never have been seen. The fault then goes on.
fn retry_delay(before: &[Period]) -> Duration {
    let mut fault = Duration::ZERO;
    for Period { span, answer, .. } in before {
        let lasted = span.until - span.from;
        let is_unseen = !fault.is_zero() && lasted < longest_wait(fault);
        fault = if answer.is_none() || is_unseen { fault + lasted } else { Duration::ZERO };
    }
    if fault.is_zero() { fault } else { longest_wait(fault) + RETRY_DELAY }
}

/// Returns the longest wait that a fault leads to, with the lookup before it.
fn longest_wait(fault: Duration) -> Duration {
    (fault + RETRY_DELAY).clamp(LOOKUP_TIMEOUT, MAX_RETRY_DELAY + LOOKUP_TIMEOUT)
}

/// Returns all periods of all servers for a database.
fn all_periods(record: &Record, database: usize) -> Vec<Period> {
    (0..SERVERS).flat_map(|server| periods(record, database, server)).collect()
}

/// Returns the spans after each change of answers in which a replica may not know it yet.
pub(crate) fn news(record: &Record, database: usize) -> Vec<Span> {
    let periods = all_periods(record, database).into_iter();
    let good = periods.filter(|period| period.answer.is_some());
    good.map(|period| Span::new(period.span.from, period.known_by)).collect()
}

/// Returns the spans in which some replica need not know this address: its server does not give it,
/// or the replica was restarted while its server gave no good answer.
pub(crate) fn absences(record: &Record, database: usize, ip: IpAddr) -> Vec<Span> {
    let has = |period: &Period| period.answer.as_ref().map(|ips| ips.contains(&ip));
    let is_restart = |kind: &Kind| match kind {
        Kind::Replica(how, _) => {
            matches!(how, ReplicaFault::Killed | ReplicaFault::Terminated)
        }
        Kind::Api(_) | Kind::Stall => false,
    };
    let restarts: Vec<Time> = record
        .faults
        .iter()
        .filter(|fault| is_restart(&fault.kind))
        .map(|fault| fault.until)
        .collect();
    let mut absences = Vec::new();
    for server in 0..SERVERS {
        let (mut given, mut since) = (true, Time::ZERO);
        for period in periods(record, database, server) {
            match has(&period) {
                Some(false) if given => (given, since) = (false, period.span.from),
                Some(true) if !given => {
                    given = true;
                    absences.push(Span::new(since, period.known_by));
                }
                Some(_) => {}
                None => {
                    let from = period.span.from.saturating_sub(LOOKUP_TIMEOUT);
                    if restarts.iter().any(|at| (from..=period.span.until).contains(at)) {
                        absences.push(Span::new(period.span.from, period.known_by));
                    }
                }
            }
        }
        absences.extend((!given).then_some(Span::new(since, record.end)));
    }
    absences
}

/// Returns whether a server has replaced this address by another that lived, so that a replica may
/// take it away at this time.
pub(crate) fn was_replaced(record: &Record, database: usize, ip: IpAddr, at: Time) -> bool {
    (0..SERVERS).any(|server| {
        let periods = periods(record, database, server);
        // A good answer holds until the next one, also in a fault.
        let mut until = at;
        for period in periods.iter().rev().filter(|period| period.span.from <= at) {
            let Some(answer) = &period.answer else { continue };
            if answer.contains(&ip) {
                if period.known_by <= at {
                    return false;
                }
            } else {
                let held = Span::new(period.span.from, until);
                if answer.iter().any(|other| lived_in(record, *other, &held)) {
                    return true;
                }
            }
            until = period.span.from;
        }
        false
    })
}

/// Returns whether a target lived at any time in this span, or was not known to be dead.
fn lived_in(record: &Record, ip: IpAddr, span: &Span) -> bool {
    let undetected = record.limits.detection + record.limits.slack;
    let from = span.from.saturating_sub(undetected);
    let came_back = |flip: &&super::record::Flip| {
        flip.ip == ip && flip.up && (from..=span.until).contains(&flip.at)
    };
    is_up(record, ip, from) || record.flips.iter().any(|flip| came_back(&flip))
}

fn is_up(record: &Record, ip: IpAddr, at: Time) -> bool {
    record.flips.iter().rfind(|flip| flip.ip == ip && flip.at <= at).is_none_or(|flip| flip.up)
}

/// Returns the spans in which all servers have dropped this address, and all give another that
/// lives.
pub(crate) fn dropped(record: &Record, database: usize, ip: IpAddr) -> Vec<Span> {
    let servers: Vec<Vec<Period>> =
        (0..SERVERS).map(|server| periods(record, database, server)).collect();
    let answer = |server: &[Period], at: Time| {
        let mut good = server.iter().rev().filter(|period| period.answer.is_some());
        good.find(|period| period.span.from <= at).and_then(|period| period.answer.clone())
    };
    let is_dropped = |at: Time| {
        let answers: Vec<BTreeSet<IpAddr>> =
            servers.iter().filter_map(|server| answer(server, at)).collect();
        let common = answers[0].iter().filter(|other| answers.iter().all(|it| it.contains(other)));
        answers.iter().all(|it| !it.contains(&ip))
            && common.into_iter().any(|other| is_up(record, *other, at))
    };
    let ips = &record.databases[database];
    let flips = record.flips.iter().filter(|flip| ips.contains(&flip.ip)).map(|flip| flip.at);
    let changes = servers.iter().flatten().map(|period| period.span.from);
    let mut times: Vec<Time> = flips.chain(changes).chain([record.end]).collect();
    times.sort();
    times.dedup();
    let mut spans: Vec<Span> = Vec::new();
    for pair in times.windows(2).filter(|pair| is_dropped(pair[0])) {
        match spans.last_mut() {
            Some(last) if last.until == pair[0] => last.until = pair[1],
            _ => spans.push(Span::new(pair[0], pair[1])),
        }
    }
    spans
}
