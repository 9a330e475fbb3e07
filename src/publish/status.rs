//! The status of one database's publishing, for the rest of the daemon.

use std::collections::BTreeMap;
use std::time::Instant;

use tokio::sync::watch;

use super::cache::observed::Observed;
use super::condition::Condition;
use crate::config::DatabaseId;
use crate::plan::Members;

/// The status of one database's publishing.
#[derive(Debug, Clone)]
pub struct PublishStatus {
    /// The condition now.
    pub condition: Condition,
    /// The time at which the condition last changed its kind.
    pub last_transition: Instant,
    /// The members that the cluster has; none while these are unknown or not the daemon's.
    pub members: Option<Members>,
    /// True once the database's Service and Endpoints have been listed.
    pub synced: bool,
    /// The number of calls that write, by their result.
    pub writes: BTreeMap<&'static str, u64>,
    /// The newest write of members that this process made, if it made any.
    pub last_write: Option<LastWrite>,
}

/// A write of members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastWrite {
    /// The kind and the name of the object: `Endpoints mysql`.
    pub object: String,
    /// The version that the object got by it.
    pub resource_version: String,
    /// The time of the answer.
    pub at: Instant,
}

/// The status of one database, and the objects that it has, as they change.
#[derive(Clone)]
pub(crate) struct DatabaseHandle {
    pub status: watch::Receiver<PublishStatus>,
    pub observed: watch::Receiver<Observed>,
}

/// The databases that are published.
pub(crate) type DatabaseHandles = BTreeMap<DatabaseId, DatabaseHandle>;
