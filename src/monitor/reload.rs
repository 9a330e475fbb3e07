//! The change to another config while checks run: a target whose check has not changed keeps its
//! phase and its health, as if nothing had happened.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::database::{DatabaseMonitor, Scheduled};
use super::facts::InconclusiveRun;
use super::{Monitor, ScheduledTarget};
use crate::clock;
use crate::config::{DatabaseId, Spec};
use crate::probe::{Prober, Target};
use crate::schedule::{Cadence, TargetKey};

impl Monitor {
    /// Replaces all databases and targets by those of `spec`.
    pub(super) fn reload(&mut self, spec: &Spec, now: Instant) {
        let previous = std::mem::take(&mut self.databases).into_iter();
        let mut previous: HashMap<DatabaseId, DatabaseMonitor> =
            previous.map(|database| (database.config().id.clone(), database)).collect();
        let mut databases = Vec::with_capacity(spec.databases.len());
        for config in &spec.databases {
            databases.push(match previous.remove(&config.id) {
                Some(mut database) => {
                    database.reload(config, &mut self.freeze, now);
                    database
                }
                None => DatabaseMonitor::new(config, self.recorder.clone(), now),
            });
        }
        for mut database in previous.into_values() {
            database.withdraw(&mut self.freeze);
            database.scheduled.keys.into_iter().for_each(|key| self.unschedule(key));
        }
        let count = databases.len();
        databases.iter_mut().for_each(|database| database.bound_changes(count));
        self.freeze.set_unsynced(databases.iter().filter(|database| !database.is_synced()).count());
        self.freeze.maybe_enter(now);
        self.databases = databases;
        // All that is kept by the index of a database begins again.
        self.undecided = self.undecided.map(|_| 0);
        self.snapshots.restart();
        self.reindex();
        let (network, exec) = (&self.network_queue, &self.exec_queue);
        let is_used = |owner| network.is_used_by(owner) || exec.is_used_by(owner);
        self.owners.update(spec.databases.iter().map(|config| &config.id), is_used);
        self.reschedule_all(now);
        self.update_sharers();
        self.reindex_names(now);
    }

    /// Brings the schedule to the addresses of all databases. Those that are new are added
    /// together, so that their tries are spread evenly.
    fn reschedule_all(&mut self, now: Instant) {
        let mut new = Vec::new();
        for index in 0..self.databases.len() {
            new.extend(self.carry_over(index));
        }
        self.inconclusive = InconclusiveRun::new(self.count_targets());
        let keys = self.schedule.add(&self.cadences(&new), now);
        self.add_scheduled(keys, &new);
    }

    fn count_targets(&self) -> usize {
        self.databases.iter().map(|database| database.config().addresses.len()).sum()
    }

    /// Brings the schedule to the addresses of a database, if they have changed. Those that are new
    /// are tried at once.
    pub(super) fn update_schedule(&mut self, index: usize) {
        let database = &self.databases[index];
        if Arc::ptr_eq(&database.scheduled.database, database.config()) {
            return;
        }
        let targets = self.inconclusive.targets() - database.scheduled.keys.len()
            + database.config().addresses.len();
        self.inconclusive.set_targets(targets);
        let new = self.carry_over(index);
        let now = clock::now();
        let cadences = self.cadences(&new);
        let keys = cadences.iter().map(|cadence| self.schedule.add_due(cadence, now)).collect();
        self.add_scheduled(keys, &new);
        self.sharers_changed = true;
    }

    /// Keeps those targets of a database whose check has not changed in the schedule, and takes out
    /// the others. Returns the locations of the targets that are to be scheduled anew.
    fn carry_over(&mut self, index: usize) -> Vec<(usize, usize)> {
        let new = self.databases[index].config().clone();
        let scheduled = Scheduled { database: new.clone(), keys: Vec::new() };
        let Scheduled { database: old, keys } =
            std::mem::replace(&mut self.databases[index].scheduled, scheduled);
        let existing = old.addresses.iter().zip(keys);
        let mut existing: HashMap<IpAddr, _> =
            existing.map(|(address, key)| (address.ip, (address, key))).collect();
        let mut unscheduled = Vec::new();
        let mut keys = Vec::with_capacity(new.addresses.len());
        for (number, address) in new.addresses.iter().enumerate() {
            let location = (index, number);
            match existing.get(&address.ip) {
                Some(&(before, key)) if before.check == address.check => {
                    existing.remove(&address.ip);
                    keys.push(key);
                    let scheduled = &mut self.scheduled[key];
                    scheduled.location = Some(location);
                    let target = Target::new(&new, address);
                    if target != Target::new(&old, before) {
                        // A try in flight continues with the target as it was.
                        scheduled.prober = Arc::new(Prober::new(address.check.clone(), target));
                    }
                }
                _ => {
                    keys.push(TargetKey::MAX);
                    unscheduled.push(location);
                }
            }
        }
        self.databases[index].scheduled.keys = keys;
        existing.into_values().for_each(|(_, key)| self.unschedule(key));
        unscheduled
    }

    /// Takes a target out of the schedule. A try that is in flight or waits in a queue keeps its
    /// key until it has ended.
    fn unschedule(&mut self, key: TargetKey) {
        self.scheduled[key].location = None;
        self.schedule.remove(key);
    }

    /// Returns the times between the tries of targets at these locations.
    fn cadences(&self, locations: &[(usize, usize)]) -> Vec<Cadence> {
        let cadence = |&(database, target): &(usize, usize)| {
            let check = &self.databases[database].config().addresses[target].check;
            Cadence { interval: check.interval, recheck: check.recheck_interval }
        };
        locations.iter().map(cadence).collect()
    }

    /// Adds targets that have got these keys in the schedule.
    fn add_scheduled(&mut self, keys: Vec<TargetKey>, locations: &[(usize, usize)]) {
        for (key, &(index, target)) in keys.into_iter().zip(locations) {
            let database = &mut self.databases[index];
            database.scheduled.keys[target] = key;
            let config = database.config();
            let address = &config.addresses[target];
            let prober = Prober::new(address.check.clone(), Target::new(config, address));
            let scheduled = ScheduledTarget {
                location: Some((index, target)),
                owner: self.owners.get(&config.id),
                prober: Arc::new(prober),
                interval: address.check.interval,
            };
            match self.scheduled.get_mut(key) {
                Some(free) => *free = scheduled,
                None => self.scheduled.push(scheduled),
            }
        }
    }

    /// Rebuilds all that refers to databases by their index.
    fn reindex(&mut self) {
        let ids = self.databases.iter().map(|database| database.config().id.clone());
        self.by_id = ids.enumerate().map(|(index, id)| (id, index)).collect();
        let plans =
            self.databases.iter().map(|database| (database.config().id.clone(), database.plan()));
        self.plans.send_replace(Arc::new(plans.collect::<BTreeMap<_, _>>()));
        self.reevaluations.clear();
        for index in 0..self.databases.len() {
            self.databases[index].reset_reevaluation();
            self.schedule_reevaluation(index);
        }
    }
}

#[cfg(test)]
mod tests;
