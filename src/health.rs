//! The health of one target: a state machine from verdicts to Up and Down, with thresholds. Pure.
//!
//! | state   | Pass                           | Fail                         | Inconclusive |
//! | ---     | ---                            | ---                          | ---          |
//! | Unknown | Up, once initialized           | Down, once initialized       | stays        |
//! | Up      | stays, and resets the failures | Down at `unhealthy` in a row | stays        |
//! | Down    | Up at `healthy` in a row       | stays, and resets the passes | stays        |
//!
//! A restart must not be an outage. A target that the cluster already publishes when it is first
//! read therefore starts as Up, and leaves only as any Up target does. Verdicts that come before
//! the target is initialized count toward that.
//!
//! An Inconclusive never changes the state, but it does not refresh what is known either. The times
//! of the newest Pass and of the newest conclusive verdict are kept for decisions that depend on
//! age.

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
    /// The try says nothing about the target, because the fault is on this side.
    Inconclusive(String),
}

impl Verdict {
    /// Returns the reason of a verdict that is not a Pass.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Verdict::Pass => None,
            Verdict::Fail(reason) | Verdict::Inconclusive(reason) => Some(reason),
        }
    }
}

/// The state of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// No conclusive verdict yet, and not published when the cluster was first read.
    Unknown,
    /// Healthy by the thresholds, or published when the cluster was first read.
    Up,
    /// Unhealthy by the thresholds.
    Down,
}

impl State {
    /// Returns the word for logs, metrics and the status API.
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

/// Time for which all verdicts may be inconclusive before that is reported. A short lack of file
/// descriptors is not.
pub const INCONCLUSIVE_TOLERANCE: Duration = Duration::from_secs(60);

/// Consecutive verdicts that flip a state. Both are at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Passes in a row that flip a target to Up.
    pub healthy: u32,
    /// Failures in a row that flip a target to Down.
    pub unhealthy: u32,
}

/// Passes or failures in a row, up to the newest conclusive verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streak {
    /// No conclusive verdict yet.
    None,
    /// This many passes.
    Passes(u32),
    /// This many failures.
    Failures(u32),
}

/// A state that flipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
}

/// The state of one target, with the verdicts that led there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    state: State,
    streak: Streak,
    since: Instant,
    reason: Option<String>,
    initialized: bool,
    verdict_times: VerdictTimes,
}

/// The times of the newest verdicts of each kind; none if there has been none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct VerdictTimes {
    any: Option<Instant>,
    pass: Option<Instant>,
    /// The newest Pass or Fail.
    conclusive: Option<Instant>,
    /// The first of the inconclusive verdicts since the last conclusive one.
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
    /// Returns a target of which nothing is known yet.
    pub fn new(now: Instant) -> Self {
        let (state, streak, verdict_times) =
            (State::Unknown, Streak::None, VerdictTimes::default());
        Self { state, streak, since: now, reason: None, initialized: false, verdict_times }
    }

    /// Returns the state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Returns the streak.
    pub fn streak(&self) -> Streak {
        self.streak
    }

    /// Returns whether the newest verdicts speak against the state, but are too few to flip it.
    pub fn in_doubt(&self) -> bool {
        matches!(
            (self.state, self.streak),
            (State::Up, Streak::Failures(_)) | (State::Down, Streak::Passes(_))
        )
    }

    /// Returns whether [`initialize`] has been called.
    pub fn is_initialized(&self) -> bool {
        self.initialized
    }

    /// Returns whether there has been any verdict, also an inconclusive one.
    pub fn is_checked(&self) -> bool {
        self.verdict_times.any.is_some()
    }

    /// Returns the time of the newest Pass.
    pub fn passed_at(&self) -> Option<Instant> {
        self.verdict_times.pass
    }

    /// Returns the time of the newest conclusive verdict. Without one, returns the time at which
    /// the cluster showed the target.
    pub fn known_at(&self) -> Instant {
        self.verdict_times.conclusive.unwrap_or(self.since)
    }

    /// Returns the time since which all verdicts have been inconclusive, if that is longer ago than
    /// [`INCONCLUSIVE_TOLERANCE`].
    pub fn inconclusive_since(&self) -> Option<Instant> {
        let VerdictTimes { any, inconclusive_since, .. } = self.verdict_times;
        inconclusive_since.filter(|since| {
            any.is_some_and(|newest| newest.duration_since(*since) > INCONCLUSIVE_TOLERANCE)
        })
    }

    /// Returns the time of the last change of state.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Returns the reason of the newest verdict; none if it was a Pass.
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

    /// Returns the state to which the streak leads.
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

/// Counts a verdict, and flips the state if the streak has reached its threshold.
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

/// Starts a published target as Up, the first time that the cluster is read. Later calls change
/// nothing: from then on only verdicts count.
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

    /// Returns a target that was initialized, and then had these verdicts.
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
    fn a_pass_resets_the_failures_and_the_reason() {
        let health = after(true, &[fail(), fail(), Verdict::Pass, fail(), fail()]);
        assert_eq!((health.state(), health.streak()), (State::Up, Streak::Failures(2)));
        assert_eq!(health.reason(), Some("connect: refused"));
        assert_eq!(after(true, &[fail(), Verdict::Pass]).reason(), None);
    }

    #[test]
    fn an_inconclusive_verdict_neither_counts_nor_breaks_a_count() {
        let inconclusive = || Verdict::Inconclusive("connect: no free local port".into());
        let health = after(true, &[fail(), fail(), inconclusive(), inconclusive(), inconclusive()]);
        assert_eq!((health.state(), health.streak()), (State::Up, Streak::Failures(2)));
        assert_eq!(after(true, &[fail(), fail(), inconclusive(), fail()]).state(), State::Down);
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
        let seen = initialize(&mut published, true, THRESHOLDS, now);
        assert_eq!(seen, Some(Transition { from: State::Unknown, to: State::Up }));
        observe(&mut published, &fail(), THRESHOLDS, now);
        assert_eq!(published.state(), State::Down, "the third failure in a row disproves it");

        let seen = initialize(&mut health, false, THRESHOLDS, now);
        assert_eq!(seen, Some(Transition { from: State::Unknown, to: State::Down }));
    }

    #[test]
    fn only_the_first_initialization_counts() {
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
    fn a_target_is_checked_by_any_verdict_and_not_by_initializing() {
        assert!(!after(true, &[]).is_checked());
        for verdict in [Verdict::Pass, fail(), Verdict::Inconclusive("ours".into())] {
            assert!(after(false, &[verdict]).is_checked());
        }
    }

    #[test]
    fn a_state_is_in_doubt_while_the_newest_verdicts_contradict_it() {
        assert!(!after(true, &[]).in_doubt() && !after(true, &[Verdict::Pass]).in_doubt());
        assert!(after(true, &[fail()]).in_doubt());
        assert!(!after(false, &[fail()]).in_doubt());
        assert!(after(false, &[fail(), Verdict::Pass]).in_doubt());
        assert!(!after(false, &[Verdict::Pass]).in_doubt());
    }

    #[test]
    fn the_time_of_the_newest_conclusive_verdict_is_kept() {
        let now = start();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut health = Health::new(now);
        initialize(&mut health, true, THRESHOLDS, at(1));
        assert_eq!((health.known_at(), health.passed_at()), (at(1), None));
        let mut observe_at = |verdict: Verdict, seconds| {
            observe(&mut health, &verdict, THRESHOLDS, at(seconds));
            (health.known_at(), health.passed_at())
        };
        let inconclusive = || Verdict::Inconclusive("ours".into());
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
        let inconclusive = || Verdict::Inconclusive("ours".into());
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
        fn the_time_of_initialization_matters_only_after_two_flips(
            verdicts in prop::collection::vec(any_verdict(), 0..3),
        ) {
            // Fewer verdicts than a flip there and back takes: seen before or after them, a
            // published target is the same.
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
