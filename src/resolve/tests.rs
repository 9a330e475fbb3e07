//! Questions to real servers on the loopback, well and badly behaved, and the task that asks them.

#[path = "../../tests/support/name_server.rs"]
mod name_server;

mod exchange;
mod lookup;
mod task;
