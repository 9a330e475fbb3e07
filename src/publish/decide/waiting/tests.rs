//! The truth table of the members that stay while a database waits.

use proptest::prelude::*;

use super::*;
use crate::publish::decide::next_step::tests::{
    configured, database as one_address, members, restricted,
};

fn of(config: &[u8]) -> Database {
    configured(one_address(false), config)
}

/// Decides where all members serve in one place.
fn settled(database: &Database, published: &[u8]) -> Retained {
    beside_down(database, published, &[])
}

/// Decides where these addresses may answer, and all others are Down or were never known.
fn beside_down(database: &Database, published: &[u8], may_answer: &[u8]) -> Retained {
    let published = members(published);
    let may_answer: Vec<IpAddr> =
        may_answer.iter().map(|last| [198, 51, 100, *last].into()).collect();
    retained(
        database,
        &Published {
            serving: published.clone(),
            exposed: published,
            may_answer: &may_answer,
            is_foreign: false,
        },
    )
}

fn all(unconfigured: &[u8]) -> Retained {
    Retained::All { unconfigured: members(unconfigured) }
}

fn only(last: &[u8]) -> Retained {
    Retained::Only(members(last))
}

#[test]
fn members_of_the_config_stay() {
    assert_eq!(settled(&of(&[1, 2, 3]), &[1, 2]), all(&[]));
    assert_eq!(settled(&of(&[1, 2, 3]), &[]), all(&[]));
}

#[test]
fn a_member_that_left_the_config_leaves_beside_one_that_stays() {
    assert_eq!(settled(&of(&[1, 3]), &[1, 2]), only(&[1]));
    assert_eq!(settled(&of(&[1, 3]), &[1, 2, 8, 9]), only(&[1]));
}

#[test]
fn a_member_that_left_the_config_stays_beside_dead_ones() {
    assert_eq!(
        beside_down(&of(&[2, 3]), &[1, 2], &[1, 3]),
        all(&[1]),
        "1 may be the only one that answers"
    );
    assert_eq!(
        beside_down(&of(&[2, 3]), &[1, 2, 4], &[1, 3]),
        only(&[1, 2]),
        "4 was Down, or never in a config"
    );
    assert_eq!(beside_down(&of(&[2, 3]), &[1, 2], &[3]), only(&[2]), "neither answers");
    assert_eq!(beside_down(&of(&[2, 3]), &[1, 2, 3], &[1, 3]), only(&[2, 3]), "3 may answer");
    assert_eq!(beside_down(&of(&[3]), &[1, 2], &[2]), all(&[1, 2]), "none is in the config");
    assert_eq!(beside_down(&of(&[2]), &[2], &[]), all(&[]));
    let restricted = configured(restricted(), &[1]);
    assert_eq!(beside_down(&restricted, &[1, 9], &[9]), only(&[1]), "9 is not allowed");
}

#[test]
fn members_that_all_left_the_config_stay_and_are_named() {
    assert_eq!(settled(&of(&[3]), &[1, 2]), all(&[1, 2]));
    assert_eq!(describe(&members(&[])), None);
    let named = describe(&members(&[1, 2, 4, 5, 6])).expect("a note");
    assert!(
        named.ends_with("has a verdict: 198.51.100.1, 198.51.100.2, 198.51.100.4 and 2 more"),
        "{named}"
    );
}

#[test]
fn a_member_that_is_not_allowed_leaves_even_if_none_is_left() {
    let database = configured(restricted(), &[1]);
    assert_eq!(
        settled(&database, &[2, 9]),
        only(&[2]),
        "in the config neither is, and one is allowed"
    );
    assert_eq!(settled(&database, &[1, 2, 9]), only(&[1]));
    assert_eq!(settled(&database, &[9]), only(&[]));
}

#[test]
fn foreign_members_stay_until_they_are_taken_over() {
    let (database, published) = (of(&[1]), members(&[1, 2]));
    let foreign = Published {
        serving: published.clone(),
        exposed: published,
        may_answer: &[],
        is_foreign: true,
    };
    assert_eq!(retained(&database, &foreign), all(&[2]));
}

#[test]
fn between_endpoints_and_slices_one_that_stays_takes_over() {
    let on_the_way = |serving: &[u8], exposed: &[u8], exactly_one: bool| {
        let mut database = of(&[1]);
        database.policy.exactly_one = exactly_one;
        retained(
            &database,
            &Published {
                serving: members(serving),
                exposed: members(exposed),
                may_answer: &[],
                is_foreign: false,
            },
        )
    };
    assert_eq!(on_the_way(&[2], &[1, 2], false), only(&[1]), "rather than an empty Service");
    assert_eq!(on_the_way(&[2], &[1, 2], true), all(&[2]), "never a second one");
    assert_eq!(
        on_the_way(&[], &[1, 2], false),
        all(&[2]),
        "a Service that is empty gets nobody for this"
    );
}

proptest! {
    #[test]
    fn nothing_is_added_and_nothing_emptied_for_the_config(
        config in prop::collection::btree_set(1..6_u8, 1..4),
        published in prop::collection::btree_set(1..9_u8, 0..6),
    ) {
        let config: Vec<u8> = config.into_iter().collect();
        let published: Vec<u8> = published.into_iter().collect();
        let database = of(&config);
        let left = match settled(&database, &published) {
            Retained::All { .. } => members(&published),
            Retained::Only(members) => members,
        };
        let stay = published.iter().copied().filter(|last| config.contains(last));
            let stay: Vec<u8> = stay.collect();
        prop_assert_eq!(left, members(if stay.is_empty() { &published } else { &stay }));
    }
}
