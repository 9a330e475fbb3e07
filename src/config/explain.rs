//! A [`Spec`] written back as a config with nothing left out, and the JSON Schema of the language.

use schemars::transform::{RecursiveTransform, Transform};

use super::bytes::{BodyText, ExpectedAnswer, Payload};
use super::check::{self, Owner};
use super::leaf::{
    AbsoluteDir, Argument, Bool, DnsLabel, ExitStatusRange, FilePath, HeaderName, HostHeader,
    Interval, Ip, Method, PortNumber, ServerName, ServiceName, StatusRange, Threshold, UrlPath,
    VariableName, Zone,
};
use super::policy::{self, Priority, Reason};
use super::problem::Collector;
use super::raw::{self, AddressEntry};
use super::read::{Field, FromNode, Location, Spanned};
use super::value::{self, NamedValues};
use super::{
    Address, Check, CheckKind, Database, ExecCheck, HttpCheck, Port, Scheme, Spec, TcpCheck, Tls,
    ValueSource,
};

/// The config with every default written out. It reads back as the same Spec, but for the literal values that may be
/// secrets: they show as `…`, which is refused on reading. A comment on top then says so.
pub fn explain(spec: &Spec) -> String {
    let databases = spec.databases.iter().map(|entry| Field::new(database(entry))).collect();
    let config = raw::Config {
        defaults: Field::Absent,
        databases: Field::new(databases),
        prune: Field::new(Bool(spec.prune)),
    };
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    // A tree of texts, numbers and lists: nothing in it can fail to be written.
    let text = serde_saphyr::to_string_with_options(&config, options)
        .unwrap_or_else(|error| unreachable!("{error}"));
    if has_literal(spec) { format!("{MASKED}{text}") } else { text }
}

const MASKED: &str = "# Values that may be secrets are shown as `…`; write them in before this is used as a config.\n";

fn has_literal(spec: &Spec) -> bool {
    let literal =
        |value: &ValueSource| matches!(value, ValueSource::Literal(_) | ValueSource::Bytes(_));
    let any = |values: &[(String, ValueSource)]| values.iter().any(|(_, value)| literal(value));
    let masks = |kind: &CheckKind| match kind {
        CheckKind::Tcp(check) => check.send.as_ref().is_some_and(literal),
        CheckKind::Http(check) => any(&check.headers),
        CheckKind::Exec(check) => any(&check.env),
    };
    spec.databases
        .iter()
        .flat_map(|database| &database.addresses)
        .any(|address| masks(&address.check.kind))
}

/// The JSON Schema of the config language.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(raw::Config);
    schema.insert("title".into(), "external-endpoints config".into());
    RecursiveTransform(tidy).transform(&mut schema);
    schema.into()
}

/// Doc comments are wrapped for the source; a list of no required keys says nothing.
fn tidy(schema: &mut schemars::Schema) {
    if schema
        .get("required")
        .and_then(|required| required.as_array())
        .is_some_and(|required| required.is_empty())
    {
        schema.remove("required");
    }
    if let Some(serde_json::Value::String(text)) = schema.get_mut("description") {
        *text = text.replace('\n', " ");
    }
}

fn database(database: &Database) -> raw::Database {
    let base = base_check(database);
    let compiled = check::compile(
        &base,
        &Owner { port: None, place: &Location::default() },
        &mut Collector::default(),
    );
    let entry = |address: &Address| {
        let own = if compiled.as_ref() == Some(&*address.check) {
            Field::Absent
        } else {
            Field::new(check(&address.check))
        };
        Field::new(address_entry(address, own))
    };
    raw::Database {
        service: Field::new(ServiceName(database.id.service.clone())),
        namespace: Field::new(DnsLabel(database.id.namespace.clone())),
        port: Field::Absent,
        ports: Field::new(database.ports.iter().map(|entry| Field::new(port(entry))).collect()),
        addresses: Field::new(database.addresses.iter().map(entry).collect()),
        check: Field::new(base),
        policy: Field::new(policy::explain(&database.policy)),
        publish: Field::new(database.publish),
        create_service: maybe(&database.create_service, |service| raw::CreateService {
            headless: Field::new(Bool(service.headless)),
        }),
        adopt: Field::new(Bool(database.adopt)),
    }
}

/// The check that most addresses have, less the keys that some address lacks: an address can change keys of it, but
/// not take them away.
fn base_check(database: &Database) -> raw::Check {
    let checks = || database.addresses.iter().map(|address| &*address.check);
    let most_common =
        checks().rev().max_by_key(|one| checks().filter(|other| one == other).count());
    let base = most_common.map(check).unwrap_or_default();
    checks().fold(base, |base, other| base.intersect(&check(other)))
}

fn address_entry(address: &Address, own: Field<raw::Check>) -> AddressEntry {
    let plain = address.hostname.is_none() && address.zone.is_none();
    let plain = plain && address.maintenance.is_none() && address.priority == 0;
    if plain && own.is_absent() {
        return AddressEntry::Short(Ip(address.ip));
    }
    AddressEntry::Long(raw::Address {
        address: Field::new(Ip(address.ip)),
        priority: Field::new(Priority(address.priority)),
        hostname: maybe(&address.hostname, |name| DnsLabel(name.clone())),
        zone: maybe(&address.zone, |zone| Zone(zone.to_string())),
        maintenance: maybe(&address.maintenance, |reason| Reason(reason.to_string())),
        check: own,
    })
}

fn port(port: &Port) -> raw::Port {
    raw::Port {
        name: maybe(&port.name, |name| DnsLabel(name.clone())),
        port: Field::new(PortNumber(port.number)),
        protocol: Field::new(port.protocol),
    }
}

fn check(check: &Check) -> raw::Check {
    let mut raw = raw::Check {
        interval: Field::new(Interval(check.interval)),
        timeout: Field::new(Interval(check.timeout)),
        recheck_interval: Field::new(Interval(check.recheck_interval)),
        healthy_threshold: Field::new(Threshold(check.thresholds.healthy)),
        unhealthy_threshold: Field::new(Threshold(check.thresholds.unhealthy)),
        ..raw::Check::default()
    };
    match &check.kind {
        CheckKind::Tcp(check) => raw.tcp = Field::new(tcp(check)),
        CheckKind::Http(check) => raw.http = Field::new(http(check)),
        CheckKind::Exec(check) => raw.exec = Field::new(exec(check)),
    }
    raw
}

fn tcp(check: &TcpCheck) -> raw::Tcp {
    raw::Tcp {
        port: Field::new(PortNumber(check.port)),
        tls: maybe(&check.tls, tls),
        send: maybe(&check.send, |value| Payload(value.clone())),
        expect: maybe(&check.expect, |expected| ExpectedAnswer(expected.clone())),
        accept: Field::new(Bool(check.accept)),
    }
}

fn http(check: &HttpCheck) -> raw::Http {
    raw::Http {
        path: Field::new(UrlPath(check.path.clone())),
        port: Field::new(PortNumber(check.port)),
        scheme: Field::new(check.scheme),
        method: Field::new(Method(check.method.clone())),
        host: maybe(&check.host, |host| HostHeader(host.clone())),
        headers: Field::new(values(&check.headers, HeaderName)),
        expected_statuses: Field::new(
            check
                .expected_statuses
                .iter()
                .map(|range| Field::new(StatusRange(range.clone())))
                .collect(),
        ),
        expected_body: maybe(&check.expected_body, |text| BodyText(text.clone())),
        http2: if check.scheme == Scheme::Https {
            Field::new(Bool(check.http2))
        } else {
            Field::Absent
        },
        tls: if check.scheme == Scheme::Https {
            Field::new(tls(&check.tls))
        } else {
            Field::Absent
        },
    }
}

fn exec(check: &ExecCheck) -> raw::Exec {
    raw::Exec {
        command: Field::new(
            check.command.iter().map(|text| Field::new(Argument(text.clone()))).collect(),
        ),
        env: Field::new(values(&check.env, VariableName)),
        working_directory: maybe(&check.working_directory, |path| AbsoluteDir(path.clone())),
        inconclusive_statuses: Field::new(
            check
                .inconclusive_statuses
                .iter()
                .map(|range| Field::new(ExitStatusRange(range.clone())))
                .collect(),
        ),
    }
}

fn tls(tls: &Tls) -> raw::Tls {
    raw::Tls {
        ca_file: maybe(&tls.ca_file, |path| FilePath(path.clone())),
        cert_file: maybe(&tls.cert_file, |path| FilePath(path.clone())),
        key_file: maybe(&tls.key_file, |path| FilePath(path.clone())),
        server_name: maybe(&tls.server_name, |name| ServerName(name.clone())),
        insecure_skip_verify: Field::new(Bool(tls.insecure_skip_verify)),
    }
}

fn values<N>(values: &[(String, ValueSource)], name: impl Fn(String) -> N) -> NamedValues<N> {
    let pair = |(key, value): &(String, ValueSource)| {
        (Spanned::new(name(key.clone())), Field::new(value::Value(value.clone())))
    };
    NamedValues(values.iter().map(pair).collect())
}

fn maybe<T, R>(value: &Option<T>, raw: impl Fn(&T) -> R) -> Field<R> {
    value.as_ref().map_or(Field::Absent, |value| Field::new(raw(value)))
}
