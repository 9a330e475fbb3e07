//! Facts that are read from the text of the source, where the library does not export them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::pages::{Depth, files, root};

/// Returns all source files that are not tests, with their text up to their inline tests.
fn sources() -> Vec<(PathBuf, String)> {
    let paths = files(Path::new("src"), "rs", Depth::Tree);
    let code = paths.into_iter().filter(|path| !path.to_string_lossy().contains("tests"));
    code.map(|path| {
        let text = fs::read_to_string(root().join(&path)).expect("a source file");
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        (path, code.to_owned())
    })
    .collect()
}

/// Returns the string literals of the source that begin with this prefix and hold only such names.
fn literals(prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, code) in sources() {
        for literal in code.split(&format!("\"{prefix}")).skip(1) {
            let Some((rest, _)) = literal.split_once('"') else { continue };
            let is_name = |c: char| c.is_ascii_lowercase() || matches!(c, '_' | '-');
            if !rest.is_empty() && rest.chars().all(is_name) {
                found.insert(format!("{prefix}{rest}"));
            }
        }
    }
    found
}

pub(crate) fn metrics() -> BTreeSet<String> {
    literals("external_endpoints_")
}

pub(crate) fn annotations() -> BTreeSet<String> {
    literals("external-endpoints/")
}

/// Returns the labels and annotations of Kubernetes that the source names.
pub(crate) fn kubernetes_names() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, code) in sources() {
        for literal in code.split('"').skip(1) {
            let domain = literal.split_once('/').map_or("", |(domain, _)| domain);
            let is_name = |c: char| c.is_ascii_lowercase() || matches!(c, '.' | '-' | '/');
            if domain.ends_with("kubernetes.io") && literal.chars().all(is_name) {
                found.insert(literal.to_owned());
            }
        }
    }
    found
}

/// Returns the JSON fields of the status API.
pub(crate) fn status_fields() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (path, code) in sources() {
        if !path.starts_with("src/status.rs") && !path.starts_with("src/status") {
            continue;
        }
        for item in code.split("Serialize, Deserialize)]\n").skip(1) {
            let body = item.split_once(" {\n").map_or("", |(_, body)| body);
            let body = body.split("\n}").next().unwrap_or_default();
            let (mut renamed, mut is_flat) = (None, false);
            for line in body.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
                if line == "#[serde(flatten)]" {
                    is_flat = true;
                } else if line.starts_with('#') {
                    renamed =
                        line.split("rename = \"").nth(1).and_then(|rest| rest.split('"').next());
                } else if std::mem::take(&mut is_flat) {
                    continue;
                } else if let Some((name, _)) = line.split_once(": ") {
                    found.insert(renamed.take().map_or_else(|| camel_case(name), str::to_owned));
                }
            }
        }
    }
    assert!(found.len() > 20, "{found:?}");
    found
}

fn camel_case(name: &str) -> String {
    let name = name.trim_start_matches("pub ");
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(1);
        camel += &first.to_uppercase();
        camel += rest;
    }
    camel
}

/// Returns whether a file below `tests/` or `src/` whose path names the module has this test.
pub(crate) fn has_test(module: &str, test: &str) -> bool {
    let folders = ["tests", "src"].into_iter();
    let mut paths = folders.flat_map(|folder| files(Path::new(folder), "rs", Depth::Tree));
    paths.any(|path| {
        let named = path.with_extension("").iter().any(|part| part == module);
        let function = format!("fn {test}(");
        named && fs::read_to_string(root().join(&path)).expect("a file").contains(&function)
    })
}
