use serde_json::json;

use super::*;
use crate::publish::ConditionKind;
use crate::status::table;

fn target(changes: Value) -> Value {
    let mut target = json!({
        "address": "10.20.1.23", "tier": 0, "health": "down", "passes": 0, "failures": 180,
        "since": "2026-11-28T04:13:16.000Z", "reason": "connect: no answer in 2s",
        "lastCheck": "2026-11-28T04:28:14.000Z", "lastDurationSeconds": 2.0015,
        "published": false, "lastHour": ".ppfd", "nextCheck": "2026-11-28T04:28:19.000Z",
        "membership": {
            "planned": false, "reason": "down", "why": "its check failed 180 times in a row",
            "until": "2 checks in a row pass",
        },
        "check": {
            "summary": "http GET http://10.20.1.23:8008/primary", "intervalSeconds": 5.0,
            "recheckSeconds": 5.0, "timeoutSeconds": 2.0, "healthyThreshold": 2,
            "unhealthyThreshold": 3,
        },
    });
    let Value::Object(changes) = changes else { panic!("an object") };
    target.as_object_mut().expect("an object").extend(changes);
    target
}

fn database(changes: Value) -> Value {
    let mut database = json!({
        "namespace": "prod", "service": "orders", "condition": "Published", "reason": "",
        "since": "2026-11-28T04:13:16.000Z", "splitBrain": false,
        "planned": ["10.20.1.21"], "published": ["10.20.1.21"],
        "lastWrite": {
            "object": "Endpoints orders", "resourceVersion": "4711",
            "at": "2026-11-28T04:13:16.000Z",
        },
        "targets": [target(json!({})), target(json!({
            "address": "2001:db8::21", "health": "up", "passes": 4, "failures": 0, "reason": null,
            "published": true, "name": "db.corp",
            "membership": {"planned": true, "reason": "healthy", "why": "w", "until": "u"},
        }))],
    });
    let Value::Object(changes) = changes else { panic!("an object") };
    database.as_object_mut().expect("an object").extend(changes);
    database
}

fn status(database: Value) -> Value {
    json!({
        "version": "0.4.0", "now": "2026-11-28T04:28:16.000Z", "role": "leader", "lease": null,
        "frozen": null, "aKeyOfLater": true,
        "config": {"file": "c.yaml", "since": "2026-11-28T04:00:00.000Z", "problems": []},
        "leftBehind": [{"namespace": "prod", "service": "old", "addresses": ["10.0.0.9"]}],
        "databases": [database],
    })
}

fn answer(status: &Value, asked: Option<&str>, width: Option<u16>) -> Result<String, String> {
    let status: DaemonStatus = serde_json::from_value(status.clone()).expect("a status");
    let database = &status.databases[0];
    let selection = Selection::find(database, asked).map_err(|error| error.to_string())?;
    Ok(answer::render(&status.replica, database, &selection, width))
}

#[track_caller]
fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn an_address_that_is_down_is_explained() {
    let text = answer(&status(database(json!({}))), Some("10.20.1.23"), None).expect("an answer");
    assert_eq!(
        text,
        "▼ 10.20.1.23 is OUT of prod/orders; it is down since 2026-11-28T04:13:16Z (15 min)\n  \
         because           its check failed 180 times in a row\n  \
         comes back when   2 checks in a row pass\n  \
         now               180 failures in a row, the last 2 s ago and 2001.5 ms long: connect: no \
         answer in 2s; next try in 3.0 s\n  \
         check             http GET http://10.20.1.23:8008/primary every 5s, for 2s at most; 2 \
         passes in a row bring it back, 3 failures take it out\n  \
         not the cause     it is not in maintenance, it is not held back for flapping, there is no \
         freeze\n  \
         last hour         ·▁▁▄█ (a column for each minute: ▁ passed, ▄ failed, █ down, · not \
         checked)\n\nprod/orders\n  \
         condition         Published for 15 min\n  \
         the cluster holds 10.20.1.21 (this daemon wrote Endpoints orders 15 min ago, as \
         resourceVersion 4711)\n"
    );
}

#[test]
fn the_role_and_lag_of_the_server_are_shown() {
    let observation = json!({"role": "replica", "lagSeconds": 4, "note": "it logs each check"});
    let database = database(json!({"targets": [target(json!({"observation": observation}))]}));
    let text = answer(&status(database), Some("10.20.1.23"), None).expect("an answer");
    let line = "  server            replica, 4 s behind\n  note              it logs each check\n";
    assert_has(&text, &[line]);
}

#[test]
fn the_headline_compares_the_plan_with_the_cluster() {
    for (published, planned, expected) in [
        (Some(true), json!(true), "is PUBLISHED in prod/orders;"),
        (Some(true), json!(null), "is PUBLISHED in prod/orders;"),
        (Some(true), json!(false), "is still PUBLISHED in prod/orders, and shall be OUT;"),
        (Some(false), json!(false), "is OUT of prod/orders;"),
        (Some(false), json!(null), "is OUT of prod/orders;"),
        (Some(false), json!(true), "is OUT of prod/orders, and shall be PUBLISHED;"),
        (None, json!(true), "10.20.1.23 shall be PUBLISHED in prod/orders;"),
        (None, json!(false), "10.20.1.23 shall be OUT of prod/orders;"),
    ] {
        let membership = json!({"planned": planned, "reason": "x", "why": "w", "until": "u"});
        let target =
            target(json!({"published": published == Some(true), "membership": membership}));
        let holds = if published.is_some() { json!([]) } else { json!(null) };
        let database = database(json!({
            "targets": [target], "published": holds, "condition": "Forbidden",
            "reason": "may not patch endpoints",
        }));
        let text = answer(&status(database), Some("10.20.1.23"), None).expect("an answer");
        assert_has(&text, &[expected, "condition         Forbidden for 15 min: may not patch"]);
        let is_missing = published != Some(true) && planned == json!(true);
        let reasons = match is_missing {
            true => "because           the plan is not done: Forbidden for 15 min: may not patch",
            false => "because           w\n",
        };
        assert_has(&text, &[reasons]);
        let stays = published == Some(true) && planned == json!(false);
        assert_eq!(text.contains("not done yet      Forbidden"), stays, "{text}");
        // It is what changes the plan, whatever the cluster holds.
        let until = match planned.as_bool() {
            Some(true) => "leaves when       u\n",
            Some(false) => "comes back when   u\n",
            None => "is decided when   u\n",
        };
        assert_eq!(text.contains(until), !is_missing, "{text}");
    }
}

#[test]
fn each_condition_is_shown_with_the_step_to_take() {
    for kind in ConditionKind::ALL {
        let length = if kind.is_trouble() { 50 } else { 5 };
        let reason = format!("{} do this about it", "it is long. ".repeat(length));
        let changes = json!({"condition": kind.to_string(), "reason": reason, "planned": []});
        let text = answer(&status(database(changes)), Some("10.20.1.23"), None).expect("text");
        let line = format!("condition         {kind} for 15 min: {reason}");
        assert_has(&text, &[&line, "the plan is       no address"]);
    }
}

#[test]
fn addresses_and_names_are_found_however_they_are_written() {
    let names = json!([{
        "name": "db.corp", "result": "no such name", "resolved": false, "lastLookup": null,
        "failingSince": "2026-11-28T04:13:16.000Z", "nextLookup": "2026-11-28T04:28:26.000Z",
        "addresses": [{"address": "2001:db8::21", "dns": "departing"}],
        "refused": [{"address": "127.0.0.1", "reason": "a loopback address"}],
    }]);
    let status = status(database(json!({"names": names})));
    for asked in ["2001:db8::21", "2001:DB8:0:0::21", "[2001:db8::21]", "db.corp", "DB.Corp."] {
        let text = answer(&status, Some(asked), None).expect(asked);
        assert_has(&text, &["▲ 2001:db8::21 (db.corp) is PUBLISHED", "leaves when       u"]);
        assert!(!text.contains("▼ 10.20.1.23"), "{text}");
    }
    let by_name = answer(&status, Some("db.corp"), None).expect("an answer");
    let parts = ["db.corp: no such name", "no good answer", "2001:db8::21 (departing)", "in 10 s"];
    assert_has(&by_name, &parts);
    let refused = answer(&status, Some("127.0.0.1"), None).expect("an answer");
    assert_has(&refused, &["127.0.0.1 is refused", "a loopback address"]);
    let error = answer(&status, Some("10.9.9.9"), None).expect_err("it is unknown");
    assert_eq!(
        error,
        "prod/orders has no address 10.9.9.9; it has: 10.20.1.23, 2001:db8::21, db.corp"
    );
    let published = answer(&status, Some("10.20.1.21"), None).expect_err("it is unknown");
    assert_has(&published, &["no address 10.20.1.21, though the cluster holds it"]);
    let all = answer(&status, None, None).expect("an answer");
    let parts = ["prod/orders: 1 of 2 addresses are published", "▼ 10.20.1.23", "▲ 2001:db8::21"];
    assert_has(&all, &parts);
}

#[test]
fn what_concerns_the_whole_daemon_is_said_too() {
    let mut status = status(database(json!({"policy": ["tier 1 serves"], "planned": []})));
    status["role"] = json!("standby");
    status["lease"] = json!({
        "name": "ops/x", "identity": "a_1", "held": false, "holder": "b_2", "trouble": null,
    });
    status["frozen"] = json!({
        "since": "2026-11-28T04:13:16.000Z", "until": "2026-11-28T04:30:00.000Z", "failed": 3,
        "published": 4,
    });
    status["config"]["problems"] = json!(["line 3: no such key"]);
    let text = answer(&status, None, None).expect("an answer");
    assert_has(
        &text,
        &[
            "policy            tier 1 serves",
            "the plan is       no address",
            "3 of 4 published targets fail together, so nothing is taken out until \
             2026-11-28T04:30:00Z at the latest; then all that are down leave",
            "this replica does not write; b_2 does",
            "the last good one is in force: line 3: no such key",
        ],
    );
}

#[test]
fn a_replica_that_nobody_relieves_is_said_beside_each_target() {
    let mut status = status(database(json!({"condition": "Standby"})));
    status["role"] = json!("standby");
    let lease = |holder: Value| {
        json!({
            "name": "ops/x", "identity": "a_1", "held": false, "holder": holder,
            "trouble": "may not get leases",
        })
    };
    status["lease"] = lease(json!(null));
    let text = answer(&status, Some("2001:db8::21"), None).expect("an answer");
    let but = "but               no replica is known to write";
    assert_has(&text, &[but, "and none is known to: may not get leases"]);
    status["lease"] = lease(json!("b_2"));
    let text = answer(&status, Some("2001:db8::21"), None).expect("an answer");
    assert_has(&text, &["could not take over: may not get leases"]);
    assert!(!text.contains(but), "{text}");
}

#[test]
fn a_service_that_is_unknown_is_compared_with_the_others() {
    let status: DaemonStatus =
        serde_json::from_value(status(database(json!({})))).expect("a status");
    let find = |service: &str| {
        let id = DatabaseId { namespace: "prod".into(), service: service.into() };
        find_database(&status, &id).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(find("orders"), Ok(()));
    assert_has(
        &find("order").expect_err("unknown"),
        &["no database prod/order; is it prod/orders"],
    );
    assert_has(&find("old").expect_err("unknown"), &["still holds 10.0.0.9", "put the database"]);
}

#[test]
fn no_line_is_wide_and_no_text_is_hostile() {
    let hostile = format!("\u{1b}[2J\u{202e}\r\n{}", "größe 中文 ".repeat(40));
    let membership = json!({
        "planned": false, "reason": hostile, "why": hostile, "until": hostile,
    });
    let target = target(json!({"reason": hostile, "address": hostile, "membership": membership}));
    let database = database(json!({
        "targets": [target], "policy": [hostile], "reason": hostile, "condition": hostile,
    }));
    for width in [40, 80, 120] {
        let text = answer(&status(database.clone()), None, Some(width)).expect("an answer");
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\r']), "{text:?}");
        for line in text.lines() {
            let columns = unicode_width::UnicodeWidthStr::width(line);
            assert!(columns <= width.into(), "{columns} columns of {width}: {line}");
        }
    }
}

#[test]
fn a_document_keeps_what_this_version_does_not_know() {
    let document = {
        let mut status = status(database(json!({"aFieldOfLater": [1]})));
        status["databases"][0]["targets"][0]["another"] = json!(2);
        status
    };
    let report = DaemonReport {
        status: serde_json::from_value(document.clone()).expect("a status"),
        document,
        replicas: table::Replicas::default(),
        default_namespace: None,
        warnings: Vec::new(),
    };
    let id = DatabaseId { namespace: "prod".into(), service: "orders".into() };
    let database = find_database(&report.status, &id).expect("a database");
    let selection = Selection::find(database, Some("10.20.1.23")).expect("a target");
    let shown = super::document(&report, &id, &selection);
    assert_eq!(shown["aFieldOfLater"], json!([1]));
    assert_eq!(shown["targets"].as_array().map(Vec::len), Some(1));
    assert_eq!(shown["targets"][0]["another"], json!(2));
}
