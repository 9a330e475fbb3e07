//! The distribution of IPs over EndpointSlices: stable, so that few slices are written when members
//! come and go. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The IPs by the number of the slice that has them.
pub(super) type SliceLayout = BTreeMap<u16, Vec<IpAddr>>;

/// Distributes `desired`, sorted and without duplicates, over slices of at most `size`, given the
/// IPs that they have now.
///
/// An IP stays in its slice. One that leaves changes its slice alone. One that comes is added to a
/// slice that changes anyway, else to one with room, else to a new one. The first slice exists even
/// when it is empty; the others exist only while they have IPs.
pub(super) fn pack(existing: &SliceLayout, desired: &[IpAddr], size: usize) -> SliceLayout {
    let mut left: BTreeSet<IpAddr> = desired.iter().copied().collect();
    let mut layout = SliceLayout::new();
    let mut changed = Vec::new();
    let mut others = Vec::new();
    for (&number, ips) in existing {
        let mut kept: Vec<IpAddr> = Vec::with_capacity(ips.len());
        for ip in ips {
            if kept.len() < size && left.remove(ip) {
                kept.push(*ip);
            }
        }
        (if kept.len() < ips.len() { &mut changed } else { &mut others }).push(number);
        layout.insert(number, kept);
    }
    layout.entry(1).or_default();
    let mut coming = left.into_iter().peekable();
    for number in changed.into_iter().chain(others).chain(1..) {
        if coming.peek().is_none() {
            break;
        }
        let slice = layout.entry(number).or_default();
        let room = size.saturating_sub(slice.len());
        slice.extend(coming.by_ref().take(room));
    }
    layout.retain(|number, slice| {
        slice.sort();
        *number == 1 || !slice.is_empty()
    });
    layout
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

    /// Returns the numbers of the slices that differ.
    fn differing(before: &SliceLayout, after: &SliceLayout) -> Vec<u16> {
        let numbers: BTreeSet<u16> = before.keys().chain(after.keys()).copied().collect();
        numbers.into_iter().filter(|number| before.get(number) != after.get(number)).collect()
    }

    #[test]
    fn a_thousand_and_one_are_ten_full_slices_and_one_of_one() {
        let layout = pack(&SliceLayout::new(), &ips(0..1001), 100);
        let sizes: Vec<usize> = layout.values().map(Vec::len).collect();
        assert_eq!(sizes, [100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 1]);
    }

    #[test]
    fn none_is_one_empty_slice() {
        assert_eq!(pack(&SliceLayout::new(), &[], 100), SliceLayout::from([(1, vec![])]));
        let existing = pack(&SliceLayout::new(), &ips(0..250), 100);
        assert_eq!(pack(&existing, &[], 100), SliceLayout::from([(1, vec![])]));
    }

    #[test]
    fn an_ip_that_comes_as_another_leaves_takes_its_place() {
        let existing = pack(&SliceLayout::new(), &ips(0..250), 100);
        let after = pack(&existing, &ips((0..120).chain(121..251)), 100);
        assert_eq!(differing(&existing, &after), [2]);
    }

    #[test]
    fn an_ip_that_is_in_two_slices_leaves_the_second() {
        let existing = SliceLayout::from([(1, ips([1, 2])), (2, ips([2, 3]))]);
        assert_eq!(
            pack(&existing, &ips([1, 2, 3]), 2),
            SliceLayout::from([(1, ips([1, 2])), (2, ips([3]))])
        );
    }

    proptest! {
        #[test]
        fn each_ip_is_in_exactly_one_slice(
            existing in prop::collection::btree_map(
                1..6_u16, prop::collection::vec(0..60_u16, 0..12), 0..5,
            ),
            desired in prop::collection::btree_set(0..60_u16, 0..60), size in 1..10_usize,
        ) {
            let existing: SliceLayout =
                existing.into_iter().map(|(number, held)| (number, ips(held))).collect();
            let desired = ips(desired);
            let layout = pack(&existing, &desired, size);
            let mut all: Vec<IpAddr> = layout.values().flatten().copied().collect();
            all.sort();
            prop_assert_eq!(&all, &desired);
            prop_assert!(layout.values().all(|slice| slice.len() <= size && slice.is_sorted()));
            prop_assert!(layout.iter().all(|(number, slice)| *number == 1 || !slice.is_empty()));
            prop_assert!(layout.contains_key(&1));
            let again = pack(&layout, &desired, size);
            prop_assert_eq!(&again, &layout, "a layout stays as it is");
        }

        #[test]
        fn one_that_leaves_one_that_comes_or_both_change_one_slice(
            before in prop::collection::btree_set(0..60_u16, 1..60),
            leaves in any::<prop::sample::Index>(),
            comes in 60..70_u16, size in 1..10_usize,
        ) {
            let existing = pack(&SliceLayout::new(), &ips(before.clone()), size);
            let mut after = before.clone();
            after.remove(&leaves.get(&before.iter().copied().collect::<Vec<_>>()).clone());
            let without = pack(&existing, &ips(after.clone()), size);
            prop_assert_eq!(differing(&existing, &without).len(), 1);
            after.insert(comes);
            prop_assert_eq!(differing(&existing, &pack(&existing, &ips(after), size)).len(), 1);
            let mut more = before;
            more.insert(comes);
            prop_assert_eq!(differing(&existing, &pack(&existing, &ips(more), size)).len(), 1);
        }
    }
}
