//! The truth table of `exactlyOne`: no way between the modes, and no change on it, publishes two.

use proptest::prelude::*;

use super::fixture::{Cluster, database};
use super::*;

const ONE: &str = "198.51.100.1";

fn one_of(mode: PublishMode) -> Database {
    let mut database = database(mode);
    database.policy.exactly_one = true;
    database
}

#[test]
fn with_exactly_one_no_way_between_modes_has_two_or_none() {
    let modes = [PublishMode::Endpoints, PublishMode::Slices, PublishMode::Both];
    for (from, to) in modes.iter().flat_map(|from| modes.map(|to| (*from, to))) {
        for slow in 1..4 {
            let mut cluster = Cluster::new();
            let of = |mode| {
                let mut database = database(mode);
                database.policy.exactly_one = true;
                database
            };
            for (round, plan) in [(from, publish(&[1])), (to, publish(&[2]))] {
                for turn in 0..30 {
                    let step = cluster.next_step(&of(round), &plan);
                    cluster.take(step);
                    if turn % slow == 0 {
                        cluster.mirror();
                    }
                    if round == to && plan == publish(&[2]) {
                        let ips = cluster.ips();
                        assert_eq!(ips.len(), 1, "{from:?} to {to:?}: {ips:?}");
                    }
                }
            }
            assert_eq!(cluster.ips(), ["198.51.100.2"].map(str::to_owned).into());
        }
    }
}

fn modes() -> impl Strategy<Value = PublishMode> {
    prop_oneof![Just(PublishMode::Endpoints), Just(PublishMode::Slices), Just(PublishMode::Both),]
}

proptest! {
    /// Publishes at most one member, in whatever order config and plan change, and however late
    /// Kubernetes mirrors.
    #[test]
    fn with_exactly_one_two_are_never_published(
        acts in prop::collection::vec((0..4_u8, modes(), 1..4_u8), 1..80),
    ) {
        let mut cluster = Cluster::new();
        let (mut mode, mut member) = (PublishMode::Endpoints, 1);
        for (act, other_mode, other_member) in acts {
            match act {
                0 => mode = other_mode,
                1 => member = other_member,
                2 => cluster.mirror(),
                _ => {
                    let step = cluster.next_step(&one_of(mode), &publish(&[member]));
                    cluster.take(step);
                }
            }
            prop_assert!(cluster.ips().len() < 2, "{mode:?} {member}: {:?}", cluster.ips());
        }
        // All ways end where they should.
        for _ in 0..40 {
            let step = cluster.next_step(&one_of(mode), &publish(&[member]));
            cluster.take(step);
            cluster.mirror();
            prop_assert!(cluster.ips().len() < 2);
        }
        prop_assert_eq!(cluster.next_step(&one_of(mode), &publish(&[member])), Step::InSync);
        prop_assert_eq!(cluster.ips(), [format!("198.51.100.{member}")].into());
    }
}

#[test]
fn with_exactly_one_slices_come_without_a_mirroring_kubernetes() {
    let mut cluster = Cluster::new();
    for mode in [PublishMode::Endpoints, PublishMode::Slices] {
        for _ in 0..10 {
            let step = cluster.next_step(&one_of(mode), &publish(&[1]));
            cluster.take(step);
        }
    }
    assert_eq!(cluster.ips(), [ONE.to_owned()].into());
}

#[test]
fn exactly_one_beside_late_mirrors_keeps_to_its_mode() {
    let emptied = "mysql-external-ipv4-1 none";
    for (from, to, steps) in [
        (PublishMode::Slices, PublishMode::Slices, vec![emptied, "wait NotMirrored"]),
        (
            PublishMode::Both,
            PublishMode::Both,
            vec![emptied, "endpoints 198.51.100.2 unmirrored", "wait NotMirrored"],
        ),
        (
            PublishMode::Slices,
            PublishMode::Endpoints,
            vec![emptied, "endpoints 198.51.100.2 mirrored", "wait NotMirrored"],
        ),
    ] {
        let mut cluster = Cluster::new();
        cluster.endpoints = Some(ours(&[1]));
        cluster.mirror();
        // Kubernetes does not follow from here on.
        cluster.settle(from, &publish(&[1]));
        let said: Vec<String> = (0..steps.len())
            .map(|_| {
                let step = cluster.next_step(&one_of(to), &publish(&[2]));
                cluster.take(step)
            })
            .collect();
        assert_eq!(said, steps, "{from:?} to {to:?}");
    }
}

#[test]
fn exactly_one_with_endpoints_alone_waits_for_no_mirror() {
    let mut cluster = Cluster::new();
    cluster.endpoints = Some(ours(&[1]));
    cluster.mirror();
    // They are gone, and Kubernetes has not followed yet.
    cluster.endpoints = None;
    let step = cluster.next_step(&one_of(PublishMode::Endpoints), &publish(&[2]));
    assert!(matches!(step, Step::Create(_)), "{step:?}");
    cluster.endpoints = Some(ours(&[2]));
    assert_eq!(cluster.next_step(&one_of(PublishMode::Endpoints), &publish(&[2])), Step::InSync);
}

#[test]
fn with_exactly_one_the_old_family_leaves_first() {
    let six: std::net::IpAddr = "2001:db8::1".parse().unwrap();
    let mut database = database(PublishMode::Slices);
    database.policy.exactly_one = true;
    database.addresses.push(crate::config::Address { ip: six, ..database.addresses[0].clone() });
    let mut cluster = Cluster::new();
    cluster.service.as_mut().unwrap().spec.as_mut().unwrap().ip_families = None;
    let of_six =
        Plan::Publish([crate::plan::Member { ip: six, hostname: None }].into_iter().collect());
    let mut alone = database.clone();
    alone.addresses.remove(0);
    // The last time the address before has left the config too.
    let rounds = [
        (&database, publish(&[1])),
        (&database, of_six.clone()),
        (&database, publish(&[1])),
        (&alone, of_six),
    ];
    for (database, plan) in &rounds {
        for _ in 0..8 {
            let step = cluster.next_step(database, plan);
            cluster.take(step);
            assert!(cluster.ips().len() < 2);
        }
        let Plan::Publish(members) = plan else { unreachable!() };
        assert_eq!(cluster.slices.members().collect::<Members>(), *members);
    }
}
