//! The check of MongoDB against a server that speaks its protocol, over TLS too, and against the
//! answers of other states. No mongod can be had from a package registry: FerretDB stands in for
//! one.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use external_endpoints::config::{CheckKind, MongodbCheck, Role};
use external_endpoints::health::Verdict;
use external_endpoints::probe::Prober;
use futures::future::join_all;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::binaries::{self, Binaries};
use crate::certificates::*;
use crate::fixtures::*;
use crate::hostile_native::{self, Words};
use crate::servers::{Database, time_waits};

pub(crate) fn mongodb(port: u16) -> MongodbCheck {
    MongodbCheck { port, role: Role::Any, max_lag: None, tls: None }
}

fn of_role(port: u16, role: Role) -> MongodbCheck {
    MongodbCheck { role, ..mongodb(port) }
}

async fn probe(check: &MongodbCheck) -> Verdict {
    probe_once(CheckKind::Mongodb(check.clone()), PATIENT).await
}

/// Returns the path of a binary that the script of the control plane builds.
pub(crate) fn built(variable: &str, name: &str) -> PathBuf {
    static BUILT: OnceLock<Vec<(String, String)>> = OnceLock::new();
    let built = BUILT.get_or_init(|| binaries::build(Binaries::All).unwrap());
    let folder = built.iter().find(|(name, _)| name == variable);
    PathBuf::from(&folder.unwrap_or_else(|| panic!("{variable} is not printed")).1).join(name)
}

async fn start() -> Database {
    let program = built("EXTERNAL_ENDPOINTS_STAND_INS", "ferretdb");
    let folder = tempfile::tempdir().unwrap();
    // It runs as this user, because the cache of binaries is closed to others.
    let user = if rustix::process::geteuid().is_root() { "root" } else { "" };
    let server = Database::start(&program, user, folder, |folder, port| {
        vec![format!("127.0.0.1:{port}"), folder.display().to_string()]
    })
    .await;
    expect_verdict(CheckKind::Mongodb(mongodb(server.port)), pass()).await;
    server
}

#[tokio::test]
async fn a_standalone_server_is_a_primary() {
    let server = start().await;
    let primary = of_role(server.port, Role::Primary);
    let plain = prober(CheckKind::Mongodb(primary.clone()), PATIENT);
    assert!(plain.fast_check().is_some(), "it needs no task");
    assert_eq!(plain.probe().await, pass());
    assert_eq!(plain.observation().unwrap().to_string(), "primary, MongoDB 7.0 protocol");
    assert!(plain.observation().unwrap().note.is_some_and(|note| note.contains("systemLog.quiet")));
    let verdict = probe(&of_role(server.port, Role::Replica)).await;
    assert_eq!(verdict, fail("role: primary, not replica"));

    let authority = Authority::new();
    let acceptor = acceptor(&authority.sign(&["127.0.0.1"]), Clients::All, ALL, &[]);
    let front = forward_to(server.port).await.in_tls(acceptor).await;
    let secure = MongodbCheck { port: front.port, tls: Some(authority.trusted()), ..primary };
    let secure = prober(CheckKind::Mongodb(secure), PATIENT);
    assert_eq!(secure.probe().await, pass());
    assert_eq!(secure.observation(), plain.observation());
}

/// Starts a server that passes connections on.
pub(crate) async fn forward_to(port: u16) -> Server {
    Server::start(move |mut outer| async move {
        let mut inner = TcpStream::connect((LOCAL, port)).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
    })
    .await
}

#[tokio::test]
async fn a_stopped_server_fails_and_comes_back() {
    let server = start().await;
    let check = CheckKind::Mongodb(of_role(server.port, Role::Primary));
    server.signal(Signal::STOP);
    // A busy machine stops the threads of the server a little later.
    eventually_async("the server is stopped", async || {
        probe_once(check.clone(), SHORT).await == fail("hello: no answer in 500ms")
    })
    .await;
    server.signal(Signal::CONT);
    expect_verdict(check, pass()).await;
}

#[tokio::test]
async fn a_thousand_probes_leave_no_connection() {
    let server = start().await;
    let check = CheckKind::Mongodb(mongodb(server.port));
    let probers: Vec<Prober> = (0..16).map(|_| prober(check.clone(), PATIENT)).collect();
    let logged = |words: &str| server.log().matches(words).count();
    let started = logged("Connection started");
    for _ in 0..63 {
        for verdict in join_all(probers.iter().map(Prober::probe)).await {
            assert_eq!(verdict, pass());
        }
    }
    // Each connection is logged, as a mongod does it, and each has ended.
    eventually("all are logged", || logged("Connection started") >= started + 16 * 63).await;
    eventually("all have ended", || logged("Connection started") == logged("Connection stopped"))
        .await;
    // FerretDB stumbles over some clients that close right after an answer.
    let warnings = logged("WARN") - logged("WARN Failed to set deadline");
    assert_eq!(warnings + logged("ERROR") + logged("reset"), 0, "{}", server.log());
    // A FIN and a reset leave some where the server's FIN comes in between, as on one host.
    let waits = time_waits(server.port);
    assert!(waits <= 16 * 63 / 2, "{waits}");
}

/// Returns a message that answers a request with these fields, each a kind, a name and a value.
fn answer(request: i32, fields: &[&[u8]]) -> Vec<u8> {
    let fields = fields.concat();
    let document = [&(fields.len() as i32 + 5).to_le_bytes()[..], &fields, &[0]].concat();
    let header = [document.len() as i32 + 21, 7, request, 2013, 0];
    let header = header.iter().flat_map(|word| word.to_le_bytes());
    header.chain([0]).chain(document).collect()
}

const OK: &[u8] = b"\x01ok\0\0\0\0\0\0\0\xf0\x3f";
const NOT_OK: &[u8] = b"\x01ok\0\0\0\0\0\0\0\0\0";

#[tokio::test]
async fn a_server_before_hello_is_asked_for_is_master() {
    let old = Server::start(|mut stream| async move {
        let mut request = [0; 200];
        while let Ok(length @ 1..) = stream.read(&mut request).await {
            let id = request[4].into();
            let asks_hello = request[..length].windows(5).any(|word| word == b"hello");
            let answer = match asks_hello {
                true => answer(id, &[NOT_OK, b"\x10code\0\x3b\0\0\0"]),
                false => answer(id, &[b"\x08ismaster\0\x01", OK]),
            };
            let _ = stream.write_all(&answer).await;
        }
    })
    .await;
    let authority = Authority::new();
    let acceptor = acceptor(&authority.sign(&["127.0.0.1"]), Clients::All, ALL, &[]);
    let plain = of_role(old.port, Role::Primary);
    let fast = prober(CheckKind::Mongodb(plain.clone()), PATIENT);
    for _ in 0..3 {
        assert_eq!(fast.probe().await, pass());
    }
    let front = old.in_tls(acceptor).await;
    let secure = MongodbCheck { port: front.port, tls: Some(authority.trusted()), ..plain };
    for _ in 0..3 {
        assert_eq!(probe(&secure).await, pass());
    }
}

#[tokio::test]
async fn a_secondary_passes_while_it_is_fresh() {
    let secondary = |behind: i64| {
        let now = 1_700_000_000_000_i64;
        let date = [b"\x09lastWriteDate\0", &(now - behind).to_le_bytes()[..]].concat();
        let inner = [&(date.len() as i32 + 5).to_le_bytes()[..], &date, &[0]].concat();
        let last_write = [b"\x03lastWrite\0", &inner[..]].concat();
        let local_time = [b"\x09localTime\0", &now.to_le_bytes()[..]].concat();
        answer(1, &[b"\x08secondary\0\x01", &last_write, &local_time, OK])
    };
    let max_lag = Some(Duration::from_secs(20));
    for (behind, expected) in [(20_000, pass()), (20_500, fail("lag: 21s, more than 20s"))] {
        let server = Server::says(secondary(behind)).await;
        let check = MongodbCheck { max_lag, ..of_role(server.port, Role::Replica) };
        assert_eq!(probe(&check).await, expected);
        let verdict = probe(&of_role(server.port, Role::Primary)).await;
        assert_eq!(verdict, fail("role: replica, not primary"));
    }
}

#[tokio::test]
async fn no_server_delays_or_misleads_a_probe() {
    let good = answer(1, &[b"\x08ismaster\0\x01", b"\x03hosts\0\x05\0\0\0\0", OK]);
    let kind = |port, tls| CheckKind::Mongodb(MongodbCheck { tls, ..of_role(port, Role::Primary) });
    let words = Words {
        phase: "hello",
        product: "MongoDB",
        tls_request: 0,
        tls_grant: b"",
        tls_greeting: b"",
    };
    hostile_native::judge(&words, &good, b"", &kind).await;
}
