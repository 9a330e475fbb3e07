//! `maintenance`: takes addresses out and brings them back. It edits an annotation of the Service,
//! which the daemon in the cluster watches.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow, bail};
use clap::Subcommand;

use super::args::{ServiceName, parse_duration, parse_service};
use super::cluster::ClusterArgs;
use super::console::{Console, Reported, print};
use super::daemon::DaemonArgs;
use super::service::{Edit, ServiceObject};
use crate::annotations::{
    self, MAINTENANCE, MAX_REASON_CHARS, MaintenanceEntry, Subject, remove_entry, set_entry,
};
use crate::clock;
use crate::config::{self, DatabaseId};
use crate::health::State;
use crate::status::{DatabaseStatus, TargetStatus};

mod list;

#[derive(clap::Args)]
pub(super) struct Maintenance {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Take an address out, although it may be healthy
    On(On),
    /// End the maintenance of an address that the annotation has in maintenance
    Off(Off),
    /// List the addresses in maintenance
    List(list::List),
}

impl Maintenance {
    pub(super) fn execute(self) -> Result<ExitCode, Reported> {
        let console = Console::Stderr;
        if let Command::List(list) = self.command {
            return list.execute();
        }
        let text = super::runtime(console)?.block_on(async {
            match &self.command {
                Command::On(on) => on.execute().await,
                Command::Off(off) => off.execute().await,
                Command::List(_) => unreachable!("it was executed above"),
            }
        });
        print(&text.map_err(|error| console.fail(&error))?)?;
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(clap::Args)]
struct On {
    /// The database's Service; without a namespace, that of the kubeconfig counts
    #[arg(value_name = "NAMESPACE/SERVICE", value_parser = parse_service)]
    service: ServiceName,
    /// The address, or a host name of the database for all addresses that it has, now and later
    #[arg(value_name = "ADDRESS", value_parser = parse_subject)]
    subject: Subject,
    /// The reason, which is shown wherever the address is
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    reason: String,
    /// End it after this time, as in 2h or 30m
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_length)]
    length: Option<Duration>,
    /// End it at this time, as in 2026-11-28T14:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_until, conflicts_with = "length")]
    until: Option<SystemTime>,
    /// Do not ask the daemon, which refuses unknown addresses and the last one that is up
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(clap::Args)]
struct Off {
    /// The database's Service; without a namespace, that of the kubeconfig counts
    #[arg(value_name = "NAMESPACE/SERVICE", value_parser = parse_service)]
    service: ServiceName,
    /// The address or the host name
    #[arg(value_name = "ADDRESS", value_parser = parse_subject, required_unless_present = "all")]
    subject: Option<Subject>,
    /// Remove the whole annotation
    #[arg(long, conflicts_with = "subject")]
    all: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl On {
    async fn execute(&self) -> anyhow::Result<String> {
        let cluster = self.daemon.cluster.open().await?;
        let id = self.service.clone().in_namespace(cluster.default_namespace());
        let database = match self.force {
            true => None,
            false => Some(self.check(&id).await?),
        };
        let is_known =
            |subject: &Subject| database.as_ref().is_some_and(|database| knows(database, subject));
        let now = clock::to_wall_clock(clock::now());
        let until = self.until.or_else(|| self.length.map(|length| end_of(now, length)));
        let entry = MaintenanceEntry {
            subject: self.subject.clone(),
            reason: self.reason.as_str().into(),
            until,
        };
        let edit = |value: &str| {
            let value = set_entry(value, &entry, is_known).map_err(|error| anyhow!("{error}"))?;
            Ok(Edit::Set(value))
        };
        ServiceObject::new(&cluster, &id).edit_annotation(MAINTENANCE, edit).await?;
        let end = until.map_or_else(
            || format!("it ends with `maintenance off {id} {}`", self.subject),
            |until| format!("it ends at {}", clock::rfc3339_seconds(until)),
        );
        Ok(format!("{id}: {} is in maintenance: {}; {end}\n", self.subject, self.reason))
    }

    /// Returns the database as the daemon has it, unless the maintenance would be a mistake.
    async fn check(&self, id: &DatabaseId) -> anyhow::Result<DatabaseStatus> {
        let report = self.daemon.report().await.with_context(|| {
            format!("can't learn the addresses of {id}; with --force any address is accepted")
        })?;
        let is_same =
            |it: &DatabaseStatus| it.namespace == id.namespace && it.service == id.service;
        let Some(database) = report.status.databases.iter().find(|it| is_same(it)) else {
            let all = report.status.databases.iter();
            let all: Vec<String> =
                all.map(|it| format!("{}/{}", it.namespace, it.service)).collect();
            bail!("the daemon has no database {id}; it has: {}", shorten(all));
        };
        if !knows(database, &self.subject) {
            let addresses = database.targets.iter().map(|target| target.address.clone());
            let names = database.names.iter().map(|name| name.name.clone());
            let (subject, kind) = (&self.subject, self.subject.kind());
            let known = shorten(addresses.chain(names).collect());
            bail!("{subject} is no {kind} of {id}, which has: {known}");
        }
        let is_taken = |target: &TargetStatus| match &self.subject {
            Subject::Ip(ip) => target.address == ip.to_string(),
            Subject::Name(name) => {
                target.name.as_deref().is_some_and(|its| its.eq_ignore_ascii_case(name))
            }
        };
        let is_left = |target: &TargetStatus| {
            target.health == State::Up && target.maintenance.is_none() && !is_taken(target)
        };
        let takes_published = database.targets.iter().any(|it| it.published && is_taken(it));
        if takes_published && !database.targets.iter().any(is_left) {
            bail!(
                "no other address of {id} is up, so clients may be left with none (unless the \
                 policy has minHealthy); repeat with --force if that is meant"
            );
        }
        Ok(database.clone())
    }
}

impl Off {
    async fn execute(&self) -> anyhow::Result<String> {
        let cluster = self.cluster.open().await?;
        let id = self.service.clone().in_namespace(cluster.default_namespace());
        let object = ServiceObject::new(&cluster, &id);
        let Some(subject) = &self.subject else {
            object.edit_annotation(MAINTENANCE, |_| Ok(Edit::Remove)).await?;
            return Ok(format!("{id}: no address is in maintenance by annotation\n"));
        };
        // A name that follows a comma belongs to the reason before it, unless it is the one to end.
        let is_known = |other: &Subject| other == subject;
        let edit = |value: &str| match remove_entry(value, subject, is_known) {
            Some(value) if value.is_empty() => Ok(Edit::Remove),
            Some(value) => Ok(Edit::Set(value)),
            None => {
                let entries = annotations::entries(value, is_known);
                let all: Vec<String> =
                    entries.iter().map(|entry| entry.subject.to_string()).collect();
                match all.is_empty() {
                    true => bail!(
                        "no address of {id} is in maintenance by annotation; maintenance of the \
                         config ends with its key `maintenance`"
                    ),
                    false => bail!(
                        "{subject} has no entry in the annotation of {id}; in maintenance are: {}",
                        shorten(all)
                    ),
                }
            }
        };
        object.edit_annotation(MAINTENANCE, edit).await?;
        Ok(format!("{id}: {subject} is no longer in maintenance by annotation\n"))
    }
}

/// Returns whether a database has an address or a name.
fn knows(database: &DatabaseStatus, subject: &Subject) -> bool {
    match subject {
        Subject::Ip(ip) => {
            let ip = ip.to_string();
            database.targets.iter().any(|target| target.address == ip)
        }
        Subject::Name(name) => {
            database.names.iter().any(|entry| entry.name.eq_ignore_ascii_case(name))
        }
    }
}

/// Returns the end of a maintenance, in whole seconds.
fn end_of(now: SystemTime, length: Duration) -> SystemTime {
    let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + length;
    let seconds = since_1970.as_secs() + u64::from(since_1970.subsec_nanos() > 0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// The items of a list that an error shows.
const MAX_ITEMS: usize = 20;

/// Returns a list as an error shows it.
fn shorten(mut items: Vec<String>) -> String {
    let surplus = items.len().saturating_sub(MAX_ITEMS);
    items.truncate(MAX_ITEMS);
    match (items.is_empty(), surplus) {
        (true, _) => "none".to_owned(),
        (false, 0) => items.join(", "),
        (false, surplus) => format!("{} and {surplus} more", items.join(", ")),
    }
}

fn parse_subject(text: &str) -> Result<Subject, String> {
    Subject::parse(text)
        .ok_or_else(|| "write an IP, as in 10.20.1.21, or a host name of the database".to_owned())
}

fn parse_reason(text: &str) -> Result<String, String> {
    let reason = text.trim();
    let length = reason.chars().count();
    if reason.is_empty() {
        return Err("write why, as in \"disk swap\"".to_owned());
    }
    if length > MAX_REASON_CHARS {
        return Err(format!("it has {length} characters; write at most {MAX_REASON_CHARS}"));
    }
    if reason.contains(char::is_control) {
        return Err("a reason is one line; remove line breaks and control characters".to_owned());
    }
    if let Some((number, name)) = config::first_invisible(reason) {
        return Err(format!("its character {number} is invisible ({name}); remove it"));
    }
    Ok(reason.to_owned())
}

fn parse_length(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("it would be over at once; write a duration as in 2h".to_owned()),
        length => Ok(length),
    }
}

fn parse_until(text: &str) -> Result<SystemTime, String> {
    let until = annotations::parse_time(text).ok_or_else(|| {
        let pieces = jiff::fmt::temporal::Pieces::parse(text);
        match pieces.is_ok_and(|pieces| pieces.date().year() == 9999 && pieces.offset().is_some()) {
            true => "this time is too late; write one before 9999-12-30, or none for no end",
            false => "write a time with its zone, as in 2026-11-28T14:00:00Z",
        }
    })?;
    if until <= clock::to_wall_clock(clock::now()) {
        return Err("this time is over; write a later one".to_owned());
    }
    Ok(end_of(until, Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_whole_second() {
        let at = |seconds: f64| SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds);
        assert_eq!(end_of(at(100.25), Duration::from_secs(60)), at(161.0));
        assert_eq!(end_of(at(100.0), Duration::from_secs(60)), at(160.0));
    }

    #[test]
    fn a_long_list_is_shortened() {
        let items = |count: usize| (0..count).map(|item| item.to_string()).collect();
        assert_eq!(shorten(items(0)), "none");
        assert_eq!(shorten(items(2)), "0, 1");
        assert!(shorten(items(23)).ends_with("18, 19 and 3 more"));
    }

    #[test]
    fn each_argument_says_what_to_write() {
        assert!(parse_subject("10.0.0.300").is_err() && parse_subject("pg").is_err());
        assert!(parse_reason(" ").is_err() && parse_reason(&"x".repeat(201)).is_err());
        assert!(parse_reason("a\nb").is_err());
        let turned = parse_reason("x\u{202e}y").expect_err("an invisible character");
        assert!(turned.starts_with("its character 2 is invisible (U+202E RIGHT"), "{turned}");
        let late = parse_until("9999-12-31T23:59:59Z").expect_err("too late");
        assert!(late.contains("too late"), "{late}");
        assert!(parse_length("0s").is_err() && parse_length("366d").is_err());
        assert_eq!(parse_length("2h"), Ok(Duration::from_secs(7200)));
        assert!(parse_until("14:00").is_err() && parse_until("2001-01-01T00:00:00Z").is_err());
        assert!(parse_until("2999-01-01T00:00:00.5Z").is_ok());
    }
}
