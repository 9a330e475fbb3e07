//! A child process with its own process group and a log file.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::tail;

pub(crate) struct Process {
    pub name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command. Its output is appended to a file.
    pub(crate) fn start(name: &str, mut command: Command, log: &Path) -> Process {
        let output = || {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(log)
                .unwrap_or_else(|error| panic!("{}: {error}", log.display()))
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(output())
            .stderr(output())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("starting {name}: {error}"));
        Process { name: name.to_owned(), child, log: log.to_owned() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the whole group.
    pub(crate) fn signal(&self, signal: Signal) {
        let group = Pid::from_raw(self.child.id().cast_signed());
        killpg(group, signal).unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.name));
    }

    /// Stops the process, and returns when all of its threads have stopped. On a busy machine that
    /// is later than the signal.
    pub(crate) fn pause(&self) {
        self.signal(Signal::SIGSTOP);
        let started = Instant::now();
        while !self.is_stopped() {
            assert!(started.elapsed() < Duration::from_secs(10), "{} doesn't stop", self.name);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_stopped(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs");
        let mut states = threads.flatten().map(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The state follows the name, which is in parentheses and may contain anything.
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
        });
        states.all(|state| state == Some('T'))
    }

    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child can be waited for")
    }

    /// Returns the end of its log under its name.
    pub(crate) fn log_tail(&self) -> String {
        format!("--- {}\n{}", self.name, tail(&self.log, 25))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        kill_group(&mut self.child);
    }
}

/// Kills a process with its whole group, and reaps it.
pub(crate) fn kill_group(child: &mut Child) {
    // The group may be gone already. Its number is not reused before the child is reaped.
    let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    let _ = child.wait();
}
