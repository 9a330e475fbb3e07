//! The answer of `explain`, as text.
//!
//! | the cluster holds it | the plan has it | headline |
//! | --- | --- | --- |
//! | yes | yes, or undecided | is PUBLISHED |
//! | yes | no | is still PUBLISHED, and shall be OUT |
//! | no | no, or undecided | is OUT |
//! | no | yes | is OUT, and shall be PUBLISHED |
//! | unknown, or foreign | yes | shall be PUBLISHED |
//! | unknown, or foreign | no, or undecided | shall be OUT |
//!
//! Where the cluster is not as planned, the condition says why. It comes first if the plan has the
//! address and the cluster has not: then no check keeps it out.

use std::fmt::Write as _;
use std::time::Duration;

use super::Selection;
use crate::health::State;
use crate::status::text::{address_list, between, calendar, duration, visible, visible_sentence};
use crate::status::{
    DatabaseStatus, HourMinute, NameStatus, ReplicaRole, ReplicaStatus, TargetStatus, Time,
    read_hour,
};

/// The width of the labels.
const LABEL_WIDTH: usize = 18;

/// Returns the whole answer.
pub(super) fn render(
    replica: &ReplicaStatus,
    database: &DatabaseStatus,
    selection: &Selection,
    width: Option<u16>,
) -> String {
    let mut page = Page { text: String::new(), width: width.map_or(usize::MAX, usize::from) };
    if selection.asked.is_none() {
        database_lines(&mut page, replica, database);
    }
    for name in &selection.names {
        name_lines(&mut page, name, replica.now);
    }
    for rejected in &selection.rejected {
        let address = visible(&rejected.address);
        page.headline(&format!("{address} is refused, and neither checked nor published"));
        page.line("because", &visible(&rejected.reason));
    }
    for target in &selection.targets {
        target_lines(&mut page, replica, database, target);
    }
    if selection.asked.is_some() {
        page.headline(&format!("{}/{}", visible(&database.namespace), visible(&database.service)));
        cluster_lines(&mut page, replica, database);
    }
    page.text
}

/// Lines with labels, of which none is wider than the terminal.
struct Page {
    text: String,
    width: usize,
}

impl Page {
    fn headline(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.push(textwrap::Options::new(self.width).subsequent_indent("  "), text);
    }

    fn line(&mut self, label: &str, text: &str) {
        let first = format!("  {label:LABEL_WIDTH$}");
        let rest = " ".repeat(LABEL_WIDTH + 2);
        let options = textwrap::Options::new(self.width);
        self.push(options.initial_indent(&first).subsequent_indent(&rest), text);
    }

    fn push(&mut self, options: textwrap::Options, text: &str) {
        for line in textwrap::wrap(text, options) {
            let _ = writeln!(self.text, "{}", line.trim_end());
        }
    }
}

fn target_lines(
    page: &mut Page,
    replica: &ReplicaStatus,
    database: &DatabaseStatus,
    target: &TargetStatus,
) {
    let now = replica.now;
    let planned = target.planned();
    let is_known = database.published.is_some();
    let is_out = if is_known { !target.published } else { planned != Some(true) };
    page.headline(&headline(database, target, planned, now));
    cause_lines(page, replica, database, target);
    page.line("now", &streak(target, now));
    if let Some(observation) = &target.observation {
        let details = observation.describe();
        Some(details).filter(|it| !it.is_empty()).iter().for_each(|it| page.line("server", it));
        observation.note.iter().for_each(|note| page.line("note", &visible_sentence(note)));
    }
    if let Some(check) = &target.check {
        let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        page.line(
            "check",
            &format!(
                "{} every {}, for {} at most; {} in a row bring it back, {} failures take it out",
                visible(&check.summary),
                humantime::format_duration(seconds(check.interval_seconds)),
                humantime::format_duration(seconds(check.timeout_seconds)),
                passes(check.healthy_threshold),
                check.unhealthy_threshold,
            ),
        );
    }
    let others = other_rules(replica, target);
    if is_out && !others.is_empty() {
        page.line("not the cause", &others);
    }
    if !target.last_hour.is_empty() {
        page.line("last hour", &bar(&target.last_hour));
    }
}

/// Says why the target is where it is, and what changes that.
fn cause_lines(
    page: &mut Page,
    replica: &ReplicaStatus,
    database: &DatabaseStatus,
    target: &TargetStatus,
) {
    let now = replica.now;
    let membership = target.membership.as_ref();
    let planned = target.planned();
    let is_missing = planned == Some(true) && !target.published;
    if is_missing {
        page.line("because", &format!("the plan is not done: {}", condition(database, now)));
    }
    if let Some(membership) = membership {
        let label = if is_missing { "planned because" } else { "because" };
        page.line(label, &visible_sentence(&membership.why));
        if !is_missing {
            page.line(membership.until_label(), &visible_sentence(&membership.until));
        }
    }
    if planned == Some(false) && target.published {
        page.line("not done yet", &condition(database, now));
    }
    if replica.has_no_writer() {
        page.line("but", "no replica is known to write, so nothing changes: see below");
    }
}

fn headline(
    database: &DatabaseStatus,
    target: &TargetStatus,
    planned: Option<bool>,
    now: Time,
) -> String {
    let service = format!("{}/{}", visible(&database.namespace), visible(&database.service));
    let name = target.name.as_deref().or(target.hostname.as_deref());
    let name = name.map(|name| format!(" ({})", visible(name))).unwrap_or_default();
    let mark = target.mark().symbol();
    let address = format!("{mark} {}{name}", visible(&target.address));
    let is_published = database.published.is_some().then_some(target.published);
    let verdict = match (is_published, planned) {
        (Some(true), Some(true) | None) => format!("is PUBLISHED in {service}"),
        (Some(true), Some(false)) => format!("is still PUBLISHED in {service}, and shall be OUT"),
        (Some(false), Some(false) | None) => format!("is OUT of {service}"),
        (Some(false), Some(true)) => format!("is OUT of {service}, and shall be PUBLISHED"),
        (None, Some(true)) => format!("shall be PUBLISHED in {service}"),
        (None, Some(false) | None) => format!("shall be OUT of {service}"),
    };
    let since = target.since;
    let age = duration(between(since.0, now.0));
    let health = target.health.as_str();
    format!("{address} {verdict}; it is {health} since {} ({age})", calendar(since))
}

/// Says how the newest tries went, and when the next one is.
fn streak(target: &TargetStatus, now: Time) -> String {
    let mut text = match (target.passes, target.failures) {
        (0, 0) => "no conclusive verdict yet".to_owned(),
        (passes_in_a_row, 0) => format!("{} in a row", passes(passes_in_a_row)),
        (_, 1) => "1 failure".to_owned(),
        (_, failures) => format!("{failures} failures in a row"),
    };
    if let Some(last) = target.last_check {
        let _ = write!(text, ", the last {} ago", duration(between(last.0, now.0)));
    }
    if let Some(seconds) = target.last_duration_seconds {
        let _ = write!(text, " and {:.1} ms long", seconds * 1000.0);
    }
    if let Some(since) = target.inconclusive_since {
        let age = duration(between(since.0, now.0));
        let _ = write!(text, ", all of them inconclusive for {age}");
    }
    let next = match target.next_check {
        Some(next) if next.0 <= now.0 => "the next try is due".to_owned(),
        Some(next) => format!("next try in {}", precise(between(now.0, next.0))),
        None => "a try is under way".to_owned(),
    };
    let reason = target.reason.as_deref().map(|reason| format!(": {}", visible(reason)));
    format!("{text}{}; {next}", reason.unwrap_or_default())
}

fn passes(count: u32) -> String {
    match count {
        1 => "1 pass".to_owned(),
        count => format!("{count} passes"),
    }
}

fn precise(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        _ => duration(time),
    }
}

/// Lists the rules that do not keep the target out.
fn other_rules(replica: &ReplicaStatus, target: &TargetStatus) -> String {
    let reason = target.membership.as_ref().map_or("", |membership| &membership.reason);
    let mut rules = Vec::new();
    if target.maintenance.is_none() {
        rules.push("it is not in maintenance");
    }
    // These have to do with its checks, although it is up.
    let by_checks = ["down", "flapping", "splitBrain", "severalClaim", "otherWriter"];
    if target.health == State::Up && !by_checks.contains(&reason) {
        rules.push("its checks do not keep it out");
    }
    if target.flapping_until.is_none() {
        rules.push("it is not held back for flapping");
    }
    if replica.frozen.is_none() {
        rules.push("there is no freeze");
    }
    rules.join(", ")
}

/// Returns a bar with a column for each minute.
fn bar(letters: &str) -> String {
    let column = |minute| match minute {
        HourMinute::Unchecked => '·',
        HourMinute::Passed => '▁',
        HourMinute::Failed => '▄',
        HourMinute::Down => '█',
    };
    let bar: String = read_hour(letters).map(column).collect();
    format!("{bar} (a column for each minute: ▁ passed, ▄ failed, █ down, · not checked)")
}

/// Returns the condition with its age and its reason.
fn condition(database: &DatabaseStatus, now: Time) -> String {
    let kind = database.condition.as_deref().map_or_else(|| "unknown".to_owned(), visible);
    let age = database.since.map(|since| duration(between(since.0, now.0)));
    let age = age.map(|age| format!(" for {age}")).unwrap_or_default();
    match database.reason.as_deref().filter(|reason| !reason.is_empty()) {
        Some(reason) if database.has_condition_of_trouble() => {
            format!("{kind}{age}: {}", visible_sentence(reason))
        }
        Some(reason) => format!("{kind}{age}: {}", visible(reason)),
        None => format!("{kind}{age}"),
    }
}

fn database_lines(page: &mut Page, replica: &ReplicaStatus, database: &DatabaseStatus) {
    let service = format!("{}/{}", visible(&database.namespace), visible(&database.service));
    let published = database.published_targets();
    let targets = database.targets.len();
    page.headline(&match database.published {
        Some(_) => format!("{service}: {published} of {targets} addresses are published"),
        None => format!("{service}: it is not known, or not the daemon's, what is published"),
    });
    cluster_lines(page, replica, database);
}

/// Says what the cluster holds, and what the daemon thinks of it.
fn cluster_lines(page: &mut Page, replica: &ReplicaStatus, database: &DatabaseStatus) {
    let now = replica.now;
    page.line("condition", &condition(database, now));
    if let Some(holds) = &database.published {
        page.line("the cluster holds", &holdings(database, holds, now));
    }
    let planned = database.planned.as_ref().filter(|it| Some(*it) != database.published.as_ref());
    if let Some(planned) = planned {
        page.line("the plan is", &address_list(planned));
    }
    for note in &database.policy {
        page.line("policy", &visible_sentence(note));
    }
    if let Some(freeze) = &replica.frozen {
        let until = freeze.until.map(|until| format!(" until {} at the latest", calendar(until)));
        let (failed, published) = (freeze.failed, freeze.published);
        page.line(
            "freeze",
            &format!(
                "{failed} of {published} published targets fail together, so nothing is taken \
                 out{}; then all that are down leave. Connect to one of them from another \
                 machine: if it answers there, mend the network of this daemon",
                until.unwrap_or_default()
            ),
        );
    }
    let writer = match (replica.role, &replica.lease) {
        (ReplicaRole::DryRun, _) => Some("this is a dry run, which writes nothing".to_owned()),
        (ReplicaRole::Standby, Some(lease)) => {
            Some(match (lease.describe_trouble(), &lease.holder) {
                (Some(trouble), _) => trouble,
                (None, Some(holder)) => {
                    format!("this replica does not write; {} does", visible(holder))
                }
                (None, None) => "no replica holds the Lease, so none writes".to_owned(),
            })
        }
        _ => None,
    };
    if let Some(writer) = writer {
        page.line("replica", &writer);
    }
    for problem in &replica.config.problems {
        page.line("config", &format!("the last good one is in force: {}", visible(problem)));
    }
}

fn holdings(database: &DatabaseStatus, holds: &[String], now: Time) -> String {
    let holds = match holds {
        [] => "no address, so clients of the Service can't connect".to_owned(),
        holds => address_list(holds),
    };
    match &database.last_write {
        Some(write) => format!(
            "{holds} (this daemon wrote {} {} ago, as resourceVersion {})",
            visible(&write.object),
            duration(between(write.at.0, now.0)),
            visible(&write.resource_version)
        ),
        None => format!("{holds} (this daemon has found it so, and written nothing since)"),
    }
}

fn name_lines(page: &mut Page, name: &NameStatus, now: Time) {
    let result = name.result.as_deref().unwrap_or("not asked yet");
    page.headline(&format!("{}: {}", visible(&name.name), visible(result)));
    if let Some(since) = name.failing_since {
        let age = duration(between(since.0, now.0));
        page.line("no good answer", &format!("since {} ({age})", calendar(since)));
    }
    let addresses: Vec<String> = name
        .addresses
        .iter()
        .map(|it| format!("{} ({})", visible(&it.address), visible(&it.dns)))
        .collect();
    page.line("addresses", &address_list(&addresses));
    for refused in &name.refused {
        page.line("refused", &visible(&format!("{}: {}", refused.address, refused.reason)));
    }
    for skipped in &name.skipped {
        page.line("left out", &visible(skipped));
    }
    if let Some(server) = &name.server {
        page.line("DNS server", &visible(server));
    }
    if let Some(next) = name.next_lookup {
        page.line("next lookup", &format!("in {}", precise(between(now.0, next.0))));
    }
}
