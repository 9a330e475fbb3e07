//! The stages of a freeze, row by row, and the properties of every history.

use super::*;
use proptest::prelude::*;

/// Databases with their tallies, and a clock that the test sets.
struct Scene {
    freeze: Freeze,
    counts: Vec<Tally>,
    start: Instant,
    now: Instant,
}

const RULES: Rules = Rules { max_unhealthy: 60, timeout: Duration::from_secs(600) };

impl Scene {
    fn started(rules: Rules, published: &[usize]) -> Self {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        let now = Instant::now();
        let freeze = Freeze::new(rules, published.iter().copied());
        Self { freeze, counts: vec![Tally::default(); published.len()], start: now, now }
    }

    /// Returns a freeze in stage Normal: all databases are synced, all targets Up.
    fn in_normal_stage(rules: Rules, published: &[usize]) -> Self {
        let mut scene = Self::started(rules, published);
        for (index, published) in published.iter().enumerate() {
            scene.sync(index, *published);
        }
        scene.end();
        scene.freeze.take_changed();
        assert!(!scene.freeze.holds_removals());
        scene
    }

    fn new(published: &[usize]) -> Self {
        Self::in_normal_stage(RULES, published)
    }

    fn sync(&mut self, index: usize, published: usize) {
        self.set(index, Tally { published, ..Tally::default() });
        self.freeze.database_synced(self.now);
    }

    fn set(&mut self, index: usize, count: Tally) {
        let before = std::mem::replace(&mut self.counts[index], count);
        self.freeze.update_tally(before, count);
        self.freeze.maybe_enter(self.now);
    }

    /// Sets how many targets of each database have failed.
    fn failed(&mut self, failed: &[usize]) {
        for (index, failed) in failed.iter().enumerate() {
            self.set(index, Tally { failed: *failed, ..self.counts[index] });
        }
    }

    fn in_doubt(&mut self, in_doubt: &[usize]) {
        for (index, in_doubt) in in_doubt.iter().enumerate() {
            self.set(index, Tally { in_doubt: *in_doubt, ..self.counts[index] });
        }
    }

    fn end(&mut self) {
        self.freeze.maybe_leave(self.now, |_| false);
    }

    fn later(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.end();
    }

    fn stage(&self) -> &'static str {
        match self.freeze.stage {
            Stage::Starting(_) => "starting",
            Stage::Normal => "normal",
            Stage::Guarded { .. } => "guarded",
            Stage::Frozen { .. } => "frozen",
        }
    }

    #[track_caller]
    fn is(&self, stage: &str) {
        assert_eq!(self.stage(), stage);
        assert_eq!(self.freeze.holds_removals(), stage != "normal");
        assert_eq!(self.freeze.frozen().is_some(), stage == "frozen");
    }
}

#[test]
fn too_many_is_a_share_of_enough_targets_in_enough_databases() {
    // Published, failed, and whether that is a freeze.
    let table: [(&[usize], &[usize], bool); 11] = [
        (&[2, 2, 1], &[2, 1, 0], false),
        (&[2, 2, 1], &[2, 2, 0], true),
        (&[2, 2, 1], &[2, 1, 1], true),
        // Too few targets, too few databases.
        (&[2, 1, 1], &[2, 1, 1], false),
        (&[50, 50], &[50, 50], false),
        (&[50, 50, 0], &[50, 50, 0], false),
        // One database's own trouble.
        (&[98, 1, 1], &[98, 0, 0], false),
        (&[98, 1, 1], &[98, 1, 0], true),
        (&[4, 3, 3], &[3, 3, 0], false),
        (&[4, 3, 3], &[4, 3, 0], true),
        (&[2, 2, 1], &[0, 0, 0], false),
    ];
    for (published, failed, frozen) in table {
        let mut scene = Scene::new(published);
        scene.failed(failed);
        assert_eq!(scene.freeze.frozen().is_some(), frozen, "{failed:?} of {published:?}");
    }
}

#[test]
fn the_rules_can_switch_it_off() {
    for rules in [Rules { max_unhealthy: 100, ..RULES }, Rules { timeout: Duration::ZERO, ..RULES }]
    {
        let mut scene = Scene::in_normal_stage(rules, &[3, 3, 3]);
        scene.in_doubt(&[0, 3, 3]);
        scene.failed(&[3, 0, 0]);
        scene.is("normal");
        Scene::started(rules, &[3, 3, 3]).is("normal");
        assert!(!scene.freeze.is_enabled());
    }
    assert!(Scene::new(&[3, 3, 3]).freeze.is_enabled());
    let mut scene = Scene::in_normal_stage(Rules { timeout: Duration::MAX, ..RULES }, &[3, 3, 3]);
    scene.failed(&[3, 3, 3]);
    assert_eq!(scene.freeze.frozen().and_then(|frozen| frozen.expires_at), None);
    scene.later(1 << 30);
    scene.is("frozen");
}

#[test]
fn those_in_doubt_hold_but_make_no_freeze() {
    let mut scene = Scene::new(&[3, 3, 3]);
    scene.failed(&[1, 0, 0]);
    scene.in_doubt(&[2, 2, 0]);
    scene.is("normal");
    scene.in_doubt(&[2, 3, 0]);
    scene.is("guarded");
    assert!(scene.freeze.take_changed());
    assert!(!scene.freeze.take_changed(), "reset by the first call");
    assert_eq!(scene.freeze.take_events(), []);
    scene.in_doubt(&[2, 2, 0]);
    scene.later(0);
    scene.is("normal");
    assert!(scene.freeze.take_changed());
    // From doubt to failure.
    scene.in_doubt(&[2, 3, 3]);
    scene.failed(&[1, 2, 2]);
    scene.is("guarded");
    scene.failed(&[1, 2, 3]);
    scene.is("frozen");
    let [failed, published] = [6, 9].map(|targets| Totals { targets, databases: 3 });
    assert_eq!(scene.freeze.take_events(), [FreezeEvent::Frozen { failed, published }]);
}

#[test]
fn doubt_that_leads_to_nothing_holds_for_a_window_and_not_again() {
    let mut scene = Scene::new(&[3, 3, 3]);
    scene.in_doubt(&[3, 3, 3]);
    assert_eq!(scene.freeze.reevaluate_at(), Some(scene.start + FAILURE_WINDOW));
    scene.later(29);
    scene.is("guarded");
    scene.later(1);
    scene.is("normal");
    assert_eq!(scene.freeze.reevaluate_at(), None);
    scene.in_doubt(&[3, 3, 2]);
    scene.is("normal");
    scene.in_doubt(&[0, 3, 2]);
    scene.in_doubt(&[3, 3, 2]);
    scene.is("guarded");
}

#[test]
fn a_freeze_ends_when_few_fail_and_each_has_been_tried_since() {
    let mut scene = Scene::new(&[3, 3, 3]);
    scene.failed(&[3, 3, 3]);
    scene.later(60);
    scene.is("frozen");
    scene.failed(&[3, 2, 0]);
    let fell = scene.now;
    scene.now += Duration::from_secs(7);
    // Some have not been tried.
    let mut checked_from = None;
    scene.freeze.maybe_leave(scene.now, |from| checked_from.replace(from).is_none());
    assert_eq!(checked_from, Some(fell));
    scene.is("frozen");
    // Too many fail again, so the tries in between no longer count.
    scene.failed(&[3, 3, 0]);
    scene.later(7);
    scene.is("frozen");
    scene.failed(&[2, 3, 0]);
    assert_eq!(scene.freeze.reevaluate_at(), Some(scene.now + FAILURE_WINDOW));
    scene.freeze.take_events();
    scene.later(1);
    scene.is("normal");
    assert_eq!(scene.freeze.take_events(), [FreezeEvent::Thawed]);
}

#[test]
fn one_that_is_never_tried_holds_for_a_window_only() {
    let mut scene = Scene::new(&[3, 3, 3]);
    scene.failed(&[3, 3, 0]);
    scene.failed(&[3, 2, 0]);
    scene.now += FAILURE_WINDOW - Duration::from_millis(1);
    scene.freeze.maybe_leave(scene.now, |_| true);
    scene.is("frozen");
    scene.now += Duration::from_millis(1);
    scene.freeze.maybe_leave(scene.now, |_| true);
    scene.is("normal");
}

#[test]
fn a_freeze_times_out_and_only_new_failures_begin_another() {
    let mut scene = Scene::new(&[3, 3, 3]);
    scene.failed(&[3, 3, 0]);
    assert_eq!(
        scene.freeze.frozen().and_then(|frozen| frozen.expires_at),
        Some(scene.start + RULES.timeout)
    );
    scene.later(599);
    scene.is("frozen");
    scene.freeze.take_events();
    scene.later(1);
    scene.is("normal");
    assert_eq!(scene.freeze.take_events(), [FreezeEvent::TimedOut]);
    // The removals that were held back are made.
    scene.counts.iter().for_each(|count| {
        scene.freeze.update_tally(*count, Tally { published: 3, ..Tally::default() })
    });
    scene.counts = vec![Tally { published: 3, ..Tally::default() }; 3];
    scene.failed(&[0, 0, 3]);
    scene.is("normal");
    scene.failed(&[3, 0, 3]);
    scene.is("frozen");
}

#[test]
fn at_a_start_nothing_is_taken_out_until_all_is_known() {
    let mut scene = Scene::started(RULES, &[2, 2, 2]);
    scene.is("starting");
    scene.later(3600);
    scene.is("starting");
    assert_eq!(scene.freeze.reevaluate_at(), None);
    scene.sync(0, 2);
    scene.failed(&[2]);
    scene.sync(1, 2);
    scene.later(29);
    scene.is("starting");
    scene.sync(2, 2);
    scene.end();
    scene.is("normal");
    // As above, but now it is too many.
    let mut scene = Scene::started(RULES, &[2, 2, 2]);
    for index in 0..3 {
        scene.sync(index, 2);
        scene.in_doubt(&[2, 2, 2][..=index]);
    }
    scene.end();
    scene.is("guarded");
    scene.failed(&[2, 2, 2]);
    scene.is("frozen");
    // One that can't be read must not hold up all others for ever.
    let mut scene = Scene::started(RULES, &[3, 3, 3]);
    scene.sync(0, 3);
    scene.failed(&[3]);
    assert_eq!(scene.freeze.reevaluate_at(), Some(scene.start + FAILURE_WINDOW));
    scene.later(30);
    scene.is("normal");
    // Too few for a freeze are too few to wait for.
    Scene::started(RULES, &[9, 9]).is("normal");
    Scene::started(RULES, &[2, 1, 1]).is("normal");
}

#[test]
fn a_start_waits_for_the_databases_of_the_newest_config() {
    let mut scene = Scene::started(RULES, &[2, 2, 2]);
    scene.sync(0, 2);
    scene.sync(1, 2);
    // The third one has left the config.
    scene.freeze.set_unsynced(0);
    scene.end();
    scene.is("normal");
    // Two more have come, before the last one was synced.
    let mut scene = Scene::started(RULES, &[2, 2, 2]);
    scene.sync(0, 2);
    scene.sync(1, 2);
    scene.freeze.set_unsynced(3);
    scene.sync(2, 2);
    scene.end();
    scene.is("starting");
}

/// An event in a random history.
#[derive(Debug, Clone, Copy)]
enum Step {
    Count(usize, Tally),
    Later(u64, bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    let count = (0..8_usize, 0..8_usize, 0..8_usize).prop_map(|(healthy, failed, in_doubt)| {
        Tally { published: healthy + failed + in_doubt, failed, in_doubt }
    });
    prop_oneof![
        3 => (0..4_usize, count).prop_map(|(index, count)| Step::Count(index, count)),
        1 => (0..40_u64, any::<bool>()).prop_map(|(seconds, waits)| Step::Later(seconds, waits)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn it_holds_while_too_many_fail_and_never_longer_than_it_may(
        steps in prop::collection::vec(any_step(), 0..60),
        max_unhealthy in 1..=100_u8,
        timeout in 0..120_u64,
    ) {
        let rules = Rules { max_unhealthy, timeout: Duration::from_secs(timeout) };
        let mut scene = Scene::in_normal_stage(rules, &[3, 3, 3, 3]);
        let mut holding_since = None;
        for step in steps {
            let frozen = scene.freeze.frozen();
            match step {
                Step::Count(index, count) => scene.set(index, count),
                Step::Later(seconds, waits) => {
                    scene.now += Duration::from_secs(seconds);
                    scene.freeze.maybe_leave(scene.now, |_| waits);
                }
            }
            let all = |of: fn(&Tally) -> usize| Totals {
                targets: scene.counts.iter().map(of).sum(),
                databases: scene.counts.iter().filter(|count| of(count) > 0).count(),
            };
            // The sums are those of a count from scratch.
            let (published, failed) = (all(|count| count.published), all(|count| count.failed));
            prop_assert_eq!((scene.freeze.published, scene.freeze.failed), (published, failed));
            prop_assert_eq!(scene.freeze.suspect, all(|count| count.failed + count.in_doubt));

            let failed_fraction = failed.targets as f64 / published.targets.max(1) as f64;
            let too_many = failed_fraction > f64::from(max_unhealthy) / 100.0 + 1e-9
                && published.targets >= 5 && published.databases >= 3 && failed.databases >= 2;
            let on = max_unhealthy < 100 && timeout > 0;
            let counted = matches!(step, Step::Count(..));
            // Too many failures begin a freeze at once, and nothing else does.
            prop_assert!(!(on && too_many && counted) || scene.freeze.frozen().is_some());
            prop_assert!(frozen.is_some() || scene.freeze.frozen().is_none() || on && too_many);
            prop_assert!(on || !scene.freeze.holds_removals());
            // Nothing but time ends a freeze while it is too many.
            if let Some(frozen) = frozen
                && too_many
            {
                let has_expired =
                    frozen.expires_at.is_some_and(|expires_at| expires_at <= scene.now);
                prop_assert!(scene.freeze.frozen().is_some() || has_expired);
            }
            // No stage outlives its time.
            let holds = scene.freeze.holds_removals();
            holding_since = holds.then(|| holding_since.unwrap_or(scene.now));
            if let (Some(frozen), Step::Later(..)) = (scene.freeze.frozen(), step) {
                prop_assert!(frozen.expires_at.is_none_or(|expires_at| expires_at > scene.now));
            }
            if let (Some(reevaluate_at), Step::Later(..)) = (scene.freeze.reevaluate_at(), step) {
                prop_assert!(reevaluate_at > scene.now);
            }
        }
    }
}
