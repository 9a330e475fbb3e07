//! The judge of a chaos run: holds the API's own history against what was true. Pure.
//!
//! | rule      | broken by                                                                                          |
//! | ---       | ---                                                                                                |
//! | holder    | a write of a replica that did not hold the Lease when it was made, or of nobody who is known       |
//! | dead      | an address published that has been dead for longer than its detection and the slack                |
//! | missing   | an address not published that has been up for longer than its recovery and the slack               |
//! | empty     | a write that takes the last address out while a target has been up for as long as that, or where    |
//! |           | the policy forbids it                                                                               |
//! | handover  | a holder that was asked to end, whose Lease nobody else had in time                                |
//!
//! A time begins again with each flip of the target, with each outside edit of its Endpoints, with each target that comes into
//! the config for the same database, and when what kept all replicas from writing is over.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::record::{At, Change, Kind, Record};
use super::scenario::ReplicaFault;
use super::span::{Span, excused, uncovered};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    Holder,
    Dead,
    Missing,
    Empty,
    Handover,
}

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Breach {
    pub rule: Rule,
    pub at: At,
    pub database: usize,
    pub words: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Breach { rule, at, database, words } = self;
        write!(f, "rule {rule:?} broken at {at:.2?} by database {database}: {words}")
    }
}

/// What the run came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Judgement {
    pub breaches: Vec<Breach>,
    /// Writes of the daemon.
    pub writes: usize,
    /// Writes that were in the network or with the API already when another took the Lease, of which no client can know.
    pub late: usize,
    /// Writes whose caller was gone when they were made, or the API server before it could note whose they were.
    pub unnoted: usize,
    /// From a death to the write, at the worst, where nothing else was the matter.
    pub worst_out: Duration,
    /// From a return to the write, likewise.
    pub worst_in: Duration,
    /// How often each of these was timed.
    pub timed: usize,
    /// How much of the run was excused.
    pub excused: Duration,
}

pub(crate) fn judge(record: &Record) -> Judgement {
    let excused = excused(record);
    let mut judgement = Judgement { excused: total(&excused), ..Judgement::default() };
    writers(record, &mut judgement);
    empties(record, &excused, &mut judgement);
    handovers(record, &mut judgement);
    for (database, ips) in record.databases.iter().enumerate() {
        for ip in ips {
            target(record, database, *ip, &excused, &mut judgement);
        }
    }
    judgement.breaches.sort_by_key(|breach| (breach.at, breach.rule));
    judgement
}

/// Holds each write against the Lease as it was when it was made.
fn writers(record: &Record, judgement: &mut Judgement) {
    for change in record.changes.iter().filter(|change| !record.outside.contains(&change.version)) {
        judgement.writes += 1;
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
            None if ours && held_back => judgement.unnoted += 1,
            Some(writer) if held_back && held_before(writer) => judgement.late += 1,
            _ => judgement.breaches.push(Breach {
                rule: Rule::Holder,
                at: change.at,
                database: change.database,
                words: format!(
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

/// Looks at each write that empties a database.
fn empties(record: &Record, excused: &[Span], judgement: &mut Judgement) {
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
            let mut breach = |words| {
                judgement.breaches.push(Breach {
                    rule: Rule::Empty,
                    at: change.at,
                    database,
                    words,
                })
            };
            if record.keep.contains(&database) {
                breach(format!("version {} is empty, which the policy forbids", change.version));
                continue;
            }
            // What was decided a moment before was decided on what was true then.
            let decided = Span::new(change.at.saturating_sub(limits.slack), change.at);
            if excused.iter().any(|excuse| excuse.touches(&decided)) {
                continue;
            }
            let up = |ip: &&IpAddr| {
                up_since(record, **ip, change.at).is_some_and(|since| {
                    change.at > since + limits.recovery + limits.slack || since.is_zero()
                })
            };
            if let Some(ip) = ips.iter().find(up) {
                breach(format!("version {} is empty while {ip} is up", change.version));
            }
        }
    }
}

/// Looks at each holder that was asked to end while the API was well.
fn handovers(record: &Record, judgement: &mut Judgement) {
    let limit = record.limits.handover + record.limits.slack;
    for fault in &record.faults {
        let Kind::Replica(ReplicaFault::Ended, who) = &fault.kind else { continue };
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
            let words =
                format!("{who} was asked to end, and {limit:.1?} later nobody else had the Lease");
            judgement.breaches.push(Breach { rule: Rule::Handover, at: until, database: 0, words });
        }
    }
}

/// The spans in which a policy keeps dead targets of a database in: none is up, or none is known to be.
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

/// Since when a target is up; none if it is dead.
fn up_since(record: &Record, ip: IpAddr, at: At) -> Option<At> {
    match record.flips.iter().rfind(|flip| flip.ip == ip && flip.at <= at) {
        Some(flip) => flip.up.then_some(flip.at),
        None => Some(At::ZERO),
    }
}

/// Holds what was published of one target against what was true of it.
fn target(
    record: &Record,
    database: usize,
    ip: IpAddr,
    excused: &[Span],
    judgement: &mut Judgement,
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
    for (wrong, dead) in wrongs(record, ip, &changes) {
        let mut covers: Vec<Span> =
            excused.iter().map(|span| Span::new(span.from, span.until + limits.slack)).collect();
        covers.extend(&joins);
        covers.extend(kept.iter().filter(|_| dead));
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
            let words = format!(
                "{ip} was {state} for {:.2?}, and nothing excuses {:.2?} of it",
                wrong.until - wrong.from,
                bad.until - bad.from
            );
            judgement.breaches.push(Breach { rule, at: bad.from, database, words });
        }
        let flip = flips.iter().find(|flip| flip.at == wrong.from && flip.up != dead);
        let else_the_matter = excused.iter().any(|span| span.touches(&wrong))
            || edits
                .iter()
                .any(|edit| edit.at + limits.slack >= wrong.from && edit.at <= wrong.until)
            || joins.iter().chain(&kept).any(|span| span.touches(&wrong))
            || flips.iter().any(|other| other.at == wrong.until)
            || wrong.until == record.end;
        if flip.is_some() && !else_the_matter {
            judgement.timed += 1;
            let worst = if dead { &mut judgement.worst_out } else { &mut judgement.worst_in };
            *worst = (*worst).max(wrong.until - wrong.from);
        }
    }
}

/// The spans in which a target was published though dead (true) or missing though up (false).
fn wrongs(record: &Record, ip: IpAddr, changes: &[&Change]) -> Vec<(Span, bool)> {
    // Deaths and returns come first where both happen at once: the cluster can only follow.
    let flips = record.flips.iter().filter(|flip| flip.ip == ip).map(|flip| (flip.at, 0, flip.up));
    let published =
        |change: &&Change| change.members.as_ref().is_some_and(|members| members.contains(&ip));
    let changes = changes.iter().map(|change| (change.at, 1, published(change)));
    let mut steps: Vec<(At, u8, bool)> = flips.chain(changes).collect();
    steps.sort_by_key(|(at, what, _)| (*at, *what));
    let (mut up, mut published, mut since, mut wrongs) = (true, true, At::ZERO, Vec::new());
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
            wrongs.push((Span::new(since, at), was_published));
        }
        since = at;
    }
    wrongs
}

fn total(spans: &[Span]) -> Duration {
    let mut spans = spans.to_vec();
    spans.sort();
    let (mut sum, mut reached) = (Duration::ZERO, At::ZERO);
    for span in spans {
        sum += span.until.saturating_sub(span.from.max(reached));
        reached = reached.max(span.until);
    }
    sum
}

/// Everything about one database, in order: what its breach is understood by.
pub(crate) fn timeline(record: &Record, database: usize) -> Vec<String> {
    let mut lines: Vec<(At, String)> = Vec::new();
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
