//! The alerting rules: promtool's unit tests of each, on made-up series. `make monitoring` makes
//! each alert fire and resolve on real ones.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const RULES: &str = "deploy/chart/files/alerts.yaml";
const TESTS: &str = "tests/alerts";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rules() -> Vec<Value> {
    let file: Value = serde_saphyr::from_str(&read(RULES)).expect("YAML");
    let groups = file["groups"].as_array().expect("groups");
    assert_eq!(groups.len(), 1, "the chart takes the rules of the first group");
    groups[0]["rules"].as_array().expect("rules").clone()
}

fn text<'a>(rule: &'a Value, pointer: &str) -> &'a str {
    rule.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer} of {rule}"))
}

fn promtool(arguments: &[&str], files: &[PathBuf]) {
    let mut command = Command::new("promtool");
    let output = command.args(arguments).args(files).output();
    let output = output.expect("promtool, from Debian's package prometheus");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn promtool_accepts_the_rules() {
    promtool(&["check", "rules"], &[root().join(RULES)]);
}

#[test]
fn each_alert_fires_and_resolves_in_its_unit_tests() {
    let files = rules().into_iter().map(|rule| {
        let name = text(&rule, "/alert").to_owned();
        let file = format!("{TESTS}/{name}.yaml");
        let tests = read(&file);
        let firing = format!("count(ALERTS{{alertname=\"{name}\",alertstate=\"firing\"}})");
        let after =
            |expected: &str| tests.contains(&format!("{firing}\n    exp_samples: {expected}"));
        assert!(after("[{labels: '{}', value: 1}]"), "{file}: it never fires");
        assert!(after("[]"), "{file}: it never resolves");
        let quiet = format!("count_over_time(ALERTS{{alertname=\"{name}\"");
        assert!(tests.contains(&quiet), "{file}: it fires in all of the tests");
        assert!(tests.contains("exp_annotations:"), "{file}: its words are not tested");
        root().join(file)
    });
    promtool(&["test", "rules"], &files.collect::<Vec<_>>());
}

#[test]
fn each_unit_test_is_that_of_an_alert() {
    let names = rules().into_iter().map(|rule| text(&rule, "/alert").to_owned());
    let files = fs::read_dir(root().join(TESTS)).expect("a folder").flatten();
    let files =
        files.map(|file| file.path().file_stem().expect("a name").to_string_lossy().into_owned());
    assert_eq!(files.collect::<BTreeSet<_>>(), names.collect());
}

#[test]
fn each_alert_says_how_urgent_it_is_and_where_its_runbook_is() {
    for rule in rules() {
        let name = text(&rule, "/alert");
        assert!(["critical", "warning"].contains(&text(&rule, "/labels/severity")), "{name}");
        assert!(text(&rule, "/for").ends_with('m'), "{name}: `for` is in minutes");
        let page = format!("docs/runbooks/{name}.md");
        let url = format!("{}/blob/main/{page}", env!("CARGO_PKG_REPOSITORY"));
        assert_eq!(text(&rule, "/annotations/runbook_url"), url);
        assert!(read(&page).starts_with(&format!("# {name}\n")), "{page}");
    }
}
