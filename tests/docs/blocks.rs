//! Every block of code is of a kind that a test checks, and every YAML block is valid.

use std::fs;
use std::process::Command;

use k8s_openapi::api::core::v1::Service;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::pages::{Block, page, pages, root};

/// The kinds of blocks. `config` is a whole config, `fragment` a part of one, `manifest` an object
/// of Kubernetes, `values` some of the Helm chart. A `console` block holds commands and nothing
/// else; `text` is not checked. `make install` runs what is `sh`, and applies the `kustomization`.
const KINDS: [&str; 14] = [
    "yaml config",
    "yaml fragment",
    "yaml manifest",
    "yaml kustomization",
    "yaml values",
    "console",
    "sh door-helm",
    "sh door-kustomize",
    "sh door-one-file",
    "sh door-import",
    "sh playground",
    "text",
    "dockerfile",
    "rust",
];

fn blocks(kind: &str) -> Vec<Block> {
    let blocks = pages().into_iter().flat_map(|page| page.blocks());
    let found: Vec<Block> = blocks.filter(|block| block.info == kind).collect();
    assert!(!found.is_empty(), "there is no block of the kind {kind}");
    found
}

fn parse(yaml: &str, place: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{place}: {error}"))
}

/// Validates a config as a person does. A warning is a failure too.
fn validate(yaml: &str, place: &str) {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("databases.yaml");
    fs::write(&file, yaml).expect("a file");
    let output = Command::new(env!("CARGO_BIN_EXE_external-endpoints"))
        .env_remove("KUBECONFIG")
        .arg("validate")
        .arg(&file)
        .output()
        .expect("the program runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{place}: {errors}");
}

/// Completes a part of a config: keys at the top, or keys of one database.
fn complete(fragment: Value, place: &str) -> Value {
    let Value::Object(keys) = fragment else { panic!("{place}: a fragment is a mapping") };
    let is_top = keys.keys().all(|key| matches!(key.as_str(), "defaults" | "prune" | "databases"));
    let mut database = Map::from_iter([
        ("service".to_owned(), json!("mysql")),
        ("namespace".to_owned(), json!("prod")),
        ("addresses".to_owned(), json!(["10.20.0.11", "10.20.0.12"])),
        ("check".to_owned(), json!({"tcp": {}})),
    ]);
    if is_top {
        database.insert("port".into(), json!(3306));
        let mut config = Map::from_iter([("databases".to_owned(), json!([database]))]);
        config.extend(keys);
        return config.into();
    }
    if !keys.contains_key("ports") {
        database.insert("port".into(), json!(3306));
    }
    database.extend(keys);
    json!({ "databases": [database] })
}

#[test]
fn every_block_is_of_a_known_kind() {
    for block in pages().into_iter().flat_map(|page| page.blocks()) {
        assert!(
            KINDS.contains(&block.info.as_str()),
            "{}: `{}` is none of {KINDS:?}",
            block.place,
            block.info
        );
    }
}

#[test]
fn every_config_is_valid() {
    blocks("yaml config").iter().for_each(|block| validate(&block.text, &block.place));
}

#[test]
fn every_fragment_of_a_config_is_valid() {
    for block in blocks("yaml fragment") {
        let config = complete(parse(&block.text, &block.place), &block.place);
        validate(&config.to_string(), &block.place);
    }
}

/// Reads an object as its kind, and finds keys that the kind does not have by writing it again.
fn check_kind<K: Serialize + DeserializeOwned>(object: &Value, place: &str) {
    let typed: K =
        serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{place}: {error}"));
    assert_eq!(&serde_json::to_value(typed).expect("JSON"), object, "{place}: unknown keys");
}

#[test]
fn every_manifest_is_of_a_kind_of_kubernetes() {
    for block in blocks("yaml manifest") {
        for document in block.text.split("---\n") {
            let object = parse(document, &block.place);
            match (&object["apiVersion"], &object["kind"]) {
                (version, kind) if version == "v1" && kind == "Service" => {
                    check_kind::<Service>(&object, &block.place);
                }
                (version, kind) => panic!("{}: {version} {kind} is unknown", block.place),
            }
        }
    }
}

#[test]
fn all_values_of_the_chart_are_valid() {
    let schema = fs::read_to_string(root().join("deploy/chart/values.schema.json"));
    let schema = serde_json::from_str(&schema.expect("the chart's schema")).expect("JSON");
    let schema = jsonschema::validator_for(&schema).expect("a schema");
    for block in blocks("yaml values") {
        let values = parse(&block.text, &block.place);
        let errors: Vec<_> = schema.iter_errors(&values).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:#?}", block.place);
    }
}

#[test]
fn the_mistake_is_shown_as_the_program_shows_it() {
    use external_endpoints::config::{self, Options};
    let options =
        Options { own_namespace: "default".into(), allow_cidr: Vec::new(), skip_rejected: false };
    let blocks = page("docs/getting-started.md").blocks();
    let example = blocks.iter().find(|block| block.info == "yaml config").expect("an example");
    let loaded = config::parse("README.md", &example.text, &options).expect("a good example");
    assert!(loaded.warnings.is_empty());
    let readme = page("README.md").blocks();
    assert!(readme.iter().any(|block| block.text == example.text), "README.md has the same one");
    let mistake = format!("{}    interval: 5\n", example.text);
    let problems = config::parse("databases.yaml", &mistake, &options).expect_err("a mistake");
    let shown = blocks.iter().find(|block| block.text.starts_with("databases.yaml"));
    assert_eq!(problems.report(), shown.expect("the mistake").text);
}
