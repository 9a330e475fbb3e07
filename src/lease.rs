//! The Lease that decides which replica may write: its holder, and only until another replica may
//! take it to have expired.
//!
//! The times are those of client-go. The holder renews the Lease every 2 s, and may write for 10 s
//! from before the call that last renewed it. The others wait for 15 s from when they observed the
//! last change. Each uses its own clock, which nobody sets and which goes on while the machine is
//! suspended. So the holder stops 5 s before another replica can begin. The table in `decision`
//! says what is done when, and why two replicas never write at the same time, whatever people do to
//! the Lease.
//!
//! A write that was decided in time but is late is stopped as follows:
//!
//! | the write                                | is stopped by                                  |
//! | ---                                      | ---                                            |
//! | has not begun                            | the permission, checked right before each call |
//! | waits for a connection                   | the permission, checked again when it is sent  |
//! | waits because its process is stopped     | the same                                       |
//! | is in flight, and the API does not reply | its time-out, which ends before the permission |
//! | arrives after a later write              | its resourceVersion and UID                    |
//! | is a create that arrives late            | being a placeholder, which changes nothing     |
//! | was sent by a process that was killed ¹  | its resourceVersion and UID                    |
//!
//! ¹ Its successor in the Pod acquires the Lease at once.
//!
//! In a first installation nothing bears our label yet, and nobody waits for 15 s. Lists that are
//! read after the Lease was observed show that.
//!
//! Two gaps are left:
//!
//! - Someone deletes the Lease before anything was published, and a holder that has not noticed it
//!   yet writes its very first object within 10 s. Two replicas then create the same placeholder,
//!   and each later write still carries the resourceVersion that it was decided on.
//! - Two replicas run with the same host name and the same `POD_UID`, by mistake. The younger takes
//!   the Lease of the older for its own. The older finds out when it renews the Lease, after 2 s,
//!   or stops after 10 s.
//!
//! No client can take back a write that the network or the API server already has. If nothing was
//! written since it was decided, the API takes it. The new holder observes it by its watch, and
//! repairs it at once.

use std::fmt;
use std::time::Duration;

pub(crate) use election::Installation;
pub(crate) use elector::{Callbacks, Candidate, ElectionTask, candidate};
pub(crate) use fitness::CheckFacts;
pub(crate) use handle::{Handle, Role};

mod decision;
mod election;
mod elector;
mod fitness;
mod handle;
mod identity;
mod mark;
mod permission;

/// The time for which others leave the Lease alone after they observed a change.
pub(crate) const LEASE_DURATION: Duration = Duration::from_secs(15);

/// The time for which the holder may write after it began a renewal that succeeded.
pub(crate) const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// The interval at which the holder renews the Lease, or tries again to.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// The interval at which a standby replica reads the Lease. The sooner it observes that the Lease
/// was released, the shorter nobody writes.
const STANDBY_PERIOD: Duration = Duration::from_millis(500);

/// The name of the Lease, unless an argument gives another.
pub(crate) const DEFAULT_NAME: &str = "external-endpoints";

/// The namespace and name of the Lease.
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
