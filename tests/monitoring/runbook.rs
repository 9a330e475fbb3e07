//! The runbooks: their commands, run as a person runs them, in the order of the page.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::monitoring::scene::TIMEOUT;
use crate::support::daemon::PROGRAM;
use crate::support::{binaries, blocking, eventually, shared};

/// The longest time that a command may take.
const COMMAND_SECONDS: &str = "30";

/// Commands that exit with 1 when they find something that needs a person.
const FINDERS: [&str; 3] =
    ["external-endpoints status", "external-endpoints probe", "external-endpoints check"];

/// Runs all commands of a page in a folder. Returns what they print.
pub(crate) async fn run(alert: &str, folder: &Path) -> String {
    let mut printed = String::new();
    for line in commands(alert) {
        // A busy API server may not answer in the time that a command gives it.
        let what = format!("{alert}: {line}");
        let said = eventually(TIMEOUT, &what, async || run_line(&line, folder).await).await;
        printed += &format!("$ {line}\n{said}\n");
    }
    printed
}

async fn run_line(line: &str, folder: &Path) -> Result<String, String> {
    let mut command = Command::new("timeout");
    let folders = [Path::new(PROGRAM).parent(), binaries::kubernetes("kubectl").parent()]
        .map(|folder| folder.expect("a folder").display().to_string());
    let path = std::env::var("PATH").expect("a PATH");
    command
        .args([COMMAND_SECONDS, "sh", "-c", line])
        .current_dir(folder)
        .env("KUBECONFIG", shared().kubeconfig())
        .env("PATH", format!("{}:{path}", folders.join(":")));
    let output = blocking(move || command.output().expect("timeout runs")).await;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let finds = FINDERS.iter().any(|finder| line.starts_with(finder));
    match output.status.code() {
        Some(0) => Ok(said),
        Some(1) if finds => Ok(said),
        _ => Err(format!("{}\n{said}", output.status)),
    }
}

/// Returns the commands of the `console` blocks of a page.
fn commands(alert: &str) -> Vec<String> {
    let path = format!("{}/docs/runbooks/{alert}.md", env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let blocks = page.split("```console\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap_or_default());
    let lines: Vec<String> = blocks.flat_map(str::lines).map(str::to_owned).collect();
    assert!(!lines.is_empty(), "{path} has no command");
    lines
}
