//! The truth table of memberships: each rule by which a target is in or out.

use super::*;

impl Case {
    #[track_caller]
    fn memberships(&self, expected: &[Membership]) {
        assert_eq!(self.decide().memberships, expected, "{self:?}");
    }
}

fn hold(case: Case) -> Case {
    Case { holds: true, ..case }
}

use Membership::{
    Down, Flapping, Healthy, KeptByFreeze, Maintenance, NoVerdict, SeveralClaim, SplitBrain,
    Undecided,
};

#[test]
fn health_and_maintenance_decide_on_each_target() {
    case(&[up(1), down(2), unknown(3).checked(), up(4).in_maintenance()]).memberships(&[
        Healthy,
        Down,
        NoVerdict,
        Maintenance,
    ]);
    // An operator's word stands before the health.
    case(&[up(1), down(2).in_maintenance(), unknown(3).in_maintenance()]).memberships(&[
        Healthy,
        Maintenance,
        Maintenance,
    ]);
    // It does not matter whether a target that leaves is still published.
    case(&[up(1), down(2).published()]).memberships(&[Healthy, Down]);
    case(&[]).memberships(&[]);
}

#[test]
fn nothing_is_in_or_out_while_nothing_is_decided() {
    case(&[up(1), unknown(2), down(3)]).memberships(&[Undecided; 3]);
    case(&[down(1), unknown(2).checked()]).memberships(&[Undecided; 2]);
    let decision = case(&[up(1)]).decide_on(None);
    assert_eq!(decision.memberships, [Undecided]);
}

#[test]
fn targets_that_min_healthy_keeps_say_so() {
    let kept = |healthy, needed| Membership::KeptByMinHealthy { healthy, needed };
    at_least(2, &[up(1), down(2).since(9).published(), down(3).published()]).memberships(&[
        Healthy,
        kept(1, 2),
        Down,
    ]);
    at_least(1, &[up(1).published().in_maintenance(), down(2).published()])
        .memberships(&[kept(0, 1), Down]);
    // A target that is not published is never added.
    at_least(2, &[up(1), down(2)]).memberships(&[Healthy, Down]);
}

#[test]
fn targets_that_a_freeze_keeps_say_so() {
    hold(case(&[up(1), down(2).published(), down(3)])).memberships(&[Healthy, KeptByFreeze, Down]);
    hold(case(&[down(1).comes_back(), down(2).published().in_maintenance()]))
        .memberships(&[KeptByFreeze, Maintenance]);
    hold(case(&[up(1).published().out_until(1060), up(2)])).memberships(&[KeptByFreeze, Healthy]);
    // A tier that only the freeze keeps does not serve.
    let lower = Membership::LowerTier { behind: 0 };
    hold(case(&[up(1).since(500), up(2).tier(1).published(), up(3).tier(1)])).memberships(&[
        Healthy,
        KeptByFreeze,
        lower,
    ]);
    hold(one(&[down(1).published(), down(2)])).memberships(&[KeptByFreeze, Down]);
    hold(one(&[up(1), down(2).published()])).memberships(&[Healthy, Down]);
}

#[test]
fn targets_that_flap_say_until_when() {
    let until = at(1060);
    let (flapping, needed) = (Flapping { until }, Membership::NeededDespiteFlapping { until });
    case(&[up(1).out_until(1060), up(2)]).memberships(&[flapping, Healthy]);
    case(&[up(1).out_until(1060), down(2)]).memberships(&[needed, Down]);
    at_least(2, &[up(1).out_until(1060), up(2)]).memberships(&[needed, Healthy]);
    // Once the time is over, it is as any other. A target that is Down is out for that.
    case(&[up(1).out_until(1000), down(2).out_until(1060)]).memberships(&[Healthy, Down]);
    // Writers are not suppressed.
    one(&[up(1).out_until(1060), down(2)]).memberships(&[Healthy, Down]);
}

#[test]
fn targets_of_other_tiers_name_the_one_that_serves() {
    let lower = |behind| Membership::LowerTier { behind };
    let spare = Membership::LowerTierServes { preferred: 0 };
    case(&[up(1), up(2).tier(1), up(3).tier(2)]).memberships(&[Healthy, lower(0), lower(0)]);
    case(&[down(1), up(2).tier(1), up(3).tier(2)]).memberships(&[Down, spare, lower(1)]);
    at_least(2, &[up(1), down(2), up(3).tier(1), up(4).tier(2)]).memberships(&[
        Healthy,
        Down,
        spare,
        lower(1),
    ]);
    case(&[up(1).out_until(1060), up(2).tier(1)])
        .memberships(&[Flapping { until: at(1060) }, spare]);
}

#[test]
fn targets_that_wait_for_a_failback_say_so() {
    let spare = Membership::LowerTierServes { preferred: 0 };
    let lower = |behind| Membership::LowerTier { behind };
    let waits = |until| Membership::FailbackWaits { serving: 1, until };
    let back = [up(1).since(800), up(3).tier(1).published(), up(4).tier(2)];
    case(&back).memberships(&[waits(Some(at(1100))), spare, lower(1)]);
    manual(&back).memberships(&[waits(None), spare, lower(1)]);
    // Of three tiers, the middle one will wait behind the one that takes over.
    let all = [up(1).since(900), up(2).tier(1), up(3).tier(2).published()];
    let waits = Membership::FailbackWaits { serving: 2, until: Some(at(1200)) };
    case(&all).memberships(&[waits, lower(0), spare]);
    // A tier that is still too weak names the number that it needs.
    let weak = Membership::TierTooWeak { healthy: 1, needed: 2, serving: 1 };
    at_least(2, &[up(1), down(2), up(3).tier(1).published(), up(4).tier(1).published()])
        .memberships(&[weak, Down, spare, spare]);
}

#[test]
fn a_second_writer_names_the_first() {
    let other = Membership::OtherWriter { writer: member(1).ip };
    one(&[up(1).published(), up(2)]).memberships(&[Healthy, SplitBrain]);
    one(&[up(1).published(), up(2).failing()]).memberships(&[Healthy, other]);
    one(&[up(1).published().failing(), up(2)]).memberships(&[Healthy, other]);
    one(&[up(1), up(2), down(3)]).memberships(&[SplitBrain, SplitBrain, Down]);
    one(&[up(1), up(2).failing()]).memberships(&[SeveralClaim, SeveralClaim]);
    // Tiers do not count for a writer.
    one(&[down(1), up(2).tier(3)]).memberships(&[Down, Healthy]);
}
