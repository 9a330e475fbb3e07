//! The TCP connection of a probe: opened without blocking, read up to a limit, and closed without
//! TIME_WAIT.

mod bounded;
pub(crate) mod close;
pub(crate) mod connect;

pub(crate) use bounded::{BoundedStream, BudgetExhausted, ReadBudget};
