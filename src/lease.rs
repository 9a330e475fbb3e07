//! Who may write: of all replicas the one that holds a Lease, and only until another may think that it has run out.
//!
//! The holder renews the Lease every 2 s, and counts 10 s from before the call that last renewed it. The others count 15 s from
//! when they saw it change. Each uses a clock of its own that nobody sets, and that goes on while the machine is suspended.
//! So the holder has stopped 5 s before the earliest moment at which another may begin.
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
//!
//! No client can take back what the network or the API server already has. Such a write, where nothing has been written since
//! it was decided, is taken by the API as what it is; the new holder sees it by its watch and puts it right at once.

use std::fmt;
use std::time::Duration;

use crate::clock::Moment;
pub use keeper::{Keeping, start};
pub use permission::{Handle, Permission, Standing};

mod keeper;
mod permission;

/// How long others leave the Lease alone after they saw it change.
pub const DURATION: Duration = Duration::from_secs(15);

/// How long the holder may write after it began to renew the Lease with success.
pub const HELD: Duration = Duration::from_secs(10);

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

/// The Lease as it was last looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    pub there: bool,
    /// Who holds it, or held it when it was last there.
    pub holder: Option<String>,
    /// How long it says that it holds.
    pub duration: Duration,
    /// When it was first seen as it is: what it says of time was said by another's clock.
    pub since: Moment,
}

/// What to do about the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make it, if it still is not there.
    Create,
    /// Make it ours, if it still is as it was seen.
    Take,
    /// Hold it longer, if it still is as we wrote it.
    Renew,
    /// Leave it alone for this long.
    Wait(Duration),
}

/// Decides what to do.
///
/// | the Lease                     | unchanged for less than its time | for as long, or longer |
/// | ---                           | ---                              | ---                    |
/// | was never there               | create                           | create                 |
/// | is held by nobody             | take                             | take                   |
/// | is ours                       | renew                            | renew                  |
/// | was ours, and is gone         | create                           | create                 |
/// | is another's                  | wait                             | take                   |
/// | was another's, and is gone    | wait                             | create                 |
///
/// Its time is what it says, and at least [`DURATION`]: a holder goes by that, whatever someone wrote into the Lease meanwhile.
/// That it is gone does not stop its holder, who makes it again when it renews it.
pub fn decide(lease: &Sighting, now: Moment, me: &str) -> Action {
    let anothers = lease.holder.as_deref().is_some_and(|holder| holder != me);
    let unchanged = now.saturating_duration_since(lease.since);
    let left = lease.duration.max(DURATION).saturating_sub(unchanged);
    match lease.holder {
        _ if anothers && !left.is_zero() => Action::Wait(left),
        _ if !lease.there => Action::Create,
        Some(_) if !anothers => Action::Renew,
        _ => Action::Take,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const S: Duration = Duration::from_secs(1);

    fn lease(there: bool, holder: Option<&str>, seconds: u32, since: Moment) -> Sighting {
        Sighting { there, holder: holder.map(str::to_owned), duration: S * seconds, since }
    }

    #[test]
    fn the_truth_table() {
        let since = clock::moment();
        let table = [
            ((false, None), Action::Create, Action::Create),
            ((true, None), Action::Take, Action::Take),
            ((true, Some("me")), Action::Renew, Action::Renew),
            ((false, Some("me")), Action::Create, Action::Create),
            ((true, Some("another")), Action::Wait(S), Action::Take),
            ((false, Some("another")), Action::Wait(S), Action::Create),
        ];
        for ((there, holder), within, after) in table {
            let lease = lease(there, holder, 15, since);
            let at = |seconds| decide(&lease, since + S * seconds, "me");
            assert_eq!(at(14), within, "{lease:?}");
            assert_eq!(at(15), after, "{lease:?}");
            assert_eq!(at(600), after, "{lease:?}");
        }
    }

    #[test]
    fn a_longer_time_is_respected_and_a_shorter_one_is_not() {
        let since = clock::moment();
        let at = |says, seconds| decide(&lease(true, Some("another"), says, since), since + S * seconds, "me");
        assert_eq!(at(60, 59), Action::Wait(S));
        assert_eq!(at(60, 60), Action::Take);
        assert_eq!(at(0, 14), Action::Wait(S));
        assert_eq!(at(0, 15), Action::Take);
    }

    #[test]
    fn the_holder_stops_well_before_another_may_begin() {
        // However fast another is to see the renewal: not before it was begun.
        let begun = clock::moment();
        let until = begun + HELD;
        let lease = lease(true, Some("me"), DURATION.as_secs() as u32, begun);
        assert_eq!(decide(&lease, until, "another"), Action::Wait(S * 5));
    }
}
