//! Checks the import order of the modules, and that the pure ones stay pure.

use std::fs;
use std::path::{Path, PathBuf};

/// Each module may use only those before it.
const ORDER: [&str; 24] = [
    "clock",
    "log",
    "health",
    "freeze",
    "plan",
    "annotations",
    "endpoints",
    "config",
    "notice",
    "limits",
    "api",
    "kubeconfig",
    "lease",
    "probe",
    "schedule",
    "monitor",
    "publish",
    "event",
    "reload",
    "metrics",
    "admin",
    "init",
    "run",
    "cli",
];

/// What a pure module must not name.
const IMPURE: [&str; 5] = ["tokio", "k8s_openapi", "kube::", "clock::", "std::fs"];
const PURE: [&str; 5] = ["health", "freeze", "plan", "annotations", "schedule"];

/// Only these name Kubernetes' types.
const KUBERNETES: [&str; 8] =
    ["endpoints", "api", "kubeconfig", "lease", "publish", "event", "run", "cli"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// A module's files: `src/NAME.rs` and all below `src/NAME/`.
fn files(module: &str) -> Vec<PathBuf> {
    let mut files = vec![source().join(format!("{module}.rs"))];
    let mut folders = vec![source().join(module)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        let paths = entries.map(|entry| entry.expect("a readable folder").path());
        let (inner, found): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
        folders.extend(inner);
        files.extend(found);
    }
    files
}

/// The code of a file, without comments.
fn code(file: &Path) -> String {
    let text =
        fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The crate's modules that a piece of code names: after `crate::`, alone or in braces.
fn uses(code: &str) -> Vec<String> {
    let name = |text: &str| {
        text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
    };
    let mut used = Vec::new();
    for (at, found) in code.match_indices("crate::") {
        let rest = &code[at + found.len()..];
        match rest.strip_prefix('{') {
            None => used.push(name(rest)),
            Some(list) => {
                let mut depth = 1;
                let list: String = list
                    .chars()
                    .take_while(|c| {
                        depth += match c {
                            '{' => 1,
                            '}' => -1,
                            _ => 0,
                        };
                        depth > 0
                    })
                    .collect();
                used.extend(list.split(',').map(name));
            }
        }
    }
    used.retain(|used| ORDER.contains(&used.as_str()));
    used
}

#[test]
fn the_order_lists_every_module() {
    let mut there: Vec<String> = fs::read_dir(source())
        .expect("src")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .filter(|name| name != "lib" && name != "main")
        .collect();
    there.sort();
    let mut listed = ORDER.map(str::to_owned).to_vec();
    listed.sort();
    assert_eq!(there, listed);
}

#[test]
fn each_module_uses_only_those_before_it() {
    let mut found = 0;
    for (place, module) in ORDER.iter().enumerate() {
        for file in files(module) {
            for used in uses(&code(&file)) {
                found += 1;
                let theirs = ORDER.iter().position(|other| *other == used).expect("it is listed");
                assert!(
                    theirs <= place,
                    "{} uses {used}, which comes after {module}",
                    file.display()
                );
            }
        }
    }
    assert!(found > 20, "found only {found} uses: the test no longer reads the code");
}

#[test]
fn the_pure_modules_name_no_clock_no_runtime_and_no_cluster() {
    for module in PURE {
        for file in files(module) {
            for impure in IMPURE {
                assert!(!code(&file).contains(impure), "{} names {impure}", file.display());
            }
        }
    }
}

#[test]
fn only_a_few_modules_name_kubernetes() {
    for module in ORDER.iter().filter(|module| !KUBERNETES.contains(module)) {
        for file in files(module) {
            for name in ["k8s_openapi", "kube::"] {
                assert!(!code(&file).contains(name), "{} names {name}", file.display());
            }
        }
    }
}

#[test]
fn the_reader_of_this_test_sees_a_use_that_breaks_the_order() {
    assert_eq!(uses("use crate::publish::Kind;\nlet x = crate::run::y();"), ["publish", "run"]);
    assert_eq!(
        uses("use crate::{admin, monitor::{self, plan}, cli};"),
        ["admin", "monitor", "plan", "cli"]
    );
}
