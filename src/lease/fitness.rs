//! The fitness of a replica to lead, by its checks: a leader that can't check leaves the Lease to
//! another replica. Pure.
//!
//! | the checks                           | as leader                       | as standby |
//! | ---                                  | ---                             | ---        |
//! | are timely, or bad for less than 1 s | serve                           | serve      |
//! | start late                           | step down, unless it has ¹      | yield      |
//! | are all inconclusive                 | step down, unless within 10 min | yield      |
//! | stand still                          | step down                       | abstain    |
//!
//! ¹ since its checks were last timely for a minute.
//!
//! A replica does not know whether another can check. So a leader that checks badly steps down, and
//! acquires the Lease again only after all others had their chance: a leader that checks badly is
//! better than none. It steps down once, so that two replicas do not hand the Lease to and fro. A
//! replica that acquired the Lease after all others had their chance counts as having stepped down,
//! because to do so would leave nobody to write.
//!
//! A leader whose checks are all inconclusive never removes a dead address. So it loses nothing by
//! stepping down again. A leader whose checks stand still has nothing to write, and needs no Lease.

use std::time::{Duration, Instant};

use crate::clock::BootInstant;

/// The time without a heartbeat of the monitor after which its checks stand still. It sends one at
/// least every 2 s.
const STANDSTILL_TIMEOUT: Duration = Duration::from_secs(10);

/// The time for which checks must have been late, or inconclusive, before it counts.
const PERSISTENCE_TIME: Duration = Duration::from_secs(30);

/// The time for which a problem must last before the replica acts on it. A process that was stopped
/// finds an old heartbeat when it resumes.
const CONFIRM_DELAY: Duration = Duration::from_secs(1);

/// The time by which a replica that yields waits longer than all others.
pub(super) const YIELD_DELAY: Duration = Duration::from_secs(2);

/// The time of timely checks after which it no longer counts that the replica stepped down.
const RECOVERY_TIME: Duration = Duration::from_secs(60);

/// The least time before a leader steps down again because all its checks are inconclusive.
const STEP_DOWN_INTERVAL: Duration = Duration::from_secs(600);

/// The facts about the checks, as the monitor has them.
#[derive(Debug, Clone, Copy)]
pub struct CheckFacts {
    /// The last heartbeat of the monitor's loop.
    pub last_heartbeat: Instant,
    /// The time since which most checks have started late.
    pub late_since: Option<Instant>,
    /// The time since which each target was checked, and all checks were inconclusive.
    pub inconclusive_since: Option<Instant>,
}

/// The quality of the checks of this replica, with the problem for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checks {
    Timely,
    Late(String),
    Inconclusive(String),
    Standstill(String),
}

impl Checks {
    /// Classifies the facts. The problem contains no running time, because it is logged whenever it
    /// changes.
    pub(super) fn from_facts(facts: &CheckFacts, now: Instant) -> Self {
        let idle = now.saturating_duration_since(facts.last_heartbeat);
        if idle >= STANDSTILL_TIMEOUT {
            return Self::Standstill("its checks stand still".into());
        }
        let lasts = |since: Option<Instant>| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= PERSISTENCE_TIME)
        };
        match (lasts(facts.inconclusive_since), lasts(facts.late_since)) {
            (true, _) => Self::Inconclusive("all its checks are inconclusive".into()),
            (false, true) => Self::Late("most of its checks start late".into()),
            (false, false) => Self::Timely,
        }
    }

    /// Returns the problem; none for timely checks.
    pub(super) fn problem(&self) -> Option<&str> {
        match self {
            Self::Timely => None,
            Self::Late(problem) | Self::Inconclusive(problem) | Self::Standstill(problem) => {
                Some(problem)
            }
        }
    }
}

/// The duty of a replica in the election, as far as its checks decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Duty {
    /// Hold the Lease, or compete for it.
    Serve,
    /// Release the Lease.
    StepDown,
    /// Acquire the Lease only when nobody else does.
    Yield,
    /// Leave the Lease alone.
    Abstain,
}

/// The history of the checks of this replica.
#[derive(Debug)]
pub(super) struct Fitness {
    checks: Checks,
    /// The time since which the checks have had this quality.
    since: Option<BootInstant>,
    stepped_down_at: Option<BootInstant>,
}

impl Default for Fitness {
    fn default() -> Self {
        Self { checks: Checks::Timely, since: None, stepped_down_at: None }
    }
}

impl Fitness {
    /// Records the current quality of the checks.
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

    /// Records that all others have just had their chance because of the checks of this replica: it
    /// released the Lease, or acquired it after all others could have.
    pub(super) fn on_stepped_down(&mut self, now: BootInstant) {
        self.stepped_down_at = Some(now);
    }

    /// Returns the problem with the checks, once it is confirmed.
    pub(super) fn problem(&self, now: BootInstant) -> Option<&str> {
        self.checks.problem().filter(|_| self.is_confirmed(now))
    }

    /// Applies the table to the leader.
    pub(super) fn duty_as_leader(&self, now: BootInstant) -> Duty {
        let rests = |at: BootInstant| now.saturating_duration_since(at) < STEP_DOWN_INTERVAL;
        match self.checks {
            _ if !self.is_confirmed(now) => Duty::Serve,
            Checks::Timely => Duty::Serve,
            Checks::Late(_) if self.stepped_down_at.is_some() => Duty::Serve,
            Checks::Inconclusive(_) if self.stepped_down_at.is_some_and(rests) => Duty::Serve,
            Checks::Late(_) | Checks::Inconclusive(_) | Checks::Standstill(_) => Duty::StepDown,
        }
    }

    /// Applies the table to a standby replica.
    pub(super) fn duty_as_standby(&self, now: BootInstant) -> Duty {
        match self.checks {
            _ if !self.is_confirmed(now) => Duty::Serve,
            Checks::Timely => Duty::Serve,
            Checks::Late(_) | Checks::Inconclusive(_) => Duty::Yield,
            Checks::Standstill(_) => Duty::Abstain,
        }
    }

    fn is_confirmed(&self, now: BootInstant) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= CONFIRM_DELAY)
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
    fn facts_count_when_they_last() {
        let start = clock::now();
        let facts = |turn, late: Option<u32>, inconclusive: Option<u32>| CheckFacts {
            last_heartbeat: start + S * turn,
            late_since: late.map(|late| start + S * late),
            inconclusive_since: inconclusive.map(|inconclusive| start + S * inconclusive),
        };
        let judge = |facts, at| Checks::from_facts(&facts, start + S * at);
        assert_eq!(judge(facts(100, None, None), 109), Checks::Timely);
        let still = Checks::Standstill("its checks stand still".into());
        assert_eq!(judge(facts(100, Some(50), Some(50)), 110), still);
        assert_eq!(judge(facts(100, Some(71), None), 100), Checks::Timely);
        let late = Checks::Late("most of its checks start late".into());
        assert_eq!(judge(facts(100, Some(70), Some(71)), 100), late);
        let inconclusive = Checks::Inconclusive("all its checks are inconclusive".into());
        assert_eq!(judge(facts(100, Some(60), Some(70)), 100), inconclusive);
        assert_eq!(
            (still.problem(), Checks::Timely.problem()),
            (Some("its checks stand still"), None)
        );
    }

    #[test]
    fn the_problem_stays_the_same_while_it_lasts() {
        let start = clock::now();
        let facts = |late: Option<Instant>, inconclusive_since, turned| CheckFacts {
            last_heartbeat: start + S * turned,
            late_since: late,
            inconclusive_since,
        };
        for (late, inconclusive, turned) in
            [(Some(start), None, 60), (None, Some(start), 60), (None, None, 0)]
        {
            let said = |at| Checks::from_facts(&facts(late, inconclusive, turned), start + S * at);
            assert!(said(60).problem().is_some());
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
                (fitness.duty_as_leader(start + time), fitness.duty_as_standby(start + time))
            };
            assert_eq!(at(S / 2), (Duty::Serve, Duty::Serve), "{checks:?}");
            assert_eq!(at(S), (holder, standby), "{checks:?}");
            assert_eq!(
                (fitness.problem(start + S / 2), fitness.problem(start + S)),
                (None, checks.problem())
            );
        }
    }

    #[test]
    fn a_stop_of_the_whole_process_is_no_standstill() {
        let start = clock::boot_now();
        let mut fitness = Fitness::default();
        fitness.observe(Checks::Timely, start);
        // It resumes after a minute, before the monitor has.
        fitness.observe(standstill(), start + S * 60);
        assert_eq!(fitness.duty_as_leader(start + S * 60), Duty::Serve);
        fitness.observe(Checks::Timely, start + S * 62);
        assert_eq!(fitness.duty_as_leader(start + S * 62), Duty::Serve);
    }

    #[test]
    fn a_leader_that_checks_badly_steps_down_once() {
        let start = clock::boot_now();
        let duty = |checks: Checks, second| {
            let mut fitness = Fitness::default();
            fitness.on_stepped_down(start);
            fitness.observe(checks, start + S);
            fitness.duty_as_leader(start + S * second)
        };
        assert_eq!(duty(late(), 100_000), Duty::Serve);
        assert_eq!(duty(inconclusive(), 599), Duty::Serve);
        assert_eq!(duty(inconclusive(), 600), Duty::StepDown);
        assert_eq!(duty(standstill(), 2), Duty::StepDown);
    }

    #[test]
    fn a_minute_of_timely_checks_ends_the_record_of_stepping_down() {
        let start = clock::boot_now();
        for (well, duty) in [(59, Duty::Serve), (60, Duty::StepDown)] {
            let mut fitness = Fitness::default();
            fitness.on_stepped_down(start);
            fitness.observe(Checks::Timely, start + S);
            fitness.observe(Checks::Timely, start + S * (1 + well));
            fitness.observe(late(), start + S * 70);
            assert_eq!(fitness.duty_as_leader(start + S * 71), duty, "after {well} s");
        }
    }

    #[test]
    fn interrupted_times_of_timely_checks_do_not_add_up() {
        let start = clock::boot_now();
        let mut fitness = Fitness::default();
        fitness.on_stepped_down(start);
        for second in 0..100 {
            let checks = if second % 10 == 0 { late() } else { Checks::Timely };
            fitness.observe(checks, start + S * second);
        }
        fitness.observe(late(), start + S * 100);
        assert_eq!(fitness.duty_as_leader(start + S * 101), Duty::Serve);
    }
}
