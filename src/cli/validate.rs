//! `validate`: reports the problems of configs, wherever they stand.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;

use super::args::AllowedCidrs;
use super::console::{BAD_CONFIG, Console, Reported, print_exactly};
use crate::config::{self, Choice, ReadError};
use crate::log;
use files::{ConfigPath, expand};
use report::{Report, ReportFormat};

mod files;
mod report;

#[derive(clap::Args)]
pub(super) struct Validate {
    /// Print the config with every default filled in
    #[arg(long, conflicts_with = "format")]
    explain: bool,
    /// Fail also if there are only warnings
    #[arg(long)]
    deny_warnings: bool,
    /// The format of the output
    #[arg(short = 'o', long = "output", value_name = "FORMAT", value_enum, default_value = "text")]
    format: ReportFormat,
    #[command(flatten)]
    allowed: AllowedCidrs,
    /// Config files, manifests with ConfigMaps, folders of these, or `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Validate {
    /// Validates every config. The exit status is 78 if one is bad, and 1 if one can't be read now.
    pub(super) fn execute(self) -> Result<ExitCode, Reported> {
        let console = Console::Stderr;
        if self.files.iter().filter(|file| file.as_os_str() == "-").count() > 1 {
            return Err(console.fail(&anyhow!("standard input can be read once; write `-` once")));
        }
        let options = console.config_options(&self.allowed);
        let mut report = Report::new(self.format);
        let mut status = ExitCode::SUCCESS;
        for path in &self.files {
            let before = report.configs();
            for file in expand(path) {
                if let Err(Reported(failed)) = self.validate(&file, &options, &mut report) {
                    status = failed;
                }
            }
            if report.configs() == before && status == ExitCode::SUCCESS {
                let message = "has no config; give a folder with a config, or with a ConfigMap \
                               that has one under the key `config.yaml`";
                let empty = ConfigPath { path: path.clone(), choice: Err(message.into()) };
                self.validate(&empty, &options, &mut report)?;
            }
        }
        report.end()?;
        if report.errors() > 0 {
            return Ok(ExitCode::from(BAD_CONFIG));
        }
        if self.deny_warnings && report.warnings() > 0 {
            log::print(&format!(
                "external-endpoints: --deny-warnings rejects what has warnings: {}\n",
                report.warnings()
            ));
            return Ok(ExitCode::from(BAD_CONFIG));
        }
        Ok(status)
    }

    /// Validates the configs of one file, and adds them to the report.
    fn validate(
        &self,
        ConfigPath { path, choice }: &ConfigPath,
        options: &config::Options,
        report: &mut Report,
    ) -> Result<(), Reported> {
        let content = match choice {
            Ok(_) => config::read_file(&read_path(path)),
            Err(error) => Err(ReadError::Invalid(error.clone())),
        };
        if let Err(ReadError::Exhausted(error)) = content {
            return Err(Console::Stderr.fail(&anyhow!("{}: {error}", path.display())));
        }
        let choice = choice.clone().unwrap_or(Choice::Named);
        for found in config::parse_all(path, content, options, choice) {
            if self.explain
                && let Ok(loaded) = &found.loaded
            {
                Console::Stderr.report_warnings(&loaded.warnings);
                report.count(&found);
                print_exactly(&config::explain(&loaded.spec))?;
            } else {
                report.add(path, &found)?;
            }
        }
        Ok(())
    }
}

/// Returns the path that is opened for a path of the command line.
fn read_path(path: &Path) -> PathBuf {
    if path.as_os_str() == "-" { "/dev/stdin".into() } else { path.to_owned() }
}
