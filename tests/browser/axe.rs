//! axe-core, which finds what keeps people from reading a page. npm fetches the version whose hash
//! is in package-lock.json.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::chromium::Chromium;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/browser")
}

/// Returns the folder of the pictures.
pub(crate) fn pictures() -> PathBuf {
    let folder = folder().join("pictures");
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Installs axe-core, unless it is there in the version of the lock file. Returns what to do if
/// that is not possible.
pub(crate) fn install() -> Result<(), String> {
    let (source, folder) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser"), folder());
    let lock = fs::read(source.join("package-lock.json")).expect("a lock file");
    let is_installed = fs::read(folder.join("installed")).is_ok_and(|installed| installed == lock);
    if is_installed {
        return Ok(());
    }
    fs::create_dir_all(&folder).expect("a folder");
    for file in ["package.json", "package-lock.json"] {
        fs::copy(source.join(file), folder.join(file)).expect("a copy");
    }
    let output = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(&folder)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("npm does not run ({error}); apt-get install npm"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("npm cannot fetch axe-core: {errors}"));
    }
    fs::write(folder.join("installed"), lock).expect("a file");
    Ok(())
}

/// Asserts that axe-core finds nothing on the page that is shown.
pub(crate) fn assert_accessible(browser: &mut Chromium, what: &str) {
    let script = folder().join("node_modules/axe-core/axe.min.js");
    let script = fs::read_to_string(script).expect("axe-core is installed");
    browser.evaluate(&(script + ";0"));
    let tags = "['wcag2a','wcag2aa','wcag21a','wcag21aa','wcag22aa','best-practice']";
    let run = format!("axe.run(document, {{runOnly: {{type: 'tag', values: {tags}}}}})");
    let results = browser.evaluate(&format!(
        "{run}.then(results => ({{passes: results.passes.length, problems: \
         results.violations.concat(results.incomplete).flatMap(rule => rule.nodes.map(node => \
         rule.id + ': ' + node.html + ' ' + node.failureSummary))}}))"
    ));
    assert!(results["passes"].as_u64() > Some(10), "{what}: {results}");
    let problems: Vec<&str> =
        results["problems"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert!(problems.is_empty(), "{what}: {}", problems.join("\n"));
}
