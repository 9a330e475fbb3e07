//! The daemon on a host with few resources (descriptors, local ports, commands), among hostile
//! targets, with a log that no reader takes, and with many clients of its pages.

#![allow(clippy::disallowed_methods, reason = "a test that waits needs a clock")]

#[path = "limits/admin.rs"]
mod admin;
#[path = "limits/commands.rs"]
mod commands;
#[path = "limits/daemon.rs"]
mod daemon;
#[path = "limits/hostile.rs"]
mod hostile;
#[path = "limits/hostile_dns.rs"]
mod hostile_dns;
#[path = "support/hostile_http.rs"]
mod hostile_http;
#[path = "limits/hostile_native.rs"]
mod hostile_native;
#[path = "limits/log.rs"]
mod log;
#[path = "support/name_server.rs"]
mod name_server;
#[path = "limits/signals.rs"]
mod signals;
#[path = "limits/watchdog.rs"]
mod watchdog;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use daemon::{Daemon, eventually, program};
use tempfile::TempDir;

/// Runs an ignored test in a network namespace of its own, where all of 198.18.0.0/15 is local.
pub fn in_own_network(test: &str) {
    let network = "ip link set lo up && ip route add local 198.18.0.0/15 dev lo && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", network, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}

/// Writes a config of one database with this many addresses, in a folder of its own.
pub fn config(addresses: usize, port: u16, check: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut text = format!(
        "databases:\n- service: a\n  namespace: b\n  port: {port}\n  check: {check}\n  addresses:\n"
    );
    for index in 0..addresses {
        writeln!(text, "  - 198.18.{}.{}", index / 250, index % 250 + 1).unwrap();
    }
    fs::write(folder.path().join("config.yaml"), text).unwrap();
    folder
}

/// Serves HTTP on all addresses, so slowly that many probes are in flight at once.
pub fn slow_server() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                thread::sleep(Duration::from_millis(100));
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            });
        }
    });
    port
}

const TARGETS: usize = 300;

#[test]
fn with_few_descriptors_all_targets_are_still_checked() {
    in_own_network("with_few_descriptors_here");
}

#[test]
#[ignore = "run by with_few_descriptors_all_targets_are_still_checked"]
fn with_few_descriptors_here() {
    let folder = config(TARGETS, slow_server(), "{http: {}, interval: 1s, timeout: 10s}");
    let file = folder.path().join("config.yaml");
    let few = ["prlimit", "--nofile=64:64"];

    let output = program(&few).arg("probe").arg(&file).output().unwrap();
    let (table, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(table.matches(" pass ").count(), TARGETS, "{table}\n{errors}");
    assert!(output.status.success());

    let daemon = Daemon::start(&few, &file, &[]);
    // Three rounds. 300 probes a second need 30 in flight, for which there are no descriptors.
    eventually("each is tried", || {
        (daemon.metric("checks_total", "pass") >= 3.0 * TARGETS as f64).then_some(())
    });
    assert_eq!(daemon.metric("checks_total", "fail"), 0.0);
    assert_eq!(daemon.metric("checks_total", "inconclusive"), 0.0);
    assert_eq!(daemon.metric("target_healthy", ""), TARGETS as f64);
    let (sum, count) = (
        daemon.metric("check_start_delay_seconds_sum", ""),
        daemon.metric("check_start_delay_seconds_count", ""),
    );
    assert!(
        sum / count > 0.1,
        "probes started {} s late on average: nothing had to wait",
        sum / count
    );
}

#[test]
fn with_few_descriptors_a_hanging_database_delays_no_other() {
    in_own_network("with_a_hanging_database_here");
}

#[test]
#[ignore = "run by with_few_descriptors_a_hanging_database_delays_no_other"]
fn with_a_hanging_database_here() {
    // The server accepts and sends nothing.
    let silent = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let folder = config(TARGETS, port, "{tcp: {expect: hello}, interval: 5s, timeout: 5s}");
    let file = folder.path().join("config.yaml");
    let mut text = fs::read_to_string(&file).unwrap();
    write!(
        text,
        "- {{service: lives, namespace: b, port: {port}, addresses: [198.19.0.1], \
         check: {{tcp: {{accept: true}}, interval: 1s, timeout: 1s}}}}"
    )
    .unwrap();
    fs::write(&file, text).unwrap();
    let daemon = Daemon::start(&["prlimit", "--nofile=64:64"], &file, &[]);
    let probes = |service: &str| daemon.metric("checks_total", &format!("service=\"{service}\""));
    eventually("all places hang", || (probes("a") >= 1.0).then_some(()));
    let (start, before) = (Instant::now(), probes("lives"));
    eventually("the other is probed ten times", || {
        (probes("lives") - before >= 10.0).then_some(())
    });
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?} for ten probes of one a second",
        start.elapsed()
    );
}

#[test]
fn the_soft_limit_is_raised_but_not_for_commands() {
    let check =
        "{exec: {command: [/bin/sh, -c, 'test $$(ulimit -n) = 64']}, interval: 1s, timeout: 10s}";
    let folder = config(1, 1, check);
    let daemon =
        Daemon::start(&["prlimit", "--nofile=64:512"], &folder.path().join("config.yaml"), &[]);
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.id())).unwrap();
    let files: Vec<&str> = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap()
        .split(' ')
        .collect();
    assert_eq!(files.iter().filter(|word| **word == "512").count(), 2, "{limits}");
    eventually("a command has run", || {
        (daemon.metric("check_start_delay_seconds_count", "") >= 1.0).then_some(())
    });
    assert!(daemon.metric("checks_total", "pass") >= 1.0, "{}", daemon.get("/api/v1/status"));
}

#[test]
fn without_a_local_port_a_probe_is_inconclusive() {
    in_own_network("without_local_ports_here");
}

#[test]
#[ignore = "run by without_a_local_port_a_probe_is_inconclusive"]
fn without_local_ports_here() {
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40003").unwrap();
    let listener = TcpListener::bind("0.0.0.0:9000").unwrap();
    let mut all: Vec<TcpStream> =
        (0..4).map(|_| TcpStream::connect("198.18.0.1:9000").unwrap()).collect();
    for check in ["{tcp: {}}", "{tcp: {accept: true}}", "{http: {}}", "{http: {scheme: https}}"] {
        let folder = config(1, 9000, check);
        let probe = || {
            let output =
                program(&[]).arg("probe").arg(folder.path().join("config.yaml")).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let table = probe();
        let why = "connect: this host has no free local port";
        assert!(table.contains(" inconclusive ") && table.contains(why), "{check}: {table}");
    }
    // The ports were the only reason.
    let last = socket2::SockRef::from(&all.pop().unwrap()).set_linger(Some(Duration::ZERO));
    last.unwrap();
    let folder = config(1, 9000, "{tcp: {}}");
    let output = program(&[]).arg("probe").arg(folder.path().join("config.yaml")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    drop(listener);
}

#[test]
fn commands_that_wait_for_their_turn_keep_their_timeout() {
    const TARGETS: usize = 100;
    let places = tempfile::tempdir().unwrap();
    let (inside, seen) = (places.path().join("inside"), places.path().join("seen"));
    fs::create_dir(&inside).unwrap();
    let script = format!(
        "mkdir {0}/$$$$; ls {0} | wc -l >> {1}; sleep 0.1; rmdir {0}/$$$$",
        inside.display(),
        seen.display()
    );
    // Five seconds of work a round: most commands wait for longer than their timeout.
    let folder = config(
        TARGETS,
        1,
        &format!("{{exec: {{command: [/bin/sh, -c, '{script}']}}, interval: 2s, timeout: 2s}}"),
    );
    let daemon = Daemon::start(&[], &folder.path().join("config.yaml"), &["--max-exec", "2"]);
    let late = || {
        let all = daemon.metric("check_start_delay_seconds_count", "");
        all - daemon.metric("check_start_delay_seconds_bucket", "le=\"2.5\"")
    };
    eventually("many are done", || {
        (daemon.metric("checks_total", "pass") >= 1.5 * TARGETS as f64).then_some(())
    });
    assert!(late() > 0.0, "nothing waited for longer than the time-out");
    assert!(daemon.metric("checks_late_total", "") >= late());
    eventually("the log names the limit", || daemon.log().contains("--max-exec").then_some(()));
    let probes = daemon.series("checks_total", "pass");
    let (least, most) = (
        probes.iter().copied().fold(f64::MAX, f64::min),
        probes.iter().copied().fold(0.0, f64::max),
    );
    assert!(
        probes.len() == TARGETS && most - least <= 1.0,
        "some were tried more often than others: {probes:?}"
    );
    assert_eq!(daemon.metric("checks_total", "fail"), 0.0, "{}", daemon.get("/api/v1/status"));
    assert_eq!(
        daemon.metric("checks_total", "inconclusive"),
        0.0,
        "{}",
        daemon.get("/api/v1/status")
    );
    let seen = fs::read_to_string(seen).unwrap();
    let counts: Vec<u32> = seen.lines().map(|line| line.trim().parse().unwrap()).collect();
    assert_eq!(counts.iter().max(), Some(&2), "{counts:?}");
}
