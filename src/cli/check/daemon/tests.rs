//! Findings for each state of the daemon.

use serde_json::{Value, json};

use super::*;
use crate::cli::check::finding::Outcome;

fn status() -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"), "now": "2026-11-28T12:00:00.000Z", "role": "leader",
        "lease": {"name": "a/b", "identity": "x", "held": true, "holder": "x", "trouble": null},
        "frozen": null, "leftBehind": [],
        "config": {"file": "f", "since": "2026-11-28T12:00:00.000Z", "problems": []},
        "databases": [{
            "namespace": "prod", "service": "mysql", "condition": "Published", "reason": "r",
            "since": null, "policy": [], "splitBrain": false, "failbackAt": null,
            "planned": [], "published": [], "names": [], "rejected": [],
            "targets": [{
                "address": "10.0.0.1", "tier": 0, "health": "down", "passes": 0, "failures": 3,
                "since": "2026-11-28T12:00:00.000Z", "reason": null,
                "lastCheck": "2026-11-28T12:00:00.000Z", "lastDurationSeconds": 0.1,
                "published": false, "lastHour": "",
            }],
        }],
    })
}

/// Returns the outcome of a check for a status that differs in one place.
fn outcome(pointer: &str, value: Value, ready: Option<usize>, check: &str) -> Option<Outcome> {
    let mut status = status();
    if !pointer.is_empty() {
        *status.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
    }
    let status: DaemonStatus = serde_json::from_value(status).expect("a status");
    let findings = findings(&status, ready);
    findings.iter().find(|finding| finding.check == check).map(|finding| finding.outcome)
}

#[test]
fn each_state_has_its_finding() {
    let frozen = json!({"since": "2026-11-28T12:00:00.000Z", "until": null, "failed": 2,
        "published": 3});
    let database = "/databases/0/condition";
    let reason = "/databases/0/targets/0/reason";
    let table = [
        ("", json!(null), None, "daemon-replicas", None),
        ("", json!(null), Some(0), "daemon-replicas", Some(Outcome::Bad)),
        ("", json!(null), Some(1), "daemon-replicas", Some(Outcome::Warning)),
        ("", json!(null), Some(2), "daemon-replicas", Some(Outcome::Good)),
        ("", json!(null), None, "daemon-leader", Some(Outcome::Good)),
        ("/lease/holder", json!(null), None, "daemon-leader", Some(Outcome::Bad)),
        ("/version", json!("9"), None, "daemon-version", Some(Outcome::Warning)),
        ("/config/problems", json!(["x"]), None, "daemon-config", Some(Outcome::Bad)),
        ("", json!(null), None, "daemon-config", Some(Outcome::Good)),
        ("/frozen", frozen, None, "daemon-freeze", Some(Outcome::Warning)),
        ("", json!(null), None, "daemon-freeze", None),
        (database, json!("Published"), None, "daemon-databases", Some(Outcome::Good)),
        (database, json!("Standby"), None, "daemon-databases", Some(Outcome::Good)),
        (database, json!("NotOurs"), None, "daemon-databases", Some(Outcome::Bad)),
        (reason, json!("connect: refused"), None, "network-reach", Some(Outcome::Warning)),
        (reason, json!("status 500"), None, "network-reach", Some(Outcome::Good)),
    ];
    for (pointer, value, ready, check, expected) in table {
        assert_eq!(outcome(pointer, value.clone(), ready, check), expected, "{pointer} {value}");
    }
}
