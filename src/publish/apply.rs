//! Carries out one step: the queue and the throttle of writes, the calls to the API, and what is
//! sent about them.

pub(crate) mod calls;
pub(crate) mod executor;
pub(crate) mod pruner;
pub(crate) mod queue;
pub(crate) mod throttle;
