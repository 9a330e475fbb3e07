//! The daemon among hostile DNS servers: it checks all targets in time, and needs no more memory
//! and descriptors for it.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::daemon::{Daemon, eventually};
use super::in_own_network;
use super::name_server::{Mismatch, NameServer, Reply};

const TARGETS: usize = 300;
/// The names for each fault.
const NAMES: usize = 40;

/// Returns the faults of the server, each for names of its own.
fn faults() -> Vec<Reply> {
    let many = (0..500_u16).map(|n| {
        let [high, low] = n.to_be_bytes();
        std::net::IpAddr::from([203, 0, 112 + high, low])
    });
    let address = || Box::new(Reply::addresses(["198.18.9.9"], 0));
    vec![
        Reply::Silence,
        Reply::Code(2),
        Reply::NoSuchName,
        Reply::Garbage(vec![0xff; 4000]),
        Reply::Garbage(vec![0; 60_000]),
        Reply::Truncated(Box::new(Reply::Silence)),
        Reply::Truncated(Box::new(Reply::Garbage(vec![0xc0; 60_000]))),
        Reply::Truncated(Box::new(Reply::Addresses(many.collect(), 0))),
        Reply::TruncatedWithoutTcp,
        Reply::After(Mismatch::Id, address()),
        Reply::Late(Duration::from_millis(4900), address()),
        Reply::Turns(vec![vec![[198, 18, 9, 1].into()], vec![[198, 18, 9, 2].into()]], 0),
    ]
}

fn name(fault: usize, index: usize) -> String {
    format!("n{index}.f{fault}.example")
}

/// Writes a config of friendly targets, and of names with each fault.
fn config(port: u16, names: usize) -> TempDir {
    let check = "check: {tcp: {}, interval: 2s, timeout: 5s}";
    let database = |service: &str| {
        format!("- {{service: {service}, namespace: b, port: {port}, {check}, addresses: [")
    };
    let mut text = format!("databases:\n{}", database("friendly"));
    for index in 0..TARGETS {
        write!(text, "198.18.{}.{}, ", index / 250, index % 250 + 1).unwrap();
    }
    text.push_str("]}\n");
    for fault in 0..faults().len() {
        for index in 0..names {
            let (start, name) = (database(&format!("f{fault}-{index}")), name(fault, index));
            writeln!(text, "{start}{name}]}}").unwrap();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.yaml"), text).unwrap();
    folder
}

/// Serves connections, and closes them at once.
fn friendly() -> u16 {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.incoming().for_each(drop));
    port
}

/// Answers each query with a flood of messages that do not fit it.
fn flood() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((_, client)) = socket.recv_from(&mut query) {
            (0..50).for_each(|_| drop(socket.send_to(&[0x80; 1200], client)));
        }
    });
    address
}

/// Returns the fewest descriptors of two seconds: those of questions come and go.
fn fewest_descriptors(daemon: &Daemon) -> usize {
    let counts = (0..200).map(|_| {
        thread::sleep(Duration::from_millis(10));
        daemon.descriptors()
    });
    counts.min().unwrap()
}

/// Returns the number of tries that passed of all friendly targets.
fn passes(daemon: &Daemon) -> f64 {
    daemon.metric("checks_total", "service=\"friendly\"")
}

/// Waits until checks have passed as often as in ten seconds, without one that starts late for four
/// seconds. A busy machine has calmer times, but servers that delay checks do so again and again.
fn assert_punctual(daemon: &Daemon) {
    let before = passes(daemon);
    let start = Instant::now();
    thread::sleep(Duration::from_secs(10));
    let expected = start.elapsed().as_secs_f64() / 2.0 * TARGETS as f64;
    let passed = passes(daemon) - before;
    assert!(passed > 0.9 * expected, "{passed} of {expected}");
    eventually("four seconds in which no check starts late", || {
        let late = daemon.metric("checks_late_total", "");
        thread::sleep(Duration::from_secs(4));
        (daemon.metric("checks_late_total", "") == late).then_some(())
    });
    for result in ["fail", "inconclusive"] {
        let labels = format!("service=\"friendly\",address=\"198.18.0.1\",result=\"{result}\"");
        assert_eq!(daemon.metric("checks_total", &labels), 0.0);
    }
}

#[test]
fn hostile_dns_delays_nobody() {
    in_own_network("hostile_dns::hostile_dns_here");
}

#[test]
#[ignore = "run by hostile_dns_delays_nobody"]
fn hostile_dns_here() {
    let port = friendly();
    let without_names = config(port, 0);
    let daemon = Daemon::start(&[], &without_names.path().join("config.yaml"), &[]);
    assert_punctual(&daemon);
    let memory_without = daemon.peak_memory();
    drop(daemon);

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dns = runtime.block_on(NameServer::start());
    for (fault, reply) in faults().into_iter().enumerate() {
        (0..NAMES).for_each(|index| dns.set(&name(fault, index), reply.clone()));
    }
    let servers = [dns.address.to_string(), flood().to_string()];
    let flags = servers.iter().flat_map(|server| ["--dns-server", server]);
    let folder = config(port, NAMES);
    let file = folder.path().join("config.yaml");
    let mut daemon = Daemon::start(&[], &file, &flags.collect::<Vec<_>>());
    let results = ["answer", "nxdomain", "timeout", "truncated", "garbage"];
    eventually("each fault has its result", || {
        let has = |result| daemon.metric("dns_lookups_total", &format!("\"{result}\"")) > 0.0;
        results.into_iter().all(has).then_some(())
    });
    assert_punctual(&daemon);
    let before = fewest_descriptors(&daemon);
    assert_punctual(&daemon);
    // A DNS server without power.
    dns.fail_all(Reply::Silence);
    assert_punctual(&daemon);
    let after = fewest_descriptors(&daemon);
    assert!(after <= before + 40, "{before} descriptors at first, {after} later");
    let memory = daemon.peak_memory();
    println!("{before} then {after} descriptors, {memory_without} then {memory} bytes");
    assert!(memory < memory_without + (24 << 20), "{memory} bytes, {memory_without} without names");
    assert!(daemon.terminate().is_some_and(|time| time < Duration::from_secs(10)));
}
