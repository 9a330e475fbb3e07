//! The table of steps: from the Lease as it is to what is done about it. Pure.
//!
//! | the Lease                             | while we may write | unchanged for less than its time | for as long, or longer |
//! | ---                                   | ---                | ---                              | ---                    |
//! | is absent                             | create             | create                           | create                 |
//! | was given up by its holder            | take               | take                             | take                   |
//! | is held by nobody, and not given up   | take               | wait ¹                           | take                   |
//! | is ours                               | renew              | renew                            | renew                  |
//! | is that of our predecessor in the Pod | take               | take                             | take                   |
//! | is another's                          | wait               | wait                             | take                   |
//!
//! ¹ Takes it at once in a first installation, where nothing bears our label yet.
//!
//! A Lease is always created as held by nobody, and nobody gains permission by that.
//!
//! Its time is what it says, and at least [`DURATION`]: a holder goes by that, whatever someone
//! wrote into the Lease meanwhile.
//!
//! Two replicas never have permission at the same time, because every permission rests on a call
//! that stored the Lease on the version that was seen, and ends at the latest 10 s after that:
//!
//! - What has been unchanged for 15 s was stored after every such call, so all permissions have
//!   ended. Taking it succeeds only on the version that was seen, so nobody has gained one
//!   meanwhile.
//! - A Lease that is deleted, or whose holder is emptied by hand, says nothing about the former
//!   holder, who may write for up to 10 s more. So one that is created is held by nobody at first,
//!   and is taken like any other that has been unchanged for 15 s. A create stands on no version
//!   and may arrive late, which is why it gives no permission.
//! - Its holder, while it may write, knows that nobody else may. It makes the Lease again, or takes
//!   it back, without a pause.
//! - A holder gives the Lease up after its last write, while it may still write. The mark that says
//!   so counts for this transition of this Lease only, so neither an emptied holder nor a Lease
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
    /// Nobody: the last holder gave it up after its last write.
    GivenUp,
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

/// One step about the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Create it, held by nobody, if it still is absent.
    Create,
    /// Make it ours, if it still is as it was seen.
    Take,
    /// Hold it longer, if it still is as we wrote it.
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

/// The time for which a Lease that says `duration` must be unchanged before another may take it.
pub(super) fn time_of(duration: Duration) -> Duration {
    duration.max(LEASE_DURATION)
}

/// Applies the table. `remaining` is what is left of the Lease's time.
pub(super) fn decide(owner: Owner, permission: Permission, remaining: Duration) -> Action {
    match (owner, permission) {
        (Owner::Absent, _) => Action::Create,
        (Owner::Ours, _) => Action::Renew,
        (Owner::GivenUp | Owner::Predecessor, _) | (Owner::Unclear, Permission::Valid) => {
            Action::Take
        }
        (Owner::Unclear, Permission::None) | (Owner::Another, _) if remaining.is_zero() => {
            Action::Take
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
            (Owner::GivenUp, Action::Take, Action::Take, Action::Take),
            (Owner::Unclear, Action::Take, Action::Wait(S), Action::Take),
            (Owner::Ours, Action::Renew, Action::Renew, Action::Renew),
            (Owner::Predecessor, Action::Take, Action::Take, Action::Take),
            (Owner::Another, Action::Wait(S), Action::Wait(S), Action::Take),
        ];
        for (owner, permitted, within, after) in table {
            assert_eq!(decide(owner, Permission::Valid, S), permitted, "{owner:?}");
            assert_eq!(decide(owner, Permission::None, S), within, "{owner:?}");
            assert_eq!(decide(owner, Permission::None, Duration::ZERO), after, "{owner:?}");
        }
    }

    #[test]
    fn a_longer_time_is_respected_and_a_shorter_one_is_not() {
        assert_eq!(time_of(S * 60), S * 60);
        assert_eq!(time_of(Duration::ZERO), LEASE_DURATION);
    }
}
