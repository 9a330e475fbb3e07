//! The state of each list-and-watch: one for each namespace and kind.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::orphans::ObjectKind;
use crate::publish::condition::Condition;

/// The state of the list-and-watch of one kind in one namespace.
#[derive(Debug, Clone, Default)]
struct WatchState {
    /// The number of lists that have begun.
    epoch: u64,
    /// The epoch of the newest list that is complete.
    complete: u64,
    /// The error that keeps the watch from running, and the epoch in which it occurred.
    error: Option<(u64, Condition)>,
}

impl WatchState {
    /// Returns the error as a database sees it whose first list is the one of this epoch.
    fn error_since(&self, first_epoch: u64) -> Option<&Condition> {
        self.error.as_ref().filter(|(epoch, _)| *epoch >= first_epoch).map(|(_, error)| error)
    }
}

/// The epochs of the first lists that show the objects of a database, by kind.
pub(crate) type FirstEpochs = [u64; 3];

/// A watch at one moment, as a database sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct WatchSnapshot {
    /// True once a list has shown the database's objects: until then, a missing object may exist.
    pub synced: bool,
    /// The epoch of the newest list. A response to a call counts only in the epoch of its decision.
    pub epoch: u64,
    /// The error that keeps the watch from running. The cache may be stale until it is gone.
    pub error: Option<Condition>,
}

/// The watches of one namespace.
///
/// Whoever holds the lock of a database's cache may take this lock too, but not the other way
/// round.
#[derive(Debug, Default)]
pub(crate) struct NamespaceWatches(Mutex<[WatchState; 3]>);

impl NamespaceWatches {
    fn lock(&self) -> MutexGuard<'_, [WatchState; 3]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the epochs of the lists that begin next.
    pub(crate) fn next_epochs(&self) -> FirstEpochs {
        self.lock().each_ref().map(|state| state.epoch + 1)
    }

    /// Returns the epoch of the newest list.
    pub(crate) fn epoch(&self, kind: ObjectKind) -> u64 {
        self.lock()[kind as usize].epoch
    }

    /// Begins a list. Responses to calls that were decided before no longer count.
    pub(crate) fn begin_list(&self, kind: ObjectKind) {
        self.lock()[kind as usize].epoch += 1;
    }

    /// Ends the list that is under way. Returns its epoch, and that of the one completed before.
    pub(crate) fn complete_list(&self, kind: ObjectKind) -> (u64, u64) {
        let state = &mut self.lock()[kind as usize];
        (state.epoch, std::mem::replace(&mut state.complete, state.epoch))
    }

    /// Sets or clears the error. Returns whether a database with this first epoch sees a change.
    pub(crate) fn set_error(
        &self,
        kind: ObjectKind,
        error: Option<Condition>,
    ) -> impl Fn(u64) -> bool + use<> {
        let state = &mut self.lock()[kind as usize];
        let before = state.clone();
        state.error = error.map(|error| (state.epoch, error));
        let after = state.clone();
        move |first_epoch| before.error_since(first_epoch) != after.error_since(first_epoch)
    }

    /// Returns whether a response counts to a call that was decided in this epoch: no other list
    /// has begun since, and none is under way, which may be older or newer than the response.
    pub(crate) fn accepts_response(&self, kind: ObjectKind, epoch: u64) -> bool {
        let state = &self.lock()[kind as usize];
        state.epoch == epoch && state.complete == epoch
    }

    /// Returns the watches as a database with these first epochs sees them.
    pub(crate) fn snapshot(&self, first_epochs: &FirstEpochs) -> [WatchSnapshot; 3] {
        let states = self.lock();
        std::array::from_fn(|kind| {
            let (state, first_epoch) = (&states[kind], first_epochs[kind]);
            WatchSnapshot {
                synced: state.complete >= first_epoch,
                epoch: state.epoch,
                error: state.error_since(first_epoch).cloned(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::condition::ConditionKind;

    const KIND: ObjectKind = ObjectKind::Endpoints;

    #[test]
    fn a_database_is_synced_by_a_list_that_began_after_it_came() {
        let watches = NamespaceWatches::default();
        let old = watches.next_epochs();
        watches.begin_list(KIND);
        let new = watches.next_epochs();
        let synced = |epochs| watches.snapshot(epochs)[KIND as usize].synced;
        assert!(!synced(&old));
        assert_eq!(watches.complete_list(KIND), (1, 0));
        assert!(synced(&old) && !synced(&new));
        watches.begin_list(KIND);
        assert!(synced(&old), "it stays so while a new list is under way");
        assert_eq!(watches.complete_list(KIND), (2, 1));
        assert!(synced(&new));
    }

    #[test]
    fn a_response_counts_in_its_epoch_and_not_during_a_list() {
        let watches = NamespaceWatches::default();
        watches.begin_list(KIND);
        assert!(!watches.accepts_response(KIND, 1));
        watches.complete_list(KIND);
        assert!(watches.accepts_response(KIND, 1));
        watches.begin_list(KIND);
        assert!(!watches.accepts_response(KIND, 1) && !watches.accepts_response(KIND, 2));
        watches.complete_list(KIND);
        assert!(!watches.accepts_response(KIND, 1) && watches.accepts_response(KIND, 2));
    }

    #[test]
    fn an_error_from_before_a_database_came_is_not_its_error() {
        let watches = NamespaceWatches::default();
        let error = || Some(Condition::new(ConditionKind::Forbidden, "no right to list"));
        let old = watches.next_epochs();
        watches.begin_list(KIND);
        assert!(watches.set_error(KIND, error())(1));
        assert!(!watches.set_error(KIND, error())(1), "it is the same");
        let new = watches.next_epochs();
        let error_of = |epochs| watches.snapshot(epochs)[KIND as usize].error.clone();
        assert_eq!((error_of(&old), error_of(&new)), (error(), None));
        watches.begin_list(KIND);
        let changed = watches.set_error(KIND, error());
        assert!(!changed(1) && changed(2));
        assert!(watches.set_error(KIND, None)(1));
    }
}
