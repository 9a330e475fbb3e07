//! `check` beside a real cluster and a real daemon.

use libtest_mimic::Trial;
use serde_json::Value;

use crate::cluster::deploy::permissions::without_rights;
use crate::cluster::fixture::Fixture;
use crate::cluster::import::{command, file};
use crate::support::{case::cases, shared};

pub(crate) fn cases() -> Vec<Trial> {
    cases![each_fault_is_found_and_comes_with_a_step, before_an_install_the_callers_rights_count,]
}

/// Returns the outcome of each check, and the exit status.
async fn outcomes(arguments: &[&str]) -> (i32, Vec<(String, String)>) {
    let arguments = [&["check"], arguments, &["-o", "json"]].concat();
    let (status, json, stderr) = command(&shared().kubeconfig(), &arguments).await;
    let json: Value = serde_json::from_str(&json).unwrap_or_else(|e| panic!("{e}: {stderr}"));
    let word = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let list = json.as_array().expect("a list").iter();
    (status, list.map(|it| (word(it, "check"), word(it, "outcome"))).collect())
}

fn has(outcomes: &[(String, String)], check: &str, outcome: &str) -> bool {
    outcomes.iter().any(|it| *it == (check.to_owned(), outcome.to_owned()))
}

async fn each_fault_is_found_and_comes_with_a_step() {
    let fixture = Fixture::new("check").await;
    without_rights(&fixture.namespace).await;
    let daemon = fixture.start_published().await;
    let account = format!("{}/daemon", fixture.namespace.name);
    let url = daemon.url();
    let path = file(&fixture.config());
    let config = path.to_str().expect("UTF-8");
    let arguments = [config, "--service-account", &account, "--url", &url];
    let (status, found) = outcomes(&arguments).await;
    assert_eq!(status, 1, "{found:?}");
    for check in ["cluster-version", "config-valid", "config-services", "daemon-answers"] {
        assert!(has(&found, check, "good"), "{check}: {found:?}");
    }
    assert!(has(&found, "rights-daemon", "bad"), "{found:?}");
    assert!(has(&found, "daemon-leader", "warning"), "it has no Lease: {found:?}");
    assert!(has(&found, "network-reach", "good"), "{found:?}");
    let (_, text, _) =
        command(&shared().kubeconfig(), &[&["check"], &arguments[..]].concat()).await;
    assert!(text.contains("rbac ") && text.contains("| kubectl apply -f -"), "{text}");
    // Without a daemon.
    let url = "http://127.0.0.1:1";
    let (status, found) = outcomes(&[config, "--url", url]).await;
    assert!(status == 1 && has(&found, "daemon-answers", "bad"), "{found:?}");
    // Without a cluster.
    let nowhere = shared().kubeconfig_at_url("https://127.0.0.1:1");
    let (status, text, _) = command(&nowhere, &["check", config]).await;
    assert_eq!(status, 1);
    assert!(text.contains("× the API server can't be asked"), "{text}");
}

async fn before_an_install_the_callers_rights_count() {
    let fixture = Fixture::without_service("check-pre").await;
    let path = file(&fixture.config());
    let config = path.to_str().expect("UTF-8");
    let (status, found) = outcomes(&["--pre", config]).await;
    assert!(has(&found, "rights-install", "good"), "{found:?}");
    assert!(status == 1 && has(&found, "config-services", "bad"), "there is no Service: {found:?}");
    fixture.namespace.create_service("mysql", &[("", 3306)]).await;
    let (status, found) = outcomes(&["--pre", config]).await;
    assert!(status == 0 && has(&found, "config-services", "good"), "{found:?}");
    assert!(!found.iter().any(|(check, _)| check.starts_with("daemon")), "{found:?}");
    let token = crate::support::control_plane::UNPRIVILEGED_TOKEN;
    let stranger = shared().kubeconfig_for_token(token);
    let (status, text, _) = command(&stranger, &["check", "--pre"]).await;
    assert_eq!(status, 1);
    assert!(text.contains("× you may not create serviceaccounts, configmaps"), "{text}");
}
