//! `diff` beside a real cluster: it finds what the daemon would change, and changes nothing.

use k8s_openapi::api::core::v1::Endpoints;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::cluster::fixture::Fixture;
use crate::cluster::import::{command, file};
use crate::support::{case::cases, shared};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        what_would_change_is_shown_and_nothing_is_written,
        trouble_and_missing_services_are_differences,
        a_comparison_that_fails_has_a_status_of_its_own,
    ]
}

/// Runs `diff` with a config. Returns the exit status and the output.
async fn diff(yaml: &str, more: &[&str]) -> (i32, String) {
    let path = file(yaml);
    let arguments = [&["diff", path.to_str().expect("UTF-8")], more].concat();
    let (status, text, stderr) = command(&shared().kubeconfig(), &arguments).await;
    let is_warning = |line: &str| line.starts_with("warning: ");
    assert!(stderr.lines().all(is_warning), "{stderr}");
    (status, text)
}

async fn what_would_change_is_shown_and_nothing_is_written() {
    let mut fixture = Fixture::new("diff").await;
    let daemon = fixture.start_published().await;
    drop(daemon);
    let history = fixture.history().await;
    let (status, text) = diff(&fixture.config(), &[]).await;
    assert_eq!((status, text.as_str()), (0, "1 of 1 databases are as the cluster has them\n"));
    fixture.databases[1].stop().await;
    let (status, text) = diff(&fixture.config(), &[]).await;
    assert_eq!(status, 1, "{text}");
    let dead = fixture.ips(&[1]).remove(0);
    let line = text.lines().find(|line| line.contains(&format!("-{dead}  "))).expect(&text);
    assert!(line.contains("connect"), "{text}");
    let (status, json) = diff(&fixture.config(), &["-o", "json"]).await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(status, 1);
    assert_eq!(json[0]["removed"][0]["address"], dead.as_str(), "{json}");
    assert_eq!((&json[0]["verdict"], &json[0]["unchanged"]), (&"differs".into(), &2.into()));
    assert_eq!(history.steps(), [], "nothing was written");
}

async fn trouble_and_missing_services_are_differences() {
    let fixture = Fixture::without_service("diff-new").await;
    let (status, text) = diff(&fixture.config(), &[]).await;
    assert_eq!(status, 1);
    assert!(
        text.contains("nothing would be written") && text.contains("WaitingForService"),
        "{text}"
    );
    let (status, text) = diff(&fixture.config_with("  createService: {}\n"), &[]).await;
    assert_eq!(status, 1);
    assert!(text.contains("would create the Service"), "{text}");
    for ip in fixture.ips(&[0, 1, 2]) {
        assert!(text.contains(&format!("+{ip}\n")), "{text}");
    }
    fixture.namespace.create_service("mysql", &[("", 3306)]).await;
    let theirs: Vec<_> = fixture.databases.iter().take(1).map(|database| database.ip).collect();
    fixture.namespace.create_endpoints("mysql", &theirs, &[("", 3306)]).await;
    let (status, text) = diff(&fixture.config(), &[]).await;
    assert_eq!(status, 1);
    assert!(text.contains("NotOurs") && text.contains("adopt: true"), "{text}");
    let endpoints: Endpoints = fixture.namespace.endpoints("mysql").await.expect("Endpoints");
    assert_eq!(endpoints.metadata.labels, None, "nothing was written");
}

async fn a_comparison_that_fails_has_a_status_of_its_own() {
    let fixture = Fixture::new("diff-fails").await;
    let path = file(&fixture.config());
    let arguments = ["diff", path.to_str().expect("UTF-8")];
    let nowhere = shared().kubeconfig_at_url("https://127.0.0.1:1");
    let (status, text, _) =
        command(&nowhere, &[&arguments[..], &["--timeout", "2s"]].concat()).await;
    assert_eq!(status, 2, "{text}");
    assert!(text.contains("not compared"), "{text}");
    let stranger = shared().kubeconfig_for_token(crate::support::control_plane::UNPRIVILEGED_TOKEN);
    let (status, text, _) = command(&stranger, &arguments).await;
    assert_eq!(status, 2, "{text}");
    assert!(text.contains("Forbidden: may not "), "{text}");
    let bad = file("databases: 1\n");
    let (status, _, _) = command(&stranger, &["diff", bad.to_str().expect("UTF-8")]).await;
    assert_eq!(status, 78);
}
