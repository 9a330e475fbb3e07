//! The main job: exactly the healthy addresses are published, without needless writes, and a
//! restart changes nothing.

use std::time::Duration;

use k8s_openapi::api::core::v1::Endpoints;
use libtest_mimic::Trial;

use crate::cluster::events::expect_event;
use crate::cluster::fixture::{CHECK, Fixture, TIMEOUT, config, database, wait_for_checks};
use crate::support::{
    Behavior, Daemon, Database, addresses, case::cases, consistently, eventually, shared, temp_dir,
};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        nothing_is_published_before_each_target_has_a_verdict,
        an_inconclusive_target_does_not_delay_the_others,
        a_published_target_that_cannot_be_checked_is_reported,
        one_of_three_databases_fails,
        many_services_lose_an_address_together,
        all_databases_fail_and_recover,
        a_restart_while_all_are_healthy_writes_nothing,
        a_restart_while_one_is_down_writes_nothing,
        after_a_restart_a_published_address_has_its_full_threshold,
        a_minute_of_steady_state_writes_nothing,
        both_families_are_published_with_hostnames,
        a_slice_mirrors_only_the_healthy_addresses,
    ]
}

/// Returns the number of write calls of the daemon, or `None` if it has not made any.
async fn writes(daemon: &Daemon) -> Option<f64> {
    daemon.metric("external_endpoints_writes_total", &[]).await
}

/// Returns a config for `mysql` with these addresses in their long form, `{address: …}`.
fn long_form(fixture: &Fixture, check: &str, addresses: &[String]) -> String {
    let namespace = &fixture.namespace.name;
    let addresses: Vec<String> =
        addresses.iter().map(|address| format!("  - {{{address}}}\n")).collect();
    format!(
        "databases:
- service: mysql
  namespace: {namespace}
  port: 3306
  check: {check}
  addresses:
{}",
        addresses.concat()
    )
}

async fn nothing_is_published_before_each_target_has_a_verdict() {
    let fixture = Fixture::new("verdicts").await;
    // Its first verdict takes as long as its timeout.
    let silent = Database::start_with(addresses::allocate_one(), 3306, Behavior::Silent).await;
    let yaml = long_form(
        &fixture,
        "{tcp: {}, interval: 250ms, timeout: 1s}",
        &[
            format!("address: {}", fixture.databases[0].ip),
            format!("address: {}, check: {{tcp: {{expect: welcome}}, timeout: 4s}}", silent.ip),
        ],
    );
    let history = fixture.history().await;
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    eventually(TIMEOUT, "the good one is up", async || {
        daemon.metric("external_endpoints_target_healthy", &[]).await == Some(1.0)
    })
    .await;
    let reason = fixture.expect_condition(&daemon, "WaitingForVerdicts").await;
    assert_eq!(reason, format!("no verdict yet for {}", silent.ip));
    let of_silent = [("address", silent.ip.to_string())];
    let of_silent: Vec<(&str, &str)> =
        of_silent.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(
        daemon.metric("external_endpoints_target_healthy", &of_silent).await,
        None,
        "absent while unknown"
    );
    assert_eq!(history.steps(), []);
    fixture.expect_endpoints(&[0]).await;
    // Created without addresses, and filled once.
    history.expect_steps(&[Some(Vec::new()), Some(fixture.ips(&[0]))]).await;
}

async fn an_inconclusive_target_does_not_delay_the_others() {
    let fixture = Fixture::new("inconclusive").await;
    // A target is well while its file is there.
    let files = temp_dir("well");
    let well = files.join(fixture.databases[0].ip.to_string());
    std::fs::write(&well, "").expect("a file in the sandbox");
    let yaml = long_form(
        &fixture,
        &format!(
            "{{exec: {{command: [/usr/bin/test, -e, {}/$(TARGET_IP)]}}, \
             interval: 250ms, timeout: 5s}}",
            files.display()
        ),
        &[
            format!("address: {}", fixture.databases[0].ip),
            format!("address: {}", fixture.databases[1].ip),
            format!(
                "address: {}, check: {{exec: {{command: [/nowhere/check]}}}}",
                fixture.databases[2].ip
            ),
        ],
    );
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    fixture.expect_endpoints(&[0]).await;
    let health =
        async |index: usize| database(&daemon.status().await)["targets"][index]["health"].clone();
    assert_eq!((health(1).await, health(2).await), ("down".into(), "unknown".into()));

    // Not knowing is no reason to take the last address away.
    let history = fixture.history().await;
    std::fs::remove_file(&well).expect("our own file");
    eventually(TIMEOUT, "it is down", async || health(0).await == "down").await;
    let reason = fixture.expect_condition(&daemon, "WaitingForVerdicts").await;
    let start = format!(
        "no target is up, and all verdicts are inconclusive for {} (exec: ",
        fixture.databases[2].ip
    );
    assert!(reason.starts_with(&start), "{reason}");
    wait_for_checks(&daemon, 4).await;
    assert_eq!(history.steps(), []);
}

async fn a_published_target_that_cannot_be_checked_is_reported() {
    let fixture = Fixture::new("untried").await;
    let program = temp_dir("programs").join("check");
    let install =
        || std::os::unix::fs::symlink("/usr/bin/true", &program).expect("a link in the sandbox");
    install();
    let check =
        format!("{{exec: {{command: [{}]}}, interval: 250ms, timeout: 5s}}", program.display());
    let yaml = long_form(&fixture, &check, &[format!("address: {}", fixture.databases[0].ip)]);
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    fixture.expect_endpoints(&[0]).await;
    fixture.expect_condition(&daemon, "Published").await;
    let history = fixture.history().await;
    let inconclusive = async || daemon.metric("external_endpoints_target_inconclusive", &[]).await;
    assert_eq!(inconclusive().await, None);

    std::fs::remove_file(&program).expect("our own link");
    let patience = Duration::from_secs(60) + TIMEOUT;
    eventually(patience, "it is in the metrics", async || inconclusive().await == Some(1.0)).await;
    let event = expect_event(
        &fixture.namespace,
        "ChecksInconclusive",
        "have been inconclusive for over 1m (exec: ",
    )
    .await;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    let status = database(&daemon.status().await);
    assert!(status["targets"][0]["inconclusiveSince"].is_string(), "{status:#}");
    assert!(
        status["policy"][0].as_str().is_some_and(|note| note.contains("it stays published")),
        "{status:#}"
    );

    install();
    expect_event(&fixture.namespace, "ChecksConclusive", "are conclusive again").await;
    assert_eq!(inconclusive().await, None);
    let lines = daemon.logs();
    let logged = |words: &str| {
        lines.iter().filter(|line| line["message"].to_string().contains(words)).count()
    };
    assert_eq!((logged("have been inconclusive for over"), logged("are conclusive again")), (1, 1));
    assert_eq!(history.steps(), [], "it was published all the while");
}

async fn one_of_three_databases_fails() {
    let mut fixture = Fixture::new("one-dies").await;
    let daemon = fixture.start_published().await;
    let history = fixture.history().await;
    let written = writes(&daemon).await;
    fixture.databases[1].stop().await;
    fixture.expect_endpoints(&[0, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;
    wait_for_checks(&daemon, 8).await;
    history.expect_steps(&[Some(fixture.ips(&[0, 2]))]).await;
    assert_eq!(writes(&daemon).await, written.map(|before| before + 1.0));
    let version = fixture.namespace.resource_version("mysql").await;
    assert_eq!(version.as_ref(), history.changes().last().map(|change| &change.version));
    let logged =
        |message: &str| daemon.logs().iter().filter(|line| line["message"] == message).count();
    assert_eq!(
        (logged("published"), logged("Endpoints written"), logged("target is down")),
        (1, 2, 1),
        "{:#?}",
        daemon.lines()
    );
    let status = database(&daemon.status().await);
    let dead = &status["targets"][1];
    assert_eq!(
        (&dead["health"], &dead["reason"], &dead["published"]),
        (&"down".into(), &"connect: refused".into(), &false.into())
    );
}

async fn many_services_lose_an_address_together() {
    // More than may be written at the same time.
    const SERVICES: usize = 80;
    let namespace = shared().namespace("many").await;
    let good = Database::start(addresses::allocate_one(), 3306).await;
    let mut bad = Database::start(addresses::allocate_one(), 3306).await;
    let mut yaml =
        format!("defaults: {{namespace: {}, check: {CHECK}}}\ndatabases:\n", namespace.name);
    for index in 0..SERVICES {
        namespace.create_service(&format!("mysql-{index}"), &[("", 3306)]).await;
        yaml += &format!(
            "- {{service: mysql-{index}, port: 3306, addresses: [{}, {}]}}\n",
            good.ip, bad.ip
        );
    }
    let _daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    let all_have = async |count: usize| {
        eventually(TIMEOUT, &format!("each Service has {count} addresses"), async || {
            let list = namespace
                .api::<Endpoints>()
                .list(&Default::default())
                .await
                .map_err(|error| error.to_string())?;
            let addresses = |endpoints: &Endpoints| {
                let subsets = endpoints.subsets.iter().flatten();
                subsets.flat_map(|subset| subset.addresses.iter().flatten()).count()
            };
            let done = list.items.iter().filter(|endpoints| addresses(endpoints) == count).count();
            if done == SERVICES { Ok(()) } else { Err(format!("{done} of {SERVICES}")) }
        })
        .await;
    };
    all_have(2).await;
    bad.stop().await;
    all_have(1).await;
}

async fn all_databases_fail_and_recover() {
    let mut fixture = Fixture::new("all-die").await;
    let daemon = fixture.start_published().await;
    for database in &mut fixture.databases {
        database.stop().await;
    }
    fixture.expect_endpoints(&[]).await;
    let endpoints = fixture.namespace.endpoints("mysql").await.expect("the Endpoints stay");
    assert_eq!(endpoints.subsets.unwrap_or_default(), [], "none is no subsets");
    fixture.expect_condition(&daemon, "Published").await;
    for database in &mut fixture.databases {
        database.restart().await;
    }
    fixture.expect_endpoints(&[0, 1, 2]).await;
}

async fn a_restart_while_all_are_healthy_writes_nothing() {
    let fixture = Fixture::new("restart").await;
    let mut daemon = fixture.start_published().await;
    let (status, took) = daemon.terminate().await;
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(1), "took {took:?} to end");
    let history = fixture.history().await;
    let again = fixture.start().await;
    wait_for_checks(&again, 8).await;
    fixture.expect_condition(&again, "Published").await;
    assert_eq!(writes(&again).await, None, "nor does it try to");
    drop(again);
    assert_eq!(history.steps(), [], "a restart alone changes nothing");
    assert_eq!(fixture.namespace.endpoint_ips("mysql").await, fixture.ips(&[0, 1, 2]));
}

async fn a_restart_while_one_is_down_writes_nothing() {
    let mut fixture = Fixture::new("restart-down").await;
    let mut daemon = fixture.start_published().await;
    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[1, 2]).await;
    // As a crash: no time to say goodbye.
    daemon.kill();
    let history = fixture.history().await;
    let again = fixture.start().await;
    wait_for_checks(&again, 8).await;
    fixture.expect_condition(&again, "Published").await;
    assert_eq!(writes(&again).await, None, "nor does it try to");
    assert_eq!(history.steps(), [], "a restart alone changes nothing");
    assert_eq!(fixture.namespace.endpoint_ips("mysql").await, fixture.ips(&[1, 2]));
}

async fn after_a_restart_a_published_address_has_its_full_threshold() {
    let mut fixture = Fixture::new("restart-threshold").await;
    let daemon = fixture.start_published().await;
    drop(daemon);
    fixture.databases[2].stop().await;
    let history = fixture.history().await;
    let yaml = config(
        &fixture.namespace.name,
        &fixture.ips(&[0, 1, 2]).join(", "),
        "{tcp: {}, interval: 250ms, timeout: 1s, unhealthyThreshold: 6}",
        "",
    );
    let again = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    let dead = fixture.databases[2].ip.to_string();
    eventually(TIMEOUT, "five failures", async || {
        let failures = again
            .metric("external_endpoints_checks_total", &[("address", &dead), ("result", "fail")])
            .await;
        if failures >= Some(6.0) {
            return Ok(());
        }
        // Until the sixth failure, the address stays.
        let steps = history.steps();
        assert!(
            failures.is_none_or(|n| n >= 5.0) || steps.is_empty(),
            "{steps:?} after {failures:?} failures"
        );
        Err(format!("{failures:?}"))
    })
    .await;
    fixture.expect_endpoints(&[0, 1]).await;
    history.expect_steps(&[Some(fixture.ips(&[0, 1]))]).await;
}

async fn a_minute_of_steady_state_writes_nothing() {
    let fixture = Fixture::new("steady").await;
    let daemon = fixture.start_published().await;
    let history = fixture.history().await;
    let tried =
        async || daemon.metric("external_endpoints_checks_total", &[]).await.unwrap_or_default();
    let tried_before = tried().await;
    let logged = daemon.lines().len();
    let written = writes(&daemon).await;
    consistently(Duration::from_secs(60), "nothing is written and nothing is logged", async || {
        let steps = history.steps();
        let lines = daemon.lines();
        if steps.is_empty() && lines.len() == logged {
            Ok(())
        } else {
            Err(format!("{steps:?}, {:?}", &lines[logged..]))
        }
    })
    .await;
    assert_eq!(writes(&daemon).await, written);
    let tried = tried().await - tried_before;
    assert!(tried > 600.0, "of 720 tries, {tried}");
}

async fn both_families_are_published_with_hostnames() {
    let namespace = shared().namespace("families").await;
    namespace.create_headless_service("mysql", &[("mysql", 3306)]).await;
    let four = Database::start(addresses::allocate_one(), 3306).await;
    let six = Database::start(addresses::allocate_v6(1)[0], 3306).await;
    let yaml = format!(
        "databases:
- service: mysql
  namespace: {}
  port: 3306
  check: {CHECK}
  addresses:
  - {{address: \"{}\", hostname: db-six}}
  - {{address: {}, hostname: db-four}}
",
        namespace.name, six.ip, four.ip
    );
    let _daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    let endpoints = eventually(TIMEOUT, "both are published", async || {
        namespace.endpoints("mysql").await.filter(|endpoints| endpoints.subsets.is_some())
    })
    .await;
    let json = serde_json::to_value(endpoints.subsets).expect("JSON");
    assert_eq!(
        json,
        serde_json::json!([{
            "addresses": [
                {"ip": four.ip, "hostname": "db-four"},
                {"ip": six.ip, "hostname": "db-six"},
            ],
            "ports": [{"name": "mysql", "port": 3306, "protocol": "TCP"}],
        }])
    );
    eventually(TIMEOUT, "a slice for each family", async || {
        namespace.slice_ips("mysql").await.len() == 2
    })
    .await;
}

async fn a_slice_mirrors_only_the_healthy_addresses() {
    let mut fixture = Fixture::new("mirror").await;
    let _daemon = fixture.start_published().await;
    let mut all = fixture.ips(&[0, 1, 2]);
    all.sort();
    eventually(TIMEOUT, "the slice has all", async || {
        fixture.namespace.slice_ips("mysql").await == all
    })
    .await;
    fixture.databases[0].stop().await;
    let mut healthy = fixture.ips(&[1, 2]);
    healthy.sort();
    eventually(TIMEOUT, "the slice has the healthy ones", async || {
        fixture.namespace.slice_ips("mysql").await == healthy
    })
    .await;
}
