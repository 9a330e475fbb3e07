//! The IPs that a database may have. IPs that Kubernetes rejects in Endpoints are rejected here,
//! with the reason, and so are those that `--allow-cidr` does not allow.

mod embedded;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use self::embedded::{Embedded, embedded};
use super::problem::quote;

/// The networks that addresses may be in. If there are none, all addresses are allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AllowedNetworks(Arc<[IpNet]>);

impl AllowedNetworks {
    /// Makes the list of `--allow-cidr`, or of `within`.
    pub fn new(networks: &[IpNet]) -> Self {
        // The default takes no memory.
        if networks.is_empty() { Self::default() } else { Self(networks.into()) }
    }

    /// Returns true if there is an IP that both lists allow.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let overlap = |one: &IpNet, other: &IpNet| {
            one.contains(&other.network()) || other.contains(&one.network())
        };
        self.0.is_empty()
            || other.0.is_empty()
            || self.0.iter().any(|one| other.0.iter().any(|other| overlap(one, other)))
    }

    /// Returns the networks.
    pub(crate) fn networks(&self) -> &[IpNet] {
        &self.0
    }

    /// Returns true if the IP is in one of the networks.
    pub fn allows(&self, ip: IpAddr) -> bool {
        self.outside(ip).is_none()
    }

    /// Returns the IP if no network has it. An IPv4 address inside of an IPv6 address is judged
    /// too, if there is any IPv4 network.
    fn outside(&self, ip: IpAddr) -> Option<Outside> {
        let has = |ip: IpAddr| self.0.iter().any(|network| network.contains(&ip));
        if self.0.is_empty() {
            return None;
        }
        if !has(ip) {
            return Some(Outside::Itself);
        }
        let limits_ipv4 = self.0.iter().any(|network| matches!(network, IpNet::V4(_)));
        let embedded = embedded_in(ip);
        let is_outside = limits_ipv4 && !embedded.iter().any(|inner| has(inner.ipv4.into()));
        embedded.first().filter(|_| is_outside).copied().map(Outside::Embedded)
    }

    /// Returns the sentence for an IP that is outside of these networks, which `limit` names.
    fn describe_outside(&self, ip: IpAddr, limit: &str) -> Option<String> {
        let fault = match self.outside(ip)? {
            Outside::Itself => format!("{ip} is"),
            Outside::Embedded(Embedded { ipv4, technique }) => {
                format!("{ip} leads to {ipv4} by {technique}, which is")
            }
        };
        Some(format!("{fault} outside of {limit} ({self})"))
    }
}

impl fmt::Display for AllowedNetworks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut networks: Vec<String> =
            self.0.iter().take(MAX_SHOWN_NETWORKS).map(IpNet::to_string).collect();
        if self.0.len() > MAX_SHOWN_NETWORKS {
            networks.push(format!("and {} more", self.0.len() - MAX_SHOWN_NETWORKS));
        }
        f.write_str(&networks.join(", "))
    }
}

/// The networks that a message names.
const MAX_SHOWN_NETWORKS: usize = 8;

/// The address that is outside of all networks.
enum Outside {
    Itself,
    Embedded(Embedded),
}

/// Returns the reason why this IP may not be published, if there is one, with advice for the file.
pub(crate) fn rejection(ip: IpAddr, allowed: &AllowedNetworks) -> Option<String> {
    if let Some(fault) = fault(ip) {
        let advice = match mapped(ip) {
            Some(ipv4) => format!("write `{ipv4}`"),
            None => "write the address that Pods reach the database at".into(),
        };
        return Some(format!("{fault}; {advice}"));
    }
    let outside = allowed.describe_outside(ip, ALLOW_CIDR)?;
    Some(format!("{outside}; write an address inside it"))
}

/// Returns the reason why this IP of an answer may not be published, if there is one.
pub(crate) fn answer_rejection(
    ip: IpAddr,
    allowed: &AllowedNetworks,
    within: &AllowedNetworks,
) -> Option<String> {
    fault(ip)
        .or_else(|| allowed.describe_outside(ip, ALLOW_CIDR))
        .or_else(|| within.describe_outside(ip, "`within`"))
}

const ALLOW_CIDR: &str = "what --allow-cidr allows";

fn mapped(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => v6.to_ipv4_mapped(),
    }
}

/// Returns the reason why Kubernetes rejects this IP, or why it is not one database.
fn fault(ip: IpAddr) -> Option<String> {
    let shown = quote(&ip.to_string());
    if mapped(ip).is_some() {
        return Some(format!("{shown} is an IPv4-mapped IPv6 address, which Kubernetes rejects"));
    }
    if let Some(what) = unusable(ip) {
        return Some(format!("{shown} is {what}"));
    }
    embedded_in(ip).into_iter().find_map(|Embedded { ipv4, technique }| {
        let what = unusable(ipv4.into())?;
        Some(format!("{shown} leads to {ipv4} by {technique}: {what}"))
    })
}

fn embedded_in(ip: IpAddr) -> Vec<Embedded> {
    match ip {
        IpAddr::V4(_) => Vec::new(),
        IpAddr::V6(v6) => embedded(v6),
    }
}

/// Returns what this IP is, if no database is there.
fn unusable(ip: IpAddr) -> Option<&'static str> {
    Some(if ip.is_unspecified() {
        "the unspecified address, at which nothing answers"
    } else if ip.is_loopback() {
        "a loopback address, which each Pod has for itself"
    } else if ip.is_multicast() {
        "a multicast address, which is not a single database"
    } else if is_link_local(ip) {
        "a link-local address, which no other network reaches"
    } else if ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        "the broadcast address, which is not a single database"
    } else if PLATFORM_ADDRESSES.contains(&ip) {
        "an address at which a cloud serves its machines metadata or credentials"
    } else {
        return None;
    })
}

/// The addresses beside the link-local ones at which clouds serve their machines.
const PLATFORM_ADDRESSES: [IpAddr; 7] = [
    // Alibaba Cloud.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    // Azure.
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    // AWS: instance metadata, and the Pod Identity Agent of EKS.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    // Google Cloud.
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    // Oracle Cloud.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe)),
    // Scaleway.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42)),
];

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Returns what is wrong with a text that is meant to be an IP and is none. None for a text that
/// may be meant as a host name.
pub(crate) fn describe_mistake(text: &str) -> Option<String> {
    if let Some(v4) = without_leading_zeros(text) {
        return Some(format!(
            "has a part with a leading zero, which some programs read as octal; write `{v4}`"
        ));
    }
    if text.parse::<IpNet>().is_ok() {
        return Some("is a network; write each address of the database on its own".into());
    }
    if let Some((ip, _)) = text.split_once('%').filter(|(ip, _)| ip.parse::<Ipv6Addr>().is_ok()) {
        return Some(format!(
            "has a zone (`%…`), which Kubernetes rejects; write `{ip}` if other hosts reach it"
        ));
    }
    if text.parse::<std::net::SocketAddr>().is_ok() {
        let advice = "write the address alone, and the port as `port: …` of the database";
        return Some(format!("has a port; {advice}"));
    }
    if text.trim_matches(['[', ']']).parse::<Ipv6Addr>().is_ok() {
        return Some(format!("has brackets; write `{}`", text.trim_matches(['[', ']'])));
    }
    let has_digit = text.contains(|char: char| char.is_ascii_digit());
    if has_digit && text.chars().all(|char| char.is_ascii_digit() || char == '.') {
        return Some(NOT_IPV4.into());
    }
    if text.split_whitespace().filter(|part| part.parse::<IpAddr>().is_ok()).count() > 1 {
        let advice = "write a comma between them, as in `[10.20.0.11, 10.20.0.12]`";
        return Some(format!("is more than one IP; {advice}"));
    }
    let has_only_signs_of_ipv6 =
        text.chars().all(|char| char.is_ascii_hexdigit() || matches!(char, ':' | '.'));
    if text.matches(':').count() > 1 && has_only_signs_of_ipv6 {
        return Some("is not an IPv6 address; write one like `2001:db8::11`".into());
    }
    None
}

/// The mistake of a text that ends in a number, which only an IPv4 address does.
pub(crate) const NOT_IPV4: &str =
    "is not an IPv4 address; write four numbers from 0 to 255, as in `10.20.0.11`";

/// Returns `10.0.0.1` for `010.0.0.1`, if only the zeros are wrong.
fn without_leading_zeros(text: &str) -> Option<Ipv4Addr> {
    let parts = text.split('.').map(|part| {
        let short = part.trim_start_matches('0');
        if short.is_empty() && !part.is_empty() { "0" } else { short }
    });
    parts.collect::<Vec<_>>().join(".").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(networks: &[&str]) -> AllowedNetworks {
        let networks: Vec<IpNet> =
            networks.iter().map(|network| network.parse().expect("a network")).collect();
        AllowedNetworks::new(&networks)
    }

    fn refusal(ip: &str, allowed: &[&str], within: &[&str]) -> Option<String> {
        answer_rejection(ip.parse().expect("an IP"), &networks(allowed), &networks(within))
    }

    #[test]
    fn addresses_that_lead_to_no_database_are_refused() {
        for (ip, word) in [
            ("127.0.0.1", "loopback"),
            ("0.0.0.0", "unspecified"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("169.254.169.254", "link-local"),
            ("fe80::1", "link-local"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("::ffff:10.0.0.1", "IPv4-mapped"),
            ("fd00:ec2::254", "metadata"),
            ("fd20:ce::254", "metadata"),
            ("100.100.100.200", "metadata"),
            ("168.63.129.16", "metadata"),
            ("64:ff9b::a9fe:a9fe", "leads to 169.254.169.254 by NAT64: a link-local"),
            ("64:ff9b::100.100.100.200", "leads to 100.100.100.200 by NAT64"),
            ("64:ff9b:1::127.0.0.1", "leads to 127.0.0.1 by NAT64"),
            // The prefix lengths 48, 56 and 64 of a local NAT64.
            ("64:ff9b:1:a9fe:a9:fe00::", "leads to 169.254.169.254 by NAT64"),
            ("64:ff9b:1:ffa9:fe:a9fe::", "leads to 169.254.169.254 by NAT64"),
            ("64:ff9b:1:ffff:a9:fea9:fe00:0", "leads to 169.254.169.254 by NAT64"),
            ("2002:7f00:1::", "leads to 127.0.0.1 by 6to4: a loopback"),
            ("2002:a9fe:a9fe::1", "leads to 169.254.169.254 by 6to4"),
            ("::ffff:0:127.0.0.1", "leads to 127.0.0.1 by IPv4-translated"),
            ("::127.0.0.2", "leads to 127.0.0.2 by IPv4-compatible"),
            ("2001:0:1:2:3:4:80ff:fffe", "leads to 127.0.0.1 by Teredo"),
        ] {
            let reason = refusal(ip, &[], &[]).unwrap_or_else(|| panic!("{ip} is taken"));
            assert!(reason.contains(word) && !reason.contains("write"), "{ip}: {reason}");
        }
    }

    #[test]
    fn addresses_of_databases_are_taken() {
        for ip in [
            "10.0.0.1",
            "100.100.100.201",
            "192.0.2.1",
            "fd00:ec2::253",
            "2001:db8::1",
            "2001:4860::127.0.0.1",
            "64:ff9b::10.20.0.11",
            "64:ff9b:1::10.20.0.11",
            "64:ff9b:1:a14:0:b00::",
            "2002:a14:b::1",
        ] {
            assert_eq!(refusal(ip, &[], &[]), None, "{ip}");
        }
    }

    #[test]
    fn both_limits_hold_an_answer() {
        assert_eq!(refusal("10.20.0.1", &["10.0.0.0/8"], &["10.20.0.0/16"]), None);
        assert_eq!(
            refusal("10.21.0.1", &["10.0.0.0/8"], &["10.20.0.0/16", "2001:db8::/32"]).as_deref(),
            Some("10.21.0.1 is outside of `within` (10.20.0.0/16, 2001:db8::/32)")
        );
        assert_eq!(
            refusal("192.0.2.1", &["10.0.0.0/8"], &["192.0.2.0/24"]).as_deref(),
            Some("192.0.2.1 is outside of what --allow-cidr allows (10.0.0.0/8)")
        );
    }

    #[test]
    fn an_embedded_ipv4_address_is_judged_by_ipv4_networks() {
        let nat64 = "64:ff9b::/96";
        assert_eq!(refusal("64:ff9b::192.0.2.1", &[nat64], &[]), None);
        assert_eq!(refusal("64:ff9b::10.20.0.1", &[nat64, "10.0.0.0/8"], &[]), None);
        assert_eq!(
            refusal("64:ff9b::192.0.2.1", &[nat64, "10.0.0.0/8"], &[]).as_deref(),
            Some(
                "64:ff9b::c000:201 leads to 192.0.2.1 by NAT64, which is outside of what \
                 --allow-cidr allows (64:ff9b::/96, 10.0.0.0/8)"
            )
        );
        assert!(refusal("2002:c000:201::", &[], &["2002::/16", "10.0.0.0/8"]).is_some());
        assert!(refusal("64:ff9b::10.20.0.1", &["10.0.0.0/8"], &[]).is_some());
        let local = ["64:ff9b:1::/48", "10.0.0.0/8"];
        assert_eq!(refusal("64:ff9b:1:a14:0:b00::", &local, &[]), None);
        assert_eq!(refusal("64:ff9b:1:7::10.20.0.11", &local, &[]), None);
        assert!(refusal("64:ff9b:1::192.0.2.1", &local, &[]).is_some());
    }

    #[test]
    fn a_long_list_of_networks_is_cut() {
        let list: Vec<String> =
            (0..1000).map(|i| format!("10.{}.{}.0/24", i / 250, i % 250)).collect();
        let list: Vec<&str> = list.iter().map(String::as_str).collect();
        let reason = refusal("192.0.2.1", &list, &[]).expect("a reason");
        assert!(reason.len() < 200 && reason.ends_with(", and 992 more)"), "{reason}");
    }
}
