//! The state of one replica in the election: the Lease as it was observed, the time until which the
//! replica may write, and its next step. Pure: the elector makes the calls, and the model in the
//! tests runs the same code.

use std::time::Duration;

use super::decision::{self, Action, Owner, Permission};
use super::fitness::{Checks, Duty, Fitness, YIELD_DELAY};
use super::mark::Mark;
use super::{RENEW_DEADLINE, RETRY_PERIOD, STANDBY_PERIOD};
use crate::clock::BootInstant;

/// The Lease as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub version: String,
    pub uid: String,
    pub holder: Option<String>,
    /// The duration that it states.
    pub duration: Duration,
    pub transitions: i32,
    pub mark: Option<Mark>,
}

/// The content of the Lease that a step writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Draft {
    pub action: Action,
    pub holder: Option<String>,
    pub transitions: i32,
    /// The mark; none removes an existing one.
    pub mark: Option<Mark>,
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Read the Lease.
    Observe,
    /// Write the Lease on the version that was observed last, or as a new one.
    Write(Draft),
    /// Read whether anything bears our label yet.
    FindInstallation,
    /// Release the Lease to a replica that can check.
    Release,
    /// Wait for this long: the Lease is ours and need not be renewed before.
    Hold(Duration),
    /// Wait for this long: the Lease is not ours.
    StandBy(Duration),
}

/// The Lease as it was last observed (client-go: `observedRecord`).
#[derive(Debug)]
struct ObservedLease {
    /// None if it was absent.
    record: Option<Record>,
    /// The time at which it was first observed like this, by the clock of this replica. The times
    /// in the Lease are those of another's clock.
    observed_at: BootInstant,
}

/// One replica in the election.
#[derive(Debug)]
pub(super) struct Election {
    /// The identity, which is written as the holder.
    identity: String,
    /// The name of this process, which no other under the same identity has.
    process: String,
    observed: Option<ObservedLease>,
    /// The process that held the Lease under our identity when it was first observed.
    predecessor: Option<String>,
    /// The time at which the permission to write ends; none without one.
    expires_at: Option<BootInstant>,
    /// The time at which the last call began that acquired or renewed the Lease, and the version
    /// that it stored.
    written: Option<(BootInstant, String)>,
    /// Set when the Lease must be observed before anything else.
    must_observe: bool,
    /// The state of the installation, and the version of the Lease for which it was read.
    installation: Option<(String, Installation)>,
    fitness: Fitness,
}

/// The state of the namespaces of the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installation {
    /// Nothing that bears our label.
    New,
    /// Something that bears our label.
    Existing,
}

impl Election {
    pub(super) fn new(me: String, process: String) -> Self {
        Self {
            identity: me,
            process,
            observed: None,
            predecessor: None,
            expires_at: None,
            written: None,
            must_observe: true,
            installation: None,
            fitness: Fitness::default(),
        }
    }

    /// Returns the time for which this replica may still write; none if it may not.
    pub(super) fn remaining(&self, now: BootInstant) -> Option<Duration> {
        let remaining = self.expires_at?.saturating_duration_since(now);
        (!remaining.is_zero()).then_some(remaining)
    }

    /// Returns the time at which the permission to write ends; none without one.
    pub(super) fn expires_at(&self) -> Option<BootInstant> {
        self.expires_at
    }

    /// Returns the holder, if that is another replica.
    pub(super) fn other_holder(&self) -> Option<&str> {
        self.record()?.holder.as_deref().filter(|holder| *holder != self.identity)
    }

    /// Describes another process that holds the Lease under our identity, with what to do about it.
    pub(super) fn duplicate_identity(&self) -> Option<String> {
        let ours = self.record()?.holder.as_ref() == Some(&self.identity);
        (ours && self.owner() == Owner::Another).then(|| {
            format!(
                "another running process holds it under this replica's own identity {}; set \
                 POD_UID of each to the UID of its own Pod, by fieldRef: metadata.uid",
                self.identity
            )
        })
    }

    /// Describes what is wrong with the checks of this replica; none if they are good enough.
    pub(super) fn unfit_reason(&self, now: BootInstant) -> Option<&str> {
        self.fitness.problem(now)
    }

    /// Begins a tick. The leader knows the Lease as it wrote it, and all others must observe it.
    pub(super) fn begin_tick(&mut self, checks: Checks, now: BootInstant) {
        self.fitness.observe(checks, now);
        self.must_observe |= self.remaining(now).is_none();
    }

    /// Returns the next step. `StandBy` ends the permission.
    pub(super) fn next(&mut self, now: BootInstant) -> Step {
        let Some(seen) = self.observed.as_ref().filter(|_| !self.must_observe) else {
            return Step::Observe;
        };
        let unchanged = now.saturating_duration_since(seen.observed_at);
        let duration = seen.record.as_ref().map_or(Duration::ZERO, |record| record.duration);
        let time = decision::expiry_after(duration);
        let step = match self.remaining(now) {
            Some(_) => self.next_as_leader(now, time.saturating_sub(unchanged)),
            None => self.next_as_standby(now, time, unchanged),
        };
        if matches!(step, Step::StandBy(_)) {
            self.expires_at = None;
        }
        step
    }

    fn next_as_leader(&self, now: BootInstant, remaining: Duration) -> Step {
        if self.fitness.duty_as_leader(now) == Duty::StepDown {
            return Step::Release;
        }
        match decision::decide(self.owner(), Permission::Valid, remaining) {
            Action::Wait(remaining) => Step::StandBy(remaining.min(STANDBY_PERIOD)),
            // Only a Lease that is ours may wait: one that we created anew has no holder yet.
            action => match self.until_renewal(now).filter(|_| action == Action::Renew) {
                Some(rest) => Step::Hold(rest),
                None => Step::Write(self.draft(action)),
            },
        }
    }

    /// Returns the time until a Lease that still is as we wrote it must be renewed; none if that is
    /// now.
    fn until_renewal(&self, now: BootInstant) -> Option<Duration> {
        let (at, version) = self.written.as_ref()?;
        let rest = (*at + RETRY_PERIOD).saturating_duration_since(now);
        (!rest.is_zero() && self.version() == Some(version)).then_some(rest)
    }

    fn next_as_standby(&self, now: BootInstant, time: Duration, unchanged: Duration) -> Step {
        let (owner, remaining) = (self.owner(), time.saturating_sub(unchanged));
        let action = match decision::decide(owner, Permission::None, remaining) {
            Action::Wait(_)
                if owner == Owner::Unclear && self.installation() == Some(Installation::New) =>
            {
                Action::Acquire
            }
            action => action,
        };
        match (action, self.fitness.duty_as_standby(now)) {
            (Action::Create, _) => {}
            (_, Duty::Abstain) => return Step::StandBy(STANDBY_PERIOD),
            (_, Duty::Yield | Duty::StepDown) if unchanged < time + YIELD_DELAY => {
                return Step::StandBy(STANDBY_PERIOD);
            }
            (Action::Wait(_), _) if owner == Owner::Unclear && self.installation().is_none() => {
                return Step::FindInstallation;
            }
            (Action::Wait(remaining), _) => return Step::StandBy(remaining.min(STANDBY_PERIOD)),
            _ => {}
        }
        Step::Write(self.draft(action))
    }

    /// Updates the observed Lease.
    pub(super) fn observe(&mut self, record: Option<Record>, now: BootInstant) {
        let first = self.observed.is_none();
        self.must_observe = false;
        let unchanged = |seen: &ObservedLease| {
            seen.record.as_ref().map(|held| &held.version)
                == record.as_ref().map(|now| &now.version)
        };
        if !self.observed.as_ref().is_some_and(unchanged) {
            self.observed = Some(ObservedLease { record, observed_at: now });
        }
        if first {
            self.predecessor = self.process_under_identity().map(str::to_owned);
        }
    }

    /// Applies the answer to a write that began at `begun`. A create neither gives permission nor
    /// ends it.
    pub(super) fn on_written(
        &mut self,
        draft: &Draft,
        record: Record,
        begun: BootInstant,
        now: BootInstant,
    ) {
        let gains = draft.action != Action::Create
            && draft.holder.is_some()
            && self.remaining(begun).is_none();
        if gains && self.fitness.duty_as_standby(begun) == Duty::Yield {
            // All others had their chance already. To step down would only leave nobody to write.
            self.fitness.on_stepped_down(now);
        }
        self.must_observe = false;
        self.written = Some((begun, record.version.clone()));
        self.observed = Some(ObservedLease { record: Some(record), observed_at: now });
        if draft.action != Action::Create {
            self.expires_at = draft.holder.is_some().then(|| begun + RENEW_DEADLINE);
        }
    }

    /// Records that the Lease was not as it was observed.
    pub(super) fn on_conflict(&mut self) {
        self.must_observe = true;
    }

    /// Sets the state of the installation, for the Lease as it was last observed.
    pub(super) fn set_installation(&mut self, installation: Installation) {
        self.installation = self.version().cloned().map(|version| (version, installation));
    }

    /// Returns the draft that releases the Lease, if it is ours and we may still write. All our
    /// writes must have ended.
    pub(super) fn release(&self, now: BootInstant) -> Option<Draft> {
        self.remaining(now)?;
        let record = self.record().filter(|_| self.owner() == Owner::Ours)?;
        let mark = Mark::Released { transitions: record.transitions, uid: record.uid.clone() };
        Some(Draft {
            action: Action::Renew,
            holder: None,
            transitions: record.transitions,
            mark: Some(mark),
        })
    }

    /// Ends the permission of a replica whose checks are not good enough, whether or not the Lease
    /// could be released.
    pub(super) fn step_down(&mut self, now: BootInstant) {
        self.expires_at = None;
        self.fitness.on_stepped_down(now);
    }

    fn record(&self) -> Option<&Record> {
        self.observed.as_ref()?.record.as_ref()
    }

    fn version(&self) -> Option<&String> {
        self.record().map(|record| &record.version)
    }

    fn installation(&self) -> Option<Installation> {
        let (version, installation) = self.installation.as_ref()?;
        (Some(version) == self.version()).then_some(*installation)
    }

    /// Returns the process that holds the Lease under our identity.
    fn process_under_identity(&self) -> Option<&str> {
        let Record {
            holder,
            transitions,
            mark: Some(Mark::Held { transitions: marked, identity, process }),
            ..
        } = self.record()?
        else {
            return None;
        };
        (holder.as_ref() == Some(&self.identity)
            && *identity == self.identity
            && transitions == marked)
            .then_some(process)
    }

    fn owner(&self) -> Owner {
        let Some(record) = self.record() else { return Owner::Absent };
        let Record { uid, transitions, .. } = record;
        match (&record.holder, &record.mark) {
            (None, Some(Mark::Released { transitions: marked, uid: of }))
                if marked == transitions && of == uid =>
            {
                Owner::Released
            }
            (Some(holder), _) if *holder != self.identity => Owner::Another,
            _ => match self.process_under_identity() {
                None => Owner::Unclear,
                Some(process) if process == self.process => Owner::Ours,
                process if process == self.predecessor.as_deref() => Owner::Predecessor,
                Some(_) => Owner::Another,
            },
        }
    }

    fn draft(&self, action: Action) -> Draft {
        if action == Action::Create {
            return Draft { action, holder: None, transitions: 0, mark: None };
        }
        let before = self.record().map_or(0, |record| record.transitions);
        let transitions = before.saturating_add(i32::from(action == Action::Acquire));
        let mark = Mark::Held {
            transitions,
            identity: self.identity.clone(),
            process: self.process.clone(),
        };
        Draft { action, holder: Some(self.identity.clone()), transitions, mark: Some(mark) }
    }
}

#[cfg(test)]
mod tests;
