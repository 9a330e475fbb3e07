//! Probes of the cheapest checks, thousands at once on the thread of the monitor.
//!
//! A fast check is a few packets and never blocks: a TCP connect, a plain HTTP request of which
//! only the status counts, or a conversation in a database's own protocol without TLS. Nearly all
//! checks of a large installation are fast.
//!
//! ```text
//!  FastCheck --start--> Reactor: one epoll instance, FastProbes, deadlines --> Completion
//!                          ^
//!  other threads --wake--> Waker
//! ```
//!
//! # Why not a task each
//!
//! A task of a runtime costs a timer, a waker and a turn of the scheduler for each probe, and a
//! channel to hand the verdict to the monitor. These were measured against the floor, a bare epoll
//! loop that does the same work (`benches/README.md` says how):
//!
//! | way to check 5,000 targets a second | CPU a check | floor |
//! | --- | ---: | ---: |
//! | TCP, a task for each target | 41 us | 35 us |
//! | TCP, this reactor | 1.03 x the floor | |
//! | HTTP, this loop as a task below a runtime | 50 us | 41 us |
//! | HTTP, this reactor on a thread of its own | 1.01 x the floor | |
//!
//! A probe in flight takes no heap memory of its own but for an HTTP answer that does not come in
//! one piece, and a probe costs no system call that its packets do not need.
//!
//! All other checks are tasks: they do more than a few packets, so that a task is a small part of
//! their cost, and a slow one must not delay a fast one.

mod check;
mod deadlines;
mod exchange;
mod native_exchange;
mod probe;
mod reactor;
mod single;
mod slab;
mod waker;

pub use check::FastCheck;
pub use reactor::{Completion, Reactor};
pub(crate) use single::run_once;
pub use waker::Waker;
