//! The exec check: runs a command without a shell, in an environment that holds only what is named, and kills all of it.
//!
//! A program named without a slash is looked up in the daemon's own PATH, as a person at a shell expects; the command
//! itself sees no PATH unless `env` names one. A relative program with a slash is found from `workingDirectory`.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use super::expand::expand;
use super::group::Group;
use super::output::{Output, Secrets};
use super::{Phase, Progress, Step, Target, os_words, value};
use crate::config::{ExecCheck, Value};
use crate::health::Verdict;

pub(super) struct Exec {
    command: Vec<String>,
    /// What the daemon says of the target.
    told: Vec<(&'static str, String)>,
    env: Vec<(String, Value)>,
    working_directory: Option<PathBuf>,
}

type Env = Vec<(String, Vec<u8>)>;

impl Exec {
    pub fn new(check: &ExecCheck, target: &Target) -> Self {
        let mut told = vec![
            ("TARGET_IP", target.ip.to_string()),
            ("TARGET_PORT", target.port.to_string()),
            ("SERVICE", target.database.service.clone()),
            ("NAMESPACE", target.database.namespace.clone()),
        ];
        if let Some(hostname) = &target.hostname {
            told.push(("TARGET_HOST", hostname.clone()));
        }
        Self {
            command: check.command.clone(),
            told,
            env: check.env.clone(),
            working_directory: check.working_directory.clone(),
        }
    }

    pub async fn run(&self, progress: &Progress) -> Step<()> {
        let (env, secrets) = self.read_env().await?;
        progress.enter(Phase::Start);
        let start = self.starter(&env)?;
        let (group, pipe) = value::blocking(Phase::Start, start).await??;
        progress.enter(Phase::Exec);
        let (status, output) = watch(group, pipe).await.map_err(|error| Phase::Exec.io(&error))?;
        judge(status, output.quoted(&secrets))
    }

    /// The whole environment, and which values of it are secrets.
    async fn read_env(&self) -> Step<(Env, Secrets)> {
        let mut env: Env = self.told.iter().map(|(name, value)| ((*name).into(), value.clone().into_bytes())).collect();
        let mut secrets = Secrets::default();
        for (name, value) in &self.env {
            let bytes = value::read_word(value, Phase::Exec).await?;
            if bytes.contains(&0) {
                return Err(Phase::Exec.inconclusive(format_args!("the value of {name} holds a NUL byte")));
            }
            // A short word in the config, as `1` or `on`, is no secret, and masking it would mask half the output.
            if !matches!(value, Value::Literal(word) if word.len() < 4) {
                secrets.add(&bytes);
            }
            env.retain(|(known, _)| known != name);
            env.push((name.clone(), bytes));
        }
        Ok((env, secrets))
    }

    /// What starts the command, to be run where it may block.
    fn starter(&self, env: &Env) -> Step<impl FnOnce() -> Step<(Group, OwnedFd)> + Send + 'static> {
        let value_of = |name: &str| {
            let value = env.iter().find(|(known, _)| known == name).map(|(_, value)| value);
            value.map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let mut words = self.command.iter().map(|word| expand(word, value_of));
        let (Some(program), Some(written)) = (words.next(), self.command.first().cloned()) else {
            return Err(Phase::Start.inconclusive("the command is empty"));
        };
        let arguments: Vec<String> = words.collect();
        let env = env.clone();
        let directory = self.working_directory.clone();
        Ok(move || {
            let path = find(&program, &written, directory.as_deref()).map_err(|why| Phase::Start.inconclusive(why))?;
            let mut command = Command::new(&path);
            command.args(arguments).env_clear();
            command.envs(env.iter().map(|(name, value)| (name, OsStr::from_bytes(value))));
            if let Some(directory) = directory {
                command.current_dir(directory);
            }
            let started = Group::start(command);
            started.map(|(group, pipe)| (group, pipe.into())).map_err(|error| unstartable(&written, &error))
        })
    }
}

/// The file to run. `written` is the program as the config has it: what it expands to may hold a secret.
fn find(program: &str, written: &str, directory: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(directory) = directory.filter(|directory| !directory.is_dir()) {
        return Err(format!("workingDirectory {} is not a directory", directory.display()));
    }
    if program.contains('/') {
        let path = directory.map_or_else(|| PathBuf::from(program), |directory| directory.join(program));
        return match path.metadata() {
            Ok(kind) if kind.is_dir() => Err(format!("{written} is a directory")),
            Ok(kind) if kind.permissions().mode() & 0o111 == 0 => Err(format!("{written} is not executable")),
            Ok(_) => Ok(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!("command not found: {written}")),
            Err(error) => Err(format!("cannot run {written}: {}", os_words(&error))),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let mut unfit = None;
    for candidate in std::env::split_paths(&path).map(|folder| folder.join(program)) {
        match candidate.metadata() {
            Ok(kind) if kind.is_file() && kind.permissions().mode() & 0o111 != 0 => {
                return Ok(candidate);
            }
            Ok(kind) if kind.is_file() => unfit = Some(format!("{written} is not executable")),
            _ => {}
        }
    }
    Err(unfit.unwrap_or_else(|| format!("command not found: {written}")))
}

/// Whatever keeps a command from starting, it isn't the target.
fn unstartable(written: &str, error: &io::Error) -> Verdict {
    match error.kind() {
        // The file itself is there, so what is missing is named in its first line.
        io::ErrorKind::NotFound => Phase::Start.inconclusive(format_args!("the interpreter of {written} is missing")),
        io::ErrorKind::PermissionDenied => Phase::Start.inconclusive(format_args!("{written} is not executable")),
        _ => match Phase::Start.io(error) {
            Verdict::Fail(_) => Phase::Start.inconclusive(format_args!("cannot run {written}: {}", os_words(error))),
            ours => ours,
        },
    }
}

/// Waits for the leader to exit, and keeps its pipe from filling meanwhile.
async fn watch(group: Group, pipe: OwnedFd) -> io::Result<(ExitStatus, Output)> {
    let mut pipe = Receiver::from_owned_fd(pipe)?;
    let mut output = Output::default();
    let mut buffer = [0; 4096];
    let mut open = true;
    loop {
        tokio::select! {
            // The exit first: endless output must not put it off.
            biased;
            exited = group.exited() => break exited?,
            read = pipe.read(&mut buffer), if open => match read? {
                0 => open = false,
                read => output.push(&buffer[..read]),
            },
        }
    }
    let status = group.finish()?;
    // What is in the pipe now is all there is to wait for: one that left the group may hold it open for ever. Read past
    // the runtime, which may not have heard of it yet, and no more than a pipe holds.
    for _ in 0..16 {
        match rustix::io::read(&pipe, &mut buffer) {
            Ok(read @ 1..) => output.push(&buffer[..read]),
            _ => break,
        }
    }
    Ok((status, output))
}

fn judge(status: ExitStatus, output: Option<String>) -> Step<()> {
    let what = match (status.code(), status.signal()) {
        (Some(0), _) => return Ok(()),
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("killed by signal {}", signal.unwrap_or_default()),
    };
    Err(match output {
        Some(output) => Phase::Exec.fail(format_args!("{what}: {output}")),
        None => Phase::Exec.fail(what),
    })
}
