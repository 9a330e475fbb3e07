//! Policies: addresses that stay published, that wait, and that are never published together.
//! Tested on a real cluster, also across restarts.

use std::process::{Command, Output};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use kube::api::{Api, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::cluster::fixture::{
    CHECK, Fixture, TIMEOUT, config, database, databases_of, replace_in, wait_for_checks,
};
use crate::support::{
    Behavior, Daemon, blocking, case::cases, consistently, eventually, shared, temp_dir,
};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        min_healthy_is_kept_when_all_targets_fail,
        a_writer_is_replaced_in_one_write,
        a_writer_that_cannot_be_checked_is_replaced,
        two_writers_at_startup_are_not_published,
        the_preferred_tier_returns_after_the_failback_delay,
        the_preferred_tier_returns_on_request,
        maintenance_by_config_and_by_annotation,
        a_flapping_target_is_published_only_as_the_last_one,
        failures_below_the_threshold_remove_nothing,
        a_dry_run_applies_the_policy,
    ]
}

/// Returns the config of `mysql` with these keys for each address, besides its IP.
fn with_each(fixture: &Fixture, each: [&str; 3], check: &str, policy: &str) -> String {
    let entry = |(database, keys): (&crate::support::Database, &str)| {
        format!("{{address: {}{keys}}}", database.ip)
    };
    let addresses: Vec<String> = fixture.databases.iter().zip(each).map(entry).collect();
    config(&fixture.namespace.name, &addresses.join(", "), check, &format!("  policy: {policy}\n"))
}

async fn start(yaml: &str) -> Daemon {
    Daemon::start(yaml, &shared().kubeconfig(), &[]).await
}

/// Waits until the health of the three targets is this.
async fn health(daemon: &Daemon, wanted: [&str; 3]) {
    eventually(TIMEOUT, &format!("health {wanted:?}"), async || {
        let status = database(&daemon.status().await);
        let health = [0, 1, 2].map(|index| status["targets"][index]["health"].clone());
        if health == wanted.map(Value::from) { Ok(()) } else { Err(format!("{health:?}")) }
    })
    .await;
}

async fn metric(daemon: &Daemon, name: &str, wanted: Option<f64>) {
    let name = format!("external_endpoints_{name}");
    eventually(TIMEOUT, &format!("{name} is {wanted:?}"), async || {
        let value = daemon.metric(&name, &[]).await;
        if value == wanted { Ok(()) } else { Err(format!("{value:?}")) }
    })
    .await;
}

async fn annotate(fixture: &Fixture, annotations: Value) {
    let api: Api<Service> = fixture.namespace.api();
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    api.patch("mysql", &PatchParams::default(), &patch).await.expect("a patch");
}

/// Returns the notes of the policy.
async fn notes(daemon: &Daemon) -> Vec<String> {
    let notes = database(&daemon.status().await)["policy"].clone();
    notes.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

async fn min_healthy_is_kept_when_all_targets_fail() {
    let mut fixture = Fixture::new("all-fail").await;
    fixture.namespace.create_service("kept", &[("", 3306)]).await;
    let kept = fixture.config_with("  policy: {minHealthy: 1}\n");
    let kept = replace_in(&kept, "service: mysql", "service: kept");
    let yaml = fixture.config() + databases_of(&kept);
    let daemon = start(&yaml).await;
    let kept_is = async |wanted: Vec<String>| {
        eventually(TIMEOUT, &format!("`kept` has {wanted:?}"), async || {
            let there = fixture.namespace.endpoint_ips("kept").await;
            if there == wanted { Ok(()) } else { Err(format!("{there:?}")) }
        })
        .await;
    };
    fixture.expect_endpoints(&[0, 1, 2]).await;
    kept_is(fixture.ips(&[0, 1, 2])).await;
    let mut databases = std::mem::take(&mut fixture.databases);
    let ips: Vec<String> = databases.iter().map(|database| database.ip.to_string()).collect();
    // They stop one after the other, so that it is certain which one was healthy last.
    databases[1].stop().await;
    eventually(TIMEOUT, "one is out", async || {
        fixture.namespace.endpoint_ips("kept").await.len() == 2
    })
    .await;
    databases[0].stop().await;
    kept_is(vec![ips[2].clone()]).await;
    databases[2].stop().await;
    fixture.expect_endpoints(&[]).await;
    metric(&daemon, "unhealthy_kept_addresses", Some(1.0)).await;
    kept_is(vec![ips[2].clone()]).await;

    // An outside edit or a restart does not empty it either.
    fixture.namespace.delete::<Endpoints>("kept").await;
    kept_is(vec![ips[2].clone()]).await;
    let edit = json!({"subsets": [{"addresses": [{"ip": ips[0]}], "ports": [{"port": 3306}]}]});
    let api: Api<Endpoints> = fixture.namespace.api();
    api.patch("kept", &PatchParams::default(), &Patch::Merge(edit)).await.expect("a patch");
    kept_is(vec![ips[2].clone()]).await;
    drop(daemon);
    let daemon = start(&yaml).await;
    metric(&daemon, "unhealthy_kept_addresses", Some(1.0)).await;
    wait_for_checks(&daemon, 3).await;
    kept_is(vec![ips[2].clone()]).await;
    assert_eq!(
        daemon.metric("external_endpoints_writes_total", &[]).await,
        None,
        "a restart alone changes nothing"
    );

    databases[0].restart().await;
    kept_is(vec![ips[0].clone()]).await;
    metric(&daemon, "unhealthy_kept_addresses", Some(0.0)).await;
}

/// Passes on those that say that they are the writer.
const ROLE: &str = "{http: {path: /primary}, interval: 250ms, timeout: 1s}";

const NO: (u16, &str) = (503, "replica");
const YES: (u16, &str) = (200, "primary");

async fn says(fixture: &mut Fixture, which: usize, (status, body): (u16, &str)) {
    fixture.databases[which].set_behavior(Behavior::Http(status, body.to_owned())).await;
}

async fn a_writer_is_replaced_in_one_write() {
    let mut fixture = Fixture::new("writer").await;
    for (which, answer) in [YES, NO, NO].into_iter().enumerate() {
        says(&mut fixture, which, answer).await;
    }
    let daemon =
        start(&with_each(&fixture, ["", "", ""], ROLE, "{exactlyOne: true, minHealthy: 1}")).await;
    fixture.expect_endpoints(&[0]).await;
    metric(&daemon, "split_brain", Some(0.0)).await;
    let history = fixture.history().await;

    says(&mut fixture, 1, YES).await;
    metric(&daemon, "split_brain", Some(1.0)).await;
    assert_eq!(database(&daemon.status().await)["splitBrain"], true);
    let note = format!(
        "split brain: {} pass, where one should; {}, which is published, stays alone",
        fixture.ips(&[0, 1]).join(", "),
        fixture.databases[0].ip
    );
    assert_eq!(notes(&daemon).await, std::slice::from_ref(&note));
    wait_for_checks(&daemon, 3).await;
    assert_eq!(history.steps(), []);

    // The new one is confirmed and alone.
    says(&mut fixture, 0, NO).await;
    fixture.expect_endpoints(&[1]).await;
    metric(&daemon, "split_brain", Some(0.0)).await;
    // Nobody for a while, then another one.
    says(&mut fixture, 1, NO).await;
    health(&daemon, ["down", "down", "down"]).await;
    says(&mut fixture, 2, YES).await;
    fixture.expect_endpoints(&[2]).await;
    history.expect_steps(&[Some(fixture.ips(&[1])), Some(fixture.ips(&[2]))]).await;
    let logged = |words: &str| daemon.logs().iter().filter(|line| line["message"] == words).count();
    assert_eq!((logged(&note), logged("the split brain is over")), (1, 1), "{:#?}", daemon.lines());
}

async fn a_writer_that_cannot_be_checked_is_replaced() {
    let fixture = Fixture::new("untried-writer").await;
    let folder = temp_dir("writer");
    let program = |which: usize| folder.join(fixture.databases[which].ip.to_string());
    let says = |which: usize, answer: &str| {
        let new = folder.join("new");
        std::os::unix::fs::symlink(format!("/usr/bin/{answer}"), &new)
            .expect("a link in the sandbox");
        std::fs::rename(new, program(which)).expect("our own link");
    };
    for (which, answer) in ["true", "false", "false"].into_iter().enumerate() {
        says(which, answer);
    }
    let check = format!(
        "{{exec: {{command: [{}/$(TARGET_IP)]}}, interval: 250ms, timeout: 1s}}",
        folder.display()
    );
    let daemon = start(&with_each(&fixture, ["", "", ""], &check, "{exactlyOne: true}")).await;
    fixture.expect_endpoints(&[0]).await;
    health(&daemon, ["up", "down", "down"]).await;
    let history = fixture.history().await;

    std::fs::remove_file(program(0)).expect("our own link");
    eventually(TIMEOUT, "it can't be tried", async || {
        let reason = database(&daemon.status().await)["targets"][0]["reason"].to_string();
        if reason.contains("not found") { Ok(()) } else { Err(reason) }
    })
    .await;
    // Alone, it stays.
    wait_for_checks(&daemon, 20).await;
    assert_eq!(history.steps(), []);
    says(1, "true");
    fixture.expect_endpoints(&[1]).await;
    metric(&daemon, "split_brain", Some(0.0)).await;
    health(&daemon, ["up", "up", "down"]).await;
    history.expect_steps(&[Some(fixture.ips(&[1]))]).await;
}

async fn two_writers_at_startup_are_not_published() {
    let mut fixture = Fixture::new("two-writers").await;
    for (which, answer) in [YES, YES, NO].into_iter().enumerate() {
        says(&mut fixture, which, answer).await;
    }
    let daemon = start(&with_each(&fixture, ["", "", ""], ROLE, "{exactlyOne: true}")).await;
    metric(&daemon, "split_brain", Some(1.0)).await;
    fixture.expect_condition(&daemon, "Published").await;
    wait_for_checks(&daemon, 3).await;
    assert_eq!(fixture.namespace.endpoint_ips("mysql").await, [""; 0]);
    // The operator says which one is wrong.
    annotate(
        &fixture,
        json!({"external-endpoints/maintenance": format!("{}=stale", fixture.databases[0].ip)}),
    )
    .await;
    fixture.expect_endpoints(&[1]).await;
    metric(&daemon, "split_brain", Some(0.0)).await;
}

async fn the_preferred_tier_returns_after_the_failback_delay() {
    let mut fixture = Fixture::new("tiers").await;
    let yaml = with_each(
        &fixture,
        ["", ", priority: 1", ", priority: 1"],
        CHECK,
        "{failback: {delay: 3s}}",
    );
    let daemon = start(&yaml).await;
    fixture.expect_endpoints(&[0]).await;
    metric(&daemon, "serving_tier", Some(0.0)).await;
    let history = fixture.history().await;
    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[1, 2]).await;
    metric(&daemon, "serving_tier", Some(1.0)).await;
    assert_eq!(notes(&daemon).await, ["tier 1 serves"]);
    assert_eq!(database(&daemon.status().await)["targets"][1]["tier"], 1);

    fixture.databases[0].restart().await;
    metric(&daemon, "failback_waiting", Some(1.0)).await;
    let status = database(&daemon.status().await);
    let time =
        |value: &Value| humantime::parse_rfc3339(value.as_str().expect("a time")).expect("a time");
    let (well, due) = (time(&status["targets"][0]["since"]), time(&status["failbackAt"]));
    let delay = due.duration_since(well).expect("it comes later");
    assert!(delay.abs_diff(Duration::from_secs(3)) < Duration::from_millis(50), "{delay:?}");
    fixture.expect_endpoints(&[0]).await;
    assert!(std::time::SystemTime::now() >= due - Duration::from_millis(50), "it came too soon");
    history.expect_steps(&[Some(fixture.ips(&[1, 2])), Some(fixture.ips(&[0]))]).await;
}

/// Runs `failback NAMESPACE/SERVICE`, and returns its output.
async fn ask_failback(id: String) -> Output {
    let kubeconfig = shared().kubeconfig();
    blocking(move || {
        let mut command = Command::new(crate::support::daemon::PROGRAM);
        command.args(["failback", &id]).env("KUBECONFIG", kubeconfig).output().expect("the program")
    })
    .await
}

async fn the_preferred_tier_returns_on_request() {
    let mut fixture = Fixture::new("by-hand").await;
    let yaml = with_each(
        &fixture,
        ["", ", priority: 1", ", priority: 2"],
        CHECK,
        "{failback: {manual: true}}",
    );
    let mut daemon = start(&yaml).await;
    fixture.expect_endpoints(&[0]).await;
    let fail_over = async |fixture: &mut Fixture, daemon: &Daemon| {
        fixture.databases[0].stop().await;
        fixture.expect_endpoints(&[1]).await;
        fixture.databases[0].restart().await;
        metric(daemon, "failback_waiting", Some(1.0)).await;
        wait_for_checks(daemon, 4).await;
        assert_eq!(fixture.namespace.endpoint_ips("mysql").await, fixture.ips(&[1]));
    };
    fail_over(&mut fixture, &daemon).await;
    let id = format!("{}/mysql", fixture.namespace.name);
    let output = ask_failback(id.clone()).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(said.starts_with(&format!("requested a failback of {id}")), "{said}");
    fixture.expect_endpoints(&[0]).await;

    // An old request is not valid for ever, not even for a daemon that reads it for the first time.
    fail_over(&mut fixture, &daemon).await;
    daemon.terminate().await;
    let daemon = start(&yaml).await;
    metric(&daemon, "failback_waiting", Some(1.0)).await;
    wait_for_checks(&daemon, 4).await;
    assert_eq!(fixture.namespace.endpoint_ips("mysql").await, fixture.ips(&[1]));
    annotate(&fixture, json!({"external-endpoints/failback": "now, please"})).await;
    fixture.expect_endpoints(&[0]).await;

    let output = ask_failback(format!("{}/none", fixture.namespace.name)).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        said.contains(&format!("there is no Service {}/none", fixture.namespace.name)),
        "{said}"
    );
}

async fn maintenance_by_config_and_by_annotation() {
    let fixture = Fixture::new("maintenance").await;
    let ips: Vec<String> =
        fixture.databases.iter().map(|database| database.ip.to_string()).collect();
    let daemon = start(&with_each(&fixture, ["", "", ", maintenance: kernel"], CHECK, "{}")).await;
    fixture.expect_endpoints(&[0, 1]).await;
    let reasons = async || {
        let status = database(&daemon.status().await);
        [0, 1, 2].map(|index| {
            status["targets"][index]["maintenance"].as_str().unwrap_or_default().to_owned()
        })
    };
    assert_eq!(reasons().await, ["", "", "kernel"]);

    annotate(
        &fixture,
        json!({
            "external-endpoints/maintenance":
                format!("{}=disk swap, until Friday,10.9.9.9=x", ips[0]),
        }),
    )
    .await;
    fixture.expect_endpoints(&[1]).await;
    assert_eq!(reasons().await, ["disk swap, until Friday", "", "kernel"]);
    let problem =
        "annotation external-endpoints/maintenance: 10.9.9.9 is no address of this database";
    assert_eq!(notes(&daemon).await, [problem]);
    let of_first = [("address", ips[0].as_str())];
    assert_eq!(
        daemon.metric("external_endpoints_target_in_maintenance", &of_first).await,
        Some(1.0)
    );
    // Still checked.
    health(&daemon, ["up", "up", "up"]).await;

    // All of them: as it was asked for.
    let all = format!("{}=a,{}=b", ips[0], ips[1]);
    annotate(&fixture, json!({"external-endpoints/maintenance": all, "else/where": "x"})).await;
    fixture.expect_endpoints(&[]).await;
    annotate(&fixture, json!({"external-endpoints/maintenance": null})).await;
    fixture.expect_endpoints(&[0, 1]).await;
    assert_eq!(reasons().await, ["", "", "kernel"]);
    metric(&daemon, "target_in_maintenance", Some(1.0)).await;

    // The last one does not go where the policy forbids it.
    drop(daemon);
    let daemon =
        start(&with_each(&fixture, ["", "", ", maintenance: kernel"], CHECK, "{minHealthy: 1}"))
            .await;
    fixture.expect_condition(&daemon, "Published").await;
    annotate(
        &fixture,
        json!({"external-endpoints/maintenance": format!("{}=a,{}=b", ips[1], ips[0])}),
    )
    .await;
    eventually(TIMEOUT, "one stays", async || {
        fixture.namespace.endpoint_ips("mysql").await.len() == 1
    })
    .await;
    metric(&daemon, "unhealthy_kept_addresses", Some(1.0)).await;
}

async fn a_flapping_target_is_published_only_as_the_last_one() {
    let mut fixture = Fixture::new("flapping").await;
    let daemon = start(&with_each(&fixture, ["", "", ""], CHECK, "{maxFlips: 5}")).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    for _ in 0..2 {
        fixture.databases[1].stop().await;
        fixture.expect_endpoints(&[0, 2]).await;
        fixture.databases[1].restart().await;
        fixture.expect_endpoints(&[0, 1, 2]).await;
    }
    metric(&daemon, "target_flapping", None).await;
    // The sixth flip is one too many.
    fixture.databases[1].stop().await;
    fixture.expect_endpoints(&[0, 2]).await;
    fixture.databases[1].restart().await;
    health(&daemon, ["up", "up", "up"]).await;
    metric(&daemon, "target_flapping", Some(1.0)).await;
    let ip = fixture.databases[1].ip;
    assert_eq!(notes(&daemon).await, [format!("{ip} flapped, and must be healthy for longer")]);
    let status = database(&daemon.status().await);
    assert!(status["targets"][1]["flappingUntil"].is_string(), "{status}");
    consistently(Duration::from_secs(2), "it stays out", async || {
        let there = fixture.namespace.endpoint_ips("mysql").await;
        if there == fixture.ips(&[0, 2]) { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[2]).await;
    fixture.databases[2].stop().await;
    fixture.expect_endpoints(&[1]).await;
}

/// Fails a target several times, each time for fewer checks than the threshold.
async fn failures_below_the_threshold_remove_nothing() {
    let mut fixture = Fixture::new("unsteady").await;
    let patient =
        "{tcp: {}, interval: 3s, recheckInterval: 3s, timeout: 1s, unhealthyThreshold: 3}";
    let daemon = start(&with_each(&fixture, ["", "", ""], patient, "{}")).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let history = fixture.history().await;
    let address = fixture.databases[1].ip.to_string();
    let tried = async |result: &str| {
        let labels = [("address", address.as_str()), ("result", result)];
        daemon.metric("external_endpoints_checks_total", &labels).await.unwrap_or_default()
    };
    for time in 1..=4 {
        let passed = tried("pass").await;
        fixture.databases[1].stop().await;
        eventually(TIMEOUT, "a check fails", async || tried("fail").await >= f64::from(time)).await;
        fixture.databases[1].restart().await;
        eventually(TIMEOUT, "a check passes", async || tried("pass").await > passed).await;
    }
    assert_eq!(history.steps(), []);
    health(&daemon, ["up", "up", "up"]).await;
    metric(&daemon, "target_flapping", None).await;
}

async fn a_dry_run_applies_the_policy() {
    let mut fixture = Fixture::without_service("dry-policy").await;
    let yaml = fixture.config_with("  policy: {minHealthy: 1}\n");
    let last = fixture.databases[2].ip;
    let dry =
        Daemon::start(&yaml, std::path::Path::new("/nowhere/kubeconfig"), &["--dry-run"]).await;
    fixture
        .expect_condition_with(
            &dry,
            "DryRun",
            &format!("would publish {}", fixture.ips(&[0, 1, 2]).join(", ")),
        )
        .await;
    for which in 0..3 {
        fixture.databases[which].stop().await;
        eventually(TIMEOUT, "it is down", async || {
            database(&dry.status().await)["targets"][which]["health"] == "down"
        })
        .await;
    }
    fixture.expect_condition_with(&dry, "DryRun", &format!("would publish {last}")).await;
    wait_for_checks(&dry, 2).await;
    assert_eq!(database(&dry.status().await)["reason"], format!("would publish {last}"));
}
