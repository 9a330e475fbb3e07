//! A model of one database with names: random answers, verdicts, restarts and lost writes, in any
//! order. After each step the promises about names are checked.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::names::{FamilyAnswer, Lookup, LookupResult, NameState, Settings, TargetFacts};
use proptest::prelude::*;

const SETTINGS: Settings =
    Settings { rotating: false, forget_after: Duration::MAX, gone_after: None };

/// The last octet of the IP that may be an entry of its own.
const ENTRY: u8 = 5;

#[derive(Debug, Clone)]
enum Event {
    /// An answer for a name; an empty one for no address.
    Answer(usize, Option<Vec<u8>>),
    Verdict(u8, Verdict),
    ToggleMaintenance(u8),
    Restart,
    Time,
}

#[derive(Debug, Clone, Copy)]
enum Verdict {
    Pass,
    Fail,
    /// A failure that does not make it Down yet.
    Doubt,
    Inconclusive,
}

#[derive(Debug, Clone)]
struct Step {
    event: Event,
    seconds: u64,
    is_carried_out: bool,
    holds: bool,
}

/// The database, as the monitor keeps it.
struct World {
    case: Case,
    has_entry: bool,
    names: Vec<(u32, NameState)>,
    adopted: BTreeSet<IpAddr>,
    late: BTreeSet<IpAddr>,
    published: Members,
    has_decided: bool,
    /// The addresses that left in exchange, until an answer has them again.
    exchanged: BTreeSet<IpAddr>,
}

fn ip(last: u8) -> IpAddr {
    member(last).ip
}

fn last_of(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(_) => unreachable!("the model has IPv4 only"),
    }
}

impl World {
    fn new(policy: Policy, tiers: &[u32], has_entry: bool) -> Self {
        let names = tiers.iter().map(|tier| (*tier, NameState::default())).collect();
        let case = Case { policy, ..case(&[]) };
        let (adopted, late, exchanged) = Default::default();
        let (published, has_decided) = (Members::default(), false);
        let mut world =
            Self { case, has_entry, names, adopted, late, published, has_decided, exchanged };
        world.update_targets();
        world
    }

    fn is_entry(&self, of: IpAddr) -> bool {
        self.has_entry && of == ip(ENTRY)
    }

    fn backing(&self, of: IpAddr) -> Option<Backing> {
        if self.is_entry(of) {
            return Some(Backing::Current);
        }
        let of_names = self.names.iter().filter_map(|(_, state)| state.backing(of)).min();
        of_names.or(self.adopted.contains(&of).then_some(Backing::Adopted))
    }

    fn target(&self, of: IpAddr) -> Option<&Target> {
        self.case.targets.iter().find(|target| target.member.ip == of)
    }

    fn facts(&self) -> impl Fn(IpAddr) -> TargetFacts + use<> {
        let targets = self.case.targets.iter();
        let up = targets.filter(|target| target.state == State::Up);
        let up: BTreeSet<IpAddr> = up.map(|target| target.member.ip).collect();
        let published = self.published.clone();
        move |ip| TargetFacts { is_up: up.contains(&ip), is_published: published.contains(ip) }
    }

    /// Makes a target of each address that the names and the entry have, and of no other.
    fn update_targets(&mut self) {
        let answered: BTreeSet<IpAddr> =
            self.names.iter().flat_map(|(_, state)| state.addresses()).map(|(ip, _)| ip).collect();
        self.adopted.retain(|ip| !answered.contains(ip));
        let mut wanted: BTreeMap<IpAddr, u32> = BTreeMap::new();
        wanted.extend(self.has_entry.then_some((ip(ENTRY), 0)));
        for (tier, state) in &self.names {
            for (ip, _) in state.addresses() {
                wanted.entry(ip).or_insert(*tier);
            }
        }
        for ip in &self.adopted {
            wanted.entry(*ip).or_insert(self.names[0].0);
        }
        self.case.targets.retain(|target| wanted.contains_key(&target.member.ip));
        for (ip, tier) in wanted {
            match self.case.targets.iter_mut().find(|target| target.member.ip == ip) {
                Some(target) => target.tier = tier,
                None => {
                    let (state, is_published) = match self.published.contains(ip) {
                        true => (State::Up, true),
                        false => (State::Unknown, false),
                    };
                    let new = target(last_of(ip), state).unchecked().tier(tier);
                    self.case.targets.push(new.since(self.case.now));
                    if self.has_decided && !is_published {
                        self.late.insert(ip);
                    } else {
                        self.late.remove(&ip);
                    }
                }
            }
        }
    }

    fn apply(&mut self, event: &Event) {
        let now = self.case.now;
        match event {
            Event::Answer(name, answer) => {
                let index = name % self.names.len();
                let a = match answer.as_deref() {
                    None => FamilyAnswer::Unknown,
                    Some([]) => FamilyAnswer::NoAddress,
                    Some(last) => FamilyAnswer::Good(last.iter().copied().map(ip).collect()),
                };
                let lookup = Lookup::of_host(a, FamilyAnswer::NotAsked);
                let facts = self.facts();
                self.names[index].1.observe(&lookup, &SETTINGS, facts, at(now));
                for last in answer.iter().flatten() {
                    self.exchanged.remove(&ip(*last));
                }
                self.update_targets();
            }
            Event::Verdict(last, verdict) => {
                let mut targets = self.case.targets.iter_mut();
                let Some(target) = targets.find(|target| target.member.ip == ip(*last)) else {
                    return;
                };
                target.checked = true;
                let before = target.state;
                match verdict {
                    Verdict::Pass => (target.state, target.passing) = (State::Up, true),
                    Verdict::Fail => (target.state, target.passing) = (State::Down, false),
                    Verdict::Doubt => target.passing = false,
                    Verdict::Inconclusive => {}
                }
                if target.state != before {
                    target.since = now;
                }
                (target.passed_at, target.stale_at) = (target.passing.then_some(now), None);
            }
            Event::ToggleMaintenance(last) => {
                let mut targets = self.case.targets.iter_mut();
                if let Some(target) = targets.find(|target| target.member.ip == ip(*last)) {
                    target.in_maintenance = !target.in_maintenance;
                }
            }
            Event::Restart => {
                let tiers: Vec<u32> = self.names.iter().map(|(tier, _)| *tier).collect();
                let policy = self.case.policy.clone();
                let new = Self::new(policy, &tiers, self.has_entry);
                let (published, before) = (self.published.clone(), std::mem::replace(self, new));
                self.case.now = before.case.now;
                self.case.targets.clear();
                self.adopted = published.iter().map(|member| member.ip).collect();
                self.published = published;
                self.update_targets();
            }
            Event::Time => {}
        }
    }

    fn decide(&self) -> Decision {
        let targets = self.case.targets.iter().map(|target| {
            let ip = target.member.ip;
            let backing = self.backing(ip).expect("each target has a backing");
            Candidate { backing, is_late_arrival: self.late.contains(&ip), ..target.candidate() }
        });
        let targets: Vec<Candidate> = targets.collect();
        let names = self.names.iter();
        let names = names.map(|(tier, state)| NameFacts { name: "db", priority: *tier, state });
        let names: Vec<NameFacts> = names.collect();
        let pool = Pool {
            targets: &targets,
            policy: &self.case.policy,
            failback_requested_at: None,
            holds_removals: self.case.holds,
            names: &names,
            late_arrivals_hold_empty: true,
        };
        decide(&pool, Some(&self.published), at(self.case.now))
    }

    fn carry_out(&mut self, members: &Members, exchanged: &[IpAddr]) {
        self.published = members.clone();
        self.exchanged.extend(exchanged);
        let facts = self.facts();
        for (_, state) in &mut self.names {
            state.exchange(|ip| exchanged.contains(&ip));
            state.drop_unneeded(&facts);
        }
        self.adopted.retain(|ip| !exchanged.contains(ip));
        self.update_targets();
    }

    /// Returns whether a target may stand in for others of its name.
    fn is_fit(&self, of: IpAddr) -> bool {
        let is_good = |target: &Target| target.state == State::Up && !target.in_maintenance;
        self.backing(of) == Some(Backing::Current) && self.target(of).is_some_and(is_good)
    }

    fn has_successor(&self, state: &NameState) -> bool {
        let current = state.addresses().filter(|(_, backing)| *backing == Backing::Current);
        current.map(|(ip, _)| ip).any(|ip| self.is_fit(ip))
    }

    /// Returns whether DNS and a check together take this target out.
    fn leaves_by_dns(&self, of: IpAddr) -> bool {
        let mut names = self.names.iter().map(|(_, state)| state);
        let departs = |state: &&NameState| state.backing(of) == Some(Backing::Departing);
        match self.backing(of) {
            None | Some(Backing::Current) => false,
            Some(Backing::Released) => true,
            Some(Backing::Departing) => {
                names.filter(departs).all(|state| self.has_successor(state))
            }
            Some(Backing::Adopted) => {
                names.clone().all(NameState::has_resolved) && names.any(|it| self.has_successor(it))
            }
        }
    }

    fn check_kept(&self, reason: &KeepReason) -> Result<(), TestCaseError> {
        match reason {
            KeepReason::NoVerdictYet(ips) => {
                // An answer that came later holds up nothing but an empty Service, and a departing
                // target that nobody has tried holds up nothing at all.
                let is_published = |ip: &IpAddr| self.published.contains(*ip);
                let mut strangers = ips.iter().filter(|ip| !is_published(ip));
                let is_late = |ip: &IpAddr| self.late.contains(ip);
                prop_assert!(strangers.all(|ip| self.backing(*ip) == Some(Backing::Current)));
                let late = ips.iter().any(|ip| is_late(ip) && !is_published(ip));
                let serves = self.case.targets.iter().any(|target| self.is_fit(target.member.ip));
                prop_assert!(!late || !serves || self.case.policy.exactly_one);
            }
            KeepReason::NoAnswerYet(_) => {
                prop_assert!(self.names.iter().any(|(_, state)| !state.was_asked()));
            }
            KeepReason::NamesUnresolved(_) => prop_assert!(self.published.is_empty()),
            KeepReason::AllInconclusive(_) => {}
            KeepReason::NotSynced => prop_assert!(false, "the cluster is synced"),
        }
        Ok(())
    }

    fn check_members(&self, members: &Members) -> Result<(), TestCaseError> {
        let policy = &self.case.policy;
        prop_assert!(!policy.exactly_one || members.len() <= 1);
        let is_up = |target: &&Target| target.state == State::Up && !target.in_maintenance;
        let is_published = |ip: IpAddr| self.published.contains(ip);
        let no_minimum = policy.min_healthy == MinHealthy::Number(0);
        for target in &self.case.targets {
            let (ip, is_member) = (target.member.ip, members.contains(target.member.ip));
            if self.leaves_by_dns(ip) {
                // One that is exchanged comes in by no rule, and stays by `minHealthy` alone.
                prop_assert!(!is_member || is_published(ip) && !no_minimum, "{ip} stays");
                // There is another in its place. Without one it was released before.
                let leaves = is_published(ip) && self.backing(ip) != Some(Backing::Released);
                prop_assert!(!leaves || !members.is_empty(), "{ip} leaves for nobody");
            } else if is_up(&target) && is_published(ip) && !is_member {
                // All others that are Up leave for a better tier, or to be alone.
                let tiers = members.iter().filter_map(|member| self.target(member.ip));
                let better = tiers.clone().any(|other| other.tier < target.tier);
                prop_assert!(better || policy.exactly_one, "{ip} leaves");
            }
        }
        for member in members.iter() {
            let is_back = !self.exchanged.contains(&member.ip) || is_published(member.ip);
            prop_assert!(is_back, "{} was exchanged for good", member.ip);
        }
        if members.is_empty() {
            let up = || self.case.targets.iter().filter(is_up);
            let counts = |target: &Target| !self.leaves_by_dns(target.member.ip);
            let one_too_many = policy.exactly_one && up().count() > 1;
            prop_assert!(one_too_many || !up().any(counts), "somebody is up");
            prop_assert!(!up().any(|target| counts(target) && is_published(target.member.ip)));
            let waits = |target: &Target| !target.checked && target.state == State::Unknown;
            let mut untried =
                self.case.targets.iter().filter(|target| waits(target) && !target.in_maintenance);
            let is_current = |target: &Target| self.backing(target.member.ip);
            prop_assert!(!untried.any(|target| is_current(target) == Some(Backing::Current)));
        }
        Ok(())
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        self.case.now += step.seconds;
        self.case.holds = step.holds;
        let before = self.decide().plan;
        let asked = self.names.iter().all(|(_, state)| state.was_asked());
        self.apply(&step.event);
        if let Event::Answer(name, answer) = &step.event {
            let is_good = answer.as_ref().is_some_and(|ips| !ips.is_empty());
            prop_assert!(is_good || !asked || self.decide().plan == before, "{answer:?} changes");
            for last in answer.iter().flatten() {
                prop_assert!(self.target(ip(*last)).is_some());
                let state = &self.names[name % self.names.len()].1;
                prop_assert_eq!(state.newest(), Some(LookupResult::Good));
                prop_assert_eq!(self.backing(ip(*last)), Some(Backing::Current));
            }
        }
        let decision = self.decide();
        match &decision.plan {
            Plan::Keep(reason) => self.check_kept(reason)?,
            Plan::Publish(members) => {
                self.check_members(members)?;
                self.has_decided = true;
                if step.is_carried_out {
                    self.carry_out(members, &decision.exchanged);
                    // Nothing else follows from a write.
                    prop_assert!(self.case.holds || self.decide().plan == decision.plan);
                }
            }
        }
        Ok(())
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let last = || 1..=ENTRY;
    let good = prop::collection::vec(last(), 1..4).prop_map(Some);
    let answer = prop_oneof![6 => good, 1 => Just(Some(Vec::new())), 2 => Just(None)];
    let verdict = prop_oneof![
        5 => Just(Verdict::Pass),
        3 => Just(Verdict::Fail),
        1 => Just(Verdict::Doubt),
        1 => Just(Verdict::Inconclusive),
    ];
    let event = prop_oneof![
        6 => (0..3_usize, answer).prop_map(|(name, answer)| Event::Answer(name, answer)),
        12 => (last(), verdict).prop_map(|(last, verdict)| Event::Verdict(last, verdict)),
        1 => last().prop_map(Event::ToggleMaintenance),
        1 => Just(Event::Restart),
        1 => Just(Event::Time),
    ];
    let (is_carried_out, holds) = (prop::bool::weighted(0.8), prop::bool::weighted(0.1));
    (event, 0..200_u64, is_carried_out, holds).prop_map(
        |(event, seconds, is_carried_out, holds)| Step { event, seconds, is_carried_out, holds },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_order_of_answers_and_verdicts_breaks_a_promise(
        min_healthy in prop_oneof![2 => Just(0), 1 => Just(1), 1 => Just(2)],
        exactly_one in prop::bool::weighted(0.3),
        tiers in prop::collection::vec(prop_oneof![3 => Just(0), 1 => Just(1)], 1..=3),
        has_entry in any::<bool>(),
        steps in prop::collection::vec(any_step(), 1..80),
    ) {
        let min_healthy = MinHealthy::Number(min_healthy);
        let policy = Policy { min_healthy, exactly_one, ..Policy::default() };
        let mut world = World::new(policy, &tiers, has_entry);
        for step in &steps {
            world.run(step)?;
        }
    }
}
