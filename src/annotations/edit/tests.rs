//! Changes of values, good and bad.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;

fn entry(subject: &str, reason: &str, until: Option<&str>) -> MaintenanceEntry {
    MaintenanceEntry {
        subject: Subject::parse(subject).expect("a subject"),
        reason: reason.into(),
        until: until.map(|text| humantime::parse_rfc3339(text).expect("a time")),
    }
}

fn is_known(subject: &Subject) -> bool {
    !matches!(subject, Subject::Name(name) if **name != *"orders.corp")
}

#[test]
fn an_entry_is_set_and_the_others_stay_as_they_are() {
    let end = Some("2026-11-28T14:00:00Z");
    let one = entry("10.0.0.1", "disk, swap", end);
    let written = "10.0.0.1=disk, swap; until=2026-11-28T14:00:00Z";
    let table = [
        ("", written.to_owned()),
        (" , ", written.to_owned()),
        ("10.0.0.2=a, b,  typo=c ,10.9", format!("10.0.0.2=a, b, typo=c ,10.9, {written}")),
        ("10.0.0.1=x,10.0.0.2=y", format!("{written}, 10.0.0.2=y")),
        (
            "10.0.0.2=y, 10.0.0.1=x, 10.0.0.3=z,10.0.0.1=w",
            format!("10.0.0.2=y, {written}, 10.0.0.3=z"),
        ),
        ("10.0.0.1", written.to_owned()),
        ("10.0.0.1=x; until=Friday, orders.corp=y", format!("{written}, orders.corp=y")),
    ];
    for (value, expected) in table {
        assert_eq!(set_entry(value, &one, is_known), Ok(expected), "{value:?}");
    }
    let name = entry("orders.corp", "all", None);
    assert_eq!(
        set_entry("10.0.0.1=x, ORDERS.corp.=y", &name, is_known),
        Ok("10.0.0.1=x, orders.corp=all".to_owned())
    );
}

#[test]
fn a_reason_that_would_be_misread_is_refused() {
    for reason in [
        "disk, 10.0.0.2 too",
        "disk, a=b",
        "disk, orders.corp",
        "disk; until=2026-11-28T14:00:00Z",
        "disk; until=Friday",
        "disk,",
        " disk",
        "",
        "two\nlines",
    ] {
        let result = set_entry("10.0.0.2=x", &entry("10.0.0.1", reason, None), is_known);
        // A mention of an address is harmless unless it stands alone behind the comma.
        let expected = match reason {
            "disk, 10.0.0.2 too" => Ok("10.0.0.2=x, 10.0.0.1=disk, 10.0.0.2 too".to_owned()),
            _ => Err(EditError::Misread),
        };
        assert_eq!(result, expected, "{reason:?}");
    }
    let long = "x".repeat(201);
    assert_eq!(set_entry("", &entry("10.0.0.1", &long, None), is_known), Err(EditError::Misread));
    let full = "10.0.0.2=".to_owned() + &"x".repeat(MAX_BYTES - 20);
    let result = set_entry(&full, &entry("10.0.0.1", "disk swap", None), is_known);
    assert_eq!(result, Err(EditError::TooLong));
}

#[test]
fn an_entry_is_removed_and_the_others_stay_as_they_are() {
    let table = [
        ("10.0.0.1=x", Some("")),
        ("10.0.0.1=x; until=2026-11-28T14:00:00Z,10.0.0.2=y, z", Some("10.0.0.2=y, z")),
        ("10.0.0.2=y,10.0.0.1", Some("10.0.0.2=y")),
        ("typo=c,10.0.0.1=x, disk,10.0.0.1=z", Some("typo=c")),
        ("10.0.0.2=y", None),
        ("", None),
    ];
    for (value, expected) in table {
        let subject = Subject::parse("10.0.0.1").expect("a subject");
        let removed = remove_entry(value, &subject, is_known);
        assert_eq!(removed.as_deref(), expected, "{value:?}");
    }
}

proptest! {
    #[test]
    fn set_and_removed_again_leaves_what_was_there(
        value in "(10\\.0\\.0\\.[2-9]=[a-z ,;=.0-9]{0,20}(, ?)?){0,5}|\\PC{0,60}",
        reason in "[a-z;:=,.é日 ]{0,30}",
        seconds in prop::option::of(0..4_000_000_000_u64),
    ) {
        let until = seconds.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let one = MaintenanceEntry { until, ..entry("10.0.0.1", &reason, None) };
        let before = entries(&value, is_known);
        prop_assume!(before.iter().all(|entry| entry.subject != one.subject));
        if let Ok(set) = set_entry(&value, &one, is_known) {
            let mut expected = before.clone();
            expected.push(one.clone());
            prop_assert_eq!(entries(&set, is_known), expected);
            let removed = remove_entry(&set, &one.subject, is_known).expect("the entry");
            prop_assert_eq!(entries(&removed, is_known), before);
        }
    }
}
