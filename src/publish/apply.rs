//! Applies decisions: the queue and the throttle of writes, the calls to the API, and the reports
//! about them.

pub(crate) mod calls;
pub(crate) mod executor;
pub(crate) mod feedback;
pub(crate) mod pruner;
pub(crate) mod queue;
pub(crate) mod report;
pub(crate) mod state;
pub(crate) mod throttle;
