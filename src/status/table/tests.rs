//! The table, for statuses made by hand.

use super::*;
use crate::status::MembershipStatus;

const STATUS: &str = r#"{
    "version": "0.4.0", "now": "2026-11-28T04:28:16.000Z", "role": "leader",
    "lease": {"name": "ops/external-endpoints", "identity": "external-endpoints-x2x_3f2b8c1e",
        "held": true, "holder": "external-endpoints-x2x_3f2b8c1e", "trouble": null},
    "frozen": null,
    "config": {"file": "config.yaml", "since": "2026-11-28T04:16:00.000Z", "problems": []},
    "databases": [
        {"namespace": "prod", "service": "mysql", "condition": "Published", "reason": "",
         "since": "2026-11-28T01:00:00.000Z", "splitBrain": false, "planned": ["10.20.0.1"],
         "published": ["10.20.0.1"], "targets": [TARGET]},
        {"namespace": "legacy", "service": "crm", "condition": "NotOurs",
         "reason": "Endpoints were written by kubectl; set `adopt: true` to take them over",
         "since": "2026-11-28T01:00:00.000Z", "splitBrain": false, "planned": ["10.20.0.9"],
         "published": null, "targets": []}
    ]
}"#;

const TARGET: &str = r#"{"address": "10.20.0.1", "tier": 0, "health": "up", "passes": 9,
    "failures": 0, "since": "2026-11-28T04:13:16.000Z", "reason": null, "lastCheck": null,
    "lastDurationSeconds": null, "published": true}"#;

fn target(changes: &[(&str, serde_json::Value)]) -> TargetStatus {
    let mut target: serde_json::Value = serde_json::from_str(TARGET).expect("JSON");
    for (key, value) in changes {
        target[key] = value.clone();
    }
    serde_json::from_value(target).expect("a target")
}

fn status() -> DaemonStatus {
    serde_json::from_str(&STATUS.replace("TARGET", TARGET)).expect("a status")
}

fn down() -> TargetStatus {
    target(&[
        ("address", "10.20.1.23".into()),
        ("health", "down".into()),
        ("published", false.into()),
        ("reason", "connect: no answer in 2s".into()),
    ])
}

#[test]
fn a_wide_table_shows_the_roles_of_what_is_published() {
    let mut status = status();
    let mysql = &mut status.databases[0];
    let observation = serde_json::json!({"role": "primary", "product": "MySQL 8\u{1b}"});
    mysql.targets = vec![target(&[("observation", observation)]), down()];
    mysql.published = Some(vec!["10.20.0.1".into(), "10.20.0.9".into()]);
    let layout = Layout { width: None, detail: Detail::Wide };
    let text = render(&status, Replicas::default(), layout);
    assert!(text.contains(" 10.20.0.1 (primary, MySQL 8\\u{1b}), 10.20.0.9 "), "{text}");
}

/// Returns the lines of the table whose databases have no trouble but these targets.
fn out_of(targets: Vec<TargetStatus>) -> String {
    let mut status = status();
    status.databases.truncate(1);
    let published = targets.iter().filter(|target| target.published);
    status.databases[0].published = Some(published.map(|target| target.address.clone()).collect());
    status.databases[0].targets = targets;
    render(&status, Replicas::default(), Layout::default())
}

#[test]
fn the_table_shows_trouble_first() {
    let mut status = status();
    status.databases[0].targets.push(down());
    let held_since = Some(serde_json::from_str("\"2026-11-25T04:00:00.000Z\"").expect("a time"));
    let replicas = Replicas { ready: Some(2), held_since };
    let text = render(&status, replicas, Layout::default());
    let mysql = DatabaseStatus { targets: Vec::new(), ..status.databases[0].clone() };
    assert_eq!(
        text,
        "external-endpoints 0.4.0   leader external-endpoints-x2x (holds the Lease for 3 d), 1 \
         standby   config loaded 12 min ago\n\
         2 databases, 2 in trouble; 2 addresses: 1 published, 1 down\n\
         \n \
         NAMESPACE  SERVICE  CONDITION  PUBLISHED  OUT\n \
         prod       mysql    Published  1 of 2     10.20.1.23 ▼ down 15 min: connect: no answer \
         in 2s\n \
         legacy     crm      NotOurs    -          Endpoints were written by kubectl; set `adopt: \
         true` to take them over\n"
    );
    status.databases[0] = mysql;
    let text = render(&status, replicas, Layout::default());
    assert!(text.find("legacy") < text.find("prod"), "{text}");
}

#[test]
fn a_table_without_a_limit_looks_like_one_that_fits() {
    let mut status = status();
    let policy = vec!["größe 中文 ".repeat(50), "tier 1 serves".to_owned()];
    let long = DatabaseStatus { policy, ..status.databases[0].clone() };
    status.databases.push(long);
    status.databases[0].targets = vec![down(), down()];
    for detail in [Detail::Brief, Detail::Wide] {
        let of = |width| render(&status, Replicas::default(), Layout { width, detail });
        assert_eq!(of(None), of(Some(u16::MAX)));
    }
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let mut status = status();
    let long = "größe 中文 ".repeat(60);
    status.databases[0].targets = vec![TargetStatus { reason: Some(long.clone()), ..down() }];
    status.replica.config.problems = vec![long.clone()];
    for detail in [Detail::Brief, Detail::Wide] {
        for width in [40, 60, 80, 200] {
            let layout = Layout { width: Some(width), detail };
            let text = render(&status, Replicas::default(), layout);
            for line in text.lines() {
                let columns = unicode_width::UnicodeWidthStr::width(line);
                assert!(columns <= width.into(), "{columns} columns of {width}: {line}");
            }
        }
    }
}

#[test]
fn hostile_texts_do_not_reach_the_terminal() {
    let hostile = "\u{1b}]0;owned\u{7}\u{1b}[2J\r\n\u{202e}evil\u{200b}";
    let text = out_of(vec![TargetStatus {
        reason: Some(hostile.into()),
        address: hostile.into(),
        maintenance: None,
        ..down()
    }]);
    assert!(!text.contains(['\u{1b}', '\u{7}', '\r', '\u{202e}', '\u{200b}']), "{text:?}");
    assert_eq!(text.lines().count(), 5, "{text}");
}

#[test]
fn an_address_that_nobody_checks_is_shown_while_it_is_published() {
    let mut status = status();
    status.databases.truncate(1);
    status.databases[0].published = Some(vec!["10.20.0.1".into(), "10.20.0.7".into()]);
    let text = render(&status, Replicas::default(), Layout::default());
    assert!(text.contains("1 of 1     published, but not checked: 10.20.0.7\n"), "{text}");
}

#[test]
fn each_target_that_is_out_says_why() {
    let serviced = target(&[
        ("address", "10.20.1.21".into()),
        ("published", false.into()),
        ("maintenance", "disk swap".into()),
        ("maintenanceUntil", "2026-11-28T14:00:00.000Z".into()),
    ]);
    let membership = serde_json::json!({
        "planned": false, "reason": "lowerTier", "why": "it is up, and waits", "until": "x",
    });
    let spare = target(&[("published", false.into()), ("membership", membership)]);
    let kept = TargetStatus { published: true, ..down() };
    let text = out_of(vec![spare, serviced, kept]);
    for expected in [
        "10.20.1.21 ■ maintenance: disk swap (until 2026-11-28T14:00:00Z)",
        "10.20.0.1 ▲ up: it is up, and waits",
        "10.20.1.23 ▼ down 15 min, still published: connect: no answer in 2s",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    let many = out_of(std::iter::repeat_with(down).take(8).collect());
    assert!(many.contains("and 3 more"), "{many}");
}

#[test]
fn a_database_of_hundreds_of_addresses_stays_a_few_lines() {
    let membership = |planned| {
        Some(MembershipStatus {
            planned: Some(planned),
            reason: "x".into(),
            why: "y".into(),
            until: "z".into(),
            at: None,
        })
    };
    let planned = TargetStatus { membership: membership(true), published: false, ..down() };
    let planned = TargetStatus { health: crate::health::State::Up, ..planned };
    let mut status = status();
    status.databases.truncate(1);
    let database = &mut status.databases[0];
    database.condition = Some("DryRun".into());
    database.reason = Some(format!("would publish {}", "198.51.100.1, ".repeat(500)));
    database.published = Some(vec!["198.51.100.1".into(); 500]);
    database.targets = vec![planned; 500];
    for detail in [Detail::Brief, Detail::Wide] {
        let text = render(&status, Replicas::default(), Layout { width: None, detail });
        assert!(text.len() < 2000, "{text}");
        assert!(!text.contains("10.20.1.23"), "it is no fault that a dry run writes nothing");
        assert!(detail == Detail::Brief || text.contains("198.51.100.1 and 480 more"), "{text}");
    }
}

#[test]
fn banners_say_what_holds_for_the_whole_replica() {
    let mut status = status();
    let lease = status.replica.lease.as_mut().expect("a lease");
    lease.holder = Some("other-pod_1".into());
    status.replica.role = ReplicaRole::Standby;
    status.replica.config.problems = vec!["line 3: no such key".into()];
    status.replica.frozen = Some(
        serde_json::from_str(
            r#"{"since": "2026-11-28T04:27:00.000Z", "until": "2026-11-28T04:37:00.000Z",
                "failed": 4, "published": 5}"#,
        )
        .expect("a freeze"),
    );
    status.replica.left_behind = vec![
        serde_json::from_str(r#"{"namespace": "a", "service": "b", "addresses": ["10.0.0.9"]}"#)
            .expect("a rest"),
    ];
    let text = render(&status, Replicas::default(), Layout::default());
    for expected in [
        "standby external-endpoints-x2x",
        "this replica does not write; other-pod does",
        "config.yaml: line 3: no such key",
        "frozen for 1 min until 2026-11-28T04:37:00Z at the latest: 4 of 5",
        "a/b is not in the config, and still holds 10.0.0.9",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    let lease = status.replica.lease.as_mut().expect("a lease");
    (lease.holder, lease.trouble) = (None, Some("may not get leases".into()));
    let text = render(&status, Replicas::default(), Layout::default());
    assert!(
        text.contains("this replica does not write, and none is known to: may not get leases"),
        "{text}"
    );
}
