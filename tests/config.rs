//! The config language, as the people who write a config see it.

use std::fs;
use std::path::PathBuf;

use external_endpoints::config::{LoadedConfig, Options, Problems, Spec, parse};

#[path = "config/keys.rs"]
mod keys;
#[path = "config/manifests.rs"]
mod manifests;
#[path = "config/messages.rs"]
mod messages;
#[path = "config/names.rs"]
mod names;
#[path = "config/random.rs"]
mod random;
#[path = "config/robustness.rs"]
mod robustness;
#[path = "config/values.rs"]
mod values;

fn options() -> Options {
    Options { own_namespace: "own".into(), allow_cidr: Vec::new(), skip_rejected: false }
}

fn read(text: &str) -> Result<LoadedConfig, Problems> {
    parse("db.yaml", text, &options())
}

#[track_caller]
fn good(text: &str) -> Spec {
    read(text).unwrap_or_else(|problems| panic!("{}", problems.report())).spec
}

#[track_caller]
fn bad(text: &str) -> String {
    read(text).expect_err("this config should be rejected").to_string()
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{folder} has no files");
    paths
}

/// Compares a text with its snapshot in tests/config/snapshots.
fn assert_snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("config/snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

fn as_json(yaml: &str) -> serde_json::Value {
    serde_saphyr::from_str(yaml).unwrap()
}
