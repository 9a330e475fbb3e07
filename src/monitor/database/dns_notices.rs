//! The log lines and Events about a database's names.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::DatabaseMonitor;
use super::dns_addresses::{self, NewlyRefused, Observed};
use super::name_status::NameStatus;
use crate::config::{DatabaseId, NameEntry, RejectedAddress};
use crate::health::State;
use crate::monitor::snapshot::NameSnapshot;
use crate::names::{Backing, LookupResult};
use crate::notice::{LogLine, Notice, Reason};
use crate::plan::{self, PolicyNote};
use crate::resolve::LookupOutcome;

/// Lookups in a row, and the time, without a good answer after which people are told.
const MAX_FAILED_LOOKUPS: u32 = 3;
const UNRESOLVED_DELAY: Duration = Duration::from_secs(30);

/// The time for which an address stays that DNS no longer gives before people are told.
const KEPT_DELAY: Duration = Duration::from_secs(30);

/// The state of DNS as a whole. An outage is told once, and not for each name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::monitor) enum DnsService {
    Available,
    Unavailable,
}

impl DatabaseMonitor {
    /// Announces what a lookup has changed.
    pub(super) fn announce_lookup(
        &mut self,
        name: usize,
        observed: &Observed,
        outcome: &LookupOutcome,
        now: Instant,
    ) {
        let Some(dns) = &self.dns else { return };
        let (entry, status) = (&dns.file().names[name], &dns.names()[name]);
        let failing = status.failing;
        self.announce_refused(entry, &observed.newly_refused, now);
        if observed.result == LookupResult::Good {
            if failing.is_some_and(|failing| failing.announced) {
                let note = format!("{} resolves again", entry.name);
                let notice = self.name_notice(entry, Reason::NameResolved, note, now);
                self.recorder.log_and_event(notice, &LogLine::default());
            }
            let at = dns_addresses::current(&status.state);
            self.announce_addresses(entry, &at, observed, outcome, now);
            if let Some(dns) = &mut self.dns {
                dns.names_mut()[name].failing = None;
            }
        }
    }

    /// Announces addresses that may not be published any more.
    pub(super) fn announce_newly_refused(&self, newly_refused: &NewlyRefused, now: Instant) {
        let Some(dns) = &self.dns else { return };
        for (index, refused) in newly_refused {
            self.announce_refused(&dns.file().names[*index], refused, now);
        }
    }

    /// Announces the addresses of an answer that may not be published: each in the log, and all of
    /// them in one Event, because the same Event is emitted for a name only once a minute.
    fn announce_refused(&self, entry: &NameEntry, refused: &[RejectedAddress], now: Instant) {
        let Some(first) = refused.first() else { return };
        let notice = |note| self.name_notice(entry, Reason::AddressRefused, note, now);
        for refused in refused {
            let note = format!("{}: {}", entry.name, refused.reason);
            self.recorder.log(&notice(note), &LogLine::default());
        }
        let others: Vec<IpAddr> = refused[1..].iter().map(|refused| refused.ip).collect();
        let others = match others.len() {
            0 => String::new(),
            _ => format!("; also refused: {}", list(&others)),
        };
        self.recorder.event(|| notice(format!("{}: {}{others}", entry.name, first.reason)));
    }

    /// Announces other addresses of a name, which is now at these.
    fn announce_addresses(
        &self,
        entry: &NameEntry,
        at: &[IpAddr],
        observed: &Observed,
        outcome: &LookupOutcome,
        now: Instant,
    ) {
        let DatabaseId { namespace, service } = &self.database.id;
        let changes = &observed.changes;
        if changes.rotation_suspected {
            let note = format!(
                "each answer of {} has another address; if all of them are right, set `dns: \
                 {{rotating: true}}`",
                entry.name
            );
            let notice = self.name_notice(entry, Reason::NameRotates, note, now);
            self.recorder.log_and_event(notice, &LogLine::default());
        }
        if changes.rotation_missing {
            let (name, message) =
                (&*entry.name, "the name has had one address only; `rotating` delays its moves");
            warn!(%namespace, %service, name, "{message}");
        }
        if observed.newly_too_many {
            let (name, left_out) = (&*entry.name, changes.left_out);
            warn!(%namespace, %service, name, left_out, "the name has too many addresses");
        }
        if changes.added.is_empty() && changes.departed.is_empty() && changes.returned.is_empty() {
            return;
        }
        if entry.settings.rotating {
            let (new, gone) = (list(&changes.added), list(&changes.departed));
            let name = &*entry.name;
            return info!(%namespace, %service, name, new, gone, "addresses of the name");
        }
        let ttl = outcome.ttl.map(|ttl| format!(", TTL {ttl}s")).unwrap_or_default();
        match &observed.before {
            None => info!(%namespace, %service, "{} is at {}{ttl}", entry.name, list(at)),
            Some(before) => {
                let was = list(before);
                let note = format!("{} is at {} (was {was}){ttl}", entry.name, list(at));
                let notice = self.name_notice(entry, Reason::AddressesChanged, note, now);
                self.recorder.log_and_event(notice, &LogLine::default());
            }
        }
    }

    /// Announces that a name has had no good answer for a while: once, and not at all while DNS as
    /// a whole does not answer.
    pub(in crate::monitor) fn announce_unresolved(
        &mut self,
        name: usize,
        dns_service: DnsService,
        now: Instant,
    ) {
        let Some(dns) = &mut self.dns else { return };
        let Some(failing) = dns.names()[name].failing else { return };
        let is_unknown = dns.names()[name].state.newest() == Some(LookupResult::Unknown);
        let lasts = now.saturating_duration_since(failing.since) >= UNRESOLVED_DELAY;
        // What DNS does not know may be an outage of all of it, which takes a while to see.
        let is_due = lasts || !is_unknown && failing.lookups >= MAX_FAILED_LOOKUPS;
        let is_told_for_all = is_unknown && dns_service == DnsService::Unavailable;
        if failing.announced || !is_due || is_told_for_all {
            return;
        }
        if let Some(failing) = &mut dns.names_mut()[name].failing {
            failing.announced = true;
        }
        let Some(dns) = &self.dns else { return };
        let (entry, status) = (&dns.file().names[name], &dns.names()[name]);
        let why = match dns.foreign_ports(name).first() {
            Some(foreign) if status.refused.is_empty() => Some(foreign.clone()),
            _ => status.newest.as_ref().map(|outcome| outcome.describe_failure()),
        };
        let stay = match status.state.addresses().count() + dns.count_lent(name) {
            0 => "it has no address yet".to_owned(),
            1 => "its address stays".to_owned(),
            count => format!("its {count} addresses stay"),
        };
        let note = format!("{} does not resolve: {}; {stay}", entry.name, why.unwrap_or_default());
        let notice = self.name_notice(entry, Reason::NameUnresolved, note, now);
        self.recorder.log_and_event(notice, &LogLine::default());
    }

    /// Logs that addresses have left because another of their name took their place.
    pub(super) fn announce_exchange(&self, exchanged: &[IpAddr]) {
        let Some(dns) = &self.dns else { return };
        let DatabaseId { namespace, service } = &self.database.id;
        for ip in exchanged {
            let Some(target) = self.targets.iter().find(|target| target.member.ip == *ip) else {
                continue;
            };
            let Some(entry) = target.origin.entry.map(|entry| &dns.file().names[entry]) else {
                continue;
            };
            if target.origin.backing == Backing::Released {
                let name = &entry.name;
                info!(%namespace, %service, "{ip} leaves: {name} has not had it for `goneAfter`");
                continue;
            }
            let takes_place = |it: &&crate::monitor::TargetState| {
                it.origin.entry == target.origin.entry
                    && it.origin.backing == Backing::Current
                    && it.health.state() == State::Up
            };
            let new = self.targets.iter().find(takes_place).map(|it| it.member.ip.to_string());
            let new = new.unwrap_or_else(|| "another address".into());
            let name = &entry.name;
            info!(%namespace, %service, "{ip} leaves: {name} is at {new}, which is up");
        }
    }

    /// Follows how long addresses stay that DNS no longer gives, and announces it after a while.
    /// Returns when to call this again.
    pub(super) fn update_kept(&mut self, now: Instant) -> Option<Instant> {
        let note = self.policy_state.notes.iter().find(|note| is_kept(note));
        let Some(note) = note.map(PolicyNote::to_string) else {
            self.policy_state.kept = None;
            return None;
        };
        let (since, announced) = self.policy_state.kept.unwrap_or((now, false));
        let due_at = since.checked_add(KEPT_DELAY)?;
        let is_due = !announced && due_at <= now;
        if is_due {
            let notice = self.notice(Reason::AddressKept, note, now);
            self.recorder.log_and_event(notice, &LogLine::default());
        }
        self.policy_state.kept = Some((since, announced || is_due));
        Some(due_at).filter(|due_at| *due_at > now)
    }

    fn name_notice(&self, entry: &NameEntry, reason: Reason, note: String, at: Instant) -> Notice {
        self.notice(reason, note, at).with_dedup_key(entry.name.to_string())
    }

    /// Returns the names for readers outside the monitor.
    pub(super) fn name_snapshots(&self) -> Vec<NameSnapshot> {
        let Some(dns) = &self.dns else { return Vec::new() };
        let snapshot = |(index, status): (usize, &NameStatus)| NameSnapshot {
            name: dns.file().names[index].name.clone(),
            addresses: status.state.addresses().collect(),
            lent: dns.count_lent(index),
            result: status.state.newest(),
            newest: status.newest.clone(),
            failing_since: status.failing.map(|failing| failing.since),
            changes: status.changes,
            refused: status.refused.clone(),
            foreign_ports: dns.foreign_ports(index),
        };
        dns.names().iter().enumerate().map(snapshot).collect()
    }
}

/// Returns whether a note is about addresses that stay although DNS no longer gives them.
fn is_kept(note: &PolicyNote) -> bool {
    matches!(note, PolicyNote::NotReplaced { .. })
}

fn list(ips: &[IpAddr]) -> String {
    if ips.is_empty() { "no address".to_owned() } else { plan::list_ips(ips) }
}
