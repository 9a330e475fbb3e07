//! Each alert, by a real cause, with the commands of its runbook; then the dashboard's queries.

use crate::fixture::replace_in;
use crate::monitoring::dashboard;
use crate::monitoring::scene::{LATE, LEGACY, NAME, Scene, ip};
use crate::support::name_server::Reply;
use serde_json::{Value, json};

/// The addresses of `mysql`, and of all databases that a freeze needs to fail.
const MYSQL: [u8; 3] = [11, 12, 13];
const MOST: [u8; 13] = [11, 12, 13, 31, 32, 51, 52, 91, 92, 93, 94, 95, 99];

pub(crate) async fn each_alert_fires_and_resolves() {
    let mut scene = Scene::new().await;
    let begun = scene.prometheus.now().await;
    // Prometheus ran before there was a leader.
    let fired = "count_over_time(ALERTS{alertstate=\"firing\",alertname!~\".*NoLeader\"}[1h])";
    assert_eq!(scene.prometheus.query(fired).await, Vec::<Value>::new(), "at a start");
    scene.break_batch();

    target_down(&mut scene).await;
    database_down(&mut scene).await;
    split_brain(&mut scene).await;
    below_min_healthy(&mut scene).await;
    not_published(&scene).await;
    config_bad(&scene).await;
    no_leader(&mut scene).await;
    no_replica(&mut scene).await;
    frozen(&mut scene).await;
    checks_late(&scene).await;
    left_behind(&scene).await;

    show_the_rest(&mut scene).await;
    // The newest values are those of a step that is yet to come.
    let until = scene.prometheus.now().await + 2.0;
    dashboard::expect_data(&scene.prometheus, begun, until).await;
}

async fn target_down(scene: &mut Scene) {
    scene.stop(&[11]).await;
    scene.fires("TargetDown", &[], "connect: refused").await;
    // The last command of the runbook puts the address into maintenance.
    scene.all_resolve().await;
    scene.restart(&[11]).await;
    scene.becomes("min(external_endpoints_target_healthy{address=\"203.0.113.11\"}) == 1").await;
    scene.command(&["maintenance", "off", "prod/mysql", "203.0.113.11"]).await;
    scene.becomes("min(external_endpoints_published_addresses{service=\"mysql\"}) == 3").await;
}

async fn database_down(scene: &mut Scene) {
    let maintenance = ["maintenance", "on", "prod/mysql", "203.0.113.13", "--reason", "disk"];
    scene.command(&maintenance).await;
    scene.stop(&MYSQL[..2]).await;
    // The last command of the runbook ends the maintenance.
    scene.fires("DatabaseDown", &["TargetDown"], "maintenance").await;
    scene.becomes("max(external_endpoints_published_addresses{service=\"mysql\"}) == 1").await;
    scene.restart(&MYSQL[..2]).await;
    scene.all_resolve().await;
}

async fn split_brain(scene: &mut Scene) {
    let second = crate::support::Database::start(ip(22), 3306).await;
    scene.databases.insert(22, second);
    scene.fires("SplitBrain", &[], "203.0.113.22").await;
    scene.stop(&[22]).await;
    scene.command(&["maintenance", "on", "prod/orders", "203.0.113.22", "--reason", "off"]).await;
    scene.all_resolve().await;
}

async fn below_min_healthy(scene: &mut Scene) {
    scene.stop(&[31, 32]).await;
    scene.fires("BelowMinHealthy", &["TargetDown"], "minHealthy").await;
    scene.restart(&[31, 32]).await;
    scene.all_resolve().await;
}

async fn not_published(scene: &Scene) {
    let two = json!([{"name": "a", "port": 3307}, {"name": "b", "port": 3308}]);
    scene.set_ports("mysql", two).await;
    scene.fires("NotPublished", &[], "PortMismatch").await;
    scene.set_ports("mysql", json!([{"port": 3306}])).await;
    scene.all_resolve().await;
}

async fn config_bad(scene: &Scene) {
    scene.write_file("databases: [{servise: mysql}]\n");
    scene.fires("ConfigBad", &[], "servise").await;
    scene.write_config(LEGACY);
    scene.all_resolve().await;
}

async fn no_leader(scene: &mut Scene) {
    let killed = scene.kill_leader().await;
    scene.fires("NoLeader", &[], "external-endpoints-7c9f-x2x").await;
    scene.all_resolve().await;
    scene.start(killed).await;
    scene.becomes("count(external_endpoints_leader) == 2").await;
}

async fn no_replica(scene: &mut Scene) {
    scene.kill(0);
    scene.kill(1);
    scene.becomes("absent(external_endpoints_leader)").await;
    scene.becomes("ALERTS{alertname=\"ExternalEndpointsNoLeader\", alertstate=\"firing\"}").await;
    scene.start(0).await;
    scene.start(1).await;
    scene.all_resolve().await;
    scene.becomes("count(external_endpoints_target_healthy == 1) > 34").await;
}

async fn frozen(scene: &mut Scene) {
    scene.stop(&MOST).await;
    scene.fires("Frozen", &["TargetDown", "BelowMinHealthy"], "froze").await;
    scene.restart(&MOST).await;
    scene.all_resolve().await;
}

async fn checks_late(scene: &Scene) {
    scene.write_config(&format!("{LEGACY}{LATE}"));
    scene.fires("ChecksLate", &[], "external-endpoints").await;
    scene.write_config(&format!("{LEGACY}{}", in_time()));
    scene.all_resolve().await;
}

/// Returns the database `late` with a check that is in time.
fn in_time() -> String {
    replace_in(
        LATE,
        "{exec: {command: [/bin/sleep, '0.4']}, interval: 500ms",
        "{tcp: {}, interval: 5s",
    )
}

async fn left_behind(scene: &Scene) {
    scene.write_config(&in_time());
    // The last commands of the runbook delete what is left behind.
    scene.fires("LeftBehind", &[], "legacy").await;
    scene.all_resolve().await;
}

/// Makes the rest of the metrics that the dashboard shows.
async fn show_the_rest(scene: &mut Scene) {
    // Tiers: the lower one serves, and the preferred one waits.
    scene.stop(&[51]).await;
    scene.becomes("max(external_endpoints_serving_tier) == 1").await;
    scene.restart(&[51]).await;
    scene.becomes("max(external_endpoints_failback_waiting) == 1").await;
    scene.stop(&[71]).await;
    scene.becomes("max(external_endpoints_target_healthy{address=\"203.0.113.71\"}) == 0").await;
    scene.restart(&[71]).await;
    scene.becomes("external_endpoints_target_flapping == 1").await;
    scene.dns.set(NAME, Reply::Addresses(vec![ip(42), [127, 0, 0, 1].into()], 1));
    scene.becomes("external_endpoints_name_kept_addresses > 0").await;
    scene.becomes("increase(external_endpoints_name_changes_total[10s])").await;
    scene.becomes("external_endpoints_target_lag_seconds").await;
    // The checks of `batch` have said nothing for more than a minute by now.
    scene.becomes("external_endpoints_target_inconclusive == 1").await;
}
