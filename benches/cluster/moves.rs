//! The figure of names: the time from the moment when DNS has a move to the API's answer to the
//! write, through a CoreDNS with the cache that kubeadm sets up.
//!
//! Neither time is the daemon's own. The first is when CoreDNS asks the name server again, which it
//! does when the TTL that it told is over and the daemon asks. The second is when the API server's
//! answer to the PATCH passes a proxy. The first check of the new address lies between them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::figures::Times;
use super::fixture::{self, Fixture, TIMEOUT};
use super::report::Row;
use super::targets::Targets;
use super::write_recorder::{Write, WriteRecorder};
use crate::Scale;
use crate::support::coredns::CoreDns;
use crate::support::name_server::Reply;
use crate::support::{NameServer, addresses, eventually};

const PORT: u16 = 8081;

/// The TTL of RDS. CoreDNS tells it as it is.
const TTL: u32 = 5;

/// The time between two moves. It divides neither the TTL nor a second, so that they come in any
/// phase.
const MOVE_INTERVAL: Duration = Duration::from_millis(170);

pub(crate) async fn measure(fixture: &Fixture, scale: Scale) -> Vec<Row> {
    let services = if scale == Scale::Smoke { 5 } else { 100 };
    let (namespace, token) = fixture.services("moves", services, PORT).await;
    let _targets = Targets::start(PORT).await;
    let upstream = addresses::allocate_one();
    let dns = NameServer::start_on(SocketAddr::from((upstream, 53))).await;
    let coredns = CoreDns::start(upstream).await;
    let ips: Vec<Vec<IpAddr>> = (0..services).map(|_| addresses::allocate(2)).collect();
    for (index, ips) in ips.iter().enumerate() {
        dns.set(&name(index), Reply::addresses([ips[0]], TTL));
    }
    let recorder = WriteRecorder::start(&fixture.plane).await;
    let kubeconfig = fixture.plane.kubeconfig_at(&recorder.url, &token);
    let dns_server = coredns.ip.to_string();
    let arguments = ["--dns-server", &dns_server];
    let _daemon = fixture.daemon(&config(&namespace.name, services), &kubeconfig, &arguments).await;
    fixture::all_have(&namespace, services, 1).await;
    recorder.take();
    dns.take_queries();

    let mut pace = tokio::time::interval(MOVE_INTERVAL);
    let mut moved_at = Vec::new();
    for (index, ips) in ips.iter().enumerate() {
        pace.tick().await;
        moved_at.push(Instant::now());
        dns.set(&name(index), Reply::addresses([ips[1]], TTL));
    }
    eventually(TIMEOUT, "a write for each Service", async || {
        let count = recorder.count();
        if count >= services { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
    let moves = moves(&moved_at, &dns, &recorder);

    let beyond = Times::of(moves.iter().map(|moved| moved.answered - moved.asked));
    let told = Times::of(moves.iter().zip(&moved_at).map(|(moved, at)| moved.asked - *at));
    let detail = format!("{} moves, first check included: {}", beyond.count(), beyond.words());
    let goal = |goal: f64| (scale == Scale::Full).then_some(goal);
    let row = |name: &str, value: f64, unit, goal, detail: String| {
        Row::at_most(goal, format!("names: {name}"), value, unit, detail)
    };
    vec![
        row(
            "DNS has a move to the API's answer, p50",
            beyond.percentile(50),
            "ms",
            goal(300.0),
            detail.clone(),
        ),
        row(
            "DNS has a move to the API's answer, p99",
            beyond.percentile(99),
            "ms",
            goal(1000.0),
            detail,
        ),
        row(
            "until DNS is asked for a move, at most",
            told.max() / 1000.0,
            "s",
            goal(f64::from(TTL) + 1.0),
            format!("through CoreDNS, with a TTL of {TTL} s: {}", told.words()),
        ),
    ]
}

fn name(index: usize) -> String {
    format!("primary-{index}.corp.example")
}

fn config(namespace: &str, services: usize) -> String {
    let mut config = format!(
        "defaults:
  namespace: {namespace}
  check: {{tcp: {{}}, interval: 1s, timeout: 1s}}
databases:
"
    );
    for index in 0..services {
        config += &format!(
            "- {{service: {}, port: {PORT}, addresses: [{}]}}\n",
            fixture::service(index),
            name(index)
        );
    }
    config
}

/// A move of a primary.
struct Move {
    /// The time when the name server was asked first after it.
    asked: Instant,
    /// The time when the answer to the write passed the proxy.
    answered: Instant,
}

fn moves(moved_at: &[Instant], dns: &NameServer, recorder: &WriteRecorder) -> Vec<Move> {
    let mut asked: HashMap<String, Vec<Instant>> = HashMap::new();
    for query in dns.take_queries() {
        asked.entry(query.name).or_default().push(query.at);
    }
    let mut writes: HashMap<String, Vec<Write>> = HashMap::new();
    for write in recorder.take() {
        writes.entry(write.service.clone()).or_default().push(write);
    }
    let of_service = |(index, moved_at): (usize, &Instant)| {
        let writes = writes.get(&fixture::service(index)).map(Vec::as_slice).unwrap_or_default();
        let [write] = writes else { panic!("one write for one move, not {writes:?}") };
        assert_eq!(write.status, 200, "{write:?}");
        let mut asked = asked.get(&name(index)).into_iter().flatten();
        let asked = asked.find(|at| *at >= moved_at).expect("a write has a question before it");
        Move { asked: *asked, answered: write.answered }
    };
    moved_at.iter().enumerate().map(of_service).collect()
}
