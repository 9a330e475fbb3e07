//! The TCP check: half-open or complete, with texts to send and to expect.

use std::net::Ipv4Addr;
use std::time::Duration;

use external_endpoints::config::{
    CheckKind, ExpectedContent, HttpCheck, Scheme, TcpCheck, Tls, ValueSource,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::certificates::*;
use crate::fixtures::*;

fn expecting(port: u16, text: &str) -> CheckKind {
    CheckKind::Tcp(TcpCheck { expect: Some(text.into()), ..tcp(port) })
}

#[tokio::test]
async fn only_a_full_handshake_reaches_accept() {
    let server = Server::silent().await;
    let quiet = prober(CheckKind::Tcp(tcp(server.port)), PATIENT);
    for _ in 0..200 {
        assert_eq!(quiet.probe().await, pass());
    }
    let loud = prober(CheckKind::Tcp(TcpCheck { accept: true, ..tcp(server.port) }), PATIENT);
    for _ in 0..20 {
        assert_eq!(loud.probe().await, pass());
    }
    // The queue is in order: once the complete handshakes are through, a half-open one would have
    // been too.
    eventually("twenty accepts", || server.accepted() >= 20).await;
    assert!(server.accepted() <= 20 + late(200), "{} accepts", server.accepted());
}

#[tokio::test]
async fn no_check_leaves_a_time_wait() {
    let server = Server::start(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        // Until the client has closed, because the side that closes first keeps the TIME_WAIT.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut kinds = vec![
        CheckKind::Tcp(tcp(server.port)),
        CheckKind::Tcp(TcpCheck { accept: true, ..tcp(server.port) }),
        expecting(server.port, "200 OK"),
    ];
    let asked = Server::start(|mut stream| async move {
        let _ = stream.read(&mut [0; 65536]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    kinds.push(CheckKind::Http(http(asked.port)));
    let acceptor = acceptor(&Authority::new().sign(&["127.0.0.1"]), Clients::All, ALL, &[]);
    let secure = tls_server(acceptor).await;
    let tls = Tls { insecure_skip_verify: true, ..Tls::default() };
    let talking =
        TcpCheck { send: Some(literal("x")), expect: Some("200 OK".into()), ..tcp(secure.port) };
    kinds.push(CheckKind::Tcp(TcpCheck { tls: Some(tls.clone()), ..talking }));
    kinds.push(CheckKind::Http(HttpCheck { scheme: Scheme::Https, tls, ..http(secure.port) }));
    let ports = [server.port, asked.port, secure.port].map(|port| format!(":{port:04X} "));
    // The port of a listener may have been the port of another test's client just before.
    let before = connections();
    for kind in kinds {
        assert_eq!(probe_once(kind, PATIENT).await, pass());
    }
    eventually("only the listeners are left", || {
        let mut ours = connections();
        ours.retain(|line| ports.iter().any(|port| line.contains(port)) && !before.contains(line));
        ours.is_empty()
    })
    .await;
}

/// Returns both ends of every connection of this host, listeners excluded.
fn connections() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let ends = table.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, remote, state) = (words.next()?, words.next()?, words.next()?);
        // State 0A is LISTEN.
        (state != "0A").then(|| format!("{local} {remote} "))
    });
    ends.collect()
}

#[tokio::test]
async fn no_route_is_inconclusive() {
    // A multicast group: the kernel has no route to it for TCP.
    let group = target(Ipv4Addr::new(224, 0, 0, 1).into());
    let prober = prober_for(CheckKind::Tcp(tcp(80)), PATIENT, group);
    assert_eq!(timed(&prober, PATIENT).await, inconclusive("connect: no route from this host"));
}

#[tokio::test]
async fn ipv6_is_checked_alike() {
    let Ok(listener) = tokio::net::TcpListener::bind("[::1]:0").await else {
        eprintln!("skipped: this machine has no IPv6");
        return;
    };
    let port = listener.local_addr().unwrap().port();
    let one = target("::1".parse().unwrap());
    assert_eq!(prober_for(CheckKind::Tcp(tcp(port)), PATIENT, one).probe().await, pass());
}

#[tokio::test]
async fn the_expected_text_is_found_in_pieces_and_among_bytes() {
    let server = Server::start(|mut stream| async move {
        let _ = stream.set_nodelay(true);
        for piece in [&b"\xff\x00+P"[..], b"ON", b"G\r\n"] {
            let _ = stream.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        std::future::pending::<()>().await;
    })
    .await;
    assert_eq!(probe_once(expecting(server.port, "+PONG\r\n"), PATIENT).await, pass());
}

#[tokio::test]
async fn an_early_end_and_a_missing_answer_differ() {
    let closes = Server::start(|mut stream| async move {
        let _ = stream.write_all(b"-ERR").await;
    })
    .await;
    let verdict = probe_once(expecting(closes.port, "+PONG"), PATIENT).await;
    assert_eq!(verdict, fail("expect: connection closed before \"+PONG\""));

    let silent = Server::silent().await;
    assert_eq!(
        probe_once(expecting(silent.port, "x"), SHORT).await,
        fail("expect: no answer in 500ms")
    );

    let drip = Server::drip().await;
    let verdict = probe_once(expecting(drip.port, "x"), SHORT).await;
    assert_eq!(verdict, fail("expect: the expected text did not arrive in 500ms"));

    let endless = Server::start(|mut stream| async move {
        while stream.write_all(&[b'y'; 8192]).await.is_ok() {}
    })
    .await;
    let verdict = probe_once(expecting(endless.port, "x"), PATIENT).await;
    assert_eq!(verdict, fail("expect: no \"x\" in the first 64 KiB"));

    let reset = Server::reset().await;
    let kind = TcpCheck { send: Some(literal("hi")), expect: Some("x".into()), ..tcp(reset.port) };
    assert_eq!(probe_once(CheckKind::Tcp(kind), PATIENT).await, fail("expect: connection reset"));
}

#[tokio::test]
async fn the_text_is_sent_unchanged_and_read_at_each_probe() {
    let echo = Server::start(|mut stream| async move {
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            let _ = stream.write_all(&buffer[..read]).await;
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("request");
    let send = Some(ValueSource::File(file.clone()));
    let prober = prober(
        CheckKind::Tcp(TcpCheck { send, expect: Some("PING\r\n".into()), ..tcp(echo.port) }),
        Duration::from_secs(2),
    );
    let missing = format!("send: cannot read {}: no such file", file.display());
    assert_eq!(prober.probe().await, inconclusive(missing));
    std::fs::write(&file, "PING\r\n").unwrap();
    assert_eq!(prober.probe().await, pass());

    let unset = Some(ValueSource::FromEnv("EXTERNAL_ENDPOINTS_UNSET".into()));
    let kind = CheckKind::Tcp(TcpCheck { send: unset, ..tcp(echo.port) });
    let reason = "send: environment variable EXTERNAL_ENDPOINTS_UNSET is not set";
    assert_eq!(probe_once(kind, PATIENT).await, inconclusive(reason));
}

#[tokio::test]
async fn bytes_in_hex_are_sent_expected_and_reported_as_hex() {
    let echo = Server::start(|mut stream| async move {
        let mut buffer = [0; 1024];
        let read = stream.read(&mut buffer).await.unwrap_or_default();
        let _ = stream.write_all(&buffer[..read]).await;
    })
    .await;
    let request = vec![0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f];
    let check = |expect: &[u8]| {
        let expect = Some(ExpectedContent::Hex(expect.to_vec()));
        CheckKind::Tcp(TcpCheck {
            send: Some(ValueSource::Bytes(request.clone())),
            expect,
            ..tcp(echo.port)
        })
    };
    assert_eq!(probe_once(check(&request[2..]), PATIENT).await, pass());
    let reason = "expect: connection closed before hex 00 ff";
    assert_eq!(probe_once(check(&[0, 0xff]), PATIENT).await, fail(reason));
}

#[tokio::test]
async fn a_peer_that_reads_nothing_ends_a_long_send() {
    let silent = Server::silent().await;
    let send = Some(ValueSource::Literal("x".repeat(64 << 20)));
    let kind = CheckKind::Tcp(TcpCheck { send, ..tcp(silent.port) });
    assert_eq!(probe_once(kind, SHORT).await, fail("send: no answer in 500ms"));
}
