//! Writes a [`Spec`] back as a config in which nothing is left out.

use super::check::CheckKeys;
use super::kinds::kind::CheckContext;
use super::language::reader::FromNode as _;
use super::language::scalars::{Bool, DnsLabel, Ip, PortNumber, ServiceName};
use super::language::spanned::Field;
use super::language::value::ValueSource;
use super::policy;
use super::problem::{Collector, Location};
use super::records::{self, AddressEntry, Config, Priority, Reason, Zone};
use super::spec::{Address, Check, Database, Port, Spec};

/// The comment on top of a config with masked values.
const MASKED: &str = "# Values that may be secrets are shown as `…`; \
                      write them in before this is used as a config.\n";

/// Returns the config with every default written out. It reads back as the same Spec, but for
/// literal values that may be secrets. They show as `…`, which the reader rejects, and a comment on
/// top says so.
pub fn explain(spec: &Spec) -> String {
    let databases = spec.databases.iter().map(|entry| Field::new(database(entry))).collect();
    let config = Config {
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
    let mut addresses = spec.databases.iter().flat_map(|database| &database.addresses);
    let is_literal = |value: &ValueSource| value.is_literal();
    addresses.any(|address| address.check.kind.values().into_iter().any(is_literal))
}

fn database(database: &Database) -> records::Database {
    let base = base_check(database);
    let context = CheckContext { port: None, location: &Location::default() };
    let compiled = base.compile(&context, &mut Collector::default());
    let entry = |address: &Address| {
        let is_base = compiled.as_ref() == Ok(&*address.check);
        let own = (!is_base).then(|| CheckKeys::explain(&address.check));
        Field::new(address_entry(address, own))
    };
    let create_service = database
        .create_service
        .map(|service| records::CreateService { headless: Field::new(Bool(service.headless)) });
    records::Database {
        service: Field::new(ServiceName(database.id.service.clone())),
        namespace: Field::new(DnsLabel(database.id.namespace.clone())),
        port: Field::Absent,
        ports: Field::new(database.ports.iter().map(|entry| Field::new(port(entry))).collect()),
        addresses: Field::new(database.addresses.iter().map(entry).collect()),
        check: Field::new(base),
        policy: Field::new(policy::explain(&database.policy)),
        publish: Field::new(database.publish),
        create_service: Field::from_option(create_service),
        adopt: Field::new(Bool(database.adopt)),
    }
}

/// Returns the check of most addresses without the keys that some address lacks. An address can
/// change keys of its database's check, but not remove them.
fn base_check(database: &Database) -> CheckKeys {
    let checks = || database.addresses.iter().map(|address| &*address.check);
    let count = |one: &&Check| checks().filter(|other| other == one).count();
    let most_common = checks().rev().max_by_key(count);
    let base = most_common.map(CheckKeys::explain).unwrap_or_default();
    checks().fold(base, |base, other| base.intersect(&CheckKeys::explain(other)))
}

fn address_entry(address: &Address, own: Option<CheckKeys>) -> AddressEntry {
    let has_keys = address.hostname.is_some()
        || address.zone.is_some()
        || address.maintenance.is_some()
        || address.priority != 0
        || own.is_some();
    if !has_keys {
        return AddressEntry::Short(Ip(address.ip));
    }
    let maintenance = address.maintenance.as_ref().map(|reason| Reason(reason.to_string()));
    AddressEntry::Long(records::Address {
        address: Field::new(Ip(address.ip)),
        priority: Field::new(Priority(address.priority)),
        hostname: Field::from_option(address.hostname.clone().map(DnsLabel)),
        zone: Field::from_option(address.zone.as_ref().map(|zone| Zone(zone.to_string()))),
        maintenance: Field::from_option(maintenance),
        check: Field::from_option(own),
    })
}

fn port(port: &Port) -> records::Port {
    records::Port {
        name: Field::from_option(port.name.clone().map(DnsLabel)),
        port: Field::new(PortNumber(port.number)),
        protocol: Field::new(port.protocol),
    }
}
