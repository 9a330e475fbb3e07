//! Wakes whoever waits for a swarm, from any thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

#[derive(Clone)]
pub struct Bell(Arc<Inner>);

struct Inner {
    eventfd: OwnedFd,
    /// Whether it has been rung and not been heard yet: then to ring it again is no system call.
    rung: AtomicBool,
}

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Inner { eventfd, rung: AtomicBool::new(false) })))
    }

    /// To be called when there is already something to be found.
    pub fn ring(&self) {
        if !self.0.rung.swap(true, Ordering::SeqCst) {
            // It can't be full: that takes 2^64 rings.
            let _ = rustix::io::write(&self.0.eventfd, &1_u64.to_ne_bytes());
        }
    }

    /// To be called before looking for what there is. Each ring is an edge, so that nothing need be read.
    pub(super) fn heard(&self) {
        self.0.rung.store(false, Ordering::SeqCst);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.eventfd.as_fd()
    }
}
