//! Addresses that were published before their names have resolved.

use super::names::*;
use super::*;
use crate::names::Families;
use crate::resolve::Answer;

const BOTH_NAMES: &str = "writer.corp, {address: ro.corp, dns: {rotating: true}}";

#[test]
fn an_answer_before_the_cluster_was_read_takes_nothing_away() {
    let mut scene = Scene::new(DB, "{}");
    scene.serve(V4, &[]);
    // The name moved while the daemon was away, to an address that is not up.
    scene.resolve(0, at(&[2]));
    scene.sync(&[1]);
    assert_eq!(scene.targets(), "1a 2c");
    scene.on_result("+-");
    scene.publishes("1");
    scene.on_result("++");
    scene.publishes("2");
}

#[test]
fn an_edit_of_the_file_keeps_what_was_adopted() {
    let mut scene = Scene::of_name(&[1]);
    scene.resolve(0, at(&[2]));
    scene.on_result("+-");
    scene.publishes("1");
    scene.reload(DB, "{minHealthy: 1}");
    scene.publishes("1");
    scene.serve(Families::BOTH, &[]);
    scene.publishes("1");
    // Also when the name whose attributes it has leaves the file.
    scene.reload("other.corp", "{minHealthy: 1}");
    scene.resolve(0, at(&[3]));
    scene.on_result("+-");
    scene.publishes("1");
}

#[test]
fn a_rotating_name_that_comes_second_keeps_its_replicas() {
    let mut scene = Scene::of_names(BOTH_NAMES, &[1, 2, 3]);
    scene.resolve(0, at(&[9]));
    scene.resolve(1, at(&[1]));
    scene.on_result("++++");
    scene.publishes("1, 2, 3, 9");
}

#[test]
fn an_address_of_a_later_name_is_not_kept_by_a_rotating_one() {
    let names = "{address: ro.corp, dns: {rotating: true}}, {address: writer.corp, priority: 1}";
    let mut scene = Scene::of_names(names, &[1, 9]);
    scene.resolve(0, at(&[1]));
    scene.resolve(1, at(&[9]));
    assert_eq!(scene.targets(), "1c 9c");
    let tiers: Vec<u32> = scene.database.targets.iter().map(|target| target.priority).collect();
    assert_eq!(tiers, [0, 1]);
}

#[test]
fn an_adopted_address_has_no_maintenance_of_a_name() {
    let names = "{address: pg-1.corp, maintenance: disk}, pg-2.corp";
    let mut scene = Scene::of_names(names, &[2]);
    (0..2).for_each(|name| scene.resolve(name, silence()));
    scene.annotate(Some("pg-1.corp=disk swap"), None);
    scene.on_result("+");
    scene.publishes("2");
    scene.annotate(Some("10.0.0.2=disk swap"), None);
    scene.publishes("none");
}

#[test]
fn the_name_of_an_adopted_address_is_a_guess_between_several() {
    let guesses = |addresses: &str| {
        let mut scene = Scene::new(addresses, "{}");
        scene.serve(V4, &[]);
        scene.sync(&[1]);
        let origin = scene.database.targets[0].origin.clone();
        (origin.is_guess, origin.name.as_deref().map(str::to_owned))
    };
    assert_eq!(guesses("pg-1.corp"), (false, Some("pg-1.corp".into())));
    assert_eq!(guesses("pg-1.corp, pg-2.corp"), (true, Some("pg-1.corp".into())));
    assert_eq!(guesses("_db._tcp.corp.example"), (true, None));
}

#[test]
fn endpoints_of_another_manager_stay_while_no_name_resolves() {
    let mut scene = Scene::new(DB, "{}");
    scene.serve(V4, &[]);
    // Nothing of it was written by the daemon.
    let (foreign, own) = (members(&[1, 2]), Members::default());
    scene.database.set_initial_members(&foreign, &own, &mut scene.freeze, scene.now);
    scene.resolve(0, Answer::NoSuchName);
    assert_eq!((scene.targets().as_str(), scene.members()), ("", None));
}

#[test]
fn an_ip_that_a_later_reload_replaces_by_its_name_stays() {
    let mut scene = Scene::of_names("a.corp, 10.0.0.9", &[1, 9]);
    scene.resolve(0, at(&[1]));
    scene.on_result("++");
    scene.write();
    scene.reload("a.corp, 10.0.0.9", "{minHealthy: 1}");
    scene.reload("a.corp, new.corp", "{minHealthy: 1}");
    assert_eq!(scene.targets(), "1c 9a");
    scene.resolve(1, silence());
    scene.publishes("1, 9");
}

#[test]
fn what_another_replica_publishes_is_up_for_a_standby() {
    let mut scene = Scene::of_name(&[1]);
    scene.resolve(0, silence());
    scene.on_result("+");
    scene.follow(&[1, 2]);
    scene.publishes("1, 2");
    scene.on_result("+-");
    scene.publishes("1");
}

#[test]
fn a_standby_keeps_what_only_the_dns_of_the_other_gives() {
    let mut scene = Scene::of_name(&[1]);
    scene.resolve(0, at(&[1]));
    scene.on_result("-");
    scene.follow(&[2]);
    assert_eq!(scene.targets(), "1c 2a");
    scene.on_result("-+");
    scene.publishes("2");
    // It leaves in exchange, as any other.
    scene.on_result("++");
    scene.on_result("++");
    scene.publishes("1");
    scene.write();
    assert_eq!(scene.targets(), "1c");
}

#[test]
fn an_address_that_a_member_list_never_matches_is_released() {
    let mut scene = Scene::of_name(&[1]);
    scene.resolve(0, at(&[1]));
    scene.on_result("+");
    scene.resolve(0, at(&[2, 3]));
    scene.on_result("+++");
    scene.publishes("2, 3");
    // The cluster can't hold all of the plan, as with more members than it mirrors.
    scene.follow(&[2]);
    assert_eq!(scene.targets(), "2c 3c");
}
