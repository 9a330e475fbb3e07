//! The log: one line an event on standard error, for people or as JSON.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people; in colour on a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

/// What is logged unless RUST_LOG says otherwise. What the client logs, conditions say in words, and once.
const FILTER: &str = "info,kube=off,kube_client=off,kube_runtime=off,tower=off,hyper=off";

/// Starts the log. Later calls change nothing.
pub fn start(format: Format) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A log that is there already is the one to keep.
    let _ = match format {
        Format::Human => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
}
