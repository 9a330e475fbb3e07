//! The truth tables of names, and properties over random answers.

use proptest::prelude::*;

use super::*;

mod services;

const SETTINGS: Settings =
    Settings { rotating: false, forget_after: Duration::from_secs(1800), gone_after: None };
const ROTATING: Settings = Settings { rotating: true, ..SETTINGS };

const UNPUBLISHED_DOWN: TargetFacts = TargetFacts { is_up: false, is_published: false };
const PUBLISHED_UP: TargetFacts = TargetFacts { is_up: true, is_published: true };

fn v4(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn v6(last: u16) -> IpAddr {
    IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last])
}

fn good(ips: &[IpAddr]) -> FamilyAnswer {
    FamilyAnswer::Good(ips.to_vec())
}

fn only_a(ips: &[u8]) -> Lookup {
    let ips: Vec<IpAddr> = ips.iter().copied().map(v4).collect();
    Lookup::of_host(good(&ips), FamilyAnswer::NotAsked)
}

/// A name under test with a clock of its own.
struct Case {
    name: NameState,
    settings: Settings,
    now: Instant,
}

impl Case {
    fn new(settings: Settings) -> Self {
        #[expect(clippy::disallowed_methods, reason = "any moment will do as the first")]
        let now = Instant::now();
        Self { name: NameState::default(), settings, now }
    }

    fn after(&mut self, seconds: u64) -> &mut Self {
        self.now += Duration::from_secs(seconds);
        self
    }

    fn observe(&mut self, lookup: &Lookup) -> Changes {
        self.observe_with(lookup, |_| PUBLISHED_UP)
    }

    fn observe_with(&mut self, lookup: &Lookup, facts: impl Fn(IpAddr) -> TargetFacts) -> Changes {
        self.name.observe(lookup, &self.settings, facts, self.now)
    }

    fn backing(&self, ip: IpAddr) -> Option<Backing> {
        self.name.addresses().find(|(known, _)| *known == ip).map(|(_, backing)| backing)
    }
}

#[test]
fn each_pair_of_answers_has_its_result() {
    use FamilyAnswer::{NoAddress, NotAsked, Unknown};
    let (four, six) = (good(&[v4(2)]), good(&[v6(2)]));
    // (A, AAAA) after both families had one address: the result, and what becomes of the old ones.
    let kept = (Some(Backing::Current), Some(Backing::Current));
    let rows = [
        (
            four.clone(),
            six.clone(),
            LookupResult::Good,
            (Some(Backing::Departing), Some(Backing::Departing)),
        ),
        (
            four.clone(),
            NoAddress,
            LookupResult::Good,
            (Some(Backing::Departing), Some(Backing::Departing)),
        ),
        (
            four.clone(),
            Unknown,
            LookupResult::Good,
            (Some(Backing::Departing), Some(Backing::Current)),
        ),
        (four, NotAsked, LookupResult::Good, (Some(Backing::Departing), Some(Backing::Departing))),
        (
            NoAddress,
            six.clone(),
            LookupResult::Good,
            (Some(Backing::Departing), Some(Backing::Departing)),
        ),
        (Unknown, six, LookupResult::Good, (Some(Backing::Current), Some(Backing::Departing))),
        (NoAddress, NoAddress, LookupResult::Empty, kept),
        (NoAddress, NotAsked, LookupResult::Empty, kept),
        (NoAddress, Unknown, LookupResult::Unknown, kept),
        (Unknown, NoAddress, LookupResult::Unknown, kept),
        (Unknown, Unknown, LookupResult::Unknown, kept),
        (Unknown, NotAsked, LookupResult::Unknown, kept),
    ];
    for (a, aaaa, result, expected) in rows {
        let mut case = Case::new(SETTINGS);
        case.observe(&Lookup::of_host(good(&[v4(1)]), good(&[v6(1)])));
        let lookup = Lookup::of_host(a, aaaa);
        case.after(1).observe(&lookup);
        assert_eq!(lookup.result(), result, "{lookup:?}");
        assert_eq!((case.backing(v4(1)), case.backing(v6(1))), expected, "{lookup:?}");
    }
}

#[test]
fn an_answer_that_moves_adds_and_departs() {
    let mut case = Case::new(SETTINGS);
    assert_eq!(case.observe(&only_a(&[1, 2])).added, [v4(1), v4(2)]);
    let changes = case.after(1).observe(&only_a(&[2, 3]));
    assert_eq!((changes.added, changes.departed), (vec![v4(3)], vec![v4(1)]));
    let changes = case.after(1).observe(&only_a(&[1, 2]));
    assert_eq!((changes.returned, changes.departed), (vec![v4(1)], vec![v4(3)]));
}

#[test]
fn an_exchanged_address_stays_out_until_it_is_answered_again() {
    let mut case = Case::new(SETTINGS);
    case.observe(&only_a(&[1]));
    case.after(1).observe(&only_a(&[2]));
    case.name.exchange(|ip| ip == v4(1));
    case.after(1).observe(&only_a(&[3]));
    assert_eq!(case.backing(v4(1)), Some(Backing::Released));
    assert_eq!(case.backing(v4(2)), Some(Backing::Departing));
    case.after(1).observe(&only_a(&[1]));
    assert_eq!(case.backing(v4(1)), Some(Backing::Current));
}

#[test]
fn what_nobody_needs_is_dropped() {
    let rows = [
        // (released, facts, stays)
        (false, TargetFacts { is_up: false, is_published: true }, true),
        (false, TargetFacts { is_up: true, is_published: false }, true),
        (false, UNPUBLISHED_DOWN, false),
        (true, TargetFacts { is_up: false, is_published: true }, true),
        (true, TargetFacts { is_up: true, is_published: false }, false),
        (true, UNPUBLISHED_DOWN, false),
    ];
    for (released, facts, stays) in rows {
        let mut case = Case::new(SETTINGS);
        case.observe(&only_a(&[1]));
        case.after(1).observe(&only_a(&[2]));
        case.name.exchange(|_| released);
        let dropped = case.name.drop_unneeded(|ip| if ip == v4(1) { facts } else { PUBLISHED_UP });
        assert_eq!(dropped.is_empty(), stays, "{released} {facts:?}");
        assert_eq!(case.backing(v4(2)), Some(Backing::Current));
    }
}

#[test]
fn of_too_many_addresses_the_known_and_the_lowest_stay() {
    let mut case = Case::new(SETTINGS);
    case.observe(&only_a(&[250]));
    let all: Vec<u8> = (1..=250).collect();
    let changes = case.after(1).observe(&only_a(&all));
    assert_eq!(changes.left_out, 150);
    assert_eq!(case.backing(v4(250)), Some(Backing::Current));
    assert_eq!(case.backing(v4(99)), Some(Backing::Current));
    assert_eq!(case.backing(v4(100)), None);
    let changes = case.after(1).observe(&only_a(&all));
    assert_eq!((changes.added, changes.departed), (vec![], vec![]));
}

#[test]
fn gone_after_ends_what_no_answer_has_but_never_while_unknown() {
    let mut case = Case::new(Settings { gone_after: Some(Duration::from_secs(600)), ..SETTINGS });
    let unknown = Lookup::of_host(FamilyAnswer::Unknown, FamilyAnswer::NotAsked);
    let empty = Lookup::of_host(FamilyAnswer::NoAddress, FamilyAnswer::NotAsked);
    case.observe(&only_a(&[1]));
    case.after(599).observe(&empty);
    assert_eq!(case.backing(v4(1)), Some(Backing::Current));
    case.after(1).observe(&unknown);
    assert_eq!(case.backing(v4(1)), Some(Backing::Current));
    case.observe(&empty);
    assert_eq!(case.backing(v4(1)), Some(Backing::Released));
}

#[test]
fn a_rotating_name_forgets_by_time_and_count() {
    let mut case = Case::new(ROTATING);
    case.observe(&only_a(&[1]));
    for turn in 1..=1000_u64 {
        case.after(30).observe(&only_a(&[2]));
        let old_enough = turn * 30 >= 1800;
        let expected = if old_enough { Backing::Departing } else { Backing::Current };
        assert_eq!(case.backing(v4(1)), Some(expected), "turn {turn}");
    }
}

#[test]
fn a_rotating_name_forgets_a_dead_address_by_count_alone() {
    let mut case = Case::new(ROTATING);
    case.observe(&only_a(&[1]));
    // Two addresses are known, so it takes twice 20 answers.
    for turn in 1..=40 {
        assert_eq!(case.backing(v4(1)), Some(Backing::Current), "turn {turn}");
        case.after(1).observe_with(&only_a(&[2]), |_| UNPUBLISHED_DOWN);
    }
    assert_eq!(case.backing(v4(1)), Some(Backing::Departing));
}

#[test]
fn dead_addresses_of_a_full_rotating_name_give_way_to_new_ones() {
    let mut case = Case::new(ROTATING);
    let dead: Vec<u8> = (1..=100).collect();
    case.observe_with(&only_a(&dead), |_| UNPUBLISHED_DOWN);
    let facts = |ip| if ip == v4(100) { PUBLISHED_UP } else { UNPUBLISHED_DOWN };
    let changes = case.after(1).observe_with(&only_a(&[201, 202]), facts);
    assert_eq!((changes.added, changes.left_out), (vec![v4(201), v4(202)], 0));
    assert_eq!(case.backing(v4(1)), Some(Backing::Released));
    assert_eq!(case.backing(v4(100)), Some(Backing::Current), "it is up");
    assert_eq!(case.backing(v4(99)), Some(Backing::Current), "there is room for it");
}

#[test]
fn answers_that_go_back_and_forth_are_found_once() {
    let mut case = Case::new(SETTINGS);
    let suspected: Vec<bool> = (0..20_u8)
        .map(|turn| case.after(5).observe(&only_a(&[turn % 2])).rotation_suspected)
        .collect();
    assert_eq!(suspected.iter().filter(|found| **found).count(), 1);
    assert!(suspected[7], "{suspected:?}");
    let mut case = Case::new(SETTINGS);
    assert!((0..20).all(|turn| !case.after(5).observe(&only_a(&[turn])).rotation_suspected));
}

#[test]
fn the_next_lookup_follows_the_ttl_and_backs_off() {
    let refresh = Duration::from_secs(60);
    let rows = [
        (Some(0), 0, 1.0),
        (Some(5), 0, 5.0),
        (Some(300), 0, 60.0),
        (Some(u32::MAX), 0, 60.0),
        (None, 1, 1.0),
        (None, 2, 2.0),
        (None, 5, 16.0),
        (None, 6, 30.0),
        (None, u32::MAX, 30.0),
    ];
    for (ttl, failures, seconds) in rows {
        let wait = next_lookup_after(ttl, failures, refresh, 0.0);
        assert_eq!(wait, Duration::from_secs_f64(seconds), "{ttl:?} {failures}");
    }
    assert_eq!(next_lookup_after(Some(60), 0, refresh, 1.0), Duration::from_secs(66));
    assert_eq!(next_lookup_after(Some(5), 0, refresh, 1.0), Duration::from_secs(5));
}

#[test]
fn gone_after_spares_what_a_good_answer_leaves_open() {
    let mut case = Case::new(Settings { gone_after: Some(Duration::from_secs(600)), ..SETTINGS });
    case.observe(&Lookup::of_host(good(&[v4(1)]), good(&[v6(1)])));
    case.after(600).observe(&Lookup::of_host(good(&[v4(2)]), FamilyAnswer::Unknown));
    assert_eq!(case.backing(v4(1)), Some(Backing::Released));
    assert_eq!(case.backing(v6(1)), Some(Backing::Current));
}

#[test]
fn an_adopted_address_counts_as_seen_then() {
    let mut case = Case::new(ROTATING);
    case.observe(&only_a(&[1]));
    case.after(1700);
    case.name.adopt(v4(2), case.now);
    for _ in 0..60 {
        case.after(20).observe(&only_a(&[1]));
    }
    assert_eq!(case.backing(v4(2)), Some(Backing::Current), "not seen for 20 minutes only");
    // An address that is known is none to adopt.
    case.after(1800).observe(&only_a(&[1]));
    assert_eq!(case.backing(v4(2)), Some(Backing::Departing));
    case.name.adopt(v4(2), case.now);
    assert_eq!(case.backing(v4(2)), Some(Backing::Departing));
    assert_eq!(case.name.addresses().count(), 2);
}

#[test]
fn what_may_not_stay_is_forgotten_at_once() {
    let mut case = Case::new(SETTINGS);
    case.observe(&only_a(&[1, 2]));
    case.after(1).observe(&only_a(&[2, 3]));
    assert_eq!(case.name.forget(|ip| ip != v4(2)), [v4(1), v4(3)]);
    let left: Vec<_> = case.name.addresses().collect();
    assert_eq!(left, [(v4(2), Backing::Current)]);
}

#[test]
fn a_rotating_name_with_one_address_is_found_once() {
    let found = |settings: Settings, answers: &[&[u8]]| -> Vec<usize> {
        let mut case = Case::new(settings);
        let turns = answers.iter().cycle().take(300).enumerate();
        let turns = turns.filter(|(_, ips)| case.after(5).observe(&only_a(ips)).rotation_missing);
        turns.map(|(turn, _)| turn).collect()
    };
    assert_eq!(found(ROTATING, &[&[1]]), [19]);
    assert_eq!(found(ROTATING, &[&[1], &[2]]), [0; 0]);
    assert_eq!(found(ROTATING, &[&[1, 2]]), [0; 0]);
    assert_eq!(found(SETTINGS, &[&[1]]), [0; 0]);
}

#[test]
fn a_name_with_one_address_is_small() {
    let mut case = Case::new(SETTINGS);
    case.observe(&only_a(&[1]));
    assert_eq!(case.name.addresses.capacity(), 1);
    let bytes = size_of::<NameState>() + size_of_val(&case.name.addresses[0]);
    assert!(bytes <= 120, "{bytes} bytes");
}

fn any_family(of: fn(u8) -> IpAddr) -> impl Strategy<Value = FamilyAnswer> {
    prop_oneof![
        4 => prop::collection::vec((1..6_u8).prop_map(of), 1..4).prop_map(FamilyAnswer::Good),
        1 => Just(FamilyAnswer::NoAddress),
        1 => Just(FamilyAnswer::Unknown),
        1 => Just(FamilyAnswer::NotAsked),
    ]
}

fn any_lookup() -> impl Strategy<Value = Lookup> {
    (any_family(v4), any_family(|last| v6(last.into())))
        .prop_map(|(a, aaaa)| Lookup::of_host(a, aaaa))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_answers_takes_an_address_without_an_exchange(
        steps in prop::collection::vec((any_lookup(), 0..100_u64, any::<u8>(), any::<u8>()), 1..60),
        rotating in any::<bool>(),
    ) {
        let mut case = Case::new(Settings { rotating, ..SETTINGS });
        for (lookup, seconds, up, published) in steps {
            let facts = |ip: IpAddr| {
                let bit = match ip {
                    IpAddr::V4(ip) => ip.octets()[3],
                    IpAddr::V6(ip) => ip.octets()[15],
                };
                TargetFacts { is_up: up >> bit & 1 == 1, is_published: published >> bit & 1 == 1 }
            };
            let before = case.name.clone();
            case.after(seconds).observe_with(&lookup, facts);
            if lookup.result() != LookupResult::Good {
                prop_assert!(before.addresses().eq(case.name.addresses()));
            }
            for ip in lookup.addresses().into_keys() {
                prop_assert_eq!(case.backing(ip), Some(Backing::Current));
            }
            for (ip, backing) in before.addresses() {
                // Only an exchange releases.
                let now = case.backing(ip);
                prop_assert!(now.is_some());
                prop_assert!(now != Some(Backing::Released) || backing == Backing::Released);
            }
            let is_current = |ip: IpAddr| case.backing(ip) == Some(Backing::Current);
            let is_serving = |ip: IpAddr| is_current(ip) && facts(ip).is_up;
            let has_current_up = case.name.addresses().any(|(ip, _)| is_serving(ip));
            if has_current_up {
                case.name.exchange(|_| true);
            }
            for ip in case.name.drop_unneeded(facts) {
                prop_assert!(!facts(ip).is_published);
            }
        }
    }

    #[test]
    fn a_rotating_name_forgets_only_after_the_count(
        steps in prop::collection::vec((1..4_u8, 1..3_usize, 0..200_u64, any::<u8>()), 1..300),
    ) {
        let mut case = Case::new(Settings { forget_after: Duration::from_secs(600), ..ROTATING });
        // For each address: the answers in a row without it, and when it was last seen.
        let mut absent: BTreeMap<IpAddr, (u32, Instant)> = BTreeMap::new();
        for (first, count, seconds, up) in steps {
            let ips: Vec<u8> = (first..).take(count).collect();
            case.after(seconds);
            let before = case.name.clone();
            let current = before.addresses().filter(|(_, backing)| *backing == Backing::Current);
            let current = current.map(|(ip, _)| ip).chain(ips.iter().copied().map(v4));
            let current = current.collect::<std::collections::BTreeSet<_>>().len();
            for (times, _) in absent.values_mut() {
                *times += 1;
            }
            absent.extend(ips.iter().map(|last| (v4(*last), (0, case.now))));
            let is_up = |ip: IpAddr| up >> (ip == v4(2)) as u8 & 1 == 1;
            let facts = |ip| TargetFacts { is_up: is_up(ip), is_published: true };
            for ip in case.observe_with(&only_a(&ips), facts).departed {
                let (times, seen) = absent[&ip];
                prop_assert!(times as usize >= 20 * current, "{times} of {current}");
                let for_long = case.now - seen >= Duration::from_secs(600);
                prop_assert!(for_long || !is_up(ip));
            }
        }
    }
}
