//! Addresses for databases: documentation networks that are local in the sandbox, each address given out once a run.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};

/// Addresses that no other test has. The first ones are from the documentation networks; many, or late, ones from the one for benchmarks.
pub(crate) fn take(count: usize) -> Vec<IpAddr> {
    (0..count).map(|_| take_one()).collect()
}

pub(crate) fn take_one() -> IpAddr {
    const EACH: u32 = 254;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let index = TAKEN.fetch_add(1, Ordering::Relaxed);
    let (network, host) = match index / EACH {
        0 => (Ipv4Addr::new(198, 51, 100, 0), index),
        1 => (Ipv4Addr::new(203, 0, 113, 0), index - EACH),
        _ => (Ipv4Addr::new(198, 18, 0, 0), index - 2 * EACH),
    };
    assert!(host < 0x1_fffe, "out of addresses");
    Ipv4Addr::from_bits(network.to_bits() + host + 1).into()
}

/// As [`take`], of IP version 6.
pub(crate) fn take_v6(count: usize) -> Vec<IpAddr> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let base = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0).to_bits();
    (0..count)
        .map(|_| Ipv6Addr::from_bits(base + 1 + u128::from(TAKEN.fetch_add(1, Ordering::Relaxed))))
        .map(IpAddr::from)
        .collect()
}

/// A port of the loopback that nobody else gets: below the range from which the kernel chooses, in a network that is ours alone.
pub(crate) fn port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let port = 20_000 + TAKEN.fetch_add(1, Ordering::Relaxed);
    assert!(port < 32_768, "out of ports");
    u16::try_from(port).expect("below 32768")
}
