//! What a chaos run leaves for the checker: what was true, what the API's history holds, and what was done to the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::scenario::ReplicaFault;

/// Time since the start of the run.
pub(crate) type At = Duration;

/// The API's resourceVersion: one order over all that is stored.
pub(crate) type Version = u64;

/// All of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    pub limits: Limits,
    /// The addresses of each database; all are up at the start, and published.
    pub databases: Vec<Vec<IpAddr>>,
    pub flips: Vec<Flip>,
    /// When targets came into the config, and of which databases.
    pub joins: Vec<(At, usize)>,
    /// The databases that a policy keeps from being empty.
    pub keep: BTreeSet<usize>,
    pub changes: Vec<Change>,
    pub leases: Vec<Holding>,
    /// Which replica made which version, by the API server's audit log.
    pub writers: BTreeMap<Version, String>,
    /// Versions that the run itself made, from outside.
    pub outside: BTreeSet<Version>,
    pub faults: Vec<Fault>,
    pub end: At,
}

/// What the daemon has time for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// From death to Down, at the worst.
    pub detection: Duration,
    /// From return to Up, at the worst.
    pub recovery: Duration,
    /// From there to the cluster.
    pub slack: Duration,
    /// From an edit of the config until each target that is new has been tried.
    pub config: Duration,
    /// From when a holder is asked to end until another has the Lease.
    pub handover: Duration,
    /// How long another leaves the Lease alone, and how long it then takes at most to have it.
    pub lease: Duration,
    /// The longest pause of the daemon between two tries of a call, once the API is back.
    pub backoff: Duration,
}

/// A target that died, left the config, or came back; from this moment on.
#[derive(Debug, Clone)]
pub(crate) struct Flip {
    pub at: At,
    pub ip: IpAddr,
    pub up: bool,
    pub how: &'static str,
}

/// One change of the Endpoints of a database.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// When the watch told it.
    pub at: At,
    pub version: Version,
    pub database: usize,
    /// None if they were deleted.
    pub members: Option<BTreeSet<IpAddr>>,
    /// The field managers of what is there.
    pub managers: BTreeSet<String>,
}

/// One change of the Lease.
#[derive(Debug, Clone)]
pub(crate) struct Holding {
    pub at: At,
    pub version: Version,
    pub holder: Option<String>,
}

/// Something that was done to the daemon or the API, or to this machine.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub from: At,
    /// When it was over; the end of the run if it never was.
    pub until: At,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The API was killed, stopped, slow or answered with errors.
    Api(&'static str),
    /// This was done to a replica.
    Replica(ReplicaFault, String),
    /// The machine ran nothing: not the daemon, and not its judge.
    Stall,
}

impl Record {
    /// Who held the Lease when this version was made.
    pub(crate) fn holder_at(&self, version: Version) -> Option<&str> {
        let before = self.leases.iter().filter(|holding| holding.version < version);
        before.max_by_key(|holding| holding.version)?.holder.as_deref()
    }

    /// Who held the Lease then, and when it was last renewed before.
    pub(crate) fn held(&self, at: At) -> Option<&Holding> {
        self.leases.iter().rfind(|holding| holding.at <= at)
    }

    /// Whether something on the way to storage held writes back at some time of this: the API, or what lies before it.
    pub(crate) fn held_back(&self, from: At, until: At) -> bool {
        self.faults.iter().any(|fault| {
            let holds = matches!(fault.kind, Kind::Api(_) | Kind::Replica(ReplicaFault::CutOff, _));
            holds && fault.from <= until && from <= fault.until
        })
    }
}
