//! One table of hostile servers for the TCP check and the HTTP check, with and without TLS: the
//! same fault in the same phase has the same reason.

use std::time::Duration;

use external_endpoints::config::{
    CheckKind, GrpcCheck, HttpCheck, MongodbCheck, RedisCheck, Scheme, TcpCheck, Tls,
};
use external_endpoints::health::Verdict;

use crate::certificates::*;
use crate::fixtures::*;
use crate::hostile_http::{self, Expected, Row, Then};

fn trusting() -> Tls {
    Tls { insecure_skip_verify: true, ..Tls::default() }
}

/// Returns every check that completes a TCP handshake and waits for more.
fn plain(port: u16) -> [CheckKind; 2] {
    let expecting = TcpCheck { send: Some(literal("hi")), expect: Some("x".into()), ..tcp(port) };
    [CheckKind::Tcp(expecting), CheckKind::Http(http(port))]
}

/// Returns the same checks over TLS, for a server that completes that handshake as well.
fn inside(port: u16) -> [CheckKind; 2] {
    let expecting = TcpCheck {
        tls: Some(trusting()),
        send: Some(literal("hi")),
        expect: Some("x".into()),
        ..tcp(port)
    };
    [
        CheckKind::Tcp(expecting),
        CheckKind::Http(HttpCheck { scheme: Scheme::Https, tls: trusting(), ..http(port) }),
    ]
}

/// Checks that a server's fault has the same verdict with TLS and without.
async fn expect_same_with_tls(server: Server, timeout: Duration, expected: [&str; 2]) {
    let plain = plain(server.port);
    let authority = Authority::new();
    let front =
        server.in_tls(acceptor(&authority.sign(&["127.0.0.1"]), Clients::All, ALL, &[])).await;
    for kinds in [plain, inside(front.port)] {
        for (kind, expected) in kinds.into_iter().zip(expected) {
            assert_eq!(probe_once(kind.clone(), timeout).await, fail(expected), "{kind:?}");
        }
    }
}

/// Returns checks over TLS, for a server without TLS.
fn secure(port: u16) -> [CheckKind; 2] {
    let tls = trusting();
    [
        CheckKind::Tcp(TcpCheck { tls: Some(tls.clone()), ..tcp(port) }),
        CheckKind::Http(HttpCheck { scheme: Scheme::Https, tls, ..http(port) }),
    ]
}

fn all(port: u16) -> Vec<CheckKind> {
    let quiet = CheckKind::Tcp(tcp(port));
    let native = [None, Some(trusting())].into_iter().flat_map(|tls| {
        let redis = RedisCheck { tls: tls.clone(), ..crate::redis::redis(port) };
        let mongodb = MongodbCheck { tls: tls.clone(), ..crate::mongodb::mongodb(port) };
        let grpc = GrpcCheck { tls, ..crate::grpc::grpc(port) };
        [CheckKind::Redis(redis), CheckKind::Mongodb(mongodb), CheckKind::Grpc(grpc)]
    });
    [quiet].into_iter().chain(plain(port)).chain(secure(port)).chain(native).collect()
}

#[tokio::test]
async fn a_closed_port_is_refused() {
    let refusing = Refusing::new();
    for kind in all(refusing.port()) {
        assert_eq!(probe_once(kind.clone(), PATIENT).await, fail("connect: refused"), "{kind:?}");
    }
}

#[tokio::test]
async fn a_swallowed_syn_is_no_answer() {
    let hole = BlackHole::new();
    for kind in all(hole.port()) {
        assert_eq!(
            probe_once(kind.clone(), SHORT).await,
            fail("connect: no answer in 500ms"),
            "{kind:?}"
        );
    }
    let timeout = Duration::from_millis(1200);
    let verdict = probe_once(CheckKind::Tcp(tcp(hole.port())), timeout).await;
    assert_eq!(verdict, fail("connect: no answer in 1s 200ms"));
}

#[tokio::test]
async fn silence_after_the_connect_names_the_phase() {
    let silent = Server::silent().await;
    for kind in secure(silent.port) {
        assert_eq!(
            probe_once(kind.clone(), SHORT).await,
            fail("tls: no answer in 500ms"),
            "{kind:?}"
        );
    }
    expect_same_with_tls(silent, SHORT, ["expect: no answer in 500ms", "http: no answer in 500ms"])
        .await;
}

#[tokio::test]
async fn a_byte_a_second_does_not_extend_the_deadline() {
    let drip = Server::drip().await;
    for kind in secure(drip.port) {
        let verdict = probe_once(kind.clone(), SHORT).await;
        assert_eq!(verdict, fail("tls: the server does not speak TLS"), "{kind:?}");
    }
    expect_same_with_tls(
        drip,
        SHORT,
        ["expect: the expected text did not arrive in 500ms", "http: no answer in 500ms"],
    )
    .await;
}

#[tokio::test]
async fn a_reset_is_reported_with_its_phase() {
    let reset = Server::reset().await;
    for kind in secure(reset.port) {
        let verdict = probe_once(kind.clone(), PATIENT).await;
        assert_eq!(verdict, fail("tls: connection reset in the handshake"), "{kind:?}");
    }
    expect_same_with_tls(reset, PATIENT, ["expect: connection reset", "http: connection reset"])
        .await;
}

#[tokio::test]
async fn a_close_is_reported_with_its_phase() {
    let closes = Server::closes().await;
    for kind in secure(closes.port) {
        let verdict = probe_once(kind.clone(), PATIENT).await;
        assert_eq!(verdict, fail("tls: connection closed in the handshake"), "{kind:?}");
    }
    expect_same_with_tls(
        closes,
        PATIENT,
        ["expect: connection closed before \"x\"", "http: connection closed"],
    )
    .await;
}

#[tokio::test]
async fn garbage_is_neither_tls_nor_http() {
    for garbage in
        ["SSH-2.0-OpenSSH_9.2\r\n", "\0\0\0\x0ahello\0\0", "HTTP/1.1 400 Bad Request\r\n\r\n"]
    {
        let server = Server::says(garbage).await;
        for kind in secure(server.port) {
            let verdict = probe_once(kind.clone(), PATIENT).await;
            assert_eq!(verdict, fail("tls: the server does not speak TLS"), "{garbage:?} {kind:?}");
        }
        let expected = match garbage.as_bytes()[0] {
            b'S' => "http: not HTTP: invalid HTTP version parsed",
            0 => "http: not HTTP: invalid HTTP version parsed",
            _ => "http: status 400",
        };
        expect_same_with_tls(
            server,
            SHORT,
            ["expect: the expected text did not arrive in 500ms", expected],
        )
        .await;
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let no_text = "expect: no \"x\" in the first 64 KiB";
    let body = Server::endless("", "y").await;
    expect_same_with_tls(body, PATIENT, [no_text, "http: not HTTP: invalid HTTP version parsed"])
        .await;
    let head = Server::endless("HTTP/1.1 200 OK\r\nz: ", "y").await;
    expect_same_with_tls(head, PATIENT, [no_text, "http: the head of the answer is over 64 KiB"])
        .await;
}

/// Starts the server of a row.
pub(crate) async fn serve(row: &Row) -> Server {
    match row.then {
        Then::Endless(words) => Server::endless(row.head, words).await,
        Then::Slow(words) => Server::drips(row.head, words, Duration::from_millis(5)).await,
        Then::Silence => Server::says(row.head).await,
    }
}

fn agrees(verdict: &Verdict, expected: Expected) -> bool {
    match (verdict, expected) {
        (Verdict::Pass, Ok(())) => true,
        (Verdict::Fail(reason), Err(expected)) => match expected.strip_suffix('…') {
            Some(start) => reason.starts_with(start),
            None => reason == expected,
        },
        _ => false,
    }
}

#[tokio::test]
async fn no_web_server_delays_or_misleads_a_probe() {
    for row in hostile_http::rows() {
        let server = serve(&row).await;
        judged(&row, http(server.port)).await;
    }
}

#[tokio::test]
async fn no_web_server_over_tls_delays_or_misleads_a_probe() {
    let authority = Authority::new();
    let acceptor = acceptor(&authority.sign(&["127.0.0.1"]), Clients::All, ALL, &[]);
    for row in hostile_http::rows() {
        let server = serve(&row).await.in_tls(acceptor.clone()).await;
        judged(&row, HttpCheck { scheme: Scheme::Https, tls: trusting(), ..http(server.port) })
            .await;
    }
}

/// Probes a server of which only the status counts, and then also with a search of its body.
async fn judged(row: &Row, status: HttpCheck) {
    let body = HttpCheck { expected_body: Some(hostile_http::TEXT.into()), ..status.clone() };
    let short = |expected: Expected| expected.is_err_and(|reason| reason.contains("500ms"));
    for (check, expected) in [(status, row.status), (body, row.body)] {
        let timeout = match (short(expected), short(row.body)) {
            (true, _) => SHORT,
            // A pass may last as long as the body.
            (false, true) => Duration::from_secs(2),
            (false, false) => PATIENT,
        };
        let verdict = probe_once(CheckKind::Http(check), timeout).await;
        assert!(agrees(&verdict, expected), "{}: {verdict:?} instead of {expected:?}", row.name);
    }
}
