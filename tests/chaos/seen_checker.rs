//! The checker of everything that people see: Events, the status API and the metrics, beside what
//! the cluster held. Pure.
//!
//! | rule  | violated by                                                                         |
//! | ---   | ---                                                                                 |
//! | event | the newest Event on the members of a database, which names others than the cluster  |
//! |       | holds, for longer than the slack after the last change                              |
//! | view  | an answer of the replica that writes, whose members, condition or metrics were not  |
//! |       | so at any time in the slack before it                                               |
//!
//! Time in which no replica could write is excused, and the slack after it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::checker::{CheckResult, Rule, Violation};
use super::record::{Change, Record, Statement, Time, View};
use super::span::{Span, uncovered};

/// Conditions that pass by themselves, and may last.
const CALM: [&str; 5] =
    ["Published", "WaitingForCluster", "WaitingForVerdicts", "WaitingForNames", "Standby"];

/// Checks all that was seen.
pub(crate) fn seen(record: &Record, excused: &[Span], result: &mut CheckResult) {
    let slack = record.limits.slack;
    let excused: Vec<Span> =
        excused.iter().map(|span| Span::new(span.from, span.until + slack)).collect();
    for database in 0..record.databases.len() {
        let changes: Vec<&Change> =
            record.changes.iter().filter(|change| change.database == database).collect();
        events(record, database, &changes, &excused, result);
        let views = record.views.iter().filter(|view| view.database == database);
        for view in views {
            result.views += 1;
            let span = Span::new(view.from.saturating_sub(slack), view.until + slack);
            if excused.iter().any(|excuse| excuse.touches(&span)) {
                continue;
            }
            if let Some(description) = wrong(record, &changes, view, span) {
                let at = view.from;
                result.violations.push(Violation { rule: Rule::View, at, database, description });
            }
        }
    }
}

/// Checks the newest Event on the members of a database at all times.
fn events(
    record: &Record,
    database: usize,
    changes: &[&Change],
    excused: &[Span],
    result: &mut CheckResult,
) {
    let slack = record.limits.slack;
    let mut covers: Vec<Span> = excused.to_vec();
    covers.extend(changes.iter().map(|change| Span::new(change.at, change.at + slack)));
    for (wrong, description) in contradictions(record, database, changes) {
        if let Some(bad) = uncovered(wrong, &mut covers) {
            let at = bad.from;
            result.violations.push(Violation { rule: Rule::Event, at, database, description });
        }
        let follows = changes.iter().any(|change| change.at == wrong.from);
        if follows && !excused.iter().any(|span| span.touches(&wrong)) && wrong.until < record.end {
            result.worst_event = result.worst_event.max(wrong.until - wrong.from);
        }
    }
}

/// Returns the spans in which the newest Event contradicted the cluster, with what it said.
fn contradictions(record: &Record, database: usize, changes: &[&Change]) -> Vec<(Span, String)> {
    let statements = record.statements.iter().filter(|statement| statement.database == database);
    let statements = statements.map(|statement| (statement.at, Step::Says(statement)));
    let changes = changes.iter().map(|change| (change.at, Step::Holds(change.members.as_ref())));
    let mut steps: Vec<(Time, Step)> = changes.chain(statements).collect();
    steps.sort_by_key(|(at, _)| *at);
    let start: BTreeSet<IpAddr> = record.databases[database].iter().copied().collect();
    let mut holds = Some(&start);
    let mut events: BTreeMap<&str, &Statement> = BTreeMap::new();
    let mut since: Option<(Time, String)> = None;
    let mut spans = Vec::new();
    for (at, step) in steps.into_iter().chain([(record.end, Step::End)]) {
        match step {
            Step::Says(statement) => drop(events.insert(&statement.event, statement)),
            Step::Holds(members) => holds = members,
            Step::End => {}
        }
        let newest = events.values().max_by_key(|event| event.shown);
        let contradicts = newest.filter(|event| {
            holds.is_some_and(|holds| event.members.as_ref().is_none_or(|says| says != holds))
        });
        let description = contradicts.map(|event| {
            format!("the newest Event says {:?}, and the cluster holds {holds:?}", event.note)
        });
        let ends = description.is_none() || matches!(step, Step::End);
        if ends && let Some((from, description)) = since.take() {
            spans.push((Span::new(from, at), description));
        } else if let Some(description) = description.filter(|_| !ends) {
            let from = since.take().map_or(at, |(from, _)| from);
            since = Some((from, description));
        }
    }
    spans
}

enum Step<'a> {
    Says(&'a Statement),
    Holds(Option<&'a BTreeSet<IpAddr>>),
    End,
}

/// Returns what is wrong with an answer: nothing like it was so in this span.
fn wrong(record: &Record, changes: &[&Change], view: &View, span: Span) -> Option<String> {
    let start: BTreeSet<IpAddr> = record.databases[view.database].iter().copied().collect();
    let before = changes.iter().rfind(|change| change.at < span.from);
    let first = before.map_or(start, |change| change.members.clone().unwrap_or_default());
    let within = changes.iter().filter(|change| change.at >= span.from && change.at <= span.until);
    let within: Vec<BTreeSet<IpAddr>> =
        within.map(|change| change.members.clone().unwrap_or_default()).collect();
    let is_calm = within.is_empty();
    let held: Vec<BTreeSet<IpAddr>> = [first].into_iter().chain(within).collect();
    let published = view.published.clone().unwrap_or_default();
    if !held.contains(&published) {
        return Some(format!("the status has {published:?}, and the cluster held {held:?}"));
    }
    if let Some(gauge) = view.gauge
        && !held.iter().any(|held| held.len() == gauge)
    {
        return Some(format!("the metric counts {gauge}, and the cluster held {held:?}"));
    }
    let near = record.views.iter().filter(|other| {
        other.replica == view.replica
            && other.database == view.database
            && other.until >= span.from
            && other.from <= span.until
    });
    let conditions: BTreeSet<&str> = near.map(|other| other.condition.as_str()).collect();
    if let Some(condition) = &view.gauge_condition
        && !conditions.contains(condition.as_str())
    {
        return Some(format!("the metric says {condition}, and the status {conditions:?}"));
    }
    let planned = view.planned.as_ref();
    if is_calm && view.condition == "Published" && planned.is_some_and(|it| *it != published) {
        return Some(format!("the condition is Published, and {planned:?} is planned"));
    }
    let is_trouble = !CALM.contains(&view.condition.as_str());
    if is_calm && is_trouble && conditions.len() == 1 {
        return Some(format!("the condition is {} without a cause", view.condition));
    }
    None
}
