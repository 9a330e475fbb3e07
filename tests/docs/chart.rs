//! The README of the Helm chart, whose table of values is made of the comments in values.yaml.

use std::fs;

use serde_json::Value;

use super::pages::root;
use super::reference::assert_generated;

const VALUES: &str = "deploy/chart/values.yaml";
const README: &str = "deploy/chart/README.md";

/// The heading under which everything is generated.
const HEADING: &str = "## Values\n";

/// One value with its comment.
#[derive(Debug, PartialEq)]
struct Entry {
    section: String,
    path: Vec<String>,
    comment: String,
}

/// Reads the entries: each key under a comment that begins with `--`. Keys below such a key are
/// part of its default.
fn entries(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let (mut section, mut comment) = (String::new(), None::<String>);
    let mut path: Vec<(usize, String)> = Vec::new();
    // The indentation of the key whose default is being read.
    let mut inside: Option<usize> = None;
    for (number, line) in text.lines().enumerate() {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        let is_deeper = |key: usize| indent > key || (indent == key && content.starts_with('-'));
        if content.is_empty() || inside.is_some_and(is_deeper) {
            continue;
        }
        inside = None;
        if let Some(words) = content.strip_prefix("# ---- ") {
            section = words.trim_end_matches(" ----").to_owned();
        } else if let Some(words) = content.strip_prefix("# -- ") {
            comment = Some(words.to_owned());
        } else if let Some(words) = content.strip_prefix("# ") {
            if let Some(comment) = &mut comment {
                *comment += &format!(" {words}");
            }
        } else {
            let (key, value) = content.split_once(':').expect("a key");
            path.retain(|(outer, _)| *outer < indent);
            path.push((indent, key.to_owned()));
            match comment.take() {
                Some(comment) => {
                    let path = path.iter().map(|(_, key)| key.clone()).collect();
                    entries.push(Entry { section: section.clone(), path, comment });
                    inside = Some(indent);
                }
                None => assert_eq!(value, "", "{VALUES}:{}: `{key}` has no comment", number + 1),
            }
        }
    }
    entries
}

/// Returns the table of each section.
fn tables() -> String {
    let text = fs::read_to_string(root().join(VALUES)).expect("the chart's values");
    let values: Value = serde_saphyr::from_str(&text).expect("YAML");
    let mut tables = String::new();
    let mut section = String::new();
    for entry in entries(&text) {
        if entry.section != section {
            section = entry.section;
            tables += &format!("\n### {section}\n\n| Value | Default | Meaning |\n");
            tables += "| --- | --- | --- |\n";
        }
        let value = entry.path.iter().fold(&values, |value, key| &value[key]);
        let cell = |text: String| text.replace('|', "\\|");
        tables += &format!(
            "| `{}` | `{}` | {}. |\n",
            entry.path.join("."),
            cell(value.to_string()),
            cell(entry.comment)
        );
    }
    tables
}

#[test]
fn the_charts_readme_lists_all_values() {
    let readme = fs::read_to_string(root().join(README)).expect("the chart's README");
    let (written, _) = readme.split_once(HEADING).expect("the heading of the values");
    let marker = "<!-- Generated: do not edit, but run `UPDATE_DOCS=1 cargo test --test docs`. -->";
    let expected = format!("{written}{HEADING}\n{marker}\n{}", tables());
    assert_generated(README, &expected);
}

#[test]
fn keys_below_a_commented_key_are_its_default() {
    let text = "# ---- One ----\na:\n  # -- First,\n  # and more\n  b:\n    c: 1\n  # -- \
                Second\n  d: []\n# -- Third\ne:\n- f: 1\n";
    let found: Vec<_> =
        entries(text).into_iter().map(|entry| (entry.path.join("."), entry.comment)).collect();
    let expected = [("a.b", "First, and more"), ("a.d", "Second"), ("e", "Third")];
    assert_eq!(found, expected.map(|(path, words)| (path.to_owned(), words.to_owned())));
}
