//! The user's end of a command: its output, its warnings, and failures with their exit status.

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::anyhow;
use tracing::{error, warn};

use super::args::AllowedCidrs;
use super::width::{stderr_width, wrapped};
use crate::config::{self, LoadedConfig, Problems, Spec};
use crate::kubeconfig;
use crate::log::{self, Format};
use crate::reload::{ConfigFile, LoadError};

/// The exit status for a bad config, `EX_CONFIG` of sysexits.h.
pub(super) const BAD_CONFIG: u8 = 78;

/// A failure that the user has been told of, and its exit status.
#[derive(Debug)]
pub(super) struct Reported(pub(super) ExitCode);

/// The place where a command reports warnings and failures.
#[derive(Clone, Copy)]
pub(super) enum Console {
    /// Standard error, as text for people.
    Stderr,
    /// The log, a line for each message.
    Log,
}

impl Console {
    /// Returns the console that fits the format of the log.
    pub(super) fn new(format: Format) -> Self {
        match format {
            Format::Human => Console::Stderr,
            Format::Json => Console::Log,
        }
    }

    /// Reports a failure. The exit status is 1.
    pub(super) fn fail(self, error: &anyhow::Error) -> Reported {
        match self {
            Console::Stderr => {
                let text = format!("external-endpoints: {error:#}\n");
                log::print(&wrapped(&text, stderr_width()));
            }
            Console::Log => error!("{error:#}"),
        }
        Reported(ExitCode::FAILURE)
    }

    /// Reports what is wrong with a config. The exit status is 78.
    pub(super) fn fail_config(self, problems: &Problems) -> Reported {
        match self {
            Console::Stderr if std::io::stderr().is_terminal() => log::print(&problems.report()),
            Console::Stderr => log::print(&problems.summary()),
            Console::Log => problems.to_string().lines().for_each(|line| error!("{line}")),
        }
        Reported(ExitCode::from(BAD_CONFIG))
    }

    /// Reports the warnings of a config.
    pub(super) fn report_warnings(self, warnings: &Problems) {
        warnings.to_string().lines().for_each(|line| self.warn(line));
    }

    /// Reports a warning.
    pub(super) fn warn(self, line: &str) {
        match self {
            Console::Stderr => log::print(&format!("warning: {line}\n")),
            Console::Log => warn!("{line}"),
        }
    }

    /// Returns the options for reading a config.
    pub(super) fn config_options(self, allowed: &AllowedCidrs) -> config::Options {
        let own_namespace = kubeconfig::own_namespace().unwrap_or_else(|error| {
            self.warn(&format!(
                "KUBECONFIG: {error}; databases without a namespace are taken to be in `default`"
            ));
            kubeconfig::DEFAULT_NAMESPACE.to_owned()
        });
        config::Options { own_namespace, allow_cidr: allowed.cidrs.clone(), skip_rejected: false }
    }

    /// Loads a config file, and reports its warnings and problems.
    pub(super) fn load(
        self,
        path: &Path,
        options: config::Options,
    ) -> Result<(ConfigFile, Spec), Reported> {
        match ConfigFile::load(path.to_owned(), options) {
            Ok((file, LoadedConfig { spec, warnings })) => {
                self.report_warnings(&warnings);
                Ok((file, spec))
            }
            Err(LoadError::Invalid(problems)) => Err(self.fail_config(&problems)),
            Err(LoadError::Exhausted(error)) => {
                Err(self.fail(&anyhow!("{}: {error}", path.display())))
            }
        }
    }
}

/// Prints to standard output. A reader that has gone away is a failure without a message.
pub(super) fn print(text: &str) -> Result<(), Reported> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| fail_stdout(&error))
}

fn fail_stdout(error: &std::io::Error) -> Reported {
    if error.kind() != ErrorKind::BrokenPipe {
        log::print(&format!("external-endpoints: standard output: {error}\n"));
    }
    Reported(ExitCode::FAILURE)
}

/// Prints the requested help on standard output, or a mistake in the usage on standard error.
pub(super) fn print_usage(usage: &clap::Error) -> ExitCode {
    let printed = usage.print().and_then(|()| std::io::stdout().flush());
    match printed {
        Err(error) if !usage.use_stderr() => fail_stdout(&error).0,
        _ => ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(u8::MAX)),
    }
}
