//! The permission to write: a deadline that is checked right before each call.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedRwLockReadGuard;

use super::LEASE_DURATION;
use crate::api::Deadline;
use crate::clock::{self, BootInstant};

/// The time at which the last call that writes ended without an answer. All copies share it.
#[derive(Clone, Default)]
pub(super) struct LastUnacknowledged(Arc<Mutex<Option<BootInstant>>>);

impl LastUnacknowledged {
    /// Returns whether a write that had no answer may still arrive at the API.
    pub(super) fn may_still_arrive(&self) -> bool {
        self.get().is_some_and(|last| clock::boot_now() < last + LEASE_DURATION)
    }

    fn get(&self) -> Option<BootInstant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, time: Option<BootInstant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = time;
    }
}

/// Permission for one call that writes.
pub struct Permission {
    deadline: Deadline,
    last_unacknowledged: LastUnacknowledged,
    /// Set while a call has begun and has not ended with an answer. A permission that was not used
    /// has sent nothing.
    unacknowledged: bool,
    _writing: OwnedRwLockReadGuard<()>,
}

impl Permission {
    /// Creates a permission that ends at this time, or never.
    pub(super) fn new(
        expires_at: Option<BootInstant>,
        last_unacknowledged: LastUnacknowledged,
        writing: OwnedRwLockReadGuard<()>,
    ) -> Self {
        let deadline = Deadline::new(expires_at);
        Self { deadline, last_unacknowledged, unacknowledged: false, _writing: writing }
    }

    /// Runs the call, which ends by itself within `limit`. Returns none if the permission ends
    /// before the call does.
    pub async fn run<T>(mut self, limit: Duration, call: impl Future<Output = T>) -> Option<T> {
        self.unacknowledged = true;
        let begun = clock::now();
        let remaining = self.deadline.remaining().min(limit);
        let answer = tokio::time::timeout(remaining, self.deadline.clone().scope(call)).await.ok();
        // A call that took as long as its limit ended by its time-out.
        self.unacknowledged =
            answer.is_none() || clock::now().saturating_duration_since(begun) >= limit;
        answer
    }
}

impl Drop for Permission {
    fn drop(&mut self) {
        // From here on nothing more is sent for the call.
        self.deadline.end();
        if self.unacknowledged {
            self.last_unacknowledged.set(Some(clock::boot_now()));
        }
    }
}
