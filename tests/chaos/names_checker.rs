//! The checker's rules for databases that are names. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::checker::{CheckResult, Rule, Violation, up_since};
use super::dns_history::{dropped, news, was_replaced};
use super::record::{Change, Flip, Record, Time};
use super::span::{Span, uncovered};

/// Checks all databases that are names.
pub(crate) fn names(record: &Record, excused: &[Span], result: &mut CheckResult) {
    for database in &record.named {
        taken(record, *database, excused, result);
        for ip in &record.databases[*database] {
            kept(record, *database, *ip, excused, result);
        }
    }
}

/// Checks each write that takes an address away: it is dead, or DNS has replaced it by one that
/// lives.
fn taken(record: &Record, database: usize, excused: &[Span], result: &mut CheckResult) {
    let limits = &record.limits;
    let known = limits.detection + limits.recovery + 2 * limits.slack;
    // The members, with those among them that a person has added.
    let mut before: Option<BTreeSet<IpAddr>> =
        Some(record.databases[database].iter().copied().collect());
    let mut by_hand: BTreeSet<IpAddr> = BTreeSet::new();
    for change in record.changes.iter().filter(|change| change.database == database) {
        let last = std::mem::replace(&mut before, change.members.clone());
        let (Some(last), Some(members)) = (last, &change.members) else { continue };
        if record.outside.contains(&change.version) {
            by_hand.extend(members.difference(&last));
            continue;
        }
        let decided = Span::new(change.at.saturating_sub(limits.slack), change.at);
        let lives = |ip: &IpAddr| {
            let since = up_since(record, *ip, change.at);
            since.is_some_and(|since| since.is_zero() || since + known < change.at)
        };
        for ip in last.difference(members).copied() {
            if by_hand.remove(&ip)
                || !lives(&ip)
                || excused.iter().any(|span| span.touches(&decided))
                || was_replaced(record, database, ip, change.at)
            {
                continue;
            }
            let description =
                format!("version {} lacks {ip}, which lives and has no other", change.version);
            result.violations.push(Violation {
                rule: Rule::Taken,
                at: change.at,
                database,
                description,
            });
        }
        by_hand.retain(|ip| members.contains(ip));
    }
}

/// Checks that an address leaves in time once DNS has dropped it and gives another that lives.
fn kept(record: &Record, database: usize, ip: IpAddr, excused: &[Span], result: &mut CheckResult) {
    let limits = &record.limits;
    let ips = &record.databases[database];
    let of_database = record.changes.iter().filter(|change| change.database == database);
    let changes: Vec<&Change> = of_database.collect();
    for published in published_spans(record, ip, &changes) {
        for dropped in dropped(record, database, ip) {
            let from = published.from.max(dropped.from);
            let wrong = Span::new(from, published.until.min(dropped.until));
            if wrong.from >= wrong.until {
                continue;
            }
            let late = |span: &Span, by: Time| Span::new(span.from, span.until + by);
            let mut covers: Vec<Span> =
                excused.iter().map(|span| late(span, limits.slack)).collect();
            let found = limits.recovery + limits.slack;
            let is_back = |flip: &&Flip| flip.up && ips.contains(&flip.ip);
            let back = record.flips.iter().filter(is_back);
            covers.extend(back.map(|flip| Span::new(flip.at, flip.at + found)));
            covers.extend(news(record, database).iter().map(|span| late(span, found)));
            let edits = changes.iter().filter(|change| record.outside.contains(&change.version));
            covers.extend(edits.map(|edit| Span::new(edit.at, edit.at + limits.slack)));
            if let Some(bad) = uncovered(wrong, &mut covers) {
                let description = format!(
                    "{ip} stayed {:.2?} after DNS had dropped it for one that lives, and nothing \
                     excuses {:.2?} of it",
                    wrong.until - wrong.from,
                    bad.until - bad.from
                );
                result.violations.push(Violation {
                    rule: Rule::Dropped,
                    at: bad.from,
                    database,
                    description,
                });
            }
        }
    }
}

/// Returns the spans in which an address was published.
fn published_spans(record: &Record, ip: IpAddr, changes: &[&Change]) -> Vec<Span> {
    let (mut since, mut spans) = (Some(Time::ZERO), Vec::new());
    for change in changes {
        let is_published = change.members.as_ref().is_some_and(|members| members.contains(&ip));
        match (since, is_published) {
            (None, true) => since = Some(change.at),
            (Some(from), false) => {
                spans.push(Span::new(from, change.at));
                since = None;
            }
            _ => {}
        }
    }
    spans.extend(since.map(|from| Span::new(from, record.end)));
    spans
}
