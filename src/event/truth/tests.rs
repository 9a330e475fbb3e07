//! Judgements of Events that were true once.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::clock;
use crate::config::DatabaseId;
use crate::event::aggregator::EventKey;
use crate::plan::Member;
use crate::plan::Policy;
use crate::publish::Condition;

fn members(hosts: &[u8]) -> Members {
    let member = |host: &u8| Member { ip: [10, 0, 0, *host].into(), hostname: None };
    hosts.iter().map(member).collect()
}

fn status(kind: ConditionKind, hosts: Option<&[u8]>) -> PublishStatus {
    PublishStatus {
        condition: Condition::new(kind, "why"),
        last_transition: clock::now(),
        members: hosts.map(members),
        synced: true,
        writes: BTreeMap::new(),
        last_write: None,
    }
}

/// Judges a statement, and returns the reason and note that correct it, if any.
fn corrected(reason: Reason, note: &str, status: &PublishStatus) -> Option<(Reason, String)> {
    let id = DatabaseId { namespace: "prod".into(), service: "mysql".into() };
    let regarding = Regarding::Database(id);
    let key = EventKey { regarding, reason, dedup_key: String::new() };
    match judge_members(Statement { key: &key, note }, status, clock::now()) {
        Judgement::True | Judgement::Undecided => None,
        Judgement::False(notice) => Some((notice.reason, notice.note)),
    }
}

#[test]
fn members_must_be_those_of_the_cluster() {
    let holds = status(ConditionKind::Published, Some(&[1, 2]));
    let good = [
        (Reason::Published, "10.0.0.1, 10.0.0.2 (-10.0.0.3)"),
        (Reason::Published, "10.0.0.1, 10.0.0.2"),
        (Reason::Published, "10.0.0.1, 10.0…"),
        (Reason::Repaired, "an outside change by x was repaired: 10.0.0.1, 10.0.0.2 (+10.0.0.1)"),
        // A field manager may have any name.
        (Reason::Repaired, "a change by repaired: 10.0.0.9 ( was repaired: 10.0.0.1, 10.0.0.2"),
    ];
    for (reason, note) in good {
        assert_eq!(corrected(reason, note, &holds), None, "{note}");
    }
    let truth = Some((Reason::Published, "10.0.0.1, 10.0.0.2".to_owned()));
    let bad = [
        (Reason::Published, "10.0.0.1 (-10.0.0.2)"),
        (Reason::Published, "10.0.0.1, 10.0.0.2, 10.0.0.3"),
        (Reason::Published, "none (-10.0.0.1)"),
        (Reason::Repaired, "an outside change was repaired: 10.0.0.1 (-10.0.0.2)"),
        (Reason::NotOurs, "not published: why"),
        (Reason::LeftBehind, "the config no longer has this database"),
    ];
    for (reason, note) in bad {
        assert_eq!(corrected(reason, note, &holds), truth, "{note}");
    }
    let none = status(ConditionKind::Published, Some(&[]));
    assert_eq!(corrected(Reason::Published, "none (-10.0.0.1)", &none), None);
}

#[test]
fn a_condition_with_an_event_is_the_newest() {
    let not_ours = status(ConditionKind::NotOurs, None);
    let note = "not published: why";
    assert_eq!(corrected(Reason::NotOurs, note, &not_ours), None);
    let truth = Some((Reason::NotOurs, note.to_owned()));
    assert_eq!(corrected(Reason::NotOurs, "not published: before", &not_ours), truth);
    assert_eq!(corrected(Reason::Published, "10.0.0.1", &not_ours), truth);
    let long = "x".repeat(2000);
    let mut rejected = status(ConditionKind::Rejected, Some(&[1]));
    rejected.condition.reason = long.clone();
    let stored = stored_note(&format!("not published: {long}"));
    assert_eq!(corrected(Reason::Rejected, &stored, &rejected), None);
}

#[test]
fn what_passes_by_itself_corrects_only_members() {
    for kind in [ConditionKind::ApiUnavailable, ConditionKind::WaitingForVerdicts] {
        let waits = status(kind, Some(&[1]));
        assert_eq!(corrected(Reason::NotOurs, "not published: why", &waits), None);
        let truth = Some((Reason::Published, "10.0.0.1".to_owned()));
        assert_eq!(corrected(Reason::Published, "10.0.0.2", &waits), truth);
        let unknown = status(kind, None);
        assert_eq!(corrected(Reason::Published, "10.0.0.2", &unknown), None);
    }
}

/// Judges a statement by the notes of a database without targets, and returns the reason and note
/// that correct it, if any.
fn corrected_by_notes(reason: Reason, notes: &[PolicyNote]) -> Option<(Reason, String)> {
    let id = DatabaseId { namespace: "prod".into(), service: "mysql".into() };
    let database = DatabaseSnapshot {
        id: id.clone(),
        plan: Plan::Keep(KeepReason::NotSynced),
        policy: Policy::default(),
        notes: notes.to_vec(),
        problems: Vec::new(),
        targets: Vec::new(),
        checks: Vec::new(),
        names: Vec::new(),
        refused: Vec::new(),
        changes: Arc::default(),
    };
    let key = EventKey { regarding: Regarding::Database(id), reason, dedup_key: String::new() };
    let statement = Statement { key: &key, note: "" };
    let judgement = match reason.topic() {
        Topic::Role => judge_role(statement, &database, clock::now()),
        _ => judge_checks(statement, &database, clock::now()),
    };
    match judgement {
        Judgement::True | Judgement::Undecided => None,
        Judgement::False(notice) => Some((notice.reason, notice.note)),
    }
}

#[test]
fn an_event_on_checks_is_one_of_the_notes_on_them() {
    let (ips, reason) = (vec![[10, 0, 0, 1].into()], "auth: refused (1045)".to_owned());
    let login = PolicyNote::LoginRefused { ips: ips.clone(), reason: reason.clone() };
    let silent = PolicyNote::ChecksInconclusive { ips, reason };
    let both = [login.clone(), silent.clone()];
    for reason in [Reason::LoginRefused, Reason::ChecksInconclusive] {
        assert_eq!(corrected_by_notes(reason, &both), None);
        let end = Some((Reason::ChecksConclusive, CONCLUSIVE.to_owned()));
        assert_eq!(corrected_by_notes(reason, &[]), end);
    }
    let is_login = Some((Reason::LoginRefused, login.to_string()));
    let is_silent = Some((Reason::ChecksInconclusive, silent.to_string()));
    assert_eq!(corrected_by_notes(Reason::LoginRefused, &both[1..]), is_silent);
    assert_eq!(corrected_by_notes(Reason::ChecksInconclusive, &both[..1]), is_login);
    assert_eq!(corrected_by_notes(Reason::ChecksConclusive, &both[..1]), is_login);
    assert_eq!(corrected_by_notes(Reason::ChecksConclusive, &[]), None);
}

#[test]
fn an_event_on_a_missing_role_ends_with_its_note() {
    let others = vec![([10, 0, 0, 1].into(), "role: replica, not primary".to_owned())];
    let missing = PolicyNote::RoleMissing { others };
    let notes = std::slice::from_ref(&missing);
    let is_missing = Some((Reason::RoleMissing, missing.to_string()));
    assert_eq!(corrected_by_notes(Reason::RoleMissing, notes), None);
    assert_eq!(corrected_by_notes(Reason::RoleFound, notes), is_missing);
    assert_eq!(corrected_by_notes(Reason::RoleUnknown, notes), is_missing);
    let unknown = "no address is known to have another role any more".to_owned();
    assert_eq!(corrected_by_notes(Reason::RoleMissing, &[]), Some((Reason::RoleUnknown, unknown)));
    assert_eq!(corrected_by_notes(Reason::RoleFound, &[]), None);
}
