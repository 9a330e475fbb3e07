//! The status as a table for people: a row for each database, those in trouble first.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use comfy_table::{ContentArrangement, Table};
use unicode_width::UnicodeWidthStr as _;

use super::text::{address_list, between, calendar, duration, visible, visible_sentence};
use super::{
    DaemonStatus, DatabaseStatus, ReplicaRole, ReplicaStatus, TargetMark, TargetStatus, Time,
    host_of,
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
    let mut table = StatusTable::new(replica.now, layout);
    databases.iter().for_each(|database| table.add(database));
    table.finish(replica, replicas)
}

/// A table in the making. It takes little memory beside the statuses, which need not exist all at
/// once.
#[derive(Debug)]
pub(crate) struct StatusTable {
    now: Time,
    layout: Layout,
    counts: Counts,
    /// The cells of each row: of those in trouble, and of the others.
    trouble: Vec<Vec<String>>,
    fine: Vec<Vec<String>>,
}

/// The numbers of all databases.
#[derive(Debug, Default)]
struct Counts {
    databases: usize,
    trouble: usize,
    targets: usize,
    published: usize,
    marks: BTreeMap<TargetMark, usize>,
}

impl StatusTable {
    pub(crate) fn new(now: Time, layout: Layout) -> Self {
        let (counts, trouble, fine) = (Counts::default(), Vec::new(), Vec::new());
        Self { now, layout, counts, trouble, fine }
    }

    /// Adds the next database.
    pub(crate) fn add(&mut self, database: &DatabaseStatus) {
        self.counts.add(database);
        let row = row(database, self.now, self.layout.detail);
        match database.is_in_trouble() {
            true => self.trouble.push(row),
            false => self.fine.push(row),
        }
    }

    /// Returns the text, with the lines on the replica.
    pub(crate) fn finish(self, replica: &ReplicaStatus, replicas: Replicas) -> String {
        let mut lines = vec![replica_line(replica, replicas)];
        lines.extend(banners(replica));
        lines.push(self.counts.to_string());
        let mut text = wrap(&lines.join("\n"), self.layout.width);
        if self.counts.databases > 0 {
            text += "\n";
            let rows = self.trouble.into_iter().chain(self.fine).collect();
            text += &match self.layout.width {
                Some(width) => fitted(self.layout.detail, rows, width),
                None => aligned(self.layout.detail, rows),
            };
        }
        text
    }
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
    visible(host_of(identity))
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
        lines.push(match (lease.describe_trouble(), &lease.holder) {
            (Some(trouble), _) => trouble,
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

impl Counts {
    fn add(&mut self, database: &DatabaseStatus) {
        self.databases += 1;
        self.trouble += usize::from(database.is_in_trouble());
        self.targets += database.targets.len();
        self.published += database.published_targets();
        for target in &database.targets {
            *self.marks.entry(target.mark()).or_default() += 1;
        }
    }
}

/// Writes a line.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { databases, trouble, targets, published, marks } = self;
        let plural = |count: usize, one: &str, more: &str| match count {
            1 => format!("1 {one}"),
            count => format!("{count} {more}"),
        };
        let databases = plural(*databases, "database", "databases");
        let targets = plural(*targets, "address", "addresses");
        write!(f, "{databases}, {trouble} in trouble; {targets}: {published} published")?;
        for (mark, words) in [
            (TargetMark::Down, "down"),
            (TargetMark::Flapping, "flapping"),
            (TargetMark::Maintenance, "in maintenance"),
            (TargetMark::Unknown, "unknown"),
        ] {
            if let Some(count) = marks.get(&mark) {
                write!(f, ", {count} {words}")?;
            }
        }
        Ok(())
    }
}

fn header(detail: Detail) -> Vec<&'static str> {
    let mut header = vec!["NAMESPACE", "SERVICE", "CONDITION", "PUBLISHED"];
    header.extend(["SINCE", "ADDRESSES"].iter().filter(|_| detail == Detail::Wide));
    header.push("OUT");
    header
}

/// Returns the cells of a database.
fn row(database: &DatabaseStatus, now: Time, detail: Detail) -> Vec<String> {
    let mut row = vec![
        visible(&database.namespace),
        visible(&database.service),
        database.condition.as_deref().map_or_else(|| "-".to_owned(), visible),
        published(database),
    ];
    if detail == Detail::Wide {
        let since = database.since.map(|since| duration(between(since.0, now.0)));
        row.push(since.unwrap_or_else(|| "-".to_owned()));
        row.push(published_list(database).unwrap_or_else(|| "-".to_owned()));
    }
    row.push(out(database, now));
    row
}

/// Returns the addresses that the cluster holds, each with the details of its server if a check
/// asks for them; none while that is unknown.
fn published_list(database: &DatabaseStatus) -> Option<String> {
    let published = database.published.as_ref()?;
    let observed = database.targets.iter().filter_map(|target| {
        let details = target.observation.as_ref()?.describe();
        Some((&*target.address, details)).filter(|(_, details)| !details.is_empty())
    });
    let observed: HashMap<&str, String> = observed.collect();
    let with_details = published.iter().map(|ip| match observed.get(&**ip) {
        Some(details) => format!("{ip} ({details})"),
        None => ip.clone(),
    });
    Some(address_list(&with_details.collect::<Vec<_>>()))
}

/// Returns a table that fits a terminal.
fn fitted(detail: Detail, rows: Vec<Vec<String>>, width: u16) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(width);
    table.set_header(header(detail));
    table.add_rows(rows);
    let lines = table.to_string();
    lines.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Returns a table of any width. Nothing is padded to the width of the last column: one long text
/// would else make ten thousand short rows as long.
fn aligned(detail: Detail, rows: Vec<Vec<String>>) -> String {
    let header: Vec<String> = header(detail).into_iter().map(str::to_owned).collect();
    let columns = header.len() - 1;
    let mut widths = vec![0; columns];
    for row in std::iter::once(&header).chain(&rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.width().max(*width);
        }
    }
    let indent = widths.iter().map(|width| " ".repeat(width + 2)).collect::<String>();
    let mut text = String::new();
    for row in std::iter::once(header).chain(rows) {
        let mut line = String::from(" ");
        for (width, cell) in widths.iter().zip(&row) {
            line += cell;
            line.extend(std::iter::repeat_n(' ', width + 2 - cell.width()));
        }
        for (number, part) in row[columns].split('\n').enumerate() {
            let line = if number == 0 { &line } else { &format!(" {indent}") };
            text += format!("{line}{part}").trim_end();
            text.push('\n');
        }
    }
    text
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
        target.mark() == TargetMark::Down || !target.planned().unwrap_or(target.published)
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
