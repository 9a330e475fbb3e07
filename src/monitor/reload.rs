//! The change to another config while checks run: a target whose check has not changed keeps its
//! phase and its health, as if nothing had happened.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::database::DatabaseMonitor;
use super::facts::InconclusiveRun;
use super::{Monitor, ScheduledTarget};
use crate::config::{Database, DatabaseId, Spec};
use crate::probe::{Prober, Target};
use crate::schedule::{Cadence, TargetKey};

/// A database of the config before, with the keys of its targets in the schedule.
struct Previous {
    database: DatabaseMonitor,
    keys: Vec<TargetKey>,
}

impl Monitor {
    /// Replaces all databases and targets by those of `spec`.
    pub(super) fn reload(&mut self, spec: &Spec, now: Instant) {
        let mut previous = self.take_previous();
        let mut databases = Vec::with_capacity(spec.databases.len());
        let mut new = Vec::new();
        for (index, config) in spec.databases.iter().enumerate() {
            let database = match previous.remove(&config.id) {
                Some(Previous { mut database, keys }) => {
                    let old = database.config().clone();
                    database.reload(config, &mut self.freeze, now);
                    new.extend(self.carry_over(index, &old, keys, config));
                    database
                }
                None => {
                    new.extend((0..config.addresses.len()).map(|target| (index, target)));
                    DatabaseMonitor::new(config, self.recorder.clone(), now)
                }
            };
            databases.push(database);
        }
        for Previous { mut database, keys } in previous.into_values() {
            database.withdraw(&mut self.freeze);
            keys.into_iter().for_each(|key| self.unschedule(key));
        }
        self.freeze.set_unsynced(databases.iter().filter(|database| !database.is_synced()).count());
        self.freeze.maybe_enter(now);
        self.databases = databases;
        // All that is kept by the index of a database begins again.
        self.undecided = self.undecided.map(|_| 0);
        self.snapshots.restart();
        let targets = spec.databases.iter().map(|config| config.addresses.len()).sum();
        self.inconclusive = InconclusiveRun::new(targets);
        self.reindex();
        let (network, exec) = (&self.network_queue, &self.exec_queue);
        let is_used = |owner| network.is_used_by(owner) || exec.is_used_by(owner);
        self.owners.update(spec.databases.iter().map(|config| &config.id), is_used);
        self.schedule_new(spec, &new, now);
        self.update_sharers();
    }

    /// Takes the databases out of the monitor, each with the keys of its targets.
    fn take_previous(&mut self) -> HashMap<DatabaseId, Previous> {
        let mut previous: Vec<Previous> = std::mem::take(&mut self.databases)
            .into_iter()
            .map(|database| {
                let keys = vec![TargetKey::MAX; database.config().addresses.len()];
                Previous { database, keys }
            })
            .collect();
        for (key, target) in self.scheduled.iter().enumerate() {
            if let Some((database, target)) = target.location {
                previous[database].keys[target] = key;
            }
        }
        previous
            .into_iter()
            .map(|previous| (previous.database.config().id.clone(), previous))
            .collect()
    }

    /// Keeps those targets of a database whose check has not changed in the schedule, and takes out
    /// the others. Returns the locations of the targets that are to be scheduled anew.
    fn carry_over(
        &mut self,
        index: usize,
        old: &Database,
        keys: Vec<TargetKey>,
        new: &Database,
    ) -> Vec<(usize, usize)> {
        let existing = old.addresses.iter().zip(keys);
        let mut existing: HashMap<IpAddr, _> =
            existing.map(|(address, key)| (address.ip, (address, key))).collect();
        let mut unscheduled = Vec::new();
        for (number, address) in new.addresses.iter().enumerate() {
            let location = (index, number);
            match existing.get(&address.ip) {
                Some(&(before, key)) if before.check == address.check => {
                    existing.remove(&address.ip);
                    let scheduled = &mut self.scheduled[key];
                    scheduled.location = Some(location);
                    let target = Target::new(new, address);
                    if target != Target::new(old, before) {
                        // A try in flight continues with the target as it was.
                        scheduled.prober = Arc::new(Prober::new(address.check.clone(), target));
                    }
                }
                _ => unscheduled.push(location),
            }
        }
        existing.into_values().for_each(|(_, key)| self.unschedule(key));
        unscheduled
    }

    /// Takes a target out of the schedule. A try that is in flight or waits in a queue keeps its
    /// key until it has ended.
    fn unschedule(&mut self, key: TargetKey) {
        self.scheduled[key].location = None;
        self.schedule.remove(key);
    }

    /// Adds targets to the schedule.
    fn schedule_new(&mut self, spec: &Spec, locations: &[(usize, usize)], now: Instant) {
        let config_of = |&(database, target): &(usize, usize)| {
            let database = &spec.databases[database];
            (database, &database.addresses[target])
        };
        let cadence = |location| {
            let check = &config_of(location).1.check;
            Cadence { interval: check.interval, recheck: check.recheck_interval }
        };
        let cadences: Vec<Cadence> = locations.iter().map(cadence).collect();
        let keys = self.schedule.add(&cadences, now);
        for (key, location) in keys.into_iter().zip(locations) {
            let (database, address) = config_of(location);
            let prober = Prober::new(address.check.clone(), Target::new(database, address));
            let scheduled = ScheduledTarget {
                location: Some(*location),
                owner: self.owners.get(&database.id),
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
