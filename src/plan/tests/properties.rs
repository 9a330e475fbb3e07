//! The properties of a plan for every input.

use super::*;
use proptest::prelude::*;

fn any_policy() -> impl Strategy<Value = Policy> {
    let min_healthy = prop_oneof![
        prop_oneof![0..4_u32, Just(u32::MAX)].prop_map(MinHealthy::Number),
        (0..=100_u8).prop_map(MinHealthy::Percentage),
    ];
    let delays = prop_oneof![(0..300_u64).prop_map(Duration::from_secs), Just(Duration::MAX)];
    let failback = prop_oneof![delays.prop_map(Failback::Delay), Just(Failback::Manual)];
    (min_healthy, any::<bool>(), failback).prop_map(|(min_healthy, exactly_one, failback)| Policy {
        min_healthy,
        exactly_one,
        failback,
        max_flips: 5,
    })
}

fn any_target(last: u8) -> impl Strategy<Value = Target> {
    let state =
        prop_oneof![4 => Just(State::Up), 3 => Just(State::Down), 1 => Just(State::Unknown)];
    let odds = |odds: f64| prop::bool::weighted(odds);
    let times = (0..1000_u64, prop::option::weighted(0.2, 900..1100_u64));
    let knowledge = (
        odds(0.9),
        odds(0.8),
        prop::option::weighted(0.9, 0..1000_u64),
        prop::option::of(900..1100_u64),
    );
    (state, times, knowledge, 0..3_u32, odds(0.2), (odds(0.5), odds(0.3))).prop_map(
        move |(
            state,
            (since, out_until),
            knowledge,
            tier,
            in_maintenance,
            (published, comes_back),
        )| {
            let (checked, passing, passed_at, stale_at) = knowledge;
            Target {
                member: member(last),
                state,
                since,
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
        },
    )
}

fn any_case() -> impl Strategy<Value = Case> {
    let targets =
        (0..8_u8).map(|last| prop::option::weighted(0.6, any_target(last))).collect::<Vec<_>>();
    let holds = prop::bool::weighted(0.3);
    (any_policy(), targets, prop::option::of(0..1000_u64), holds).prop_map(
        |(policy, targets, failback_requested_at, holds)| Case {
            policy,
            targets: targets.into_iter().flatten().collect(),
            failback_requested_at,
            now: 1000,
            holds,
        },
    )
}

/// Returns the members and the decision; none if the plan is to keep the cluster as it is.
fn decided(case: &Case) -> Option<(Members, Decision)> {
    let decision = case.decide();
    let Plan::Publish(members) = decision.plan.clone() else { return None };
    Some((members, decision))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn members_are_sorted_configured_and_at_most_one_if_required(
        case in any_case(),
        foreign in any::<u8>(),
    ) {
        let foreign = member(foreign);
        let published: Members = case.published().iter().cloned().chain([foreign]).collect();
        if let Plan::Publish(members) = case.decide_on(Some(&published)).plan {
            prop_assert!(members.iter().is_sorted_by(|a, b| a.ip < b.ip));
            for member in members.iter() {
                let target = case.targets.iter().find(|target| target.member == *member);
                let may_be_member = |target: &Target| {
                    target.state == State::Up
                        || published.contains(member.ip)
                        || case.holds && target.comes_back
                };
                prop_assert!(target.is_some_and(may_be_member));
            }
            prop_assert!(members.len() <= 1 || !case.policy.exactly_one);
        }
    }

    #[test]
    fn what_the_policy_forbids_to_empty_is_not_emptied(case in any_case()) {
        let Some((members, _)) = decided(&case) else { return Ok(()) };
        let preferred = case.targets.iter().map(|target| target.tier).min();
        let preferred = case.targets.iter().filter(|target| Some(target.tier) == preferred).count();
        let needed = match case.policy.min_healthy {
            MinHealthy::Number(number) => number as usize,
            MinHealthy::Percentage(percentage) => {
                (preferred * usize::from(percentage)).div_ceil(100)
            }
        };
        let needed = if case.policy.exactly_one { needed.min(1) } else { needed };
        prop_assert!(members.len() >= needed.min(case.published().len()), "{members}");
        // A Service that has a good target is never emptied.
        let is_good = |target: &Target| target.state == State::Up && !target.in_maintenance;
        let has_good = case.targets.iter().any(is_good);
        prop_assert!(!has_good || case.policy.exactly_one || !members.is_empty());
    }

    #[test]
    fn in_a_hold_only_maintenance_and_a_new_writer_take_out(case in any_case()) {
        let hold = Case { holds: true, ..case };
        let Some((members, _)) = decided(&hold) else { return Ok(()) };
        let is_member = |target: &Target| members.contains(target.member.ip);
        let is_retained = |target: &&Target| {
            let restored = target.comes_back && target.state != State::Up;
            (target.published || restored) && !target.in_maintenance
        };
        let mut retained = hold.targets.iter().filter(is_retained);
        let has_writer =
            hold.targets.iter().any(|target| target.state == State::Up && is_member(target));
        if hold.policy.exactly_one {
            let none_published = retained.all(|target| !target.published);
            prop_assert!(has_writer || !members.is_empty() || none_published);
        } else {
            prop_assert!(retained.all(is_member));
            // Each member of the plan without a hold is also one in a hold, unless it is in
            // maintenance.
            let free = Case { holds: false, ..hold.clone() };
            let in_maintenance = |ip| {
                hold.targets.iter().any(|target| target.member.ip == ip && target.in_maintenance)
            };
            let stays = |member: &Member| members.contains(member.ip) || in_maintenance(member.ip);
            prop_assert!(decided(&free).is_some_and(|(free, _)| free.iter().all(stays)));
        }
    }

    #[test]
    fn a_writer_that_is_up_gives_way_only_to_a_successor(case in any_case()) {
        let case = Case { policy: Policy { exactly_one: true, ..case.policy.clone() }, ..case };
        let Some((members, _)) = decided(&case) else { return Ok(()) };
        let is_up = |target: &&Target| target.state == State::Up && !target.in_maintenance;
        let stale = |target: &Target| target.stale_at.is_some_and(|stale_at| stale_at <= case.now);
        let writers: Vec<&Target> =
            case.targets.iter().filter(is_up).filter(|target| target.published).collect();
        prop_assert!(
            writers.is_empty() || members.len() == 1,
            "an inconclusive verdict never removes the last writer"
        );
        let is_new = |target: &&Target| members.contains(target.member.ip) && !target.published;
        for new in case.targets.iter().filter(is_up).filter(is_new) {
            prop_assert!(writers.is_empty() || new.passing && !stale(new));
            for old in &writers {
                let passed_before = old.passed_at.is_none_or(|passed_at| passed_at <= new.since);
                prop_assert!(stale(old) && passed_before);
            }
        }
    }

    #[test]
    fn only_those_that_pass_now_make_a_split_brain(case in any_case()) {
        let Some((_, decision)) = decided(&case) else { return Ok(()) };
        for note in decision.notes {
            let PolicyNote::SplitBrain { passing, .. } = note else { continue };
            let of = |ip: &IpAddr| case.targets.iter().find(|target| target.member.ip == *ip);
            let passes = |target: &Target| {
                target.passing && target.stale_at.is_none_or(|stale_at| stale_at > case.now)
            };
            prop_assert!(passing.len() > 1 && passing.iter().filter_map(of).all(passes));
        }
    }

    #[test]
    fn each_membership_agrees_with_the_plan_and_the_target(case in any_case()) {
        let Decision { plan, memberships, .. } = case.decide();
        prop_assert_eq!(memberships.len(), case.targets.len());
        for (target, membership) in case.targets.iter().zip(&memberships) {
            let is_member = match &plan {
                Plan::Publish(members) => Some(members.contains(target.member.ip)),
                Plan::Keep(_) => None,
            };
            prop_assert_eq!(membership.is_in(), is_member, "{:?}", membership);
            let is_up = target.state == State::Up && !target.in_maintenance;
            let is_flapping =
                |until| target.out_until.map(at) == Some(until) && at(case.now) < until;
            prop_assert!(match *membership {
                Membership::Undecided | Membership::KeptByMinHealthy { .. } => true,
                Membership::KeptByFreeze => case.holds,
                Membership::Maintenance => target.in_maintenance,
                Membership::Down => target.state == State::Down,
                Membership::NoVerdict => target.state == State::Unknown && target.checked,
                Membership::Healthy => is_up,
                Membership::LowerTierServes { preferred } => is_up && preferred < target.tier,
                Membership::Flapping { until } | Membership::NeededDespiteFlapping { until } => {
                    is_up && is_flapping(until)
                }
                Membership::SplitBrain | Membership::SeveralClaim => {
                    is_up && case.policy.exactly_one
                }
                Membership::OtherWriter { writer } => is_up && writer != target.member.ip,
                Membership::FailbackWaits { serving, .. } => is_up && target.tier < serving,
                Membership::TierTooWeak { healthy, needed, serving } => {
                    is_up && target.tier < serving && healthy < needed
                }
                Membership::LowerTier { behind } => is_up && behind < target.tier,
                // None of these targets is of a name.
                Membership::NotReplaced
                | Membership::NotChecked
                | Membership::NoLongerGiven
                | Membership::Replaced => false,
            }, "{:?} of {:?}", membership, target);
        }
    }

    #[test]
    fn the_order_of_the_config_changes_nothing(case in any_case(), turn in 0..8_usize) {
        let mut turned = case.clone();
        turned.targets.reverse();
        let turn = turn.min(turned.targets.len());
        turned.targets.rotate_left(turn);
        let (mut one, mut other) = (case.decide(), turned.decide());
        for (case, decision) in [(&case, &mut one), (&turned, &mut other)] {
            let ips = case.targets.iter().map(|target| target.member.ip);
            let mut by_ip: Vec<_> = ips.zip(decision.memberships.drain(..)).collect();
            by_ip.sort_by_key(|(ip, _)| *ip);
            decision.memberships = by_ip.into_iter().map(|(_, membership)| membership).collect();
        }
        if let (Plan::Keep(_), Plan::Keep(_)) = (&one.plan, &other.plan) {
            // A reason to keep lists its targets in the order of the config.
            one.plan = Plan::Publish(Members::default());
            other.plan = Plan::Publish(Members::default());
        }
        prop_assert_eq!(one, other);
    }

    #[test]
    fn a_decision_is_stable_until_it_is_time_to_reevaluate(
        case in any_case(),
        later in 0..500_u64,
    ) {
        let Some((members, decision)) = decided(&case) else { return Ok(()) };
        let next = case.decide_on(Some(&members)).plan;
        if let (true, Plan::Publish(more)) = (case.holds, &next) {
            // A target of a lower tier that a hold keeps may bring in the rest of its tier.
            // Nothing else may change.
            prop_assert!(members.iter().all(|member| more.contains(member.ip)));
            prop_assert_eq!(&case.decide_on(Some(more)).plan, &next);
        } else {
            prop_assert_eq!(&next, &decision.plan);
        }
        let is_before = |now: u64| decision.reevaluate_at.is_none_or(|due| at(now) < due);
        prop_assert!(is_before(case.now));
        let later = Case { now: case.now + later, ..case.clone() };
        if is_before(later.now) {
            prop_assert_eq!(later.decide().plan, decision.plan);
        }
    }

    #[test]
    fn without_a_policy_the_members_are_exactly_the_up_ones(
        states in prop::collection::btree_map(any::<u8>(), any::<(bool, bool)>(), 0..40),
    ) {
        let target = |(last, (is_up, published)): (&u8, &(bool, bool))| Target {
            published: *published,
            ..if *is_up { up(*last) } else { down(*last) }
        };
        let targets: Vec<Target> = states.iter().map(target).collect();
        let ups: Vec<u8> =
            states.iter().filter(|(_, (is_up, _))| *is_up).map(|(last, _)| *last).collect();
        let plan = Plan::Publish(members(&ups));
        let of_state = |(is_up, _): &(bool, bool)| match is_up {
            true => Membership::Healthy,
            false => Membership::Down,
        };
        let memberships = states.values().map(of_state).collect();
        let (notes, exchanged) = (Vec::new(), Vec::new());
        let expected = Decision { plan, notes, reevaluate_at: None, exchanged, memberships };
        prop_assert_eq!(case(&targets).decide(), expected);
    }
}
