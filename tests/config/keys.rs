//! The keys of the config: `explain`, the JSON Schema, the reference, and an example of each.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use external_endpoints::config::{CHECK_KINDS, explain, load, reference, schema};
use serde_json::Value;

use super::values::database;
use super::{as_json, assert_snapshot, bad, files, good, options, random};

/// The schema of the values of the Helm chart.
const CHART_SCHEMA: &str = "deploy/chart/values.schema.json";

#[test]
fn an_explained_config_reads_back_the_same() {
    for path in files("tests/config/good") {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let loaded =
            load(&path, &options()).unwrap_or_else(|problems| panic!("{}", problems.report()));
        let explained = explain(&loaded.spec);
        assert_eq!(good(&explained), loaded.spec, "{explained}");
        assert!(jsonschema::is_valid(&schema(), &as_json(&explained)), "{explained}");
        let shown = format!("{}{explained}", loaded.warnings.report());
        assert_snapshot(&format!("good-{name}"), &shown);
    }
}

#[test]
fn the_schema_accepts_examples_and_rejects_mistakes() {
    let schema = jsonschema::validator_for(&schema()).unwrap();
    for path in files("tests/config/good") {
        let text = fs::read_to_string(&path).unwrap();
        let errors: Vec<_> =
            schema.iter_errors(&as_json(&text)).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:#?}", path.display());
    }
    for name in [
        "unknown-keys",
        "ports-out-of-range",
        "names",
        "http",
        "databases-empty",
        "ports-both",
        "missing-keys",
        "exec-statuses",
        "hex",
        "host-names",
        "dns",
    ] {
        let text = fs::read_to_string(format!("tests/config/bad/{name}.yaml")).unwrap();
        assert!(!schema.is_valid(&as_json(&text)), "the schema takes {name}");
    }
}

/// Compares the generated files with the code. With UPDATE_DOCS in the environment, it writes them.
#[test]
fn generated_files_are_up_to_date() {
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap() + "\n";
    for (path, content) in [
        ("config/schema.json", pretty(&schema())),
        ("docs/reference/config.md", reference()),
        (CHART_SCHEMA, pretty(&chart_schema())),
    ] {
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
            fs::write(path, &content).unwrap();
        }
        assert!(
            fs::read_to_string(path).unwrap_or_default() == content,
            "{path} is out of date; run `UPDATE_DOCS=1 cargo test --test config generated`"
        );
    }
}

/// Returns the schema of the chart's values, in which the definitions are those of the config.
fn chart_schema() -> Value {
    let mut config = schema();
    let keys = config.as_object_mut().unwrap();
    let mut definitions = keys.remove("$defs").unwrap();
    // A schema with an `$id` would look for `$defs` in itself.
    keys.retain(|key, _| !["$id", "$schema"].contains(&key.as_str()));
    definitions["Config"] = config;
    let mut values = as_json(&fs::read_to_string(CHART_SCHEMA).unwrap());
    values["$defs"] = definitions;
    values
}

#[test]
fn the_reference_has_a_good_example_of_each_kind() {
    let reference = reference();
    let examples: Vec<&str> = reference.split("```yaml config\n").skip(1).collect();
    let mut kinds = BTreeSet::new();
    for example in examples {
        let spec = good(example.split("```").next().unwrap());
        let addresses = spec.databases.iter().flat_map(|database| &database.addresses);
        kinds.extend(addresses.map(|address| address.check.kind.name()));
    }
    assert_eq!(kinds, CHECK_KINDS.iter().copied().collect());
}

/// Asserts that there is an example of every key, because no test reads a key without one.
#[test]
fn every_key_stands_in_an_example() {
    let mut keys = BTreeSet::new();
    for path in files("tests/config/good") {
        collect_keys(&as_json(&fs::read_to_string(path).unwrap()), &mut keys);
    }
    let schema = schema();
    let definitions = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    for definition in definitions {
        let properties = definition["properties"].as_object();
        for key in properties.into_iter().flat_map(|properties| properties.keys()) {
            assert!(keys.contains(key), "add `{key}` to tests/config/good/every-key.yaml");
        }
    }
}

fn collect_keys(value: &Value, keys: &mut BTreeSet<String>) {
    if let Some(map) = value.as_object() {
        keys.extend(map.keys().cloned());
        map.values().for_each(|value| collect_keys(value, keys));
    }
    value.as_array().into_iter().flatten().for_each(|value| collect_keys(value, keys));
}

#[test]
fn random_configs_have_every_kind_of_check() {
    let kinds: BTreeSet<_> = random::KINDS.iter().map(|(name, _)| *name).collect();
    assert_eq!(kinds, CHECK_KINDS.iter().copied().collect());
}

#[test]
fn a_masked_value_says_so_and_is_rejected() {
    for check in [
        "{tcp: {send: hunter2}}",
        "{tcp: {send: {hex: 68 75 6e 74 65 72 32}}}",
        "{http: {headers: {A: hunter2}}}",
        "{exec: {command: [x], env: {A: hunter2}}}",
    ] {
        let explained = explain(&database(check, ""));
        assert!(
            explained.starts_with("# Values that may be secrets are shown as `…`"),
            "{explained}"
        );
        assert!(!explained.contains("hunter2") && !explained.contains("68"), "{explained}");
        let problems = bad(&explained);
        assert!(
            problems.contains("`…` is what `validate --explain` shows instead of "),
            "{problems}"
        );
        assert!(!jsonschema::is_valid(&schema(), &as_json(&explained)), "{explained}");
    }
    let explained = explain(&database("{tcp: {send: {file: /ping}, expect: …}}", ""));
    assert!(
        explained.starts_with("apiVersion: external-endpoints/v1\nkind: Config\ndatabases:"),
        "{explained}"
    );
}
