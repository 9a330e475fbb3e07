//! The trouble of checks that a person must mend.

use super::*;
use crate::monitor::Trouble;

#[test]
fn a_refused_login_is_reported_at_once_and_once() {
    let mut scene = Scene::new("10.0.0.1, 10.0.0.2", "{}");
    scene.sync(&[1]);
    scene.on_result("++");
    assert_eq!(scene.events("Login"), [""; 0]);
    scene.on_result("l ");
    let note = "LoginRefused: the checks of 10.0.0.1 cannot log in (auth: refused (28P01)); its \
                health stays as it is";
    assert_eq!(scene.events("Login"), [note]);
    scene.apply_for(30, "l+");
    assert_eq!(scene.events(""), [""; 0]);
    assert_eq!(scene.snapshot().notes.len(), 1);
    scene.publishes("1, 2");
    scene.on_result(" l");
    assert_eq!(scene.events("LoginRefused: the checks of 10.0.0.1, 10.0.0.2 cannot").len(), 1);
    scene.on_result("+-");
    assert_eq!(
        scene.events("Checks"),
        ["ChecksConclusive: no check is refused its login any more"]
    );
    assert!(scene.snapshot().notes.is_empty());
}

#[test]
fn a_refused_login_lasts_until_a_try_is_conclusive() {
    let mut scene = Scene::new("10.0.0.1, 10.0.0.2", "{}");
    scene.sync(&[]);
    scene.on_result("+-");
    scene.on_result(" l");
    assert_eq!(scene.events("Login").len(), 1);
    // The Event has the reason of now.
    scene.on_result(" ?");
    let note = "LoginRefused: the checks of 10.0.0.2 cannot log in (connect: no route from this \
                host); its health stays as it is";
    assert_eq!(scene.events(""), [note]);
    assert_eq!(scene.snapshot().targets[1].trouble, Trouble::Login);
    scene.apply_for(3, " ?");
    assert_eq!(scene.events(""), [""; 0]);
    scene.on_result(" -");
    let over = "ChecksConclusive: no check is refused its login any more";
    assert_eq!(scene.events("Checks"), [over]);
    // It says nothing for a cause of its own.
    scene.on_result(" ?");
    assert_eq!(scene.events(""), [""; 0]);
    assert_eq!(scene.snapshot().targets[1].trouble, Trouble::None);
}

#[test]
fn the_newest_event_on_checks_is_true() {
    let mut scene = Scene::new("10.0.0.1, 10.0.0.2", "{}");
    scene.sync(&[1, 2]);
    scene.follow(&[1, 2]);
    scene.apply_for(62, "?+");
    let silent = "ChecksInconclusive: the checks of 10.0.0.1 have been inconclusive for over 1m \
                  (connect: no route from this host); it stays published, dead or alive; fix the \
                  cause on the side of the daemon";
    assert_eq!(scene.events("Checks"), [silent]);
    scene.on_result("?l");
    assert_eq!(scene.events("LoginRefused").len(), 1);
    scene.on_result("?+");
    assert_eq!(scene.events(""), [silent]);
    scene.on_result("ll");
    assert_eq!(scene.events("ChecksInconclusive: the checks of 10.0.0.1 have been").len(), 1);
    scene.on_result("++");
    let ends = scene.events("ChecksConclusive");
    assert!(!ends.is_empty(), "{ends:?}");
}

#[test]
fn a_role_that_no_address_has_is_reported() {
    let mut scene = Scene::new("10.0.0.1, 10.0.0.2", "{}");
    scene.sync(&[1]);
    scene.on_result("+r");
    assert_eq!(scene.events("Role"), [""; 0], "another has it");
    scene.on_result("-r");
    let note = "RoleMissing: no address has the role that its check asks for: 10.0.0.2 (role: \
                replica, not primary)";
    assert_eq!(scene.events("Role"), [note]);
    scene.apply_for(3, "-r");
    assert_eq!(scene.events(""), [""; 0]);
    // It comes back as a replica: its health stays, and the note changes.
    scene.on_result("rr");
    assert_eq!(scene.events("RoleMissing: no").len(), 1);
    scene.on_result("r+");
    let found = "RoleFound: an address has the role that its check asks for";
    assert_eq!(scene.events("Role"), [found]);
    assert!(scene.snapshot().notes.is_empty());
    scene.publishes("2");
    // The one that has another role dies too.
    scene.on_result("r-");
    assert_eq!(scene.events("RoleMissing: no").len(), 1);
    scene.on_result("--");
    let unknown = "RoleUnknown: no address is known to have another role any more";
    assert_eq!(scene.events("Role"), [unknown]);
    let mut scene = Scene::new("10.0.0.1, 10.0.0.2", "{}");
    scene.sync(&[1]);
    scene.on_result("-n");
    assert_eq!(scene.events("Role"), [""; 0], "the role is not the cause");
}

#[test]
fn a_role_is_not_missing_before_all_are_checked() {
    let mut scene = Scene::new("10.0.0.1, 10.0.0.2", "{}");
    scene.on_result(" r");
    scene.sync(&[]);
    assert_eq!(scene.events("Role"), [""; 0], "the other may have it");
    scene.on_result(" r");
    assert_eq!(scene.events("Role"), [""; 0]);
    scene.on_result("rr");
    assert_eq!(scene.events("RoleMissing: no").len(), 1);
}

#[test]
fn a_server_of_another_role_does_not_count_for_a_freeze() {
    let mut scene = Scene::new("10.0.0.1, 10.0.0.2, 10.0.0.3", "{}");
    scene.freeze = Freeze::new(Rules::default(), std::iter::empty());
    scene.sync(&[1, 2, 3]);
    scene.on_result("+++");
    scene.on_result("r-n");
    let tally = scene.database.recent_failures.tally();
    assert_eq!((tally.published, tally.failed, tally.in_doubt), (3, 2, 0));
}

#[test]
fn each_result_sets_the_trouble_of_its_target() {
    for policy in ["{}", "{exactlyOne: true}"] {
        let mut scene = Scene::new("10.0.0.1, 10.0.0.2", policy);
        scene.sync(&[1]);
        for (verdict, trouble) in [
            ("+", Trouble::None),
            ("r", Trouble::Role),
            ("+", Trouble::None),
            ("l", Trouble::Login),
            ("-", Trouble::None),
        ] {
            scene.on_result(verdict);
            assert_eq!(scene.snapshot().targets[0].trouble, trouble, "{policy} {verdict}");
        }
    }
}
