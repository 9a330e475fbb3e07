//! Every command in a `console` block is one that works: those of the daemon run against a
//! temporary config, those of other tools are checked by their words.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::pages::{pages, root};
use super::source;

const CONFIG: &str = "databases: [{service: mysql, namespace: prod, port: 3306, \
                      addresses: [192.0.2.1], check: {tcp: {}}}]\n";

const KUBECTL_VERBS: [&str; 9] =
    ["annotate", "apply", "delete", "describe", "get", "logs", "patch", "port-forward", "rollout"];

const KUBECTL_RESOURCES: [&str; 10] = [
    "configmap",
    "deployment",
    "endpoints",
    "endpointslices",
    "events",
    "lease",
    "pod",
    "pods",
    "service",
    "services",
];

/// One command with its place.
struct Line {
    place: String,
    words: Vec<String>,
}

/// Returns the commands of all pages; `\` at the end of a line continues it.
fn commands() -> Vec<Line> {
    let mut found = Vec::new();
    for block in pages().into_iter().flat_map(|page| page.blocks()) {
        if block.info != "console" {
            continue;
        }
        for line in block.text.replace("\\\n", " ").lines() {
            let words = words(line, &block.place);
            if !words.is_empty() {
                found.push(Line { place: format!("{}: {line}", block.place), words });
            }
        }
    }
    assert!(found.len() > 20);
    found
}

/// Splits a line as a shell does. Only quotes and comments have a meaning.
fn words(line: &str, place: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut quote = None;
    let mut is_open = false;
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => words.last_mut().expect("an open word").push(c),
            None if c.is_whitespace() => is_open = false,
            None if c == '#' && !is_open => return words,
            None => {
                assert!(!"|&;<>$`*?".contains(c), "{place}: `{c}` in {line}");
                if !std::mem::replace(&mut is_open, true) {
                    words.push(String::new());
                }
                match c {
                    '"' | '\'' => quote = Some(c),
                    c => words.last_mut().expect("an open word").push(c),
                }
            }
        }
    }
    assert!(quote.is_none(), "{place}: a quote does not end: {line}");
    words
}

#[test]
fn every_command_works() {
    for Line { place, words } in commands() {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            ["external-endpoints", ..] => run_daemon(&words[1..], &place),
            ["make", ..] => check_make(&words[1..], &place),
            ["cargo", ..] => check_cargo(&words[1..], &place),
            ["kubectl", ..] => check_kubectl(&words[1..], &place),
            ["helm", "install" | "upgrade" | "uninstall", ..] => check_helm(&words[1..], &place),
            ["docker", "build" | "push", ..] => {}
            ["curl", url] => check_page(url, &place),
            ["UPDATE_DOCS=1", "cargo", "test", "--test", "docs"] => {}
            _ => panic!("{place}: unknown command"),
        }
        for pair in words.windows(2).filter(|pair| matches!(pair[0], "-f" | "-k")) {
            assert!(root().join(pair[1]).exists(), "{place}: there is no {}", pair[1]);
        }
    }
}

#[test]
fn ci_runs_the_commands_of_the_readme() {
    let ci = fs::read_to_string(root().join(".ci/run")).expect(".ci/run");
    let readme = commands().into_iter().filter(|line| line.place.starts_with("README.md"));
    let make: Vec<String> =
        readme.map(|line| line.words.join(" ")).filter(|line| line.starts_with("make ")).collect();
    assert!(make.contains(&"make test".to_owned()), "{make:?}");
    for command in make {
        assert!(ci.lines().any(|line| line == command), "{command}");
    }
}

/// Checks the keys of `--set` against the values of the chart.
fn check_helm(words: &[&str], place: &str) {
    let values = fs::read_to_string(root().join("deploy/chart/values.yaml")).expect("the values");
    let values: Value = serde_saphyr::from_str(&values).expect("YAML");
    for pair in words.windows(2).filter(|pair| pair[0].starts_with("--set")) {
        let (key, _) = pair[1].split_once('=').unwrap_or_else(|| panic!("{place}: {}", pair[1]));
        let pointer = format!("/{}", key.replace('.', "/"));
        assert!(values.pointer(&pointer).is_some(), "{place}: the chart has no value {key}");
    }
}

/// Runs the daemon. A command that would check or write gets a bad config: it then exits with 78,
/// and not with 2, once its whole command line has been accepted.
fn run_daemon(words: &[&str], place: &str) {
    let folder = TempDir::new().expect("a temporary folder");
    let (config, expected) = match words[0] {
        "run" | "probe" | "diff" => ("databases: 1\n", 78),
        "check" | "explain" | "failback" | "import" | "maintenance" | "status" => (CONFIG, 1),
        "rbac" if words.contains(&"--check") => (CONFIG, 1),
        _ => (CONFIG, 0),
    };
    for file in words.iter().filter(|word| word.ends_with(".yaml")) {
        fs::write(folder.path().join(file), config).expect("a file");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_external-endpoints"))
        .current_dir(folder.path())
        .env("KUBECONFIG", folder.path().join("no-kubeconfig"))
        .args(words)
        .output()
        .expect("the program runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(expected), "{place}: {errors}");
}

fn makefile() -> String {
    fs::read_to_string(root().join("Makefile")).expect("Makefile")
}

fn check_make(words: &[&str], place: &str) {
    let makefile = makefile();
    for word in words {
        let exists = match word.split_once('=') {
            Some((variable, _)) => {
                makefile.contains(&format!("({variable})"))
                    || makefile.contains(&format!("{variable} ?="))
            }
            None => makefile.contains(&format!("\n{word}: ")),
        };
        assert!(exists, "{place}: the Makefile has no {word}");
    }
}

/// Checks the test or the folder that cargo is told.
fn check_cargo(words: &[&str], place: &str) {
    let named = |flag: &str| {
        words.iter().position(|word| *word == flag).and_then(|at| words.get(at + 1)).copied()
    };
    match words[0] {
        "test" => {}
        "run" => {
            let manifest = named("--manifest-path").unwrap_or("Cargo.toml");
            assert!(root().join(manifest).exists(), "{place}: there is no {manifest}");
            return;
        }
        other => panic!("{place}: cargo {other} is unknown"),
    }
    let test = named("--test");
    if let Some(test) = test {
        let file = root().join("tests").join(test).with_extension("rs");
        assert!(file.exists(), "{place}: there is no {}", file.display());
    }
    for filter in words.iter().filter(|word| !word.starts_with('-') && **word != "test") {
        let (module, name) = filter.split_once("::").unwrap_or((filter, ""));
        let exists = match (test, name) {
            (Some(test), _) if *filter == test => true,
            (None, "") => root().join("src").join(module).with_extension("rs").exists(),
            (Some(test), "") => {
                root().join("tests").join(test).join(module).with_extension("rs").exists()
            }
            (_, name) => source::has_test(module, name),
        };
        assert!(exists, "{place}: there is no test {filter}");
    }
}

fn check_kubectl(words: &[&str], place: &str) {
    let mut plain = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match *word {
            "-n" | "-l" | "-o" | "-f" | "-k" | "-p" | "--field-manager" => {
                assert!(rest.next().is_some(), "{place}: {word} takes a value");
            }
            "--prefix" | "--tail=100" if words[1..].contains(&"logs") => {}
            "--type=merge" if words.contains(&"patch") => {}
            word => {
                assert!(!word.starts_with('-'), "{place}: {word} is unknown");
                plain.push(word);
            }
        }
    }
    let [verb, objects @ ..] = &plain[..] else { panic!("{place}: there is no verb") };
    assert!(KUBECTL_VERBS.contains(verb), "{place}: {verb} is unknown");
    match (*verb, objects) {
        ("apply", []) => {}
        ("logs", []) => {
            let selector = words.windows(2).find(|pair| pair[0] == "-l").expect(place)[1];
            let (label, value) = selector.split_once('=').expect(place);
            let deployment = fs::read_to_string(root().join("deploy/base/deployment.yaml"));
            let labelled =
                deployment.expect("the Deployment").contains(&format!("{label}: {value}"));
            assert!(labelled, "{place}: no Pod has the label {selector}");
        }
        ("logs" | "port-forward", [object, ..]) | ("rollout", [_, object, ..]) => {
            assert!(object.starts_with("deployment/"), "{place}: {object} is unknown");
        }
        (_, [kind, rest @ ..]) => {
            assert!(KUBECTL_RESOURCES.contains(kind), "{place}: {kind} is unknown");
            if *verb == "annotate" {
                let annotation = rest[1].split('=').next().unwrap_or_default();
                let name = annotation.trim_end_matches('-');
                assert!(source::annotations().contains(name), "{place}: {name} is unknown");
            }
        }
        _ => panic!("{place}: it names no object"),
    }
}

/// Checks that a URL is one of the daemon's pages.
fn check_page(url: &str, place: &str) {
    let page = url.strip_prefix("http://127.0.0.1:8080").expect(place);
    let page = page.split('?').next().unwrap_or_default();
    let routes = fs::read_to_string(root().join("src/admin.rs")).expect("src/admin.rs");
    assert!(routes.contains(&format!("route(\"{page}\"")), "{place}: there is no page {page}");
}

/// Returns the daemon's commands and those below them and, for each, its help.
pub(crate) fn help() -> Vec<(String, String)> {
    let mut pages = Vec::new();
    collect_help(String::new(), &mut pages);
    pages
}

fn collect_help(command: String, pages: &mut Vec<(String, String)>) {
    let program = env!("CARGO_BIN_EXE_external-endpoints");
    let output = Command::new(program).args(command.split_whitespace()).arg("--help").output();
    let text = String::from_utf8(output.expect("the program runs").stdout).expect("UTF-8");
    let list = text.split("Commands:").nth(1).and_then(|rest| rest.split("\n\n").next());
    let names = list.unwrap_or_default().lines();
    let names = names.filter_map(|line| line.split_whitespace().next());
    let names: Vec<String> = names.filter(|name| *name != "help").map(str::to_owned).collect();
    assert!(!command.is_empty() || !names.is_empty(), "no list of commands");
    pages.push((command.clone(), text));
    for name in names {
        collect_help(format!("{command} {name}").trim().to_owned(), pages);
    }
}

/// Tools whose flags are not checked.
const TOOLS: [&str; 4] = ["cargo", "docker", "helm", "kubectl"];

/// Checks flags that stand alone or with the daemon's name; those of other tools name their tool.
#[test]
fn every_flag_in_the_prose_exists() {
    let help: String = help().into_iter().map(|(_, text)| text).collect();
    let of_daemon: BTreeSet<&str> = help.split(|c: char| c.is_whitespace() || c == ',').collect();
    for page in pages().iter().filter(|page| !page.path.starts_with("benches")) {
        for quoted in page.quoted() {
            let mut words = quoted.split([' ', '=']);
            let is_other = words.clone().any(|word| TOOLS.contains(&word));
            let unknown = words.find(|word| word.starts_with("--") && !of_daemon.contains(word));
            assert!(
                is_other || unknown.is_none(),
                "{}: `{quoted}` has an unknown flag",
                page.path.display()
            );
        }
    }
}
