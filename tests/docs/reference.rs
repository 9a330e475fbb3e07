//! The reference lists all that the code has, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use external_endpoints::config;
use external_endpoints::notice::{Reason, Severity};
use external_endpoints::publish::ConditionKind;
use serde_json::Value;

use super::pages::{Page, names, page, pages, root};
use super::{commands, source};

/// Returns the names in the first cell of each row of these tables.
fn first_names(page: &Page, heads: &[&str]) -> BTreeSet<String> {
    page.table(heads).iter().flat_map(|row| names(&row[0])).collect()
}

/// Compares a generated page, or writes it when `UPDATE_DOCS` is set.
pub(crate) fn assert_generated(path: &str, expected: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root().join(path), expected).expect("a page that can be written");
    }
    assert!(
        page(path).text == expected,
        "{path} is out of date; run `UPDATE_DOCS=1 cargo test --test docs`"
    );
}

#[test]
fn the_command_line_page_is_what_help_prints() {
    let mut text = "# Command line\n\nThis page is generated from `--help`.\n".to_owned();
    for (command, help) in commands::help() {
        let heading = if command.is_empty() { "external-endpoints".into() } else { command };
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        text += &format!("\n## {heading}\n\n```text\n{}\n```\n", help.join("\n"));
    }
    text += &fs::read_to_string(root().join("tests/docs/cli-notes.md")).expect("the notes");
    assert_generated("docs/reference/cli.md", &text);
}

#[test]
fn every_key_of_the_config_is_there() {
    let mut keys = BTreeSet::new();
    collect_keys(&config::schema(), &mut keys);
    assert!(keys.len() > 30, "{keys:?}");
    let quoted = page("docs/reference/config.md").quoted().join(" ");
    let words: BTreeSet<&str> =
        quoted.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).collect();
    let missing: Vec<_> = keys.iter().filter(|key| !words.contains(key.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn collect_keys(schema: &Value, keys: &mut BTreeSet<String>) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        keys.extend(properties.keys().cloned());
    }
    match schema {
        Value::Object(map) => map.values().for_each(|value| collect_keys(value, keys)),
        Value::Array(list) => list.iter().for_each(|value| collect_keys(value, keys)),
        _ => {}
    }
}

#[test]
fn the_table_of_conditions_is_complete() {
    let mut listed = BTreeMap::new();
    for row in page("docs/reference/conditions.md").table(&["condition", "meaning", "Event"]) {
        listed.insert(names(&row[0])[0].clone(), row[2].starts_with("yes"));
    }
    let is_event =
        |kind: &ConditionKind| kind.is_trouble() && *kind != ConditionKind::ApiUnavailable;
    let kinds = ConditionKind::ALL.iter().map(|kind| (kind.to_string(), is_event(kind)));
    assert_eq!(listed, kinds.collect());
}

#[test]
fn troubleshooting_has_a_section_for_each_condition() {
    let page = page("docs/operations/troubleshooting.md");
    let headings: BTreeSet<&str> =
        page.prose().iter().filter_map(|line| line.strip_prefix("## ")).collect();
    for kind in ConditionKind::ALL {
        assert!(headings.contains(kind.to_string().as_str()), "{kind}");
    }
}

#[test]
fn the_table_of_events_is_complete() {
    let mut listed = BTreeMap::new();
    for row in page("docs/reference/events.md").table(&["reason", "type", "when"]) {
        listed.insert(names(&row[0])[0].clone(), row[1].clone());
    }
    let of_condition =
        |reason: &&Reason| ConditionKind::ALL.iter().any(|kind| is_trouble(kind, reason));
    let mut reasons = BTreeMap::new();
    for reason in Reason::ALL.iter().filter(|reason| !of_condition(reason)) {
        let kind = if reason.severity() == Severity::Info { "Normal" } else { "Warning" };
        reasons.insert(reason.to_string(), kind.to_owned());
    }
    assert_eq!(listed, reasons);
}

/// Returns whether this is the reason of a condition that a person should look at.
fn is_trouble(kind: &ConditionKind, reason: &Reason) -> bool {
    kind.is_trouble() && kind.to_string() == reason.to_string()
}

#[test]
fn the_tables_of_metrics_are_complete() {
    let metrics = source::metrics();
    assert!(metrics.len() > 20, "{metrics:?}");
    let heads = ["metric", "type", "labels", "meaning"];
    assert_eq!(first_names(&page("docs/reference/metrics.md"), &heads), metrics);
    for page in pages() {
        for word in page.text.split(|c: char| !(c.is_ascii_lowercase() || c == '_')) {
            let is_metric = word.starts_with("external_endpoints_");
            assert!(
                !is_metric || metrics.contains(word),
                "{}: there is no metric {word}",
                page.path.display()
            );
        }
    }
}

#[test]
fn the_tables_of_annotations_are_complete() {
    let page = page("docs/reference/annotations.md");
    let mut listed = first_names(&page, &["annotation", "value", "effect"]);
    listed.extend(first_names(&page, &["annotation", "on", "meaning"]));
    assert_eq!(listed, source::annotations());
    let labels = page.table(&["label", "on"]).into_iter().chain(page.table(&["name", "effect"]));
    let labels = labels.flat_map(|row| names(&row[0]));
    let mut labels: BTreeSet<String> =
        labels.map(|label| label.split(':').next().unwrap_or_default().to_owned()).collect();
    labels.retain(|label| label.contains('/'));
    assert_eq!(labels, source::kubernetes_names());
}

#[test]
fn the_tables_of_the_status_api_are_complete() {
    let page = page("docs/reference/status-api.md");
    assert_eq!(first_names(&page, &["field", "meaning"]), source::status_fields());
}

/// A rule of a Role: its API group, its resource, whether it is limited by name, and its verbs.
type Rule = (String, String, bool, Vec<String>);

#[test]
fn the_tables_of_rights_are_those_of_the_manifests() {
    let rights = page("docs/reference/rights.md");
    let heads = ["API group", "resource", "names", "verbs"];
    let row_rule = |row: Vec<String>| -> Rule {
        let group = names(&row[0]).pop().unwrap_or_default();
        (group, names(&row[1]).remove(0), !row[2].is_empty(), names(&row[3]))
    };
    let sections = rights.text.split("\n## ").map(|text| text.to_owned());
    let mut shipped = 0;
    for section in sections.filter(|section| section.contains("| API group |")) {
        let file = section.split("](../../").nth(1).and_then(|rest| rest.split(')').next());
        let file = file.expect("a link to the manifest").to_owned();
        let yaml = fs::read_to_string(root().join(&file)).expect("a manifest");
        let role = yaml.split("---\n").next().expect("a Role");
        let role: Value = serde_saphyr::from_str(role).expect("YAML");
        let section = Page { path: rights.path.clone(), text: section };
        let listed: BTreeSet<Rule> = section.table(&heads).into_iter().map(row_rule).collect();
        let rules = role["rules"].as_array().expect("rules");
        let rules: BTreeSet<Rule> = rules.iter().flat_map(manifest_rules).collect();
        assert_eq!(listed, rules, "{file}");
        shipped += 1;
    }
    assert_eq!(shipped, 4);
}

fn manifest_rules(rule: &Value) -> Vec<Rule> {
    let texts = |key: &str| -> Vec<String> {
        let list = rule[key].as_array().into_iter().flatten();
        list.map(|text| text.as_str().expect("a text").to_owned()).collect()
    };
    let is_named = !texts("resourceNames").is_empty();
    let group = texts("apiGroups").concat();
    let rules = texts("resources").into_iter();
    rules.map(|resource| (group.clone(), resource, is_named, texts("verbs"))).collect()
}

#[test]
fn every_test_behind_a_promise_exists() {
    let page = page("docs/safety/promises.md");
    let mut tests = 0;
    for row in page.table(&["promise", "test"]) {
        for name in names(&row[1]) {
            match name.split_once("::") {
                Some((module, test)) => assert!(source::has_test(module, test), "{name}"),
                None if name.ends_with(".rs") => assert!(root().join(&name).exists(), "{name}"),
                None => {
                    let words: Vec<&str> = name.split(' ').collect();
                    let ["cargo", "test", "--test", test, module] = words[..] else {
                        panic!("{name} names no test")
                    };
                    let file = root().join("tests").join(test).join(module);
                    assert!(file.with_extension("rs").exists(), "{name}");
                }
            }
            tests += 1;
        }
    }
    assert!(tests > 20, "{tests}");
}

#[test]
fn the_code_map_is_the_table_of_modules_of_the_crate() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | "));
    let in_crate: Vec<(String, String)> = rows
        .filter_map(|row| row.trim_end_matches(" |").split_once(" | "))
        .filter(|(name, _)| name.contains('`'))
        .map(|(name, content)| (names(name).remove(0), content.to_owned()))
        .collect();
    let map = page("docs/contributing/architecture.md").table(&["module", "content"]);
    let in_map: Vec<(String, String)> = map
        .into_iter()
        .map(|row| (row[0].split(['[', ']']).nth(1).expect("a link").to_owned(), row[1].clone()))
        .collect();
    assert_eq!(in_map, in_crate);
}
