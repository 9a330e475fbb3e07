//! The IPv4 addresses that an IPv6 address may lead to, through a translator or a tunnel.
//!
//! | prefix | place of the IPv4 address | |
//! | --- | --- | --- |
//! | `::/96` | the last 32 bits | IPv4-compatible, RFC 4291 |
//! | `::ffff:0:0:0/96` | the last 32 bits | IPv4-translated, RFC 2765 |
//! | `64:ff9b::/96` | the last 32 bits | NAT64, RFC 6052 |
//! | `64:ff9b:1::/48` | by the length of the translator's own prefix | NAT64, RFC 8215 |
//! | `2001::/32` | the last 32 bits, inverted | Teredo, RFC 4380 |
//! | `2002::/16` | the 32 bits after the prefix | 6to4, RFC 3056 |

use std::net::{Ipv4Addr, Ipv6Addr};

/// An IPv4 address inside an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Embedded {
    pub ipv4: Ipv4Addr,
    /// The technique that connects the two.
    pub technique: &'static str,
}

/// Returns the IPv4 addresses that an IPv6 address may lead to.
///
/// There is more than one only for a local NAT64: its prefix may have one of four lengths, which
/// the address does not tell. An address in 0.0.0.0/8 is then made of zeros and does not count.
pub(super) fn embedded(ip: Ipv6Addr) -> Vec<Embedded> {
    let octets = ip.octets();
    let at = |places: [usize; 4]| Ipv4Addr::from(places.map(|place| octets[place]));
    let (technique, addresses) = match ip.segments() {
        [0, 0, 0, 0, 0, 0, ..] if !ip.is_unspecified() && !ip.is_loopback() => {
            ("IPv4-compatible", vec![at(LAST)])
        }
        [0, 0, 0, 0, 0xffff, 0, ..] => ("IPv4-translated", vec![at(LAST)]),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => ("NAT64", vec![at(LAST)]),
        [0x64, 0xff9b, 1, ..] => {
            let layouts = [LAST, [6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12]].map(at);
            let counts = |ipv4: &Ipv4Addr| ipv4.octets()[0] != 0;
            ("NAT64", layouts.into_iter().filter(counts).collect())
        }
        [0x2001, 0, ..] => ("Teredo", vec![Ipv4Addr::from_bits(!at(LAST).to_bits())]),
        [0x2002, ..] => ("6to4", vec![at([2, 3, 4, 5])]),
        _ => return Vec::new(),
    };
    addresses.into_iter().map(|ipv4| Embedded { ipv4, technique }).collect()
}

/// The last four octets of an IPv6 address.
const LAST: [usize; 4] = [12, 13, 14, 15];
