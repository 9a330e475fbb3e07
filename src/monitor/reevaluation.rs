//! The decisions that become due by time alone: each database has at most one time at which it is
//! decided anew although nothing else has happened.

use std::cmp::Reverse;
use std::time::Instant;

use super::Monitor;
use super::budget::Budget;

impl Monitor {
    /// Follows a change of a database: brings the schedule to its addresses, passes its commands to
    /// the resolver, and remembers when it is to be reevaluated.
    pub(super) fn after_change(&mut self, index: usize) {
        self.update_schedule(index);
        for command in self.databases[index].take_resolver_commands() {
            self.pass_to_resolver(command);
        }
        self.schedule_reevaluation(index);
    }

    /// Remembers when a database is to be reevaluated, if that has changed.
    pub(super) fn schedule_reevaluation(&mut self, index: usize) {
        if let Some(at) = self.databases[index].take_reevaluation() {
            self.reevaluations.push(Reverse((at, index)));
        }
    }

    /// Reevaluates the databases that are due, then the freeze with the databases that it left to
    /// be decided. Returns the next time at which something is due.
    pub(super) fn reevaluate_due(&mut self, now: Instant) -> Option<Instant> {
        self.reevaluate_databases(now);
        let freeze = self.update_freeze(now);
        // Read after all decisions of the turn: each can bring another time.
        let database = self.reevaluations.peek().map(|&Reverse((at, _))| at);
        database.into_iter().chain(freeze).min()
    }

    /// Reevaluates the databases whose time has come, as many as a turn may.
    fn reevaluate_databases(&mut self, now: Instant) {
        let mut budget = Budget::new();
        while let Some(&Reverse((at, index))) = self.reevaluations.peek() {
            if at > now || !budget.try_spend() {
                return;
            }
            self.reevaluations.pop();
            self.databases[index].reevaluate_if_due(&mut self.freeze, now);
            self.after_change(index);
        }
    }
}
