//! The waker: ends the wait of a reactor from any thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// A handle that ends the wait of one [`Reactor`](super::Reactor). Clones wake the same reactor.
#[derive(Clone)]
pub struct Waker(Arc<Inner>);

struct Inner {
    eventfd: OwnedFd,
    /// True from a wake until the reactor has noticed it. Another wake then needs no system call.
    pending: AtomicBool,
}

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Inner { eventfd, pending: AtomicBool::new(false) })))
    }

    /// Wakes the reactor. Call it after the work for the reactor's thread is in place.
    pub fn wake(&self) {
        if !self.0.pending.swap(true, Ordering::SeqCst) {
            // The write cannot fail: the counter is full only after 2^64 wakes.
            let _ = rustix::io::write(&self.0.eventfd, &1_u64.to_ne_bytes());
        }
    }

    /// Accepts the next wake. Called before the reactor's thread looks for work.
    ///
    /// The event is edge-triggered, so the counter need not be read.
    pub(super) fn reset(&self) {
        self.0.pending.store(false, Ordering::SeqCst);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.eventfd.as_fd()
    }
}
