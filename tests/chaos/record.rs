//! The record of a chaos run, which the checker reads: the state of the targets, the API's history,
//! and the faults.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::dns_history::DnsChange;
use super::scenario::ReplicaFault;

/// A time since the start of the run.
pub(crate) type Time = Duration;

/// The API's resourceVersion. It orders all writes.
pub(crate) type Version = u64;

/// The complete record of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    pub limits: Limits,
    /// The addresses of each database. At the start all are up and published.
    pub databases: Vec<Vec<IpAddr>>,
    /// The databases whose addresses come from DNS.
    pub named: BTreeSet<usize>,
    /// The answers of DNS, in order for each server.
    pub dns: Vec<DnsChange>,
    pub flips: Vec<Flip>,
    /// The times when targets were added to the config, with their databases.
    pub joins: Vec<(Time, usize)>,
    /// The databases that a policy keeps from being empty.
    pub keep: BTreeSet<usize>,
    pub changes: Vec<Change>,
    pub leases: Vec<LeaseState>,
    /// The Events on the members of databases, in the order in which they came.
    pub statements: Vec<Statement>,
    /// The answers of the replica that writes.
    pub views: Vec<View>,
    /// The replica that made each version, from the API server's audit log.
    pub writers: BTreeMap<Version, String>,
    /// Versions that the run itself made, as a person would.
    pub outside: BTreeSet<Version>,
    pub faults: Vec<Fault>,
    pub end: Time,
}

/// The times that the daemon may take.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// From a death to the state Down, at most.
    pub detection: Duration,
    /// From a return to the state Up, at most.
    pub recovery: Duration,
    /// From a change of state to the write.
    pub slack: Duration,
    /// From an edit of the config until each new target has been checked.
    pub config: Duration,
    /// From a change of answers until a replica knows it, if DNS answers.
    pub dns: Duration,
    /// From SIGTERM of the holder until another replica has the Lease.
    pub handover: Duration,
    /// The lifetime of a Lease, and the longest time to acquire it afterwards.
    pub lease: Duration,
    /// The daemon's longest delay between two attempts of a call, after the API has returned.
    pub backoff: Duration,
}

/// A change of a target's state: it died, left the config, or came back.
#[derive(Debug, Clone)]
pub(crate) struct Flip {
    pub at: Time,
    pub ip: IpAddr,
    pub up: bool,
    pub how: &'static str,
}

/// A change of a database's Endpoints or slice.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// The time when the watch delivered it.
    pub at: Time,
    pub version: Version,
    pub database: usize,
    /// The addresses, or none if the object was deleted.
    pub members: Option<BTreeSet<IpAddr>>,
    /// The field managers of the object.
    pub managers: BTreeSet<String>,
}

/// A version of an Event on the members of a database.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    /// The time when the watch delivered it.
    pub at: Time,
    /// The name of the Event.
    pub event: String,
    pub database: usize,
    /// The time that it shows, since 1970.
    pub shown: Duration,
    /// The addresses that it names; none if it says that something else is published.
    pub members: Option<BTreeSet<IpAddr>>,
    pub note: String,
}

/// A database on the pages of the replica that writes.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// The time before the first page was read.
    pub from: Time,
    /// The time after the last page was read.
    pub until: Time,
    /// The identity of the replica.
    pub replica: String,
    pub database: usize,
    pub published: Option<BTreeSet<IpAddr>>,
    pub planned: Option<BTreeSet<IpAddr>>,
    pub condition: String,
    /// The number of published addresses by the metrics.
    pub gauge: Option<usize>,
    /// The condition by the metrics.
    pub gauge_condition: Option<String>,
}

/// A change of the Lease.
#[derive(Debug, Clone)]
pub(crate) struct LeaseState {
    pub at: Time,
    pub version: Version,
    pub holder: Option<String>,
}

/// Something that was done to the daemon or to the API, or that happened to this machine.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub from: Time,
    /// The end of the fault, or of the run.
    pub until: Time,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The API was killed, suspended, slow, or answered with errors.
    Api(&'static str),
    /// A replica had a fault of this kind.
    Replica(ReplicaFault, String),
    /// The machine ran no program at all, neither the daemon nor the checker.
    Stall,
}

impl Record {
    /// Returns the holder of the Lease when this version was made.
    pub(crate) fn holder_at(&self, version: Version) -> Option<&str> {
        let before = self.leases.iter().filter(|holding| holding.version < version);
        before.max_by_key(|holding| holding.version)?.holder.as_deref()
    }

    /// Returns the state of the Lease at a time: its holder and its last renewal.
    pub(crate) fn held(&self, at: Time) -> Option<&LeaseState> {
        self.leases.iter().rfind(|holding| holding.at <= at)
    }

    /// Returns true if the API or the network on the way to it delayed writes at any time in this
    /// span.
    pub(crate) fn held_back(&self, from: Time, until: Time) -> bool {
        self.faults.iter().any(|fault| {
            let holds = matches!(fault.kind, Kind::Api(_) | Kind::Replica(ReplicaFault::CutOff, _));
            holds && fault.from <= until && from <= fault.until
        })
    }
}
