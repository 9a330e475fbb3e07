//! The keys of the config, its databases, their ports and addresses, as they are written.
//!
//! Reading, the JSON Schema, `validate --explain` and docs/reference/config.md all come from these
//! records and from those in `check`, `policy` and `kinds`.

use schemars::JsonSchema;
use serde::Serialize;

use super::check::CheckKeys;
use super::dns::DnsKeys;
use super::language::reader::{FromNode, Reader, ScalarType as _};
use super::language::record::record;
use super::language::scalars::{
    Bool, DnsLabel, IpOrName, PortNumber, Protocol, PublishMode, ServiceName, keywords,
    non_empty_text, scalar, text, whole_number,
};
use super::language::spanned::Field;
use super::policy::Policy;
use super::problem::{Reported, quote};
use super::yaml::node::{Entry, Node, NodeKind, Scalar, ScalarKind};
use crate::annotations::MAX_REASON_CHARS;

record! {
    /// Databases outside the cluster, and how to find out which of their addresses are healthy.
    Config requires ["databases"] {
        /// The version of this language. A file without it is read as `external-endpoints/v1`.
        api_version: ApiVersion = ApiVersion::V1,
        /// The kind of this file.
        kind: FileKind = FileKind::Config,
        /// The values that apply to every database unless it has its own.
        defaults: Defaults,
        /// The databases, one for each Service.
        #[schemars(length(min = 1))]
        databases: Vec<Field<Database>>,
        /// Delete the Endpoints and EndpointSlices of a database when it has been out of this file
        /// for 30 s. Without it they stay as they are.
        prune: Bool = Bool(false),
    }
}

keywords! {
    /// The version of the config language.
    pub(crate) ApiVersion, "`external-endpoints/v1`, the only version that this program reads" {
        /// The first version, which is also that of files without one.
        V1 = "external-endpoints/v1" | "v1" | "1",
    }
}

keywords! {
    /// The kind of the file.
    pub(crate) FileKind, "`Config`" {
        /// A config.
        Config = "Config",
    }
}

record! {
    /// The values that apply to every database unless it has its own.
    Defaults requires [] {
        /// The namespace of databases that name none. Default: the namespace of the daemon's Pod,
        /// else that of the kubeconfig, else `default`.
        namespace: DnsLabel,
        /// The check of databases that have none. It also fills in the keys that the check of a
        /// database leaves out.
        check: CheckKeys,
        /// The way in which names among the addresses are followed.
        dns: DnsKeys,
    }
}

record! {
    /// One Service without a selector, and the addresses outside the cluster that serve it.
    #[schemars(extend("oneOf" = [{"required": ["port"]}, {"required": ["ports"]}]))]
    Database requires ["service", "addresses"] {
        /// The name of the Service, which is also the name of its Endpoints.
        service: ServiceName,
        /// The namespace of the Service. Default: `defaults.namespace`.
        namespace: DnsLabel,
        /// The only port of the database. It is short for `ports: [{port: …}]`.
        port: PortNumber,
        /// The ports of the database. If there are several, each needs the name that it has in the
        /// Service.
        #[schemars(length(min = 1))]
        ports: Vec<Field<Port>>,
        /// The addresses of the database: IPs, or host names, whose IPs are followed in DNS.
        #[schemars(length(min = 1))]
        addresses: Vec<Field<AddressEntry>>,
        /// The check of the addresses.
        check: CheckKeys,
        /// The way in which names among the addresses are followed.
        dns: DnsKeys,
        /// The rules by which the published addresses are chosen.
        policy: Policy,
        /// The objects in which the healthy addresses are published: Endpoints, which Kubernetes
        /// mirrors into EndpointSlices; EndpointSlices; or both.
        publish: PublishMode = PublishMode::Endpoints,
        /// Create the Service if there is none. Without this key the daemon waits for it.
        create_service: CreateService,
        /// Take over Endpoints that someone else wrote.
        adopt: Bool = Bool(false),
    }
}

record! {
    /// The Service to create if there is none.
    CreateService requires [] {
        /// Create a Service without an IP of its own. DNS then returns the addresses themselves.
        headless: Bool = Bool(false),
    }
}

record! {
    /// A port of the database.
    Port requires ["port"] {
        /// The name of the port in the Service. Needed if there are several ports.
        name: DnsLabel,
        /// The number of the port on which the database listens.
        port: PortNumber,
        /// The protocol of the port.
        protocol: Protocol = Protocol::Tcp,
    }
}

record! {
    /// An address with more settings than the IP or name. All IPs of a name have them.
    Address requires ["address"] {
        /// The IP, the host name, or the SRV name `_service._proto.name`. A name is the whole one:
        /// search domains are not used.
        address: IpOrName,
        /// The tier of the address. The tier with the lowest number is preferred; the others serve
        /// only when too few addresses of the tiers before them are healthy.
        priority: Priority = Priority(0),
        /// The DNS label of this replica in a headless Service.
        hostname: DnsLabel,
        /// The topology zone of the address. Needs `publish: slices` or `both`.
        zone: Zone,
        /// The reason why this address is in maintenance. It is then not published but still
        /// checked, and shown with this reason.
        maintenance: Reason,
        /// The keys in which the check of this address differs from the check of the database.
        check: CheckKeys,
        /// The keys in which this name is followed differently from the others of the database.
        dns: DnsKeys,
    }
}

scalar!(
    Priority(u32),
    "a number from 0",
    {"type": "integer", "minimum": 0, "maximum": u32::MAX},
    |scalar, expected| {
        let number = whole_number(scalar, expected)?;
        u32::try_from(number).map(Priority).map_err(|_| {
            let max = u32::MAX;
            format!(
                "{number} is not a priority; write a number from 0, which is preferred, to {max}"
            )
        })
    }
);

scalar!(
    /// The name of a zone. It is compared with a label of the nodes, so only the value of a label
    /// can match.
    Zone(String),
    "the name of a zone",
    {"type": "string", "maxLength": 63, "pattern": "^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$"},
    parse_zone
);

fn parse_zone(scalar: &Scalar, expected: &str) -> Result<Zone, String> {
    let zone = non_empty_text(scalar, expected)?;
    let is_end = |char: char| char.is_ascii_alphanumeric();
    let is_allowed = |char: char| is_end(char) || "-_.".contains(char);
    if zone.len() > 63 {
        let (shown, length) = (quote(zone), zone.len());
        return Err(format!("{shown} has {length} characters; {expected} has at most 63"));
    }
    if !zone.chars().all(is_allowed) || !zone.starts_with(is_end) || !zone.ends_with(is_end) {
        return Err(format!(
            "{} is not {expected}; write letters, digits, `-`, `_` and `.`, with a letter or \
             digit at both ends",
            quote(zone)
        ));
    }
    Ok(Zone(zone.into()))
}

scalar!(
    /// The reason for maintenance. It is one line, because it is shown in tables.
    Reason(String),
    "a reason in words",
    {"type": "string", "minLength": 1, "maxLength": MAX_REASON_CHARS, "pattern": "\\S"},
    parse_reason
);

fn parse_reason(scalar: &Scalar, expected: &str) -> Result<Reason, String> {
    const MISSING: &str =
        "the reason is missing; write it, as in `maintenance: disk swap until Friday`";
    match scalar.kind {
        ScalarKind::Bool(true) => return Err(MISSING.into()),
        ScalarKind::Bool(false) => {
            return Err("remove the key when the maintenance is over".into());
        }
        _ => {}
    }
    let reason = text(scalar, expected)?.trim();
    let length = reason.chars().count();
    if reason.is_empty() {
        return Err(MISSING.into());
    }
    if length > MAX_REASON_CHARS {
        return Err(format!(
            "this reason has {length} characters; write at most {MAX_REASON_CHARS}"
        ));
    }
    if reason.contains(char::is_control) {
        return Err("a reason is one line; remove line breaks and other control characters".into());
    }
    Ok(Reason(reason.into()))
}

/// One of a database's addresses: the IP or name alone, or a mapping.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum AddressEntry {
    /// An IP, or a host name.
    Short(IpOrName),
    Long(Address),
}

impl FromNode for AddressEntry {
    fn from_node(node: &Node, reader: &mut Reader) -> Result<Self, Reported> {
        match &node.kind {
            NodeKind::Scalar(Scalar { kind: ScalarKind::Text | ScalarKind::Number, .. }) => {
                IpOrName::from_node(node, reader).map(AddressEntry::Short)
            }
            NodeKind::Map(entries) => {
                if let [Entry { key, key_span, .. }] = entries.as_slice()
                    && IpOrName::parse(&Scalar::text(format!("{key}:"))).is_ok()
                {
                    let message = format!(
                        "YAML takes the last colon for that of a key; write `\"{key}:\"` in quotes"
                    );
                    return Err(reader.error(*key_span, message));
                }
                Address::from_node(node, reader).map(AddressEntry::Long)
            }
            _ => {
                let advice = "write one like `10.20.0.11`, or `{address: 10.20.0.11, …}`";
                Err(reader.unexpected(node, "an IP or a host name", Some(advice)))
            }
        }
    }
}
