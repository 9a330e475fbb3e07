//! `validate`: reports the problems of config files.

use std::path::PathBuf;
use std::process::ExitCode;

use super::args::AllowedCidrs;
use super::console::{Console, Reported, print};
use crate::config::{self, Database, Spec};

#[derive(clap::Args)]
pub(super) struct Validate {
    /// Print the config with every default filled in
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    allowed: AllowedCidrs,
    /// The config files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Validate {
    /// Validates every file. The exit status is that of the last bad one.
    pub(super) fn execute(self) -> Result<ExitCode, Reported> {
        let console = Console::Stderr;
        let options = console.config_options(&self.allowed);
        let mut status = ExitCode::SUCCESS;
        for file in &self.files {
            match console.load(file, options.clone()) {
                Ok((_, spec)) if self.explain => print(&config::explain(&spec))?,
                Ok((_, spec)) => print(&format!("{}: good; {}\n", file.display(), summary(&spec)))?,
                Err(Reported(bad)) => status = bad,
            }
        }
        Ok(status)
    }
}

fn summary(spec: &Spec) -> String {
    let count = |of: fn(&Database) -> usize| -> usize {
        spec.databases.iter().map(|database| of(database)).sum()
    };
    let (ips, names) =
        (count(|database| database.addresses.len()), count(|database| database.names.len()));
    let databases = spec.databases.len();
    let of_them = if names == 0 { String::new() } else { format!(", names among them: {names}") };
    format!("databases: {databases}, addresses: {}{of_them}", ips + names)
}
