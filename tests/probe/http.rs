//! The HTTP check: its request, and the answers that it accepts.

use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use external_endpoints::config::{CheckKind, HttpCheck, ValueSource};
use external_endpoints::health::Verdict;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fixtures::*;

/// Checks that one probe has this verdict.
async fn expect_verdict(check: HttpCheck, expected: Verdict) {
    let timeout = if matches!(&expected, Verdict::Fail(reason) if reason.contains("500ms")) {
        SHORT
    } else {
        PATIENT
    };
    assert_eq!(probe_once(CheckKind::Http(check.clone()), timeout).await, expected, "{check:?}");
}

/// Returns the same check with a header that is read at each probe, so that it is not a fast check.
/// The two kinds have code of their own for plain HTTP.
fn not_fast(check: &HttpCheck) -> HttpCheck {
    let mut headers = check.headers.clone();
    headers.push(("X-Path".into(), ValueSource::FromEnv("PATH".into())));
    HttpCheck { headers, ..check.clone() }
}

#[tokio::test]
async fn both_http_clients_give_the_same_verdict() {
    let long = |size: usize| format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(size));
    let many = |lines: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(lines));
    let closed = || fail("http: connection closed");
    let not_http = || fail("http: not HTTP: ");
    let table = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(), pass()),
        ("HTTP/1.0 204 No Content\r\n\r\n".into(), pass()),
        ("HTTP/1.1 200\r\n\r\n".into(), pass()),
        ("HTTP/1.1 200 OK\n\n".into(), pass()),
        ("HTTP/1.1 399 Nö\r\n\r\n".into(), pass()),
        ("HTTP/1.1 404 Not Found\r\n\r\n".into(), fail("http: status 404")),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into(),
            pass(),
        ),
        (
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 500 No\r\n\r\n".into(),
            fail("http: status 500"),
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".into(), pass()),
        (long(60 << 10), pass()),
        (long(200 << 10), fail("http: the head of the answer is over 64 KiB")),
        (many(99), pass()),
        ("HTTP/1.1 200 OK\r\nContent-Len".into(), closed()),
        (String::new(), closed()),
        ("SSH-2.0-OpenSSH_9.6\r\n".into(), not_http()),
        ("HTTP/9.9 200 OK\r\n\r\n".into(), not_http()),
        ("HTTP/1.1 20 OK\r\n\r\n".into(), not_http()),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n".into(), not_http()),
        ("HTTP/1.1 200 OK\r\nX\0: y\r\n\r\n".into(), not_http()),
        (many(1000), fail("http: the head of the answer has over 100 headers")),
    ];
    for (answer, expected) in table {
        let server = Server::start({
            let answer = answer.clone();
            move |mut stream| {
                let answer = answer.clone();
                async move {
                    let _ = stream.read(&mut [0; 65536]).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            }
        })
        .await;
        let check = http(server.port);
        let one = probe_once(CheckKind::Http(check.clone()), PATIENT).await;
        let other = probe_once(CheckKind::Http(not_fast(&check)), PATIENT).await;
        let shown = &answer[..answer.len().min(80)];
        assert_eq!(one, other, "{shown:?}");
        match expected {
            Verdict::Fail(start) if start == "http: not HTTP: " => {
                assert!(
                    matches!(&one, Verdict::Fail(reason) if reason.starts_with(&start)),
                    "{shown:?}: {one:?}"
                );
            }
            expected => assert_eq!(one, expected, "{shown:?}"),
        }
    }
    let refusing = http(Refusing::new().port());
    for check in [&refusing, &not_fast(&refusing)] {
        assert_eq!(
            probe_once(CheckKind::Http(check.clone()), PATIENT).await,
            fail("connect: refused")
        );
    }
}

/// Returns a check that expects this text in the body.
fn with_expected_body(port: u16, text: &str) -> HttpCheck {
    HttpCheck { expected_body: Some(text.into()), ..http(port) }
}

/// Starts a server that stores the heads of its requests.
async fn recording() -> (Server, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let keep = heads.clone();
    let server = Server::start(move |mut stream| {
        let heads = keep.clone();
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            heads.lock().unwrap().push(String::from_utf8(head).unwrap());
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
            let _ = stream.read(&mut [0; 1]).await;
        }
    })
    .await;
    (server, heads)
}

#[tokio::test]
async fn each_request_is_as_configured_and_on_a_new_connection() {
    let (server, heads) = recording().await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    let check = HttpCheck {
        method: "OPTIONS".into(),
        path: "/primary?lag=1".into(),
        host: Some("pg.corp.example".into()),
        headers: vec![
            ("X-Token".into(), ValueSource::File(token.clone())),
            ("Accept".into(), literal("application/json")),
        ],
        ..http(server.port)
    };
    let prober = prober(CheckKind::Http(check), PATIENT);
    for word in ["one\n", "two"] {
        std::fs::write(&token, word).unwrap();
        assert_eq!(prober.probe().await, pass());
    }
    let heads = heads.lock().unwrap();
    let agent = concat!("external-endpoints/", env!("CARGO_PKG_VERSION"));
    for (head, word) in heads.iter().zip(["one", "two"]) {
        let expected = format!(
            "OPTIONS /primary?lag=1 HTTP/1.1\r\nx-token: {word}\r\naccept: application/json\r\n\
             user-agent: {agent}\r\nhost: pg.corp.example\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(sorted(head), sorted(&expected));
    }
    assert_eq!((heads.len(), server.accepted()), (2, 2));
}

fn sorted(head: &str) -> Vec<&str> {
    let mut lines: Vec<_> = head.split("\r\n").collect();
    lines[1..].sort_unstable();
    lines
}

#[tokio::test]
async fn the_host_is_the_address_by_default() {
    let (server, heads) = recording().await;
    expect_verdict(http(server.port), pass()).await;
    let own =
        HttpCheck { headers: vec![("Host".into(), literal("own.example"))], ..http(server.port) };
    expect_verdict(own, pass()).await;
    let heads = heads.lock().unwrap();
    assert!(heads[0].contains(&format!("\r\nhost: 127.0.0.1:{}\r\n", server.port)), "{heads:?}");
    assert_eq!(heads[1].to_lowercase().matches("host:").count(), 1);
    assert!(heads[1].contains("own.example"));
}

#[tokio::test]
async fn a_status_is_checked_and_no_redirect_followed() {
    for (status, verdict) in [
        (200, pass()),
        (302, pass()),
        (399, pass()),
        (400, fail("http: status 400")),
        (503, fail("http: status 503")),
    ] {
        let answer = format!(
            "HTTP/1.1 {status} x\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n"
        );
        let server = Server::says(answer).await;
        expect_verdict(http(server.port), verdict).await;
        let only = HttpCheck { expected_statuses: vec![200..=200, 503..=503], ..http(server.port) };
        let expected = match status {
            200 | 503 => pass(),
            _ => fail(format!("http: status {status}")),
        };
        expect_verdict(only, expected).await;
        assert_eq!(server.accepted(), 2);
    }
}

#[tokio::test]
async fn the_body_is_searched_only_if_configured() {
    let server = Server::says(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
          3\r\nru\xc3\r\n5\r\n\xbcnnin\r\n1\r\ng\r\n0\r\n\r\n",
    )
    .await;
    expect_verdict(
        with_expected_body(server.port, "running"),
        fail("http: the body does not contain \"running\""),
    )
    .await;
    let server = Server::says(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nrun\r\n4\r\nning\r\n",
    )
    .await;
    // The rest never comes, but the verdict is fixed by then.
    for check in [with_expected_body(server.port, "running"), http(server.port)] {
        assert_eq!(probe_once(CheckKind::Http(check), SHORT).await, pass());
    }
    expect_verdict(
        with_expected_body(server.port, "stopped"),
        fail("http: the body did not end in 500ms"),
    )
    .await;
    let cut = Server::start(|mut stream| async move {
        let _ = stream.read(&mut [0; 65536]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nrun").await;
        let _ = stream.shutdown().await;
        let _ = stream.read(&mut [0; 1]).await;
    })
    .await;
    expect_verdict(with_expected_body(cut.port, "running"), fail("http: connection closed")).await;
    let endless = Server::endless("HTTP/1.1 200 OK\r\n\r\n", "y").await;
    let reason = "http: the first 1 MiB of the body does not contain \"x\"";
    expect_verdict(with_expected_body(endless.port, "x"), fail(reason)).await;
    expect_verdict(http(endless.port), pass()).await;
}

#[tokio::test]
async fn a_head_that_drips_ends_with_the_deadline() {
    let drip = Server::start(|mut stream| async move {
        let _ = stream.read(&mut [0; 65536]).await;
        for byte in b"HTTP/1.1 200 OK\r\n\r\n" {
            let _ = stream.write_all(&[*byte]).await;
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    })
    .await;
    expect_verdict(http(drip.port), fail("http: no answer in 500ms")).await;
}

/// Returns three ways to check the same: by the status, with a header that is read at each probe,
/// and by the body.
fn ways(port: u16, body: &str) -> [HttpCheck; 3] {
    [http(port), not_fast(&http(port)), with_expected_body(port, body)]
}

#[tokio::test]
async fn a_banner_is_not_http() {
    for banner in ["J\0\0\0\x0a8.0.36\0", "220 mail.example ESMTP\r\n", "SSH-2.0-OpenSSH_9.6\r\n"] {
        let server = Server::start(move |mut stream| async move {
            let _ = stream.write_all(banner.as_bytes()).await;
            std::future::pending::<()>().await;
        })
        .await;
        for check in ways(server.port, "x") {
            let Verdict::Fail(reason) = probe_once(CheckKind::Http(check), PATIENT).await else {
                panic!("a banner passed for HTTP");
            };
            assert!(reason.starts_with("http: not HTTP: "), "{reason}");
        }
    }
}

/// The way a server ends a connection after it has answered at once.
#[derive(Debug, Clone, Copy)]
enum Ends {
    /// Orderly: it reads everything the client sends.
    Reading,
    /// Without reading, so that a reset follows the answer.
    Unread,
}

/// Starts a server that answers when it accepts, as scripts under inetd do. It has a thread of its
/// own, so that the answer is sometimes there before the request.
fn answers_at_accept(answer: &'static str, ends: Ends) -> u16 {
    let listener = std::net::TcpListener::bind((LOCAL, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.write_all(answer.as_bytes());
            if matches!(ends, Ends::Reading) {
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read_to_end(&mut Vec::new());
            }
        }
    });
    port
}

#[tokio::test]
async fn an_answer_before_the_request_is_an_answer() {
    let table = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsynced\n", pass()),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nsynced\n", pass()),
        ("HTTP/1.0 503 Service Unavailable\r\n\r\nnot synced\n", fail("http: status 503")),
    ];
    for (answer, expected) in table {
        for ends in [Ends::Reading, Ends::Unread] {
            for check in ways(answers_at_accept(answer, ends), "synced") {
                let prober = prober(CheckKind::Http(check), PATIENT);
                for _ in 0..200 {
                    assert_eq!(prober.probe().await, expected, "{answer:?} {ends:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn an_answer_to_half_a_request_is_an_answer() {
    let long = "y".repeat(16 << 20);
    for (answer, expected) in [("200 OK", pass()), ("431 Too Large", fail("http: status 431"))] {
        let text = format!("HTTP/1.1 {answer}\r\nContent-Length: 6\r\n\r\nsynced");
        // The server never reads.
        let server = Server::start(move |mut stream| {
            let text = text.clone();
            async move {
                let _ = stream.write_all(text.as_bytes()).await;
                std::future::pending::<()>().await;
            }
        })
        .await;
        for mut check in ways(server.port, "synced") {
            check.headers.push(("X-Long".into(), literal(&long)));
            expect_verdict(check, expected.clone()).await;
        }
    }
}

/// Starts a server that writes its answer in pieces and stores the errors of its writes.
async fn writing(
    pieces: &'static [&'static str],
) -> (Server, Arc<Mutex<Vec<std::io::Result<()>>>>) {
    let met = Arc::new(Mutex::new(Vec::new()));
    let keep = met.clone();
    let server = Server::start(move |mut stream| {
        let met = keep.clone();
        async move {
            let _ = stream.set_nodelay(true);
            let _ = stream.read(&mut [0; 65536]).await;
            let write = async {
                for piece in pieces {
                    stream.write_all(piece.as_bytes()).await?;
                    // A pause, in which a client that has its verdict could close.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok(())
            };
            let written = write.await;
            met.lock().unwrap().push(written);
        }
    })
    .await;
    (server, met)
}

#[tokio::test]
async fn a_short_answer_is_read_to_its_end() {
    let answers: [&[&str]; 5] = [
        &["HTTP/1.1 200 OK\r\nContent-Length: 14\r\n", "\r\n", "running", "running", ""],
        &[
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "7\r\nrunning\r\n",
            "0\r\n",
            "\r\n",
            "",
        ],
        &["HTTP/1.0 200 OK\r\n\r\n", "running", "running", ""],
        &["HTTP/1.0 503 No\r\n\r\n", "running", "running", ""],
        &["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "running", "running", ""],
    ];
    for pieces in answers {
        let expected = if pieces[0].contains("503") { fail("http: status 503") } else { pass() };
        let (server, met) = writing(pieces).await;
        for check in ways(server.port, "running") {
            expect_verdict(check, expected.clone()).await;
        }
        eventually("three answers", || met.lock().unwrap().len() == 3).await;
        assert!(
            met.lock().unwrap().iter().all(Result::is_ok),
            "{pieces:?}: {:?}",
            met.lock().unwrap()
        );
    }
}

#[tokio::test]
async fn the_rest_of_an_answer_never_changes_the_verdict() {
    for rest in ["", "y", "nonsense\r\n", "5\r\nab"] {
        for (status, expected) in [(200, pass()), (503, fail("http: status 503"))] {
            let head = format!(
                "HTTP/1.1 {status} x\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nrunning\r\n{rest}"
            );
            let hanging = Server::says(head.clone()).await;
            let resetting = Server::start(move |mut stream| {
                let head = head.clone();
                async move {
                    let _ = stream.read(&mut [0; 65536]).await;
                    let _ = stream.write_all(head.as_bytes()).await;
                    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                }
            })
            .await;
            for check in ways(hanging.port, "running") {
                assert_eq!(probe_once(CheckKind::Http(check), SHORT).await, expected, "{rest:?}");
            }
            // The reset may overtake the answer. If it does not, the verdict is that of the status.
            for check in ways(resetting.port, "running") {
                let verdict = probe_once(CheckKind::Http(check), PATIENT).await;
                assert!(
                    verdict == expected || verdict == fail("http: connection reset"),
                    "{rest:?}: {verdict:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_long_body_is_not_read_to_its_end() {
    let (server, sent) = sending(1 << 30).await;
    for check in ways(server.port, "y") {
        expect_verdict(check, pass()).await;
    }
    eventually("three answers", || sent.lock().unwrap().len() == 3).await;
    let sent = sent.lock().unwrap();
    // The buffers of two kernels hold this much of a gigabyte.
    assert!(sent.iter().all(|sent| *sent < 64 << 20), "{sent:?}");
}

/// Starts a server that sends a body of this size and stores the length that it could send.
async fn sending(size: usize) -> (Server, Arc<Mutex<Vec<usize>>>) {
    let all = Arc::new(Mutex::new(Vec::new()));
    let keep = all.clone();
    let server = Server::start(move |mut stream| {
        let all = keep.clone();
        async move {
            let _ = stream.read(&mut [0; 65536]).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            let mut sent = 0;
            while sent < size && stream.write_all(&[b'y'; 65536]).await.is_ok() {
                sent += 65536;
            }
            all.lock().unwrap().push(sent);
        }
    })
    .await;
    (server, all)
}

#[tokio::test]
async fn an_invalid_request_is_inconclusive_and_shows_no_secret() {
    let refusing = Refusing::new();
    let token = literal("secret\nnewline");
    let check = HttpCheck { headers: vec![("X-Token".into(), token)], ..http(refusing.port()) };
    expect_verdict(check, inconclusive("http: the value of header x-token is not valid in HTTP"))
        .await;
    let unset = ValueSource::FromEnv("EXTERNAL_ENDPOINTS_UNSET".into());
    let check = HttpCheck { headers: vec![("X-Token".into(), unset)], ..http(refusing.port()) };
    let reason = "http: environment variable EXTERNAL_ENDPOINTS_UNSET is not set";
    expect_verdict(check, inconclusive(reason)).await;
    let check = HttpCheck { path: "/a b".into(), ..http(refusing.port()) };
    expect_verdict(check, inconclusive("http: path \"/a b\" is not valid in HTTP")).await;
}

#[tokio::test]
async fn no_route_is_inconclusive_for_http() {
    let group = target(Ipv4Addr::new(224, 0, 0, 1).into());
    let prober = prober_for(CheckKind::Http(http(80)), PATIENT, group);
    assert_eq!(timed(&prober, PATIENT).await, inconclusive("connect: no route from this host"));
}
