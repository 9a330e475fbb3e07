//! The thing that a check is about: one IP of one database.

use std::net::IpAddr;

use crate::config::{Address, Database, DatabaseId};

/// The thing that is checked: one IP of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The database that the IP belongs to.
    pub database: DatabaseId,
    /// The IP that is probed.
    pub ip: IpAddr,
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
            hostname: address.hostname.clone(),
            port: database.ports[0].number,
        }
    }
}
