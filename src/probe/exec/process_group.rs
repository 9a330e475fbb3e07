//! A command in a process group of its own, which does not outlive its probe.
//!
//! A thread starts the command, waits for it and reaps it. The probe holds a [`KillOnDrop`]:
//! dropping it kills the group at any moment, and waits for nothing.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpgid, waitpid};

use super::spawn::{self, Program, SpawnError};

/// The state of a command, which the probe and the thread share.
#[derive(Default)]
enum Lifecycle {
    #[default]
    Unstarted,
    /// Not reaped yet. Until then, no output process can have its number.
    Running(Pid),
    /// Killed, and reaped or about to be.
    Ended,
    /// The probe is over.
    Cancelled,
}

/// The handle of the state. Clones share it.
#[derive(Clone, Default)]
pub(super) struct SharedLifecycle(Arc<Mutex<Lifecycle>>);

impl SharedLifecycle {
    fn with<T>(&self, update: impl FnOnce(&mut Lifecycle) -> T) -> T {
        update(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_cancelled(&self) -> bool {
        self.with(|lifecycle| matches!(lifecycle, Lifecycle::Cancelled))
    }
}

/// The guard that a probe holds. Dropping it kills the command, or keeps it from being started.
#[derive(Default)]
pub(super) struct KillOnDrop(SharedLifecycle);

impl KillOnDrop {
    /// Returns the state, for the thread.
    pub(super) fn lifecycle(&self) -> SharedLifecycle {
        self.0.clone()
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.with(|lifecycle| {
            if let Lifecycle::Running(id) = *lifecycle {
                kill(id);
            }
            if !matches!(lifecycle, Lifecycle::Ended) {
                *lifecycle = Lifecycle::Cancelled;
            }
        });
    }
}

/// A running command, the leader of its process group.
pub(super) struct ProcessGroup {
    id: Pid,
    /// Readable once the leader has exited.
    pidfd: OwnedFd,
    lifecycle: SharedLifecycle,
    reaped: bool,
}

/// The reason why a wait ended.
pub(super) enum WaitEvent {
    Exited,
    /// The output is readable, or closed.
    Readable,
    /// Neither, before the time was up.
    TimedOut,
}

impl ProcessGroup {
    /// Starts the command. Returns `None` if the probe is cancelled.
    pub(super) fn start(
        program: &Program,
        lifecycle: SharedLifecycle,
    ) -> Result<Option<(Self, OwnedFd)>, SpawnError> {
        if lifecycle.is_cancelled() {
            return Ok(None);
        }
        let started = spawn::spawn(program)?;
        let group = Self { id: started.id, pidfd: started.pidfd, lifecycle, reaped: false };
        let cancelled = group.lifecycle.with(|lifecycle| {
            if matches!(lifecycle, Lifecycle::Cancelled) {
                return true;
            }
            *lifecycle = Lifecycle::Running(group.id);
            false
        });
        // If it is, dropping the group kills it.
        Ok((!cancelled).then_some((group, started.output)))
    }

    /// Waits for the leader to exit, or for the output to be readable, but no longer than `time`.
    pub(super) fn wait(&self, output: Option<&OwnedFd>, time: Duration) -> io::Result<WaitEvent> {
        let mut both =
            [&self.pidfd, output.unwrap_or(&self.pidfd)].map(|fd| PollFd::new(fd, PollFlags::IN));
        let fds = &mut both[..1 + usize::from(output.is_some())];
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        match poll(fds, Some(&time)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // The exit first, so that endless output can't delay it.
        let is_ready = |fds: &PollFd| !fds.revents().is_empty();
        Ok(match fds.iter().position(is_ready) {
            Some(0) => WaitEvent::Exited,
            Some(_) => WaitEvent::Readable,
            None => WaitEvent::TimedOut,
        })
    }

    /// Returns true if the probe is over and the group killed.
    pub(super) fn is_cancelled(&self) -> bool {
        self.lifecycle.is_cancelled()
    }

    /// Kills the rest of the group and reaps the leader, which must have exited.
    pub(super) fn finish(mut self) -> io::Result<ExitStatus> {
        self.kill_and_end();
        self.reaped = true;
        let status = reap(self.id)?;
        if !reap_ended(self.id) {
            spawn_task(reap_all(self.id));
        }
        Ok(status)
    }

    /// Kills the group. From now on, [`KillOnDrop`] has nothing to kill.
    fn kill_and_end(&self) {
        self.lifecycle.with(|lifecycle| {
            // The leader is not reaped yet, so no other group can have its number.
            kill(self.id);
            *lifecycle = Lifecycle::Ended;
        });
    }
}

impl Drop for ProcessGroup {
    /// Kills the group and does not wait: a task reaps the leader.
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.kill_and_end();
        spawn_task(reap_all(self.id));
    }
}

/// Kills all members of a group.
fn kill(group: Pid) {
    // An error means that the group is gone.
    let _ = kill_process_group(group, Signal::KILL);
}

/// Waits for the leader to end, and reaps it.
fn reap(leader: Pid) -> io::Result<ExitStatus> {
    loop {
        match waitpid(Some(leader), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(ExitStatus::from_raw(status.as_raw())),
            Ok(None) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reaps the members of the group that are children of this process: the leader, and orphans if
/// this process is a subreaper. Returns false if some have not ended yet.
fn reap_ended(group: Pid) -> bool {
    loop {
        match waitpgid(group, WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}

/// Reaps all members of a killed group that are children of this process.
async fn reap_all(group: Pid) {
    // All were killed. Only a process that is stuck in the kernel outlasts the first pauses.
    let mut pause = Duration::from_millis(1);
    while !reap_ended(group) {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// Runs a task. If there is no runtime, the daemon is ending, and its parent reaps.
fn spawn_task(task: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(task);
    }
}
