//! One replica's part in the election: what it knows of the Lease, until when it may write, and its
//! next step. Pure: the keeper makes the calls, and the model in the tests plays with the same
//! code.

use std::time::Duration;

use super::decision::{self, Action, Owner, Permission};
use super::fitness::{COURTESY, Checks, Duty, Fitness};
use super::mark::Mark;
use super::{RENEW_DEADLINE, RETRY_PERIOD, STANDBY_PERIOD};
use crate::clock::BootInstant;

/// The Lease as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub version: String,
    pub uid: String,
    pub holder: Option<String>,
    /// How long it says that it holds.
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
    /// The mark; none removes the one that is there.
    pub mark: Option<Mark>,
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Read the Lease.
    Observe,
    /// Write the Lease on the version that was seen last, or as a new one.
    Write(Draft),
    /// Find out whether anything bears our label yet.
    FindInstallation,
    /// Give the Lease up, for one that can check.
    Release,
    /// The Lease is ours, and need not be renewed for this long.
    Hold(Duration),
    /// The Lease is not ours. Look again after this long.
    StandBy(Duration),
}

/// The Lease as it was last looked at.
#[derive(Debug)]
struct ObservedLease {
    /// None if it was absent.
    record: Option<Record>,
    /// When it was first seen as it is: what it says of time was said by another's clock.
    observed_at: BootInstant,
}

/// One replica in the election.
#[derive(Debug)]
pub(super) struct Election {
    /// The identity, which is written as the holder.
    identity: String,
    /// Names this process, and no other under the same identity.
    process: String,
    observed: Option<ObservedLease>,
    /// The process that held the Lease under our identity when it was first looked at.
    predecessor: Option<String>,
    /// When this replica stops being allowed to write, if it may.
    expires_at: Option<BootInstant>,
    /// When the call began by which it last took or renewed the Lease, and the version that came of
    /// it.
    written: Option<(BootInstant, String)>,
    /// Set when the Lease must be looked at before anything else.
    must_observe: bool,
    /// The version of the Lease for which it was asked whether anything bears our label, and the
    /// answer.
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

    /// How long this replica may still write; none if it may not.
    pub(super) fn remaining(&self, now: BootInstant) -> Option<Duration> {
        let remaining = self.expires_at?.saturating_duration_since(now);
        (!remaining.is_zero()).then_some(remaining)
    }

    /// When this replica stops being allowed to write, if it may.
    pub(super) fn expires_at(&self) -> Option<BootInstant> {
        self.expires_at
    }

    /// The holder, if that is another replica.
    pub(super) fn other_holder(&self) -> Option<&str> {
        self.record()?.holder.as_deref().filter(|holder| *holder != self.identity)
    }

    /// Another process that holds the Lease under our identity, told with what to do about it.
    pub(super) fn twin(&self) -> Option<String> {
        let ours = self.record()?.holder.as_ref() == Some(&self.identity);
        (ours && self.owner() == Owner::Another).then(|| {
            format!(
                "another process that runs holds it under this replica's own identity {}; set POD_UID to the UID of its own \
                 Pod for each, by fieldRef: metadata.uid",
                self.identity
            )
        })
    }

    /// The trouble with the checks of this replica, if there is any.
    pub(super) fn unfit(&self, now: BootInstant) -> Option<&str> {
        self.fitness.trouble(now)
    }

    /// Begins a turn. A holder knows the Lease as it wrote it, and all others look.
    pub(super) fn begin_turn(&mut self, checks: Checks, now: BootInstant) {
        self.fitness.observe(checks, now);
        self.must_observe |= self.remaining(now).is_none();
    }

    /// Decides on the next step. Standing by ends the permission.
    pub(super) fn next(&mut self, now: BootInstant) -> Step {
        let Some(seen) = self.observed.as_ref().filter(|_| !self.must_observe) else {
            return Step::Observe;
        };
        let unchanged = now.saturating_duration_since(seen.observed_at);
        let duration = seen.record.as_ref().map_or(Duration::ZERO, |record| record.duration);
        let time = decision::time_of(duration);
        let step = match self.remaining(now) {
            Some(_) => self.next_of_holder(now, time.saturating_sub(unchanged)),
            None => self.next_of_standby(now, time, unchanged),
        };
        if matches!(step, Step::StandBy(_)) {
            self.expires_at = None;
        }
        step
    }

    fn next_of_holder(&self, now: BootInstant, remaining: Duration) -> Step {
        if self.fitness.duty_of_holder(now) == Duty::StepDown {
            return Step::Release;
        }
        match decision::decide(self.owner(), Permission::Valid, remaining) {
            Action::Wait(remaining) => Step::StandBy(remaining.min(STANDBY_PERIOD)),
            // Only a Lease that is ours may rest: one that we created anew is nobody's yet.
            action => match self.rest(now).filter(|_| action == Action::Renew) {
                Some(rest) => Step::Hold(rest),
                None => Step::Write(self.draft(action)),
            },
        }
    }

    /// How long a Lease that still is as we wrote it need not be renewed.
    fn rest(&self, now: BootInstant) -> Option<Duration> {
        let (at, version) = self.written.as_ref()?;
        let rest = (*at + RETRY_PERIOD).saturating_duration_since(now);
        (!rest.is_zero() && self.version() == Some(version)).then_some(rest)
    }

    fn next_of_standby(&self, now: BootInstant, time: Duration, unchanged: Duration) -> Step {
        let (owner, remaining) = (self.owner(), time.saturating_sub(unchanged));
        let action = match decision::decide(owner, Permission::None, remaining) {
            Action::Wait(_)
                if owner == Owner::Unclear && self.installation() == Some(Installation::New) =>
            {
                Action::Take
            }
            action => action,
        };
        match (action, self.fitness.duty_of_standby(now)) {
            (Action::Create, _) => {}
            (_, Duty::Abstain) => return Step::StandBy(STANDBY_PERIOD),
            (_, Duty::Yield | Duty::StepDown) if unchanged < time + COURTESY => {
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

    /// Takes the Lease as it is now.
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
            self.predecessor = self.process_of_ours().map(str::to_owned);
        }
    }

    /// Takes the answer to a write that began then. A create neither gives permission nor ends it.
    pub(super) fn wrote(
        &mut self,
        draft: &Draft,
        record: Record,
        begun: BootInstant,
        now: BootInstant,
    ) {
        let gains = draft.action != Action::Create
            && draft.holder.is_some()
            && self.remaining(begun).is_none();
        if gains && self.fitness.duty_of_standby(begun) == Duty::Yield {
            // It has let all others go first already. To step down would only leave nobody to write.
            self.fitness.stepped_down(now);
        }
        self.must_observe = false;
        self.written = Some((begun, record.version.clone()));
        self.observed = Some(ObservedLease { record: Some(record), observed_at: now });
        if draft.action != Action::Create {
            self.expires_at = draft.holder.is_some().then(|| begun + RENEW_DEADLINE);
        }
    }

    /// Takes note that the Lease was not as it was seen.
    pub(super) fn refused(&mut self) {
        self.must_observe = true;
    }

    /// Takes the answer whether anything bears our label.
    pub(super) fn answered(&mut self, installation: Installation) {
        self.installation = self.version().cloned().map(|version| (version, installation));
    }

    /// Makes the draft that gives the Lease up, if it is ours and we may still write. All our
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

    /// Ends the permission of a replica whose checks are not good enough, given up or not.
    pub(super) fn step_down(&mut self, now: BootInstant) {
        self.expires_at = None;
        self.fitness.stepped_down(now);
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

    /// The process that holds the Lease under our identity.
    fn process_of_ours(&self) -> Option<&str> {
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
                Owner::GivenUp
            }
            (Some(holder), _) if *holder != self.identity => Owner::Another,
            _ => match self.process_of_ours() {
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
        let transitions = before.saturating_add(i32::from(action == Action::Take));
        let mark = Mark::Held {
            transitions,
            identity: self.identity.clone(),
            process: self.process.clone(),
        };
        Draft { action, holder: Some(self.identity.clone()), transitions, mark: Some(mark) }
    }
}

#[cfg(test)]
#[path = "election_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "model_tests.rs"]
mod model;
