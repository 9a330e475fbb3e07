//! The names of all databases: which are asked for, and the outcomes of their lookups.
//!
//! Entries of several databases with the same name share one lookup.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Instant;

use super::Monitor;
use super::database::DnsService;
use crate::config::DatabaseId;
use crate::names::Families;
use crate::notice::{LogLine, Notice, Reason, Regarding};
use crate::resolve::{Command, Handle, LookupOutcome, NameKey, Wanted};

/// Names that DNS must not know, at the least, for an outage of all of DNS.
const MIN_UNKNOWN: usize = 5;

/// The names of all databases.
pub(super) struct Names {
    resolver: Handle,
    known: HashMap<NameKey, Name>,
    /// Names whose newest result is unknown.
    unknown: usize,
    /// True while DNS as a whole does not answer.
    is_unavailable: bool,
}

/// One name.
struct Name {
    /// The indices of the databases, each with that of the entry.
    users: Vec<(usize, usize)>,
    wanted: Wanted,
    newest: Option<Arc<LookupOutcome>>,
}

impl Names {
    /// Creates the registry of no names.
    pub(super) fn new(resolver: Handle) -> Self {
        Self { resolver, known: HashMap::new(), unknown: 0, is_unavailable: false }
    }

    fn dns_service(&self) -> DnsService {
        match self.is_unavailable {
            true => DnsService::Unavailable,
            false => DnsService::Available,
        }
    }

    /// Returns whether DNS as a whole does not answer: for more than half of all names. That ends
    /// at a quarter, so that one name at the edge does not begin and end it.
    fn is_unavailable_now(&self) -> bool {
        let share = if self.is_unavailable { 4 } else { 2 };
        self.unknown >= MIN_UNKNOWN && self.unknown * share > self.known.len()
    }

    fn recount(&mut self) {
        let is_unknown =
            |name: &&Name| name.newest.as_deref().is_some_and(LookupOutcome::is_unknown);
        self.unknown = self.known.values().filter(is_unknown).count();
    }
}

impl Monitor {
    /// Brings the registry to the names of all databases, after a reload.
    pub(super) fn reindex_names(&mut self, now: Instant) {
        let mut before = std::mem::take(&mut self.names.known);
        for index in 0..self.databases.len() {
            for (entry, (key, wanted)) in
                self.databases[index].wanted_names().into_iter().enumerate()
            {
                match self.names.known.entry(key) {
                    Entry::Occupied(known) => {
                        let known = known.into_mut();
                        known.users.push((index, entry));
                        known.wanted = merge(known.wanted, wanted);
                    }
                    Entry::Vacant(free) => {
                        let newest = before.get_mut(free.key()).and_then(|it| it.newest.take());
                        free.insert(Name { users: vec![(index, entry)], wanted, newest });
                    }
                }
            }
        }
        for (key, name) in &self.names.known {
            if before.remove(key).is_none_or(|before| before.wanted != name.wanted) {
                self.names.resolver.send(Command::Insert(key.clone(), name.wanted));
            }
        }
        before.into_keys().for_each(|key| self.names.resolver.send(Command::Remove(key)));
        self.names.recount();
        self.apply_known_answers(now);
    }

    /// Applies the newest answers to entries that are new and whose name was known before.
    fn apply_known_answers(&mut self, now: Instant) {
        let answered = self.names.known.values().filter_map(|name| {
            let newest = name.newest.clone()?;
            Some(name.users.iter().map(move |user| (*user, newest.clone())))
        });
        let answered: Vec<_> = answered.flatten().collect();
        for ((database, entry), newest) in answered {
            if !self.databases[database].has_lookup(entry) {
                self.databases[database].apply_lookup(entry, &newest, &mut self.freeze, now);
                self.after_change(database);
            }
        }
    }

    /// Asks for the names of a database in another way, after its Service has changed.
    pub(super) fn update_wanted(&mut self, index: usize) {
        for (key, _) in self.databases[index].wanted_names() {
            let Some(name) = self.names.known.get(&key) else { continue };
            let all = name.users.iter();
            let all =
                all.filter_map(|(database, entry)| self.databases[*database].wanted_name(*entry));
            let Some(wanted) = all.reduce(merge) else { continue };
            if wanted != name.wanted {
                self.names.resolver.send(Command::Insert(key.clone(), wanted));
                self.names.known.entry(key).and_modify(|name| name.wanted = wanted);
            }
        }
    }

    /// Applies the outcome of a lookup. One of a name that has left the config is dropped.
    pub(super) fn apply_lookup(&mut self, key: &NameKey, outcome: &LookupOutcome, now: Instant) {
        let Some(name) = self.names.known.get_mut(key) else { return };
        // The copy has no room to spare. It also lies where the monitor's memory lies, and not
        // between the messages of the resolver, which come and go.
        let outcome = Arc::new(outcome.clone());
        let before = name.newest.replace(outcome.clone());
        self.names.unknown -= usize::from(before.as_deref().is_some_and(LookupOutcome::is_unknown));
        self.names.unknown += usize::from(outcome.is_unknown());
        let users = name.users.clone();
        self.announce_dns(&outcome, now);
        let dns_service = self.names.dns_service();
        for (database, entry) in users {
            let changed = &mut self.databases[database];
            changed.apply_lookup(entry, &outcome, &mut self.freeze, now);
            changed.announce_unresolved(entry, dns_service, now);
            self.after_change(database);
        }
    }

    /// Announces that DNS does not answer for most names, or does again.
    fn announce_dns(&mut self, outcome: &LookupOutcome, now: Instant) {
        let is_unavailable = self.names.is_unavailable_now();
        if std::mem::replace(&mut self.names.is_unavailable, is_unavailable) == is_unavailable {
            return;
        }
        let (reason, note) = match is_unavailable {
            true => {
                let why = outcome.describe_failure();
                let note = format!("DNS says nothing of most names ({why}); their addresses stay");
                (Reason::DnsUnavailable, note)
            }
            false => (Reason::DnsAvailable, "DNS answers again".to_owned()),
        };
        let notice = Notice::new(Regarding::Daemon, reason, note, now);
        self.recorder.log_and_event(notice, &LogLine::default());
    }

    /// Passes a command of a database to the resolver. A name is hurried for as long as any of its
    /// databases needs it.
    pub(super) fn pass_to_resolver(&self, command: Command) {
        if let Command::Calm(key) = &command
            && let Some(name) = self.names.known.get(key)
            && name.users.iter().any(|(database, entry)| self.databases[*database].hurries(*entry))
        {
            return;
        }
        self.names.resolver.send(command);
    }

    /// Applies the facts about the Service of a database.
    pub(super) fn set_service_facts(
        &mut self,
        id: &DatabaseId,
        facts: super::ServiceFacts,
        now: Instant,
    ) {
        let Some(&index) = self.by_id.get(id) else { return };
        if self.databases[index].set_service_facts(facts, &mut self.freeze, now) {
            self.update_wanted(index);
        }
        self.after_change(index);
    }
}

/// Returns the way to ask that serves both.
fn merge(a: Wanted, b: Wanted) -> Wanted {
    let families = match (a.families, b.families) {
        (Some(a), Some(b)) => Some(Families { ipv4: a.ipv4 || b.ipv4, ipv6: a.ipv6 || b.ipv6 }),
        // The one that is known need not wait for the other.
        (known, None) | (None, known) => known,
    };
    Wanted { families, refresh: a.refresh.min(b.refresh) }
}

#[cfg(test)]
mod tests;
