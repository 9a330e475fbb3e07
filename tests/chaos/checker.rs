//! The checker of a chaos run: compares the API's own history with the state of the targets. Pure.
//!
//! | rule     | violated by                                                                       |
//! | ---      | ---                                                                               |
//! | holder   | a write by a replica that did not hold the Lease at that version, or by a stranger|
//! | dead     | a published address, dead for longer than its detection and the slack             |
//! | missing  | an unpublished address, up for longer than its recovery and the slack             |
//! | empty    | a write that empties a database while a target has been up for as long as that,   |
//! |          | or although the policy forbids it                                                 |
//! | handover | a terminated holder, if no other replica acquired the Lease in time               |
//! | dropped  | a published address that DNS has dropped, and another that DNS gives has been up  |
//! |          | for longer than the TTL, its recovery, and the slack                              |
//! | taken    | a write that takes an address away that is up, and that DNS has never replaced by |
//! |          | another that was up                                                               |
//!
//! Rules event and view are in `seen_checker`.
//!
//! A time starts again with each flip of the target, each outside edit of its Endpoints, and each
//! target that is added to the config of the same database. It also starts again when a fault ends
//! that kept all replicas from writing, and for an address that comes from DNS when a server gives
//! it again.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::dns_history::{absences, news};
use super::names_checker::names;
use super::record::{Change, Kind, Record, Time};
use super::scenario::ReplicaFault;
use super::seen_checker::seen;
use super::span::{Span, excused, uncovered};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    Holder,
    Dead,
    Missing,
    Empty,
    Handover,
    Dropped,
    Taken,
    Event,
    View,
}

/// A rule that was violated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub rule: Rule,
    pub at: Time,
    pub database: usize,
    pub description: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { rule, at, database, description } = self;
        write!(f, "rule {rule:?} broken at {at:.2?} by database {database}: {description}")
    }
}

/// The result of a check.
#[derive(Debug, Clone, Default)]
pub(crate) struct CheckResult {
    pub violations: Vec<Violation>,
    /// The number of the daemon's writes.
    pub writes: usize,
    /// The number of writes that the network or the API delayed until another replica had the
    /// Lease. No client can know that.
    pub delayed: usize,
    /// The number of writes whose caller is unknown: it was gone, or the API server was, before the
    /// audit log named it.
    pub unknown_writer: usize,
    /// The longest time from a death to the write, where there was no other cause.
    pub worst_out: Duration,
    /// The longest time from a return to the write, where there was no other cause.
    pub worst_in: Duration,
    /// The number of these times.
    pub timed: usize,
    /// The longest time from a change of the cluster to the Event, where there was no other cause.
    pub worst_event: Duration,
    /// The number of answers that were compared with the cluster.
    pub views: usize,
    /// The total time in which no write was possible.
    pub excused: Duration,
}

pub(crate) fn check(record: &Record) -> CheckResult {
    let excused = excused(record);
    let mut result = CheckResult { excused: total(&excused), ..CheckResult::default() };
    writers(record, &mut result);
    empties(record, &excused, &mut result);
    handovers(record, &mut result);
    names(record, &excused, &mut result);
    seen(record, &excused, &mut result);
    for (database, ips) in record.databases.iter().enumerate() {
        for ip in ips {
            target(record, database, *ip, &excused, &mut result);
        }
    }
    result.violations.sort_by_key(|violation| (violation.at, violation.rule));
    result
}

/// Checks each write against the Lease at that version.
fn writers(record: &Record, result: &mut CheckResult) {
    for change in record.changes.iter().filter(|change| !record.outside.contains(&change.version)) {
        result.writes += 1;
        let holder = record.holder_at(change.version);
        let writer = record.writers.get(&change.version).map(String::as_str);
        if writer.is_some() && writer == holder {
            continue;
        }
        let held_back = record.held_back(change.at.saturating_sub(record.limits.slack), change.at);
        let ours = change.managers.iter().any(|manager| manager.starts_with("external-endpoints"));
        let held_before = |who: &str| {
            record
                .leases
                .iter()
                .any(|lease| lease.version < change.version && lease.holder.as_deref() == Some(who))
        };
        match writer {
            None if ours && held_back => result.unknown_writer += 1,
            Some(writer) if held_back && held_before(writer) => result.delayed += 1,
            _ => result.violations.push(Violation {
                rule: Rule::Holder,
                at: change.at,
                database: change.database,
                description: format!(
                    "version {} was made by {} ({:?}), and the Lease was held by {}",
                    change.version,
                    writer.unwrap_or("an unknown one"),
                    change.managers,
                    holder.unwrap_or("nobody")
                ),
            }),
        }
    }
}

/// Checks each write that empties a database.
fn empties(record: &Record, excused: &[Span], result: &mut CheckResult) {
    let limits = &record.limits;
    for (database, ips) in record.databases.iter().enumerate() {
        let mut before: Option<BTreeSet<IpAddr>> = Some(ips.iter().copied().collect());
        for change in record.changes.iter().filter(|change| change.database == database) {
            let emptied = change.members.as_ref().is_some_and(BTreeSet::is_empty)
                && before.as_ref().is_some_and(|before| !before.is_empty());
            before.clone_from(&change.members);
            if !emptied || record.outside.contains(&change.version) {
                continue;
            }
            let mut violation = |description| {
                result.violations.push(Violation {
                    rule: Rule::Empty,
                    at: change.at,
                    database,
                    description,
                })
            };
            if record.keep.contains(&database) {
                violation(format!("version {} is empty, which the policy forbids", change.version));
                continue;
            }
            // The daemon decided a moment before the write, from the state at that time.
            let decided = Span::new(change.at.saturating_sub(limits.slack), change.at);
            if excused.iter().any(|excuse| excuse.touches(&decided)) {
                continue;
            }
            let up = |ip: &&IpAddr| {
                up_since(record, **ip, change.at).is_some_and(|since| {
                    change.at > since + limits.recovery + limits.slack || since.is_zero()
                }) && !covers_of_dns(record, database, **ip, Expected::Up)
                    .iter()
                    .any(|span| span.touches(&decided))
            };
            if let Some(ip) = ips.iter().find(up) {
                violation(format!("version {} is empty while {ip} is up", change.version));
            }
        }
    }
}

/// Checks each holder that was terminated while the API was available.
fn handovers(record: &Record, result: &mut CheckResult) {
    let limit = record.limits.handover + record.limits.slack;
    for fault in &record.faults {
        let Kind::Replica(ReplicaFault::Terminated, who) = &fault.kind else { continue };
        let held = record.held(fault.from).is_some_and(|held| held.holder.as_ref() == Some(who));
        let until = fault.from + limit;
        if !held
            || until > record.end
            || record.held_back(fault.from.saturating_sub(record.limits.backoff), until)
        {
            continue;
        }
        let mut after =
            record.leases.iter().filter(|lease| lease.at > fault.from && lease.at <= until);
        if !after.any(|lease| lease.holder.as_ref().is_some_and(|holder| holder != who)) {
            let description =
                format!("{who} was asked to end, and {limit:.1?} later nobody else had the Lease");
            result.violations.push(Violation {
                rule: Rule::Handover,
                at: until,
                database: 0,
                description,
            });
        }
    }
}

/// Returns the spans in which a policy keeps dead targets of a database: none is up, or none is
/// known to be up.
fn kept(record: &Record, database: usize) -> Vec<Span> {
    if !record.keep.contains(&database) {
        return Vec::new();
    }
    let ips = &record.databases[database];
    let mut flips: Vec<_> = record.flips.iter().filter(|flip| ips.contains(&flip.ip)).collect();
    flips.sort_by_key(|flip| flip.at);
    let (mut up, mut since, mut spans) = (ips.len(), None, Vec::new());
    for flip in flips {
        up = if flip.up { up + 1 } else { up - 1 };
        match (up, since) {
            (0, None) => since = Some(flip.at),
            (1, Some(from)) => {
                spans.push(Span::new(from, flip.at + record.limits.recovery + record.limits.slack));
                since = None;
            }
            _ => {}
        }
    }
    spans.extend(since.map(|from| Span::new(from, record.end)));
    spans
}

/// Returns the time since when a target is up, or none if it is dead.
pub(crate) fn up_since(record: &Record, ip: IpAddr, at: Time) -> Option<Time> {
    match record.flips.iter().rfind(|flip| flip.ip == ip && flip.at <= at) {
        Some(flip) => flip.up.then_some(flip.at),
        None => Some(Time::ZERO),
    }
}

/// Checks what was published of one target against its state.
fn target(
    record: &Record,
    database: usize,
    ip: IpAddr,
    excused: &[Span],
    result: &mut CheckResult,
) {
    let limits = &record.limits;
    let flips: Vec<_> = record.flips.iter().filter(|flip| flip.ip == ip).collect();
    let changes: Vec<_> =
        record.changes.iter().filter(|change| change.database == database).collect();
    let edits: Vec<_> =
        changes.iter().filter(|change| record.outside.contains(&change.version)).collect();
    let joins = record.joins.iter().filter(|(_, of)| *of == database);
    let joins: Vec<Span> =
        joins.map(|(at, _)| Span::new(*at, *at + limits.config + limits.slack)).collect();
    let kept = kept(record, database);
    for (wrong, dead) in wrong_spans(record, ip, &changes) {
        let mut covers: Vec<Span> =
            excused.iter().map(|span| Span::new(span.from, span.until + limits.slack)).collect();
        covers.extend(&joins);
        covers.extend(kept.iter().filter(|_| dead));
        let expected = if dead { Expected::Dead } else { Expected::Up };
        let dns = covers_of_dns(record, database, ip, expected);
        covers.extend(&dns);
        covers.extend(edits.iter().map(|edit| Span::new(edit.at, edit.at + limits.slack)));
        covers.extend(flips.iter().map(|flip| {
            let limit = if flip.up { limits.recovery } else { limits.detection };
            Span::new(flip.at, flip.at + limit + limits.slack)
        }));
        if let Some(bad) = uncovered(wrong, &mut covers) {
            let (rule, state) = if dead {
                (Rule::Dead, "dead, and published")
            } else {
                (Rule::Missing, "up, and missing")
            };
            let description = format!(
                "{ip} was {state} for {:.2?}, and nothing excuses {:.2?} of it",
                wrong.until - wrong.from,
                bad.until - bad.from
            );
            result.violations.push(Violation { rule, at: bad.from, database, description });
        }
        let flip = flips.iter().find(|flip| flip.at == wrong.from && flip.up != dead);
        let has_other_cause = excused.iter().any(|span| span.touches(&wrong))
            || dns.iter().any(|span| span.touches(&wrong))
            || edits
                .iter()
                .any(|edit| edit.at + limits.slack >= wrong.from && edit.at <= wrong.until)
            || joins.iter().chain(&kept).any(|span| span.touches(&wrong))
            || flips.iter().any(|other| other.at == wrong.until)
            || wrong.until == record.end;
        if flip.is_some() && !has_other_cause {
            result.timed += 1;
            let worst = if dead { &mut result.worst_out } else { &mut result.worst_in };
            *worst = (*worst).max(wrong.until - wrong.from);
        }
    }
}

/// The state of a target that should have been followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Up,
    Dead,
}

/// Returns the spans in which DNS excuses that a target's state is not followed. One that is up may
/// be missing while DNS does not give it. One that is dead may stay while a new one has its first
/// check, or while a policy keeps it for want of another that DNS gives.
fn covers_of_dns(record: &Record, database: usize, ip: IpAddr, expected: Expected) -> Vec<Span> {
    if !record.named.contains(&database) {
        return Vec::new();
    }
    let limits = &record.limits;
    let late = |span: Span| Span::new(span.from, span.until + limits.recovery + limits.slack);
    match expected {
        Expected::Up => absences(record, database, ip).into_iter().map(late).collect(),
        Expected::Dead if record.keep.contains(&database) => {
            let ips = record.databases[database].iter();
            let absent = ips.flat_map(|other| absences(record, database, *other));
            absent.chain(news(record, database)).map(late).collect()
        }
        Expected::Dead => news(record, database)
            .into_iter()
            .map(|span| Span::new(span.from, span.until + limits.slack))
            .collect(),
    }
}

/// Returns the spans in which a target was published although it was dead (true), or missing
/// although it was up (false).
fn wrong_spans(record: &Record, ip: IpAddr, changes: &[&Change]) -> Vec<(Span, bool)> {
    // A flip comes before a write at the same time, because the cluster can only follow.
    let flips = record.flips.iter().filter(|flip| flip.ip == ip).map(|flip| (flip.at, 0, flip.up));
    let published =
        |change: &&Change| change.members.as_ref().is_some_and(|members| members.contains(&ip));
    let changes = changes.iter().map(|change| (change.at, 1, published(change)));
    let mut steps: Vec<(Time, u8, bool)> = flips.chain(changes).collect();
    steps.sort_by_key(|(at, what, _)| (*at, *what));
    let (mut up, mut published, mut since, mut wrong_spans) = (true, true, Time::ZERO, Vec::new());
    for (at, what, value) in steps.into_iter().chain([(record.end, 2, true)]) {
        let (was_up, was_published) = (up, published);
        match what {
            0 => up = value,
            1 => published = value,
            _ => {}
        }
        if (was_up, was_published) == (up, published) && what < 2 {
            continue;
        }
        if was_up != was_published && at > since {
            wrong_spans.push((Span::new(since, at), was_published));
        }
        since = at;
    }
    wrong_spans
}

fn total(spans: &[Span]) -> Duration {
    let mut spans = spans.to_vec();
    spans.sort();
    let (mut sum, mut reached) = (Duration::ZERO, Time::ZERO);
    for span in spans {
        sum += span.until.saturating_sub(span.from.max(reached));
        reached = reached.max(span.until);
    }
    sum
}

/// Returns everything about one database in order, to explain a violation.
pub(crate) fn timeline(record: &Record, database: usize) -> Vec<String> {
    let mut lines: Vec<(Time, String)> = Vec::new();
    let ips = &record.databases[database];
    for flip in record.flips.iter().filter(|flip| ips.contains(&flip.ip)) {
        lines.push((flip.at, format!("{} {}", flip.ip, flip.how)));
    }
    for change in record.changes.iter().filter(|change| change.database == database) {
        let who = match record.writers.get(&change.version) {
            Some(writer) => writer.as_str(),
            None if record.outside.contains(&change.version) => "an outside edit",
            None => "an unknown one",
        };
        let members = match &change.members {
            Some(members) => format!("{members:?}"),
            None => "deleted".to_owned(),
        };
        lines.push((change.at, format!("version {}: {members} by {who}", change.version)));
    }
    for statement in record.statements.iter().filter(|it| it.database == database) {
        lines.push((statement.at, format!("Event {}: {}", statement.event, statement.note)));
    }
    for change in record.dns.iter().filter(|change| change.database == database) {
        let answer = match &change.answer {
            Some(answer) => format!("{answer:?}"),
            None => "a fault".to_owned(),
        };
        lines.push((change.at, format!("DNS server {}: {answer}", change.server)));
    }
    for fault in &record.faults {
        let what = match &fault.kind {
            Kind::Api(how) => format!("the API was {how}"),
            Kind::Replica(how, who) => format!("replica {who} was {how}"),
            Kind::Stall => "the machine stood still".to_owned(),
        };
        lines.push((fault.from, format!("{what} until {:.2?}", fault.until)));
    }
    let mut holder = &None;
    for lease in &record.leases {
        if lease.holder != *holder {
            lines.push((
                lease.at,
                format!("the Lease is held by {}", lease.holder.as_deref().unwrap_or("nobody")),
            ));
        }
        holder = &lease.holder;
    }
    lines.sort();
    lines.into_iter().map(|(at, what)| format!("{:>9.3} s  {what}", at.as_secs_f64())).collect()
}
