//! One checker at work for a while, in figures.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::contender::{self, Contender, Running};
use crate::counter;
use crate::fleet::{Fleet, Kind};
use crate::machine::{self, Cpus, MICRO, MILLI, SECOND};
use crate::tap::Tap;
use crate::timing::{self, Timing};

/// What all runs have in common.
pub struct Setting {
    pub daemon: PathBuf,
    /// Another build of the daemon, to compare it with.
    pub before: Option<PathBuf>,
    pub cpus: Cpus,
    pub interval: Duration,
    /// How long is measured, after the warm-up.
    pub time: Duration,
    pub rounds: usize,
    /// A run in which fewer of the checks that were due arrived is no run.
    pub least_rate: f64,
}

pub struct Sample {
    /// CPU microseconds a check.
    pub cost: f64,
    /// Of one CPU.
    pub share: f64,
    /// Checks that arrived over checks that were due.
    pub rate: f64,
    /// Resident memory in MiB, at the end.
    pub memory: f64,
    pub timing: Option<Timing>,
}

impl Setting {
    /// Returns whether a contender takes part: another build of the daemon does only where one is
    /// given, and HAProxy's TCP check has no whole handshake of its own.
    pub fn can(&self, who: Contender, kind: Kind) -> bool {
        match who {
            Contender::Before => self.before.is_some(),
            Contender::Haproxy => kind != Kind::Accept,
            Contender::Floor | Contender::Daemon => true,
        }
    }

    fn program(&self, who: Contender) -> &Path {
        match (who, &self.before) {
            (Contender::Before, Some(before)) => before,
            _ => &self.daemon,
        }
    }

    /// Starts a checker and waits until each target has been checked twice.
    pub fn warm_up(&self, who: Contender, kind: Kind, fleet: &Fleet) -> Result<Running> {
        let targets = fleet.targets().len() as u64;
        let before = counter::seen(kind)?;
        let mut running = contender::start(who, kind, fleet, self.program(who), self.cpus)?;
        let patience = machine::now() + 30 * SECOND;
        while counter::seen(kind)? < before + 2 * targets {
            running.must_live()?;
            ensure!(
                machine::now() < patience,
                "{}: the targets saw too few checks to begin with",
                who.name()
            );
            thread::sleep(Duration::from_nanos(50 * MILLI));
        }
        Ok(running)
    }

    /// Checks so many targets of one kind: the cost first, then, with a tap that itself costs something, the timing.
    pub fn measure(
        &self,
        who: Contender,
        kind: Kind,
        targets: usize,
        timing: bool,
    ) -> Result<Sample> {
        let fleet = Fleet::uniform(kind, targets, self.interval);
        let mut running = self.warm_up(who, kind, &fleet)?;
        let sample = self.cost(&mut running, who, kind, targets)?;
        if !timing {
            return Ok(sample);
        }
        let due = self.due(targets, self.time);
        let tap = Tap::open(kind.port(), (due * 1.2) as usize + 10_000)?;
        thread::sleep(self.time);
        let arrivals = tap.close()?;
        running.must_live()?;
        Ok(Sample {
            timing: timing::judge(&arrivals, u64::try_from(self.interval.as_nanos())?),
            ..sample
        })
    }

    fn cost(
        &self,
        running: &mut Running,
        who: Contender,
        kind: Kind,
        targets: usize,
    ) -> Result<Sample> {
        let (seen, cpu, start) =
            (counter::seen(kind)?, machine::cpu_time(running.pid())?, machine::now());
        thread::sleep(self.time);
        let (seen, cpu, time) = (
            counter::seen(kind)? - seen,
            machine::cpu_time(running.pid())? - cpu,
            Duration::from_nanos(machine::now() - start),
        );
        running.must_live()?;
        let rate = seen as f64 / self.due(targets, time);
        ensure!(
            rate >= self.least_rate,
            "{} did only {:.1} % of the {} checks that were due",
            who.name(),
            rate * 100.0,
            kind.name()
        );
        Ok(Sample {
            cost: cpu as f64 / MICRO as f64 / seen as f64,
            share: cpu as f64 / time.as_nanos() as f64,
            rate,
            memory: machine::resident(running.pid())? as f64 / 1024.0,
            timing: None,
        })
    }

    fn due(&self, targets: usize, time: Duration) -> f64 {
        targets as f64 * time.as_secs_f64() / self.interval.as_secs_f64()
    }
}
