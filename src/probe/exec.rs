//! The exec check: runs a command without a shell, with an environment of only the named variables,
//! and kills its whole process group at the end.

mod command;
mod expand;
mod output;
mod process_group;
mod spawn;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use futures::FutureExt;
use futures::future::BoxFuture;

use super::kind::{CheckProber, NewProber, Workload};
use super::phase::{Phase, ProbeResult, Progress};
use super::target::Target;
use super::value;
use crate::config::{ExecCheck, ValueSource};
use command::{PreparedCommand, c_string};
use expand::expand;
use output::Secrets;
use process_group::KillOnDrop;

/// The prober of an exec check.
struct ExecProber {
    command: Vec<String>,
    /// The variables that describe the target.
    target_env: Vec<(&'static str, String)>,
    env: Vec<(String, ValueSource)>,
    working_directory: Option<PathBuf>,
    inconclusive_statuses: Vec<RangeInclusive<u8>>,
    /// The command of the first probe. Each probe prepares its own if a value comes from a file.
    prepared: OnceLock<Arc<PreparedCommand>>,
}

/// The variables of an environment, with their values.
type Env = Vec<(String, Vec<u8>)>;

impl NewProber for ExecCheck {
    fn new_prober(&self, target: &Target) -> Box<dyn CheckProber> {
        Box::new(ExecProber::new(self, target))
    }
}

impl CheckProber for ExecProber {
    fn probe<'a>(&'a self, progress: &'a Progress) -> BoxFuture<'a, ProbeResult<()>> {
        self.run(progress).boxed()
    }

    fn workload(&self) -> Workload {
        Workload::Command
    }

    fn may_fail_by_name(&self, _reason: &str) -> bool {
        let has_name = |text: &str| text.contains("TARGET_NAME");
        let in_value = |value: &ValueSource| match value {
            ValueSource::Literal(text) => has_name(text),
            ValueSource::Bytes(_) | ValueSource::File(_) | ValueSource::FromEnv(_) => false,
        };
        self.command.iter().any(|argument| has_name(argument))
            || self.env.iter().any(|(_, value)| in_value(value))
    }
}

impl ExecProber {
    fn new(check: &ExecCheck, target: &Target) -> Self {
        let mut target_env = vec![
            ("TARGET_IP", target.ip.to_string()),
            ("TARGET_NAME", target.name.as_deref().map_or(target.ip.to_string(), str::to_owned)),
            ("TARGET_PORT", target.port.to_string()),
            ("SERVICE", target.database.service.clone()),
            ("NAMESPACE", target.database.namespace.clone()),
        ];
        if let Some(hostname) = &target.hostname {
            target_env.push(("TARGET_HOST", hostname.clone()));
        }
        Self {
            command: check.command.clone(),
            target_env,
            env: check.env.clone(),
            working_directory: check.working_directory.clone(),
            inconclusive_statuses: check.inconclusive_statuses.clone(),
            prepared: OnceLock::new(),
        }
    }

    async fn run(&self, progress: &Progress) -> ProbeResult<()> {
        let prepared = self.prepared().await?;
        progress.enter(Phase::Start);
        let (kill_on_drop, progress) = (KillOnDrop::default(), progress.clone());
        let lifecycle = kill_on_drop.lifecycle();
        // All on one thread: a start blocks until the disk has delivered the program, and each
        // hand-over between threads costs as much as a dozen system calls.
        value::blocking(Phase::Start, move || prepared.run(lifecycle, &progress)).await?
    }

    /// Returns the command with its environment, prepared once if no value can change.
    async fn prepared(&self) -> ProbeResult<Arc<PreparedCommand>> {
        if let Some(prepared) = self.prepared.get() {
            return Ok(prepared.clone());
        }
        let (env, secrets) = self.read_env().await?;
        let prepared = Arc::new(self.prepare_command(&env, secrets)?);
        if self.env.iter().all(|(_, value)| !matches!(value, ValueSource::File(_))) {
            let _ = self.prepared.set(prepared.clone());
        }
        Ok(prepared)
    }

    /// Reads the whole environment, and collects the values that are secrets.
    async fn read_env(&self) -> ProbeResult<(Env, Secrets)> {
        let mut env: Env = self
            .target_env
            .iter()
            .map(|(name, value)| ((*name).into(), value.clone().into_bytes()))
            .collect();
        let mut secrets = Secrets::default();
        for (name, value) in &self.env {
            let bytes = value::read_trimmed(value, Phase::Exec).await?;
            if bytes.contains(&0) {
                return Err(
                    Phase::Exec.inconclusive(format_args!("the value of {name} holds a NUL byte"))
                );
            }
            // A short literal, such as `1` or `on`, is no secret: masking it would mask half the
            // output.
            if !matches!(value, ValueSource::Literal(word) if word.len() < 4) {
                secrets.add(&bytes);
            }
            env.retain(|(known, _)| known != name);
            env.push((name.clone(), bytes));
        }
        Ok((env, secrets))
    }

    /// Expands all references of the command.
    fn prepare_command(&self, env: &Env, secrets: Secrets) -> ProbeResult<PreparedCommand> {
        let value_of = |name: &str| {
            let value = env.iter().find(|(known, _)| known == name).map(|(_, value)| value);
            value.map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let words: Vec<String> = self.command.iter().map(|word| expand(word, value_of)).collect();
        let (Some(program), Some(configured_program)) =
            (words.first().cloned(), self.command.first().cloned())
        else {
            return Err(Phase::Start.inconclusive("the command is empty"));
        };
        let assignment =
            |(name, value): &(String, Vec<u8>)| [name.as_bytes(), b"=", value].concat();
        Ok(PreparedCommand {
            configured_program,
            program,
            arguments: words.into_iter().map(c_string).collect::<ProbeResult<_>>()?,
            environment: env.iter().map(assignment).map(c_string).collect::<ProbeResult<_>>()?,
            directory: self.working_directory.clone(),
            secrets,
            inconclusive_statuses: self.inconclusive_statuses.clone(),
        })
    }
}
