//! The verdicts of a comparison, and their exit status.

use super::*;

fn database(
    condition: &str,
    planned: Option<&[&str]>,
    published: Option<&[&str]>,
) -> DatabaseStatus {
    serde_json::from_value(serde_json::json!({
        "namespace": "prod", "service": "mysql", "condition": condition, "reason": "the reason",
        "since": null, "policy": [], "splitBrain": false, "failbackAt": null, "planned": planned,
        "published": published, "targets": [], "names": [], "rejected": [],
    }))
    .expect("a status")
}

#[test]
fn each_condition_has_its_verdict() {
    let one = Some(&["10.0.0.1"][..]);
    for (condition, planned, expected, code) in [
        ("Published", one, Verdict::Same, 0),
        ("DryRun", one, Verdict::Differs, 1),
        ("NotOurs", one, Verdict::Blocked, 1),
        ("PortMismatch", one, Verdict::Blocked, 1),
        ("WaitingForService", one, Verdict::Blocked, 1),
        ("Forbidden", one, Verdict::Failed, 2),
        ("ApiUnavailable", one, Verdict::Failed, 2),
        ("WaitingForCluster", one, Verdict::Failed, 2),
        ("WaitingForVerdicts", None, Verdict::Failed, 2),
    ] {
        let difference = difference(&database(condition, planned, one), None);
        assert_eq!(difference.verdict, expected, "{condition}");
        let status = format!("{:?}", exit_code(std::slice::from_ref(&difference)));
        assert_eq!(status, format!("{:?}", ExitCode::from(code)), "{condition}");
    }
}

#[test]
fn an_address_that_goes_has_its_reason() {
    let status =
        database("DryRun", Some(&["10.0.0.1", "10.0.0.3"]), Some(&["10.0.0.1", "10.0.0.2"]));
    let difference = difference(&status, None);
    assert_eq!(
        table(&[difference], Format::Table, Paint::Plain),
        "prod/mysql  differs (1 of its addresses stay)\n  +10.0.0.3\n  -10.0.0.2  the config does \
         not have it\n0 of 1 databases are as the cluster has them\n"
    );
}

#[test]
fn databases_that_are_the_same_are_shown_only_wide() {
    let same = difference(&database("Published", Some(&["10.0.0.1"]), Some(&["10.0.0.1"])), None);
    let table = |format| table(std::slice::from_ref(&same), format, Paint::Plain);
    assert_eq!(table(Format::Table), "1 of 1 databases are as the cluster has them\n");
    assert!(table(Format::Wide).starts_with("prod/mysql  same (1 of its addresses stay)\n"));
}

#[test]
fn no_text_of_others_changes_the_terminal() {
    let mut status = database("NotOurs", None, None);
    status.reason = Some("a\u{1b}[31mb\r\n\u{202e}".into());
    let text = table(&[difference(&status, None)], Format::Table, Paint::Plain);
    assert!(text.contains(r"a\u{1b}[31mb\r\n\u{202e}"), "{text:?}");
    assert!(!text.contains(['\u{1b}', '\r', '\u{202e}']), "{text:?}");
}
