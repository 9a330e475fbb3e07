//! The commands `maintenance` and `failback` beside a running daemon: by a field manager of their
//! own, beside other edits, and to an end by time.

use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::cluster::events::expect_event;
use crate::cluster::fixture::{Fixture, TIMEOUT, database};
use crate::support::daemon::PROGRAM;
use crate::support::{Daemon, blocking, case::cases, eventually, shared};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        the_command_takes_out_and_brings_back,
        what_would_be_a_mistake_is_refused,
        edits_at_the_same_time_lose_nothing,
        maintenance_ends_by_itself_also_after_a_restart,
        an_entry_of_kubectl_becomes_the_commands_own,
    ]
}

pub(crate) const ANNOTATION: &str = "external-endpoints/maintenance";

/// Runs a command, and returns its output.
pub(crate) async fn run(arguments: &[&str]) -> Output {
    let arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
    let kubeconfig = shared().kubeconfig();
    blocking(move || {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env("KUBECONFIG", kubeconfig).output().expect("the program")
    })
    .await
}

/// Runs a command that succeeds, and returns what it prints.
pub(crate) async fn succeed(arguments: &[&str]) -> String {
    let output = run(arguments).await;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs a command that fails, and returns its error.
async fn fail(arguments: &[&str]) -> String {
    let output = run(arguments).await;
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).expect("UTF-8")
}

async fn annotation(fixture: &Fixture) -> Option<String> {
    let service: Service = fixture.namespace.api().get("mysql").await.expect("the Service");
    service.annotations().get(ANNOTATION).cloned()
}

/// Returns the managers of the annotation for maintenance.
pub(crate) async fn managers(fixture: &Fixture) -> Vec<String> {
    let service: Service = fixture.namespace.api().get("mysql").await.expect("the Service");
    let owns = |fields: &Value| {
        fields["f:metadata"]["f:annotations"].get(format!("f:{ANNOTATION}")).is_some()
    };
    let entries = service.metadata.managed_fields.into_iter().flatten();
    entries
        .filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| owns(&fields.0)))
        .filter_map(|entry| entry.manager)
        .collect()
}

async fn the_command_takes_out_and_brings_back() {
    let fixture = Fixture::new("cli-maintenance").await;
    let daemon = fixture.start_published().await;
    let (id, url) = (format!("{}/mysql", fixture.namespace.name), daemon.url());
    let ips = fixture.ips(&[0, 1, 2]);
    let said = succeed(&[
        "maintenance",
        "on",
        &id,
        &ips[0],
        "--reason",
        "disk, swap",
        "--for",
        "2h",
        "--url",
        &url,
    ])
    .await;
    assert!(said.starts_with(&format!("{id}: {} is in maintenance: disk, swap", ips[0])), "{said}");
    fixture.expect_endpoints(&[1, 2]).await;
    let target = database(&daemon.status().await)["targets"][0].clone();
    assert_eq!(target["maintenance"], "disk, swap");
    assert_eq!(target["maintenanceSource"], "annotation");
    let until = humantime::parse_rfc3339(target["maintenanceUntil"].as_str().expect("an end"));
    let length = until.expect("a time").duration_since(SystemTime::now()).expect("later");
    assert!(length.abs_diff(Duration::from_secs(7200)) < Duration::from_secs(60), "{length:?}");
    assert_eq!(managers(&fixture).await, ["external-endpoints-cli"]);
    let began = format!("{} is in maintenance: disk, swap (annotation, until ", ips[0]);
    expect_event(&fixture.namespace, "MaintenanceBegan", &began).await;

    succeed(&["maintenance", "on", &id, &ips[1], "--reason", "kernel", "--url", &url]).await;
    fixture.expect_endpoints(&[2]).await;
    let list = succeed(&["maintenance", "list", &id, "--url", &url]).await;
    assert_eq!(list.lines().count(), 3, "{list}");
    let row = list.lines().find(|line| line.contains(&ips[1])).expect("a row");
    let words: Vec<&str> = row.split_whitespace().collect();
    let namespace = fixture.namespace.name.as_str();
    assert_eq!(words, [namespace, "mysql", &ips[1], "annotation", "-", "no", "kernel"]);
    let json = succeed(&["maintenance", "list", "-o", "json", "--url", &url]).await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[0]["address"], ips[0].as_str());
    assert_eq!(json[0]["until"], target["maintenanceUntil"]);

    succeed(&["maintenance", "off", &id, &ips[0]]).await;
    fixture.expect_endpoints(&[0, 2]).await;
    expect_event(&fixture.namespace, "MaintenanceEnded", &format!("of {} has ended", ips[0])).await;
    assert_eq!(annotation(&fixture).await, Some(format!("{}=kernel", ips[1])));
    succeed(&["maintenance", "off", &id, &ips[1]]).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    assert_eq!(annotation(&fixture).await, None);
    assert_eq!(managers(&fixture).await, [""; 0]);
    let list = succeed(&["maintenance", "list", "--url", &url]).await;
    assert_eq!(list, "no address is in maintenance\n");
    let all = format!("{}=a, typo=b", ips[0]);
    annotate(&fixture, json!({ANNOTATION: all})).await;
    succeed(&["maintenance", "off", &id, "--all"]).await;
    assert_eq!(annotation(&fixture).await, None);
}

async fn annotate(fixture: &Fixture, annotations: Value) {
    let api: Api<Service> = fixture.namespace.api();
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    let params = PatchParams { field_manager: Some("kubectl-annotate".into()), ..<_>::default() };
    api.patch("mysql", &params, &patch).await.expect("a patch");
}

async fn what_would_be_a_mistake_is_refused() {
    let mut fixture = Fixture::new("cli-refused").await;
    let daemon = fixture.start_published().await;
    let (id, url) = (format!("{}/mysql", fixture.namespace.name), daemon.url());
    let ips = fixture.ips(&[0, 1, 2]);
    let on = ["maintenance", "on", &id];
    let with = |address: &'static str| {
        [&on[..], &[address, "--reason", "x", "--url", &url]].concat().join("\u{0}")
    };
    let split = |text: String| text.split('\u{0}').map(str::to_owned).collect::<Vec<_>>();
    let refused = async |text: String| {
        let arguments = split(text);
        fail(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let error = refused(with("10.9.9.9")).await;
    let known = format!("10.9.9.9 is no address of {id}, which has: {}", ips.join(", "));
    assert!(error.contains(&known), "{error}");
    let error = refused(with("pg.corp")).await;
    assert!(error.contains("pg.corp is no name of"), "{error}");
    let other = format!("{}/none", fixture.namespace.name);
    let error = fail(&["maintenance", "on", &other, &ips[0], "--reason", "x", "--url", &url]).await;
    assert!(
        error.contains(&format!("the daemon has no database {other}; it has: {id}")),
        "{error}"
    );
    let error =
        fail(&["maintenance", "on", &id, &ips[0], "--reason", "a, b=c", "--url", &url]).await;
    assert!(error.contains("this reason would be read in another way"), "{error}");
    let nowhere = "http://127.0.0.1:1";
    let error = fail(&["maintenance", "on", &id, &ips[0], "--reason", "x", "--url", nowhere]).await;
    assert!(error.contains("with --force any address is accepted"), "{error}");
    let error = fail(&["maintenance", "off", &id, &ips[0]]).await;
    assert!(error.contains("ends with its key `maintenance`"), "{error}");
    let error = fail(&["maintenance", "off", &other, &ips[0]]).await;
    assert!(error.contains(&format!("there is no Service {other}")), "{error}");
    let error = fail(&["failback", &other]).await;
    assert!(error.contains(&format!("there is no Service {other}")), "{error}");
    assert_eq!(annotation(&fixture).await, None);

    // The last one that is published goes only if that is meant.
    for index in [1, 2] {
        fixture.databases[index].stop().await;
    }
    fixture.expect_endpoints(&[0]).await;
    let last = ["maintenance", "on", &id, &fixture.ips(&[0])[0], "--reason", "x", "--url", &url];
    let error = fail(&last).await;
    assert!(error.contains("repeat with --force if that is meant"), "{error}");
    assert_eq!(fixture.namespace.endpoint_ips("mysql").await, fixture.ips(&[0]));
    let error = fail(&["maintenance", "off", &id, &ips[1]]).await;
    assert!(error.contains("no address of"), "{error}");
    succeed(&[&last[..], &["--force"]].concat()).await;
    fixture.expect_endpoints(&[]).await;
    let error = fail(&["maintenance", "off", &id, &ips[1]]).await;
    let expected = format!("has no entry in the annotation of {id}; in maintenance are: ");
    assert!(error.contains(&expected), "{error}");
}

async fn edits_at_the_same_time_lose_nothing() {
    const EDITORS: u8 = 8;
    let fixture = Fixture::new("cli-edits").await;
    let id = format!("{}/mysql", fixture.namespace.name);
    let addresses: Vec<String> = (1..=EDITORS).map(|last| format!("192.0.2.{last}")).collect();
    let on = async |address: &str| {
        succeed(&["maintenance", "on", &id, address, "--reason", "x", "--force"]).await
    };
    let edits = addresses.iter().map(|address| on(address));
    let others = async {
        for round in 0..20 {
            annotate(&fixture, json!({"else/where": round.to_string()})).await;
        }
    };
    let (_, ()) = futures::join!(futures::future::join_all(edits), others);
    let value = annotation(&fixture).await.expect("the annotation");
    let mut found: Vec<&str> = value.split(", ").collect();
    found.sort_unstable();
    let expected: Vec<String> = addresses.iter().map(|address| format!("{address}=x")).collect();
    assert_eq!(found, expected);
    let off = async |address: &str| succeed(&["maintenance", "off", &id, address]).await;
    let ends = addresses.iter().map(|address| off(address));
    futures::future::join_all(ends).await;
    assert_eq!(annotation(&fixture).await, None);
}

async fn maintenance_ends_by_itself_also_after_a_restart() {
    let fixture = Fixture::new("cli-ends").await;
    let daemon = fixture.start_published().await;
    let (id, url) = (format!("{}/mysql", fixture.namespace.name), daemon.url());
    let ips = fixture.ips(&[0, 1]);
    let on = async |ip: &str, length: &str| {
        let arguments =
            ["maintenance", "on", &id, ip, "--reason", "x", "--for", length, "--url", &url];
        succeed(&arguments).await;
    };
    on(&ips[0], "3s").await;
    fixture.expect_endpoints(&[1, 2]).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let note = format!("the maintenance of {} has ended, its time is over: x (annotation", ips[0]);
    let event = expect_event(&fixture.namespace, "MaintenanceEnded", &note).await;
    let value = annotation(&fixture).await.expect("the annotation stays");
    let until = value.split("until=").nth(1).expect("an end").to_owned();
    let until = humantime::parse_rfc3339(&until).expect("a time");
    let ended: SystemTime = event.event_time.expect("a time").0.into();
    let late = ended.duration_since(until).unwrap_or_default();
    assert!(ended >= until && late < Duration::from_secs(5), "it ended {late:?} late");

    // An end that comes while no daemon runs counts too, and one that is to come still does.
    on(&ips[1], "6s").await;
    fixture.expect_endpoints(&[0, 2]).await;
    drop(daemon);
    let daemon: Daemon = fixture.start().await;
    fixture.expect_condition(&daemon, "Published").await;
    let in_maintenance = async || {
        let status = database(&daemon.status().await);
        let target = |index: usize| status["targets"][index]["maintenance"].is_string();
        [0, 1, 2].map(target)
    };
    let first = in_maintenance().await;
    assert!(!first[0] && !first[2], "{first:?}");
    fixture.expect_endpoints(&[0, 1, 2]).await;
    eventually(TIMEOUT, "no maintenance", async || in_maintenance().await == [false; 3]).await;
}

async fn an_entry_of_kubectl_becomes_the_commands_own() {
    let fixture = Fixture::new("cli-owner").await;
    let daemon = fixture.start_published().await;
    let (id, url) = (format!("{}/mysql", fixture.namespace.name), daemon.url());
    let ip = &fixture.ips(&[0])[0];
    annotate(&fixture, json!({ANNOTATION: format!("{ip}=x")})).await;
    assert_eq!(managers(&fixture).await, ["kubectl-annotate"]);
    succeed(&["maintenance", "on", &id, ip, "--reason", "x", "--url", &url]).await;
    let mut managers = managers(&fixture).await;
    managers.sort();
    assert_eq!(managers, ["external-endpoints-cli", "kubectl-annotate"]);
    succeed(&["failback", &id]).await;
    assert_eq!(annotation(&fixture).await, Some(format!("{ip}=x")), "failback leaves it alone");
    succeed(&["maintenance", "off", &id, ip]).await;
    assert_eq!(annotation(&fixture).await, None);
}
