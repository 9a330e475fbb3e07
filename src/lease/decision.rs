//! The table of actions, by the owner of the Lease. Pure.
//!
//! | the Lease                       | while we may write | before it expires | after expiry |
//! | ---                             | ---                | ---               | ---          |
//! | is absent                       | create             | create            | create       |
//! | was released by its holder      | acquire            | acquire           | acquire      |
//! | has no holder, but not released | acquire            | wait ¹            | acquire      |
//! | is ours                         | renew              | renew             | renew        |
//! | is our predecessor's in the Pod | acquire            | acquire           | acquire      |
//! | is another's                    | wait               | wait              | acquire      |
//!
//! ¹ It is acquired at once in a first installation, where nothing bears our label yet.
//!
//! A Lease is always created without a holder, and nobody gains permission by that.
//!
//! A Lease expires when it has been unchanged for the duration that it states, and for at least
//! [`LEASE_DURATION`]: its holder goes by the latter, whatever someone wrote into the Lease.
//!
//! Two replicas never have permission at the same time, because every permission rests on a call
//! that stored the Lease on the version that was observed, and ends at most 10 s after that:
//!
//! - A Lease that has been unchanged for 15 s was stored after every such call, so all permissions
//!   have ended. It is acquired only on the version that was observed, so nobody has gained a
//!   permission meanwhile.
//! - A Lease that is deleted, or whose holder is emptied by hand, does not show its former holder,
//!   which may write for up to 10 s more. So a Lease is created without a holder, and is acquired
//!   like any other that has been unchanged for 15 s. A create has no version to rest on and may
//!   arrive late. Therefore it gives no permission.
//! - The holder, while it may write, knows that nobody else may. It creates the Lease anew, or
//!   acquires it again, without a pause.
//! - A holder releases the Lease after its last write, while it may still write. The mark of that
//!   counts for this transition of this Lease only. Neither an emptied holder nor a Lease that was
//!   restored from a backup bears it.
//! - The predecessor in the Pod has been killed: a container starts after all processes of the
//!   former one are gone.

use std::time::Duration;

use super::LEASE_DURATION;

/// The owner of the Lease, as far as this replica can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// There is no Lease.
    Absent,
    /// Nobody: the last holder released it after its last write.
    Released,
    /// Nobody, or this replica without a mark of any process: someone edited or created it.
    Unclear,
    /// This process.
    Ours,
    /// A process with the same identity that ran before this one: the same Pod, before its
    /// container was restarted.
    Predecessor,
    /// Another replica, or another process under the same identity.
    Another,
}

/// One action on the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Create it without a holder, if it still is absent.
    Create,
    /// Make it ours, if it still is as it was observed.
    Acquire,
    /// Extend it, if it still is as we wrote it.
    Renew,
    /// Leave it alone for this long.
    Wait(Duration),
}

/// The permission of this replica at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permission {
    Valid,
    None,
}

/// Returns the time after which a Lease that states this duration and is unchanged has expired.
pub(super) fn expiry_after(duration: Duration) -> Duration {
    duration.max(LEASE_DURATION)
}

/// Applies the table. `remaining` is the time until the Lease expires.
pub(super) fn decide(owner: Owner, permission: Permission, remaining: Duration) -> Action {
    match (owner, permission) {
        (Owner::Absent, _) => Action::Create,
        (Owner::Ours, _) => Action::Renew,
        (Owner::Released | Owner::Predecessor, _) | (Owner::Unclear, Permission::Valid) => {
            Action::Acquire
        }
        (Owner::Unclear, Permission::None) | (Owner::Another, _) if remaining.is_zero() => {
            Action::Acquire
        }
        (Owner::Unclear, Permission::None) | (Owner::Another, _) => Action::Wait(remaining),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn the_truth_table() {
        let table = [
            (Owner::Absent, Action::Create, Action::Create, Action::Create),
            (Owner::Released, Action::Acquire, Action::Acquire, Action::Acquire),
            (Owner::Unclear, Action::Acquire, Action::Wait(S), Action::Acquire),
            (Owner::Ours, Action::Renew, Action::Renew, Action::Renew),
            (Owner::Predecessor, Action::Acquire, Action::Acquire, Action::Acquire),
            (Owner::Another, Action::Wait(S), Action::Wait(S), Action::Acquire),
        ];
        for (owner, permitted, within, after) in table {
            assert_eq!(decide(owner, Permission::Valid, S), permitted, "{owner:?}");
            assert_eq!(decide(owner, Permission::None, S), within, "{owner:?}");
            assert_eq!(decide(owner, Permission::None, Duration::ZERO), after, "{owner:?}");
        }
    }

    #[test]
    fn a_longer_duration_is_respected_and_a_shorter_one_is_not() {
        assert_eq!(expiry_after(S * 60), S * 60);
        assert_eq!(expiry_after(Duration::ZERO), LEASE_DURATION);
    }
}
