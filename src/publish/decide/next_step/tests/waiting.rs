//! The members that leave while a database waits, in all modes and on the way between them.

use proptest::prelude::*;

use super::modes::{Cluster, database};
use super::*;
use crate::config::RejectedAddress;
use crate::plan::KeepReason;
use crate::publish::decide::serving;

#[test]
fn what_slices_hold_from_outside_of_what_is_allowed_goes_while_all_else_is_kept() {
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
fn a_slice_of_foreign_endpoints_that_send_nobody_anywhere_waits_as_others_do() {
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

proptest! {
    #[test]
    fn who_left_the_config_leaves_a_waiting_database_in_all_modes_and_between_them(
        from in modes(), to in modes(), exactly_one in any::<bool>(), mirrors in any::<bool>(),
        published in prop::collection::btree_set(1..6_u8, 1..4), config in prop::collection::btree_set(1..6_u8, 1..4),
    ) {
        let (mut published, config): (Vec<u8>, Vec<u8>) = (published.into_iter().collect(), config.into_iter().collect());
        published.truncate(if exactly_one { 1 } else { 9 });
        let mut cluster = Cluster::new();
        cluster.settle(from, &publish(&published));
        cluster.mirror();
        cluster.settle(from, &publish(&published));
        let keep = Plan::Keep(KeepReason::NoVerdictYet(vec![[198, 51, 100, config[0]].into()]));
        let mut waiting = configured(database(to), &config);
        waiting.policy.exactly_one = exactly_one;
        let stay: Vec<u8> = published.iter().copied().filter(|last| config.contains(last)).collect();
        let stay = members(if stay.is_empty() { &published } else { &stay });
        let before = cluster.ips();
        for _ in 0..30 {
            if mirrors {
                cluster.mirror();
            }
            let served = cluster.ips();
            prop_assert!(stay.iter().all(|member| served.contains(&member.ip.to_string())), "{:?}", served);
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
