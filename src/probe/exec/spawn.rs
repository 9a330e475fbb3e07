//! Starts a program as posix_spawn does, but for the work that a check need not do five hundred times a second.
//!
//! glibc's posix_spawn asks for and sets each of the 64 signals' handlers in the child, and asks for the limit of
//! descriptors at each of them that is passed on: over a hundred system calls, a tenth of what a short program costs in
//! all. What is left here is what it is made of: a child that shares our memory until it runs the program, while the
//! thread that started it stands still, so that nothing of the daemon is copied.

#![expect(
    unsafe_code,
    reason = "posix_spawn makes a hundred system calls that a check does not need"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::OnceLock;

use rustix::process::{Pid, WaitOptions, waitpid};

use crate::limits;

/// What is to run.
pub(crate) struct Program<'a> {
    pub path: &'a CStr,
    pub arguments: &'a [CString],
    pub environment: &'a [CString],
    pub directory: Option<&'a CStr>,
}

/// A program that runs, as the leader of a group of its own, without input.
pub(crate) struct Started {
    pub id: Pid,
    /// Readable once it has exited, which leaves it to us when to reap it.
    pub exited: OwnedFd,
    /// What it writes to both its outputs, in order. Reading never waits.
    pub output: OwnedFd,
}

/// Why nothing was started.
pub(crate) enum Refused {
    Directory(io::Error),
    Program(io::Error),
}

/// Starts a program. May wait for the disk that it is on.
pub(crate) fn start(program: &Program) -> Result<Started, Refused> {
    let (reader, writer) = io::pipe().map_err(Refused::Program)?;
    rustix::io::ioctl_fionbio(&reader, true).map_err(|error| Refused::Program(error.into()))?;
    let input = nothing().map_err(Refused::Program)?;
    let arguments = pointers(program.arguments);
    let environment = pointers(program.environment);
    let mut orders = Orders {
        path: program.path.as_ptr(),
        arguments: arguments.as_ptr(),
        environment: environment.as_ptr(),
        directory: program.directory.map_or(ptr::null(), CStr::as_ptr),
        input: input.as_raw_fd(),
        output: writer.as_raw_fd(),
        caught: caught(),
        descriptors: limits::child_nofile_limit().map(|limit| libc::rlimit {
            rlim_cur: limit.current.unwrap_or(libc::RLIM_INFINITY),
            rlim_max: limit.maximum.unwrap_or(libc::RLIM_INFINITY),
        }),
        at_directory: false,
        problem: 0,
    };
    // SAFETY: what `orders` points to lives until the child has run the program or is gone: only then `clone` returns.
    let (id, exited) = unsafe { clone(&mut orders) }.map_err(Refused::Program)?;
    if orders.problem == 0 {
        return Ok(Started { id, exited, output: reader.into() });
    }
    // It is dead or as good as that; an error would say that it is reaped already.
    let _ = waitpid(Some(id), WaitOptions::empty());
    let error = io::Error::from_raw_os_error(orders.problem);
    Err(if orders.at_directory { Refused::Directory(error) } else { Refused::Program(error) })
}

/// /dev/null, opened once: every program has it for its input.
fn nothing() -> io::Result<&'static File> {
    static NOTHING: OnceLock<File> = OnceLock::new();
    if let Some(file) = NOTHING.get() {
        return Ok(file);
    }
    let file = File::open("/dev/null")?;
    Ok(NOTHING.get_or_init(|| file))
}

/// The signals that this process catches, found when the first program is started. A child must not run the handlers of a
/// process whose memory it shares.
fn caught() -> &'static [c_int] {
    static CAUGHT: OnceLock<Vec<c_int>> = OnceLock::new();
    CAUGHT.get_or_init(|| {
        let is_caught = |signal: &c_int| {
            let mut action = MaybeUninit::<libc::sigaction>::uninit();
            // SAFETY: without a new action this only fills in the old one.
            let known = unsafe { libc::sigaction(*signal, ptr::null(), action.as_mut_ptr()) } == 0;
            // SAFETY: filled in, as the call went well.
            known
                && !matches!(
                    unsafe { action.assume_init() }.sa_sigaction,
                    libc::SIG_DFL | libc::SIG_IGN
                )
        };
        // Rust ignores SIGPIPE, which a program would inherit.
        (1..=libc::SIGRTMAX()).filter(is_caught).chain([libc::SIGPIPE]).collect()
    })
}

/// As execve takes a list of texts. Valid for as long as they are.
fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

/// What the child is to do, and what came of it. Both sides see the same memory.
struct Orders {
    path: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    directory: *const c_char,
    input: RawFd,
    output: RawFd,
    caught: &'static [c_int],
    /// The limit to go back to.
    descriptors: Option<libc::rlimit>,
    /// Whether it is changing to the directory.
    at_directory: bool,
    /// The error that ended it.
    problem: c_int,
}

/// What the child needs of its stack is a few hundred bytes; this is what glibc gives it.
const STACK: usize = 32 << 10;

/// Runs `child` beside us and returns when it has run the program or exited.
///
/// # Safety
///
/// All that the orders point to must be valid.
unsafe fn clone(orders: &mut Orders) -> io::Result<(Pid, OwnedFd)> {
    let mut stack = Vec::<u128>::with_capacity(STACK / size_of::<u128>());
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let mut exited: c_int = -1;
    // SAFETY: the sets are filled in before they are read. The child's stack is its own, grows down from its aligned end,
    // and outlives it; no signal handler runs on it, for all are blocked until the child has none. `child` keeps to calls
    // that are safe there, and the parent goes on only when the child no longer shares its memory.
    let (id, error) = unsafe {
        let (mut all, mut before) = (mem::zeroed(), mem::zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let top = stack.as_mut_ptr().add(stack.capacity()).cast::<c_void>();
        let id = libc::clone(child, top, flags, ptr::from_mut(orders).cast(), &raw mut exited);
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
        (id, error)
    };
    match Pid::from_raw(id) {
        // SAFETY: the kernel gave it to us, and nobody else knows it.
        Some(pid) if id > 0 => Ok((pid, unsafe { OwnedFd::from_raw_fd(exited) })),
        _ => Err(error),
    }
}

/// The child: it shares the parent's memory, so that it may not allocate, panic or return.
extern "C" fn child(orders: *mut c_void) -> c_int {
    // SAFETY: the parent waits, and so nobody else uses the orders. All of these calls are async-signal-safe.
    unsafe {
        let orders = &mut *orders.cast::<Orders>();
        orders.problem = obey(orders);
        libc::_exit(127)
    }
}

/// Returns only if it failed: the number of the error.
///
/// # Safety
///
/// Only for the child, with good orders.
unsafe fn obey(orders: &mut Orders) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        let mut default: libc::sigaction = mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        for signal in orders.caught {
            libc::sigaction(*signal, &default, ptr::null_mut());
        }
        let mut ready = libc::setpgid(0, 0) == 0
            && libc::dup2(orders.input, 0) == 0
            && libc::dup2(orders.output, 1) == 1
            && libc::dup2(orders.output, 2) == 2;
        if ready && !orders.directory.is_null() {
            orders.at_directory = true;
            ready = libc::chdir(orders.directory) == 0;
            orders.at_directory = !ready;
        }
        if ready {
            if let Some(limit) = &orders.descriptors {
                libc::setrlimit(libc::RLIMIT_NOFILE, limit);
            }
            let mut none = mem::zeroed();
            libc::sigemptyset(&mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
            libc::execve(orders.path, orders.arguments, orders.environment);
        }
    }
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}
