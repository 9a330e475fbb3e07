//! The permission to write: a deadline that is checked right before each call.

use std::time::Duration;

use tokio::sync::OwnedRwLockReadGuard;

use super::Handle;
use crate::api::Deadline;
use crate::clock::{self, BootInstant};

/// Permission for one call that writes.
pub struct Permission {
    deadline: Deadline,
    lease: Handle,
    /// Set while a call has begun and has not ended with an answer. A permission that was not used
    /// has sent nothing.
    unacknowledged: bool,
    _writing: OwnedRwLockReadGuard<()>,
}

impl Permission {
    /// Creates a permission that ends at this time, or never.
    pub(super) fn new(
        lease: Handle,
        expires_at: Option<BootInstant>,
        writing: OwnedRwLockReadGuard<()>,
    ) -> Self {
        let deadline = Deadline::new(expires_at);
        Self { deadline, lease, unacknowledged: false, _writing: writing }
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
            self.lease.note_unacknowledged_write();
        }
    }
}
