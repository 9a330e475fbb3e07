//! A database on the page: its condition, the effects of its policy, its names and its targets.

use maud::{Markup, PreEscaped, html};

use super::bar::bar;
use super::text::{between, calendar, duration, foreign, sentence, since, until};
use crate::health::State;
use crate::status::{
    ChangeStatus, DatabaseStatus, NameStatus, RejectedStatus, TargetMark, TargetStatus, Time,
};

/// The checks that are listed on the page of a database.
const MAX_CHECKS: usize = 10;

/// The body of the table of targets, and its ends.
const BODY: &str = "<tbody></tbody>";
const BODY_START: &str = "<tbody>";
const BODY_END: &str = "</tbody>";

/// The page that a section is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The page of all databases.
    Overview,
    /// The page of this database alone.
    Own,
}

/// Returns the parts of a database with these of its targets: a part for each row, as a database
/// may have very many.
pub(super) fn section(
    database: DatabaseStatus,
    selected: Vec<usize>,
    place: Place,
    now: Time,
) -> impl Iterator<Item = String> {
    let frame = frame(&database, &selected, place, now).into_string();
    // Texts of others are escaped, so they cannot have this element.
    let (start, end) = match frame.split_once(BODY) {
        Some((start, end)) => (start.to_owned() + BODY_START, BODY_END.to_owned() + end),
        None => (frame, String::new()),
    };
    let rows = selected.into_iter().map(move |index| row(&database.targets[index], now));
    std::iter::once(start).chain(rows.map(Markup::into_string)).chain(std::iter::once(end))
}

/// Renders all of a database but the rows of its targets.
fn frame(database: &DatabaseStatus, selected: &[usize], place: Place, now: Time) -> Markup {
    let DatabaseStatus { namespace, service, targets, names, rejected, .. } = database;
    let trouble = database.is_in_trouble().then_some("trouble");
    let hidden = targets.len() - selected.len();
    html! {
        section id={ (namespace) "/" (service) } class=[trouble] {
            (heading(database, place))
            (condition(database, now))
            (policy(database, now))
            (lookups(names, place, now))
            @if place == Place::Own { (details(database, now)) }
            (refused(rejected))
            @if !selected.is_empty() { (table()) }
            @if hidden > 0 {
                p class="soft" {
                    (hidden) " more not shown here; "
                    a href={ "databases/" (namespace) "/" (service) } { "all of " (service) }
                }
            }
            p class="soft" {
                code { "external-endpoints explain " (namespace) "/" (service) }
                " · "
                code { "kubectl -n " (namespace) " describe service " (service) }
                @if place == Place::Own { (links(database)) }
            }
        }
    }
}

fn heading(database: &DatabaseStatus, place: Place) -> Markup {
    let DatabaseStatus { namespace, service, .. } = database;
    html! {
        h2 {
            @match place {
                Place::Overview => {
                    a href={ "databases/" (namespace) "/" (service) } { (namespace) "/" (service) }
                }
                Place::Own => { "State" }
            }
        }
    }
}

fn links(database: &DatabaseStatus) -> Markup {
    let DatabaseStatus { namespace, service, .. } = database;
    html! {
        " · "
        a href={ "../../api/v1/databases/" (namespace) "/" (service) } { "JSON" }
        " · metrics: "
        code {
            "external_endpoints_target_healthy{namespace=\"" (namespace) "\",service=\"" (service)
            "\"}"
        }
    }
}

/// Renders the condition, and how much of the database is published.
fn condition(database: &DatabaseStatus, now: Time) -> Markup {
    let targets = database.targets.len();
    html! {
        p {
            strong { (database.condition.as_deref().unwrap_or("Unknown")) }
            @if let Some(time) = database.since { " for " (since(time, now)) }
            @match &database.published {
                Some(published) => {
                    " · " (database.published_targets()) " of " (targets) " published"
                    @if let Some(others) = database.other_published() { ", and also " (others) }
                    @if published.is_empty() { ", so clients can't connect" }
                }
                None => { " · " (targets) " addresses; what is published is unknown or not ours" }
            }
            (tiers(database))
            @if let Some(reason) = database.reason.as_deref().filter(|reason| !reason.is_empty()) {
                " · "
                @if database.has_condition_of_trouble() { (sentence(reason)) }
                @else { (foreign(reason)) }
            }
        }
    }
}

/// Renders the newest write, and the checks of the targets.
fn details(database: &DatabaseStatus, now: Time) -> Markup {
    let summaries = database.targets.iter().filter_map(|target| target.check.as_ref());
    let mut summaries: Vec<&str> = summaries.map(|check| &*check.summary).collect();
    summaries.sort_unstable();
    summaries.dedup();
    let more = summaries.len().saturating_sub(MAX_CHECKS);
    html! {
        @if let Some(write) = &database.last_write {
            p {
                "Last written " (since(write.at, now)) " ago: " (foreign(&write.object))
                ", resourceVersion " (foreign(&write.resource_version))
            }
        }
        @for summary in summaries.iter().take(MAX_CHECKS) { p { "Check: " (foreign(summary)) } }
        @if more > 0 { p { "and " (more) " more checks" } }
    }
}

/// Renders the tier that serves, where there is more than one.
fn tiers(database: &DatabaseStatus) -> Markup {
    let tiers = |published: bool| {
        let targets = database.targets.iter().filter(move |target| !published || target.published);
        targets.map(|target| target.tier)
    };
    let has_tiers = tiers(false).min() != tiers(false).max();
    html! {
        @if let Some(tier) = tiers(true).max().filter(|_| has_tiers) {
            " · tier " (tier) " serves"
        }
    }
}

fn policy(database: &DatabaseStatus, now: Time) -> Markup {
    let failback = database.failback_at;
    html! {
        @if !database.policy.is_empty() || failback.is_some() {
            ul {
                @for note in &database.policy { li { (sentence(note)) } }
                @if let Some(time) = failback {
                    li { "the preferred tier takes over in " (until(time, now)) }
                }
            }
        }
    }
}

/// Renders the names: on the page of all databases only those that do not resolve.
fn lookups(names: &[NameStatus], place: Place, now: Time) -> Markup {
    let is_shown = |name: &&NameStatus| place == Place::Own || name.failing_since.is_some();
    let shown: Vec<&NameStatus> = names.iter().filter(is_shown).collect();
    html! {
        @if !shown.is_empty() {
            ul {
                @for name in shown {
                    li {
                        (foreign(&name.name)) ": "
                        (foreign(name.result.as_deref().unwrap_or("not looked up yet")))
                        @if let Some(time) = name.failing_since { ", for " (since(time, now)) }
                        @if let Some(time) = name.next_lookup {
                            "; asked again in " (until(time, now))
                        }
                        (refused(&name.refused))
                    }
                }
            }
        }
    }
}

fn refused(rejected: &[RejectedStatus]) -> Markup {
    html! {
        @for RejectedStatus { address, reason } in rejected {
            p { "Refused: " (address) ": " (foreign(reason)) }
        }
    }
}

/// Renders the table of targets, without a row.
fn table() -> Markup {
    html! {
        table class="targets" {
            thead {
                tr {
                    th scope="col" { "Address" }
                    th scope="col" { "State" }
                    th scope="col" { "Published" }
                    th scope="col" { "Tier" }
                    th scope="col" { "Last check" }
                    th scope="col" { "Last hour" }
                }
            }
            (PreEscaped(BODY))
        }
    }
}

fn row(target: &TargetStatus, now: Time) -> Markup {
    let mark = target.mark();
    html! {
        tr {
            th scope="row" {
                (target.address)
                @for name in [&target.name, &target.hostname].into_iter().flatten() {
                    small { (foreign(name)) }
                }
            }
            td {
                span class={ "mark " (mark.word()) } { (mark.symbol()) " " (mark.word()) }
                @if !has_own_start(mark) { " " (since(target.since, now)) }
                (why(target, now))
                (observation(target))
            }
            td { (membership(target)) }
            td { (target.tier) }
            td { (last_check(target, now)) }
            td { (bar(&target.last_hour)) }
        }
    }
}

/// Returns whether the state of a target began at another time than that of its health.
fn has_own_start(mark: TargetMark) -> bool {
    matches!(mark, TargetMark::Maintenance | TargetMark::Flapping)
}

/// Renders the reasons of the state, unless the sentence on the membership has them.
fn why(target: &TargetStatus, now: Time) -> Markup {
    let sentence = target.membership.as_ref().map_or("", |membership| &membership.why);
    let reason = target.reason.as_deref().filter(|reason| !sentence.contains(reason));
    html! {
        @if let Some(reason) = &target.maintenance {
            small {
                (foreign(reason))
                @if let Some(source) = target.maintenance_source { " (by the " (source) ")" }
                @if let Some(end) = target.maintenance_until { ", for " (until(end, now)) " more" }
                "; its checks: " (target.health.as_str()) " for " (since(target.since, now))
            }
        }
        @if target.mark() == TargetMark::Flapping { small { "up for " (since(target.since, now)) } }
        @if let Some(reason) = reason { small { (foreign(reason)) } }
        @if target.inconclusive_since.is_some() {
            small { "its checks have been inconclusive for over a minute" }
        }
    }
}

/// Renders the role, lag and version of the server.
fn observation(target: &TargetStatus) -> Markup {
    let observation = target.observation.as_ref();
    html! {
        @if let Some(observation) = observation {
            @let details = observation.describe();
            @if !details.is_empty() { small { (foreign(&details)) } }
            @if let Some(note) = &observation.note { small { (sentence(note)) } }
        }
    }
}

/// Renders whether the cluster holds the address, and the rule behind it unless the target is well.
fn membership(target: &TargetStatus) -> Markup {
    let membership = target.membership.as_ref();
    let planned = target.planned();
    let is_plain = target.mark() == TargetMark::Up
        && target.failures == 0
        && target.inconclusive_since.is_none();
    html! {
        @match (target.published, planned) {
            (true, Some(false)) => "yes, to be taken out",
            (true, _) => "yes",
            (false, Some(true)) => "no, but planned",
            (false, _) => "no",
        }
        @if let Some(membership) = membership.filter(|it| !is_plain || it.reason != "healthy") {
            small { (sentence(&membership.why)) }
            small {
                @if (target.published, planned) == (false, Some(true)) { "once it is in, it " }
                (membership.until_label()) " " (sentence(&membership.until))
            }
        }
    }
}

fn last_check(target: &TargetStatus, now: Time) -> Markup {
    let TargetStatus { passes, failures, .. } = target;
    html! {
        @match target.last_check {
            Some(time) => {
                (duration(between(time.0, now.0))) " ago"
                @if let Some(seconds) = target.last_duration_seconds {
                    ", took " (format!("{:.1} ms", seconds * 1000.0))
                }
            }
            None => "none yet",
        }
        @if let Some(time) = target.next_check { "; next in " (until(time, now)) }
        @if *failures > 0 { small { (failures) " failed in a row" } }
        @if *passes > 0 && target.health != State::Up { small { (passes) " passed in a row" } }
    }
}

/// Renders the newest changes, the newest first.
pub(super) fn changes(changes: &[ChangeStatus], now: Time) -> Markup {
    html! {
        section {
            h2 { "Last changes" }
            @if changes.is_empty() {
                p { "None since this replica started." }
            } @else {
                table {
                    thead {
                        tr {
                            th scope="col" { "Time" }
                            th scope="col" { "Address" }
                            th scope="col" { "Change" }
                            th scope="col" { "Reason" }
                        }
                    }
                    tbody { @for change in changes.iter().rev() { (change_row(change, now)) } }
                }
            }
        }
    }
}

fn change_row(change: &ChangeStatus, now: Time) -> Markup {
    let past = duration(between(change.at.0, now.0));
    html! {
        tr {
            td { (calendar(change.at)) small { (past) " ago" } }
            th scope="row" { (change.address) }
            td { (in_words(&change.change)) }
            td { @if let Some(reason) = &change.reason { (foreign(reason)) } }
        }
    }
}

fn in_words(change: &str) -> &str {
    match change {
        "up" => "▲ up",
        "down" => "▼ down",
        "maintenanceBegan" => "■ maintenance began",
        "maintenanceEnded" => "□ maintenance ended",
        "published" => "+ published",
        "unpublished" => "− no longer published",
        other => other,
    }
}
