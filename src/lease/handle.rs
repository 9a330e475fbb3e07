//! The handle by which the rest of the daemon knows its role, and gets permission to write.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedRwLockWriteGuard, RwLock, watch};

use super::Name;
use super::permission::{LastUnacknowledged, Permission};
use crate::clock::{self, BootInstant};

/// The role of this replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// The only replica, as whoever started it says: it may always write.
    Alone,
    /// A dry run, which never writes and waits for nobody.
    DryRun,
    /// The replica that holds the Lease.
    Leader,
    /// A replica that only checks, ready to take over.
    Standby {
        /// The holder of the Lease, if it is known.
        holder: Option<String>,
        /// The reason why the Lease can't be acquired, unless it is that another replica holds it.
        error: Option<String>,
    },
}

/// A handle to the election. All copies share one state.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

struct Shared {
    /// The Lease, and our identity in it.
    identity: Option<(Name, String)>,
    role: watch::Sender<Role>,
    /// The time at which the permission of the leader ends.
    expires_at: Mutex<Option<BootInstant>>,
    /// Locked for reading by each call that writes, and for writing to drain them. Calls that begin
    /// after that wait.
    writes: Arc<RwLock<()>>,
    last_unacknowledged: LastUnacknowledged,
}

impl Handle {
    /// Creates the handle of the only replica.
    pub fn alone() -> Self {
        Self::new(None, Role::Alone)
    }

    /// Creates the handle of a dry run.
    pub fn dry_run() -> Self {
        Self::new(None, Role::DryRun)
    }

    /// Creates the handle of a standby replica that has not observed the Lease yet.
    pub(super) fn for_lease(name: Name, identity: String) -> Self {
        Self::new(Some((name, identity)), Role::Standby { holder: None, error: None })
    }

    fn new(identity: Option<(Name, String)>, role: Role) -> Self {
        Self(Arc::new(Shared {
            identity,
            role: watch::Sender::new(role),
            expires_at: Mutex::default(),
            writes: Arc::default(),
            last_unacknowledged: LastUnacknowledged::default(),
        }))
    }

    /// Returns the Lease and our identity in it; none without a Lease.
    pub fn identity(&self) -> Option<(&Name, &str)> {
        self.0.identity.as_ref().map(|(name, identity)| (name, identity.as_str()))
    }

    /// Returns the identity of this replica; an empty one if it is the only replica.
    pub(crate) fn replica(&self) -> &str {
        self.identity().map_or("", |(_, identity)| identity)
    }

    /// Returns the role of this replica.
    pub fn role(&self) -> Role {
        self.0.role.borrow().clone()
    }

    /// Subscribes to changes of the role.
    pub fn subscribe(&self) -> watch::Receiver<Role> {
        self.0.role.subscribe()
    }

    /// Returns whether this replica is the one that writes.
    pub fn is_leader(&self) -> bool {
        match *self.0.role.borrow() {
            Role::Alone => true,
            Role::Leader => self.expires_at().is_some_and(|at| clock::boot_now() < at),
            Role::DryRun | Role::Standby { .. } => false,
        }
    }

    /// Returns why this replica does not write; none if it writes, or does not because it is a dry
    /// run.
    pub fn standby_reason(&self) -> Option<String> {
        let (name, _) = self.identity()?;
        match &*self.0.role.borrow() {
            Role::Standby { error: Some(error), .. } => Some(format!("lease {name}: {error}")),
            Role::Standby { holder: Some(holder), .. } => {
                Some(format!("lease {name} is held by {holder}"))
            }
            Role::Standby { .. } => Some(format!("lease {name} is not ours yet")),
            Role::Leader if !self.is_leader() => {
                Some(format!("lease {name} was not renewed in time"))
            }
            Role::Leader | Role::Alone | Role::DryRun => None,
        }
    }

    /// Returns permission for one call that writes; none if this replica is not the leader. Must be
    /// called right before that call. Waits for ever once the writes have been drained for the end
    /// of the daemon.
    pub async fn permission(&self) -> Option<Permission> {
        let writing = self.0.writes.clone().read_owned().await;
        let expires_at = match *self.0.role.borrow() {
            Role::Alone => None,
            _ => Some(self.expires_at().filter(|at| clock::boot_now() < *at)?),
        };
        Some(Permission::new(expires_at, self.0.last_unacknowledged.clone(), writing))
    }

    /// Waits until no call that writes is in flight. None begins while the guard exists.
    pub(super) async fn drain_writes(&self) -> OwnedRwLockWriteGuard<()> {
        self.0.writes.clone().write_owned().await
    }

    /// Returns whether a write that had no answer may still arrive at the API.
    pub(super) fn has_unacknowledged_write(&self) -> bool {
        self.0.last_unacknowledged.may_still_arrive()
    }

    /// Returns the time at which the permission to write ends; none without one.
    pub(super) fn expires_at(&self) -> Option<BootInstant> {
        *lock(&self.0.expires_at)
    }

    /// Makes this replica the leader until then. Returns whether that is a change.
    pub(super) fn become_leader(&self, expires_at: BootInstant) -> bool {
        *lock(&self.0.expires_at) = Some(expires_at);
        self.set_role(Role::Leader)
    }

    /// Makes this replica a standby. Returns whether that is a change.
    pub(super) fn step_down(&self, holder: Option<String>, error: Option<String>) -> bool {
        *lock(&self.0.expires_at) = None;
        self.set_role(Role::Standby { holder, error })
    }

    fn set_role(&self, role: Role) -> bool {
        self.0.role.send_if_modified(|current| {
            let changed = *current != role;
            *current = role;
            changed
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
