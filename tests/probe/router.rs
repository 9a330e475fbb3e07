//! An ICMP error from a router is the target's fault, and a missing route of this host is this
//! host's: all ICMP codes in both families, from a router in a network namespace of its own.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use external_endpoints::config::{CheckKind, HttpCheck, RedisCheck, Scheme, TcpCheck, Tls};
use external_endpoints::health::Verdict;
use socket2::{Domain, Protocol, Socket, Type};

use crate::fixtures::*;

const PORT: u16 = 3306;

/// The first last part of an address that stands for an ICMP code.
const FIRST: u8 = 100;

/// The reasons by ICMP code: "destination unreachable", then "time exceeded" and "parameter
/// problem". `None` is for a code that means something else. From RFC 792, RFC 1812 and Linux's
/// `icmp_err_convert`.
const IPV4: [Option<&str>; 18] = [
    Some("network unreachable (reported by a router)"),
    Some("host unreachable"),
    Some("protocol unreachable (reported by a router)"),
    Some("refused"),
    // The packet is too large.
    None,
    Some("source route failed (reported by a router)"),
    Some("network unreachable (reported by a router)"),
    Some("host unknown (reported by a router)"),
    Some("this host is isolated (reported by a router)"),
    Some("network unreachable (reported by a router)"),
    Some("host unreachable"),
    Some("network unreachable (reported by a router)"),
    Some("host unreachable"),
    Some("host unreachable"),
    Some("host unreachable"),
    Some("host unreachable"),
    Some("host unreachable"),
    Some("protocol error (reported by a router)"),
];

/// The reasons by ICMPv6 code, from RFC 4443 and Linux's `icmpv6_err_convert`.
const IPV6: [&str; 9] = [
    "network unreachable (reported by a router)",
    "administratively prohibited (reported by a router)",
    "host unreachable",
    "host unreachable",
    "refused",
    "administratively prohibited (reported by a router)",
    "administratively prohibited (reported by a router)",
    "host unreachable",
    "protocol error (reported by a router)",
];

fn ipv4(last: u8) -> IpAddr {
    Ipv4Addr::new(203, 0, 113, last).into()
}

/// Returns an address whose last part reads the same in hexadecimal digits.
fn ipv6(last: u8) -> IpAddr {
    let last = u16::from_str_radix(&last.to_string(), 16).unwrap();
    Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, last).into()
}

/// Runs the test of this file behind the router.
#[test]
fn an_icmp_error_fails_and_a_missing_route_does_not() {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let program = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .args(["sh", "-c", include_str!("router.sh"), "sh"])
        .args([&program, &program])
        .args(["router::behind_the_router_here", "--exact", "--ignored", "--nocapture"])
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}

/// Returns every check that connects, in all ways.
fn kinds() -> Vec<CheckKind> {
    let plain = http(PORT);
    let native = crate::redis::redis(PORT);
    let tls = Tls { insecure_skip_verify: true, ..Tls::default() };
    vec![
        CheckKind::Tcp(tcp(PORT)),
        CheckKind::Tcp(TcpCheck { accept: true, ..tcp(PORT) }),
        CheckKind::Tcp(TcpCheck {
            expect: Some("x".into()),
            send: Some(literal("x")),
            ..tcp(PORT)
        }),
        CheckKind::Http(plain.clone()),
        CheckKind::Http(HttpCheck { expected_body: Some("x".into()), ..plain.clone() }),
        CheckKind::Http(HttpCheck { scheme: Scheme::Https, tls: tls.clone(), ..plain }),
        CheckKind::Redis(native.clone()),
        CheckKind::Redis(RedisCheck { tls: Some(tls), ..native }),
    ]
}

#[tokio::test]
#[ignore = "run by an_icmp_error_fails_and_a_missing_route_does_not"]
async fn behind_the_router_here() {
    let fails = |ip, words: &str| (ip, fail(format!("connect: {words}")));
    let mut rows = vec![(ipv4(1), pass()), (ipv6(1), pass())];
    for ip in [ipv4, ipv6] {
        rows.push(fails(ip(23), "refused"));
        rows.push((ip(10), inconclusive("connect: no route from this host")));
        rows.push((ip(11), inconclusive("connect: not allowed from this host")));
        rows.push((ip(12), inconclusive("connect: this host cannot reach this kind of address")));
    }
    // An address of this host's own subnet that no host has.
    rows.push(fails("198.51.100.77".parse().unwrap(), "host unreachable"));
    rows.push(fails("2001:db8:1::77".parse().unwrap(), "host unreachable"));
    for (last, words) in (FIRST..).zip(IPV4) {
        rows.extend(words.map(|words| fails(ipv4(last), words)));
    }
    rows.extend((FIRST..).zip(IPV6).map(|(last, words)| fails(ipv6(last), words)));

    // The router's kernel limits its ICMP messages, so these are probed once.
    let mut once = vec![fails(ipv4(20), "host unreachable"), fails(ipv4(21), "host unreachable")];
    once.push(fails(ipv6(21), "administratively prohibited (reported by a router)"));
    for ip in [ipv4(22), ipv6(20), ipv6(22)] {
        once.push(fails(ip, "network unreachable (reported by a router)"));
    }

    let mut probes = tokio::task::JoinSet::new();
    let each =
        rows.into_iter().flat_map(|row| kinds().into_iter().map(move |kind| (row.clone(), kind)));
    let once = once.into_iter().map(|row| (row, CheckKind::Tcp(tcp(PORT))));
    for ((ip, expected), kind) in each.chain(once) {
        probes.spawn(async move {
            let got = timed(&prober_for(kind.clone(), PATIENT, target(ip)), PATIENT).await;
            (ip, kind, got, expected)
        });
    }
    let mut wrong = Vec::new();
    while let Some(tried) = probes.join_next().await {
        let (ip, kind, got, expected) = tried.unwrap();
        // The server has neither TLS nor a text to send.
        let differs = |kind: &CheckKind| match kind {
            CheckKind::Tcp(tcp) => tcp.expect.is_some(),
            CheckKind::Http(http) => http.scheme == Scheme::Https || http.expected_body.is_some(),
            CheckKind::Exec(_) => false,
            // The server speaks no database's protocol.
            _ => true,
        };
        let connected = |got: &Verdict| !format!("{got:?}").contains("connect: ");
        if got != expected && !(expected == pass() && differs(&kind) && connected(&got)) {
            wrong.push(format!("{ip}: {got:?} instead of {expected:?} by {kind:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Runs the server behind the router, and the part of the router that the kernel does not play.
#[test]
#[ignore = "run by an_icmp_error_fails_and_a_missing_route_does_not"]
fn the_router_here() {
    for ip in [ipv4(1), ipv6(1)] {
        let listener = TcpListener::bind(SocketAddr::new(ip, PORT)).unwrap();
        thread::spawn(move || listener.incoming().for_each(|stream| drop(stream.map(serve))));
    }
    let threads = [
        play(Domain::IPV4, 0x0800, |packet| {
            let last = packet[19];
            let code = last.checked_sub(FIRST)?;
            let (kind, code) = if code < 16 { (3, code) } else { (code - 5, 0) };
            let address = Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]);
            // The IP header and the ports.
            (packet[16..19] == [203, 0, 113])
                .then(|| (address.into(), icmp(kind, code, &packet[..28])))
        }),
        play(Domain::IPV6, 0x86dd, |packet| {
            let last: u8 =
                format!("{:x}", u16::from_be_bytes([packet[38], packet[39]])).parse().ok()?;
            let code = last.checked_sub(FIRST)?;
            let (kind, code) = if code < 7 { (1, code) } else { (code - 4, 0) };
            let address: [u8; 16] = packet[8..24].try_into().unwrap();
            let beyond = packet[24..30] == [0x20, 0x01, 0x0d, 0xb8, 0, 2];
            beyond.then(|| (Ipv6Addr::from(address).into(), icmp(kind, code, packet)))
        }),
    ];
    println!("\nready");
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn serve(mut stream: std::net::TcpStream) {
    thread::spawn(move || {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    });
}

/// Answers each TCP packet of a family with the ICMP message that its address stands for.
fn play(
    domain: Domain,
    ether_type: u16,
    answer: impl Fn(&[u8]) -> Option<(IpAddr, Vec<u8>)> + Send + 'static,
) -> thread::JoinHandle<()> {
    let all = Protocol::from(i32::from(ether_type.to_be()));
    let mut packets = Socket::new(Domain::PACKET, Type::DGRAM, Some(all)).unwrap();
    let (protocol, header) = match domain {
        Domain::IPV4 => (Protocol::ICMPV4, 20),
        _ => (Protocol::ICMPV6, 40),
    };
    let out = Socket::new(domain, Type::RAW, Some(protocol)).unwrap();
    thread::spawn(move || {
        let mut packet = [0; 2048];
        loop {
            let length = packets.read(&mut packet).unwrap();
            let is_tcp = length >= header + 20 && packet[if header == 20 { 9 } else { 6 }] == 6;
            if let Some((to, words)) = is_tcp.then(|| answer(&packet[..length])).flatten() {
                out.send_to(&words, &SocketAddr::new(to, 0).into()).unwrap();
            }
        }
    })
}

/// Returns an ICMP message about a packet. The kernel computes the checksum of ICMPv6.
fn icmp(kind: u8, code: u8, about: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0, 0, 0, 0, 0], about].concat();
    let pairs = message
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = pairs.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    message[2..4].copy_from_slice(&(!sum as u16).to_be_bytes());
    message
}
