//! One try of one target: runs a check and says what it saw, as a verdict whose reason names the phase.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{Check, DatabaseId};
use crate::health::Verdict;

/// The thing that is checked: one IP of one database.
#[derive(Debug, Clone)]
pub struct Target {
    pub database: DatabaseId,
    pub ip: IpAddr,
    /// The replica's hostname, if it has one.
    pub hostname: Option<String>,
    /// The database's first port.
    pub port: u16,
}

/// A check made ready to be tried on one target many times.
pub struct Prober {
    check: Arc<Check>,
    target: Target,
}

impl Prober {
    pub fn new(check: Arc<Check>, target: Target) -> Self {
        Self { check, target }
    }

    /// One try. Always ends within the check's timeout.
    pub async fn probe(&self) -> Verdict {
        let _ = (&self.check, &self.target);
        Verdict::Inconclusive("not built yet".into())
    }
}
