//! Decides what to write: ownership first, then the difference between desired and existing. Pure.

pub(crate) mod desired;
pub(crate) mod diff;
pub(crate) mod inputs;
pub(crate) mod mirroring;
pub(crate) mod next_step;
pub(crate) mod ports;
pub(crate) mod prune;
pub(crate) mod prune_gate;
pub(crate) mod remarks;
pub(crate) mod service;
pub(crate) mod serving;
pub(crate) mod step;
pub(crate) mod waiting;
