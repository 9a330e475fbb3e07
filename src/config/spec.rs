//! The checked config: every default is filled in, and every value is valid.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::dns_name::NameKind;
use super::ip::{AllowedNetworks, answer_rejection};
use super::kinds::CheckKind;
use super::language::scalars::{Protocol, PublishMode};
use crate::health::Thresholds;
use crate::names::{self, Families, ServiceTarget};
use crate::plan::Policy;

/// A whole config file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spec {
    /// The databases, in the order of the file.
    pub databases: Vec<Arc<Database>>,
    /// Deletes the objects of a database that is removed from the config.
    pub prune: bool,
}

/// The Service of a database. It also identifies the database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseId {
    /// The namespace of the Service.
    pub namespace: String,
    /// The name of the Service.
    pub service: String,
}

impl fmt::Display for DatabaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service)
    }
}

/// One entry of the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// The Service.
    pub id: DatabaseId,
    /// At least one port. If there are several, each has a name.
    pub ports: Vec<Port>,
    /// The addresses, each IP once: those of the file in its order, then those that DNS gives for
    /// the names. A database without names has at least one, unless all are rejected.
    pub addresses: Vec<Address>,
    /// The entries that are a name, in the order of the file. Every version of the database that
    /// DNS makes shares them.
    pub names: Arc<[NameEntry]>,
    /// The addresses that may not be published, and so are not checked either.
    pub rejected: Vec<RejectedAddress>,
    /// The addresses that DNS gives for the names and that may not be published, some of them if
    /// there are many.
    pub refused_answers: Arc<[RejectedAddress]>,
    /// The networks that addresses may be in. This also limits addresses that the cluster holds
    /// from an earlier config.
    pub allowed_networks: AllowedNetworks,
    /// The rules by which members are chosen from the healthy addresses.
    pub policy: Policy,
    /// The kinds of object in which members are published.
    pub publish: PublishMode,
    /// The Service to create if there is none. Without it, the daemon waits for the Service.
    pub create_service: Option<CreateService>,
    /// Takes over Endpoints that someone else wrote.
    pub adopt: bool,
}

/// The Service to create if there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreateService {
    /// Creates it without an IP of its own.
    pub headless: bool,
}

/// A port of the database. Its name joins it to a port of the Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The name, which only a single port may lack.
    pub name: Option<String>,
    /// The number on which the database listens.
    pub number: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// One address of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The IP.
    pub ip: IpAddr,
    /// The name that DNS gives the IP for, or the target of its SRV record. None for an IP of the
    /// file.
    pub name: Option<Arc<str>>,
    /// The tier. The lowest is preferred.
    pub priority: u32,
    /// The DNS label of this replica in a headless Service.
    pub hostname: Option<String>,
    /// The topology zone, for EndpointSlices.
    pub zone: Option<Box<str>>,
    /// The reason for maintenance, if the address is in maintenance.
    pub maintenance: Option<Arc<str>>,
    /// The database's check with the overrides of this address. Addresses without overrides share
    /// one.
    pub check: Arc<Check>,
}

/// An entry that is a name. Each IP that DNS gives for it is an address of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameEntry {
    /// The name in lower case, without a dot at the end.
    pub name: Arc<str>,
    /// The kind of record that the name has.
    pub kind: NameKind,
    /// The families to follow; none stands for those that the Service has.
    pub families: Option<Families>,
    /// The time after which the name is asked again at the latest.
    pub refresh: Duration,
    /// The networks that its addresses must be in, beside those that are allowed for all.
    pub within: AllowedNetworks,
    /// The rules by which addresses come and go.
    pub settings: names::Settings,
    /// The tier of its addresses. Each SRV priority below the first is one tier lower.
    pub priority: u32,
    /// The DNS label of its addresses in a headless Service.
    pub hostname: Option<String>,
    /// The topology zone of its addresses.
    pub zone: Option<Box<str>>,
    /// The reason for maintenance, if the name is in maintenance.
    pub maintenance: Option<Arc<str>>,
    /// The check of its addresses.
    pub check: Arc<Check>,
}

impl NameEntry {
    /// Returns the reason why this IP of an answer may not be published, if there is one.
    pub fn rejection(&self, ip: IpAddr, allowed: &AllowedNetworks) -> Option<String> {
        answer_rejection(ip, allowed, &self.within)
    }

    /// Returns the address of an IP that DNS gives for this name.
    pub fn address(&self, ip: IpAddr, service_target: Option<&ServiceTarget>) -> Address {
        let (name, rank) = match service_target {
            Some(target) => (&target.name, target.rank),
            None => (&self.name, 0),
        };
        Address {
            ip,
            name: Some(name.clone()),
            priority: self.priority.saturating_add(rank),
            hostname: self.hostname.clone(),
            zone: self.zone.clone(),
            maintenance: self.maintenance.clone(),
            check: self.check.clone(),
        }
    }
}

/// An address of the config that may not be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedAddress {
    /// The IP.
    pub ip: IpAddr,
    /// The reason, with advice on what to write instead.
    pub reason: String,
}

/// The check of a target: its kind, and how often and how patiently it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The kind, with its own settings.
    pub kind: CheckKind,
    /// The time between two checks.
    pub interval: Duration,
    /// The time that one check may take in all.
    pub timeout: Duration,
    /// The time to the next check after a verdict that disagrees with the target's state. At most
    /// the interval.
    pub recheck_interval: Duration,
    /// The numbers of verdicts in a row that change the state.
    pub thresholds: Thresholds,
}
