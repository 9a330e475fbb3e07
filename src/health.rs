//! The health of one target: a pure state machine from verdicts to Up and Down, with thresholds; no clock of its own.
//!
//! | state   | Pass                                  | Fail                                    | Inconclusive |
//! | ---     | ---                                   | ---                                     | ---          |
//! | Unknown | Up (once the cluster has been seen)   | Down (once the cluster has been seen)   | stays        |
//! | Up      | stays, failures forgotten             | Down at `unhealthy` failures in a row   | stays        |
//! | Down    | Up at `healthy` passes in a row       | stays, passes forgotten                 | stays        |
//!
//! A restart must not be an outage: a target that the cluster already publishes when it is first seen starts as Up, and
//! leaves only as any Up target does. Verdicts that come before the cluster has been seen count toward that.
//!
//! An Inconclusive leaves the state as it is, but what is known grows old meanwhile: when the newest Pass and the newest
//! verdict of any other weight came is kept, for those who go by it.

use std::fmt;
use std::time::{Duration, Instant};

pub use flap_damper::FlapDamper;

mod flap_damper;

/// The outcome of one try of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The target answered as the check asks.
    Pass,
    /// The target did not; the reason names the phase (`connect: refused`).
    Fail(String),
    /// The try says nothing about the target, because the fault is on our side. It never moves a state.
    Inconclusive(String),
}

impl Verdict {
    /// Why it is not a Pass.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Verdict::Pass => None,
            Verdict::Fail(reason) | Verdict::Inconclusive(reason) => Some(reason),
        }
    }
}

/// What is known of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// No verdict yet, and not seen in the cluster.
    Unknown,
    Up,
    Down,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Up => "up",
            State::Down => "down",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How long nothing but inconclusive verdicts may come before it is worth a word: a short lack of descriptors is not.
pub const INCONCLUSIVE_TOLERANCE: Duration = Duration::from_secs(60);

/// How many consecutive verdicts flip a state. Both are at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    pub healthy: u32,
    pub unhealthy: u32,
}

/// Passes or failures in a row, up to the newest verdict that was either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streak {
    None,
    Passes(u32),
    Failures(u32),
}

/// A state that flipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    pub from: State,
    pub to: State,
}

/// What is known of one target, and what led there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    state: State,
    streak: Streak,
    since: Instant,
    reason: Option<String>,
    initialized: bool,
    verdict_times: VerdictTimes,
}

/// When the newest verdict of each weight came; none if there has not been one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct VerdictTimes {
    any: Option<Instant>,
    pass: Option<Instant>,
    /// Of those that say something about the target: a Pass or a Fail.
    conclusive: Option<Instant>,
    /// The first of those inconclusive ones after which nothing else has come.
    inconclusive_since: Option<Instant>,
}

impl VerdictTimes {
    fn record(&mut self, verdict: &Verdict, now: Instant) {
        self.any = Some(now);
        if let Verdict::Inconclusive(_) = verdict {
            self.inconclusive_since.get_or_insert(now);
            return;
        }
        self.conclusive = Some(now);
        self.inconclusive_since = None;
        if *verdict == Verdict::Pass {
            self.pass = Some(now);
        }
    }
}

impl Health {
    /// A target of which nothing is known yet.
    pub fn new(now: Instant) -> Self {
        let (state, streak, verdict_times) =
            (State::Unknown, Streak::None, VerdictTimes::default());
        Self { state, streak, since: now, reason: None, initialized: false, verdict_times }
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn streak(&self) -> Streak {
        self.streak
    }

    /// Whether the newest verdicts speak against the state, and have yet to flip it.
    pub fn in_doubt(&self) -> bool {
        matches!(
            (self.state, self.streak),
            (State::Up, Streak::Failures(_)) | (State::Down, Streak::Passes(_))
        )
    }

    /// Whether it is known if the cluster published it at first sight.
    pub fn is_initialized(&self) -> bool {
        self.initialized
    }

    /// Whether there has been any verdict, be it an inconclusive one.
    pub fn is_checked(&self) -> bool {
        self.verdict_times.any.is_some()
    }

    /// When the newest Pass came.
    pub fn passed_at(&self) -> Option<Instant> {
        self.verdict_times.pass
    }

    /// When it was last known how the target is: by its newest verdict that was not inconclusive, or, without one, by what
    /// the cluster showed.
    pub fn known_at(&self) -> Instant {
        self.verdict_times.conclusive.unwrap_or(self.since)
    }

    /// Since when all verdicts have been inconclusive, if they have been for longer than is to be put up with.
    pub fn inconclusive_since(&self) -> Option<Instant> {
        let VerdictTimes { any, inconclusive_since, .. } = self.verdict_times;
        inconclusive_since.filter(|since| {
            any.is_some_and(|newest| newest.duration_since(*since) > INCONCLUSIVE_TOLERANCE)
        })
    }

    /// When the target came into its state.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Why the newest verdict was not a Pass; none if it was.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn set_state(&mut self, to: State, now: Instant) -> Option<Transition> {
        if self.state == to {
            return None;
        }
        let from = std::mem::replace(&mut self.state, to);
        self.since = now;
        Some(Transition { from, to })
    }

    /// The state that the streak asks for.
    fn next_state(&self, thresholds: Thresholds) -> State {
        match (self.state, self.streak) {
            (State::Unknown, _) if !self.initialized => State::Unknown,
            (State::Unknown, Streak::Passes(_)) => State::Up,
            (State::Unknown, Streak::Failures(_)) => State::Down,
            (State::Up, Streak::Failures(n)) if n >= thresholds.unhealthy => State::Down,
            (State::Down, Streak::Passes(n)) if n >= thresholds.healthy => State::Up,
            (state, _) => state,
        }
    }
}

/// Counts a verdict, and flips the state if that was the last one it took.
pub fn observe(
    health: &mut Health,
    verdict: &Verdict,
    thresholds: Thresholds,
    now: Instant,
) -> Option<Transition> {
    health.verdict_times.record(verdict, now);
    health.reason = verdict.reason().map(str::to_owned);
    health.streak = match (verdict, health.streak) {
        (Verdict::Inconclusive(_), streak) => streak,
        (Verdict::Pass, Streak::Passes(n)) => Streak::Passes(n.saturating_add(1)),
        (Verdict::Pass, _) => Streak::Passes(1),
        (Verdict::Fail(_), Streak::Failures(n)) => Streak::Failures(n.saturating_add(1)),
        (Verdict::Fail(_), _) => Streak::Failures(1),
    };
    let to = health.next_state(thresholds);
    health.set_state(to, now)
}

/// Learns whether the cluster publishes the target, the first time that the cluster is seen. Later calls change nothing:
/// from then on only verdicts count.
pub fn initialize(
    health: &mut Health,
    published: bool,
    thresholds: Thresholds,
    now: Instant,
) -> Option<Transition> {
    if health.initialized {
        return None;
    }
    health.initialized = true;
    let before = health.state;
    if published {
        health.set_state(State::Up, now);
    }
    let to = health.next_state(thresholds);
    health.set_state(to, now);
    (before != health.state).then_some(Transition { from: before, to: health.state })
}

#[cfg(test)]
mod tests {
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

    /// A target that has been seen, `published` or not, and then had these verdicts.
    fn after(published: bool, verdicts: &[Verdict]) -> Health {
        let now = start();
        let mut health = Health::new(now);
        initialize(&mut health, published, THRESHOLDS, now);
        for verdict in verdicts {
            observe(&mut health, verdict, THRESHOLDS, now);
        }
        health
    }

    #[test]
    fn the_first_verdict_decides_for_a_target_that_is_not_published() {
        assert_eq!(after(false, &[]).state(), State::Unknown);
        assert_eq!(after(false, &[Verdict::Pass]).state(), State::Up);
        assert_eq!(after(false, &[fail()]).state(), State::Down);
        assert_eq!(
            after(false, &[Verdict::Inconclusive("no descriptors".into())]).state(),
            State::Unknown
        );
    }

    #[test]
    fn a_published_target_is_up_until_disproved() {
        assert_eq!(after(true, &[]).state(), State::Up);
        assert_eq!(after(true, &[fail(), fail()]).state(), State::Up);
        assert_eq!(after(true, &[fail(), fail(), fail()]).state(), State::Down);
    }

    #[test]
    fn a_pass_between_failures_starts_the_count_anew_and_the_reason_follows_the_newest_verdict() {
        let health = after(true, &[fail(), fail(), Verdict::Pass, fail(), fail()]);
        assert_eq!((health.state(), health.streak()), (State::Up, Streak::Failures(2)));
        assert_eq!(health.reason(), Some("connect: refused"));
        assert_eq!(after(true, &[fail(), Verdict::Pass]).reason(), None);
    }

    #[test]
    fn an_inconclusive_verdict_neither_counts_nor_breaks_a_count() {
        let ours = || Verdict::Inconclusive("connect: no free local port".into());
        let health = after(true, &[fail(), fail(), ours(), ours(), ours()]);
        assert_eq!((health.state(), health.streak()), (State::Up, Streak::Failures(2)));
        assert_eq!(after(true, &[fail(), fail(), ours(), fail()]).state(), State::Down);
    }

    #[test]
    fn verdicts_that_come_before_the_cluster_is_seen_count_but_move_nothing() {
        let now = start();
        let mut health = Health::new(now);
        for _ in 0..2 {
            assert_eq!(observe(&mut health, &fail(), THRESHOLDS, now), None);
        }
        assert_eq!(health.state(), State::Unknown);

        let mut published = health.clone();
        let seen = initialize(&mut published, true, THRESHOLDS, now);
        assert_eq!(seen, Some(Transition { from: State::Unknown, to: State::Up }));
        observe(&mut published, &fail(), THRESHOLDS, now);
        assert_eq!(published.state(), State::Down, "the third failure in a row disproves it");

        let seen = initialize(&mut health, false, THRESHOLDS, now);
        assert_eq!(seen, Some(Transition { from: State::Unknown, to: State::Down }));
    }

    #[test]
    fn only_the_first_sight_of_the_cluster_counts() {
        assert!(!Health::new(start()).is_initialized() && after(false, &[]).is_initialized());
        let mut health = after(false, &[fail()]);
        assert_eq!(initialize(&mut health, true, THRESHOLDS, start()), None);
        assert_eq!(health.state(), State::Down);
    }

    #[test]
    fn since_moves_with_the_state_only() {
        let now = start();
        let later = now + Duration::from_secs(7);
        let mut health = Health::new(now);
        initialize(&mut health, true, THRESHOLDS, now);
        observe(&mut health, &Verdict::Pass, THRESHOLDS, later);
        assert_eq!(health.since(), now);
        for _ in 0..3 {
            observe(&mut health, &fail(), THRESHOLDS, later);
        }
        assert_eq!(health.since(), later);
    }

    #[test]
    fn each_state_has_its_word() {
        let words = [State::Unknown, State::Up, State::Down]
            .map(|state| (state.as_str(), state.to_string()));
        assert_eq!(words, ["unknown", "up", "down"].map(|word| (word, word.to_owned())));
    }

    #[test]
    fn a_target_is_tried_by_any_verdict_and_not_by_being_seen() {
        assert!(!after(true, &[]).is_checked());
        for verdict in [Verdict::Pass, fail(), Verdict::Inconclusive("ours".into())] {
            assert!(after(false, &[verdict]).is_checked());
        }
    }

    #[test]
    fn a_state_is_in_doubt_while_the_newest_verdicts_speak_against_it() {
        assert!(!after(true, &[]).in_doubt() && !after(true, &[Verdict::Pass]).in_doubt());
        assert!(after(true, &[fail()]).in_doubt());
        assert!(!after(false, &[fail()]).in_doubt());
        assert!(after(false, &[fail(), Verdict::Pass]).in_doubt());
        assert!(!after(false, &[Verdict::Pass]).in_doubt());
    }

    #[test]
    fn it_is_known_when_a_verdict_last_said_something() {
        let now = start();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut health = Health::new(now);
        initialize(&mut health, true, THRESHOLDS, at(1));
        assert_eq!((health.known_at(), health.passed_at()), (at(1), None));
        let mut hear = |verdict: Verdict, seconds| {
            observe(&mut health, &verdict, THRESHOLDS, at(seconds));
            (health.known_at(), health.passed_at())
        };
        let ours = || Verdict::Inconclusive("ours".into());
        assert_eq!(hear(ours(), 2), (at(1), None));
        assert_eq!(hear(Verdict::Pass, 3), (at(3), Some(at(3))));
        assert_eq!(hear(fail(), 4), (at(4), Some(at(3))));
        assert_eq!(hear(ours(), 5), (at(4), Some(at(3))));
    }

    #[test]
    fn only_inconclusive_verdicts_for_over_a_minute_are_too_much() {
        let now = start();
        let mut health = Health::new(now);
        let mut hear = |verdict: Verdict, seconds| {
            observe(&mut health, &verdict, THRESHOLDS, now + Duration::from_secs(seconds));
            health.inconclusive_since().map(|since| since.duration_since(now).as_secs())
        };
        let ours = || Verdict::Inconclusive("ours".into());
        assert_eq!(hear(ours(), 0), None);
        assert_eq!(hear(ours(), 60), None);
        assert_eq!(hear(ours(), 61), Some(0));
        assert_eq!(hear(ours(), 200), Some(0));
        assert_eq!(hear(fail(), 201), None);
        assert_eq!(hear(ours(), 300), None, "a failure before was no part of it");
        assert_eq!(hear(ours(), 361), Some(300));
        assert_eq!(hear(Verdict::Pass, 362), None);
    }

    /// The rules again, in the most naive form: look at the whole history after every verdict.
    fn naive(published: bool, verdicts: &[Verdict], thresholds: Thresholds) -> State {
        let ends_with = |history: &[&Verdict], n: u32, pass: bool| {
            history.len() >= n as usize
                && history.iter().rev().take(n as usize).all(|v| (**v == Verdict::Pass) == pass)
        };
        let mut state = if published { State::Up } else { State::Unknown };
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
        prop_oneof![3 => Just(Verdict::Pass), 3 => Just(fail()), 1 => Just(Verdict::Inconclusive("ours".into()))]
    }

    proptest! {
        #[test]
        fn any_history_ends_as_the_naive_model_says(
            published: bool,
            verdicts in prop::collection::vec(any_verdict(), 0..60),
            healthy in 1u32..5,
            unhealthy in 1u32..5,
        ) {
            let thresholds = Thresholds { healthy, unhealthy };
            let now = start();
            let mut health = Health::new(now);
            initialize(&mut health, published, thresholds, now);
            for (i, verdict) in verdicts.iter().enumerate() {
                let before = health.state();
                let transition = observe(&mut health, verdict, thresholds, now);
                prop_assert_eq!(health.state(), naive(published, &verdicts[..=i], thresholds));
                let flipped = (before != health.state()).then_some(Transition { from: before, to: health.state() });
                prop_assert_eq!(transition, flipped);
            }
        }

        #[test]
        fn it_does_not_matter_how_early_the_cluster_is_seen_unless_the_state_flips_and_returns(
            verdicts in prop::collection::vec(any_verdict(), 0..3),
        ) {
            // Fewer verdicts than a flip there and back takes: seen before or after them, a published target is the same.
            let now = start();
            let mut late = Health::new(now);
            for verdict in &verdicts {
                observe(&mut late, verdict, THRESHOLDS, now);
            }
            initialize(&mut late, true, THRESHOLDS, now);
            prop_assert_eq!(late, after_at(now, &verdicts));
        }
    }

    fn after_at(now: Instant, verdicts: &[Verdict]) -> Health {
        let mut health = Health::new(now);
        initialize(&mut health, true, THRESHOLDS, now);
        for verdict in verdicts {
            observe(&mut health, verdict, THRESHOLDS, now);
        }
        health
    }
}
