//! Black holes: addresses that lose every packet, like those of a machine without power.

use std::net::IpAddr;
use std::process::Command;

use super::sandbox::run;

/// An nftables table beside kube-proxy's. It drops packets on their way in, so that the sender gets
/// no error.
pub(crate) const NFT_TABLE: &str = "
table inet sandbox {
    set black_holes4 { type ipv4_addr; }
    set black_holes6 { type ipv6_addr; }
    chain input {
        type filter hook input priority -10; policy accept;
        ip daddr @black_holes4 drop
        ip saddr @black_holes4 drop
        ip6 daddr @black_holes6 drop
        ip6 saddr @black_holes6 drop
    }
}
";

pub(crate) fn add(ip: IpAddr) {
    change("add", ip);
}

pub(crate) fn remove(ip: IpAddr) {
    change("delete", ip);
}

fn change(verb: &str, ip: IpAddr) {
    let family = if ip.is_ipv4() { 4 } else { 6 };
    let line = format!("{verb} element inet sandbox black_holes{family} {{ {ip} }}\n");
    run(Command::new("nft").args(["-f", "-"]), &line)
        .unwrap_or_else(|problem| panic!("{verb} black hole {ip}: {problem}"));
}
