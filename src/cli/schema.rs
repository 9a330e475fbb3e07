//! `schema`: prints the config's JSON Schema.

use std::process::ExitCode;

use super::console::{Console, Reported, print_exactly};
use crate::config;

/// Prints the schema on standard output.
pub(super) fn execute() -> Result<ExitCode, Reported> {
    let schema = serde_json::to_string_pretty(&config::schema())
        .map_err(|error| Console::Stderr.fail(&error.into()))?;
    print_exactly(&format!("{schema}\n"))?;
    Ok(ExitCode::SUCCESS)
}
