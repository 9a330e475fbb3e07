//! The IPs that a database may have. IPs that Kubernetes rejects in Endpoints are rejected here,
//! with the reason, and so are those that `--allow-cidr` does not allow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use super::problem::quote;

/// The networks that addresses may be in. If there are none, all addresses are allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedNetworks(Arc<[IpNet]>);

impl AllowedNetworks {
    /// Makes the list of `--allow-cidr`.
    pub fn new(networks: &[IpNet]) -> Self {
        Self(networks.into())
    }

    /// Returns true if the IP may be published.
    pub fn allows(&self, ip: IpAddr) -> bool {
        self.0.is_empty() || self.0.iter().any(|net| net.contains(&ip))
    }
}

/// Returns the IP, or what is wrong with the text and what to write instead.
pub(crate) fn parse(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{} {}", quote(text), describe_non_ip(text)))
}

/// Returns the reason why this IP may not be published, if there is one.
pub(crate) fn rejection(ip: IpAddr, allowed: &AllowedNetworks) -> Option<String> {
    let by_kubernetes = unusable(ip).map(|why| format!("{} {why}", quote(&ip.to_string())));
    by_kubernetes.or_else(|| not_allowed(ip, allowed))
}

/// Returns the reason why Kubernetes rejects this IP, or why it is not one database.
fn unusable(ip: IpAddr) -> Option<String> {
    if let IpAddr::V6(v6) = ip
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Some(format!(
            "is an IPv4-mapped IPv6 address, which Kubernetes rejects; write `{v4}`"
        ));
    }
    let what = if ip.is_unspecified() {
        "is the unspecified address, at which nothing answers"
    } else if ip.is_loopback() {
        "is a loopback address, which each Pod has for itself"
    } else if ip.is_multicast() {
        "is a multicast address, which is not a single database"
    } else if is_link_local(ip) {
        "is a link-local address, which no other network reaches"
    } else if ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        "is the broadcast address, which is not a single database"
    } else {
        return None;
    };
    Some(format!("{what}; write the address that Pods reach the database at"))
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Returns what is wrong with a text that is not an IP, by what was probably meant.
fn describe_non_ip(text: &str) -> String {
    if let Some(v4) = without_leading_zeros(text) {
        return format!(
            "has a part with a leading zero, which some programs read as octal; write `{v4}`"
        );
    }
    if text.parse::<IpNet>().is_ok() {
        return "is a network; write each address of the database on its own".into();
    }
    if let Some((ip, _)) = text.split_once('%').filter(|(ip, _)| ip.parse::<Ipv6Addr>().is_ok()) {
        return format!(
            "has a zone (`%…`), which Kubernetes rejects; write `{ip}` if other hosts reach it"
        );
    }
    if text.parse::<std::net::SocketAddr>().is_ok() {
        return "has a port; write the address alone, and the port as `port: …` of the database"
            .into();
    }
    if text.trim_matches(['[', ']']).parse::<Ipv6Addr>().is_ok() {
        return format!("has brackets; write `{}`", text.trim_matches(['[', ']']));
    }
    if text.chars().all(|char| char.is_ascii_digit() || char == '.') {
        return "is not an IPv4 address; write four numbers from 0 to 255, as in `10.20.0.11`"
            .into();
    }
    if text.split_whitespace().filter(|part| part.parse::<IpAddr>().is_ok()).count() > 1 {
        return "is more than one IP; write a comma between them, as in `[10.20.0.11, 10.20.0.12]`"
            .into();
    }
    if text.contains("://") {
        return "is a URL; write the IP of the database alone".into();
    }
    if text.contains(':')
        && text.chars().all(|char| char.is_ascii_hexdigit() || matches!(char, ':' | '.'))
    {
        return "is not an IPv6 address; write one like `2001:db8::11`".into();
    }
    "is not an IP, and host names are not resolved yet; write the IP that it stands for".into()
}

/// Returns `10.0.0.1` for `010.0.0.1`, if only the zeros are wrong.
fn without_leading_zeros(text: &str) -> Option<Ipv4Addr> {
    let parts = text.split('.').map(|part| {
        let short = part.trim_start_matches('0');
        if short.is_empty() && !part.is_empty() { "0" } else { short }
    });
    parts.collect::<Vec<_>>().join(".").parse().ok()
}

/// Returns the reason why `--allow-cidr` does not allow the IP.
fn not_allowed(ip: IpAddr, allowed: &AllowedNetworks) -> Option<String> {
    if allowed.allows(ip) {
        return None;
    }
    let nets: Vec<_> = allowed.0.iter().map(IpNet::to_string).collect();
    Some(format!(
        "{ip} is outside of what --allow-cidr allows ({}); write an address inside it",
        nets.join(", ")
    ))
}
