//! The memory figure: a daemon that checks thousands of targets with its cluster client loaded, and
//! the time of its pages.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::figures::{Times, ms};
use super::fixture::{Fixture, TIMEOUT};
use super::report::Row;
use crate::Scale;
use crate::support::daemon::log_field;
use crate::support::{Daemon, Database, addresses, blocking, eventually};

const PORT: u16 = 3308;
const EACH: usize = 3;

/// The numbers of targets, with the memory that they may take at most, in MiB.
const SIZES: [(usize, f64); 3] = [(1000, 12.0), (5000, 22.0), (10_000, 35.0)];

pub(crate) async fn measure(fixture: &Fixture, scale: Scale) -> Vec<Row> {
    let _server = Database::start(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT).await;
    let mut rows = Vec::new();
    let sizes = if scale == Scale::Smoke {
        vec![(300, None)]
    } else {
        SIZES.map(|(targets, goal)| (targets, Some(goal))).to_vec()
    };
    let rounds = if scale == Scale::Smoke { 3.0 } else { 30.0 };
    for (targets, goal) in sizes {
        rows.extend(measure_one(fixture, targets, goal, rounds).await);
    }
    rows
}

async fn measure_one(
    fixture: &Fixture,
    targets: usize,
    goal: Option<f64>,
    rounds: f64,
) -> Vec<Row> {
    let namespace = fixture.plane.namespace("memory").await;
    let daemon = fixture
        .daemon(&config(&namespace.name, targets), &fixture.plane.kubeconfig(), &["--dry-run"])
        .await;
    // Fetching a page would allocate memory, so only time tells that there were enough rounds. The
    // count that follows checks it.
    tokio::time::sleep(Duration::from_secs_f64(rounds)).await;
    let before = resident(daemon.pid());
    let shares = shares(daemon.pid());
    let metrics_time = timed(&daemon, "/metrics").await;
    let status_time = timed(&daemon, "/api/v1/status").await;
    let after = resident(daemon.pid());
    let enough = targets as f64 * (rounds - 2.0).max(1.0);
    eventually(TIMEOUT, "the targets are checked", async || {
        let passed = daemon
            .metric("external_endpoints_checks_total", &[("result", "pass")])
            .await
            .unwrap_or_default();
        if passed >= enough { Ok(()) } else { Err(format!("{passed} of {enough}")) }
    })
    .await;
    let mut pages = Vec::new();
    for (path, first) in [("/metrics", metrics_time), ("/api/v1/status", status_time)] {
        pages.push((path, first, many(&daemon, path).await));
    }

    let detail = format!("VmRSS after {rounds} s of checks: {shares}");
    let mut rows = vec![
        Row::at_most(goal, format!("memory, {targets} targets"), before, "MiB", detail),
        Row::at_most(
            goal,
            format!("memory, {targets} targets, after a scrape of each page"),
            after,
            "MiB",
            format!("{:.1} more", after - before),
        ),
    ];
    for (path, first, times) in pages {
        let detail =
            format!("the first {:.0} ms; of {} more: {}", ms(first), times.count(), times.words());
        let goal = goal.map(|_| 50.0);
        rows.push(Row::at_most(
            goal,
            format!("{path}, {targets} targets, p50"),
            times.percentile(50),
            "ms",
            detail,
        ));
    }
    rows
}

fn config(namespace: &str, targets: usize) -> String {
    let mut config = format!(
        "defaults:
  namespace: {namespace}
  check: {{tcp: {{}}, interval: 1s, timeout: 1s}}
databases:
"
    );
    let ips: Vec<String> = addresses::allocate(targets).iter().map(IpAddr::to_string).collect();
    for (index, ips) in ips.chunks(EACH).enumerate() {
        config +=
            &format!("- {{service: db-{index}, port: {PORT}, addresses: [{}]}}\n", ips.join(", "));
    }
    config
}

/// Returns the time of a page from the connection to its last byte, for a client that discards it.
async fn timed(daemon: &Daemon, path: &'static str) -> Duration {
    let address = admin(daemon);
    blocking(move || {
        let started = Instant::now();
        let mut stream = TcpStream::connect(address).expect("the admin port listens");
        let request =
            format!("GET {path} HTTP/1.0\r\nhost: bench\r\naccept-encoding: gzip\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("the daemon reads");
        let (mut buffer, mut head) = (vec![0; 256 << 10], None);
        loop {
            let count = stream.read(&mut buffer).expect("the daemon answers");
            if count == 0 {
                break;
            }
            head.get_or_insert_with(|| {
                String::from_utf8_lossy(&buffer[..count.min(12)]).into_owned()
            });
        }
        let took = started.elapsed();
        assert!(head.as_deref().is_some_and(|head| head.ends_with(" 200")), "{path}: {head:?}");
        took
    })
    .await
}

/// Returns the address of its pages, from its log.
fn admin(daemon: &Daemon) -> SocketAddr {
    let logs = daemon.logs();
    let line = logs
        .iter()
        .find(|line| log_field(line, "message") == Some("admin listening"))
        .expect("it listens");
    log_field(line, "address").and_then(|address| address.parse().ok()).expect("an address")
}

async fn many(daemon: &Daemon, path: &'static str) -> Times {
    let mut times = Vec::new();
    for _ in 0..10 {
        times.push(timed(daemon, path).await);
    }
    Times::of(times)
}

/// Returns the resident memory of a process in MiB.
pub(crate) fn resident(pid: u32) -> f64 {
    of_process(pid, "VmRSS") / 1024.0
}

/// Describes the kinds of resident memory and the number of threads.
fn shares(pid: u32) -> String {
    format!(
        "{:.1} anonymous, {:.1} of files; {} threads",
        of_process(pid, "RssAnon") / 1024.0,
        of_process(pid, "RssFile") / 1024.0,
        of_process(pid, "Threads")
    )
}

fn of_process(pid: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon runs");
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next());
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} of {pid}"))
}
