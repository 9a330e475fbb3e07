//! Compiles the addresses of a database.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::Compiler;
use super::dns::DnsLayers;
use crate::config::check::CheckKeys;
use crate::config::dns::Dns;
use crate::config::dns_name::DnsName;
use crate::config::ip;
use crate::config::kinds::kind::{CheckContext, ServicePort};
use crate::config::language::reader::FromNode as _;
use crate::config::language::record::Record as _;
use crate::config::language::scalars::IpOrName;
use crate::config::language::spanned::{Field, Spanned};
use crate::config::language::templates::UrlHosts;
use crate::config::policy::Tiers;
use crate::config::problem::{Location, Reported};
use crate::config::records::{self, AddressEntry};
use crate::config::spec::{Address, Check, DatabaseId, NameEntry, RejectedAddress};

/// The addresses of a database.
#[derive(Default)]
pub(super) struct AddressLists {
    pub addresses: Vec<Address>,
    pub names: Vec<NameEntry>,
    pub rejected: Vec<RejectedAddress>,
}

impl AddressLists {
    fn len(&self) -> usize {
        self.addresses.len() + self.names.len() + self.rejected.len()
    }

    /// Returns the tiers, for the warnings of a policy.
    pub(super) fn tiers(&self) -> Tiers {
        let addresses = self.addresses.iter().map(|address| address.priority);
        let names = self.names.iter().map(|name| name.priority);
        let rotating_name = self.names.iter().find(|name| name.settings.rotating);
        Tiers {
            priorities: addresses.chain(names).collect(),
            has_names: !self.names.is_empty(),
            rotating_name: rotating_name.map(|entry| entry.name.clone()),
        }
    }
}

/// The check of a database: its keys over those of `defaults`, and the checked form.
pub(super) struct Checks {
    pub keys: Result<CheckKeys, Reported>,
    pub compiled: Result<Arc<Check>, Reported>,
}

/// The settings of a database that its addresses share or lay theirs over.
pub(super) struct Shared {
    pub id: Result<DatabaseId, Reported>,
    pub checks: Checks,
    pub dns: DnsLayers,
    pub port: Option<ServicePort>,
}

/// The place of an entry, which the list has once.
enum Place {
    Ip(IpAddr),
    /// An IP that may not be published, with the reason.
    Rejected(IpAddr, String),
    Name(DnsName),
}

impl Compiler<'_> {
    /// Returns the addresses of a database.
    pub(super) fn addresses(
        &mut self,
        database: &records::Database,
        shared: &Shared,
    ) -> Result<AddressLists, Reported> {
        let list = database.addresses.given().ok_or(Reported)?;
        if list.value.is_empty() {
            let message = "the list is empty; write at least one IP or host name, as in \
                           `[10.20.0.11]`";
            return Err(self.problems.error_at(&list.location, message));
        }
        let mut lines = BTreeMap::new();
        let mut lists = AddressLists::default();
        let mut keys_by_ip = Vec::new();
        for entry in list.value.iter().filter_map(Field::given) {
            let address = long_form(entry);
            let place = self.unique_place(&address, &mut lines);
            let (keys, check) = self.address_check(&address, &shared.checks, shared.port);
            if let (Ok(keys), Ok(Place::Ip(ip))) = (keys, &place) {
                keys_by_ip.push((keys, *ip));
            }
            let Ok(place) = place else { continue };
            // An error here counts, because the entry is then missing from the lists.
            let _ = self.add(&address, place, check, shared, &mut lists);
        }
        let mut urls = UrlHosts::default();
        for (keys, ip) in &keys_by_ip {
            for (text, location) in keys.templates() {
                urls.add(text, location, *ip);
            }
        }
        urls.warn(self.problems);
        self.warn_of_unused_dns(database, &lists.names);
        if lists.len() == list.value.len() { Ok(lists) } else { Err(Reported) }
    }

    /// Adds an entry to its list.
    fn add(
        &mut self,
        keys: &records::Address,
        place: Place,
        check: Result<Arc<Check>, Reported>,
        shared: &Shared,
        lists: &mut AddressLists,
    ) -> Result<(), Reported> {
        match place {
            Place::Name(name) => {
                let dns = self.dns_of_entry(&keys.dns, &shared.dns)?;
                let entry = compile_name(keys, name, dns, check?)?;
                if let Ok(id) = &shared.id {
                    self.reject_own_name(keys, &entry, id)?;
                }
                self.reject_tiers_beyond_the_last(keys, &entry)?;
                self.note_name(keys, &entry);
                lists.names.push(entry);
            }
            Place::Ip(ip) => {
                self.reject_dns_of_ip(keys)?;
                lists.addresses.push(compile_address(keys, ip, check?)?);
            }
            Place::Rejected(ip, reason) => {
                self.reject_dns_of_ip(keys)?;
                compile_address(keys, ip, check?)?;
                lists.rejected.push(RejectedAddress { ip, reason });
            }
        }
        Ok(())
    }

    /// Returns the IP or name if it is not in the list already.
    fn unique_place(
        &mut self,
        address: &records::Address,
        lines: &mut BTreeMap<IpOrName, u32>,
    ) -> Result<Place, Reported> {
        let Spanned { value, location } = address.address.given().ok_or(Reported)?;
        let place = match value {
            IpOrName::Name(name) => Place::Name(name.clone()),
            IpOrName::Ip(ip) => self.judge_ip(*ip, location),
        };
        if let Some(first) = lines.get(value) {
            let message =
                format!("{value} is already in the list, on line {first}; write each address once");
            return Err(self.problems.error_at(location, message));
        }
        lines.insert(value.clone(), location.span.line);
        Ok(place)
    }

    /// Reports an IP that may not be published.
    fn judge_ip(&mut self, ip: IpAddr, location: &Location) -> Place {
        let Some(reason) = ip::rejection(ip, &self.allowed) else { return Place::Ip(ip) };
        if self.options.skip_rejected {
            let message = format!("{reason}; until then it is neither checked nor published");
            self.problems.warn_at(location, message);
        } else {
            self.problems.error_at(location, &reason);
        }
        Place::Rejected(ip, reason)
    }

    /// Returns the check of an address: its own keys over those of the database, or the check that
    /// the addresses without keys share.
    fn address_check<'c>(
        &mut self,
        address: &records::Address,
        database: &'c Checks,
        port: Option<ServicePort>,
    ) -> (Result<Cow<'c, CheckKeys>, Reported>, Result<Arc<Check>, Reported>) {
        if address.check.is_absent() {
            let keys = database.keys.as_ref().map(Cow::Borrowed).map_err(|reported| *reported);
            return (keys, database.compiled.clone());
        }
        let Some(own) = address.check.given() else { return (Err(Reported), Err(Reported)) };
        match self.merge_keys(&own.value, database) {
            Ok(keys) => {
                let context = CheckContext { port, location: &own.location };
                let compiled = keys.compile(&context, self.problems).map(Arc::new);
                (Ok(Cow::Owned(keys)), compiled)
            }
            Err(Reported) => (Err(Reported), Err(Reported)),
        }
    }

    fn merge_keys(&mut self, own: &CheckKeys, database: &Checks) -> Result<CheckKeys, Reported> {
        own.reject_second_kind(self.problems)?;
        own.over_database(database.keys.as_ref().map_err(|reported| *reported)?, self.problems)
    }
}

/// Returns an entry as a mapping.
fn long_form(entry: &Spanned<AddressEntry>) -> records::Address {
    match &entry.value {
        AddressEntry::Short(place) => records::Address {
            address: Field::Given(Box::new(Spanned {
                value: place.clone(),
                location: entry.location.clone(),
            })),
            ..records::Address::built_in()
        },
        AddressEntry::Long(address) => address.overlay(&records::Address::built_in()),
    }
}

fn compile_address(
    keys: &records::Address,
    ip: IpAddr,
    check: Arc<Check>,
) -> Result<Address, Reported> {
    Ok(Address {
        ip,
        name: None,
        priority: keys.priority.required()?.0,
        hostname: keys.hostname.optional()?.map(|label| label.0),
        zone: keys.zone.optional()?.map(|zone| zone.0.into_boxed_str()),
        maintenance: keys.maintenance.optional()?.map(|reason| reason.0.into()),
        check,
    })
}

fn compile_name(
    keys: &records::Address,
    DnsName { name, kind }: DnsName,
    dns: Dns,
    check: Arc<Check>,
) -> Result<NameEntry, Reported> {
    Ok(NameEntry {
        name: name.into(),
        kind,
        families: dns.families,
        refresh: dns.refresh,
        within: dns.within,
        settings: dns.settings,
        priority: keys.priority.required()?.0,
        hostname: keys.hostname.optional()?.map(|label| label.0),
        zone: keys.zone.optional()?.map(|zone| zone.0.into_boxed_str()),
        maintenance: keys.maintenance.optional()?.map(|reason| reason.0.into()),
        check,
    })
}
