//! Who may write: of all replicas the one that holds a Lease, and only until another may think that it has run out.
//!
//! The holder renews the Lease every 2 s, and counts 10 s from before the call that last renewed it. The others count 15 s from
//! when they saw it change. Each uses a clock of its own that nobody sets, and that goes on while the machine is suspended.
//! So the holder has stopped 5 s before the earliest moment at which another may begin. The table in `decision` has what is
//! done when, and why two never write at the same time, whatever people do to the Lease.
//!
//! What keeps a write out that was begun in time and is late:
//!
//! | the write                                                | is kept out by                                            |
//! | ---                                                      | ---                                                       |
//! | has not been begun                                       | the permission, asked right before each call              |
//! | waits for a connection, or the process is stopped in it  | the permission, asked again when the connection is ready  |
//! | is on its way while the API does not answer              | its time-out, which ends before the permission does       |
//! | arrives later than anything written after it was decided | the resourceVersion and UID that it carries               |
//! | is a create that arrives late                            | being blank: it says nothing, and changes nothing that is |
//! | was sent by a process that was killed since              | the same, as its successor in the Pod takes the Lease at once |
//!
//! In a first installation nothing bears our label yet, and nobody waits for 15 s. Lists that are
//! read after the Lease was seen show that. One gap is left: someone deletes the Lease before
//! anything was published, and a holder that has not noticed yet writes its very first object
//! within 10 s. Two replicas then create the same blank object, and each later write still carries
//! the resourceVersion that it was decided on.
//!
//! Another gap is a mistake: two replicas that run with the same host name and the same `POD_UID`.
//! The younger takes the older one's Lease for its own, and the older finds out when it renews it,
//! after 2 s, or stops after 10 s.
//!
//! No client can take back what the network or the API server already has. Such a write, where nothing has been written since
//! it was decided, is taken by the API as what it is; the new holder sees it by its watch and puts it right at once.

use std::fmt;
use std::time::Duration;

pub(crate) use election::Installation;
pub(crate) use elector::{Callbacks, Candidate, ElectionTask, candidate};
pub(crate) use fitness::CheckFacts;
pub(crate) use permission::{Handle, Role};

mod decision;
mod election;
mod elector;
mod fitness;
mod identity;
mod mark;
mod permission;

/// How long others leave the Lease alone after they saw it change.
pub(crate) const LEASE_DURATION: Duration = Duration::from_secs(15);

/// How long the holder may write after it began to renew the Lease with success.
pub(crate) const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// How often the holder renews the Lease, and how soon it tries again.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// How often the others look: the sooner they see that it was given up, the shorter nobody writes.
const STANDBY_PERIOD: Duration = Duration::from_millis(500);

/// Where the Lease is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
