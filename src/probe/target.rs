//! The thing that a check is about: one IP of one database.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{Address, Database, DatabaseId};

/// The thing that is checked: one IP of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The database that the IP belongs to.
    pub database: DatabaseId,
    /// The IP that is probed.
    pub ip: IpAddr,
    /// The name that DNS gives the IP for, or the target of its SRV record. None for an IP of the
    /// config. It is the default of names that a check sends.
    pub name: Option<Arc<str>>,
    /// The hostname of the replica, if it has one.
    pub hostname: Option<String>,
    /// The database's first port.
    pub port: u16,
}

impl Target {
    /// Creates the target for an address of a database.
    pub fn new(database: &Database, address: &Address) -> Self {
        Self {
            database: database.id.clone(),
            ip: address.ip,
            name: address.name.clone(),
            hostname: address.hostname.clone(),
            port: database.ports[0].number,
        }
    }

    /// Creates a target at 127.0.0.1.
    #[cfg(test)]
    pub(crate) fn local() -> Self {
        Self {
            database: DatabaseId { namespace: "a".into(), service: "b".into() },
            ip: std::net::Ipv4Addr::LOCALHOST.into(),
            name: None,
            hostname: None,
            port: 1,
        }
    }
}
