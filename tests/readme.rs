//! That the README says no less than there is: every key, condition, command and flag, with examples that are good and links that lead somewhere.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use external_endpoints::config::{self, Options};
use external_endpoints::publish::ConditionKind;
use serde_json::Value;

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).expect("README.md")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What stands in backticks in the README, taken apart into words.
fn words(readme: &str) -> BTreeSet<&str> {
    let quoted = readme.split('`').skip(1).step_by(2);
    quoted
        .flat_map(|quoted| quoted.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')))
        .collect()
}

/// The text of the README without its blocks of code, whose fences are backticks too.
fn prose(readme: &str) -> String {
    readme.split("```").step_by(2).collect()
}

#[test]
fn every_key_of_the_config_is_there() {
    let prose = prose(&readme());
    let words = words(&prose);
    let mut keys = BTreeSet::new();
    collect_keys(&config::schema(), &mut keys);
    assert!(keys.len() > 30, "{keys:?}");
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
fn the_table_of_conditions_is_whole() {
    let readme = readme();
    let table = readme
        .split("| condition | meaning |")
        .nth(1)
        .expect("the table")
        .split("\n\n")
        .next()
        .expect("its end");
    let named = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let named: BTreeSet<String> = named.map(str::to_owned).collect();
    assert_eq!(named, ConditionKind::ALL.iter().map(ToString::to_string).collect());
}

#[test]
fn every_command_and_flag_is_there() {
    let prose = prose(&readme());
    let words = words(&prose);
    let help = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_external-endpoints"))
            .args(arguments)
            .arg("--help")
            .output();
        String::from_utf8(output.expect("the program").stdout).expect("UTF-8")
    };
    let commands = help(&[]);
    let commands =
        commands.split("Commands:").nth(1).expect("commands").split("\n\n").next().expect("an end");
    for command in commands
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
    {
        assert!(words.contains(command), "{command}");
        for flag in help(&[command])
            .split_whitespace()
            .filter(|word| word.starts_with("--") && *word != "--help")
        {
            assert!(words.contains(flag), "{command} {flag}");
        }
    }
}

#[test]
fn the_example_is_good_and_the_mistake_is_shown_as_it_is() {
    let readme = readme();
    let options =
        Options { own_namespace: "default".into(), allow_cidr: Vec::new(), skip_rejected: false };
    let example =
        readme.split("```yaml\n").nth(1).expect("an example").split("```").next().expect("its end");
    let loaded = config::parse("README.md", example, &options).expect("a good example");
    assert!(loaded.warnings.is_empty());
    let mistake = format!("{example}    interval: 5\n");
    let problems = config::parse("databases.yaml", &mistake, &options).expect_err("a mistake");
    let shown = readme
        .split("```text\n")
        .find(|block| block.starts_with("databases.yaml"))
        .expect("the mistake");
    assert_eq!(problems.render(true), shown.split("```").next().expect("its end"));
}

#[test]
fn every_link_leads_somewhere() {
    let readme = readme();
    let links = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let dead: Vec<&str> =
        links.filter(|link| !link.contains("://") && !root().join(link).exists()).collect();
    assert!(dead.is_empty(), "{dead:?}");
}
