//! The check by gRPC's health protocol against a real etcd, over TLS too, against each answer that
//! a server can give, and against servers that flood it.

use std::time::Duration;

use external_endpoints::config::{CheckKind, GrpcCheck};
use external_endpoints::health::Verdict;
use external_endpoints::probe::Prober;
use futures::future::join_all;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::certificates::*;
use crate::fixtures::*;
use crate::mongodb::{built, forward_to};
use crate::servers::{Database, free_port, time_waits};

pub(crate) fn grpc(port: u16) -> GrpcCheck {
    GrpcCheck { port, service: String::new(), authority: None, tls: None }
}

async fn probe(check: &GrpcCheck) -> Verdict {
    probe_once(CheckKind::Grpc(check.clone()), PATIENT).await
}

async fn etcd() -> Database {
    let program = built("KUBEBUILDER_ASSETS", "etcd");
    let folder = tempfile::tempdir().unwrap();
    let user = if rustix::process::geteuid().is_root() { "root" } else { "" };
    let peers = format!("http://127.0.0.1:{}", free_port());
    let etcd = Database::start(&program, user, folder, |folder, port| {
        let clients = format!("http://127.0.0.1:{port}");
        vec![
            "--name=etcd".into(),
            "--unsafe-no-fsync".into(),
            "--log-level=info".into(),
            format!("--data-dir={}", folder.join("data").display()),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls={clients}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster=etcd={peers}"),
        ]
    })
    .await;
    expect_verdict(CheckKind::Grpc(grpc(etcd.port)), pass()).await;
    etcd
}

#[tokio::test]
async fn a_server_says_its_health_and_logs_nothing() {
    let etcd = etcd().await;
    let check = grpc(etcd.port);
    let unknown = GrpcCheck { service: "no.such.Service".into(), ..check.clone() };
    assert_eq!(probe(&unknown).await, fail("grpc: NOT_FOUND \"unknown service\""));
    // It logs the end of its own start for a while.
    let mut log = String::new();
    eventually_async("the server is quiet", async || {
        let before = std::mem::replace(&mut log, etcd.log());
        tokio::time::sleep(Duration::from_millis(500)).await;
        before == etcd.log()
    })
    .await;
    let log = etcd.log();
    let probers: Vec<Prober> =
        (0..16).map(|_| prober(CheckKind::Grpc(check.clone()), PATIENT)).collect();
    for _ in 0..63 {
        for verdict in join_all(probers.iter().map(Prober::probe)).await {
            assert_eq!(verdict, pass());
        }
    }
    assert_eq!(etcd.log(), log);
    let waits = time_waits(etcd.port);
    assert!(waits <= 16 * 63 / 2, "{waits}");

    let authority = Authority::new();
    let pair = authority.sign(&["127.0.0.1"]);
    let tls = Some(authority.trusted());
    for (alpn, expected) in [
        (&["h2"][..], pass()),
        (&["h2", "http/1.1"], pass()),
        (&["http/1.1"], fail("tls: the server does not support HTTP/2")),
        (&[], fail("tls: the server does not offer HTTP/2 in the handshake")),
    ] {
        let acceptor = acceptor(&pair, Clients::All, ALL, alpn);
        let front = forward_to(etcd.port).await.in_tls(acceptor).await;
        let secure = GrpcCheck { port: front.port, tls: tls.clone(), ..check.clone() };
        assert_eq!(probe(&secure).await, expected, "{alpn:?}");
    }
    let secure = GrpcCheck { tls, ..check };
    let verdict = probe(&secure).await;
    assert!(format!("{verdict:?}").starts_with("Fail(\"tls: "), "{verdict:?}");
}

/// The answer of a server to any call.
#[derive(Clone, Default)]
struct Answer {
    status: StatusCode,
    head: Vec<(&'static str, &'static str)>,
    body: Vec<Vec<u8>>,
    /// None for an answer that ends with its body.
    trailers: Option<Vec<(&'static str, &'static str)>>,
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    pairs.iter().map(pair).collect()
}

/// Starts a server that gives the answer to each call of the method, for the authority.
async fn answering(answer: Answer, authority: &'static str) -> Server {
    Server::start(move |stream| {
        let answer = answer.clone();
        async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let uri = request.uri();
                let named = uri.authority().map(|authority| authority.as_str().to_owned());
                let asked = authority.is_empty() || named.as_deref() == Some(authority);
                assert!(asked && uri.path() == "/grpc.health.v1.Health/Check", "{uri}");
                assert_eq!(request.headers()["te"], "trailers");
                let mut response = Response::new(());
                *response.status_mut() = answer.status;
                *response.headers_mut() = headers(&answer.head);
                let ends = answer.body.is_empty() && answer.trailers.is_none();
                let mut send = respond.send_response(response, ends).unwrap();
                for (index, data) in answer.body.iter().enumerate() {
                    let ends = index + 1 == answer.body.len() && answer.trailers.is_none();
                    let _ = send.send_data(data.clone().into(), ends);
                }
                if let Some(trailers) = &answer.trailers {
                    let _ = send.send_trailers(headers(trailers));
                }
            }
        }
    })
    .await
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");
const OK: (&str, &str) = ("grpc-status", "0");

fn serving() -> Answer {
    Answer {
        head: vec![GRPC],
        body: vec![b"\0\0\0\0\x02\x08\x01".to_vec()],
        trailers: Some(vec![OK]),
        ..Answer::default()
    }
}

#[tokio::test]
async fn each_answer_has_its_verdict() {
    let body = |bytes: &[u8]| Answer { body: vec![bytes.to_vec()], ..serving() };
    let head = |head: &[(&'static str, &'static str)]| Answer {
        head: head.to_vec(),
        body: Vec::new(),
        trailers: None,
        ..Answer::default()
    };
    let trailers = |pairs: &[(&'static str, &'static str)]| Answer {
        trailers: Some(pairs.to_vec()),
        ..serving()
    };
    let split = serving().body[0].iter().map(|byte| vec![*byte]).collect();
    let refused = "auth: the server asks for credentials (UNAUTHENTICATED), which a `grpc` check \
                   has none of";
    for (answer, expected) in [
        (serving(), pass()),
        (Answer { body: split, ..serving() }, pass()),
        (Answer { head: vec![("content-type", "application/grpc+proto")], ..serving() }, pass()),
        (body(b"\0\0\0\0\x02\x08\x02"), fail("grpc: NOT_SERVING")),
        (body(b"\0\0\0\0\0"), fail("grpc: UNKNOWN")),
        (body(b"hello"), fail("grpc: the answer is not of the health protocol")),
        (Answer { body: Vec::new(), ..serving() }, fail("grpc: the answer has no message")),
        (Answer { trailers: None, ..serving() }, fail("grpc: the answer has no grpc-status")),
        (trailers(&[]), fail("grpc: the answer has no grpc-status")),
        (trailers(&[("grpc-status", "14")]), fail("grpc: UNAVAILABLE")),
        (head(&[GRPC, OK]), fail("grpc: the answer has no message")),
        (
            head(&[GRPC, ("grpc-status", "12"), ("grpc-message", "unknown service")]),
            fail("grpc: UNIMPLEMENTED: no health service"),
        ),
        (head(&[GRPC, ("grpc-status", "16"), ("grpc-message", "ann")]), inconclusive(refused)),
        (head(&[GRPC]), fail("grpc: the answer has no grpc-status")),
        (head(&[]), fail("grpc: not gRPC: the answer is of type \"\"")),
        (
            Answer { status: StatusCode::NOT_FOUND, ..serving() },
            fail("grpc: not gRPC: HTTP status 404"),
        ),
        (body(&[0; 17_000]), fail("grpc: a message is over 16 KiB")),
    ] {
        let server = answering(answer, "").await;
        assert_eq!(probe(&grpc(server.port)).await, expected);
    }
    let named = answering(serving(), "db.corp.example:7").await;
    let check = GrpcCheck { authority: Some("db.corp.example:7".into()), ..grpc(named.port) };
    assert_eq!(probe(&check).await, pass());
}

#[tokio::test]
async fn another_protocol_is_told_apart() {
    for garbage in
        ["HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n", "\0\0\0\0\0\0\0\0\0"]
    {
        let server = Server::says(garbage).await;
        assert_eq!(probe(&grpc(server.port)).await, fail("grpc: not HTTP/2"), "{garbage:?}");
    }
    for (server, timeout, expected) in [
        (Server::silent().await, SHORT, "grpc: no answer in 500ms"),
        (Server::closes().await, PATIENT, "grpc: connection closed"),
        (Server::reset().await, PATIENT, "grpc: connection reset"),
    ] {
        let verdict = probe_once(CheckKind::Grpc(grpc(server.port)), timeout).await;
        assert_eq!(verdict, fail(expected));
    }
}

/// Returns a frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

#[tokio::test]
async fn a_flood_ends_soon() {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    // `:status: 200` and `content-type: application/grpc`, without compression.
    let head = b"\x88\x0f\x10\x10application/grpc";
    let interim = b"\x08\x03100";
    let answer = frame(HEADERS, 4, 1, head);
    for (first, rest) in [
        (Vec::new(), frame(4, 0, 0, b"")),
        (Vec::new(), frame(6, 0, 0, &[0; 8])),
        (Vec::new(), frame(HEADERS, 4, 1, interim)),
        (frame(HEADERS, 0, 1, head), frame(9, 0, 1, &[0x82; 1000])),
        (answer.clone(), frame(DATA, 0, 1, b"")),
        (answer.clone(), frame(DATA, 0, 1, &[0; 8])),
        (answer.clone(), frame(DATA, 0, 1, &[0; 16_000])),
        (answer.clone(), frame(DATA, 8, 1, &[0])),
        (answer, frame(8, 0, 0, &[0, 0, 0, 1])),
        (Vec::new(), b"y".to_vec()),
    ] {
        let settings = [frame(4, 0, 0, b""), frame(4, 1, 0, b"")].concat();
        let first = [settings, first].concat();
        let rest = rest.repeat(16_384 / rest.len() + 1);
        let name = format!("{:?} {:?}", &first[18..], &rest[..9]);
        let server = Server::start(move |mut stream| {
            let (first, rest) = (first.clone(), rest.clone());
            async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let mut sent = stream.write_all(&first).await;
                while sent.is_ok() {
                    sent = stream.write_all(&rest).await;
                }
            }
        })
        .await;
        let start = std::time::Instant::now();
        let verdict = probe(&grpc(server.port)).await;
        let Verdict::Fail(reason) = &verdict else { panic!("{name}: {verdict:?}") };
        assert!(reason.starts_with("grpc: ") && reason.len() < 100, "{name}: {reason}");
        assert!(!reason.contains("no answer"), "{name}: {reason}");
        assert!(start.elapsed() < Duration::from_secs(5), "{name}: {:?}", start.elapsed());
    }
}
