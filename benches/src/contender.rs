//! The checkers that are compared, each a process of its own: the floor, HAProxy, the daemon, and
//! another build of the daemon where one is given.

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

use crate::fleet::{Fleet, Kind, port};
use crate::machine::{self, Cpus};
use crate::namespace::scratch;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contender {
    Floor,
    Haproxy,
    /// Another build of the daemon, usually of the commit before.
    Before,
    Daemon,
}

impl Contender {
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Haproxy => "HAProxy",
            Self::Before => "daemon before",
            Self::Daemon => "daemon",
        }
    }
}

/// A line of a process's output, and when it came.
#[derive(Clone)]
pub struct Line {
    pub at: u64,
    pub text: String,
}

/// A checker at work. It is killed when this is dropped.
pub struct Running {
    who: Contender,
    child: Child,
    lines: Arc<Mutex<Vec<Line>>>,
}

/// Starts checking these targets, on the checker's CPU.
pub fn start(
    who: Contender,
    kind: Kind,
    fleet: &Fleet,
    program: &Path,
    cpus: Cpus,
) -> Result<Running> {
    let folder = scratch()?;
    let mut command = match who {
        Contender::Floor => {
            let mut command = Command::new(env::current_exe()?);
            let interval = fleet.interval.as_millis().to_string();
            command.args(["floor", kind.name(), &fleet.targets().len().to_string(), &interval]);
            command
        }
        Contender::Haproxy => {
            let config = folder.join("haproxy.cfg");
            fs::write(
                &config,
                fleet.haproxy_config(kind, &folder.join("haproxy.sock").to_string_lossy()),
            )?;
            let mut command = Command::new("haproxy");
            command.arg("-db").arg("-f").arg(config);
            command
        }
        Contender::Before | Contender::Daemon => {
            let config = folder.join("databases.yaml");
            fs::write(&config, fleet.daemon_config())?;
            let mut command = Command::new(program);
            command
                .args([
                    "run",
                    "--dry-run",
                    "--listen",
                    &format!("127.0.0.1:{}", port::PAGES),
                    "--config",
                ])
                .arg(config);
            command
        }
    };
    // No cluster is to be found, and nothing that would change how a checker works.
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
    Ok(Running { who, child, lines })
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

/// Of whom a line of the daemon's log says that it is down.
pub fn daemon_says_down(line: &str) -> Option<Ipv4Addr> {
    let (_, rest) = line.split_once("target is down")?;
    rest.split_once("address=")?.1.split_whitespace().next()?.parse().ok()
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that was said so far.
    pub fn lines(&self) -> Vec<Line> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fails loudly if the process has ended.
    pub fn must_live(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let lines = self.lines();
            let last: Vec<&str> =
                lines[lines.len().saturating_sub(20)..].iter().map(|line| &*line.text).collect();
            bail!("{} ended by itself ({status}):\n{}", self.who.name(), last.join("\n"));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
