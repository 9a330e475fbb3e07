//! One run of a command: start, wait, read the output, and the verdict on its end.
//!
//! A program named without a slash is looked up in the daemon's PATH, as a person at a shell
//! expects. The command itself has no PATH unless `env` names one. A relative program with a slash
//! is found from `workingDirectory`.

use std::ffi::CString;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::io::Errno;

use super::output::{Output, Secrets};
use super::process_group::{ProcessGroup, SharedLifecycle, WaitEvent};
use super::spawn::{Program, SpawnError};
use crate::health::Verdict;
use crate::limits;
use crate::probe::phase::{Phase, ProbeResult, Progress, os_error_text};

/// The first part of a run, in which only the end of the command is waited for. Most commands end
/// within it, and its pipe holds 64 KiB without a reader. Waiting for both would wake the thread
/// twice at each end.
const EXIT_ONLY_WINDOW: Duration = Duration::from_millis(20);

/// The interval at which a thread checks if its command was killed and does not end.
const CANCEL_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A command with its arguments and environment.
pub(super) struct PreparedCommand {
    /// The program as the config writes it. Reasons show this, because its expansion may hold a
    /// secret.
    pub(super) configured_program: String,
    pub(super) program: String,
    pub(super) arguments: Vec<CString>,
    pub(super) environment: Vec<CString>,
    pub(super) directory: Option<PathBuf>,
    pub(super) secrets: Secrets,
    pub(super) inconclusive_statuses: Vec<RangeInclusive<u8>>,
}

/// Returns a text for the program, or the verdict if it holds a NUL byte.
pub(super) fn c_string(bytes: impl Into<Vec<u8>>) -> ProbeResult<CString> {
    CString::new(bytes).map_err(|_| Phase::Start.inconclusive("the command holds a NUL byte"))
}

fn c_path(path: &Path) -> ProbeResult<CString> {
    c_string(path.as_os_str().to_owned().into_vec())
}

impl PreparedCommand {
    /// Runs the command once, on a thread that may block.
    pub(super) fn run(&self, lifecycle: SharedLifecycle, progress: &Progress) -> ProbeResult<()> {
        let path = self.path().map_err(|reason| Phase::Start.inconclusive(reason))?;
        let directory = self.directory.as_deref().map(c_path).transpose()?;
        let program = Program {
            path: &c_path(&path)?,
            arguments: &self.arguments,
            environment: &self.environment,
            directory: directory.as_deref(),
            nofile_limit: limits::child_nofile_limit(),
        };
        let started = ProcessGroup::start(&program, lifecycle)
            .map_err(|error| self.start_failure(&path, error))?;
        progress.enter(Phase::Exec);
        let Some((group, pipe)) = started else { return Err(cancelled()) };
        let (status, output) = wait_for_exit(group, &pipe)
            .map_err(|error| Phase::Exec.io_error(&error))?
            .ok_or_else(cancelled)?;
        exit_verdict(status, output.quoted(&self.secrets), &self.inconclusive_statuses)
    }

    /// Returns the file to run. A path with a slash is not looked up: the start shows if it exists.
    fn path(&self) -> Result<PathBuf, String> {
        if self.program.contains('/') {
            let program = Path::new(&self.program);
            return Ok(self
                .directory
                .as_ref()
                .map_or_else(|| program.to_owned(), |folder| folder.join(program)));
        }
        let path =
            std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        let mut not_executable = None;
        for candidate in std::env::split_paths(&path).map(|folder| folder.join(&self.program)) {
            match candidate.metadata() {
                Ok(kind) if kind.is_file() && kind.permissions().mode() & 0o111 != 0 => {
                    return Ok(candidate);
                }
                Ok(kind) if kind.is_file() => {
                    not_executable = Some(format!("{} is not executable", self.configured_program))
                }
                _ => {}
            }
        }
        Err(not_executable
            .unwrap_or_else(|| format!("command not found: {}", self.configured_program)))
    }

    /// Returns the verdict on a failed start. It is never the target's fault.
    fn start_failure(&self, path: &Path, error: SpawnError) -> Verdict {
        let (error, what) = match (&error, &self.directory) {
            (SpawnError::Program(error), _) => (error, self.file_fault(path, error)),
            (SpawnError::Directory(error), Some(folder)) if folder.is_dir() => (
                error,
                Some(format!(
                    "cannot enter workingDirectory {}: {}",
                    folder.display(),
                    os_error_text(error)
                )),
            ),
            (SpawnError::Directory(error), folder) => {
                let folder = folder.as_deref().unwrap_or(Path::new("")).display();
                (error, Some(format!("workingDirectory {folder} is not a directory")))
            }
        };
        match (what, Phase::Start.io_error(error)) {
            (Some(what), _) => Phase::Start.inconclusive(what),
            (None, verdict @ Verdict::Inconclusive(_)) => verdict,
            (None, _) => Phase::Start.inconclusive(format_args!(
                "cannot run {}: {}",
                self.configured_program,
                os_error_text(error)
            )),
        }
    }

    /// Returns the fault of the program's file, if the file is at fault.
    fn file_fault(&self, path: &Path, error: &io::Error) -> Option<String> {
        let configured_program = &self.configured_program;
        match (error.kind(), path.metadata()) {
            (io::ErrorKind::NotFound, Err(_)) => {
                Some(format!("command not found: {configured_program}"))
            }
            // The file exists, so the interpreter named in its first line is missing.
            (io::ErrorKind::NotFound, Ok(_)) => {
                Some(format!("the interpreter of {configured_program} is missing"))
            }
            (io::ErrorKind::PermissionDenied, Ok(kind)) if kind.is_dir() => {
                Some(format!("{configured_program} is a directory"))
            }
            (io::ErrorKind::PermissionDenied, Ok(_)) => {
                Some(format!("{configured_program} is not executable"))
            }
            (io::ErrorKind::PermissionDenied, Err(error)) => {
                Some(format!("cannot run {configured_program}: {}", os_error_text(&error)))
            }
            _ => None,
        }
    }
}

/// Returns the verdict of a cancelled probe, which no caller receives.
fn cancelled() -> Verdict {
    Phase::Exec.inconclusive("cancelled")
}

/// Waits for the leader to exit, and keeps its pipe from filling meanwhile. Returns `None` if the
/// probe was cancelled and the command does not end.
fn wait_for_exit(group: ProcessGroup, pipe: &OwnedFd) -> io::Result<Option<(ExitStatus, Output)>> {
    let mut output = Output::default();
    let mut buffer = [0; 4096];
    let mut open = true;
    let mut event = group.wait(None, EXIT_ONLY_WINDOW)?;
    loop {
        match event {
            WaitEvent::Exited => break,
            WaitEvent::Readable => match rustix::io::read(pipe, &mut buffer) {
                Ok(0) => open = false,
                Ok(read) => output.push(&buffer[..read]),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            },
            WaitEvent::TimedOut if group.is_cancelled() => return Ok(None),
            WaitEvent::TimedOut => {}
        }
        event = group.wait(open.then_some(pipe), CANCEL_CHECK_INTERVAL)?;
    }
    let status = group.finish()?;
    // Only what is in the pipe now: a process that has left the group may hold it open for ever. A
    // pipe holds no more than this.
    for _ in 0..16 {
        match rustix::io::read(pipe, &mut buffer) {
            Ok(read @ 1..) => output.push(&buffer[..read]),
            _ => break,
        }
    }
    Ok(Some((status, output)))
}

/// The exit statuses of a shell that can't run a command (POSIX, "Exit Status for Commands").
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// Returns the verdict on a command that has ended:
///
/// | end | verdict |
/// | --- | --- |
/// | exit status 0 | pass |
/// | a status of `inconclusiveStatuses` | inconclusive |
/// | 126 or 127 | inconclusive: a shell could not run a command |
/// | any other status, or a signal | fail |
fn exit_verdict(
    status: ExitStatus,
    output: Option<String>,
    inconclusive: &[RangeInclusive<u8>],
) -> ProbeResult<()> {
    let is_named = |code: i32| {
        u8::try_from(code).is_ok_and(|code| inconclusive.iter().any(|range| range.contains(&code)))
    };
    let (what, is_inconclusive) = match (status.code(), status.signal()) {
        (Some(0), _) => return Ok(()),
        (Some(code), _) if is_named(code) => {
            (format!("exit status {code}, one of inconclusiveStatuses"), true)
        }
        (Some(NOT_FOUND), _) => ("exit status 127, a command was not found".to_owned(), true),
        (Some(NOT_EXECUTABLE), _) => {
            ("exit status 126, a command is not executable".to_owned(), true)
        }
        (Some(code), _) => (format!("exit status {code}"), false),
        (None, signal) => (format!("killed by signal {}", signal.unwrap_or_default()), false),
    };
    let what = match output {
        Some(output) => format!("{what}: {output}"),
        None => what,
    };
    Err(if is_inconclusive { Phase::Exec.inconclusive(what) } else { Phase::Exec.fail(what) })
}
