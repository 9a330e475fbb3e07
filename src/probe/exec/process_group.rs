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

use super::spawn::{self, Program, Refused};

/// Where a command is, as both sides know it.
#[derive(Default)]
enum Life {
    #[default]
    Unstarted,
    /// Not reaped: only until then is the number sure to be its own.
    Running(Pid),
    /// Killed and reaped, or left to whoever does that.
    Ended,
    /// The try is over.
    Unwanted,
}

#[derive(Clone, Default)]
pub(crate) struct Rope(Arc<Mutex<Life>>);

impl Rope {
    fn with<T>(&self, look: impl FnOnce(&mut Life) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_loose(&self) -> bool {
        self.with(|life| matches!(life, Life::Unwanted))
    }
}

/// Held by the try: dropping it kills the command, or keeps it from being started.
#[derive(Default)]
pub(crate) struct Leash(Rope);

impl Leash {
    /// What the thread gets.
    pub(crate) fn rope(&self) -> Rope {
        self.0.clone()
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.0.with(|life| {
            if let Life::Running(id) = *life {
                kill(id);
            }
            if !matches!(life, Life::Ended) {
                *life = Life::Unwanted;
            }
        });
    }
}

/// A running command, the leader of its group.
pub(crate) struct Group {
    id: Pid,
    /// Readable once the leader has exited.
    exited: OwnedFd,
    rope: Rope,
    reaped: bool,
}

/// What came first.
pub(crate) enum News {
    Exited,
    /// The other descriptor is readable.
    Readable,
    Nothing,
}

impl Group {
    /// Starts the command. None when nobody wants it any more.
    pub(crate) fn start(program: &Program, rope: Rope) -> Result<Option<(Self, OwnedFd)>, Refused> {
        if rope.is_loose() {
            return Ok(None);
        }
        let started = spawn::start(program)?;
        let group = Self { id: started.id, exited: started.exited, rope, reaped: false };
        let unwanted = group.rope.with(|life| {
            if matches!(life, Life::Unwanted) {
                return true;
            }
            *life = Life::Running(group.id);
            false
        });
        // If so, dropping the group kills it.
        Ok((!unwanted).then_some((group, started.output)))
    }

    /// Waits for the leader to exit, or for the other descriptor to have something, but no longer than `time`.
    pub(crate) fn wait(&self, other: Option<&OwnedFd>, time: Duration) -> io::Result<News> {
        let mut both =
            [&self.exited, other.unwrap_or(&self.exited)].map(|fd| PollFd::new(fd, PollFlags::IN));
        let looked_at = &mut both[..1 + usize::from(other.is_some())];
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        match poll(looked_at, Some(&time)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // The exit first: endless output must not put it off.
        let has_news = |looked_at: &PollFd| !looked_at.revents().is_empty();
        Ok(match looked_at.iter().position(has_news) {
            Some(0) => News::Exited,
            Some(_) => News::Readable,
            None => News::Nothing,
        })
    }

    /// Whether the try is over, and the group killed.
    pub(crate) fn is_unwanted(&self) -> bool {
        self.rope.is_loose()
    }

    /// Kills what the leader left behind and reaps it. Only for a leader that has exited.
    pub(crate) fn finish(mut self) -> io::Result<ExitStatus> {
        self.end();
        self.reaped = true;
        let status = reap(self.id)?;
        if !is_reaped(self.id) {
            on_runtime(reap_all(self.id));
        }
        Ok(status)
    }

    /// Kills the group. From here on, the leash has nothing to kill.
    fn end(&self) {
        self.rope.with(|life| {
            // The leader isn't reaped yet, so that its number, the group's, can't be another's.
            kill(self.id);
            *life = Life::Ended;
        });
    }
}

impl Drop for Group {
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
