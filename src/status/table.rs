//! The status as a table for people: a row for each database, those in trouble first.

use comfy_table::{ContentArrangement, Table};

use super::text::{address_list, between, calendar, duration, visible, visible_sentence};
use super::{
    DaemonStatus, DatabaseStatus, ReplicaRole, ReplicaStatus, TargetMark, TargetStatus, Time,
};

/// Targets that a row lists.
const MAX_LISTED: usize = 5;

/// The surroundings of a table.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Layout {
    /// The width of the terminal; none for an output without a limit.
    pub width: Option<u16>,
    /// The detail of the rows.
    pub detail: Detail,
}

/// The detail of the rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Detail {
    /// The targets that are out.
    #[default]
    Brief,
    /// The same, with the age of the condition and the addresses that are published.
    Wide,
}

/// The facts about the replicas that a status alone does not have.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Replicas {
    /// The replicas that are ready; none if that is unknown.
    pub ready: Option<usize>,
    /// The time since which the Lease is held.
    pub held_since: Option<Time>,
}

/// Returns the status as text.
pub(crate) fn render(status: &DaemonStatus, replicas: Replicas, layout: Layout) -> String {
    let DaemonStatus { replica, databases } = status;
    let mut lines = vec![replica_line(replica, replicas)];
    lines.extend(banners(replica));
    lines.push(counts(databases));
    let mut text = wrap(&lines.join("\n"), layout.width);
    if !databases.is_empty() {
        text += "\n";
        text += &table(databases, replica.now, layout);
    }
    text
}

fn replica_line(replica: &ReplicaStatus, Replicas { ready, held_since }: Replicas) -> String {
    let ReplicaStatus { version, role, lease, config, now, .. } = replica;
    let now = now.0;
    let identity = lease.as_ref().map(|lease| pod_of(&lease.identity)).unwrap_or_default();
    let mut who = match role {
        ReplicaRole::Leader => format!("leader {identity}"),
        ReplicaRole::Standby => format!("standby {identity}"),
        role @ (ReplicaRole::Alone | ReplicaRole::DryRun) => role.as_str().to_owned(),
    };
    if let Some(since) = held_since.filter(|_| *role == ReplicaRole::Leader) {
        who += &format!(" (holds the Lease for {})", duration(between(since.0, now)));
    }
    let standbys = ready.and_then(|ready| ready.checked_sub(1)).filter(|_| lease.is_some());
    if let Some(count) = standbys.filter(|_| *role == ReplicaRole::Leader) {
        who += &match count {
            1 => ", 1 standby".to_owned(),
            count => format!(", {count} standbys"),
        };
    }
    let age = duration(between(config.since.0, now));
    format!("external-endpoints {}   {who}   config loaded {age} ago", visible(version))
}

/// Returns the name of the Pod in the identity of a replica.
fn pod_of(identity: &str) -> String {
    visible(identity.rsplit_once('_').map_or(identity, |(pod, _)| pod))
}

/// Returns a line for each thing about the replica that a person should know.
fn banners(replica: &ReplicaStatus) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(freeze) = &replica.frozen {
        let until = freeze.until.map(|until| format!(" until {} at the latest", calendar(until)));
        lines.push(format!(
            "frozen for {}{}: {} of {} published targets fail together, and stay published",
            duration(between(freeze.since.0, replica.now.0)),
            until.unwrap_or_default(),
            freeze.failed,
            freeze.published,
        ));
    }
    if let (ReplicaRole::Standby, Some(lease)) = (replica.role, &replica.lease) {
        lines.push(match (&lease.trouble, &lease.holder) {
            (Some(trouble), Some(_)) => {
                format!("this replica could not take over: {}", visible_sentence(trouble))
            }
            (Some(trouble), None) => format!(
                "this replica does not write, and none is known to: {}",
                visible_sentence(trouble)
            ),
            (None, Some(holder)) => {
                format!("this replica does not write; {} does", pod_of(holder))
            }
            (None, None) => "this replica does not write, and no replica holds the Lease".into(),
        });
    }
    let file = visible(&replica.config.file);
    let problems = replica.config.problems.iter();
    lines.extend(problems.map(|problem| {
        format!("the config in force is the last good one; {file}: {}", visible(problem))
    }));
    lines.extend(replica.left_behind.iter().map(|left| {
        let (namespace, service) = (visible(&left.namespace), visible(&left.service));
        let addresses = visible(&left.addresses.join(", "));
        format!("{namespace}/{service} is not in the config, and still holds {addresses}")
    }));
    lines
}

/// Returns a line with the counts of all databases.
fn counts(databases: &[DatabaseStatus]) -> String {
    let plural = |count: usize, one: &str, more: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {more}"),
    };
    let targets = || databases.iter().flat_map(|database| &database.targets);
    let marked = |mark| targets().filter(|target| target.mark() == mark).count();
    let trouble = databases.iter().filter(|database| database.is_in_trouble()).count();
    let mut addresses =
        vec![format!("{} published", targets().filter(|target| target.published).count())];
    for (mark, words) in [
        (TargetMark::Down, "down"),
        (TargetMark::Flapping, "flapping"),
        (TargetMark::Maintenance, "in maintenance"),
        (TargetMark::Unknown, "unknown"),
    ] {
        let count = marked(mark);
        if count > 0 {
            addresses.push(format!("{count} {words}"));
        }
    }
    format!(
        "{}, {trouble} in trouble; {}: {}",
        plural(databases.len(), "database", "databases"),
        plural(targets().count(), "address", "addresses"),
        addresses.join(", ")
    )
}

fn table(databases: &[DatabaseStatus], now: Time, layout: Layout) -> String {
    let is_wide = layout.detail == Detail::Wide;
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    if let Some(width) = layout.width {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width);
    }
    let mut header = vec!["NAMESPACE", "SERVICE", "CONDITION", "PUBLISHED"];
    header.extend(["SINCE", "ADDRESSES"].iter().filter(|_| is_wide));
    header.push("OUT");
    table.set_header(header);
    let mut rows: Vec<&DatabaseStatus> = databases.iter().collect();
    rows.sort_by_key(|database| !database.is_in_trouble());
    for database in rows {
        let mut row = vec![
            visible(&database.namespace),
            visible(&database.service),
            database.condition.as_deref().map_or_else(|| "-".to_owned(), visible),
            published(database),
        ];
        if is_wide {
            let since = database.since.map(|since| duration(between(since.0, now.0)));
            row.push(since.unwrap_or_else(|| "-".to_owned()));
            let published = database.published.as_ref().map(|ips| address_list(ips));
            row.push(published.unwrap_or_else(|| "-".to_owned()));
        }
        row.push(out(database, now));
        table.add_row(row);
    }
    let lines = table.to_string();
    lines.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Returns how many of the targets are published.
fn published(database: &DatabaseStatus) -> String {
    if database.published.is_none() {
        return "-".to_owned();
    }
    format!("{} of {}", database.published_targets(), database.targets.len())
}

/// Returns the lines on all that is not as it should be: the condition, the policy, the names, and
/// the targets that are out.
fn out(database: &DatabaseStatus, now: Time) -> String {
    let mut lines: Vec<String> = Vec::new();
    let is_published = database.condition.as_deref() == Some("Published");
    // The reason of a condition that needs nobody may list all addresses.
    let shown = if database.has_condition_of_trouble() { visible_sentence } else { visible };
    lines.extend(database.reason.iter().filter(|_| !is_published).map(|reason| shown(reason)));
    let others = database.other_published();
    lines.extend(others.map(|others| format!("published, but not checked: {others}")));
    lines.extend(database.policy.iter().map(|note| visible_sentence(note)));
    let failing = database.names.iter().filter(|name| name.failing_since.is_some());
    lines.extend(failing.map(|name| {
        let result = name.result.as_deref().unwrap_or("no answer yet");
        format!("{}: {}", visible(&name.name), visible(result))
    }));
    lines.extend(database.rejected.iter().map(|rejected| {
        format!("{} refused: {}", visible(&rejected.address), visible(&rejected.reason))
    }));
    let is_out = |target: &&TargetStatus| {
        let planned = target.membership.as_ref().and_then(|membership| membership.planned);
        target.mark() == TargetMark::Down || !planned.unwrap_or(target.published)
    };
    let mut out: Vec<&TargetStatus> = database.targets.iter().filter(is_out).collect();
    out.sort_by_key(|target| target.mark());
    let more = out.len().saturating_sub(MAX_LISTED);
    lines.extend(out.iter().take(MAX_LISTED).map(|target| target_line(target, now)));
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

/// Returns a target with its mark and the reason why it is out.
fn target_line(target: &TargetStatus, now: Time) -> String {
    let mark = target.mark();
    let since = duration(between(target.since.0, now.0));
    let mut line = format!("{} {} {}", visible(&target.address), mark.symbol(), mark.word());
    if matches!(mark, TargetMark::Down | TargetMark::Unknown) {
        line += &format!(" {since}");
    }
    if target.published {
        line += ", still published";
    }
    let reason = match mark {
        TargetMark::Maintenance => target.maintenance.clone(),
        TargetMark::Down | TargetMark::Unknown => target.reason.clone(),
        TargetMark::Up | TargetMark::Flapping => {
            target.membership.as_ref().map(|membership| membership.why.clone())
        }
    };
    line += &reason.map(|reason| format!(": {}", visible_sentence(&reason))).unwrap_or_default();
    if let Some(until) = target.maintenance_until.filter(|_| mark == TargetMark::Maintenance) {
        line += &format!(" (until {})", calendar(until));
    }
    line
}

/// Returns a text of which no line is wider than `width`.
pub(crate) fn wrap(text: &str, width: Option<u16>) -> String {
    let Some(width) = width else { return format!("{text}\n") };
    let options = textwrap::Options::new(width.into()).subsequent_indent("  ");
    let lines = text.lines().flat_map(|line| textwrap::wrap(line, &options));
    lines.map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests;
