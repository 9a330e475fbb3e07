//! IP addresses and ports for tests. No address or port is given out twice in a run.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};

/// Allocates IPv4 addresses that are local in the sandbox.
///
/// The first ones are from the documentation networks (RFC 5737), later ones from the benchmarking
/// network (RFC 2544).
pub(crate) fn allocate(count: usize) -> Vec<IpAddr> {
    (0..count).map(|_| allocate_one()).collect()
}

pub(crate) fn allocate_one() -> IpAddr {
    const HOSTS_PER_NETWORK: u32 = 254;
    static ALLOCATED: AtomicU32 = AtomicU32::new(0);
    let index = ALLOCATED.fetch_add(1, Ordering::Relaxed);
    let (network, host) = match index / HOSTS_PER_NETWORK {
        0 => (Ipv4Addr::new(198, 51, 100, 0), index),
        1 => (Ipv4Addr::new(203, 0, 113, 0), index - HOSTS_PER_NETWORK),
        _ => (Ipv4Addr::new(198, 18, 0, 0), index - 2 * HOSTS_PER_NETWORK),
    };
    assert!(host < 0x1_fffe, "out of addresses");
    Ipv4Addr::from_bits(network.to_bits() + host + 1).into()
}

/// Allocates IPv6 addresses from the documentation network (RFC 3849).
pub(crate) fn allocate_v6(count: usize) -> Vec<IpAddr> {
    static ALLOCATED: AtomicU32 = AtomicU32::new(0);
    let base = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0).to_bits();
    (0..count)
        .map(|_| {
            Ipv6Addr::from_bits(base + 1 + u128::from(ALLOCATED.fetch_add(1, Ordering::Relaxed)))
        })
        .map(IpAddr::from)
        .collect()
}

/// Returns a loopback port that nothing else uses. It is below the kernel's range of ephemeral
/// ports.
pub(crate) fn allocate_port() -> u16 {
    static ALLOCATED: AtomicU32 = AtomicU32::new(0);
    let port = 20_000 + ALLOCATED.fetch_add(1, Ordering::Relaxed);
    assert!(port < 32_768, "out of ports");
    u16::try_from(port).expect("below 32768")
}
