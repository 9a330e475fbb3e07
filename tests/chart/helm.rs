//! Helm as a command, and what it renders.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Value, json};

use crate::support::{binaries, temp_dir};

/// The namespace of the daemon in what is rendered.
pub(crate) const HOME: &str = "external-endpoints";
/// The name of the release, and so of all objects.
pub(crate) const RELEASE: &str = "external-endpoints";

/// Returns the folder of the chart.
pub(crate) fn chart() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy/chart")
}

/// Returns a command of Helm that keeps its files in the sandbox.
pub(crate) fn helm() -> Command {
    let home = temp_dir("helm");
    let mut command = Command::new(binaries::helm());
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(variable, &home);
    }
    command
}

/// Writes values to a file. JSON is YAML too, and leaves no doubt about types.
pub(crate) fn values_file(values: &Value) -> PathBuf {
    let path = temp_dir("values").join("values.yaml");
    // YAML takes some signs only as escapes.
    let mut text = String::new();
    for sign in values.to_string().chars() {
        match sign {
            ' '..='~' => text.push(sign),
            _ => text += &format!("\\U{:08x}", u32::from(sign)),
        }
    }
    fs::write(&path, text).expect("a file in the sandbox");
    path
}

/// Renders the chart. Returns the objects, or what Helm says.
pub(crate) fn render(values: &Value) -> Result<Vec<Value>, String> {
    render_with(values, &[])
}

/// Renders the chart with further arguments.
pub(crate) fn render_with(values: &Value, arguments: &[&str]) -> Result<Vec<Value>, String> {
    let mut command = helm();
    command.args(["template", RELEASE]).arg(chart()).args(["--namespace", HOME]);
    command.arg("--values").arg(values_file(values)).args(arguments);
    let Output { status, stdout, stderr } = command.output().expect("Helm runs");
    if !status.success() {
        return Err(String::from_utf8_lossy(&stderr).into_owned());
    }
    assert!(stderr.is_empty(), "{}", String::from_utf8_lossy(&stderr));
    Ok(documents(&String::from_utf8(stdout).expect("UTF-8")))
}

/// Renders the chart with values that are good.
#[track_caller]
pub(crate) fn rendered(values: &Value) -> Vec<Value> {
    render(values).unwrap_or_else(|error| panic!("{values}: {error}"))
}

/// Renders the chart with values that are refused. Returns what Helm says.
#[track_caller]
pub(crate) fn refused(values: &Value) -> String {
    render(values).err().unwrap_or_else(|| panic!("the chart takes {values}"))
}

/// Reads the documents of a stream of YAML.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let documents = text.split("\n---").map(|document| document.trim_start_matches("---"));
    let values = documents.map(|document| {
        serde_saphyr::from_str::<Value>(document)
            .unwrap_or_else(|error| panic!("{error}: {document}"))
    });
    values.filter(|value| !value.is_null()).collect()
}

/// Returns the object of a kind, which there is once.
#[track_caller]
pub(crate) fn one<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found = all(objects, kind);
    assert_eq!(found.len(), 1, "objects of kind {kind}");
    found[0]
}

/// Returns all objects of a kind.
pub(crate) fn all<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// Returns the rules of a Role.
pub(crate) fn rules(role: &Value) -> Vec<PolicyRule> {
    serde_json::from_value(role["rules"].clone()).expect("rules")
}

/// Returns values with this config and no others.
pub(crate) fn with_config(config: &Value) -> Value {
    json!({"config": config})
}

/// Returns values with a small good config, overlaid by others.
pub(crate) fn small(others: &Value) -> Value {
    let mut values = with_config(&json!({"databases": [{
        "service": "mysql", "namespace": "prod", "port": 3306, "addresses": ["192.0.2.1"],
        "check": {"tcp": {}},
    }]}));
    for (key, value) in others.as_object().expect("a mapping") {
        values[key] = value.clone();
    }
    values
}
