//! When a replica that can't check leaves the Lease to another. Pure.
//!
//! | the checks of this replica                   | it holds the Lease                                     | it does not                         |
//! | ---                                          | ---                                                    | ---                                 |
//! | are timely, or not so for less than 1 s      | serves                                                 | competes                            |
//! | start late                                   | steps down, unless it did since it was last well       | takes what nobody else has taken    |
//! | are all inconclusive                         | steps down, unless it did so within the last 10 min    | the same                            |
//! | stand still                                  | steps down                                             | does not compete                    |
//!
//! It is well when its checks have been timely for a minute.
//!
//! No replica knows whether another can check. So a leader that checks badly steps down, and takes
//! the Lease again only after everyone else had their chance: one that checks badly is better than
//! none. It does so once, so that two replicas do not hand the Lease to and fro; and one that took
//! the Lease only after everyone else had their chance counts as having stepped down by that, as it
//! would leave nobody to write otherwise. One whose checks are all inconclusive has nothing to lose
//! by another try: it never takes the dead out. A leader whose checks stand still has nothing to
//! write, and so it does without the Lease.

use std::time::{Duration, Instant};

use crate::clock::BootInstant;

/// The monitor turns every 2 s at least; one that has not for this long stands still.
const STANDSTILL: Duration = Duration::from_secs(10);

/// How long checks must have been late, or inconclusive, before that counts.
const PERSISTS_AFTER: Duration = Duration::from_secs(30);

/// How long it must be so before the replica acts on it: a process that was stopped sees an old
/// time when it goes on.
const CONFIRM_TIME: Duration = Duration::from_secs(1);

/// A replica that checks badly leaves the Lease alone this much longer than all others.
pub(super) const COURTESY: Duration = Duration::from_secs(2);

/// Timely for this long, and the replica is as good as new.
const RECOVERY_TIME: Duration = Duration::from_secs(60);

/// The shortest time between two times that a leader steps down because all its checks are
/// inconclusive.
const STEP_DOWN_INTERVAL: Duration = Duration::from_secs(600);

/// The facts about the checks, as the monitor has them.
#[derive(Debug, Clone, Copy)]
pub struct CheckFacts {
    /// The last turn of the monitor's loop.
    pub last_turn: Instant,
    /// The moment since which most checks start late.
    pub late_since: Option<Instant>,
    /// The moment since which each target was tried, and all tries were inconclusive.
    pub inconclusive_since: Option<Instant>,
}

/// How well this replica checks. The text says what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checks {
    Timely,
    Late(String),
    Inconclusive(String),
    Standstill(String),
}

impl Checks {
    /// Judges the facts. The text says no time that runs: it is logged, and told to all, whenever it changes.
    pub(super) fn judge(facts: &CheckFacts, now: Instant) -> Self {
        let idle = now.saturating_duration_since(facts.last_turn);
        if idle >= STANDSTILL {
            return Self::Standstill("its checks stand still".into());
        }
        let lasts = |since: Option<Instant>| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= PERSISTS_AFTER)
        };
        match (lasts(facts.inconclusive_since), lasts(facts.late_since)) {
            (true, _) => Self::Inconclusive("all its checks are inconclusive".into()),
            (false, true) => Self::Late("most of its checks start late".into()),
            (false, false) => Self::Timely,
        }
    }

    /// The trouble; none if there is none.
    pub(super) fn trouble(&self) -> Option<&str> {
        match self {
            Self::Timely => None,
            Self::Late(trouble) | Self::Inconclusive(trouble) | Self::Standstill(trouble) => {
                Some(trouble)
            }
        }
    }
}

/// The duty of a replica in the election, as far as its checks decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Duty {
    /// Holds the Lease, or competes for it.
    Serve,
    /// Gives the Lease up.
    StepDown,
    /// Takes the Lease only when nobody else does.
    Yield,
    /// Leaves the Lease alone.
    Abstain,
}

/// The memory of how well this replica has checked.
#[derive(Debug)]
pub(super) struct Fitness {
    checks: Checks,
    /// The moment since which the checks are as well, or as unwell, as they are.
    since: Option<BootInstant>,
    stepped_down_at: Option<BootInstant>,
}

impl Default for Fitness {
    fn default() -> Self {
        Self { checks: Checks::Timely, since: None, stepped_down_at: None }
    }
}

impl Fitness {
    /// Takes the newest judgement.
    pub(super) fn observe(&mut self, checks: Checks, now: BootInstant) {
        if std::mem::discriminant(&checks) != std::mem::discriminant(&self.checks) {
            self.since = None;
        }
        self.checks = checks;
        let since = *self.since.get_or_insert(now);
        if self.checks == Checks::Timely && now.saturating_duration_since(since) >= RECOVERY_TIME {
            self.stepped_down_at = None;
        }
    }

    /// Takes note that this replica has just let all others have the Lease because of its checks:
    /// it gave the Lease up, or took it after all others could have.
    pub(super) fn stepped_down(&mut self, now: BootInstant) {
        self.stepped_down_at = Some(now);
    }

    /// The trouble with the checks, once it counts.
    pub(super) fn trouble(&self, now: BootInstant) -> Option<&str> {
        self.checks.trouble().filter(|_| self.is_confirmed(now))
    }

    /// Applies the table above to a holder.
    pub(super) fn duty_of_holder(&self, now: BootInstant) -> Duty {
        let rests = |at: BootInstant| now.saturating_duration_since(at) < STEP_DOWN_INTERVAL;
        match self.checks {
            _ if !self.is_confirmed(now) => Duty::Serve,
            Checks::Timely => Duty::Serve,
            Checks::Late(_) if self.stepped_down_at.is_some() => Duty::Serve,
            Checks::Inconclusive(_) if self.stepped_down_at.is_some_and(rests) => Duty::Serve,
            Checks::Late(_) | Checks::Inconclusive(_) | Checks::Standstill(_) => Duty::StepDown,
        }
    }

    /// Applies the table above to a replica that does not hold the Lease.
    pub(super) fn duty_of_standby(&self, now: BootInstant) -> Duty {
        match self.checks {
            _ if !self.is_confirmed(now) => Duty::Serve,
            Checks::Timely => Duty::Serve,
            Checks::Late(_) | Checks::Inconclusive(_) => Duty::Yield,
            Checks::Standstill(_) => Duty::Abstain,
        }
    }

    fn is_confirmed(&self, now: BootInstant) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= CONFIRM_TIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const S: Duration = Duration::from_secs(1);

    fn late() -> Checks {
        Checks::Late("late".into())
    }

    fn inconclusive() -> Checks {
        Checks::Inconclusive("inconclusive".into())
    }

    fn standstill() -> Checks {
        Checks::Standstill("still".into())
    }

    #[test]
    fn facts_become_a_judgement_when_they_last() {
        let start = clock::now();
        let facts = |turn, late: Option<u32>, inconclusive: Option<u32>| CheckFacts {
            last_turn: start + S * turn,
            late_since: late.map(|late| start + S * late),
            inconclusive_since: inconclusive.map(|inconclusive| start + S * inconclusive),
        };
        let judge = |facts, at| Checks::judge(&facts, start + S * at);
        assert_eq!(judge(facts(100, None, None), 109), Checks::Timely);
        let still = Checks::Standstill("its checks stand still".into());
        assert_eq!(judge(facts(100, Some(50), Some(50)), 110), still);
        assert_eq!(judge(facts(100, Some(71), None), 100), Checks::Timely);
        let late = Checks::Late("most of its checks start late".into());
        assert_eq!(judge(facts(100, Some(70), Some(71)), 100), late);
        let inconclusive = Checks::Inconclusive("all its checks are inconclusive".into());
        assert_eq!(judge(facts(100, Some(60), Some(70)), 100), inconclusive);
        assert_eq!(
            (still.trouble(), Checks::Timely.trouble()),
            (Some("its checks stand still"), None)
        );
    }

    #[test]
    fn what_is_said_of_the_trouble_stays_the_same_while_it_lasts() {
        let start = clock::now();
        let facts = |late: Option<Instant>, inconclusive_since, turned| CheckFacts {
            last_turn: start + S * turned,
            late_since: late,
            inconclusive_since,
        };
        for (late, inconclusive, turned) in
            [(Some(start), None, 60), (None, Some(start), 60), (None, None, 0)]
        {
            let said = |at| Checks::judge(&facts(late, inconclusive, turned), start + S * at);
            assert!(said(60).trouble().is_some());
            assert_eq!(said(60), said(61));
        }
    }

    #[test]
    fn the_truth_table() {
        let start = clock::boot_now();
        let table = [
            (Checks::Timely, Duty::Serve, Duty::Serve),
            (late(), Duty::StepDown, Duty::Yield),
            (inconclusive(), Duty::StepDown, Duty::Yield),
            (standstill(), Duty::StepDown, Duty::Abstain),
        ];
        for (checks, holder, standby) in table {
            let mut fitness = Fitness::default();
            fitness.observe(checks.clone(), start);
            let at = |time| {
                (fitness.duty_of_holder(start + time), fitness.duty_of_standby(start + time))
            };
            assert_eq!(at(S / 2), (Duty::Serve, Duty::Serve), "{checks:?}");
            assert_eq!(at(S), (holder, standby), "{checks:?}");
            assert_eq!(
                (fitness.trouble(start + S / 2), fitness.trouble(start + S)),
                (None, checks.trouble())
            );
        }
    }

    #[test]
    fn a_stop_of_the_whole_process_is_no_standstill() {
        let start = clock::boot_now();
        let mut fitness = Fitness::default();
        fitness.observe(Checks::Timely, start);
        // It goes on after a minute, and the monitor has not had its turn yet.
        fitness.observe(standstill(), start + S * 60);
        assert_eq!(fitness.duty_of_holder(start + S * 60), Duty::Serve);
        fitness.observe(Checks::Timely, start + S * 62);
        assert_eq!(fitness.duty_of_holder(start + S * 62), Duty::Serve);
    }

    #[test]
    fn a_leader_that_checks_badly_steps_down_once() {
        let start = clock::boot_now();
        let duty = |checks: Checks, second| {
            let mut fitness = Fitness::default();
            fitness.stepped_down(start);
            fitness.observe(checks, start + S);
            fitness.duty_of_holder(start + S * second)
        };
        assert_eq!(duty(late(), 100_000), Duty::Serve);
        assert_eq!(duty(inconclusive(), 599), Duty::Serve);
        assert_eq!(duty(inconclusive(), 600), Duty::StepDown);
        assert_eq!(duty(standstill(), 2), Duty::StepDown);
    }

    #[test]
    fn a_minute_of_timely_checks_makes_it_as_good_as_new() {
        let start = clock::boot_now();
        for (well, duty) in [(59, Duty::Serve), (60, Duty::StepDown)] {
            let mut fitness = Fitness::default();
            fitness.stepped_down(start);
            fitness.observe(Checks::Timely, start + S);
            fitness.observe(Checks::Timely, start + S * (1 + well));
            fitness.observe(late(), start + S * 70);
            assert_eq!(fitness.duty_of_holder(start + S * 71), duty, "after {well} s");
        }
    }

    #[test]
    fn moments_of_being_well_are_not_added_up() {
        let start = clock::boot_now();
        let mut fitness = Fitness::default();
        fitness.stepped_down(start);
        for second in 0..100 {
            let checks = if second % 10 == 0 { late() } else { Checks::Timely };
            fitness.observe(checks, start + S * second);
        }
        fitness.observe(late(), start + S * 100);
        assert_eq!(fitness.duty_of_holder(start + S * 101), Duty::Serve);
    }
}
