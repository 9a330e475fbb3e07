//! The HTTP check over TLS: the server name, the HTTP version, and that a probe leaves no
//! connection behind.

use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use external_endpoints::config::{CheckKind, HttpCheck, Scheme, Tls};
use external_endpoints::health::Verdict;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::certificates::*;
use crate::fixtures::*;

fn https(port: u16, tls: &Tls) -> HttpCheck {
    HttpCheck { scheme: Scheme::Https, tls: tls.clone(), ..http(port) }
}

/// Checks that one probe has this verdict.
async fn expect_verdict(check: HttpCheck, timeout: Duration, expected: Verdict) {
    assert_eq!(probe_once(CheckKind::Http(check.clone()), timeout).await, expected, "{check:?}");
}

/// A guard that counts the connections alive, however they end.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

type Requests = Arc<Mutex<Vec<(String, hyper::HeaderMap)>>>;

/// Starts an HTTP/2 server: `/down` is 503, `/hangs` ends no body, `/silent` gives no answer,
/// `/large` has a large head.
async fn http2(authority: &Authority, names: &[&str]) -> (Server, Requests, Arc<AtomicUsize>) {
    let acceptor = acceptor(&authority.sign(names), Clients::All, ALL, &["h2", "http/1.1"]);
    let (seen, open) = (Requests::default(), Arc::new(AtomicUsize::new(0)));
    let (keep, count) = (seen.clone(), open.clone());
    let server = Server::start(move |stream| {
        let (acceptor, seen, open) = (acceptor.clone(), keep.clone(), count.clone());
        async move {
            let _open = Open::new(&open);
            // A client may leave in the middle of either handshake.
            let Ok(tls) = acceptor.accept(stream).await else {
                return;
            };
            let Ok(mut connection) = h2::server::handshake(tls).await else {
                return;
            };
            let (mut silent, mut hanging) = (Vec::new(), Vec::new());
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                seen.lock().unwrap().push((request.uri().to_string(), request.headers().clone()));
                let path = request.uri().path().to_owned();
                let mut answer =
                    hyper::Response::builder().status(if path == "/down" { 503 } else { 200 });
                match path.as_str() {
                    "/silent" => {
                        silent.push(respond);
                        continue;
                    }
                    "/large" => answer = answer.header("x-large", "y".repeat(100 << 10)),
                    _ => {}
                }
                let mut body = respond.send_response(answer.body(()).unwrap(), false).unwrap();
                let _ = body.send_data("run".into(), false);
                let _ = body.send_data("ning".into(), path != "/hangs");
                if path == "/hangs" {
                    hanging.push(body);
                }
            }
        }
    })
    .await;
    (server, seen, open)
}

#[tokio::test]
async fn http2_is_used_if_the_server_chooses_it() {
    let authority = Authority::new();
    let (server, seen, open) = http2(&authority, &["pg.corp.example"]).await;
    let tls = Tls { server_name: Some("pg.corp.example".into()), ..authority.trusted() };
    let ask = |path: &str, wanted: Option<&str>| HttpCheck {
        host: Some("pg.corp.example".into()),
        headers: vec![("X-Token".into(), literal("one"))],
        path: path.into(),
        expected_body: wanted.map(str::to_owned),
        http2: true,
        ..https(server.port, &tls)
    };
    expect_verdict(ask("/", Some("running")), PATIENT, pass()).await;
    expect_verdict(
        ask("/", Some("stopped")),
        PATIENT,
        fail("http: the body does not contain \"stopped\""),
    )
    .await;
    expect_verdict(ask("/down", None), PATIENT, fail("http: status 503")).await;
    expect_verdict(
        ask("/hangs", Some("stopped")),
        SHORT,
        fail("http: the body did not end in 500ms"),
    )
    .await;
    expect_verdict(ask("/silent", None), SHORT, fail("http: no answer in 500ms")).await;
    expect_verdict(
        ask("/large", None),
        PATIENT,
        fail("http: the head of the answer is over 64 KiB"),
    )
    .await;
    let port =
        HttpCheck { host: Some(format!("pg.corp.example:{}", server.port)), ..ask("/", None) };
    expect_verdict(port, PATIENT, pass()).await;
    {
        let seen = seen.lock().unwrap();
        assert_eq!(seen[0].0, "https://pg.corp.example/");
        assert_eq!(seen[0].1["x-token"], "one");
        assert!(!seen[0].1.contains_key("host") && !seen[0].1.contains_key("connection"));
        assert_eq!(seen[6].0, format!("https://pg.corp.example:{}/", server.port));
        assert_eq!((seen.len(), server.accepted()), (7, 7));
    }
    eventually("every connection is closed", || open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn http2_is_used_without_a_server_name() {
    let authority = Authority::new();
    let (server, seen, _) = http2(&authority, &["127.0.0.1"]).await;
    let plain = HttpCheck { http2: true, ..https(server.port, &authority.trusted()) };
    let with_host =
        |host: &str| HttpCheck { headers: vec![("Host".into(), literal(host))], ..plain.clone() };
    expect_verdict(plain.clone(), PATIENT, pass()).await;
    expect_verdict(
        HttpCheck { host: Some("db.example:8443".into()), ..plain.clone() },
        PATIENT,
        pass(),
    )
    .await;
    expect_verdict(with_host("own.example"), PATIENT, pass()).await;
    expect_verdict(
        with_host("not a host"),
        PATIENT,
        inconclusive("http: the Host header is not valid in HTTP/2"),
    )
    .await;
    let seen: Vec<_> = seen.lock().unwrap().iter().map(|(uri, _)| uri.clone()).collect();
    let address = format!("https://127.0.0.1:{}/", server.port);
    assert_eq!(seen, [&address, "https://db.example:8443/", "https://own.example/"]);
    assert_eq!(server.accepted(), 3, "nobody was bothered with what could not work");
}

#[tokio::test]
async fn http2_is_offered_only_if_configured() {
    let authority = Authority::new();
    let pair = authority.sign(&["127.0.0.1"]);
    let server = tls_server(acceptor(&pair, Clients::All, ALL, &["h2"])).await;
    let check = https(server.port, &authority.trusted());
    let reason = "tls: the server supports none of the offered HTTP versions; \
         if it supports only HTTP/2, set `http2: true`";
    expect_verdict(check.clone(), PATIENT, fail(reason)).await;
    // A server with only HTTP/1.1 may choose that.
    for alpn in [&["http/1.1"][..], &[]] {
        let server = tls_server(acceptor(&pair, Clients::All, ALL, alpn)).await;
        expect_verdict(
            HttpCheck { http2: true, port: server.port, ..check.clone() },
            PATIENT,
            pass(),
        )
        .await;
    }
}

#[tokio::test]
async fn the_host_does_not_depend_on_the_server_name() {
    let authority = Authority::new();
    let acceptor =
        acceptor(&authority.sign(&["pg.corp.example"]), Clients::All, ALL, &["h2", "http/1.1"]);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keep = seen.clone();
    let server = Server::start(move |stream| {
        let (acceptor, seen) = (acceptor.clone(), keep.clone());
        async move {
            let mut tls = acceptor.accept(stream).await.unwrap();
            let name = tls.get_ref().1.server_name().map(str::to_owned);
            let mut head = vec![0; 65536];
            let read = tls.read(&mut head).await.unwrap();
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            seen.lock().unwrap().push((name, head));
            let _ = tls.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
            let _ = tls.read(&mut [0; 1]).await;
        }
    })
    .await;
    let tls = Tls { server_name: Some("pg.corp.example".into()), ..authority.trusted() };
    let unnamed = https(server.port, &tls);
    let named = HttpCheck { host: Some("db.example:8443".into()), ..unnamed.clone() };
    expect_verdict(unnamed, PATIENT, pass()).await;
    expect_verdict(named, PATIENT, pass()).await;
    let hosts = [format!("127.0.0.1:{}", server.port), "db.example:8443".into()];
    for ((name, head), host) in seen.lock().unwrap().iter().zip(&hosts) {
        assert_eq!(name.as_deref(), Some("pg.corp.example"));
        let lines: Vec<_> = head.split("\r\n").collect();
        assert_eq!(lines[0], "GET / HTTP/1.1");
        assert!(lines.contains(&format!("host: {host}").as_str()), "{head}");
        assert!(lines.contains(&"connection: close"), "{head}");
        assert_eq!(head.matches("host:").count(), 1, "{head}");
    }
    assert_eq!(seen.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_server_name_that_looks_like_an_ip_is_a_name() {
    let refusing = Refusing::new();
    let tls = Tls { server_name: Some("127.0.0.0x2".into()), ..Tls::default() };
    expect_verdict(https(refusing.port(), &tls), PATIENT, fail("connect: refused")).await;
}

#[tokio::test]
async fn the_body_is_searched_over_tls_too() {
    let authority = Authority::new();
    let pair = authority.sign(&["127.0.0.1"]);
    let with_expected_body = |port, text: &str| HttpCheck {
        expected_body: Some(text.into()),
        ..https(port, &authority.trusted())
    };
    let front = async |server: Server| server.in_tls(acceptor(&pair, Clients::All, ALL, &[])).await;
    let half = front(
        Server::says(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nrun\r\n4\r\nning\r\n",
        )
        .await,
    )
    .await;
    expect_verdict(with_expected_body(half.port, "running"), PATIENT, pass()).await;
    expect_verdict(
        with_expected_body(half.port, "stopped"),
        SHORT,
        fail("http: the body did not end in 500ms"),
    )
    .await;
    expect_verdict(https(half.port, &authority.trusted()), PATIENT, pass()).await;
    let cut = Server::start(|mut stream| async move {
        let _ = stream.read(&mut [0; 65536]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nrun").await;
    });
    let cut = front(cut.await).await;
    expect_verdict(
        with_expected_body(cut.port, "running"),
        PATIENT,
        fail("http: connection closed"),
    )
    .await;
    let endless = front(Server::endless("HTTP/1.1 200 OK\r\n\r\n", "y").await).await;
    let reason = "http: the first 1 MiB of the body does not contain \"x\"";
    expect_verdict(with_expected_body(endless.port, "x"), PATIENT, fail(reason)).await;
    let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(100 << 10));
    let large = front(Server::says(head).await).await;
    let reason = "http: the head of the answer is over 64 KiB";
    expect_verdict(https(large.port, &authority.trusted()), PATIENT, fail(reason)).await;
    let moved =
        front(Server::says("HTTP/1.1 302 x\r\nLocation: /\r\nContent-Length: 0\r\n\r\n").await)
            .await;
    expect_verdict(https(moved.port, &authority.trusted()), PATIENT, pass()).await;
    assert_eq!(moved.accepted(), 1);
}

#[tokio::test]
async fn a_server_that_speaks_first_is_reported() {
    let authority = Authority::new();
    let acceptor = acceptor(&authority.sign(&["127.0.0.1"]), Clients::All, ALL, &[]);
    let mut config = ServerConfig::clone(acceptor.config());
    // The banner then comes with the server's half of the handshake, before any request.
    config.send_half_rtt_data = true;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = Server::start(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let greet = |tls: &mut rustls::ServerConnection| {
                tls.writer().write_all(b"J\0\0\0\x0a8.0.36\0").unwrap()
            };
            let _tls = acceptor.accept_with(stream, greet).await;
            std::future::pending::<()>().await;
        }
    })
    .await;
    let check = https(server.port, &authority.trusted());
    expect_verdict(check, PATIENT, fail("http: not HTTP: the server spoke first")).await;
}

#[tokio::test]
async fn a_probe_that_ends_early_leaves_no_connection() {
    let open = Arc::new(AtomicUsize::new(0));
    let counted = async || {
        let open = open.clone();
        Server::start(move |mut stream| {
            let open = open.clone();
            async move {
                let _open = Open::new(&open);
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        })
        .await
    };
    let authority = Authority::new();
    let pair = authority.sign(&["127.0.0.1"]);
    let silent = counted().await;
    let in_tls = counted().await.in_tls(acceptor(&pair, Clients::All, ALL, &[])).await;
    let (http2, _, open2) = http2(&authority, &["127.0.0.1"]).await;
    let asking = |port, path: &str| HttpCheck {
        path: path.into(),
        expected_body: Some("stopped".into()),
        http2: true,
        ..https(port, &authority.trusted())
    };
    for (check, phase) in [
        (asking(silent.port, "/"), "tls: no answer"),
        (asking(in_tls.port, "/"), "http: no answer"),
        (asking(http2.port, "/silent"), "http: no answer"),
        (asking(http2.port, "/hangs"), "http: the body did not end"),
    ] {
        expect_verdict(check.clone(), SHORT, fail(format!("{phase} in 500ms"))).await;
        let closed = || open.load(Ordering::SeqCst) + open2.load(Ordering::SeqCst) == 0;
        eventually("the connection of a late probe is closed", closed).await;

        let port = check.port;
        let task =
            tokio::spawn(async move { prober(CheckKind::Http(check), PATIENT).probe().await });
        let opened = || open.load(Ordering::SeqCst) + open2.load(Ordering::SeqCst) == 1;
        eventually("the connection of the next probe is there", opened).await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled(), "{port}");
        eventually("the connection of a dropped probe is closed", closed).await;
    }
    assert_eq!(silent.accepted() + in_tls.accepted() + http2.accepted(), 8);
}

#[tokio::test]
async fn no_route_is_inconclusive_over_tls() {
    let group = target(Ipv4Addr::new(224, 0, 0, 1).into());
    let tls = Tls { insecure_skip_verify: true, ..Tls::default() };
    let prober = prober_for(CheckKind::Http(https(443, &tls)), PATIENT, group);
    assert_eq!(timed(&prober, PATIENT).await, inconclusive("connect: no route from this host"));
}

#[tokio::test]
async fn ipv6_is_checked_over_tls_too() {
    let Ok(listener) = tokio::net::TcpListener::bind("[::1]:0").await else {
        eprintln!("skipped: this machine has no IPv6");
        return;
    };
    let port = listener.local_addr().unwrap().port();
    let authority = Authority::new();
    let acceptor = acceptor(&authority.sign(&["::1"]), Clients::All, ALL, &["http/1.1"]);
    let served = tokio::spawn(async move {
        let mut tls = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        let mut head = vec![0; 65536];
        let read = tls.read(&mut head).await.unwrap();
        tls.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        String::from_utf8_lossy(&head[..read]).into_owned()
    });
    let one = target("::1".parse().unwrap());
    let check = https(port, &authority.trusted());
    assert_eq!(prober_for(CheckKind::Http(check), PATIENT, one).probe().await, pass());
    assert!(served.await.unwrap().contains(&format!("\r\nhost: [::1]:{port}\r\n")));
}
