//! The truth tables of the plan, row by row.

use super::*;
use std::time::Duration;

mod exactly_one;
mod membership;
mod model;
mod names;
mod notes;
mod properties;

fn member(last: u8) -> Member {
    Member { ip: IpAddr::from([198, 51, 100, last]), hostname: None }
}

fn members(last: &[u8]) -> Members {
    last.iter().map(|last| member(*last)).collect()
}

/// A target, with times in seconds since the start of the test.
#[derive(Debug, Clone)]
struct Target {
    member: Member,
    state: State,
    since: u64,
    checked: bool,
    passing: bool,
    passed_at: Option<u64>,
    stale_at: Option<u64>,
    tier: u32,
    in_maintenance: bool,
    out_until: Option<u64>,
    published: bool,
    comes_back: bool,
}

fn target(last: u8, state: State) -> Target {
    let (checked, passing) = (state != State::Unknown, state == State::Up);
    let (tier, in_maintenance, out_until, published) = (0, false, None, false);
    let (comes_back, passed_at, stale_at) =
        (false, (state == State::Up).then_some(990), Some(2000));
    Target {
        member: member(last),
        state,
        since: 0,
        checked,
        passing,
        passed_at,
        stale_at,
        tier,
        in_maintenance,
        out_until,
        published,
        comes_back,
    }
}

fn up(last: u8) -> Target {
    target(last, State::Up)
}

fn down(last: u8) -> Target {
    target(last, State::Down)
}

fn unknown(last: u8) -> Target {
    target(last, State::Unknown)
}

impl Target {
    fn candidate(&self) -> Candidate<'_> {
        Candidate {
            member: &self.member,
            state: self.state,
            since: at(self.since),
            checked: self.checked,
            passing: self.passing,
            passed_at: self.passed_at.map(at),
            stale_at: self.stale_at.map(at),
            reason: Some("exec: no program"),
            priority: self.tier,
            in_maintenance: self.in_maintenance,
            suppressed_until: self.out_until.map(at),
            backing: crate::names::Backing::Current,
            is_late_arrival: false,
            restored_by_freeze: self.comes_back,
        }
    }

    fn published(self) -> Self {
        Self { published: true, ..self }
    }

    fn comes_back(self) -> Self {
        Self { comes_back: true, ..self }
    }

    fn since(self, since: u64) -> Self {
        Self { since, ..self }
    }

    fn tier(self, tier: u32) -> Self {
        Self { tier, ..self }
    }

    fn failing(self) -> Self {
        Self { passing: false, ..self }
    }

    fn unchecked(self) -> Self {
        Self { checked: false, passing: false, passed_at: None, ..self }
    }

    /// Returns a target without a conclusive verdict for too long after its last Pass.
    fn stale(self, passed_at: u64) -> Self {
        Self { passed_at: Some(passed_at), stale_at: Some(passed_at + 20), ..self }
    }

    /// Returns a target that has never had a conclusive verdict.
    fn never_conclusive(self) -> Self {
        Self { passing: false, passed_at: None, stale_at: Some(900), ..self }
    }

    fn checked(self) -> Self {
        Self { checked: true, ..self }
    }

    fn in_maintenance(self) -> Self {
        Self { in_maintenance: true, ..self }
    }

    fn out_until(self, until: u64) -> Self {
        Self { out_until: Some(until), ..self }
    }
}

/// A database, at a moment in seconds since the start of the test.
#[derive(Debug, Clone)]
struct Case {
    policy: Policy,
    targets: Vec<Target>,
    failback_requested_at: Option<u64>,
    now: u64,
    holds: bool,
}

fn case(targets: &[Target]) -> Case {
    Case {
        policy: Policy::default(),
        targets: targets.to_vec(),
        failback_requested_at: None,
        now: 1000,
        holds: false,
    }
}

fn at_least(min_healthy: u32, targets: &[Target]) -> Case {
    let policy = Policy { min_healthy: MinHealthy::Number(min_healthy), ..Policy::default() };
    Case { policy, ..case(targets) }
}

fn one(targets: &[Target]) -> Case {
    Case { policy: Policy { exactly_one: true, ..Policy::default() }, ..case(targets) }
}

fn manual(targets: &[Target]) -> Case {
    Case { policy: Policy { failback: Failback::Manual, ..Policy::default() }, ..case(targets) }
}

#[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
fn origin() -> Instant {
    static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

fn at(seconds: u64) -> Instant {
    origin() + Duration::from_secs(seconds)
}

impl Case {
    fn published(&self) -> Members {
        self.targets
            .iter()
            .filter(|target| target.published)
            .map(|target| target.member.clone())
            .collect()
    }

    fn decide(&self) -> Decision {
        self.decide_on(Some(&self.published()))
    }

    fn decide_on(&self, published: Option<&Members>) -> Decision {
        let targets: Vec<_> = self.targets.iter().map(Target::candidate).collect();
        let pool = Pool {
            targets: &targets,
            policy: &self.policy,
            failback_requested_at: self.failback_requested_at.map(at),
            holds_removals: self.holds,
            names: &[],
            late_arrivals_hold_empty: false,
        };
        decide(&pool, published, at(self.now))
    }

    fn notes(&self) -> Vec<String> {
        self.decide().notes.iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn publishes(&self, last: &[u8]) {
        assert_eq!(self.decide().plan, Plan::Publish(members(last)), "{self:?}");
    }

    #[track_caller]
    fn keeps(&self, why: &str) {
        match self.decide().plan {
            Plan::Keep(reason) => assert_eq!(reason.to_string(), why),
            Plan::Publish(members) => panic!("decided too early on {members}: {self:?}"),
        }
    }
}

#[test]
fn the_up_ones_are_published_in_order() {
    case(&[up(9), down(2).published(), up(1)]).publishes(&[1, 9]);
}

#[test]
fn none_up_is_published_as_none() {
    case(&[down(1).published(), down(2)]).publishes(&[]);
}

#[test]
fn one_unknown_target_keeps_what_is_there_and_is_named() {
    case(&[up(1), unknown(2), down(3)]).keeps("no verdict yet for 198.51.100.2");
    let many: Vec<_> = (1..=5).map(unknown).collect();
    case(&many).keeps("no verdict yet for 198.51.100.1, 198.51.100.2, 198.51.100.3 and 2 more");
}

#[test]
fn an_inconclusive_target_blocks_nothing_and_empties_nothing() {
    case(&[up(1), unknown(2).checked(), down(3)]).publishes(&[1]);
    let why =
        "no target is up, and all verdicts are inconclusive for 198.51.100.2 (exec: no program)";
    case(&[unknown(2).checked(), down(3)]).keeps(why);
    // The same holds while the only good one is in maintenance.
    case(&[up(1).published().in_maintenance(), unknown(2).checked()]).keeps(why);
}

#[test]
fn nothing_is_decided_before_the_cluster_is_synced() {
    let decision = case(&[unknown(1).in_maintenance()]).decide_on(None);
    assert_eq!(decision.plan, Plan::Keep(KeepReason::NotSynced));
    assert_eq!(KeepReason::NotSynced.to_string(), "the cluster has not been read yet");
    // Verdicts that have come meanwhile say something, though no target is Up or Down by them yet.
    let decision = case(&[unknown(1).checked(), unknown(2).checked()]).decide_on(None);
    assert_eq!(decision.plan, Plan::Keep(KeepReason::NotSynced));
}

#[test]
fn below_min_healthy_the_most_recently_healthy_stay() {
    let all =
        [down(1).since(10).published(), down(2).since(30).published(), down(3).since(20), up(4)];
    at_least(0, &all).publishes(&[4]);
    at_least(1, &all).publishes(&[4]);
    at_least(2, &all).publishes(&[2, 4]);
    at_least(3, &all).publishes(&[1, 2, 4]);
    // The third was not published, and does not stay.
    at_least(9, &all).publishes(&[1, 2, 4]);
    at_least(1, &all[..2]).publishes(&[2]);
    assert_eq!(
        at_least(2, &all).notes(),
        ["1 healthy, where minHealthy asks for 2; 198.51.100.2 stays to make up the number"]
    );
    let none = at_least(1, &[down(1), down(2)]);
    none.publishes(&[]);
    assert_eq!(
        none.notes(),
        ["0 healthy, where minHealthy asks for 1; nothing else is published that could stay"]
    );
}

#[test]
fn a_percentage_is_of_the_preferred_tier_rounded_up() {
    let of = |percentage, addresses| MinHealthy::Percentage(percentage).to_count(addresses);
    assert_eq!([of(0, 5), of(1, 5), of(50, 5), of(50, 4), of(100, 3)], [0, 1, 3, 2, 3]);
    let policy = Policy { min_healthy: MinHealthy::Percentage(50), ..Policy::default() };
    let spare = [up(1).published(), up(2).tier(1), up(3).tier(1)];
    Case { policy, ..case(&spare) }.publishes(&[1]);
}

#[test]
fn maintenance_removes_all_but_those_for_min_healthy() {
    let one_of_two = [up(1).published().in_maintenance(), up(2).published()];
    case(&one_of_two).publishes(&[2]);
    at_least(1, &one_of_two).publishes(&[2]);
    at_least(2, &one_of_two).publishes(&[1, 2]);
    // All of them: what the operator asks for, unless the policy forbids it.
    let all = [up(1).published().in_maintenance(), up(2).published().in_maintenance()];
    case(&all).publishes(&[]);
    at_least(1, &all).publishes(&[1]);
    assert_eq!(
        at_least(1, &all).notes(),
        ["0 healthy, where minHealthy asks for 1; 198.51.100.1 stays to make up the number"]
    );
    // One that answers stays before one that does not, and one that somebody works on goes before
    // others.
    at_least(1, &[up(1).published().in_maintenance(), down(2).since(900).published()])
        .publishes(&[1]);
    at_least(1, &[down(1).since(900).published().in_maintenance(), down(2).published()])
        .publishes(&[2]);
    // A target in maintenance delays no decision, and does not enter by being healthy.
    case(&[unknown(1).in_maintenance(), up(2)]).publishes(&[2]);
    at_least(1, &[up(1).in_maintenance(), down(2).published()]).publishes(&[2]);
}

#[test]
fn a_lower_tier_serves_when_those_above_are_too_weak() {
    case(&[up(1).published(), up(2), up(3).tier(1)]).publishes(&[1, 2]);
    let failed = case(&[down(1).published(), down(2).published(), up(3).tier(1), up(4).tier(2)]);
    failed.publishes(&[3]);
    assert_eq!(failed.notes(), ["tier 1 serves"]);
    case(&[down(1).published(), down(2).tier(1), up(3).tier(2)]).publishes(&[3]);
    // What is left of a tier that is too weak goes on beside the next.
    at_least(2, &[up(1).published(), down(2).published(), up(3).tier(1), up(4).tier(2)])
        .publishes(&[1, 3]);
    at_least(9, &[up(1).published(), up(3).tier(1), up(4).tier(2)]).publishes(&[1, 3, 4]);
    // A tier in maintenance is as weak as one that is down.
    case(&[up(1).published().in_maintenance(), up(3).tier(1)]).publishes(&[3]);
    // With nothing published, the selection starts from the top tier.
    case(&[up(1), up(3).tier(1)]).publishes(&[1]);
}

#[test]
fn the_preferred_tier_returns_after_the_delay() {
    let back = [up(1).since(800), down(2), up(3).tier(1).published(), up(4).tier(1), up(5).tier(2)];
    let waiting = case(&back);
    // The tier that serves also admits its other targets meanwhile.
    waiting.publishes(&[3, 4]);
    assert_eq!(waiting.decide().reevaluate_at, Some(at(1100)), "five minutes after it came up");
    let until = Some(at(1100));
    assert_eq!(
        waiting.decide().notes,
        [PolicyNote::FailbackWaits { tier: 0, until }, PolicyNote::DegradedTier { tier: 1 }]
    );
    Case { now: 1099, ..waiting.clone() }.publishes(&[3, 4]);
    let done = Case { now: 1100, ..waiting };
    done.publishes(&[1]);
    assert_eq!((done.decide().reevaluate_at, done.decide().notes), (None, Vec::new()));
    // A tier is healthy once it has as many healthy targets as are needed.
    let both = [
        up(1).since(700),
        up(2).since(900),
        up(3).since(950),
        up(4).tier(1).published(),
        up(5).tier(1),
    ];
    assert_eq!(at_least(2, &both).decide().reevaluate_at, Some(at(1200)));
    // It need not wait when those that serve become too few.
    case(&[up(1).since(999), down(3).tier(1).published()]).publishes(&[1]);
    at_least(
        2,
        &[
            up(1).since(999),
            up(2).since(999),
            up(3).tier(1).published(),
            down(4).tier(1).published(),
        ],
    )
    .publishes(&[1, 2]);
    // What has returned of a tier that is still too weak waits too.
    at_least(2, &[up(1), down(2), up(3).tier(1).published(), up(4).tier(1).published()])
        .publishes(&[3, 4]);
    at_least(2, &[up(1), down(2), up(3).tier(1).published(), down(4).tier(1).published()])
        .publishes(&[1, 3]);
}

#[test]
fn the_preferred_tier_returns_on_request() {
    let back = [up(1).since(500), up(3).tier(1).published()];
    let waiting = manual(&back);
    waiting.publishes(&[3]);
    assert_eq!(waiting.decide().reevaluate_at, None);
    assert_eq!(
        waiting.notes(),
        [
            "tier 0 is healthy again; run `external-endpoints failback` to let it take over",
            "tier 1 serves"
        ]
    );
    // A request from before it was healthy was for an earlier failback, or in vain.
    Case { failback_requested_at: Some(499), ..waiting.clone() }.publishes(&[3]);
    Case { failback_requested_at: Some(500), ..waiting }.publishes(&[1]);
    // A request skips the delay.
    let impatient = Case {
        failback_requested_at: Some(999),
        ..case(&[up(1).since(998), up(3).tier(1).published()])
    };
    impatient.publishes(&[1]);
    // It does not make a tier stronger than it is.
    Case { failback_requested_at: Some(999), ..manual(&[down(1), up(3).tier(1).published()]) }
        .publishes(&[3]);
}

#[test]
fn a_target_that_flaps_stays_out_unless_it_is_needed() {
    let flapping = case(&[up(1).out_until(1060), up(2).published()]);
    flapping.publishes(&[2]);
    assert_eq!(flapping.decide().reevaluate_at, Some(at(1060)));
    assert_eq!(flapping.notes(), ["198.51.100.1 flapped, and must be healthy for longer"]);
    Case { now: 1060, ..flapping }.publishes(&[1, 2]);
    // The last one that is up stays in, and of several the one that has been healthy for longest.
    case(&[up(1).out_until(1060), down(2).published()]).publishes(&[1]);
    case(&[up(1).since(950).out_until(1060), up(2).since(940).out_until(1090), down(3)])
        .publishes(&[2]);
    at_least(2, &[up(1).out_until(1060), up(2)]).publishes(&[1, 2]);
    // A lower tier is a reason to leave it out.
    case(&[up(1).out_until(1060).published(), up(2).tier(1)]).publishes(&[2]);
}

#[test]
fn in_a_hold_what_is_published_stays_and_what_is_up_comes() {
    let hold = |case: Case| Case { holds: true, ..case };
    let hold_case = hold(case(&[up(1), down(2).published(), down(3)]));
    hold_case.publishes(&[1, 2]);
    assert_eq!(
        hold_case.notes(),
        ["198.51.100.2 stays: so many targets fail together that the fault is probably the \
          daemon's own"]
    );
    hold(case(&[down(1).comes_back(), down(2)])).publishes(&[1]);
    // What comes back counts as if it had never left: it was healthy after the one that is
    // published.
    let below =
        hold(at_least(2, &[down(1).comes_back().since(20), down(2).published().since(10), up(3)]));
    below.publishes(&[1, 2, 3]);
    assert_eq!(
        below.notes()[0],
        "1 healthy, where minHealthy asks for 2; 198.51.100.1 stays to make up the number"
    );
    // Once it is Up, the same rules apply to it as to all others.
    hold(case(&[up(1).comes_back().out_until(1060), up(2)])).publishes(&[2]);
    // Maintenance is no failure.
    hold(case(&[down(1).published().in_maintenance(), down(2).published()])).publishes(&[2]);
    hold(case(&[down(1).comes_back().in_maintenance()])).publishes(&[]);
    // Leaving the config is none either.
    let left = hold(case(&[down(1).published()])).decide_on(Some(&members(&[1, 9])));
    assert_eq!(left.plan, Plan::Publish(members(&[1])));
    // The tiers above come in; the one that serves leaves later.
    hold(case(&[up(1).since(900), up(2).tier(1).published()])).publishes(&[2]);
    hold(case(&[up(1).since(500), up(2).tier(1).published()])).publishes(&[1, 2]);
    hold(case(&[down(1).published(), up(2).tier(1)])).publishes(&[1, 2]);
    hold(case(&[up(1).published().out_until(1060), up(2)])).publishes(&[1, 2]);
    hold(at_least(1, &[down(1).published(), down(2).published()])).publishes(&[1, 2]);
}

#[test]
fn members_show_as_a_list() {
    assert_eq!(Members::default().to_string(), "none");
    assert_eq!(members(&[2, 1, 2]).to_string(), "198.51.100.1, 198.51.100.2");
    assert_eq!((Members::default().len(), members(&[2, 1, 2]).len()), (0, 2));
}

#[test]
fn changes_show_as_what_comes_and_what_goes() {
    assert_eq!(members(&[1, 3]).changes_from(&members(&[1, 2])), "+198.51.100.3, -198.51.100.2");
    assert_eq!(members(&[1]).changes_from(&members(&[1])), "");
}
