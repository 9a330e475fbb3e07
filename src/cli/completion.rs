//! `completion`: prints the script with which a shell completes this command line.

use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Cli;
use super::console::{Reported, print_exactly};

#[derive(clap::Args)]
pub(super) struct Completion {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

impl Completion {
    /// Prints the script on standard output.
    pub(super) fn execute(self) -> Result<ExitCode, Reported> {
        print_exactly(&script(self.shell))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns the script of a shell.
fn script(shell: Shell) -> String {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}
