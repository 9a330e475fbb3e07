//! The members that leave while a database waits, in all modes and on the way between them.

use proptest::prelude::*;

use super::fixture::{Cluster, database};
use super::*;
use crate::config::RejectedAddress;
use crate::plan::KeepReason;
use crate::publish::decide::serving;

#[test]
fn members_of_slices_that_are_not_allowed_leave() {
    for mode in [PublishMode::Slices, PublishMode::Both] {
        let mut cluster = Cluster::new();
        cluster.settle(mode, &publish(&[1, 2, 9]));
        let restricted = Database { publish: mode, ..restricted() };
        let keep = Plan::Keep(KeepReason::NoVerdictYet(vec![[198, 51, 100, 1].into()]));
        for plan in [keep, publish(&[1, 2, 9])] {
            let mut cluster = cluster.clone();
            while let step @ (Step::WriteSlice(_) | Step::Write(_)) =
                cluster.next_step(&restricted, &plan)
            {
                cluster.take(step);
            }
            assert!(matches!(
                cluster.next_step(&restricted, &plan),
                Step::InSync | Step::Blocked(_)
            ));
            assert_eq!(
                serving::exposed(cluster.endpoints.as_ref(), &cluster.slices),
                members(&[1, 2]),
                "{mode:?}"
            );
        }
        // All are refused: what was is kept.
        let refused =
            RejectedAddress { ip: [203, 0, 113, 9].into(), reason: "it is outside".into() };
        let none = Database { addresses: Vec::new(), rejected: vec![refused], ..restricted };
        let step = cluster.next_step(&none, &publish(&[]));
        assert_eq!(cluster.take(step), "mysql-external-ipv4-1 198.51.100.1, 198.51.100.2");
    }
}

#[test]
fn slices_beside_idle_foreign_endpoints_wait_as_others_do() {
    let mut cluster = Cluster::new();
    cluster.settle(PublishMode::Slices, &publish(&[1, 9]));
    let mut foreign = theirs(&[2], Some("someone"));
    foreign
        .metadata
        .labels
        .as_mut()
        .unwrap()
        .insert(endpoints::SKIP_MIRROR.to_owned(), "true".to_owned());
    cluster.endpoints = Some(foreign);
    let keep = Plan::Keep(KeepReason::NoVerdictYet(vec![[198, 51, 100, 3].into()]));
    let waiting = configured(database(PublishMode::Slices), &[1, 3]);
    let step = cluster.next_step(&waiting, &keep);
    assert_eq!(
        cluster.take(step),
        "mysql-external-ipv4-1 198.51.100.1",
        "the other has left the config"
    );
    assert_eq!(waits(cluster.next_step(&waiting, &keep)).0, ConditionKind::WaitingForVerdicts);
}

fn modes() -> impl Strategy<Value = PublishMode> {
    prop::sample::select(vec![PublishMode::Endpoints, PublishMode::Slices, PublishMode::Both])
}

fn undecided() -> Plan {
    Plan::Keep(KeepReason::AllInconclusive(vec![(
        [198, 51, 100, 1].into(),
        "exec: no such command".into(),
    )]))
}

fn written(step: Step) -> Members {
    let Step::Write(endpoints) = step else { panic!("{step:?}") };
    endpoints::members(&endpoints)
}

#[test]
fn no_address_that_is_not_allowed_is_written() {
    let step =
        next_step(&restricted(), &publish(&[1, 9]), Some(&service()), Some(&ours(&[2])), None);
    assert_eq!(written(step), members(&[1]));
    let step =
        next_step(&restricted(), &publish(&[1, 9]), Some(&service()), Some(&ours(&[1])), None);
    assert_eq!(step, Step::InSync);
}

#[test]
fn members_of_endpoints_that_are_not_allowed_leave() {
    let keep = Plan::Keep(KeepReason::NoVerdictYet(vec![[198, 51, 100, 1].into()]));
    let step = next_step(&restricted(), &keep, Some(&service()), Some(&ours(&[1, 2, 9])), None);
    assert_eq!(written(step), members(&[1, 2]));
    let step = next_step(&restricted(), &keep, Some(&service()), Some(&ours(&[1, 2])), None);
    assert_eq!(waits(step).0, ConditionKind::WaitingForVerdicts);
}

#[test]
fn a_member_that_left_the_config_leaves_a_waiting_database() {
    let database = configured(super::database(false), &[1, 3]);
    let step = next_step(&database, &undecided(), Some(&service()), Some(&ours(&[1, 2])), None);
    assert_eq!(written(step), members(&[1]));
    let (kind, reason) =
        waits(next_step(&database, &undecided(), Some(&service()), Some(&ours(&[1])), None));
    assert_eq!(kind, ConditionKind::WaitingForVerdicts);
    assert!(!reason.contains("does not have"), "{reason}");
}

#[test]
fn a_config_of_new_addresses_alone_empties_nothing() {
    let step =
        next_step(&super::database(false), &undecided(), Some(&service()), Some(&ours(&[2])), None);
    let (kind, reason) = waits(step);
    assert_eq!(kind, ConditionKind::WaitingForVerdicts);
    assert_eq!(
        reason,
        "no target is up, and all verdicts are inconclusive for 198.51.100.1 (exec: no such \
         command); published although the config does not have it, and unchecked, until an address \
         of the config has a verdict: 198.51.100.2"
    );
}

#[test]
fn endpoints_to_adopt_stay_as_they_are_while_the_database_waits() {
    let foreign = theirs(&[1, 2], None);
    let database = configured(super::database(true), &[1, 3]);
    let (kind, _) =
        waits(next_step(&database, &undecided(), Some(&service()), Some(&foreign), None));
    assert_eq!(kind, ConditionKind::WaitingForVerdicts);
    // Taken over before, they are ours.
    let step = next_step(&database, &undecided(), Some(&service()), Some(&foreign), Some("uid-1"));
    assert_eq!(written(step), members(&[1]));
}

#[test]
fn a_config_of_which_every_address_is_refused_empties_nothing() {
    let refused = RejectedAddress { ip: [203, 0, 113, 9].into(), reason: "it is outside".into() };
    let database = Database { addresses: Vec::new(), rejected: vec![refused], ..restricted() };
    let step = next_step(&database, &publish(&[]), Some(&service()), Some(&ours(&[1, 9])), None);
    assert_eq!(written(step), members(&[1]));
    let step = next_step(&database, &publish(&[]), Some(&service()), Some(&ours(&[1])), None);
    assert_eq!(waits(step).0, ConditionKind::AddressesRefused);
}

proptest! {
    #[test]
    fn members_that_left_the_config_leave_in_all_modes(
        from in modes(), to in modes(), exactly_one in any::<bool>(), mirrors in any::<bool>(),
        published in prop::collection::btree_set(1..6_u8, 1..4),
        config in prop::collection::btree_set(1..6_u8, 1..4),
    ) {
        let mut published: Vec<u8> = published.into_iter().collect();
        let config: Vec<u8> = config.into_iter().collect();
        published.truncate(if exactly_one { 1 } else { 9 });
        let mut cluster = Cluster::new();
        cluster.settle(from, &publish(&published));
        cluster.mirror();
        cluster.settle(from, &publish(&published));
        let keep = Plan::Keep(KeepReason::NoVerdictYet(vec![[198, 51, 100, config[0]].into()]));
        let mut waiting = configured(database(to), &config);
        waiting.policy.exactly_one = exactly_one;
        let stay = published.iter().copied().filter(|last| config.contains(last));
            let stay: Vec<u8> = stay.collect();
        let stay = members(if stay.is_empty() { &published } else { &stay });
        let before = cluster.ips();
        for _ in 0..30 {
            if mirrors {
                cluster.mirror();
            }
            let served = cluster.ips();
            let is_served = |ip: std::net::IpAddr| served.contains(&ip.to_string());
            prop_assert!(stay.iter().all(|member| is_served(member.ip)), "{:?}", served);
            prop_assert!(served.is_subset(&before), "nothing is added");
            let step = cluster.next_step(&waiting, &keep);
            if matches!(step, Step::InSync | Step::Blocked(_)) {
                break;
            }
            cluster.take(step);
        }
        cluster.mirror();
        let step = cluster.next_step(&waiting, &keep);
        prop_assert_eq!(waits(step).0, ConditionKind::WaitingForVerdicts);
        prop_assert_eq!(serving::exposed(cluster.endpoints.as_ref(), &cluster.slices), stay);
    }
}
