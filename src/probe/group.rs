//! A command in a process group of its own, of which nothing outlives its [`Group`].

use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, waitpgid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A running command, the leader of its group. Dropping it kills the group and has the leader reaped.
pub(super) struct Group {
    /// None once reaped: from then on the number may belong to someone else.
    leader: Option<Leader>,
}

struct Leader {
    child: Child,
    id: Pid,
    /// Readable once the leader has exited, which leaves it to us when to reap it.
    exited: AsyncFd<OwnedFd>,
}

impl Group {
    /// Starts the command with no input, and both its outputs in one pipe, which keeps their order.
    pub fn start(mut command: Command) -> io::Result<(Self, PipeReader)> {
        let (reader, writer) = io::pipe()?;
        let child = command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0).spawn()?;
        let mut child = Unwatched(Some(child));
        let id = child.id()?;
        let watched = pidfd_open(id, PidfdFlags::NONBLOCK)?;
        // SAFETY: the descriptor is owned by what registers it and closed by nothing else.
        let exited =
            unsafe { AsyncFd::register_with_interest(watched, Interest::READABLE) }.map_err(io::Error::from)?;
        let child = child.0.take().ok_or(io::ErrorKind::NotFound)?;
        Ok((Self { leader: Some(Leader { child, id, exited }) }, reader))
    }

    /// Waits for the leader to exit. Safe to drop and call again.
    pub async fn exited(&self) -> io::Result<()> {
        match &self.leader {
            Some(leader) => leader.exited.readable().await.map(drop),
            None => Ok(()),
        }
    }

    /// Kills what the leader left behind and reaps it. Only for a leader that has exited.
    pub fn finish(mut self) -> io::Result<ExitStatus> {
        let Some(mut leader) = self.leader.take() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        // The leader isn't reaped yet, so that its number, the group's, can't be another's.
        leader.kill();
        let status = leader.child.wait()?;
        if adopted(leader.id) {
            on_runtime(reap_adopted(leader.id));
        }
        Ok(status)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.leader.take() {
            leader.kill();
            on_runtime(leader.reap());
        }
    }
}

impl Leader {
    fn kill(&self) {
        // No such group means that all are gone.
        let _ = kill_process_group(self.id, Signal::KILL);
    }

    /// The end of a killed leader is near, but not waited for by whoever dropped it.
    async fn reap(mut self) {
        let _ = self.exited.readable().await.map(drop);
        let _ = self.child.wait();
        reap_adopted(self.id).await;
    }
}

/// A child that no descriptor watches yet.
struct Unwatched(Option<Child>);

impl Unwatched {
    fn id(&self) -> io::Result<Pid> {
        let id = self.0.as_ref().and_then(|child| Pid::from_raw(child.id() as i32));
        id.ok_or(io::ErrorKind::NotFound.into())
    }
}

impl Drop for Unwatched {
    fn drop(&mut self) {
        if let (Ok(id), Some(mut child)) = (self.id(), self.0.take()) {
            let _ = kill_process_group(id, Signal::KILL);
            let _ = child.wait();
        }
    }
}

/// Reaps the members of the group that became our children when their parent died, as they do if we are the first
/// process of a container. True while some have yet to die.
fn adopted(group: Pid) -> bool {
    loop {
        match waitpgid(group, WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

async fn reap_adopted(group: Pid) {
    // They were killed; only one stuck in the kernel takes longer than the first pauses.
    let mut pause = Duration::from_millis(1);
    while adopted(group) {
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
