//! Process 1 of a container: reaps orphans and forwards signals to the daemon, as tini does.
//!
//! A process whose parent has ended becomes a child of process 1, which must reap it: a helper that
//! has left the process group of its command, for example. If the daemon itself were process 1, it
//! would have to tell such orphans from its own commands, or it would lose the exit status that a
//! check waits for. So the daemon runs as a child of process 1, as with `docker run --init`, and
//! process 1 does nothing else.
#![allow(unsafe_code, reason = "fork, and waiting for any child, have no safe interface")]

use std::io;
use std::mem::MaybeUninit;
use std::process;
use std::ptr;

/// Returns in the process that becomes the daemon. Process 1 never returns: it forks the daemon,
/// and exits with the daemon's status. Any other process returns at once.
///
/// Must be called while the process has one thread.
pub(crate) fn run_as_init() -> io::Result<()> {
    if process::id() != 1 {
        return Ok(());
    }
    // SAFETY: the sets are filled in before they are read. There is one thread, so no lock is held
    // by a thread that the child lacks.
    let (child, all) = unsafe {
        let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        libc::sigfillset(all.as_mut_ptr());
        // Signals are blocked before the fork, so that none is lost.
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        let child = libc::fork();
        if child <= 0 {
            let error = io::Error::last_os_error();
            libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
            return if child == 0 { Ok(()) } else { Err(error) };
        }
        (child, all.assume_init())
    };
    loop {
        match next_signal(&all) {
            Some((libc::SIGCHLD, _)) => {}
            Some((signal, Sender::Process)) => {
                // SAFETY: the child is not reaped yet, so no other process has its number.
                unsafe { libc::kill(child, signal) };
            }
            // A terminal sends its signals to the daemon as well.
            Some((_, Sender::Kernel)) | None => {}
        }
        if let Some(status) = reap_all(child) {
            // The kernel kills all other processes of the container with process 1.
            process::exit(status);
        }
    }
}

/// The sender of a signal.
enum Sender {
    Process,
    Kernel,
}

/// Waits for a signal. Returns `None` if the wait was interrupted.
fn next_signal(signals: &libc::sigset_t) -> Option<(libc::c_int, Sender)> {
    let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
    // SAFETY: the call fills in `info` if it returns a signal.
    let (signal, code) = unsafe {
        let signal = libc::sigwaitinfo(signals, info.as_mut_ptr());
        if signal < 0 {
            return None;
        }
        (signal, info.assume_init().si_code)
    };
    // The kernel's own signals have a code above 0 (sigaction(2)).
    Some((signal, if code > 0 { Sender::Kernel } else { Sender::Process }))
}

/// Reaps all children that have ended. Returns the exit status of the daemon if it is one of them.
fn reap_all(daemon: libc::pid_t) -> Option<i32> {
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        let ended = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if ended == daemon {
            return Some(exit_status(status));
        }
        if ended <= 0 {
            return None;
        }
    }
}

/// Returns the exit status that a shell reports for a process that ended this way.
fn exit_status(status: libc::c_int) -> i32 {
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_is_that_of_a_shell() {
        assert_eq!(exit_status(0), 0);
        assert_eq!(exit_status(78 << 8), 78);
        assert_eq!(exit_status(libc::SIGKILL), 137);
        assert_eq!(exit_status(libc::SIGSEGV | 0x80), 139, "with a core dump");
    }

    #[test]
    fn a_process_other_than_1_returns_at_once() {
        assert!(run_as_init().is_ok());
    }
}
