//! Names of services: a pair of answers for each target of their SRV records.

use super::*;

fn part(name: &str, rank: u32, a: FamilyAnswer) -> LookupPart {
    let target = ServiceTarget { name: name.into(), rank, weight: 0 };
    LookupPart { service_target: Some(Arc::new(target)), a, aaaa: FamilyAnswer::NotAsked }
}

fn records(parts: &[LookupPart]) -> Lookup {
    Lookup { parts: parts.to_vec() }
}

fn at(last: u8) -> FamilyAnswer {
    good(&[v4(last)])
}

fn rank(case: &Case, ip: IpAddr) -> Option<u32> {
    case.name.service_target(ip).map(|target| target.rank)
}

#[test]
fn an_unknown_target_leaves_its_addresses_open() {
    let mut case = Case::new(SETTINGS);
    case.observe(&records(&[part("one", 0, at(1)), part("two", 0, at(2))]));
    let unknown = records(&[part("one", 0, at(3)), part("two", 0, FamilyAnswer::Unknown)]);
    assert_eq!(unknown.result(), LookupResult::Good);
    assert_eq!(case.after(1).observe(&unknown).departed, [v4(1)]);
    assert_eq!(case.backing(v4(2)), Some(Backing::Current));
}

#[test]
fn a_record_that_is_gone_departs_its_addresses() {
    let mut case = Case::new(SETTINGS);
    case.observe(&records(&[part("one", 0, at(1)), part("two", 0, at(2))]));
    let gone = case.after(1).observe(&records(&[part("one", 0, at(1))]));
    assert_eq!(gone.departed, [v4(2)]);
    // A target without an address is as good as none, while another has one.
    let mut case = Case::new(SETTINGS);
    case.observe(&records(&[part("one", 0, at(1)), part("two", 0, at(2))]));
    let empty = part("two", 0, FamilyAnswer::NoAddress);
    let departed = case.after(1).observe(&records(&[part("one", 0, at(1)), empty])).departed;
    assert_eq!(departed, [v4(2)]);
}

#[test]
fn without_an_address_of_any_target_nothing_changes() {
    let mut case = Case::new(SETTINGS);
    case.observe(&records(&[part("one", 0, at(1)), part("two", 0, at(2))]));
    let none = |second| records(&[part("one", 0, FamilyAnswer::NoAddress), second]);
    let (empty, unknown) = (FamilyAnswer::NoAddress, FamilyAnswer::Unknown);
    assert_eq!(none(part("two", 0, empty.clone())).result(), LookupResult::Empty);
    assert_eq!(none(part("two", 0, unknown)).result(), LookupResult::Unknown);
    // The SRV question itself has no answer.
    let no_records = Lookup::of_host(empty, FamilyAnswer::NotAsked);
    for lookup in [none(part("two", 0, FamilyAnswer::NoAddress)), no_records] {
        assert_eq!(case.after(1).observe(&lookup), Changes::default());
        assert_eq!(case.backing(v4(1)), Some(Backing::Current));
    }
}

#[test]
fn an_address_of_two_targets_has_the_better_rank() {
    let mut case = Case::new(SETTINGS);
    case.observe(&records(&[part("spare", 1, at(1)), part("main", 0, good(&[v4(1), v4(2)]))]));
    assert_eq!((rank(&case, v4(1)), rank(&case, v4(2))), (Some(0), Some(0)));
    // The rank follows the newest answer.
    case.after(1).observe(&records(&[part("spare", 1, at(1)), part("main", 0, at(2))]));
    assert_eq!((rank(&case, v4(1)), rank(&case, v4(2))), (Some(1), Some(0)));
    assert_eq!(rank(&case, v4(9)), None);
}
