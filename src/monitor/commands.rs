//! The commands that the rest of the daemon sends to the monitor.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::oneshot;

use super::budget::Budget;
use super::database::DatabaseMonitor;
use super::{Monitor, ServiceFacts};
use crate::annotations::ServiceAnnotations;
use crate::config::{DatabaseId, Spec};
use crate::freeze::Freeze;
use crate::plan::Members;
use crate::resolve::{LookupOutcome, NameKey};

/// One command, as the methods of [`super::Handle`] send it.
pub(super) enum Command {
    /// All members, and those that the daemon has written.
    SetInitialMembers(DatabaseId, Members, Members),
    SetPublishedMembers(DatabaseId, Members),
    SetAnnotations(DatabaseId, ServiceAnnotations),
    SetServiceFacts(DatabaseId, ServiceFacts),
    ApplyLookup(NameKey, LookupOutcome),
    /// The sender is used once the config has been taken over.
    Reload(Arc<Spec>, oneshot::Sender<()>),
}

impl Monitor {
    /// Runs the commands that have come, as many as a turn may. Fails if no handle is left.
    pub(super) fn run_commands(&mut self, now: Instant) -> Result<(), TryRecvError> {
        let mut budget = Budget::new();
        while budget.try_spend() {
            match self.commands.try_recv() {
                Ok(command) => self.run_command(command, now),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(gone @ TryRecvError::Disconnected) => return Err(gone),
            }
        }
        Ok(())
    }

    fn run_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::SetInitialMembers(id, members, own) => {
                self.update_database(&id, |database, freeze| {
                    database.set_initial_members(&members, &own, freeze, now);
                });
            }
            Command::SetPublishedMembers(id, members) => {
                self.update_database(&id, |database, freeze| {
                    database.set_published_members(members, freeze, now);
                });
            }
            Command::SetAnnotations(id, annotations) => {
                self.update_database(&id, |database, freeze| {
                    database.set_annotations(annotations, freeze, now);
                });
            }
            Command::SetServiceFacts(id, facts) => self.set_service_facts(&id, facts, now),
            Command::ApplyLookup(key, outcome) => self.apply_lookup(&key, &outcome, now),
            Command::Reload(spec, done) => {
                self.reload(&spec, now);
                // The caller may have given up waiting.
                let _ = done.send(());
            }
        }
    }

    /// Applies a change to a database. A database that has left the config is skipped.
    pub(super) fn update_database(
        &mut self,
        id: &DatabaseId,
        change: impl FnOnce(&mut DatabaseMonitor, &mut Freeze),
    ) {
        if let Some(&index) = self.by_id.get(id) {
            change(&mut self.databases[index], &mut self.freeze);
            self.after_change(index);
        }
    }
}
