//! The state that a reconciler keeps between decisions, and the event that it waits for next.

use std::time::{Duration, Instant};

use super::queue::Urgency;
use super::throttle::WriteThrottle;
use crate::config::DatabaseId;
use crate::plan::Plan;
use crate::publish::backoff::Backoff;
use crate::publish::condition::ConditionKind;
use crate::publish::decide::inputs::Inputs;
use crate::publish::foreign_writer::Repairs;

/// The state that a reconciler keeps between decisions.
pub(crate) struct ReconcileState {
    /// The UID of the Endpoints that this process has written.
    pub written_uid: Option<String>,
    /// The plan that the cluster matched last: a difference from it is someone else's change.
    pub synced_plan: Option<Plan>,
    /// Delays between attempts of a step that fails.
    pub backoff: Backoff,
    /// The number of conflicts since the last success.
    pub conflicts: u32,
    /// Delays between writes that succeed.
    pub throttle: WriteThrottle,
    /// The plan that takes several writes, and the objects that have been written for it.
    batch: Option<(Plan, Vec<String>)>,
    /// The warning that is delayed, and the time at which its cause was found.
    pub delayed_warning: Option<(ConditionKind, Instant)>,
    /// The repairs of outside changes.
    pub repairs: Repairs,
    /// The warning about the Service's traffic policy that was logged last.
    pub local_traffic: Option<String>,
}

impl ReconcileState {
    /// Returns the state before the first decision about a database.
    pub(crate) fn new(replica: &str, id: &DatabaseId) -> Self {
        Self {
            written_uid: None,
            synced_plan: None,
            backoff: Backoff::spread_by((replica, id)),
            conflicts: 0,
            throttle: WriteThrottle::default(),
            batch: None,
            delayed_warning: None,
            repairs: Repairs::default(),
            local_traffic: None,
        }
    }

    /// Resets the delays that failures have caused.
    pub(crate) fn reset_failures(&mut self) {
        self.backoff.reset();
        self.conflicts = 0;
    }

    /// Records that an object was written for a plan. Returns whether that was the first time.
    pub(crate) fn is_first_write_of_batch(&mut self, name: String, plan: &Plan) -> bool {
        let (_, names) = match self.batch.take().filter(|(of, _)| of == plan) {
            Some(batch) => self.batch.insert(batch),
            None => self.batch.insert((plan.clone(), Vec::new())),
        };
        let is_first = !names.contains(&name);
        if is_first {
            names.push(name);
        }
        is_first
    }

    /// Ends the batch: all of the plan has been written, or someone undoes it.
    pub(crate) fn end_batch(&mut self) {
        self.batch = None;
    }

    /// Returns whether the plan takes more than one write.
    pub(crate) fn is_in_batch(&self) -> bool {
        self.batch.is_some()
    }

    /// Returns the urgency of a write that these inputs ask for.
    pub(crate) fn urgency(&self, inputs: &Inputs) -> Urgency {
        if self.synced_plan.as_ref() == Some(&inputs.plan) {
            return Urgency::Repair;
        }
        match &inputs.plan {
            Plan::Publish(members)
                if inputs.serving().iter().all(|serving| members.contains(serving.ip)) =>
            {
                Urgency::Change
            }
            _ => Urgency::Removal,
        }
    }
}

/// The event that a reconciler waits for next.
pub(crate) enum Requeue {
    /// A change of the cluster, the plan or the lease.
    OnChange,
    /// A change, or the end of this delay.
    OnChangeOr(Duration),
    /// The end of this delay, whatever changes.
    After(Duration),
}
