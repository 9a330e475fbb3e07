//! Compiles the `dns` keys of a database and its names, and warns of those without effect and of
//! names that nothing limits.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::Compiler;
use crate::config::dns::{Dns, DnsKeys};
use crate::config::dns_name::NameKind;
use crate::config::ip::AllowedNetworks;
use crate::config::language::reader::FromNode as _;
use crate::config::language::spanned::Field;
use crate::config::problem::{Collector, Location, Reported, quote};
use crate::config::records;
use crate::config::spec::{DatabaseId, NameEntry};

/// The highest `priority` of a service, which may have as many tiers as there are SRV priorities.
const MAX_SERVICE_PRIORITY: u32 = u32::MAX - u16::MAX as u32;

/// The `dns` keys of a database over those of `defaults`, and the checked form.
pub(super) struct DnsLayers {
    keys: Result<DnsKeys, Reported>,
    compiled: Result<Dns, Reported>,
}

/// The facts about all names of a file that its warnings need.
#[derive(Default)]
pub(super) struct NameFacts {
    /// The lists of networks, each once: thousands of names may share one.
    networks: BTreeSet<AllowedNetworks>,
    /// The first name that no network limits.
    first_unlimited: Option<(String, Location)>,
    unlimited_count: usize,
    /// The `forgetAfter` keys by their offset in the file.
    forget_after: BTreeMap<u32, ForgetAfterUse>,
}

/// A `forgetAfter` key, and the names that it is for.
struct ForgetAfterUse {
    location: Location,
    has_rotating_name: bool,
}

impl Compiler<'_> {
    /// Returns the `dns` keys of a database over those of `defaults`.
    pub(super) fn dns_layers(&mut self, database: &records::Database) -> DnsLayers {
        let keys = self.dns_keys(&database.dns);
        let compiled = match &keys {
            Ok(keys) => self.compile_dns(keys),
            Err(Reported) => Err(Reported),
        };
        DnsLayers { keys, compiled }
    }

    fn dns_keys(&self, own: &Field<DnsKeys>) -> Result<DnsKeys, Reported> {
        let defaults = self.defaults.dns.or(DnsKeys::default())?;
        Ok(own.or(DnsKeys::default())?.overlay(&defaults))
    }

    fn compile_dns(&mut self, keys: &DnsKeys) -> Result<Dns, Reported> {
        let dns = keys.compile(self.problems)?;
        self.warn_of_networks(keys, &dns);
        let networks = &mut self.name_facts.networks;
        let within = match networks.get(&dns.within) {
            Some(known) => known.clone(),
            None => {
                networks.insert(dns.within.clone());
                dns.within
            }
        };
        Ok(Dns { within, ..dns })
    }

    /// Warns of networks in which no address may be.
    fn warn_of_networks(&mut self, keys: &DnsKeys, dns: &Dns) {
        let Some(written) = keys.within.given() else { return };
        let follows = |network: &IpNet| match dns.families {
            Some(families) => families.contains(network.addr()),
            None => true,
        };
        let message = if !self.allowed.overlaps(&dns.within) {
            format!(
                "no address is both in here and in what --allow-cidr allows ({}), so none is ever \
                 published; write networks inside those",
                self.allowed
            )
        } else if !dns.within.networks().iter().any(follows) {
            "no network in here is of a family in `families`, so no address is ever published; \
             write one that is"
                .into()
        } else {
            return;
        };
        self.problems.warn_at(&written.location, message);
    }

    /// Returns the settings of a name: its own keys over those of the database.
    pub(super) fn dns_of_entry(
        &mut self,
        own: &Field<DnsKeys>,
        database: &DnsLayers,
    ) -> Result<Dns, Reported> {
        let keys = database.keys.as_ref().map_err(|reported| *reported)?;
        let (keys, dns) = match own {
            Field::Absent => (Cow::Borrowed(keys), database.compiled.clone()?),
            Field::Invalid => return Err(Reported),
            Field::Given(own) => {
                let keys = own.value.overlay(keys);
                let dns = self.compile_dns(&keys)?;
                (Cow::Owned(keys), dns)
            }
        };
        if let Some(written) = keys.forget_after.given() {
            let place = written.location.span.start;
            let location = || written.location.clone();
            let used = self.name_facts.forget_after.entry(place).or_insert_with(|| {
                ForgetAfterUse { location: location(), has_rotating_name: false }
            });
            used.has_rotating_name |= dns.settings.rotating;
        }
        Ok(dns)
    }

    /// Reports `dns` keys of an IP.
    pub(super) fn reject_dns_of_ip(&mut self, keys: &records::Address) -> Result<(), Reported> {
        let location = match &keys.dns {
            Field::Absent => return Ok(()),
            Field::Invalid => return Err(Reported),
            Field::Given(dns) => &dns.location,
        };
        let message = "DNS is not asked for an IP; remove `dns`, or write a host name as `address`";
        Err(self.problems.error_at_key(location, message))
    }

    /// Reports a name that leads back to the Service of its own database. A headless Service would
    /// then keep its addresses in DNS by itself. With an unknown domain behind `svc` it may be the
    /// Service of the same name in another cluster, so that is a warning.
    pub(super) fn reject_own_name(
        &mut self,
        keys: &records::Address,
        entry: &NameEntry,
        id: &DatabaseId,
    ) -> Result<(), Reported> {
        let Some(written) = keys.address.given() else { return Err(Reported) };
        let own = format!("{}.{}.svc", id.service, id.namespace);
        let name = &*entry.name;
        // What stands before is a hostname of the Service, and what stands behind a domain.
        let is_whole = |start: usize| start == 0 || name[..start].ends_with('.');
        let found = name.match_indices(&own).find(|(start, _)| is_whole(*start));
        let Some((start, _)) = found else { return Ok(()) };
        let domain = &name[start + own.len()..];
        let shown = quote(name);
        let message = match domain {
            "" | ".cluster.local" => format!(
                "{shown} is a name of {id} itself, which leads back to what is published here; \
                 write the name of the database outside the cluster"
            ),
            _ if domain.starts_with('.') => {
                let message = format!(
                    "if `{}` is the domain of this cluster, {shown} is a name of {id} itself, \
                     which leads back to what is published here; write the name of the database \
                     outside the cluster",
                    &domain[1..]
                );
                self.problems.warn_at(&written.location, message);
                return Ok(());
            }
            _ => return Ok(()),
        };
        Err(self.problems.error_at(&written.location, message))
    }

    /// Reports a service whose tiers would not all have a number. Each SRV priority below the first
    /// is one tier lower.
    pub(super) fn reject_tiers_beyond_the_last(
        &mut self,
        keys: &records::Address,
        entry: &NameEntry,
    ) -> Result<(), Reported> {
        let Some(written) = keys.priority.given() else { return Err(Reported) };
        if entry.kind != NameKind::Service || entry.priority <= MAX_SERVICE_PRIORITY {
            return Ok(());
        }
        let message = format!(
            "{} leaves no numbers for the tiers of the SRV priorities, which follow it; write at \
             most {MAX_SERVICE_PRIORITY}",
            entry.priority
        );
        Err(self.problems.error_at(&written.location, message))
    }

    /// Collects what the warnings about all names need of one.
    pub(super) fn note_name(&mut self, keys: &records::Address, entry: &NameEntry) {
        let Some(written) = keys.address.given() else { return };
        if entry.name.ends_with(".svc") {
            let message = format!(
                "search domains are not used, so a name that ends in `.svc` is most likely not \
                 found; write `{}.cluster.local`, or the domain of your cluster",
                entry.name
            );
            self.problems.warn_at(&written.location, message);
        }
        if self.allowed.networks().is_empty() && entry.within.networks().is_empty() {
            let facts = &mut self.name_facts;
            facts.unlimited_count += 1;
            if facts.first_unlimited.is_none() {
                facts.first_unlimited = Some((entry.name.to_string(), written.location.clone()));
            }
        }
    }

    /// Warns of `dns` keys of a database that has no name.
    pub(super) fn warn_of_unused_dns(&mut self, database: &records::Database, names: &[NameEntry]) {
        if let (Some(dns), []) = (database.dns.given(), names) {
            let message = "no address of this database is a name, so this has no effect; remove \
                           `dns`";
            self.problems.warn_at_key(&dns.location, message);
        }
    }
}

impl NameFacts {
    /// Warns of keys without effect, and of names that nothing limits.
    pub(super) fn warn(self, problems: &mut Collector) {
        for ForgetAfterUse { location, has_rotating_name } in self.forget_after.into_values() {
            if !has_rotating_name {
                let message = "without `rotating: true` each answer is taken for the whole one, \
                               so this has no effect; remove it, or add `rotating: true`";
                problems.warn_at(&location, message);
            }
        }
        let Some((name, location)) = self.first_unlimited else { return };
        let others = match self.unlimited_count {
            1 => String::new(),
            2 => " and one other name".into(),
            count => format!(" and {} other names", count - 1),
        };
        let message = format!(
            "nothing limits the addresses of `{name}`{others}, so whoever edits that zone decides \
             where clients connect; write `dns: {{within: [10.20.0.0/16]}}` with your networks, \
             in the database or in `defaults`, or run with --allow-cidr"
        );
        problems.warn_at(&location, message);
    }
}
