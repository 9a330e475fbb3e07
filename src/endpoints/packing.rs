//! Which of a database's EndpointSlices holds which IP: stable, so that few of them are written when members come and go. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// IPs by the number of the slice that holds them.
pub(super) type SliceLayout = BTreeMap<u16, Vec<IpAddr>>;

/// Spreads `wanted`, sorted and without duplicates, over slices of at most `size`, given what they hold now.
///
/// An IP stays where it is. One that leaves changes its slice alone; one that comes goes where something changes anyway, else
/// where there is room, else into a new slice. The first slice is there even when it is empty; of the others only those are
/// that hold something.
pub(super) fn pack(held: &SliceLayout, wanted: &[IpAddr], size: usize) -> SliceLayout {
    let mut left: BTreeSet<IpAddr> = wanted.iter().copied().collect();
    let mut filling = SliceLayout::new();
    let mut changed = Vec::new();
    let mut others = Vec::new();
    for (&number, ips) in held {
        let mut kept: Vec<IpAddr> = Vec::with_capacity(ips.len());
        for ip in ips {
            if kept.len() < size && left.remove(ip) {
                kept.push(*ip);
            }
        }
        (if kept.len() < ips.len() { &mut changed } else { &mut others }).push(number);
        filling.insert(number, kept);
    }
    filling.entry(1).or_default();
    let mut coming = left.into_iter().peekable();
    for number in changed.into_iter().chain(others).chain(1..) {
        if coming.peek().is_none() {
            break;
        }
        let slice = filling.entry(number).or_default();
        let room = size.saturating_sub(slice.len());
        slice.extend(coming.by_ref().take(room));
    }
    filling.retain(|number, slice| {
        slice.sort();
        *number == 1 || !slice.is_empty()
    });
    filling
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(number: u16) -> IpAddr {
        let [high, low] = number.to_be_bytes();
        [10, 20, high, low].into()
    }

    fn ips(numbers: impl IntoIterator<Item = u16>) -> Vec<IpAddr> {
        numbers.into_iter().map(ip).collect()
    }

    /// The numbers of the slices that differ.
    fn differing(before: &SliceLayout, after: &SliceLayout) -> Vec<u16> {
        let numbers: BTreeSet<u16> = before.keys().chain(after.keys()).copied().collect();
        numbers.into_iter().filter(|number| before.get(number) != after.get(number)).collect()
    }

    #[test]
    fn a_thousand_and_one_are_ten_full_slices_and_one_of_one() {
        let filling = pack(&SliceLayout::new(), &ips(0..1001), 100);
        let sizes: Vec<usize> = filling.values().map(Vec::len).collect();
        assert_eq!(sizes, [100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 1]);
    }

    #[test]
    fn none_is_one_empty_slice() {
        assert_eq!(pack(&SliceLayout::new(), &[], 100), SliceLayout::from([(1, vec![])]));
        let held = pack(&SliceLayout::new(), &ips(0..250), 100);
        assert_eq!(pack(&held, &[], 100), SliceLayout::from([(1, vec![])]));
    }

    #[test]
    fn who_comes_as_another_leaves_takes_the_place() {
        let held = pack(&SliceLayout::new(), &ips(0..250), 100);
        let after = pack(&held, &ips((0..120).chain(121..251)), 100);
        assert_eq!(differing(&held, &after), [2]);
    }

    #[test]
    fn an_ip_that_someone_copied_into_a_second_slice_leaves_that_one() {
        let held = SliceLayout::from([(1, ips([1, 2])), (2, ips([2, 3]))]);
        assert_eq!(
            pack(&held, &ips([1, 2, 3]), 2),
            SliceLayout::from([(1, ips([1, 2])), (2, ips([3]))])
        );
    }

    proptest! {
        #[test]
        fn each_wanted_ip_is_in_exactly_one_slice_and_none_is_too_large(
            held in prop::collection::btree_map(1..6_u16, prop::collection::vec(0..60_u16, 0..12), 0..5),
            wanted in prop::collection::btree_set(0..60_u16, 0..60), size in 1..10_usize,
        ) {
            let held: SliceLayout = held.into_iter().map(|(number, held)| (number, ips(held))).collect();
            let wanted = ips(wanted);
            let filling = pack(&held, &wanted, size);
            let mut all: Vec<IpAddr> = filling.values().flatten().copied().collect();
            all.sort();
            prop_assert_eq!(&all, &wanted);
            prop_assert!(filling.values().all(|slice| slice.len() <= size && slice.is_sorted()));
            prop_assert!(filling.iter().all(|(number, slice)| *number == 1 || !slice.is_empty()));
            prop_assert!(filling.contains_key(&1));
            prop_assert_eq!(&pack(&filling, &wanted, size), &filling, "what is filled stays as it is");
        }

        #[test]
        fn one_that_leaves_one_that_comes_or_both_change_one_slice(
            before in prop::collection::btree_set(0..60_u16, 1..60), leaves in any::<prop::sample::Index>(),
            comes in 60..70_u16, size in 1..10_usize,
        ) {
            let held = pack(&SliceLayout::new(), &ips(before.clone()), size);
            let mut after = before.clone();
            after.remove(&leaves.get(&before.iter().copied().collect::<Vec<_>>()).clone());
            prop_assert_eq!(differing(&held, &pack(&held, &ips(after.clone()), size)).len(), 1);
            after.insert(comes);
            prop_assert_eq!(differing(&held, &pack(&held, &ips(after), size)).len(), 1);
            let mut more = before;
            more.insert(comes);
            prop_assert_eq!(differing(&held, &pack(&held, &ips(more), size)).len(), 1);
        }
    }
}
