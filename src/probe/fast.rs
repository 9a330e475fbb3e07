//! Tries of the cheapest checks, thousands at once on one thread.

mod check;
mod exchange;
mod reactor;
mod waker;

pub use check::FastCheck;
pub(crate) use reactor::run_once;
pub use reactor::{Completion, Reactor};
pub use waker::Waker;
