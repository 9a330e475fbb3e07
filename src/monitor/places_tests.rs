use std::collections::BTreeMap;
use std::time::Instant;

use proptest::prelude::*;

use super::*;

fn due() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    Instant::now()
}

fn shared(places: usize, databases: usize) -> Places {
    let mut shared = Places::new(places);
    shared.share_among(databases);
    shared
}

fn admitted(places: &mut Places) -> Option<Key> {
    places.admit().map(|(key, _)| key)
}

fn all_admitted(places: &mut Places) -> Vec<Key> {
    std::iter::from_fn(|| admitted(places)).collect()
}

#[test]
fn one_database_alone_takes_all_places_in_the_order_it_came() {
    let due = due();
    let mut places = shared(2, 1);
    (0..4).for_each(|key| places.come(0, key, due));
    assert_eq!(all_admitted(&mut places), [0, 1]);
    assert!(places.are_short());
    places.leave(0);
    assert_eq!(all_admitted(&mut places), [2]);
    places.leave(0);
    places.leave(0);
    assert_eq!(all_admitted(&mut places), [3]);
    assert!(!places.are_short());
    places.come(0, 9, due);
    assert_eq!(admitted(&mut places), Some(9), "one place was free all the while");
}

#[test]
fn the_table_says_who_may_start() {
    // Free places, databases, under way of the one that asks.
    let table = [
        (0, 1, 0, false),
        (0, 5, 0, false),
        (1, 0, 7, true),
        (1, 1, 7, true),
        (1, 2, 0, true),
        (1, 2, 1, false),
        (5, 2, 4, true),
        (5, 2, 5, false),
        (5, 9, 6, false),
    ];
    for (free, databases, under_way, expected) in table {
        let places = shared(free, databases);
        assert_eq!(places.may_start(under_way), expected, "{free} {databases} {under_way}");
    }
}

#[test]
fn hanging_databases_leave_a_place_for_a_newcomer() {
    let due = due();
    let mut places = shared(8, 5);
    // Twenty tries of each hang.
    for (owner, expected) in [(0, 4), (1, 2), (2, 1)] {
        (0..20).for_each(|key| places.come(owner, 100 * owner + key, due));
        assert_eq!(all_admitted(&mut places).len(), expected, "database {owner}");
    }
    places.come(3, 999, due);
    assert_eq!(all_admitted(&mut places), [999]);
    // With that, all are taken; the next one comes before the forty that have waited for longer.
    places.come(4, 1000, due);
    assert_eq!(admitted(&mut places), None);
    places.leave(0);
    assert_eq!(all_admitted(&mut places), [1000]);
}

#[test]
fn a_place_goes_to_the_database_with_the_fewest_under_way() {
    let due = due();
    let mut places = shared(3, 3);
    [(0, 1), (0, 2), (1, 11), (1, 12), (2, 21)].iter().for_each(|&(owner, key)| places.come(owner, key, due));
    assert_eq!(all_admitted(&mut places), [1, 11, 21]);
    places.leave(1);
    assert_eq!(all_admitted(&mut places), [12], "the first database has one under way, the second none");
    places.leave(0);
    assert_eq!(all_admitted(&mut places), [2]);
}

#[test]
fn a_database_keeps_its_number_while_others_come_and_go() {
    let id = |name: &str| DatabaseId { namespace: "prod".into(), service: name.into() };
    let (a, b, c, d) = (id("a"), id("b"), id("c"), id("d"));
    let mut owners = Owners::default();
    owners.update([&b, &d].into_iter(), |_| false);
    let before = (owners.of(&b), owners.of(&d));
    owners.update([&a, &b, &c, &d].into_iter(), |_| false);
    assert_eq!((owners.of(&b), owners.of(&d)), before);
    owners.update([&a, &d].into_iter(), |_| false);
    assert_eq!(owners.of(&d), before.1);
    let numbers: BTreeSet<Owner> = [&a, &d].map(|id| owners.of(id)).into();
    assert_eq!(numbers.len(), 2);
    owners.update([&a, &b, &c, &d].into_iter(), |_| false);
    let numbers: BTreeSet<Owner> = [&a, &b, &c, &d].map(|id| owners.of(id)).into();
    assert_eq!(numbers, (0..4).collect(), "numbers are used again");
}

/// The places, and what they should hold.
struct Model {
    places: Places,
    size: usize,
    databases: usize,
    due: Instant,
    next: Key,
    /// By owner: those under way, and those that wait, in the order they came.
    under_way: BTreeMap<Owner, Vec<Key>>,
    waiting: BTreeMap<Owner, Vec<Key>>,
    /// Releases since a database without a try under way began to wait.
    passed_over: BTreeMap<Owner, usize>,
}

impl Model {
    fn new(size: usize, databases: usize) -> Self {
        let places = shared(size, databases);
        let (under_way, waiting, passed_over) = Default::default();
        Self { places, size, databases, due: due(), next: 0, under_way, waiting, passed_over }
    }

    fn count(&self, owner: Owner) -> usize {
        self.under_way.get(&owner).map_or(0, Vec::len)
    }

    fn used(&self) -> usize {
        self.under_way.values().map(Vec::len).sum()
    }

    fn come(&mut self, owner: Owner) {
        self.places.come(owner, self.next, self.due);
        self.waiting.entry(owner).or_default().push(self.next);
        self.next += 1;
        self.admit();
    }

    fn leave(&mut self, owner: Owner, index: usize) {
        let Some(keys) = self.under_way.get_mut(&owner).filter(|keys| !keys.is_empty()) else { return };
        keys.swap_remove(index % keys.len());
        let idle: Vec<Owner> = self.idle_and_waiting();
        self.places.leave(owner);
        idle.into_iter().for_each(|owner| *self.passed_over.entry(owner).or_default() += 1);
        self.admit();
    }

    fn idle_and_waiting(&self) -> Vec<Owner> {
        let waits = |owner: &Owner| self.waiting.get(owner).is_some_and(|keys| !keys.is_empty());
        (0..self.databases).filter(|owner| waits(owner) && self.count(*owner) == 0).collect()
    }

    fn admit(&mut self) {
        while let Some((key, _)) = self.places.admit() {
            let found = self.waiting.iter_mut().find(|(_, keys)| keys.contains(&key));
            let (&owner, keys) = found.expect("only what waits is admitted, once");
            assert_eq!(keys.remove(0), key, "the tries of a database start in the order they came");
            self.under_way.entry(owner).or_default().push(key);
            self.passed_over.remove(&owner);
        }
        self.check();
    }

    fn check(&self) {
        assert!(self.used() <= self.size);
        let free = self.size - self.used();
        assert_eq!(self.places.free, free);
        let waits = self.waiting.values().any(|keys| !keys.is_empty());
        assert_eq!(self.places.are_short(), waits);
        if free > 0 {
            assert_eq!(self.idle_and_waiting(), Vec::<Owner>::new(), "a place is free, and one without any waits");
            assert!(self.databases > 1 || !waits, "a single database leaves no place unused");
        }
        // Each that is passed over makes way for another that had none either, and came before it.
        let longest = self.passed_over.values().max().copied().unwrap_or_default();
        assert!(longest <= self.databases, "passed over {longest} times");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_and_goes_nobody_is_passed_over_for_long(
        size in 1..12_usize,
        databases in 1..6_usize,
        steps in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>(), any::<usize>()), 0..300),
    ) {
        let mut model = Model::new(size, databases);
        for (comes, owner, index) in steps {
            let owner = owner.index(databases);
            if comes { model.come(owner) } else { model.leave(owner, index) }
        }
        // Once all that runs ends, all that waits has run.
        while model.used() > 0 {
            let owner = (0..databases).find(|owner| model.count(*owner) > 0).unwrap_or_default();
            model.leave(owner, 0);
        }
        prop_assert!(model.waiting.values().all(Vec::is_empty), "{:?}", model.waiting);
    }
}
