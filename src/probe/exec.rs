//! The exec check: runs a command without a shell, in an environment that holds only what is named, and kills all of it.

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
use super::phase::{Phase, Progress, Step};
use super::target::Target;
use super::value;
use crate::config::{ExecCheck, ValueSource};
use command::{Ready, text};
use expand::expand;
use output::Secrets;
use process_group::Leash;

struct Exec {
    command: Vec<String>,
    /// What the daemon says of the target.
    told: Vec<(&'static str, String)>,
    env: Vec<(String, ValueSource)>,
    working_directory: Option<PathBuf>,
    inconclusive_statuses: Vec<RangeInclusive<u8>>,
    /// Made at the first try, unless it has to be made anew at each.
    ready: OnceLock<Arc<Ready>>,
}

type Env = Vec<(String, Vec<u8>)>;

impl NewProber for ExecCheck {
    fn new_prober(&self, target: &Target) -> Box<dyn CheckProber> {
        Box::new(Exec::new(self, target))
    }
}

impl CheckProber for Exec {
    fn probe<'a>(&'a self, progress: &'a Progress) -> BoxFuture<'a, Step<()>> {
        self.run(progress).boxed()
    }

    fn workload(&self) -> Workload {
        Workload::Command
    }
}

impl Exec {
    fn new(check: &ExecCheck, target: &Target) -> Self {
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
            inconclusive_statuses: check.inconclusive_statuses.clone(),
            ready: OnceLock::new(),
        }
    }

    async fn run(&self, progress: &Progress) -> Step<()> {
        let ready = self.ready().await?;
        progress.enter(Phase::Start);
        let (leash, progress) = (Leash::default(), progress.clone());
        let rope = leash.rope();
        // All of it on one thread: starting a program stands still until the disk has given it, and each hand-over
        // between threads costs as much as a dozen system calls.
        value::blocking(Phase::Start, move || ready.run(rope, &progress)).await?
    }

    async fn ready(&self) -> Step<Arc<Ready>> {
        if let Some(ready) = self.ready.get() {
            return Ok(ready.clone());
        }
        let (env, secrets) = self.read_env().await?;
        let ready = Arc::new(self.fill_in(&env, secrets)?);
        if self.env.iter().all(|(_, value)| !matches!(value, ValueSource::File(_))) {
            let _ = self.ready.set(ready.clone());
        }
        Ok(ready)
    }

    /// The whole environment, and which values of it are secrets.
    async fn read_env(&self) -> Step<(Env, Secrets)> {
        let mut env: Env = self
            .told
            .iter()
            .map(|(name, value)| ((*name).into(), value.clone().into_bytes()))
            .collect();
        let mut secrets = Secrets::default();
        for (name, value) in &self.env {
            let bytes = value::read_word(value, Phase::Exec).await?;
            if bytes.contains(&0) {
                return Err(
                    Phase::Exec.inconclusive(format_args!("the value of {name} holds a NUL byte"))
                );
            }
            // A short word in the config, as `1` or `on`, is no secret, and masking it would mask half the output.
            if !matches!(value, ValueSource::Literal(word) if word.len() < 4) {
                secrets.add(&bytes);
            }
            env.retain(|(known, _)| known != name);
            env.push((name.clone(), bytes));
        }
        Ok((env, secrets))
    }

    /// The command with all references expanded.
    fn fill_in(&self, env: &Env, secrets: Secrets) -> Step<Ready> {
        let value_of = |name: &str| {
            let value = env.iter().find(|(known, _)| known == name).map(|(_, value)| value);
            value.map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let words: Vec<String> = self.command.iter().map(|word| expand(word, value_of)).collect();
        let (Some(program), Some(written)) =
            (words.first().cloned(), self.command.first().cloned())
        else {
            return Err(Phase::Start.inconclusive("the command is empty"));
        };
        let named = |(name, value): &(String, Vec<u8>)| [name.as_bytes(), b"=", value].concat();
        Ok(Ready {
            written,
            program,
            arguments: words.into_iter().map(text).collect::<Step<_>>()?,
            environment: env.iter().map(named).map(text).collect::<Step<_>>()?,
            directory: self.working_directory.clone(),
            secrets,
            inconclusive_statuses: self.inconclusive_statuses.clone(),
        })
    }
}
