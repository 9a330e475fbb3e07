use std::collections::BTreeMap;
use std::time::Instant;

use proptest::prelude::*;

use super::*;

fn due() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    Instant::now()
}

fn shared(places: usize, databases: usize) -> AdmissionQueue {
    let mut shared = AdmissionQueue::new(places);
    shared.set_sharers(&(0..databases).collect());
    shared
}

fn admitted(places: &mut AdmissionQueue) -> Option<TargetKey> {
    places.try_admit().map(|(key, _)| key)
}

fn all_admitted(places: &mut AdmissionQueue) -> Vec<TargetKey> {
    std::iter::from_fn(|| admitted(places)).collect()
}

#[test]
fn one_database_alone_takes_all_places_in_the_order_it_came() {
    let due = due();
    let mut places = shared(2, 1);
    (0..4).for_each(|key| places.enqueue(0, key, due));
    assert_eq!(all_admitted(&mut places), [0, 1]);
    assert!(places.is_saturated());
    places.release(0);
    assert_eq!(all_admitted(&mut places), [2]);
    places.release(0);
    places.release(0);
    assert_eq!(all_admitted(&mut places), [3]);
    assert!(!places.is_saturated());
    places.enqueue(0, 9, due);
    assert_eq!(admitted(&mut places), Some(9), "one place was free all the while");
}

#[test]
fn the_table_says_who_may_start() {
    // Free places, databases, idle ones, under way of the one that asks.
    let table = [
        (0, 1, 1, 0, false),
        (0, 5, 5, 0, false),
        (1, 0, 0, 7, true),
        (1, 1, 0, 7, true),
        (1, 2, 2, 0, true),
        (1, 9, 9, 0, true),
        (1, 2, 0, 1, false),
        (5, 2, 0, 4, true),
        (5, 2, 0, 5, false),
        (5, 9, 4, 4, true),
        (5, 9, 4, 5, false),
        (5, 9, 5, 1, false),
        (5, 9, 8, 1, false),
    ];
    for (free, databases, idle, in_flight, expected) in table {
        let mut places = shared(free, databases);
        places.idle = idle;
        assert_eq!(places.may_start(in_flight), expected, "{free} {databases} {idle} {in_flight}");
    }
}

#[test]
fn hanging_databases_leave_each_idle_one_a_place() {
    let due = due();
    let mut places = shared(8, 5);
    // Twenty tries of each hang.
    for (owner, expected) in [(0, 4), (1, 1), (2, 1)] {
        (0..20).for_each(|key| places.enqueue(owner, 100 * owner + key, due));
        assert_eq!(all_admitted(&mut places).len(), expected, "database {owner}");
    }
    places.enqueue(3, 999, due);
    assert_eq!(all_admitted(&mut places), [999]);
    places.enqueue(4, 1000, due);
    assert_eq!(all_admitted(&mut places), [1000]);
    assert_eq!(places.waiting().count(), 54);
}

#[test]
fn a_database_that_leaves_or_joins_changes_what_is_kept() {
    let due = due();
    let mut places = shared(3, 3);
    (0..5).for_each(|key| places.enqueue(0, key, due));
    assert_eq!(all_admitted(&mut places), [0], "two are kept for two");
    places.enqueue(1, 10, due);
    assert_eq!(all_admitted(&mut places), [10]);
    // The second leaves with a try under way, which then ends.
    places.set_sharers(&[0, 2].into());
    assert_eq!(places.idle, 1);
    places.release(1);
    assert_eq!(places.idle, 1);
    assert_eq!(all_admitted(&mut places), [1], "one is kept for one");
    places.set_sharers(&[0].into());
    assert_eq!(all_admitted(&mut places), [2]);
    places.set_sharers(&[0, 1, 2].into());
    places.release(0);
    places.release(0);
    assert_eq!((places.idle, all_admitted(&mut places).len()), (2, 0));
}

#[test]
fn a_place_goes_to_the_database_with_the_fewest_in_flight() {
    let due = due();
    let mut places = shared(3, 3);
    [(0, 1), (0, 2), (1, 11), (1, 12), (2, 21)]
        .iter()
        .for_each(|&(owner, key)| places.enqueue(owner, key, due));
    assert_eq!(all_admitted(&mut places), [1, 11, 21]);
    places.release(1);
    assert_eq!(
        all_admitted(&mut places),
        [12],
        "the first database has one under way, the second none"
    );
    places.release(0);
    assert_eq!(all_admitted(&mut places), [2]);
}

#[test]
fn a_database_keeps_its_number_while_others_come_and_go() {
    let id = |name: &str| DatabaseId { namespace: "prod".into(), service: name.into() };
    let (a, b, c, d) = (id("a"), id("b"), id("c"), id("d"));
    let mut owners = OwnerIds::default();
    owners.update([&b, &d].into_iter(), |_| false);
    let before = (owners.get(&b), owners.get(&d));
    owners.update([&a, &b, &c, &d].into_iter(), |_| false);
    assert_eq!((owners.get(&b), owners.get(&d)), before);
    owners.update([&a, &d].into_iter(), |_| false);
    assert_eq!(owners.get(&d), before.1);
    let numbers: BTreeSet<OwnerId> = [&a, &d].map(|id| owners.get(id)).into();
    assert_eq!(numbers.len(), 2);
    owners.update([&a, &b, &c, &d].into_iter(), |_| false);
    let numbers: BTreeSet<OwnerId> = [&a, &b, &c, &d].map(|id| owners.get(id)).into();
    assert_eq!(numbers, (0..4).collect(), "numbers are used again");
}

/// The places, and what they should hold.
struct Model {
    places: AdmissionQueue,
    size: usize,
    databases: usize,
    due: Instant,
    next: TargetKey,
    /// By owner: those under way, and those that wait, in the order they came.
    in_flight: BTreeMap<OwnerId, Vec<TargetKey>>,
    waiting: BTreeMap<OwnerId, Vec<TargetKey>>,
    /// Releases since a database without a try under way began to wait.
    passed_over: BTreeMap<OwnerId, usize>,
}

impl Model {
    fn new(size: usize, databases: usize) -> Self {
        let places = shared(size, databases);
        let (in_flight, waiting, passed_over) = Default::default();
        Self { places, size, databases, due: due(), next: 0, in_flight, waiting, passed_over }
    }

    fn count(&self, owner: OwnerId) -> usize {
        self.in_flight.get(&owner).map_or(0, Vec::len)
    }

    fn used(&self) -> usize {
        self.in_flight.values().map(Vec::len).sum()
    }

    fn enqueue(&mut self, owner: OwnerId) {
        self.places.enqueue(owner, self.next, self.due);
        self.waiting.entry(owner).or_default().push(self.next);
        self.next += 1;
        self.try_admit();
    }

    fn release(&mut self, owner: OwnerId, index: usize) {
        let Some(keys) = self.in_flight.get_mut(&owner).filter(|keys| !keys.is_empty()) else {
            return;
        };
        keys.swap_remove(index % keys.len());
        let idle: Vec<OwnerId> = self.idle_and_waiting();
        self.places.release(owner);
        idle.into_iter().for_each(|owner| *self.passed_over.entry(owner).or_default() += 1);
        self.try_admit();
    }

    fn idle_and_waiting(&self) -> Vec<OwnerId> {
        let waits = |owner: &OwnerId| self.waiting.get(owner).is_some_and(|keys| !keys.is_empty());
        (0..self.databases).filter(|owner| waits(owner) && self.count(*owner) == 0).collect()
    }

    fn try_admit(&mut self) {
        while let Some((key, _)) = self.places.try_admit() {
            let found = self.waiting.iter_mut().find(|(_, keys)| keys.contains(&key));
            let (&owner, keys) = found.expect("only what waits is admitted, once");
            assert_eq!(keys.remove(0), key, "the tries of a database start in the order they came");
            self.in_flight.entry(owner).or_default().push(key);
            self.passed_over.remove(&owner);
        }
        self.check();
    }

    fn check(&self) {
        assert!(self.used() <= self.size);
        let free = self.size - self.used();
        assert_eq!(self.places.free, free);
        assert_eq!(
            self.places.idle,
            (0..self.databases).filter(|owner| self.count(*owner) == 0).count()
        );
        let waits = self.waiting.values().any(|keys| !keys.is_empty());
        assert_eq!(self.places.is_saturated(), waits);
        if free > 0 {
            assert_eq!(
                self.idle_and_waiting(),
                Vec::<OwnerId>::new(),
                "a place is free, and one without any waits"
            );
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
        steps in proptest::collection::vec(
            (any::<bool>(), any::<prop::sample::Index>(), any::<usize>()),
            0..300,
        ),
    ) {
        let mut model = Model::new(size, databases);
        for (comes, owner, index) in steps {
            let owner = owner.index(databases);
            if comes { model.enqueue(owner) } else { model.release(owner, index) }
        }
        // Once all that runs ends, all that waits has run.
        while model.used() > 0 {
            let owner = (0..databases).find(|owner| model.count(*owner) > 0).unwrap_or_default();
            model.release(owner, 0);
        }
        prop_assert!(model.waiting.values().all(Vec::is_empty), "{:?}", model.waiting);
    }

    #[test]
    fn fewer_that_hang_than_places_stop_nobody(
        (size, hanging) in (2..12_usize).prop_flat_map(|size| (Just(size), 1..size)),
        friendly in proptest::collection::vec(1..3_usize, 1..20),
        hung in proptest::collection::vec(any::<prop::sample::Index>(), 0..200),
    ) {
        let mut model = Model::new(size, hanging + friendly.len());
        let tries: usize = friendly.iter().sum();
        let mut hung = hung.into_iter();
        for (index, addresses) in friendly.iter().enumerate() {
            (0..*addresses).for_each(|_| model.enqueue(hanging + index));
            hung.by_ref().take(5).for_each(|owner| model.enqueue(owner.index(hanging)));
        }
        // The ends that each friendly try has waited for.
        let mut waited = BTreeMap::<TargetKey, usize>::new();
        for _ in 0..10 * tries {
            // The one that came first ends first, and its target is due again at once.
            let runs = model
                .in_flight
                .range(hanging..)
                .flat_map(|(owner, keys)| keys.iter().map(move |key| (*key, *owner)));
            let Some((key, owner)) = runs.min() else {
                panic!("no friendly try is in flight: {:?}", model.in_flight)
            };
            let keys = &model.in_flight[&owner];
            let index = keys.iter().position(|other| *other == key).unwrap_or_default();
            model.release(owner, index);
            model.enqueue(owner);
            hung.next().into_iter().for_each(|owner| model.enqueue(owner.index(hanging)));
            let waiting: BTreeSet<TargetKey> =
                model.waiting.range(hanging..).flat_map(|(_, keys)| keys).copied().collect();
            waited.retain(|key, _| waiting.contains(key));
            waiting.into_iter().for_each(|key| *waited.entry(key).or_default() += 1);
            let longest = waited.values().max().copied().unwrap_or_default();
            prop_assert!(longest <= 3 * tries, "one of {tries} has waited for {longest} ends");
        }
    }
}
