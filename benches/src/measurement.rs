//! A measurement of one checker.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::capture::Capture;
use crate::counter;
use crate::machine::{self, Cpus, MICRO, MILLI, SECOND};
use crate::subject::{self, Subject, SubjectProcess};
use crate::timing::{self, Timing};
use crate::workload::{Kind, Workload};

/// The longest time until each target has been checked twice. Ten thousand names are asked within
/// 22 s, and the machine may be busy.
const WARM_UP_SECONDS: u64 = 60;

/// The settings that all runs share.
#[derive(Clone)]
pub(crate) struct Settings {
    pub daemon: PathBuf,
    /// Another build of the daemon, to compare it with.
    pub before: Option<PathBuf>,
    pub cpus: Cpus,
    pub interval: Duration,
    /// The measured time after the warm-up.
    pub time: Duration,
    pub rounds: usize,
    /// The smallest share of due checks that must arrive for a valid run.
    pub min_rate: f64,
}

pub(crate) struct Sample {
    /// CPU microseconds for each check.
    pub cost: f64,
    /// The share of one CPU.
    pub share: f64,
    /// The checks that arrived over the checks that were due.
    pub rate: f64,
    /// Resident memory in MiB, at the end.
    pub memory: f64,
    pub timing: Option<Timing>,
}

impl Settings {
    /// Returns true if a subject takes part: another build of the daemon only if one is given, and
    /// HAProxy's TCP check has no complete handshake of its own.
    pub(crate) fn can(&self, who: Subject, kind: Kind) -> bool {
        match who {
            Subject::Before => self.before.is_some(),
            // HAProxy does not log in to PostgreSQL, and neither does the bare loop. It has no
            // check of MongoDB.
            Subject::Haproxy => !matches!(kind, Kind::Accept | Kind::PostgresLogin | Kind::Mongodb),
            Subject::Baseline => kind != Kind::PostgresLogin,
            Subject::Daemon => true,
        }
    }

    fn program(&self, who: Subject) -> &Path {
        match (who, &self.before) {
            (Subject::Before, Some(before)) => before,
            _ => &self.daemon,
        }
    }

    /// Starts a checker and waits until each target has been checked twice.
    pub(crate) fn warm_up(
        &self,
        who: Subject,
        kind: Kind,
        workload: &Workload,
    ) -> Result<SubjectProcess> {
        let targets = workload.targets().len() as u64;
        let before = counter::seen(kind)?;
        let mut running = subject::start(who, kind, workload, self.program(who), self.cpus)?;
        let patience = machine::now() + WARM_UP_SECONDS * SECOND;
        while counter::seen(kind)? < before + 2 * targets {
            running.ensure_running()?;
            ensure!(
                machine::now() < patience,
                "{}: the targets saw too few checks to begin with",
                who.name()
            );
            thread::sleep(Duration::from_nanos(50 * MILLI));
        }
        Ok(running)
    }

    /// Checks this many targets of one kind: first the cost, then the timing, with a capture that
    /// costs something itself.
    pub(crate) fn measure(
        &self,
        who: Subject,
        kind: Kind,
        targets: usize,
        timing: bool,
    ) -> Result<Sample> {
        self.measure_workload(who, kind, &Workload::uniform(kind, targets, self.interval), timing)
    }

    /// Checks the targets of a workload, in the same way.
    pub(crate) fn measure_workload(
        &self,
        who: Subject,
        kind: Kind,
        workload: &Workload,
        timing: bool,
    ) -> Result<Sample> {
        let targets = workload.targets().len();
        let mut running = self.warm_up(who, kind, workload)?;
        let sample = self.cost(&mut running, who, kind, targets)?;
        if !timing {
            return Ok(sample);
        }
        let due = self.due(targets, self.time);
        let capture = Capture::open(kind.port(), (due * 1.2) as usize + 10_000)?;
        thread::sleep(self.time);
        let arrivals = capture.close()?;
        running.ensure_running()?;
        Ok(Sample {
            timing: timing::analyze(&arrivals, u64::try_from(self.interval.as_nanos())?),
            ..sample
        })
    }

    fn cost(
        &self,
        running: &mut SubjectProcess,
        who: Subject,
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
        running.ensure_running()?;
        let rate = seen as f64 / self.due(targets, time);
        ensure!(
            rate >= self.min_rate,
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
