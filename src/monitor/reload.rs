//! Takes another config in while checks run: a target whose check did not change goes on at its own phase, as if nothing had been.

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

/// A database as it was until now, and the keys of its targets in the schedule.
struct Previous {
    watched: DatabaseMonitor,
    keys: Vec<TargetKey>,
}

impl Monitor {
    /// Checks what `spec` has, and nothing else.
    pub(super) fn reload(&mut self, spec: &Spec, now: Instant) {
        let mut before = self.take_previous();
        let mut databases = Vec::with_capacity(spec.databases.len());
        let mut new = Vec::new();
        for (index, database) in spec.databases.iter().enumerate() {
            let watched = match before.remove(&database.id) {
                Some(Previous { mut watched, keys }) => {
                    let old = watched.database().clone();
                    watched.reload(database, &mut self.freeze, now);
                    new.extend(self.carry_over(index, &old, keys, database));
                    watched
                }
                None => {
                    new.extend((0..database.addresses.len()).map(|target| (index, target)));
                    DatabaseMonitor::new(database, self.recorder.clone(), now)
                }
            };
            databases.push(watched);
        }
        for Previous { mut watched, keys } in before.into_values() {
            watched.withdraw(&mut self.freeze);
            keys.into_iter().for_each(|key| self.unschedule(key));
        }
        self.freeze.set_unsynced(databases.iter().filter(|watched| !watched.is_seen()).count());
        self.freeze.maybe_enter(now);
        self.databases = databases;
        // The numbers that these go by are others.
        self.undecided = self.undecided.map(|_| 0);
        self.snapshots.restart();
        let targets = spec.databases.iter().map(|database| database.addresses.len()).sum();
        self.inconclusive = InconclusiveRun::new(targets);
        self.reindex();
        let (network, commands) = (&self.network_queue, &self.exec_queue);
        let is_used = |owner| network.is_used_by(owner) || commands.is_used_by(owner);
        self.owners.update(spec.databases.iter().map(|database| &database.id), is_used);
        self.schedule_new(spec, &new, now);
        self.update_sharers();
    }

    /// Takes apart what was checked until now.
    fn take_previous(&mut self) -> HashMap<DatabaseId, Previous> {
        let mut before: Vec<Previous> = std::mem::take(&mut self.databases)
            .into_iter()
            .map(|watched| Previous { watched, keys: Vec::new() })
            .collect();
        for database in &mut before {
            database.keys.resize(database.watched.database().addresses.len(), TargetKey::MAX);
        }
        for (key, tried) in self.scheduled.iter().enumerate() {
            if let Some((database, target)) = tried.place {
                before[database].keys[target] = key;
            }
        }
        before.into_iter().map(|before| (before.watched.database().id.clone(), before)).collect()
    }

    /// Lets those targets of a database go on whose check did not change, and ends the others. Returns which are to begin.
    fn carry_over(
        &mut self,
        index: usize,
        old: &Database,
        keys: Vec<TargetKey>,
        new: &Database,
    ) -> Vec<(usize, usize)> {
        let mut there: HashMap<IpAddr, _> = old
            .addresses
            .iter()
            .zip(keys)
            .map(|(address, key)| (address.ip, (address, key)))
            .collect();
        let mut begin = Vec::new();
        for (number, address) in new.addresses.iter().enumerate() {
            let place = (index, number);
            match there.get(&address.ip) {
                Some(&(before, key)) if before.check == address.check => {
                    there.remove(&address.ip);
                    let tried = &mut self.scheduled[key];
                    tried.place = Some(place);
                    let target = Target::new(new, address);
                    if target != Target::new(old, before) {
                        // A try that is under way goes on with what it knew.
                        tried.prober = Arc::new(Prober::new(address.check.clone(), target));
                    }
                }
                _ => begin.push(place),
            }
        }
        there.into_values().for_each(|(_, key)| self.unschedule(key));
        begin
    }

    /// Ends a target. A try that is under way, or waits for a place, keeps its key until it has ended.
    fn unschedule(&mut self, key: TargetKey) {
        self.scheduled[key].place = None;
        self.schedule.remove(key);
    }

    /// Puts targets into the schedule.
    fn schedule_new(&mut self, spec: &Spec, places: &[(usize, usize)], now: Instant) {
        let address = |&(database, target): &(usize, usize)| {
            let database = &spec.databases[database];
            (database, &database.addresses[target])
        };
        let rhythm = |place| {
            let check = &address(place).1.check;
            Cadence { interval: check.interval, recheck: check.recheck_interval }
        };
        let rhythms: Vec<Cadence> = places.iter().map(rhythm).collect();
        let keys = self.schedule.add(&rhythms, now);
        for (key, place) in keys.into_iter().zip(places) {
            let (database, address) = address(place);
            let prober =
                Arc::new(Prober::new(address.check.clone(), Target::new(database, address)));
            let owner = self.owners.get(&database.id);
            let tried = ScheduledTarget {
                place: Some(*place),
                owner,
                prober,
                interval: address.check.interval,
            };
            match self.scheduled.get_mut(key) {
                Some(free) => *free = tried,
                None => self.scheduled.push(tried),
            }
        }
    }

    /// Goes by the databases' new numbers.
    fn reindex(&mut self) {
        let ids = self.databases.iter().map(|watched| watched.database().id.clone());
        self.by_id = ids.enumerate().map(|(index, id)| (id, index)).collect();
        let plans =
            self.databases.iter().map(|watched| (watched.database().id.clone(), watched.plan()));
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
