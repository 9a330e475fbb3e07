//! The status page for people: HTML that is made on the server, without script, image or font.
//!
//! A page shows text that hostile databases wrote. maud escapes it, the Content-Security-Policy
//! allows nothing but the one style, and `text` keeps it short and in its place. Trouble comes
//! first. A page is made a row at a time, so its memory does not grow with the number of rows. The
//! table in plain text is made as a whole, and has little but its text in memory.

use crate::status::table::{Layout, Replicas, StatusTable};
use crate::status::{DatabaseStatus, ReplicaStatus, Time};
pub use layout::CONTENT_SECURITY_POLICY;
use layout::Counts;
pub use query::Query;
use query::Refresh;
use section::Place;

mod bar;
mod layout;
mod plain;
mod query;
mod section;
mod text;

/// The media type of the pages of HTML.
pub const CONTENT_TYPE: &str = "text/html; charset=utf-8";

/// The media type of the pages of text.
pub const PLAIN_CONTENT_TYPE: &str = "text/plain; charset=utf-8";

/// The seconds after which the browser loads the page again.
const REFRESH_INTERVAL: u32 = 10;

/// The same for a page of more targets than [`MANY_TARGETS`].
const SLOW_REFRESH_INTERVAL: u32 = 60;

const MANY_TARGETS: usize = 1000;

/// Returns the seconds after which the browser loads a page with this many targets again; none if
/// that is paused.
pub fn refresh_interval(query: &Query, targets: usize) -> Option<u32> {
    (query.refresh == Refresh::On).then(|| interval(targets))
}

fn interval(targets: usize) -> u32 {
    if targets > MANY_TARGETS { SLOW_REFRESH_INTERVAL } else { REFRESH_INTERVAL }
}

/// The first look at all databases, from which the page is made.
#[derive(Debug, Default)]
pub struct Survey {
    counts: Counts,
    /// The databases that are shown: in trouble or not, and their indices.
    shown: Vec<(Rank, usize)>,
    shown_targets: usize,
}

/// The order of databases on the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Trouble,
    Fine,
}

impl Survey {
    /// Adds the next database.
    pub fn add(&mut self, query: &Query, index: usize, database: &DatabaseStatus) {
        let rank = if database.is_in_trouble() { Rank::Trouble } else { Rank::Fine };
        self.counts.add(database);
        if let Some(targets) = query.select(database) {
            self.shown_targets += targets.len();
            self.shown.push((rank, index));
        }
    }

    /// Returns the number of targets that are shown.
    pub fn shown_targets(&self) -> usize {
        self.shown_targets
    }
}

/// Returns the parts of the page of all databases. Databases in trouble come first. `status`
/// returns the status of the database with an index.
pub fn overview(
    replica: ReplicaStatus,
    query: Query,
    survey: Survey,
    status: impl Fn(usize) -> DatabaseStatus,
) -> impl Iterator<Item = String> {
    let now = replica.now;
    let head = overview_head(&replica, &query, &survey);
    let tail = layout::left_behind(&replica.left_behind).into_string() + layout::END;
    let mut shown = survey.shown;
    shown.sort();
    let sections = shown.into_iter().flat_map(move |(_, index)| {
        let database = status(index);
        let selected = query.select(&database).unwrap_or_default();
        section::section(database, selected, Place::Overview, now)
    });
    std::iter::once(head).chain(sections).chain(std::iter::once(tail))
}

fn overview_head(replica: &ReplicaStatus, query: &Query, survey: &Survey) -> String {
    let counts = survey.counts;
    let title = match counts.trouble {
        0 if replica.is_in_trouble() => "replica in trouble – external-endpoints".to_owned(),
        0 => "external-endpoints".to_owned(),
        trouble => format!("{trouble} in trouble – external-endpoints"),
    };
    let heading = match counts.trouble {
        0 if replica.is_in_trouble() => "This replica is in trouble".to_owned(),
        0 => "No database in trouble".to_owned(),
        trouble => format!("{trouble} of {} databases in trouble", counts.databases),
    };
    let content = maud::html! {
        (layout::header(replica))
        (layout::controls(query, counts, interval(survey.shown_targets)))
    };
    let heading = maud::html! {
        h1 { (heading) }
        @if survey.shown.is_empty() { p { "Nothing to show here." } }
    };
    layout::start(&title) + &content.into_string() + "<main>" + &heading.into_string()
}

/// Returns the same page as plain text: the table of the command `status`.
pub fn plain_overview(
    replica: &ReplicaStatus,
    survey: Survey,
    status: impl Fn(usize) -> DatabaseStatus,
) -> String {
    let mut table = StatusTable::new(replica.now, Layout::default());
    survey.shown.into_iter().for_each(|(_, index)| table.add(&status(index)));
    table.finish(replica, Replicas::default())
}

/// Returns the page of one database as plain text.
pub fn plain_database(now: Time, database: &DatabaseStatus) -> String {
    let all = Query::default().select(database).unwrap_or_default();
    let text = plain::database(database, &all, now);
    text.trim_start().to_owned() + &plain::changes(&database.changes)
}

/// Returns the parts of the page of one database, with its newest changes.
pub fn database(
    replica: &ReplicaStatus,
    query: &Query,
    database: DatabaseStatus,
) -> impl Iterator<Item = String> + use<> {
    let DatabaseStatus { namespace, service, changes, .. } = &database;
    let now = replica.now;
    let mark = if database.is_in_trouble() { "in trouble – " } else { "" };
    let all: Vec<usize> = Query::default().select(&database).unwrap_or_default();
    let content = maud::html! {
        (layout::header(replica))
        nav aria-label="Pages" {
            ul { li { a href="../../" { "All databases" } } }
            (layout::pause(query, interval(all.len())))
        }
    };
    let heading = maud::html! { h1 { (namespace) "/" (service) } };
    let head = layout::start(&format!("{namespace}/{service} {mark}external-endpoints"))
        + &content.into_string()
        + "<main>"
        + &heading.into_string();
    let tail = section::changes(changes, now).into_string() + layout::END;
    let section = section::section(database, all, Place::Own, now);
    std::iter::once(head).chain(section).chain(std::iter::once(tail))
}

impl Counts {
    fn add(&mut self, database: &DatabaseStatus) {
        use crate::status::TargetMark;
        self.databases += 1;
        self.trouble += usize::from(database.is_in_trouble());
        self.targets += database.targets.len();
        for target in &database.targets {
            self.published += usize::from(target.published);
            self.down += usize::from(target.mark() == TargetMark::Down);
            self.maintenance += usize::from(target.mark() == TargetMark::Maintenance);
        }
    }
}

#[cfg(test)]
mod tests;
