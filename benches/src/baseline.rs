//! The baseline: the least work that checks these targets.
//!
//! Bare loops send the same packets, or start the same program, with a fixed phase for each target.
//! They know nothing of databases, health or reasons.

mod exec;
mod socket;

use std::time::Duration;

use anyhow::Result;

use crate::machine::{self, MILLI};
use crate::workload::{Kind, Workload};

/// Checks forever.
pub(crate) fn run(kind: Kind, targets: usize, interval: Duration) -> Result<()> {
    let workload = Workload::uniform(kind, targets, interval);
    let interval = u64::try_from(interval.as_nanos())?;
    match kind {
        Kind::Exec => exec::run(&mut Schedule::new(targets, interval)),
        _ => socket::Loop::new(kind, &workload.targets())?
            .run(&mut Schedule::new(targets, interval), interval),
    }
}

/// The order of the checks: the phases of the targets are spread evenly over the interval.
struct Schedule {
    start: u64,
    interval: u64,
    targets: u64,
    turn: u64,
}

impl Schedule {
    fn new(targets: usize, interval: u64) -> Self {
        Self { start: machine::now() + 100 * MILLI, interval, targets: targets as u64, turn: 0 }
    }

    fn next_at(&self) -> u64 {
        let round = self.turn / self.targets;
        self.start + round * self.interval + self.turn % self.targets * self.interval / self.targets
    }

    /// Returns the next target if it is due. Checks that are late by a whole interval are skipped.
    fn take(&mut self, now: u64) -> Option<usize> {
        if self.next_at() > now {
            return None;
        }
        while self.next_at() + self.interval <= now {
            self.turn += 1;
        }
        self.turn += 1;
        Some(((self.turn - 1) % self.targets) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    #[test]
    fn turns_are_evenly_spread_and_never_drift() {
        let mut rota = Schedule { start: 1_000, interval: 100, targets: 4, turn: 0 };
        let mut seen = Vec::new();
        for now in 1_000..1_200 {
            while let Some(target) = rota.take(now) {
                seen.push((now, target));
            }
        }
        let expected = [
            (1000, 0),
            (1025, 1),
            (1050, 2),
            (1075, 3),
            (1100, 0),
            (1125, 1),
            (1150, 2),
            (1175, 3),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_stall_is_not_made_up_for() {
        let mut rota = Schedule { start: 0, interval: 100, targets: 4, turn: 0 };
        let mut taken = 0;
        while rota.take(1_000).is_some() {
            taken += 1;
        }
        assert_eq!(taken, 4, "one interval's worth");
    }
}
