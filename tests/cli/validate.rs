//! `validate`: all the places of a config, and all the formats of its report.

use std::fs;

use super::{BAD, GOOD, file, outcome, program, run};

/// Returns a manifest with one good and one bad config; the mistake is on line 12.
fn manifest() -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a, namespace: b}}\ndata:\n  \
         config.yaml: |\n    {GOOD}  bad.yaml: |\n    databases:\n    - service: mysql\n      \
         namespace: prod\n      addresses: [192.0.2.1]\n      port: 0\n      check: {{tcp: {{}}}}\n"
    )
}

#[test]
fn standard_input_is_a_dash() {
    let give = |arguments: &[&str], text: &str| {
        outcome(program().args(arguments).write_stdin(text).output().expect("the program runs"))
    };
    let (status, stdout, stderr) = give(&["validate", "-"], GOOD);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    assert_eq!(stdout, "-: good; databases: 1, addresses: 1\n");
    let (status, _, stderr) = give(&["validate", "-"], BAD);
    assert_eq!(status, Some(78));
    assert!(stderr.starts_with("-:8:15: databases[0].check.interval: "), "{stderr}");
    let (status, _, stderr) = give(&["validate", "-", "-"], GOOD);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("write `-` once"), "{stderr}");
    let endless = "#".repeat(11 << 20);
    let (status, _, stderr) = give(&["validate", "-"], &endless);
    assert_eq!(status, Some(78));
    assert!(stderr.contains("is larger than 10 MiB"), "{stderr}");
}

#[test]
fn a_manifest_is_reported_with_its_own_lines() {
    let file = file(&manifest());
    let path = file.path().to_str().expect("UTF-8");
    let (status, stdout, stderr) = run(&["validate", path]);
    assert_eq!(status, Some(78));
    let good = "ConfigMap b/a, config.yaml: good; databases: 1, addresses: 1";
    assert_eq!(stdout, format!("{path}: {good}\n"));
    assert!(stderr.starts_with(&format!("{path}:12:13: databases[0].port: ")), "{stderr}");
    // The daemon reads what the ConfigMap becomes, and not the manifest.
    let (status, _, stderr) = run(&["run", "--dry-run", "--config", path]);
    assert_eq!(status, Some(78));
    assert!(stderr.contains("this is a ConfigMap; give the path of the file"), "{stderr}");
}

#[test]
fn a_folder_is_all_configs_in_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().to_str().expect("UTF-8");
    let (status, _, stderr) = run(&["validate", root]);
    assert_eq!(status, Some(78));
    assert!(stderr.contains("has no file that ends with .yaml or .yml"), "{stderr}");
    fs::create_dir(folder.path().join("sub")).expect("a folder");
    fs::write(folder.path().join("service.yaml"), "apiVersion: v1\nkind: Service\n")
        .expect("a file");
    let (status, _, stderr) = run(&["validate", root]);
    assert_eq!(status, Some(78));
    assert!(stderr.contains("has no config"), "nothing was validated: {stderr}");
    for (name, text) in [("a.yaml", GOOD), ("sub/b.yml", BAD), ("sub/map.yaml", &manifest())] {
        fs::write(folder.path().join(name), text).expect("a file");
    }
    let (status, stdout, stderr) = run(&["validate", root]);
    assert_eq!(status, Some(78));
    let lines = |text: &str| text.lines().map(|line| line.replace(root, "")).collect::<Vec<_>>();
    let stdout = lines(&stdout);
    assert!(stdout[0].starts_with("/a.yaml: good; "), "{stdout:?}");
    assert!(stdout[1].starts_with("/sub/map.yaml: ConfigMap b/a, config.yaml: good"), "{stdout:?}");
    let stderr = lines(&stderr);
    assert!(stderr[0].starts_with("/sub/b.yml:8:15: "), "{stderr:?}");
    assert!(stderr[1].starts_with("/sub/map.yaml:12:13: "), "{stderr:?}");
}

#[test]
fn a_report_in_json_has_each_problem_with_its_place() {
    let (good, bad) = (file(GOOD), file(&manifest()));
    let [good, bad] = [&good, &bad].map(|file| file.path().to_str().expect("UTF-8"));
    let (status, stdout, stderr) = run(&["validate", "-o", "json", good, bad, "/nowhere.yaml"]);
    assert_eq!((status, stderr.as_str()), (Some(78), ""));
    let report: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((&report["good"], &report["errors"]), (&false.into(), &2.into()));
    let configs = report["configs"].as_array().expect("a list");
    assert_eq!(configs.len(), 4);
    assert_eq!((&configs[0]["file"], &configs[0]["databases"]), (&good.into(), &1.into()));
    assert_eq!(configs[2]["place"], "ConfigMap b/a, bad.yaml");
    let problem = &configs[2]["errors"][0];
    assert_eq!((&problem["line"], &problem["column"]), (&12.into(), &13.into()));
    assert_eq!(problem["path"], "databases[0].port");
    assert!(problem["message"].as_str().is_some_and(|it| it.contains("write a number from 1")));
    assert!(configs[3]["errors"][0]["line"].is_null(), "{report}");
}

#[test]
fn a_report_for_github_is_workflow_commands() {
    let warned = GOOD.replace("tcp: {}", "tcp: {}, interval: 1s, timeout: 5s");
    let (bad, warned) = (file(BAD), file(&warned));
    let [bad, warned] = [&bad, &warned].map(|file| file.path().to_str().expect("UTF-8"));
    let (status, stdout, stderr) = run(&["validate", "--output=github", bad, warned]);
    assert_eq!((status, stderr.as_str()), (Some(78), ""));
    let lines: Vec<&str> = stdout.lines().collect();
    let error =
        format!("::error file={bad},line=8,col=15::databases[0].check.interval: a duration");
    assert!(lines[0].starts_with(&error), "{stdout}");
    assert!(lines[1].starts_with(&format!("::warning file={warned},line=1,col=")), "{stdout}");
    assert!(lines[2].contains(": good; "), "{stdout}");
}

#[test]
fn denied_warnings_are_exit_status_78() {
    let file_of = |more: &str| file(&GOOD.replace("tcp: {}", &format!("tcp: {{}}{more}")));
    let (plain, warned) = (file_of(""), file_of(", interval: 1s, timeout: 5s"));
    let [plain, warned] = [&plain, &warned].map(|file| file.path().to_str().expect("UTF-8"));
    assert_eq!(run(&["validate", "--deny-warnings", plain]).0, Some(0));
    for arguments in [&[][..], &["-o", "json"], &["-o", "github"], &["--explain"]] {
        let arguments = [&["validate", "--deny-warnings", warned], arguments].concat();
        let (status, _, stderr) = run(&arguments);
        assert_eq!(status, Some(78), "{arguments:?}");
        assert!(stderr.contains("--deny-warnings rejects what has warnings: 1"), "{stderr}");
    }
}

#[test]
fn the_version_and_the_kind_are_checked() {
    let of = |head: &str| file(&format!("{head}\n{GOOD}"));
    let validate = |head: &str| run(&["validate", of(head).path().to_str().expect("UTF-8")]);
    assert_eq!(validate("apiVersion: external-endpoints/v1\nkind: Config").0, Some(0));
    for (head, message) in [
        ("apiVersion: external-endpoints/v2", ":1:13: apiVersion: `external-endpoints/v2` is not"),
        ("apiVersion: v1", "write `external-endpoints/v1`"),
        ("kind: config", "write `Config`"),
        ("apiversion: external-endpoints/v1", "did you mean `apiVersion`?"),
    ] {
        let (status, _, stderr) = validate(head);
        assert_eq!(status, Some(78), "{head}");
        assert!(stderr.contains(message), "{head}: {stderr}");
    }
}
