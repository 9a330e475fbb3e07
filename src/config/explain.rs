//! Writes a [`Spec`] back as a config in which nothing is left out.

use super::check::CheckKeys;
use super::dns::{Dns, DnsKeys};
use super::dns_name::DnsName;
use super::kinds::kind::CheckContext;
use super::language::reader::FromNode as _;
use super::language::scalars::{Bool, DnsLabel, IpOrName, PortNumber, ServiceName};
use super::language::spanned::Field;
use super::language::value::ValueSource;
use super::policy;
use super::problem::{Collector, Location};
use super::records::{self, AddressEntry, ApiVersion, Config, FileKind, Priority, Reason, Zone};
use super::spec::{Address, Check, Database, NameEntry, Port, Spec};

/// The comment on top of a config with masked values.
const MASKED: &str = "# Values that may be secrets are shown as `…`; \
                      write them in before this is used as a config.\n";

/// Returns the config with every default written out. It reads back as the same Spec, but for
/// literal values that may be secrets. They show as `…`, which the reader rejects, and a comment on
/// top says so.
pub fn explain(spec: &Spec) -> String {
    let databases = spec.databases.iter().map(|entry| Field::new(database(entry))).collect();
    let config = Config {
        api_version: Field::new(ApiVersion::V1),
        kind: Field::new(FileKind::Config),
        defaults: Field::Absent,
        databases: Field::new(databases),
        prune: Field::new(Bool(spec.prune)),
    };
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    // Nothing in a tree of texts, numbers and lists can fail to be written.
    let text = serde_saphyr::to_string_with_options(&config, options)
        .unwrap_or_else(|error| unreachable!("{error}"));
    if has_literal(spec) { format!("{MASKED}{text}") } else { text }
}

fn has_literal(spec: &Spec) -> bool {
    let mut checks = spec.databases.iter().flat_map(|database| checks(database));
    let is_literal = |value: &ValueSource| value.is_literal();
    checks.any(|check| check.kind.values().into_iter().any(is_literal))
}

/// Returns the checks of all addresses and names.
fn checks(database: &Database) -> impl Iterator<Item = &Check> {
    let addresses = database.addresses.iter().map(|address| &*address.check);
    addresses.chain(database.names.iter().map(|name| &*name.check))
}

fn database(database: &Database) -> records::Database {
    let base = base_check(database);
    let context = CheckContext { port: None, location: &Location::default() };
    let compiled = base.compile(&context, &mut Collector::default());
    let own_check =
        |check: &Check| (compiled.as_ref() != Ok(check)).then(|| CheckKeys::explain(check));
    let base_dns = base_dns(database);
    let compiled_dns = base_dns.compile(&mut Collector::default());
    let own_dns = |dns: Dns| (compiled_dns != Ok(dns.clone())).then(|| DnsKeys::explain(&dns));
    let addresses = database.addresses.iter().map(|it| address_entry(it, own_check(&it.check)));
    let names =
        database.names.iter().map(|it| name_entry(it, own_check(&it.check), own_dns(Dns::of(it))));
    let entries = addresses.chain(names).map(|entry| Field::new(short_if_possible(entry)));
    let create_service = database
        .create_service
        .map(|service| records::CreateService { headless: Field::new(Bool(service.headless)) });
    records::Database {
        service: Field::new(ServiceName(database.id.service.clone())),
        namespace: Field::new(DnsLabel(database.id.namespace.clone())),
        port: Field::Absent,
        ports: Field::new(database.ports.iter().map(|entry| Field::new(port(entry))).collect()),
        addresses: Field::new(entries.collect()),
        check: Field::new(base),
        dns: Field::from_option((!database.names.is_empty()).then_some(base_dns)),
        policy: Field::new(policy::explain(&database.policy)),
        publish: Field::new(database.publish),
        create_service: Field::from_option(create_service),
        adopt: Field::new(Bool(database.adopt)),
    }
}

/// Returns the check of most addresses without the keys that some address lacks. An address can
/// change keys of its database's check, but not remove them.
fn base_check(database: &Database) -> CheckKeys {
    let checks = distinct(checks(database));
    let base = most_common(&checks).map(CheckKeys::explain).unwrap_or_default();
    checks.iter().fold(base, |base, (other, _)| base.intersect(&CheckKeys::explain(other)))
}

/// Returns the `dns` keys of most names without the keys that some name lacks, as [`base_check`]
/// does.
fn base_dns(database: &Database) -> DnsKeys {
    let all: Vec<Dns> = database.names.iter().map(Dns::of).collect();
    let all = distinct(all.iter());
    let base = most_common(&all).map(DnsKeys::explain).unwrap_or_default();
    all.iter().fold(base, |base, (other, _)| base.intersect(&DnsKeys::explain(other)))
}

/// Returns each value once, with the number of times that it is there.
fn distinct<'a, T: PartialEq>(values: impl Iterator<Item = &'a T>) -> Vec<(&'a T, usize)> {
    let mut counts: Vec<(&T, usize)> = Vec::new();
    for value in values {
        match counts.iter_mut().find(|(known, _)| *known == value) {
            Some((_, count)) => *count += 1,
            None => counts.push((value, 1)),
        }
    }
    counts
}

/// Returns the value that is there most often, and the first of those.
fn most_common<'a, T>(counts: &[(&'a T, usize)]) -> Option<&'a T> {
    counts.iter().rev().max_by_key(|(_, count)| *count).map(|(value, _)| *value)
}

fn address_entry(address: &Address, own_check: Option<CheckKeys>) -> records::Address {
    let maintenance = address.maintenance.as_ref().map(|reason| Reason(reason.to_string()));
    records::Address {
        address: Field::new(IpOrName::Ip(address.ip)),
        priority: Field::new(Priority(address.priority)),
        hostname: Field::from_option(address.hostname.clone().map(DnsLabel)),
        zone: Field::from_option(address.zone.as_ref().map(|zone| Zone(zone.to_string()))),
        maintenance: Field::from_option(maintenance),
        check: Field::from_option(own_check),
        dns: Field::Absent,
    }
}

fn name_entry(
    name: &NameEntry,
    own_check: Option<CheckKeys>,
    own_dns: Option<DnsKeys>,
) -> records::Address {
    let maintenance = name.maintenance.as_ref().map(|reason| Reason(reason.to_string()));
    let dns_name = DnsName { name: name.name.to_string(), kind: name.kind };
    records::Address {
        address: Field::new(IpOrName::Name(dns_name)),
        priority: Field::new(Priority(name.priority)),
        hostname: Field::from_option(name.hostname.clone().map(DnsLabel)),
        zone: Field::from_option(name.zone.as_ref().map(|zone| Zone(zone.to_string()))),
        maintenance: Field::from_option(maintenance),
        check: Field::from_option(own_check),
        dns: Field::from_option(own_dns),
    }
}

/// Returns the IP or name alone if the entry has no other key than defaults.
fn short_if_possible(entry: records::Address) -> AddressEntry {
    let bare = records::Address {
        address: entry.address.clone(),
        priority: Field::new(Priority(0)),
        ..records::Address::default()
    };
    match entry.address.value() {
        Some(place) if entry == bare => AddressEntry::Short(place.clone()),
        _ => AddressEntry::Long(entry),
    }
}

fn port(port: &Port) -> records::Port {
    records::Port {
        name: Field::from_option(port.name.clone().map(DnsLabel)),
        port: Field::new(PortNumber(port.number)),
        protocol: Field::new(port.protocol),
    }
}
