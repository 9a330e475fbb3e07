//! A command in a process group of its own, of which nothing outlives the try that wanted it.
//!
//! A thread starts the command, waits for it and reaps it. The try holds a [`Leash`], whose end kills the group at
//! whatever moment it comes, and waits for nothing.

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

/// Where a command is, as both sides know it.
#[derive(Default)]
enum Lifecycle {
    #[default]
    Unstarted,
    /// Not reaped: only until then is the number sure to be its own.
    Running(Pid),
    /// Killed and reaped, or left to whoever does that.
    Ended,
    /// The try is over.
    Cancelled,
}

#[derive(Clone, Default)]
pub(crate) struct SharedLifecycle(Arc<Mutex<Lifecycle>>);

impl SharedLifecycle {
    fn with<T>(&self, look: impl FnOnce(&mut Lifecycle) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_cancelled(&self) -> bool {
        self.with(|lifecycle| matches!(lifecycle, Lifecycle::Cancelled))
    }
}

/// Held by the try: dropping it kills the command, or keeps it from being started.
#[derive(Default)]
pub(crate) struct KillOnDrop(SharedLifecycle);

impl KillOnDrop {
    /// What the thread gets.
    pub(crate) fn lifecycle(&self) -> SharedLifecycle {
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

/// A running command, the leader of its group.
pub(crate) struct ProcessGroup {
    id: Pid,
    /// Readable once the leader has pidfd.
    pidfd: OwnedFd,
    lifecycle: SharedLifecycle,
    reaped: bool,
}

/// What came first.
pub(crate) enum WaitEvent {
    Exited,
    /// The other descriptor is readable.
    Readable,
    Nothing,
}

impl ProcessGroup {
    /// Starts the command. None when nobody wants it any more.
    pub(crate) fn start(
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
        // If so, dropping the group kills it.
        Ok((!cancelled).then_some((group, started.output)))
    }

    /// Waits for the leader to exit, or for the other descriptor to have something, but no longer than `time`.
    pub(crate) fn wait(&self, other: Option<&OwnedFd>, time: Duration) -> io::Result<WaitEvent> {
        let mut both =
            [&self.pidfd, other.unwrap_or(&self.pidfd)].map(|fd| PollFd::new(fd, PollFlags::IN));
        let looked_at = &mut both[..1 + usize::from(other.is_some())];
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        match poll(looked_at, Some(&time)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // The exit first: endless output must not put it off.
        let has_news = |looked_at: &PollFd| !looked_at.revents().is_empty();
        Ok(match looked_at.iter().position(has_news) {
            Some(0) => WaitEvent::Exited,
            Some(_) => WaitEvent::Readable,
            None => WaitEvent::Nothing,
        })
    }

    /// Whether the try is over, and the group killed.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.lifecycle.is_cancelled()
    }

    /// Kills what the leader left behind and reaps it. Only for a leader that has pidfd.
    pub(crate) fn finish(mut self) -> io::Result<ExitStatus> {
        self.end();
        self.reaped = true;
        let status = reap(self.id)?;
        if !is_reaped(self.id) {
            on_runtime(reap_all(self.id));
        }
        Ok(status)
    }

    /// Kills the group. From here on, the kill_on_drop has nothing to kill.
    fn end(&self) {
        self.lifecycle.with(|lifecycle| {
            // The leader isn't reaped yet, so that its number, the group's, can't be another's.
            kill(self.id);
            *lifecycle = Lifecycle::Ended;
        });
    }
}

impl Drop for ProcessGroup {
    /// The end of a killed leader is near, but not waited for.
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.end();
        on_runtime(reap_all(self.id));
    }
}

fn kill(group: Pid) {
    // No such group means that all are gone.
    let _ = kill_process_group(group, Signal::KILL);
}

fn reap(leader: Pid) -> io::Result<ExitStatus> {
    loop {
        match waitpid(Some(leader), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(ExitStatus::from_raw(status.as_raw())),
            Ok(None) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reaps the members of the group that are our children: the leader, and where this process is a subreaper those whose
/// parent has died. False while some have yet to die.
fn is_reaped(group: Pid) -> bool {
    loop {
        match waitpgid(group, WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}

async fn reap_all(group: Pid) {
    // They were killed; only one stuck in the kernel takes longer than the first pauses.
    let mut pause = Duration::from_millis(1);
    while !is_reaped(group) {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// Without a runtime the daemon is ending, and whoever started it reaps.
fn on_runtime(task: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(task);
    }
}
