//! `man`: the manual pages, made from the help of the commands.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::CommandFactory as _;
use clap_mangen::Man as Page;

use super::Cli;
use super::console::{Console, Reported, print_exactly};

#[derive(clap::Args)]
pub(super) struct Man {
    /// Write a page for the program and one for each command into this folder, which must exist
    /// [default: print the program's page]
    #[arg(value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

impl Man {
    /// Prints the page of the program, or writes all pages.
    pub(super) fn execute(self) -> Result<ExitCode, Reported> {
        let outcome = match &self.directory {
            None => page(&Cli::command()).map_err(anyhow::Error::from),
            Some(directory) => write_all(directory),
        };
        print_exactly(&outcome.map_err(|error| Console::Stderr.fail(&error))?)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns a page in roff.
fn page(command: &clap::Command) -> io::Result<String> {
    let mut page = Vec::new();
    Page::new(command.clone()).render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// Writes the page of the program and one for each command. Returns their paths, one a line.
fn write_all(directory: &Path) -> anyhow::Result<String> {
    if !directory.is_dir() {
        return Err(anyhow!("{} is no folder; create it first", directory.display()));
    }
    let mut program = Cli::command();
    // Gives each command the name that includes those above it.
    program.build();
    let mut paths = String::new();
    for command in with_subcommands(&program) {
        let name = command.get_display_name().unwrap_or(command.get_name());
        let path = directory.join(format!("{name}.1"));
        std::fs::write(&path, page(command)?)
            .with_context(|| format!("can't write {}", path.display()))?;
        paths.push_str(&format!("{}\n", path.display()));
    }
    Ok(paths)
}

/// Returns a command and all commands below it, without `help`.
fn with_subcommands(command: &clap::Command) -> Vec<&clap::Command> {
    let below = command.get_subcommands().filter(|below| below.get_name() != "help");
    std::iter::once(command).chain(below.flat_map(with_subcommands)).collect()
}
