//! Maintenance: by whom it is asked for, its end by time, and its Events.

use std::time::SystemTime;

use super::*;
use crate::clock;

#[test]
fn maintenance_comes_from_the_config_and_from_the_annotation() {
    let mut scene =
        Scene::new("10.0.0.1, 10.0.0.2, {address: 10.0.0.3, maintenance: kernel}", "{}");
    scene.annotate(Some("10.0.0.9=x"), None);
    scene.sync(&[]);
    scene.on_result("+++");
    scene.publishes("1, 2");
    assert_eq!(
        scene.snapshot().problems,
        ["annotation external-endpoints/maintenance: 10.0.0.9 is no address of this database"]
    );
    scene.annotate(Some("10.0.0.1=disk, 10.0.0.3=memory"), None);
    scene.publishes("2");
    let reasons = |scene: &Scene| {
        let targets = scene.snapshot().targets;
        targets
            .iter()
            .map(|target| target.maintenance.as_ref().map_or_else(String::new, |it| it.to_string()))
            .collect::<Vec<_>>()
    };
    assert_eq!(reasons(&scene), ["disk (annotation)", "", "memory (annotation)"]);
    scene.annotate(None, None);
    scene.publishes("1, 2");
    assert_eq!(
        (reasons(&scene), scene.snapshot().problems),
        (vec!["".into(), "".into(), "kernel (config)".into()], vec![])
    );
}

/// Returns the calendar time so long after the present of a scene, as an entry has it.
fn in_seconds(scene: &Scene, seconds: u32) -> String {
    let until: SystemTime = clock::to_wall_clock(scene.now + SECOND * seconds);
    humantime::format_rfc3339_millis(until).to_string()
}

/// Moves a scene to the times at which the database is due, for as many seconds.
fn wait(scene: &mut Scene, seconds: u32) {
    let end = scene.now + SECOND * seconds;
    while let Some(due_at) = scene.database.policy_state.reevaluate_at.filter(|at| *at <= end) {
        assert!(due_at > scene.now, "it is due at once, again and again");
        scene.now = due_at;
        scene.database.reevaluate_if_due(&mut scene.freeze, due_at);
    }
    scene.now = end;
}

#[test]
fn an_entry_with_an_end_is_over_by_itself() {
    let mut scene = Scene::new("10.0.0.1, 10.0.0.2, {address: 10.0.0.3, maintenance: x}", "{}");
    scene.sync(&[1, 2]);
    scene.on_result("+++");
    let [soon, later] = [in_seconds(&scene, 100), in_seconds(&scene, 200)];
    let value = format!(
        "10.0.0.1=disk; until={soon}, 10.0.0.2=ram; until={later}, 10.0.0.3=y; until={soon}"
    );
    scene.annotate(Some(&value), None);
    scene.publishes("none");
    wait(&mut scene, 99);
    scene.publishes("none");
    let due_at = scene.database.take_reevaluation().expect("a time");
    assert!(due_at <= scene.now + SECOND * 2, "the end is not waited for in steps");
    scene.events("");
    wait(&mut scene, 2);
    scene.publishes("1");
    let soon = &soon[..19];
    assert_eq!(
        scene.events(""),
        [
            format!(
                "MaintenanceEnded: the maintenance of 10.0.0.1 has ended, its time is over: \
                 disk (annotation, until {soon}Z)"
            ),
            "MaintenanceBegan: 10.0.0.3 is in maintenance: x (config)".to_owned(),
        ]
    );
    wait(&mut scene, 100);
    scene.publishes("1, 2");
    assert_eq!(scene.database.policy_state.reevaluate_at, None);
    assert_eq!(scene.snapshot().problems, [""; 0], "an end is no mistake");
}

#[test]
fn the_calendar_is_read_again_while_an_end_is_far() {
    let mut scene = Scene::new("10.0.0.1, 10.0.0.2", "{}");
    scene.sync(&[1, 2]);
    scene.on_result("++");
    let until = in_seconds(&scene, 1_000_000);
    scene.annotate(Some(&format!("10.0.0.1=disk; until={until}")), None);
    for _ in 0..3 {
        let due_at = scene.database.policy_state.reevaluate_at.expect("a time");
        assert!(due_at > scene.now && due_at <= scene.now + SECOND * 30);
        scene.now = due_at;
        scene.database.reevaluate_if_due(&mut scene.freeze, due_at);
        scene.publishes("2");
    }
    scene.annotate(Some("10.0.0.1=disk; until=9999-12-30T00:00:00Z"), None);
    scene.publishes("2");
}

#[test]
fn an_end_that_had_passed_before_a_restart_counts() {
    let mut scene = Scene::new("10.0.0.1, 10.0.0.2", "{}");
    let [over, soon] = [in_seconds(&scene, 0), in_seconds(&scene, 60)];
    let value = format!("10.0.0.1=disk; until={over},10.0.0.2=ram; until={soon}");
    scene.annotate(Some(&value), None);
    scene.sync(&[1]);
    scene.on_result("++");
    scene.publishes("1");
    assert_eq!(scene.events("Maintenance"), [""; 0], "nothing has changed");
    wait(&mut scene, 60);
    scene.publishes("1, 2");
}

#[test]
fn events_follow_the_maintenance_of_each_address() {
    let config = "10.0.0.1, {address: 10.0.0.2, maintenance: x}";
    let mut scene = Scene::new(config, "{}");
    scene.sync(&[1]);
    scene.on_result("++");
    assert_eq!(scene.events("Maintenance"), [""; 0], "it may have begun before the start");
    let mut steps = |value: Option<&str>, expected: &[&str]| {
        scene.annotate(value, None);
        let events = scene.events("Maintenance").into_iter();
        let events: Vec<String> =
            events.map(|event| event.replacen("Maintenance", "", 1)).collect();
        assert_eq!(events, expected, "{value:?}");
    };
    let began = "Began: 10.0.0.1 is in maintenance: disk (annotation)";
    steps(Some("10.0.0.1=disk"), &[began]);
    steps(Some("10.0.0.1=disk, 10.0.0.9=x"), &[]);
    let extended =
        "Began: 10.0.0.1 is in maintenance: disk (annotation, until 2999-01-01T00:00:00Z)";
    steps(Some("10.0.0.1=disk; until=2999-01-01T00:00:00Z"), &[extended]);
    let ended = "Ended: the maintenance of 10.0.0.1 has ended, it is no longer in the annotation: \
                 disk (annotation, until 2999-01-01T00:00:00Z)";
    steps(None, &[ended]);
    steps(Some("10.0.0.2=y"), &["Began: 10.0.0.2 is in maintenance: y (annotation)"]);
    steps(None, &["Began: 10.0.0.2 is in maintenance: x (config)"]);
    let late = "Ended: the maintenance of 10.0.0.1 had ended when it was set: disk (annotation, \
                until 2001-01-01T00:00:00Z)";
    steps(Some("10.0.0.1=disk; until=2001-01-01T00:00:00Z"), &[late]);
    steps(Some("10.0.0.1=disk; until=2001-01-01T00:00:00Z, 10.0.0.9=z"), &[]);
    scene.reload("10.0.0.1, 10.0.0.2", "{}");
    let ended = "MaintenanceEnded: the maintenance of 10.0.0.2 has ended, it is no longer in the \
                 config: x (config)";
    assert_eq!(scene.events("Maintenance"), [ended]);
}
