//! The checkers that are compared, each in a process of its own: the baseline, HAProxy, the daemon,
//! and optionally another build of the daemon.

#![allow(unsafe_code, reason = "code that runs before exec has no safe interface")]

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, bail};

use crate::machine::{self, Cpus};
use crate::namespace::scratch;
use crate::workload::{Kind, Workload, port};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Subject {
    Baseline,
    Haproxy,
    /// Another build of the daemon, usually of the commit before.
    Before,
    Daemon,
}

impl Subject {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Haproxy => "HAProxy",
            Self::Before => "daemon before",
            Self::Daemon => "daemon",
        }
    }
}

/// A line of a process's output with its time.
#[derive(Clone)]
pub(crate) struct Line {
    pub at: u64,
    pub text: String,
}

/// A checker that runs until it is dropped.
pub(crate) struct SubjectProcess {
    who: Subject,
    child: Child,
    lines: Arc<Mutex<Vec<Line>>>,
}

/// Starts checking these targets, on the checker's CPU.
pub(crate) fn start(
    who: Subject,
    kind: Kind,
    workload: &Workload,
    program: &Path,
    cpus: Cpus,
) -> Result<SubjectProcess> {
    let folder = scratch()?;
    let mut command = match who {
        Subject::Baseline => {
            let mut command = Command::new(env::current_exe()?);
            let interval = workload.interval.as_millis().to_string();
            command.args([
                "baseline",
                kind.name(),
                &workload.targets().len().to_string(),
                &interval,
            ]);
            command
        }
        Subject::Haproxy => {
            let config = folder.join("haproxy.cfg");
            fs::write(
                &config,
                workload.haproxy_config(kind, &folder.join("haproxy.sock").to_string_lossy()),
            )?;
            let mut command = Command::new("haproxy");
            command.arg("-db").arg("-f").arg(config);
            command
        }
        Subject::Before | Subject::Daemon => {
            let config = folder.join("databases.yaml");
            fs::write(&config, workload.daemon_config())?;
            let mut command = Command::new(program);
            command
                .args([
                    "run",
                    "--dry-run",
                    "--listen",
                    &format!("127.0.0.1:{}", port::PAGES),
                    "--config",
                ])
                .arg(config)
                .args(&workload.arguments);
            command
        }
    };
    // The checker finds no cluster, and no variable that would change how it works.
    command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default()).env("HOME", &folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: one system call, which a new process may make.
    unsafe {
        command.pre_exec(move || machine::pin(cpus.checker));
    }
    let mut child = command.spawn().with_context(|| format!("{:?}", command.get_program()))?;
    let lines = Arc::default();
    listen(child.stdout.take().context("a pipe")?, &lines);
    listen(child.stderr.take().context("a pipe")?, &lines);
    Ok(SubjectProcess { who, child, lines })
}

fn listen(output: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<Line>>>) {
    let lines = Arc::clone(lines);
    thread::spawn(move || {
        for text in BufReader::new(output).lines().map_while(Result::ok) {
            let line = Line { at: machine::now(), text };
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
}

/// Returns the address that a line of the daemon's log reports as down.
pub(crate) fn daemon_says_down(line: &str) -> Option<Ipv4Addr> {
    let (_, rest) = line.split_once("target is down")?;
    rest.split_once("address=")?.1.split_whitespace().next()?.parse().ok()
}

impl SubjectProcess {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns all lines of its output so far.
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns an error if the process has exited.
    pub(crate) fn ensure_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let lines = self.lines();
            let last: Vec<&str> =
                lines[lines.len().saturating_sub(20)..].iter().map(|line| &*line.text).collect();
            bail!("{} ended by itself ({status}):\n{}", self.who.name(), last.join("\n"));
        }
        Ok(())
    }
}

impl Drop for SubjectProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
