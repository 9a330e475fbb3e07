//! Wakes whoever waits for a reactor, from any thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

#[derive(Clone)]
pub struct Waker(Arc<Inner>);

struct Inner {
    eventfd: OwnedFd,
    /// Whether it has been rung and not been heard yet: then to ring it again is no system call.
    pending: AtomicBool,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Inner { eventfd, pending: AtomicBool::new(false) })))
    }

    /// To be called when there is already something to be found.
    pub fn wake(&self) {
        if !self.0.pending.swap(true, Ordering::SeqCst) {
            // It can't be full: that takes 2^64 rings.
            let _ = rustix::io::write(&self.0.eventfd, &1_u64.to_ne_bytes());
        }
    }

    /// To be called before looking for what there is. Each ring is an edge, so that nothing need be read.
    pub(crate) fn reset(&self) {
        self.0.pending.store(false, Ordering::SeqCst);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.eventfd.as_fd()
    }
}
