//! One table of hostile servers for the TCP check and the HTTP check, with and without TLS: the same fault in the same phase has the same words.

use std::time::Duration;

use external_endpoints::config::{CheckKind, HttpCheck, Scheme, TcpCheck, Tls};

use crate::fixtures::*;

/// Every check that completes a handshake and waits for more.
fn plain(port: u16) -> [CheckKind; 2] {
    let expecting = TcpCheck { send: Some(literal("hi")), expect: Some("x".into()), ..tcp(port) };
    [CheckKind::Tcp(expecting), CheckKind::Http(http(port))]
}

fn secure(port: u16) -> [CheckKind; 2] {
    let tls = Tls { insecure_skip_verify: true, ..Tls::default() };
    [
        CheckKind::Tcp(TcpCheck { tls: Some(tls.clone()), ..tcp(port) }),
        CheckKind::Http(HttpCheck { scheme: Scheme::Https, tls, ..http(port) }),
    ]
}

fn all(port: u16) -> Vec<CheckKind> {
    let quiet = CheckKind::Tcp(tcp(port));
    [quiet].into_iter().chain(plain(port)).chain(secure(port)).collect()
}

#[tokio::test]
async fn a_closed_port_is_refused() {
    let refusing = Refusing::new();
    for kind in all(refusing.port()) {
        assert_eq!(try_once(kind.clone(), PATIENT).await, fail("connect: refused"), "{kind:?}");
    }
}

#[tokio::test]
async fn a_swallowed_syn_is_no_answer() {
    let hole = BlackHole::new();
    for kind in all(hole.port()) {
        assert_eq!(try_once(kind.clone(), SHORT).await, fail("connect: no answer in 500ms"), "{kind:?}");
    }
    let timeout = Duration::from_millis(1200);
    let verdict = try_once(CheckKind::Tcp(tcp(hole.port())), timeout).await;
    assert_eq!(verdict, fail("connect: no answer in 1s 200ms"));
}

#[tokio::test]
async fn silence_after_the_connect_names_what_was_waited_for() {
    let silent = Server::silent().await;
    let [tcp, http] = plain(silent.port);
    assert_eq!(try_once(tcp, SHORT).await, fail("expect: no answer in 500ms"));
    assert_eq!(try_once(http, SHORT).await, fail("http: no answer in 500ms"));
    for kind in secure(silent.port) {
        assert_eq!(try_once(kind.clone(), SHORT).await, fail("tls: no answer in 500ms"), "{kind:?}");
    }
}

#[tokio::test]
async fn a_byte_a_second_does_not_stretch_the_deadline() {
    let drip = Server::drip().await;
    let [tcp, http] = plain(drip.port);
    assert_eq!(try_once(tcp, SHORT).await, fail("expect: the text did not come in 500ms"));
    assert_eq!(try_once(http, SHORT).await, fail("http: no answer in 500ms"));
    for kind in secure(drip.port) {
        let verdict = try_once(kind.clone(), SHORT).await;
        assert_eq!(verdict, fail("tls: the server does not speak TLS"), "{kind:?}");
    }
}

#[tokio::test]
async fn a_reset_is_told_with_its_phase() {
    let reset = Server::reset().await;
    let [tcp, http] = plain(reset.port);
    assert_eq!(try_once(tcp, PATIENT).await, fail("expect: connection reset"));
    assert_eq!(try_once(http, PATIENT).await, fail("http: connection reset"));
    for kind in secure(reset.port) {
        let verdict = try_once(kind.clone(), PATIENT).await;
        assert_eq!(verdict, fail("tls: connection reset in the handshake"), "{kind:?}");
    }
}

#[tokio::test]
async fn a_close_is_told_with_its_phase() {
    let closes = Server::closes().await;
    let [tcp, http] = plain(closes.port);
    assert_eq!(try_once(tcp, PATIENT).await, fail("expect: connection closed before \"x\""));
    assert_eq!(try_once(http, PATIENT).await, fail("http: connection closed"));
    for kind in secure(closes.port) {
        let verdict = try_once(kind.clone(), PATIENT).await;
        assert_eq!(verdict, fail("tls: connection closed in the handshake"), "{kind:?}");
    }
}

#[tokio::test]
async fn garbage_is_neither_tls_nor_http() {
    for garbage in ["SSH-2.0-OpenSSH_9.2\r\n", "\0\0\0\x0ahello\0\0", "HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let server = Server::says(garbage).await;
        for kind in secure(server.port) {
            let verdict = try_once(kind.clone(), PATIENT).await;
            assert_eq!(verdict, fail("tls: the server does not speak TLS"), "{garbage:?} {kind:?}");
        }
        let expected = match garbage.as_bytes()[0] {
            b'S' => "http: not HTTP: invalid HTTP version parsed",
            0 => "http: not HTTP: invalid HTTP version parsed",
            _ => "http: status 400",
        };
        let [_, http] = plain(server.port);
        assert_eq!(try_once(http, PATIENT).await, fail(expected), "{garbage:?}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let body = Server::endless("", "y").await;
    let [tcp, http] = plain(body.port);
    assert_eq!(try_once(tcp, PATIENT).await, fail("expect: no \"x\" in the first 64 KiB"));
    let verdict = try_once(http, PATIENT).await;
    assert_eq!(verdict, fail("http: not HTTP: invalid HTTP version parsed"));
    let head = Server::endless("HTTP/1.1 200 OK\r\nx: ", "y").await;
    let [_, http] = plain(head.port);
    let verdict = try_once(http, PATIENT).await;
    assert_eq!(verdict, fail("http: the head of the answer is over 64 KiB"));
}
