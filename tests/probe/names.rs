//! Targets that DNS gives for a name: the server's certificate and the Host header are those of
//! the name, and the connection goes to the IP.

use std::sync::{Arc, Mutex};

use external_endpoints::config::{CheckKind, HttpCheck, Scheme, TcpCheck, Tls};
use external_endpoints::health::Verdict;
use external_endpoints::probe::Target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::certificates::*;
use crate::fixtures::*;

const NAME: &str = "pg.corp.example";

fn named_target() -> Target {
    Target { name: Some(NAME.into()), ..target(LOCAL) }
}

async fn probe(kind: CheckKind) -> Verdict {
    timed(&prober_for(kind, PATIENT, named_target()), PATIENT).await
}

/// Returns a check of each kind that has TLS. Both wait for an answer of the server.
fn over_tls(port: u16, tls: Tls) -> [CheckKind; 2] {
    let https = HttpCheck { scheme: Scheme::Https, tls: tls.clone(), ..http(port) };
    let (send, expect) = (Some(literal("PING")), Some("HTTP/1.1 20".into()));
    let tcp = TcpCheck { tls: Some(tls), send, expect, ..tcp(port) };
    [CheckKind::Tcp(tcp), CheckKind::Http(https)]
}

/// The name in the TLS handshake, and the Host header.
type Named = (Option<String>, Option<String>);

/// Starts a TLS server that keeps what each client names.
async fn keep_names(pair: &Pair) -> (Server, Arc<Mutex<Vec<Named>>>) {
    let acceptor = acceptor(pair, Clients::All, ALL, &[]);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keep = seen.clone();
    let server = Server::start(move |stream| {
        let (acceptor, seen) = (acceptor.clone(), keep.clone());
        async move {
            let mut tls = acceptor.accept(stream).await.expect("a handshake");
            let name = tls.get_ref().1.server_name().map(str::to_owned);
            let mut head = vec![0; 65536];
            let read = tls.read(&mut head).await.unwrap_or_default();
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            let host = head.split("\r\n").find_map(|line| line.strip_prefix("host: "));
            seen.lock().unwrap().push((name, host.map(str::to_owned)));
            let _ = tls.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
            let _ = tls.read(&mut [0; 1]).await;
        }
    })
    .await;
    (server, seen)
}

#[tokio::test]
async fn tls_and_host_say_the_name() {
    let authority = Authority::new();
    let (server, seen) = keep_names(&authority.sign(&[NAME])).await;
    for kind in over_tls(server.port, authority.trusted()) {
        assert_eq!(probe(kind).await, pass());
    }
    let host = format!("{NAME}:{}", server.port);
    let name = Some(NAME.to_owned());
    assert_eq!(*seen.lock().unwrap(), [(name.clone(), None), (name, Some(host))]);
}

#[tokio::test]
async fn a_certificate_of_another_name_or_the_ip_fails() {
    let authority = Authority::new();
    for other in ["db.corp.example", "127.0.0.1"] {
        let pair = authority.sign(&[other]);
        let server = tls_server(acceptor(&pair, Clients::All, ALL, &[])).await;
        let reason = format!("tls: certificate is not valid for name {NAME} (it is for {other})");
        for kind in over_tls(server.port, authority.trusted()) {
            assert_eq!(probe(kind).await, fail(&reason));
        }
    }
}

#[tokio::test]
async fn names_of_the_check_come_first() {
    let authority = Authority::new();
    let (server, seen) = keep_names(&authority.sign(&["own.example"])).await;
    let tls = Tls { server_name: Some("own.example".into()), ..authority.trusted() };
    let [_, CheckKind::Http(https)] = over_tls(server.port, tls) else { panic!("an HTTP check") };
    let https = HttpCheck { host: Some("host.example".into()), ..https };
    assert_eq!(probe(CheckKind::Http(https)).await, pass());
    let expected = (Some("own.example".to_owned()), Some("host.example".to_owned()));
    assert_eq!(*seen.lock().unwrap(), [expected]);
}

#[tokio::test]
async fn plain_http_says_the_name_on_both_ways() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let keep = heads.clone();
    let server = Server::start(move |mut stream| {
        let heads = keep.clone();
        async move {
            let mut head = vec![0; 65536];
            let read = stream.read(&mut head).await.unwrap_or_default();
            heads.lock().unwrap().push(String::from_utf8_lossy(&head[..read]).into_owned());
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let fast = http(server.port);
    // A reactor does not search a body.
    let as_task = HttpCheck { expected_body: Some("ok".into()), ..fast.clone() };
    for check in [fast, as_task] {
        assert_eq!(probe(CheckKind::Http(check)).await, pass());
    }
    let heads = heads.lock().unwrap();
    let host = format!("\r\nhost: {NAME}:{}\r\n", server.port);
    assert!(heads.len() == 2 && heads.iter().all(|head| head.contains(&host)), "{heads:?}");
}
