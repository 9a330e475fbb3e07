use serde_json::json;

use super::*;
use crate::status::TargetStatus;

/// Returns a target that is up, down or in maintenance.
pub(super) fn target(state: &str) -> TargetStatus {
    let value = json!({
        "address": "10.0.0.1", "tier": 0, "health": if state == "down" { "down" } else { "up" },
        "passes": 1, "failures": 0, "since": "2026-11-28T13:45:00.000Z",
        "reason": if state == "down" { Some("connect: refused") } else { None },
        "maintenance": if state == "maintenance" { Some("disk swap") } else { None },
        "lastCheck": null, "lastDurationSeconds": null, "published": state == "up",
        "lastHour": "pd",
    });
    serde_json::from_value(value).expect("a target")
}

pub(super) fn database(service: &str, targets: Vec<TargetStatus>) -> DatabaseStatus {
    let value = json!({
        "namespace": "prod", "service": service, "condition": "Published", "reason": "",
        "since": "2026-11-28T13:00:00.000Z", "splitBrain": false, "planned": null,
        "published": ["10.0.0.1"], "targets": [],
    });
    DatabaseStatus { targets, ..serde_json::from_value(value).expect("a database") }
}

fn replica() -> ReplicaStatus {
    let value = json!({
        "version": "9.0.0", "now": "2026-11-28T14:00:00.000Z", "role": "leader", "lease": null,
        "frozen": null, "leftBehind": [],
        "config": {"file": "c.yaml", "since": "2026-11-28T13:00:00.000Z", "problems": []},
    });
    serde_json::from_value(value).expect("a replica")
}

fn overview_of(query: &str, replica: ReplicaStatus, databases: &[DatabaseStatus]) -> String {
    let query = Query::parse(query).expect("a good query");
    let mut survey = Survey::default();
    databases.iter().enumerate().for_each(|(index, it)| survey.add(&query, index, it));
    overview(replica, query, survey, |index| databases[index].clone()).collect()
}

#[test]
fn trouble_comes_first_and_is_counted() {
    let databases =
        [database("redis", vec![target("up")]), database("mysql", vec![target("down")])];
    let page = overview_of("", replica(), &databases);
    assert!(page.contains("<title>1 in trouble – external-endpoints</title>"), "{page}");
    let place = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} in {page}"));
    assert!(place("id=\"prod/mysql\"") < place("id=\"prod/redis\""));
    assert!(place("1 of 2 databases in trouble") < place("▼ 1 down"));
    assert!(page.contains("▼ down") && page.contains("15 min") && page.ends_with("</html>\n"));
    let page = overview_of("show=trouble", replica(), &databases);
    assert!(page.contains("prod/mysql") && !page.contains("prod/redis"), "{page}");
    let fine = overview_of("show=trouble", replica(), &databases[..1]);
    assert!(fine.contains("<title>external-endpoints</title>"), "{fine}");
    assert!(fine.contains("Nothing to show here"), "{fine}");
}

#[test]
fn a_target_shows_the_role_and_lag_of_its_server() {
    let observation = json!({
        "role": "replica", "lagSeconds": 3.25, "lagUnknown": "no <link>", "note": "it logs & logs",
    });
    let observation = serde_json::from_value(observation).expect("an observation");
    let target = TargetStatus { observation: Some(observation), ..target("up") };
    let page = overview_of("", replica(), &[database("redis", vec![target.clone()])]);
    let words = "replica, at most 3.3 s behind (no &lt;link&gt;)";
    assert!(page.contains(words) && page.contains("it logs &amp; logs"), "{page}");
    let now = serde_json::from_value(json!("2026-11-28T14:00:00.000Z")).expect("a time");
    let text = plain::database(&database("redis", vec![target]), &[0], now);
    let line = "\n    server: replica, at most 3.3 s behind (no <link>)\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn banners_say_what_concerns_all_databases() {
    let value = json!({
        "version": "9.0.0", "now": "2026-11-28T14:00:00.000Z", "role": "standby",
        "lease": {"name": "infra/lease", "identity": "pod-b_2", "held": false,
            "holder": "pod-a_1", "trouble": null},
        "frozen": {"since": "2026-11-28T13:59:00.000Z", "until": "2026-11-28T14:09:00.000Z",
            "failed": 7, "published": 9},
        "config": {"file": "c.yaml", "since": "2026-11-28T13:00:00.000Z",
            "problems": ["c.yaml:1:1: <b>"]},
        "leftBehind": [{"namespace": "old", "service": "db", "addresses": ["10.0.0.9"]}],
    });
    let page = overview_of("", serde_json::from_value(value).expect("a replica"), &[]);
    for text in [
        "This replica does not write. ",
        "kubectl -n infra port-forward pod/pod-a 8080",
        "7 of 9 published targets fail together",
        "<time datetime=\"2026-11-28T14:09:00.000Z\">9 min</time> more at the most",
        "<bdi>c.yaml:1:1: &lt;b&gt;</bdi>",
        "old/db: 10.0.0.9",
    ] {
        assert!(page.contains(text), "{text} in {page}");
    }
}

#[test]
fn texts_of_others_cannot_leave_their_place() {
    let hostile = "</bdi></td><script>alert(1)</script><img src=x onerror='alert(2)'>";
    let mut database = database("mysql", vec![target("down")]);
    database.targets[0].reason = Some(hostile.to_owned());
    database.targets[0].maintenance = Some(hostile.to_owned());
    database.policy = vec![hostile.to_owned()];
    database.reason = Some(hostile.to_owned());
    let query =
        format!("q={}", form_urlencoded::byte_serialize(b"\"><script>").collect::<String>());
    let overview = overview_of(&query, replica(), &[database.clone()]);
    let query = Query::default();
    let own = super::database(&replica(), &query, database).collect();
    for page in [overview, own] {
        assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
    }
}

/// Returns the page and the text of one database.
fn both_of(database: &DatabaseStatus) -> [String; 2] {
    let page = super::database(&replica(), &Query::default(), database.clone()).collect();
    [page, plain_database(replica().now, database)]
}

#[test]
fn what_would_change_a_plan_is_not_what_the_cluster_waits_for() {
    let membership = |planned: Option<bool>| {
        let value = json!({
            "planned": planned, "reason": "x", "why": "tier 1 serves", "until": "3 checks fail",
        });
        Some(serde_json::from_value(value).expect("a membership"))
    };
    for (published, planned, label) in [
        (false, Some(false), "comes back when"),
        (false, Some(true), "leaves when"),
        (false, None, "is decided when"),
        (true, Some(false), "comes back when"),
        (true, Some(true), "leaves when"),
        (true, None, "is decided when"),
    ] {
        let target = TargetStatus { published, membership: membership(planned), ..target("up") };
        let [page, text] = both_of(&database("mysql", vec![target]));
        let labels = ["comes back when", "leaves when", "is decided when"];
        for other in labels {
            assert_eq!(page.contains(other), other == label, "{other} in {page}");
            assert_eq!(text.contains(other), other == label && !published, "{other} in {text}");
        }
    }
}

#[test]
fn the_time_of_the_health_is_not_that_of_a_maintenance() {
    let [page, text] = both_of(&database("mysql", vec![target("maintenance")]));
    assert!(page.contains("■ maintenance</span><small>"), "{page}");
    assert!(page.contains("its checks: up for <time"), "{page}");
    assert!(text.contains("■ 10.0.0.1 maintenance, up for 15 min"), "{text}");
    let [page, text] = both_of(&database("mysql", vec![target("down")]));
    assert!(page.contains("▼ down</span> <time"), "{page}");
    assert!(text.contains("▼ 10.0.0.1 down for 15 min"), "{text}");
}

#[test]
fn checks_that_say_nothing_are_trouble_with_a_reason() {
    let reason = "exec: no such program";
    let why = format!("it was up, and its checks say nothing since: {reason}");
    let membership =
        json!({"planned": true, "reason": "healthy", "why": why, "until": "3 checks fail"});
    let inconclusive = TargetStatus {
        reason: Some(reason.into()),
        inconclusive_since: Some(replica().now),
        membership: serde_json::from_value(membership).expect("a membership"),
        ..target("up")
    };
    let page = overview_of("show=trouble", replica(), &[database("mysql", vec![inconclusive])]);
    assert!(page.contains("inconclusive for over a minute"), "{page}");
    assert_eq!(page.matches(reason).count(), 1, "{page}");
}

#[test]
fn what_is_published_beside_the_targets_is_shown() {
    let mut database = database("mysql", vec![target("up")]);
    for text in both_of(&database) {
        assert!(text.contains("1 of 1 published") && !text.contains("also"), "{text}");
    }
    database.published = Some(vec!["10.0.0.1".into(), "10.0.0.9".into()]);
    for text in both_of(&database) {
        assert!(text.contains("1 of 1 published, and also 10.0.0.9"), "{text}");
    }
}

#[test]
fn the_step_to_take_is_not_cut_off() {
    let long = format!("{} take this step", "it is long. ".repeat(50));
    let mut database = database("mysql", vec![target("up")]);
    (database.condition, database.reason) = (Some("Forbidden".into()), Some(long.clone()));
    database.policy = vec![long];
    for text in both_of(&database) {
        assert_eq!(text.matches("take this step").count(), 2, "{text}");
    }
}

#[test]
fn a_page_is_loaded_again_unless_it_is_paused() {
    let (on, paused) = (Query::default(), Query::parse("refresh=off").expect("a good query"));
    assert_eq!(refresh_interval(&on, 10), Some(10));
    assert_eq!(refresh_interval(&on, 10_000), Some(60));
    assert_eq!(refresh_interval(&paused, 10), None);
    let page = overview_of("q=x&refresh=off", replica(), &[]);
    assert!(page.contains("<a href=\"?q=x\">Continue</a>"), "{page}");
    let page = overview_of("q=x", replica(), &[]);
    assert!(page.contains("<a href=\"?q=x&amp;refresh=off\">Pause</a>"), "{page}");
}
