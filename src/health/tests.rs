//! The rules of health, one by one and against a naive version of them.

use super::InitialMembership::{Published, Unpublished};
use super::*;
use proptest::prelude::*;
use std::time::Duration;

const THRESHOLDS: Thresholds = Thresholds { healthy: 2, unhealthy: 3 };

#[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
fn start() -> Instant {
    Instant::now()
}

fn fail() -> Verdict {
    Verdict::Fail("connect: refused".into())
}

/// Returns a target that was initialized, and then had these verdicts.
fn after(membership: InitialMembership, verdicts: &[Verdict]) -> Health {
    let now = start();
    let mut health = Health::new(now);
    initialize(&mut health, membership, THRESHOLDS, now);
    for verdict in verdicts {
        observe(&mut health, verdict, THRESHOLDS, now);
    }
    health
}

#[test]
fn the_first_verdict_decides_for_a_target_that_is_not_published() {
    assert_eq!(after(Unpublished, &[]).state(), State::Unknown);
    assert_eq!(after(Unpublished, &[Verdict::Pass]).state(), State::Up);
    assert_eq!(after(Unpublished, &[fail()]).state(), State::Down);
    assert_eq!(
        after(Unpublished, &[Verdict::Inconclusive("no descriptors".into())]).state(),
        State::Unknown
    );
}

#[test]
fn a_published_target_is_up_until_disproved() {
    assert_eq!(after(Published, &[]).state(), State::Up);
    assert_eq!(after(Published, &[fail(), fail()]).state(), State::Up);
    assert_eq!(after(Published, &[fail(), fail(), fail()]).state(), State::Down);
}

#[test]
fn a_pass_resets_the_failures_and_the_reason() {
    let health = after(Published, &[fail(), fail(), Verdict::Pass, fail(), fail()]);
    assert_eq!((health.state(), health.streak()), (State::Up, Streak::Failures(2)));
    assert_eq!(health.reason(), Some("connect: refused"));
    assert_eq!(after(Published, &[fail(), Verdict::Pass]).reason(), None);
}

#[test]
fn an_inconclusive_verdict_neither_counts_nor_breaks_a_count() {
    let inconclusive = || Verdict::Inconclusive("connect: no free local port".into());
    let health =
        after(Published, &[fail(), fail(), inconclusive(), inconclusive(), inconclusive()]);
    assert_eq!((health.state(), health.streak()), (State::Up, Streak::Failures(2)));
    assert_eq!(after(Published, &[fail(), fail(), inconclusive(), fail()]).state(), State::Down);
}

#[test]
fn verdicts_before_the_cluster_is_read_count_but_flip_nothing() {
    let now = start();
    let mut health = Health::new(now);
    for _ in 0..2 {
        assert_eq!(observe(&mut health, &fail(), THRESHOLDS, now), None);
    }
    assert_eq!(health.state(), State::Unknown);

    let mut published = health.clone();
    let transition = initialize(&mut published, Published, THRESHOLDS, now);
    assert_eq!(transition, Some(Transition { from: State::Unknown, to: State::Up }));
    observe(&mut published, &fail(), THRESHOLDS, now);
    assert_eq!(published.state(), State::Down, "the third failure in a row disproves it");

    let transition = initialize(&mut health, Unpublished, THRESHOLDS, now);
    assert_eq!(transition, Some(Transition { from: State::Unknown, to: State::Down }));
}

#[test]
fn only_the_first_initialization_counts() {
    assert!(!Health::new(start()).is_initialized() && after(Unpublished, &[]).is_initialized());
    let mut health = after(Unpublished, &[fail()]);
    assert_eq!(initialize(&mut health, Published, THRESHOLDS, start()), None);
    assert_eq!(health.state(), State::Down);
}

#[test]
fn since_moves_with_the_state_only() {
    let now = start();
    let later = now + Duration::from_secs(7);
    let mut health = Health::new(now);
    initialize(&mut health, Published, THRESHOLDS, now);
    observe(&mut health, &Verdict::Pass, THRESHOLDS, later);
    assert_eq!(health.since(), now);
    for _ in 0..3 {
        observe(&mut health, &fail(), THRESHOLDS, later);
    }
    assert_eq!(health.since(), later);
}

#[test]
fn each_state_has_its_word() {
    let words =
        [State::Unknown, State::Up, State::Down].map(|state| (state.as_str(), state.to_string()));
    assert_eq!(words, ["unknown", "up", "down"].map(|word| (word, word.to_owned())));
}

#[test]
fn a_target_is_checked_by_any_verdict_and_not_by_initializing() {
    assert!(!after(Published, &[]).is_checked());
    for verdict in [Verdict::Pass, fail(), Verdict::Inconclusive("no route".into())] {
        assert!(after(Unpublished, &[verdict]).is_checked());
    }
}

#[test]
fn a_state_is_in_doubt_while_the_newest_verdicts_contradict_it() {
    assert!(!after(Published, &[]).in_doubt() && !after(Published, &[Verdict::Pass]).in_doubt());
    assert!(after(Published, &[fail()]).in_doubt());
    assert!(!after(Unpublished, &[fail()]).in_doubt());
    assert!(after(Unpublished, &[fail(), Verdict::Pass]).in_doubt());
    assert!(!after(Unpublished, &[Verdict::Pass]).in_doubt());
}

#[test]
fn the_time_of_the_newest_conclusive_verdict_is_kept() {
    let now = start();
    let at = |seconds| now + Duration::from_secs(seconds);
    let mut health = Health::new(now);
    initialize(&mut health, Published, THRESHOLDS, at(1));
    assert_eq!((health.known_at(), health.passed_at()), (at(1), None));
    let mut observe_at = |verdict: Verdict, seconds| {
        observe(&mut health, &verdict, THRESHOLDS, at(seconds));
        (health.known_at(), health.passed_at())
    };
    let inconclusive = || Verdict::Inconclusive("no route".into());
    assert_eq!(observe_at(inconclusive(), 2), (at(1), None));
    assert_eq!(observe_at(Verdict::Pass, 3), (at(3), Some(at(3))));
    assert_eq!(observe_at(fail(), 4), (at(4), Some(at(3))));
    assert_eq!(observe_at(inconclusive(), 5), (at(4), Some(at(3))));
}

#[test]
fn inconclusive_verdicts_are_reported_after_a_minute() {
    let now = start();
    let mut health = Health::new(now);
    let mut observe_at = |verdict: Verdict, seconds| {
        observe(&mut health, &verdict, THRESHOLDS, now + Duration::from_secs(seconds));
        health.inconclusive_since().map(|since| since.duration_since(now).as_secs())
    };
    let inconclusive = || Verdict::Inconclusive("no route".into());
    assert_eq!(observe_at(inconclusive(), 0), None);
    assert_eq!(observe_at(inconclusive(), 60), None);
    assert_eq!(observe_at(inconclusive(), 61), Some(0));
    assert_eq!(observe_at(inconclusive(), 200), Some(0));
    assert_eq!(observe_at(fail(), 201), None);
    assert_eq!(observe_at(inconclusive(), 300), None, "a failure before was no part of it");
    assert_eq!(observe_at(inconclusive(), 361), Some(300));
    assert_eq!(observe_at(Verdict::Pass, 362), None);
}

/// Applies the rules in their simplest form: reads the whole history after every verdict.
fn naive(membership: InitialMembership, verdicts: &[Verdict], thresholds: Thresholds) -> State {
    let ends_with = |history: &[&Verdict], n: u32, pass: bool| {
        history.len() >= n as usize
            && history.iter().rev().take(n as usize).all(|v| (**v == Verdict::Pass) == pass)
    };
    let mut state = if membership == Published { State::Up } else { State::Unknown };
    let mut history = Vec::new();
    for verdict in verdicts.iter().filter(|v| !matches!(v, Verdict::Inconclusive(_))) {
        history.push(verdict);
        state = match state {
            State::Unknown if *verdict == Verdict::Pass => State::Up,
            State::Unknown => State::Down,
            State::Up if ends_with(&history, thresholds.unhealthy, false) => State::Down,
            State::Down if ends_with(&history, thresholds.healthy, true) => State::Up,
            same => same,
        };
    }
    state
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    let inconclusive = Verdict::Inconclusive("no route".into());
    prop_oneof![3 => Just(Verdict::Pass), 3 => Just(fail()), 1 => Just(inconclusive)]
}

proptest! {
    #[test]
    fn any_history_ends_as_the_naive_model_says(
        membership in prop_oneof![Just(Published), Just(Unpublished)],
        verdicts in prop::collection::vec(any_verdict(), 0..60),
        healthy in 1u32..5,
        unhealthy in 1u32..5,
    ) {
        let thresholds = Thresholds { healthy, unhealthy };
        let now = start();
        let mut health = Health::new(now);
        initialize(&mut health, membership, thresholds, now);
        for (i, verdict) in verdicts.iter().enumerate() {
            let before = health.state();
            let transition = observe(&mut health, verdict, thresholds, now);
            prop_assert_eq!(health.state(), naive(membership, &verdicts[..=i], thresholds));
            let expected = Transition { from: before, to: health.state() };
            prop_assert_eq!(transition, (before != health.state()).then_some(expected));
        }
    }

    #[test]
    fn the_time_of_initialization_matters_only_after_two_flips(
        verdicts in prop::collection::vec(any_verdict(), 0..3),
    ) {
        // These are fewer verdicts than two flips take. So a published target is the same, whether
        // the cluster is read before or after them.
        let now = start();
        let mut initialized_late = Health::new(now);
        for verdict in &verdicts {
            observe(&mut initialized_late, verdict, THRESHOLDS, now);
        }
        initialize(&mut initialized_late, Published, THRESHOLDS, now);
        prop_assert_eq!(initialized_late, after_at(now, &verdicts));
    }
}

fn after_at(now: Instant, verdicts: &[Verdict]) -> Health {
    let mut health = Health::new(now);
    initialize(&mut health, Published, THRESHOLDS, now);
    for verdict in verdicts {
        observe(&mut health, verdict, THRESHOLDS, now);
    }
    health
}
