//! The truth table of an `exactlyOne` database, row by row.

use super::*;

#[test]
fn of_an_exactly_one_database_one_is_published() {
    one(&[up(1).published(), down(2)]).publishes(&[1]);
    one(&[down(1), up(2)]).publishes(&[2]);
    one(&[down(1).published(), down(2)]).publishes(&[]);
    // The old one fails, and is not yet Down: the new one waits, without an alarm.
    let switching = one(&[up(1).published().failing(), up(2)]);
    switching.publishes(&[1]);
    assert_eq!(switching.notes(), [""; 0]);
    one(&[down(1).published(), up(2)]).publishes(&[2]);
}

#[test]
fn two_that_pass_are_a_split_brain_and_never_published_together() {
    let published = one(&[up(2).published(), up(1)]);
    published.publishes(&[2]);
    assert_eq!(
        published.notes(),
        ["split brain: 198.51.100.1, 198.51.100.2 pass, where one should; 198.51.100.2, which \
             is published, stays alone"]
    );
    let neither = one(&[up(1), up(2), down(3).published()]);
    neither.publishes(&[]);
    let passing = vec![member(1).ip, member(2).ip];
    assert_eq!(
        neither.decide().notes,
        [PolicyNote::SplitBrain { passing, published: None, name: None }]
    );
    // Nothing shows which of two in doubt is the writer.
    let doubted = one(&[up(1), up(2).failing()]);
    doubted.publishes(&[]);
    assert_eq!(doubted.notes(), [""; 0]);
    // Published by someone else: those that pass first, then by priority, then by IP.
    one(&[up(1).published(), up(2).published()]).publishes(&[1]);
    one(&[up(1).published().failing(), up(2).published()]).publishes(&[2]);
    one(&[up(1).published().tier(1), up(2).published()]).publishes(&[2]);
    // At a start, two that are published are both taken to be Up until they have had a verdict.
    one(&[up(1).published().unchecked(), up(2).published()])
        .keeps("no verdict yet for 198.51.100.1");
    one(&[up(1).published().unchecked(), up(2)]).publishes(&[1]);
}

#[test]
fn a_stale_writer_stays_until_another_has_taken_over() {
    // There is no other target. A lack of knowledge is no reason to take it out.
    one(&[up(1).published().stale(500), down(2)]).publishes(&[1]);
    one(&[up(1).published().never_conclusive(), down(2)]).publishes(&[1]);
    // The new one came Up after the old one had passed for the last time.
    let moved = one(&[up(1).published().stale(500), up(2).since(510)]);
    moved.publishes(&[2]);
    assert_eq!(moved.notes(), [""; 0], "no split brain");
    one(&[up(1).published().never_conclusive(), up(2).since(510)]).publishes(&[2]);
    // An old one that had begun to fail is as little known.
    one(&[up(1).published().failing().stale(500), up(2).since(510)]).publishes(&[2]);
    // Both passed at the same time: a lack of new verdicts proves nothing.
    let both = one(&[up(1).published().stale(500), up(2).since(490)]);
    both.publishes(&[1]);
    assert_eq!(both.notes(), [""; 0]);
    // A target that is stale or fails takes nothing over. Of two that pass, neither does.
    one(&[up(1).published().stale(500), up(2).since(510).stale(600)]).publishes(&[1]);
    one(&[up(1).published().stale(500), up(2).since(510).failing()]).publishes(&[1]);
    let rivals = one(&[up(1).published().stale(500), up(2).since(510), up(3).since(510)]);
    rivals.publishes(&[1]);
    assert!(
        rivals.notes()[0]
            .starts_with("split brain: 198.51.100.2, 198.51.100.3 pass, where one should; ")
    );
    // It also waits while another one that is Up may still claim the place.
    one(&[up(1).published().stale(500), up(2).since(510), up(3).failing()]).publishes(&[1]);
    // With none published, a stale target delays no other.
    one(&[up(1).stale(500), up(2).since(510), down(3).published()]).publishes(&[2]);
    one(&[up(1).stale(500), up(2).since(490), down(3).published()]).publishes(&[]);
    one(&[up(1).stale(500), down(3).published()]).publishes(&[1]);
    // A new writer is also confirmed in a hold.
    Case { holds: true, ..moved.clone() }.publishes(&[2]);
    // Once it has changed, the old one that passes again is a split brain, and changes nothing.
    let back = one(&[up(1), up(2).since(510).published()]);
    back.publishes(&[2]);
    assert!(back.notes()[0].contains("198.51.100.2, which is published, stays alone"));
}

#[test]
fn a_writer_becomes_stale_by_time_alone() {
    let fresh =
        one(&[Target { stale_at: Some(1010), ..up(1).published().failing() }, up(2).since(995)]);
    fresh.publishes(&[1]);
    assert_eq!(fresh.decide().reevaluate_at, Some(at(1010)));
    let stale = Case { now: 1010, ..fresh.clone() };
    stale.publishes(&[2]);
    assert_eq!(stale.decide().reevaluate_at, Some(at(2000)), "never at once: the other one's time");
    // With one that is Up there is nothing to decide.
    assert_eq!(one(&[up(1).published(), down(2)]).decide().reevaluate_at, None);
    // Other databases go by the state alone.
    case(&[up(1).published().stale(500), up(2).since(510)]).publishes(&[1, 2]);
}

#[test]
fn exactly_one_wins_over_all_other_rules() {
    let split = [up(1), up(2), down(3).published()];
    let with = |policy: Policy, targets: &[Target]| Case {
        policy: Policy { exactly_one: true, ..policy },
        failback_requested_at: Some(999),
        ..case(targets)
    };
    let at_least_one = || Policy { min_healthy: MinHealthy::Number(1), ..Policy::default() };
    // It does not remove the published one: that one stays, although it is down, rather than one
    // of two that claim its place.
    with(at_least_one(), &split).publishes(&[3]);
    with(at_least_one(), &split[..2]).publishes(&[]);
    with(
        Policy { min_healthy: MinHealthy::Number(2), ..Policy::default() },
        &[down(1).published(), down(2).published()],
    )
    .publishes(&[1]);
    with(at_least_one(), &[up(1).published().in_maintenance(), down(2)]).publishes(&[1]);
    // No preferred tier comes in beside the one that serves, or instead of it.
    with(Policy::default(), &[up(1), up(2).tier(1).published()]).publishes(&[2]);
    // Maintenance is how the operator says which target is not the writer.
    let settled = with(Policy::default(), &[up(1).in_maintenance(), up(2)]);
    settled.publishes(&[2]);
    assert_eq!(settled.notes(), [""; 0]);
    // Flapping keeps no writer out.
    with(Policy::default(), &[up(1).out_until(1100), down(2).published()]).publishes(&[1]);
}

#[test]
fn in_a_hold_a_writer_stays_until_another_is_confirmed() {
    let hold = |targets: &[Target]| Case { holds: true, ..one(targets) };
    hold(&[down(1).published(), down(2)]).publishes(&[1]);
    hold(&[down(1).published(), up(2)]).publishes(&[2]);
    hold(&[down(1).comes_back(), down(2)]).publishes(&[1]);
    hold(&[down(1).comes_back().since(5), down(2).comes_back().since(6)]).publishes(&[2]);
    hold(&[down(1).published(), down(2).comes_back().since(6)]).publishes(&[1]);
    // Two claim to be the writer: nobody new, and nobody comes back beside them.
    hold(&[down(1).published(), up(2), up(3)]).publishes(&[1]);
    hold(&[down(1).comes_back(), up(2), up(3)]).publishes(&[]);
    hold(&[down(1).published().in_maintenance(), down(2)]).publishes(&[]);
}
