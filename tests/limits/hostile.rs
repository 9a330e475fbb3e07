//! The daemon among hostile servers: it checks all other targets in time, serves its pages, and
//! ends on a signal.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::daemon::{Daemon, eventually, program};
use super::hostile_http::{self, Row, TEXT, Then};
use super::in_own_network;

/// A config that grows by databases, each with addresses of its own.
pub(crate) struct Config {
    text: String,
    addresses: usize,
}

impl Config {
    pub(crate) fn new() -> Self {
        Self { text: "databases:\n".to_owned(), addresses: 0 }
    }

    pub(crate) fn add(&mut self, service: &str, port: u16, addresses: usize, check: &str) {
        writeln!(
            self.text,
            "- service: {service}\n  namespace: b\n  port: {port}\n  check: {check}\n  addresses:"
        )
        .unwrap();
        for index in self.addresses..self.addresses + addresses {
            writeln!(self.text, "  - 198.18.{}.{}", index / 250, index % 250 + 1).unwrap();
        }
        self.addresses += addresses;
    }

    pub(crate) fn write(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.yaml"), &self.text).unwrap();
        folder
    }
}

/// Serves each connection on a thread of its own. Returns the port.
pub(crate) fn server(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, serve) = (stream.unwrap(), serve.clone());
            thread::spawn(move || serve(stream));
        }
    });
    port
}

fn friendly() -> u16 {
    server(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nup\n");
    })
}

fn hostile(row: &Row) -> u16 {
    let head = row.head;
    let (words, pause) = match row.then {
        Then::Endless(words) => (words.repeat(4096), None),
        Then::Slow(words) => (words.to_owned(), Some(Duration::from_millis(5))),
        Then::Silence => (String::new(), None),
    };
    server(move |mut stream| {
        let _ = stream.set_nodelay(true);
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(head.as_bytes());
        while !words.is_empty() && stream.write_all(words.as_bytes()).is_ok() {
            pause.into_iter().for_each(thread::sleep);
        }
        // Until the client closes.
        let _ = stream.read(&mut [0; 1]);
    })
}

/// Returns a field of the daemon's `/proc/PID/status`, in KiB.
pub(crate) fn memory(daemon: &Daemon, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn descriptors(daemon: &Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.id())).unwrap().count()
}

/// Returns the probes of each target of a service with this result.
pub(crate) fn probes(daemon: &Daemon, service: &str, result: &str) -> Vec<f64> {
    let page = daemon.get("/metrics");
    let (service, result) = (format!("service=\"{service}\""), format!("result=\"{result}\""));
    let of_service =
        page.lines().filter(|line| line.starts_with("external_endpoints_checks_total{"));
    let wanted = of_service.filter(|line| line.contains(&service) && line.contains(&result));
    wanted.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
}

/// Returns true once each of this many targets has passed this often.
pub(crate) fn have_passed(daemon: &Daemon, service: &str, targets: usize, times: f64) -> bool {
    let probes = probes(daemon, service, "pass");
    probes.len() == targets && probes.iter().all(|passed| *passed >= times)
}

pub(crate) fn assert_is_well(daemon: &Daemon) {
    let health = daemon.get("/healthz");
    assert!(health.starts_with("HTTP/1.1 200 "), "{health}");
}

#[test]
fn interim_answers_without_end_delay_no_other_target() {
    in_own_network("hostile::interim_answers_here");
}

#[test]
#[ignore = "run by interim_answers_without_end_delay_no_other_target"]
fn interim_answers_here() {
    let endless = hostile_http::rows().into_iter().find(|row| row.name == "endless 100").unwrap();
    let mut config = Config::new();
    config.add("hostile", hostile(&endless), 5, "{http: {}, interval: 100ms, timeout: 1s}");
    config.add("friendly", friendly(), 100, "{http: {}, interval: 1s, timeout: 5s}");
    let folder = config.write();
    let file = folder.path().join("config.yaml");
    let mut daemon = Daemon::start(&[], &file, &[]);
    eventually("the friendly ones have passed five times", || {
        assert_is_well(&daemon);
        have_passed(&daemon, "friendly", 100, 5.0).then_some(())
    });
    eventually("the hostile ones have failed", || {
        let failed = probes(&daemon, "hostile", "fail");
        (failed.len() == 5 && failed.iter().all(|probes| *probes >= 5.0)).then_some(())
    });
    let ended = daemon.terminate();
    assert!(
        ended.is_some_and(|time| time < Duration::from_secs(10)),
        "SIGTERM ended it after {ended:?}"
    );

    // A single probe of them ends too.
    let output = program(&["timeout", "30"]).arg("probe").arg(&file).output().unwrap();
    let table = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        (table.matches(" pass ").count(), table.matches(" fail ").count()),
        (100, 5),
        "{table}"
    );
}

#[test]
fn all_hostile_servers_at_once_delay_no_other_target() {
    in_own_network("hostile::all_at_once_here");
}

#[test]
#[ignore = "run by all_hostile_servers_at_once_delay_no_other_target"]
fn all_at_once_here() {
    const FRIENDLY: usize = 300;
    let when = "interval: 2s, timeout: 1s";
    let mut config = Config::new();
    for (index, row) in hostile_http::rows().iter().enumerate() {
        let port = hostile(row);
        config.add(&format!("hostile-{index}-status"), port, 1, &format!("{{http: {{}}, {when}}}"));
        config.add(
            &format!("hostile-{index}-body"),
            port,
            1,
            &format!("{{http: {{expectedBody: {TEXT}}}, {when}}}"),
        );
    }
    let port = friendly();
    config.add("friendly-http", port, FRIENDLY, "{http: {}, interval: 2s, timeout: 10s}");
    config.add(
        "friendly-body",
        port,
        FRIENDLY,
        "{http: {expectedBody: up}, interval: 2s, timeout: 10s}",
    );
    config.add("friendly-tcp", port, FRIENDLY, "{tcp: {}, interval: 2s, timeout: 10s}");
    let services = ["friendly-http", "friendly-body", "friendly-tcp"];
    let folder = config.write();
    let mut daemon = Daemon::start(&[], &folder.path().join("config.yaml"), &[]);
    let passed = |times: f64| {
        eventually("the friendly ones have passed so often", || {
            assert_is_well(&daemon);
            services
                .iter()
                .all(|service| have_passed(&daemon, service, FRIENDLY, times))
                .then_some(())
        });
    };
    passed(3.0);
    let before = fewest_descriptors(&daemon);
    passed(10.0);
    let after = fewest_descriptors(&daemon);

    for service in services {
        for result in ["fail", "inconclusive"] {
            assert_eq!(
                probes(&daemon, service, result).iter().sum::<f64>(),
                0.0,
                "{service} {result}"
            );
        }
    }
    for (index, row) in hostile_http::rows().iter().enumerate() {
        for (kind, expected) in [("status", row.status), ("body", row.body)] {
            let passed: f64 =
                probes(&daemon, &format!("hostile-{index}-{kind}"), "pass").iter().sum();
            assert!(
                expected.is_ok() || passed == 0.0,
                "{} passed {passed} times by its {kind}",
                row.name
            );
        }
    }
    // Each hostile server is probed twice in this time. A busy machine has calmer times, but
    // servers that delay others do so again and again.
    eventually("four seconds in which no probe starts late", || {
        let late = daemon.metric("checks_late_total", "");
        thread::sleep(Duration::from_secs(4));
        (daemon.metric("checks_late_total", "") == late).then_some(())
    });
    assert!(after <= before + 10, "{before} descriptors at first, {after} later");
    let peak = memory(&daemon, "VmHWM:");
    assert!(peak < 64 << 10, "{peak} KiB");
    println!("{before} then {after} descriptors, {peak} KiB");
    assert!(daemon.terminate().is_some(), "SIGTERM does not end it");
}

/// Returns the fewest descriptors of one round: those of probes come and go, and a leak stays.
fn fewest_descriptors(daemon: &Daemon) -> usize {
    let looks = (0..200).map(|_| {
        thread::sleep(Duration::from_millis(10));
        descriptors(daemon)
    });
    looks.min().unwrap()
}
