//! Starts a program as the leader of a process group of its own, by a raw `clone`.
//!
//! # Why not `std::process::Command`
//!
//! The daemon raises its own limit of open descriptors, and a command must have the original limit
//! from its first instruction on: a raised one breaks programs that wait with `select`, and slows
//! down those that close every descriptor they may have. Neither `Command` nor `posix_spawn` can
//! set a limit in the child. A `pre_exec` closure can, but it makes `Command` fall back to `fork`,
//! which copies the page tables of the daemon. Setting the limit from outside, by `prlimit` after
//! the start, is a race: the program may have read it by then.
//!
//! CPU time of a start of `/bin/true` and of the wait for its end, as a ratio to a bare
//! `posix_spawn` and `waitpid` in the same run (median of nine rounds in turn, on two shared CPUs;
//! the ignored test `measure_the_ways_to_start_a_program` measures it):
//!
//! | way to start it | daemon of 8 MiB | of 32 MiB |
//! | --- | ---: | ---: |
//! | this module | 1.00 | 1.00 |
//! | `Command`, without the limit | 1.02 | 1.06 |
//! | `Command`, and `prlimit` after the start | 1.05 | 1.13 |
//! | `Command`, with `pre_exec` | 2.01 | 3.35 |
//!
//! # Invariant
//!
//! `CLONE_VM | CLONE_VFORK`, as `posix_spawn` uses it: the child shares the memory of the daemon,
//! and the thread that calls stands still until the child has run the program or exited. So:
//!
//! - The child calls only async-signal-safe functions. It does not allocate, lock, panic or return.
//! - The child writes only to its [`ChildSetup`], its stack and `errno`. The thread that owns all
//!   three stands still.
//! - The child's stack is its own and is freed after `clone` has returned.
//! - No signal handler runs in the child. The parent blocks all signals before `clone`, and the
//!   child unblocks them only when it has no handler left.
#![allow(unsafe_code, reason = "no safe interface sets a limit in the child without a fork")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::OnceLock;

use rustix::process::{Pid, Rlimit, WaitOptions, waitpid};

/// A program and all that it starts with.
pub(super) struct Program<'a> {
    pub path: &'a CStr,
    pub arguments: &'a [CString],
    pub environment: &'a [CString],
    /// The working directory, if not the daemon's own.
    pub directory: Option<&'a CStr>,
    /// The limit of open descriptors, if not the daemon's own.
    pub nofile_limit: Option<Rlimit>,
}

/// A running program: the leader of its process group, with an empty standard input.
pub(super) struct Started {
    pub id: Pid,
    /// The pidfd: readable once the program has exited. The caller reaps it.
    pub pidfd: OwnedFd,
    /// The pipe from both its outputs, in order. Reading never blocks.
    pub output: OwnedFd,
}

/// The reason why a program was not started.
pub(super) enum SpawnError {
    /// The working directory cannot be entered.
    Directory(io::Error),
    Program(io::Error),
}

/// Starts a program. May wait for the disk that the program is on.
pub(super) fn spawn(program: &Program) -> Result<Started, SpawnError> {
    let (reader, writer) = io::pipe().map_err(SpawnError::Program)?;
    rustix::io::ioctl_fionbio(&reader, true).map_err(|error| SpawnError::Program(error.into()))?;
    let input = dev_null().map_err(SpawnError::Program)?;
    let arguments = pointers(program.arguments);
    let environment = pointers(program.environment);
    let mut setup = ChildSetup {
        path: program.path.as_ptr(),
        arguments: arguments.as_ptr(),
        environment: environment.as_ptr(),
        directory: program.directory.map_or(ptr::null(), CStr::as_ptr),
        input: input.as_raw_fd(),
        output: writer.as_raw_fd(),
        handled_signals: handled_signals(),
        nofile_limit: program.nofile_limit.map(|limit| libc::rlimit {
            rlim_cur: limit.current.unwrap_or(libc::RLIM_INFINITY),
            rlim_max: limit.maximum.unwrap_or(libc::RLIM_INFINITY),
        }),
        failed_at: FailedAt::Program,
        errno: 0,
    };
    // SAFETY: all that `setup` points to lives until the end of this function, and `clone` returns
    // only when the child has run the program or exited.
    let (id, pidfd) = unsafe { clone(&mut setup) }.map_err(SpawnError::Program)?;
    if setup.errno == 0 {
        return Ok(Started { id, pidfd, output: reader.into() });
    }
    // The child is exiting. An error of this call means that it is reaped already.
    let _ = waitpid(Some(id), WaitOptions::empty());
    let error = io::Error::from_raw_os_error(setup.errno);
    Err(match setup.failed_at {
        FailedAt::Directory => SpawnError::Directory(error),
        FailedAt::Program => SpawnError::Program(error),
    })
}

/// Returns `/dev/null`, which is opened once: it is the standard input of every program.
fn dev_null() -> io::Result<&'static File> {
    static DEV_NULL: OnceLock<File> = OnceLock::new();
    if let Some(file) = DEV_NULL.get() {
        return Ok(file);
    }
    let file = File::open("/dev/null")?;
    Ok(DEV_NULL.get_or_init(|| file))
}

/// Returns the signals whose handling the child resets: those that this process has a handler for,
/// and SIGPIPE, which Rust ignores and a program would inherit as ignored.
///
/// They are found at the first call. `posix_spawn` asks for each of the 64 signals at each start.
fn handled_signals() -> &'static [c_int] {
    static HANDLED: OnceLock<Vec<c_int>> = OnceLock::new();
    HANDLED.get_or_init(|| {
        (1..=libc::SIGRTMAX())
            .filter(|signal| has_handler(*signal))
            .chain([libc::SIGPIPE])
            .collect()
    })
}

fn has_handler(signal: c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action the call only fills in `action`.
    if unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the call has succeeded and filled it in.
    let action = unsafe { action.assume_init() };
    !matches!(action.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN)
}

/// Returns the pointers that `execve` takes for a list of texts, which must outlive them.
fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

/// The instructions to the child, and its answer. Parent and child share this memory.
struct ChildSetup {
    path: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    /// Null for the daemon's own.
    directory: *const c_char,
    input: RawFd,
    output: RawFd,
    handled_signals: &'static [c_int],
    nofile_limit: Option<libc::rlimit>,
    /// The step that the error belongs to.
    failed_at: FailedAt,
    /// The error that ended the child, or 0.
    errno: c_int,
}

/// The step of the child that failed.
#[derive(Clone, Copy)]
enum FailedAt {
    Directory,
    Program,
}

/// The size of the child's stack, as glibc chooses it. The child needs a few hundred bytes.
const STACK_SIZE: usize = 32 << 10;

/// Runs [`child`] and returns when it has run the program or exited.
///
/// # Safety
///
/// All that `setup` points to must be valid until this returns.
unsafe fn clone(setup: &mut ChildSetup) -> io::Result<(Pid, OwnedFd)> {
    let mut stack = Vec::<u128>::with_capacity(STACK_SIZE / size_of::<u128>());
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let mut pidfd: c_int = -1;
    // SAFETY: the signal sets are filled in before they are read. The stack grows down from its
    // aligned end. All else is the invariant at the head of this module.
    let (id, error) = unsafe {
        let (mut all, mut before) = (mem::zeroed(), mem::zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let top = stack.as_mut_ptr().add(stack.capacity()).cast::<c_void>();
        let id = libc::clone(child, top, flags, ptr::from_mut(setup).cast(), &raw mut pidfd);
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
        (id, error)
    };
    match Pid::from_raw(id) {
        // SAFETY: the kernel has just opened the descriptor, and nothing else knows it.
        Some(pid) if id > 0 => Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) })),
        _ => Err(error),
    }
}

/// Runs in the child, as its entry point.
extern "C" fn child(setup: *mut c_void) -> c_int {
    // SAFETY: the parent stands still, so nothing else uses the setup. All calls are
    // async-signal-safe.
    unsafe {
        let setup = &mut *setup.cast::<ChildSetup>();
        setup.errno = exec_child(setup);
        libc::_exit(127)
    }
}

/// Runs the program. Returns only on failure, with the error's number.
///
/// # Safety
///
/// Only for the child, with a valid setup.
unsafe fn exec_child(setup: &mut ChildSetup) -> c_int {
    // SAFETY: the pointers of the setup are valid, and all calls are async-signal-safe.
    unsafe {
        let mut default: libc::sigaction = mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        for signal in setup.handled_signals {
            libc::sigaction(*signal, &default, ptr::null_mut());
        }
        let ready = libc::setpgid(0, 0) == 0
            && libc::dup2(setup.input, 0) == 0
            && libc::dup2(setup.output, 1) == 1
            && libc::dup2(setup.output, 2) == 2;
        if ready && !setup.directory.is_null() && libc::chdir(setup.directory) != 0 {
            setup.failed_at = FailedAt::Directory;
        } else if ready {
            if let Some(limit) = &setup.nofile_limit {
                libc::setrlimit(libc::RLIMIT_NOFILE, limit);
            }
            let mut none = mem::zeroed();
            libc::sigemptyset(&mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
            libc::execve(setup.path, setup.arguments, setup.environment);
        }
    }
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

#[cfg(test)]
mod tests;
