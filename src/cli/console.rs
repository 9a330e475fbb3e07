//! The user's end of a command: its output, its warnings, and failures with their exit status.

use std::borrow::Cow;
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::anyhow;
use tracing::{error, warn};

use super::args::AllowedCidrs;
use super::paint::Paint;
use super::width::{stderr_width, wrapped};
use crate::config::{self, LoadedConfig, Problems, Spec};
use crate::kubeconfig;
use crate::log::{self, Format};
use crate::reload::{ConfigFile, LoadError};
use crate::status::text::is_hidden;

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
            Console::Stderr => print_lines("external-endpoints: ", &format!("{error:#}")),
            Console::Log => error!("{error:#}"),
        }
        Reported(ExitCode::FAILURE)
    }

    /// Reports what is wrong with a config. The exit status is 78.
    pub(super) fn fail_config(self, problems: &Problems) -> Reported {
        match self {
            Console::Stderr if std::io::stderr().is_terminal() => {
                log::print(&escape_hidden(&problems.report()));
            }
            Console::Stderr => log::print(&escape_hidden(&problems.summary())),
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
            Console::Stderr => print_lines("warning: ", line),
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

/// Prints a message to standard error. Only its own head begins at the edge: others, whom a message
/// may quote, can't write another message.
fn print_lines(head: &str, message: &str) {
    let message = escape_hidden(message.trim_end()).replace('\n', "\n  ");
    log::print(&wrapped(&format!("{head}{message}\n"), stderr_width()));
}

/// Returns a text in which each character can be seen. Only line breaks stay as they are.
fn escape_hidden(text: &str) -> Cow<'_, str> {
    let is_escaped = |char: char| char != '\n' && is_hidden(char);
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match is_escaped(char) {
            true => shown.extend(char.escape_default()),
            false => shown.push(char),
        }
    }
    Cow::Owned(shown)
}

/// Returns the same of a text in which this program's own colours may stay too.
fn escape_all_but_colors(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\u{1b}') {
        shown += &escape_hidden(&rest[..at]);
        let length = Paint::sequence_at_start(&rest[at..]).map_or(0, str::len);
        shown += &rest[at..at + length];
        // An escape character that begins no colour is escaped like all others.
        let end = if length == 0 { at + 1 } else { at + length };
        shown += &escape_hidden(&rest[at + length..end]);
        rest = &rest[end..];
    }
    shown + &escape_hidden(rest)
}

/// Prints text for people to standard output. No character of it controls the terminal, but for
/// line breaks and colours.
pub(super) fn print(text: &str) -> Result<(), Reported> {
    print_exactly(&escape_all_but_colors(text))
}

/// Prints text for programs to standard output. A reader that has gone away is a failure without a
/// message.
pub(super) fn print_exactly(text: &str) -> Result<(), Reported> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::paint::Tone;

    #[test]
    fn no_text_of_others_controls_the_terminal() {
        let hostile = "a\u{1b}[2J\u{9b}31m\u{202e}\u{200b}\u{2028}\r\t\u{7f}\n中文";
        let shown = r"a\u{1b}[2J\u{9b}31m\u{202e}\u{200b}\u{2028}\r\t\u{7f}";
        assert_eq!(escape_hidden(hostile), format!("{shown}\n中文"));
        assert_eq!(escape_all_but_colors(hostile), format!("{shown}\n中文"));
        let painted = Paint::Colored.text(Tone::Bad, "down") + "\n";
        assert_eq!(escape_all_but_colors(&painted), painted);
        assert_eq!(escape_all_but_colors("\u{1b}\u{1b}[31m\u{1b}"), "\\u{1b}\u{1b}[31m\\u{1b}");
    }
}
