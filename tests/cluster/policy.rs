//! Policies: what stays, what waits and what is never published together, on a real cluster and through restarts.

use std::process::{Command, Output};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use kube::api::{Api, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::cluster::scene::{CHECK, SOON, Scene, checked, config, database};
use crate::support::{Daemon, Manner, blocking, eventually, folder, holds, shared, trial::trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        all_fail_and_what_the_policy_says_stays,
        a_writer_is_replaced_in_one_write_and_never_doubled,
        a_writer_that_cannot_be_tried_gives_way_to_its_successor,
        two_writers_at_the_start_are_not_published,
        the_preferred_tier_returns_after_its_delay,
        the_preferred_tier_returns_when_asked,
        maintenance_by_config_and_by_annotation,
        a_target_that_flaps_stays_out_but_as_the_last_one,
        a_target_that_fails_now_and_then_stays_in,
        a_dry_run_plans_by_the_policy,
    ]
}

/// The config of `mysql` with these keys for each address, beside its IP.
fn with_each(scene: &Scene, each: [&str; 3], check: &str, policy: &str) -> String {
    let entry = |(database, keys): (&crate::support::Database, &str)| {
        format!("{{address: {}{keys}}}", database.ip)
    };
    let addresses: Vec<String> = scene.databases.iter().zip(each).map(entry).collect();
    config(&scene.namespace.name, &addresses.join(", "), check, &format!("  policy: {policy}\n"))
}

async fn start(yaml: &str) -> Daemon {
    Daemon::start(yaml, &shared().kubeconfig(), &[]).await
}

/// Waits until the health of the three targets is this.
async fn health(daemon: &Daemon, wanted: [&str; 3]) {
    eventually(SOON, &format!("health {wanted:?}"), async || {
        let status = database(&daemon.status().await);
        let health = [0, 1, 2].map(|index| status["targets"][index]["health"].clone());
        if health == wanted.map(Value::from) { Ok(()) } else { Err(format!("{health:?}")) }
    })
    .await;
}

async fn metric(daemon: &Daemon, name: &str, wanted: Option<f64>) {
    let name = format!("external_endpoints_{name}");
    eventually(SOON, &format!("{name} is {wanted:?}"), async || {
        let value = daemon.metric(&name, &[]).await;
        if value == wanted { Ok(()) } else { Err(format!("{value:?}")) }
    })
    .await;
}

async fn annotate(scene: &Scene, annotations: Value) {
    let api: Api<Service> = scene.namespace.api();
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    api.patch("mysql", &PatchParams::default(), &patch).await.expect("a patch");
}

/// What the policy says of itself.
async fn notes(daemon: &Daemon) -> Vec<String> {
    let notes = database(&daemon.status().await)["policy"].clone();
    notes.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

async fn all_fail_and_what_the_policy_says_stays() {
    let mut scene = Scene::new("all-fail").await;
    scene.namespace.create_service("kept", &[("", 3306)]).await;
    let kept =
        scene.config_with("  policy: {minHealthy: 1}\n").replace("service: mysql", "service: kept");
    let yaml = format!("{}{}", scene.config(), kept.replace("databases:\n", ""));
    let daemon = start(&yaml).await;
    let kept_is = async |wanted: Vec<String>| {
        eventually(SOON, &format!("`kept` has {wanted:?}"), async || {
            let there = scene.namespace.endpoint_ips("kept").await;
            if there == wanted { Ok(()) } else { Err(format!("{there:?}")) }
        })
        .await;
    };
    scene.published(&[0, 1, 2]).await;
    kept_is(scene.ips(&[0, 1, 2])).await;
    let mut databases = std::mem::take(&mut scene.databases);
    let ips: Vec<String> = databases.iter().map(|database| database.ip.to_string()).collect();
    // One after the other, so that it is certain which was healthy last.
    databases[1].stop().await;
    eventually(SOON, "one is out", async || scene.namespace.endpoint_ips("kept").await.len() == 2)
        .await;
    databases[0].stop().await;
    kept_is(vec![ips[2].clone()]).await;
    databases[2].stop().await;
    scene.published(&[]).await;
    metric(&daemon, "unhealthy_kept_addresses", Some(1.0)).await;
    kept_is(vec![ips[2].clone()]).await;

    // Nor do outside hands empty it, or a restart.
    scene.namespace.delete::<Endpoints>("kept").await;
    kept_is(vec![ips[2].clone()]).await;
    let edit = json!({"subsets": [{"addresses": [{"ip": ips[0]}], "ports": [{"port": 3306}]}]});
    let api: Api<Endpoints> = scene.namespace.api();
    api.patch("kept", &PatchParams::default(), &Patch::Merge(edit)).await.expect("a patch");
    kept_is(vec![ips[2].clone()]).await;
    drop(daemon);
    let daemon = start(&yaml).await;
    metric(&daemon, "unhealthy_kept_addresses", Some(1.0)).await;
    checked(&daemon, 3).await;
    kept_is(vec![ips[2].clone()]).await;
    assert_eq!(
        daemon.metric("external_endpoints_writes_total", &[]).await,
        None,
        "a restart alone changes nothing"
    );

    databases[0].start_again().await;
    kept_is(vec![ips[0].clone()]).await;
    metric(&daemon, "unhealthy_kept_addresses", Some(0.0)).await;
}

/// Passes on those that say that they are the writer.
const ROLE: &str = "{http: {path: /primary}, interval: 250ms, timeout: 1s}";

const NO: (u16, &str) = (503, "replica");
const YES: (u16, &str) = (200, "primary");

async fn says(scene: &mut Scene, which: usize, (status, body): (u16, &str)) {
    scene.databases[which].change(Manner::Http(status, body.to_owned())).await;
}

async fn a_writer_is_replaced_in_one_write_and_never_doubled() {
    let mut scene = Scene::new("writer").await;
    for (which, answer) in [YES, NO, NO].into_iter().enumerate() {
        says(&mut scene, which, answer).await;
    }
    let daemon =
        start(&with_each(&scene, ["", "", ""], ROLE, "{exactlyOne: true, minHealthy: 1}")).await;
    scene.published(&[0]).await;
    metric(&daemon, "split_brain", Some(0.0)).await;
    let history = scene.history().await;

    says(&mut scene, 1, YES).await;
    metric(&daemon, "split_brain", Some(1.0)).await;
    assert_eq!(database(&daemon.status().await)["splitBrain"], true);
    let note = format!(
        "split brain: {} pass, where one should; {}, which is published, stays alone",
        scene.ips(&[0, 1]).join(", "),
        scene.databases[0].ip
    );
    assert_eq!(notes(&daemon).await, std::slice::from_ref(&note));
    checked(&daemon, 3).await;
    assert_eq!(history.steps(), []);

    // The new one is confirmed and alone.
    says(&mut scene, 0, NO).await;
    scene.published(&[1]).await;
    metric(&daemon, "split_brain", Some(0.0)).await;
    // Nobody for a while, then another one.
    says(&mut scene, 1, NO).await;
    health(&daemon, ["down", "down", "down"]).await;
    says(&mut scene, 2, YES).await;
    scene.published(&[2]).await;
    history.is(&[Some(scene.ips(&[1])), Some(scene.ips(&[2]))]).await;
    let told = |words: &str| daemon.logs().iter().filter(|line| line["message"] == words).count();
    assert_eq!((told(&note), told("the split brain is over")), (1, 1), "{:#?}", daemon.lines());
}

async fn a_writer_that_cannot_be_tried_gives_way_to_its_successor() {
    let scene = Scene::new("untried-writer").await;
    let folder = folder("writer");
    let program = |which: usize| folder.join(scene.databases[which].ip.to_string());
    let says = |which: usize, answer: &str| {
        let new = folder.join("new");
        std::os::unix::fs::symlink(format!("/usr/bin/{answer}"), &new)
            .expect("a link in the bottle");
        std::fs::rename(new, program(which)).expect("our own link");
    };
    for (which, answer) in ["true", "false", "false"].into_iter().enumerate() {
        says(which, answer);
    }
    let check = format!(
        "{{exec: {{command: [{}/$(TARGET_IP)]}}, interval: 250ms, timeout: 1s}}",
        folder.display()
    );
    let daemon = start(&with_each(&scene, ["", "", ""], &check, "{exactlyOne: true}")).await;
    scene.published(&[0]).await;
    health(&daemon, ["up", "down", "down"]).await;
    let history = scene.history().await;

    std::fs::remove_file(program(0)).expect("our own link");
    eventually(SOON, "it can't be tried", async || {
        let reason = database(&daemon.status().await)["targets"][0]["reason"].to_string();
        if reason.contains("not found") { Ok(()) } else { Err(reason) }
    })
    .await;
    // Alone, it stays.
    checked(&daemon, 20).await;
    assert_eq!(history.steps(), []);
    says(1, "true");
    scene.published(&[1]).await;
    metric(&daemon, "split_brain", Some(0.0)).await;
    health(&daemon, ["up", "up", "down"]).await;
    history.is(&[Some(scene.ips(&[1]))]).await;
}

async fn two_writers_at_the_start_are_not_published() {
    let mut scene = Scene::new("two-writers").await;
    for (which, answer) in [YES, YES, NO].into_iter().enumerate() {
        says(&mut scene, which, answer).await;
    }
    let daemon = start(&with_each(&scene, ["", "", ""], ROLE, "{exactlyOne: true}")).await;
    metric(&daemon, "split_brain", Some(1.0)).await;
    scene.condition(&daemon, "Published").await;
    checked(&daemon, 3).await;
    assert_eq!(scene.namespace.endpoint_ips("mysql").await, [""; 0]);
    // The operator says which one is wrong.
    annotate(
        &scene,
        json!({"external-endpoints/maintenance": format!("{}=stale", scene.databases[0].ip)}),
    )
    .await;
    scene.published(&[1]).await;
    metric(&daemon, "split_brain", Some(0.0)).await;
}

async fn the_preferred_tier_returns_after_its_delay() {
    let mut scene = Scene::new("tiers").await;
    let yaml =
        with_each(&scene, ["", ", priority: 1", ", priority: 1"], CHECK, "{failback: {delay: 3s}}");
    let daemon = start(&yaml).await;
    scene.published(&[0]).await;
    metric(&daemon, "serving_tier", Some(0.0)).await;
    let history = scene.history().await;
    scene.databases[0].stop().await;
    scene.published(&[1, 2]).await;
    metric(&daemon, "serving_tier", Some(1.0)).await;
    assert_eq!(notes(&daemon).await, ["tier 1 serves"]);
    assert_eq!(database(&daemon.status().await)["targets"][1]["tier"], 1);

    scene.databases[0].start_again().await;
    metric(&daemon, "failback_waiting", Some(1.0)).await;
    let status = database(&daemon.status().await);
    let time =
        |value: &Value| humantime::parse_rfc3339(value.as_str().expect("a time")).expect("a time");
    let (well, due) = (time(&status["targets"][0]["since"]), time(&status["failbackAt"]));
    let delay = due.duration_since(well).expect("it comes later");
    assert!(delay.abs_diff(Duration::from_secs(3)) < Duration::from_millis(50), "{delay:?}");
    scene.published(&[0]).await;
    assert!(std::time::SystemTime::now() >= due - Duration::from_millis(50), "it came too soon");
    history.is(&[Some(scene.ips(&[1, 2])), Some(scene.ips(&[0]))]).await;
}

/// What the program says to `failback NAMESPACE/SERVICE`.
async fn ask_failback(id: String) -> Output {
    let kubeconfig = shared().kubeconfig();
    blocking(move || {
        let mut command = Command::new(crate::support::daemon::PROGRAM);
        command.args(["failback", &id]).env("KUBECONFIG", kubeconfig).output().expect("the program")
    })
    .await
}

async fn the_preferred_tier_returns_when_asked() {
    let mut scene = Scene::new("by-hand").await;
    let yaml = with_each(
        &scene,
        ["", ", priority: 1", ", priority: 2"],
        CHECK,
        "{failback: {manual: true}}",
    );
    let mut daemon = start(&yaml).await;
    scene.published(&[0]).await;
    let fail_over = async |scene: &mut Scene, daemon: &Daemon| {
        scene.databases[0].stop().await;
        scene.published(&[1]).await;
        scene.databases[0].start_again().await;
        metric(daemon, "failback_waiting", Some(1.0)).await;
        checked(daemon, 4).await;
        assert_eq!(scene.namespace.endpoint_ips("mysql").await, scene.ips(&[1]));
    };
    fail_over(&mut scene, &daemon).await;
    let id = format!("{}/mysql", scene.namespace.name);
    let output = ask_failback(id.clone()).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(said.starts_with(&format!("asked for a failback of {id}")), "{said}");
    scene.published(&[0]).await;

    // What was asked then is not asked for ever, not even for a daemon that sees it for the first time.
    fail_over(&mut scene, &daemon).await;
    daemon.terminate().await;
    let daemon = start(&yaml).await;
    metric(&daemon, "failback_waiting", Some(1.0)).await;
    checked(&daemon, 4).await;
    assert_eq!(scene.namespace.endpoint_ips("mysql").await, scene.ips(&[1]));
    annotate(&scene, json!({"external-endpoints/failback": "now, please"})).await;
    scene.published(&[0]).await;

    let output = ask_failback(format!("{}/none", scene.namespace.name)).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains(&format!("there is no Service {}/none", scene.namespace.name)), "{said}");
}

async fn maintenance_by_config_and_by_annotation() {
    let scene = Scene::new("maintenance").await;
    let ips: Vec<String> = scene.databases.iter().map(|database| database.ip.to_string()).collect();
    let daemon = start(&with_each(&scene, ["", "", ", maintenance: kernel"], CHECK, "{}")).await;
    scene.published(&[0, 1]).await;
    let reasons = async || {
        let status = database(&daemon.status().await);
        [0, 1, 2].map(|index| {
            status["targets"][index]["maintenance"].as_str().unwrap_or_default().to_owned()
        })
    };
    assert_eq!(reasons().await, ["", "", "kernel"]);

    annotate(
        &scene,
        json!({"external-endpoints/maintenance": format!("{}=disk swap, until Friday,10.9.9.9=x", ips[0])}),
    )
    .await;
    scene.published(&[1]).await;
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
    annotate(&scene, json!({"external-endpoints/maintenance": all, "else/where": "x"})).await;
    scene.published(&[]).await;
    annotate(&scene, json!({"external-endpoints/maintenance": null})).await;
    scene.published(&[0, 1]).await;
    assert_eq!(reasons().await, ["", "", "kernel"]);
    metric(&daemon, "target_in_maintenance", Some(1.0)).await;

    // The last one does not go where the policy forbids it.
    drop(daemon);
    let daemon =
        start(&with_each(&scene, ["", "", ", maintenance: kernel"], CHECK, "{minHealthy: 1}"))
            .await;
    scene.condition(&daemon, "Published").await;
    annotate(
        &scene,
        json!({"external-endpoints/maintenance": format!("{}=a,{}=b", ips[1], ips[0])}),
    )
    .await;
    eventually(SOON, "one stays", async || scene.namespace.endpoint_ips("mysql").await.len() == 1)
        .await;
    metric(&daemon, "unhealthy_kept_addresses", Some(1.0)).await;
}

async fn a_target_that_flaps_stays_out_but_as_the_last_one() {
    let mut scene = Scene::new("flapping").await;
    let daemon = start(&with_each(&scene, ["", "", ""], CHECK, "{maxFlips: 5}")).await;
    scene.published(&[0, 1, 2]).await;
    for _ in 0..2 {
        scene.databases[1].stop().await;
        scene.published(&[0, 2]).await;
        scene.databases[1].start_again().await;
        scene.published(&[0, 1, 2]).await;
    }
    metric(&daemon, "target_flapping", None).await;
    // The sixth flip is one too many.
    scene.databases[1].stop().await;
    scene.published(&[0, 2]).await;
    scene.databases[1].start_again().await;
    health(&daemon, ["up", "up", "up"]).await;
    metric(&daemon, "target_flapping", Some(1.0)).await;
    let ip = scene.databases[1].ip;
    assert_eq!(notes(&daemon).await, [format!("{ip} flapped, and must be well for longer")]);
    let status = database(&daemon.status().await);
    assert!(status["targets"][1]["flappingUntil"].is_string(), "{status}");
    holds(Duration::from_secs(2), "it stays out", async || {
        let there = scene.namespace.endpoint_ips("mysql").await;
        if there == scene.ips(&[0, 2]) { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
    scene.databases[0].stop().await;
    scene.published(&[2]).await;
    scene.databases[2].stop().await;
    scene.published(&[1]).await;
}

/// Below the threshold, again and again.
async fn a_target_that_fails_now_and_then_stays_in() {
    let mut scene = Scene::new("unsteady").await;
    let patient =
        "{tcp: {}, interval: 3s, recheckInterval: 3s, timeout: 1s, unhealthyThreshold: 3}";
    let daemon = start(&with_each(&scene, ["", "", ""], patient, "{}")).await;
    scene.published(&[0, 1, 2]).await;
    let history = scene.history().await;
    let address = scene.databases[1].ip.to_string();
    let tried = async |result: &str| {
        let labels = [("address", address.as_str()), ("result", result)];
        daemon.metric("external_endpoints_checks_total", &labels).await.unwrap_or_default()
    };
    for time in 1..=4 {
        let passed = tried("pass").await;
        scene.databases[1].stop().await;
        eventually(SOON, "a check fails", async || tried("fail").await >= f64::from(time)).await;
        scene.databases[1].start_again().await;
        eventually(SOON, "a check passes", async || tried("pass").await > passed).await;
    }
    assert_eq!(history.steps(), []);
    health(&daemon, ["up", "up", "up"]).await;
    metric(&daemon, "target_flapping", None).await;
}

async fn a_dry_run_plans_by_the_policy() {
    let mut scene = Scene::without_service("dry-policy").await;
    let yaml = scene.config_with("  policy: {minHealthy: 1}\n");
    let last = scene.databases[2].ip;
    let dry =
        Daemon::start(&yaml, std::path::Path::new("/nowhere/kubeconfig"), &["--dry-run"]).await;
    scene
        .condition_because(
            &dry,
            "DryRun",
            &format!("would publish {}", scene.ips(&[0, 1, 2]).join(", ")),
        )
        .await;
    for which in 0..3 {
        scene.databases[which].stop().await;
        eventually(SOON, "it is down", async || {
            database(&dry.status().await)["targets"][which]["health"] == "down"
        })
        .await;
    }
    scene.condition_because(&dry, "DryRun", &format!("would publish {last}")).await;
    checked(&dry, 2).await;
    assert_eq!(database(&dry.status().await)["reason"], format!("would publish {last}"));
}
