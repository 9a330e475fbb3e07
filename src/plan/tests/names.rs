//! The truth tables of targets that DNS gives, row by row.

use super::*;
use crate::names::{FamilyAnswer, Lookup, NameState, Settings, TargetFacts};

/// A database with names. Each name has a tier and answers; an address of theirs is a target once
/// it is in the case.
#[derive(Debug, Clone)]
struct Named {
    case: Case,
    names: Vec<(u32, NameState)>,
    adopted: Vec<u8>,
    late: Vec<u8>,
    late_arrivals_hold_empty: bool,
}

fn ips(last: &[u8]) -> Vec<IpAddr> {
    last.iter().map(|last| member(*last).ip).collect()
}

fn lookup(a: FamilyAnswer) -> Lookup {
    Lookup::of_host(a, FamilyAnswer::NotAsked)
}

/// Returns a name that gave these addresses one answer after the other. An empty one is no answer.
fn name(answers: &[&[u8]]) -> (u32, NameState) {
    let settings = Settings { rotating: false, forget_after: Duration::MAX, gone_after: None };
    let mut state = NameState::default();
    for answer in answers {
        let a = match answer {
            [] => FamilyAnswer::Unknown,
            last => FamilyAnswer::Good(ips(last)),
        };
        let facts = |_| TargetFacts { is_up: true, is_published: true };
        state.observe(&lookup(a), &settings, facts, at(0));
    }
    (0, state)
}

fn named(names: &[(u32, NameState)], case: Case) -> Named {
    let (names, adopted, late) = (names.to_vec(), Vec::new(), Vec::new());
    Named { case, names, adopted, late, late_arrivals_hold_empty: true }
}

/// Returns a database with one name.
fn moved(answers: &[&[u8]], targets: &[Target]) -> Named {
    named(&[name(answers)], case(targets))
}

impl Named {
    fn late(self, late: &[u8]) -> Self {
        Self { late: late.to_vec(), ..self }
    }

    fn adopted(self, adopted: &[u8]) -> Self {
        Self { adopted: adopted.to_vec(), ..self }
    }

    fn with(self, change: impl FnOnce(&mut Case)) -> Self {
        let mut case = self.case;
        change(&mut case);
        Self { case, ..self }
    }

    fn at_least(self, min_healthy: u32) -> Self {
        self.with(|case| case.policy.min_healthy = MinHealthy::Number(min_healthy))
    }

    fn exactly_one(self) -> Self {
        self.with(|case| case.policy.exactly_one = true)
    }

    fn frozen(self) -> Self {
        self.with(|case| case.holds = true)
    }

    /// Returns the backing of an address. One that no name knows is of an IP entry.
    fn backing(&self, ip: IpAddr) -> Backing {
        if self.adopted.iter().any(|last| member(*last).ip == ip) {
            return Backing::Adopted;
        }
        let backings = self.names.iter().filter_map(|(_, state)| state.backing(ip));
        backings.min().unwrap_or(Backing::Current)
    }

    fn decide(&self) -> Decision {
        let is_late = |ip| self.late.iter().any(|last| member(*last).ip == ip);
        let candidate = |target: &'_ Target| -> (Backing, bool) {
            (self.backing(target.member.ip), is_late(target.member.ip))
        };
        let targets: Vec<Candidate> = self
            .case
            .targets
            .iter()
            .map(|target| {
                let (backing, is_late_arrival) = candidate(target);
                Candidate { backing, is_late_arrival, ..target.candidate() }
            })
            .collect();
        let labels = ["a.corp", "b.corp", "c.corp"];
        let names: Vec<NameFacts> = labels
            .iter()
            .zip(&self.names)
            .map(|(name, (priority, state))| NameFacts { name, priority: *priority, state })
            .collect();
        let pool = Pool {
            targets: &targets,
            policy: &self.case.policy,
            failback_requested_at: self.case.failback_requested_at.map(at),
            holds_removals: self.case.holds,
            names: &names,
            late_arrivals_hold_empty: self.late_arrivals_hold_empty,
        };
        decide(&pool, Some(&self.case.published()), at(self.case.now))
    }

    #[track_caller]
    fn publishes(&self, last: &[u8]) -> Decision {
        let decision = self.decide();
        assert_eq!(decision.plan, Plan::Publish(members(last)), "{self:?}");
        decision
    }

    #[track_caller]
    fn keeps(&self, why: &str) {
        match self.decide().plan {
            Plan::Keep(reason) => assert_eq!(reason.to_string(), why),
            Plan::Publish(members) => panic!("decided too early on {members}: {self:?}"),
        }
    }

    fn notes(&self) -> Vec<String> {
        self.decide().notes.iter().map(ToString::to_string).collect()
    }
}

/// A name that has moved from one address to another, before an exchange.
const MOVED: &[&[u8]] = &[&[1], &[2]];

#[test]
fn a_departing_target_leaves_in_exchange_for_one_that_is_up() {
    let old = || up(1).published();
    let exchange = moved(MOVED, &[old(), up(2)]).publishes(&[2]);
    assert_eq!((exchange.exchanged, exchange.notes), (ips(&[1]), Vec::new()));
    // It is a target like any other while no other takes its place.
    for new in [down(2), up(2).in_maintenance(), up(2).out_until(1060), unknown(2).checked()] {
        let waits = moved(MOVED, &[old(), new]).publishes(&[1]);
        assert_eq!(waits.exchanged, ips(&[]));
    }
    moved(MOVED, &[down(1).published(), down(2)]).publishes(&[]);
    moved(MOVED, &[up(1).published().in_maintenance(), down(2)]).publishes(&[]);
    // An answer that is empty or unknown moves nothing.
    moved(&[&[1], &[]], &[old(), up(2)]).publishes(&[1, 2]);
    // One of the same name must take its place.
    moved(MOVED, &[old(), down(2), up(9)]).publishes(&[1, 9]);
    let [one, other] = [name(MOVED), name(&[&[3]])];
    named(&[one, other], case(&[old(), down(2), up(3)])).publishes(&[1, 3]);
}

#[test]
fn an_unchecked_departing_target_counts_for_nothing() {
    moved(MOVED, &[unknown(1), up(2)]).publishes(&[2]);
    moved(MOVED, &[unknown(1), down(2)]).publishes(&[]);
    // A published one is no stranger.
    moved(MOVED, &[unknown(1).published(), down(2)]).keeps("no verdict yet for 198.51.100.1");
}

#[test]
fn what_was_exchanged_stays_out_until_dns_gives_it_again() {
    let mut exchanged = name(MOVED);
    exchanged.1.exchange(|_| true);
    let out = |new: Target| named(&[exchanged.clone()], case(&[up(1).published(), new]));
    let decision = out(down(2)).publishes(&[]);
    assert_eq!(decision.exchanged, ips(&[1]));
    out(down(2)).at_least(1).publishes(&[1]);
    moved(&[&[1], &[2], &[1]], &[up(1), down(2).published()]).publishes(&[1]);
}

#[test]
fn min_healthy_keeps_an_exchanged_target_after_all_others() {
    // Of two that leave, the one that was healthy for longest stays.
    let answers: &[&[u8]] = &[&[1, 2], &[3]];
    let both = [up(1).published().since(20), up(2).published().since(10), up(3)];
    let decision = moved(answers, &both).at_least(2).publishes(&[2, 3]);
    assert_eq!(decision.exchanged, ips(&[1]), "the other one has not left yet");
    let others = [up(1).published(), up(2).published().in_maintenance(), up(3), down(4)];
    let others = |more: &[Target]| [&others, more].concat();
    let answers: &[&[u8]] = &[&[1], &[3]];
    moved(answers, &others(&[])).at_least(2).publishes(&[2, 3]);
    moved(answers, &others(&[down(5).published()])).at_least(3).publishes(&[2, 3, 5]);
    moved(answers, &others(&[down(5).published()])).at_least(4).publishes(&[1, 2, 3, 5]);
    // It brings none in.
    moved(answers, &[up(1), up(3)]).at_least(2).publishes(&[3]);
    moved(answers, &[down(1).comes_back(), up(3)]).at_least(2).frozen().publishes(&[3]);
}

#[test]
fn a_percentage_is_of_the_targets_that_dns_gives() {
    let half =
        |named: Named| named.with(|case| case.policy.min_healthy = MinHealthy::Percentage(50));
    // Two of four would have to stay.
    let answers: &[&[u8]] = &[&[1, 2], &[3, 4]];
    half(moved(answers, &[up(1).published(), up(2).published(), up(3), down(4)])).publishes(&[3]);
    // Late arrivals count, though they are unchecked.
    let answers: &[&[u8]] = &[&[1], &[2, 3, 4]];
    let new = [up(1).published(), up(2), unknown(3), unknown(4)];
    half(moved(answers, &new).late(&[2, 3, 4])).publishes(&[1, 2]);
    // The tier of a name without any address is the preferred one.
    let spare = [up(5).tier(1).published(), down(6).tier(1).published()];
    let empty = half(named(&[name(&[&[]])], case(&spare)));
    empty.publishes(&[5]);
    assert_eq!(empty.notes(), ["tier 1 serves"]);
}

#[test]
fn late_arrivals_hold_up_only_a_decision_for_none() {
    let answers: &[&[u8]] = &[&[1, 2]];
    moved(answers, &[up(1), unknown(2)]).late(&[2]).publishes(&[1]);
    moved(answers, &[up(1), unknown(2)]).keeps("no verdict yet for 198.51.100.2");
    let none = moved(MOVED, &[down(1).published(), unknown(2)]).late(&[2]);
    none.keeps("no verdict yet for 198.51.100.2");
    Named { late_arrivals_hold_empty: false, ..none.clone() }.publishes(&[]);
    none.with(|case| case.targets[1].in_maintenance = true).publishes(&[]);
    // A published one has come by another replica, and is no stranger.
    moved(answers, &[up(1), unknown(2).published()])
        .late(&[2])
        .keeps("no verdict yet for 198.51.100.2");
}

#[test]
fn a_name_that_was_not_asked_holds_its_database_up() {
    named(&[name(&[]), name(&[&[1]])], case(&[up(1)]))
        .keeps("DNS has not been asked yet for a.corp");
    // Afterwards it holds up nobody, whatever came of it.
    named(&[name(&[&[]]), name(&[&[1]])], case(&[up(1)])).publishes(&[1]);
    moved(&[&[]], &[down(1).published()]).publishes(&[]);
}

#[test]
fn names_that_never_resolve_write_nothing_alone() {
    moved(&[&[]], &[]).keeps("DNS has given no address for a.corp");
    named(&[name(&[&[]]), name(&[&[], &[]])], case(&[]))
        .keeps("DNS has given no address for a.corp, b.corp");
    case(&[]).publishes(&[]);
    // Something is known of an entry that is an IP.
    moved(&[&[]], &[down(9)]).publishes(&[]);
}

#[test]
fn an_adopted_target_waits_for_all_names() {
    let old = || up(1).published();
    let both = |one: &[&[u8]], other: &[&[u8]], targets: &[Target]| {
        named(&[name(one), name(other)], case(targets)).adopted(&[1])
    };
    both(&[&[2]], &[&[]], &[old(), up(2)]).publishes(&[1, 2]);
    let exchange = both(&[&[2]], &[&[3]], &[old(), up(2), down(3)]).publishes(&[2]);
    assert_eq!(exchange.exchanged, ips(&[1]));
    both(&[&[2]], &[&[3]], &[old(), down(2), down(3), up(9)]).publishes(&[1, 9]);
    both(&[&[]], &[&[]], &[old()]).publishes(&[1]);
    both(&[&[]], &[&[]], &[down(1).published()]).publishes(&[]);
    // It counts for percentages until it is out.
    let half =
        |named: Named| named.with(|case| case.policy.min_healthy = MinHealthy::Percentage(100));
    half(both(&[&[]], &[&[]], &[down(1).published()])).publishes(&[1]);
    half(both(&[&[2]], &[&[2]], &[old(), up(2)])).publishes(&[2]);
}

#[test]
fn a_writer_changes_with_its_name_in_one_write() {
    let change = moved(MOVED, &[up(1).published(), up(2)]).exactly_one();
    change.publishes(&[2]);
    assert_eq!(change.notes(), [""; 0], "no split brain: DNS names the writer");
    // Of two that take its place one is chosen, so that the Service is not emptied.
    let both = moved(&[&[1], &[2, 3]], &[up(1).published(), up(3), up(2)]).exactly_one();
    both.publishes(&[2]);
    assert!(both.notes()[0].starts_with("split brain: 198.51.100.2, 198.51.100.3 pass"));
    // One of another name does not.
    let other = [up(1).published(), up(2), up(9)];
    moved(MOVED, &other).exactly_one().publishes(&[2]);
    let adopted = moved(&[&[2, 3]], &[up(1).published(), up(2), up(3)]).adopted(&[1]);
    adopted.exactly_one().publishes(&[2]);
}

#[test]
fn two_families_of_one_writer_are_named() {
    let ip: IpAddr = [0xfd00, 0, 0, 0, 0, 0, 0, 1].into();
    let six = Target { member: Member { ip, hostname: None }, ..up(0) };
    let split = moved(&[&[2]], &[up(2).published(), six]);
    let mut dual = split.clone().exactly_one();
    assert!(!dual.notes()[0].contains("families"), "another entry may have it");
    let settings = Settings { rotating: false, forget_after: Duration::MAX, gone_after: None };
    let answer = Lookup::of_host(FamilyAnswer::Good(ips(&[2])), FamilyAnswer::Good(vec![ip]));
    let facts = |_| TargetFacts { is_up: true, is_published: true };
    dual.names[0].1.observe(&answer, &settings, facts, at(1));
    assert!(dual.notes()[0].ends_with("; both are of a.corp: set `families`"));
}

#[test]
fn a_tier_that_moves_does_not_end_the_delay_of_a_failback() {
    let spare = |state: NameState| (1, state);
    let (_, state) = name(MOVED);
    let targets = [up(9).since(900), up(1).tier(1).published(), up(2).tier(1).since(995)];
    let waits = named(&[spare(state)], case(&targets));
    waits.publishes(&[2]);
    assert!(waits.notes()[0].starts_with("tier 0 is healthy again"));
}

#[test]
fn in_a_freeze_dns_and_the_new_check_are_two_witnesses() {
    moved(MOVED, &[up(1).published(), up(2)]).frozen().publishes(&[2]);
    moved(MOVED, &[down(1).published(), up(2)]).frozen().publishes(&[2]);
    moved(MOVED, &[down(1).published(), down(2)]).frozen().publishes(&[1]);
    moved(MOVED, &[down(1).comes_back(), up(2)]).frozen().publishes(&[2]);
}

#[test]
fn an_address_that_another_entry_owns_takes_the_place_too() {
    // The IP 9 is an entry of its own, and the name moves there.
    moved(&[&[1], &[9]], &[up(1).published(), up(9)]).publishes(&[9]);
    // Two names gave up an address. Each must have another for it.
    let two = |targets: &[Target]| named(&[name(MOVED), name(&[&[1], &[3]])], case(targets));
    two(&[up(1).published(), up(2), down(3)]).publishes(&[1, 2]);
    two(&[up(1).published(), up(2), up(3)]).publishes(&[2, 3]);
    // What one name has is no departing target of the other.
    named(&[name(MOVED), name(&[&[1]])], case(&[up(1).published(), up(2)])).publishes(&[1, 2]);
}

#[test]
fn who_stays_without_dns_is_told_with_the_reasons() {
    let targets =
        [up(1).published(), down(2), unknown(3), up(4).in_maintenance(), up(5).out_until(1060)];
    assert_eq!(
        moved(&[&[1], &[2, 3, 4, 5]], &targets).late(&[3]).notes()[1],
        "198.51.100.1 stays: DNS no longer gives it for a.corp, and none that it gives is up: \
         198.51.100.2 (exec: no program), 198.51.100.3 (not checked yet), 198.51.100.4 (in \
         maintenance), 198.51.100.5 (must be healthy for longer, because it flapped)"
    );
    let both = |other: &[&[u8]]| {
        let targets = [up(1).published(), up(2)];
        named(&[name(&[&[]]), name(other)], case(&targets)).adopted(&[1]).notes()
    };
    assert_eq!(
        both(&[&[2]]),
        ["198.51.100.1 stays: published before the start, and DNS has given no address for \
          a.corp since"]
    );
    // While no name has resolved, DNS has given up nothing.
    assert_eq!(both(&[&[]]), [""; 0]);
    let resolved = named(&[name(&[&[2]])], case(&[up(1).published(), down(2)])).adopted(&[1]);
    assert!(resolved.notes()[0].contains(
        "DNS no longer gives it for a.corp, and none that it gives is up: 198.51.100.2 (exec: no"
    ));
}

#[test]
fn memberships_tell_how_dns_stands_behind_each_target() {
    use Membership::{Healthy, Maintenance, NoLongerGiven, NotChecked, NotReplaced, Replaced};
    let memberships = |case: Named| case.decide().memberships;
    // The name moved from 1 to 2.
    let moved_to = |new: Target| moved(&[&[1], &[2]], &[up(1).published(), new]);
    assert_eq!(memberships(moved_to(up(2))), [Replaced, Healthy]);
    assert_eq!(memberships(moved_to(down(2))), [NotReplaced, Membership::Down]);
    assert_eq!(memberships(moved_to(unknown(2)).late(&[2])), [NotReplaced, NotChecked]);
    let in_maintenance = unknown(2).in_maintenance();
    assert_eq!(memberships(moved_to(in_maintenance).late(&[2])), [NotReplaced, Maintenance]);
    // It left before it was ever checked.
    let left = moved(&[&[1], &[2]], &[unknown(1), up(2)]);
    assert_eq!(memberships(left), [NoLongerGiven, Healthy]);
    // Published before the start, and no name has resolved since.
    let adopted = moved(&[&[]], &[up(1).published()]).adopted(&[1]);
    assert_eq!(memberships(adopted), [NotReplaced]);
    // It is replaced, but stays to make up the number.
    let kept = Membership::KeptByMinHealthy { healthy: 1, needed: 2 };
    assert_eq!(memberships(moved_to(up(2)).at_least(2)), [kept, Healthy]);
}
