//! TLS in the TCP check and in the HTTP check: each case runs through both and must give the same words.

use std::sync::{Arc, Mutex};

use external_endpoints::config::{CheckKind, HttpCheck, Scheme, TcpCheck, Tls};
use external_endpoints::health::Verdict;
use rcgen::date_time_ymd;
use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::certificates::*;
use crate::fixtures::*;

fn kinds(port: u16, tls: &Tls) -> [CheckKind; 3] {
    let bare = TcpCheck { tls: Some(tls.clone()), ..tcp(port) };
    let talking =
        TcpCheck { send: Some(literal("GET / HTTP/1.1\r\n\r\n")), expect: Some("200 OK".into()), ..bare.clone() };
    let https = HttpCheck { scheme: Scheme::Https, tls: tls.clone(), ..http(port) };
    [CheckKind::Tcp(bare), CheckKind::Tcp(talking), CheckKind::Http(https)]
}

async fn all_give(port: u16, tls: &Tls, expected: Verdict) {
    for kind in kinds(port, tls) {
        assert_eq!(try_once(kind.clone(), PATIENT).await, expected, "{kind:?}");
    }
}

async fn serve(pair: &Pair) -> Server {
    tls_server(acceptor(pair, Clients::All, ALL, &[])).await
}

#[tokio::test]
async fn a_good_certificate_passes_by_address_and_by_name() {
    let authority = Authority::new();
    let server = serve(&authority.sign(&["127.0.0.1", "pg.corp.example"])).await;
    all_give(server.port, &authority.trusted(), pass()).await;
    let by_name = Tls { server_name: Some("pg.corp.example".into()), ..authority.trusted() };
    all_give(server.port, &by_name, pass()).await;
}

#[tokio::test]
async fn a_certificate_may_be_for_another_ip_that_is_not_the_one_connected_to() {
    let authority = Authority::new();
    let server = serve(&authority.sign(&["192.0.2.7"])).await;
    let named = |name: &str| Tls { server_name: Some(name.into()), ..authority.trusted() };
    all_give(server.port, &named("192.0.2.7"), pass()).await;
    let reason = "tls: certificate is not valid for name 192.0.2.8 (it is for 192.0.2.7)";
    all_give(server.port, &named("192.0.2.8"), fail(reason)).await;
}

#[tokio::test]
async fn each_flaw_of_a_certificate_has_its_words() {
    let authority = Authority::new();
    let trusted = authority.trusted();
    let server = serve(&authority.sign(&["a.example", "b.example", "10.0.0.1"])).await;
    let reason = "tls: certificate is not valid for name 127.0.0.1 (it is for a.example, b.example, 10.0.0.1)";
    all_give(server.port, &trusted, fail(reason)).await;
    let by_name = Tls { server_name: Some("c.example".into()), ..trusted.clone() };
    let reason = "tls: certificate is not valid for name c.example (it is for a.example, b.example, 10.0.0.1)";
    all_give(server.port, &by_name, fail(reason)).await;

    let expired = authority.sign_with(&["127.0.0.1"], |params| params.not_after = date_time_ymd(2026, 1, 2));
    let server = serve(&expired).await;
    all_give(server.port, &trusted, fail("tls: certificate expired on 2026-01-02")).await;

    let early = authority.sign_with(&["127.0.0.1"], |params| params.not_before = date_time_ymd(2090, 3, 4));
    let server = serve(&early).await;
    all_give(server.port, &trusted, fail("tls: certificate is not valid before 2090-03-04")).await;

    let server = serve(&authority.self_signed(&["127.0.0.1"])).await;
    let unknown = fail("tls: certificate signed by an unknown authority");
    all_give(server.port, &trusted, unknown.clone()).await;
    // The system's roots, where there are any, know nothing of it either.
    for kind in kinds(server.port, &Tls::default()) {
        let verdict = try_once(kind, PATIENT).await;
        let rootless = "tls: this host has no root certificates; name some with caFile";
        assert!(verdict == unknown || verdict == inconclusive(rootless), "{verdict:?}");
    }
    let skipping = Tls { insecure_skip_verify: true, ..Tls::default() };
    all_give(server.port, &skipping, pass()).await;
}

#[tokio::test]
async fn a_client_certificate_is_asked_for_in_both_versions() {
    let authority = Authority::new();
    let other = Authority::new();
    let pair = authority.sign(&["127.0.0.1"]);
    for versions in [ALL, OLD] {
        let server = tls_server(acceptor(&pair, Clients::Known(&authority), versions, &[])).await;
        let asks = fail("tls: the server asks for a client certificate");
        all_give(server.port, &authority.trusted(), asks).await;

        let with = |pair: Pair| Tls { cert_file: Some(pair.cert), key_file: Some(pair.key), ..authority.trusted() };
        all_give(server.port, &with(authority.sign(&["client"])), pass()).await;

        for kind in kinds(server.port, &with(other.sign(&["client"]))) {
            let Verdict::Fail(reason) = try_once(kind.clone(), PATIENT).await else {
                panic!("{kind:?} did not fail");
            };
            assert!(reason.starts_with("tls: the server refuses the client certificate ("), "{kind:?}: {reason}");
        }
    }
    // One that asks and takes no for an answer.
    let server = tls_server(acceptor(&pair, Clients::Asked(&authority), ALL, &[])).await;
    all_give(server.port, &authority.trusted(), pass()).await;
}

#[tokio::test]
async fn no_version_in_common_is_said() {
    let authority = Authority::new();
    let server = Server::says(b"\x15\x03\x01\x00\x02\x02\x46").await;
    all_give(server.port, &authority.trusted(), fail("tls: no TLS version in common")).await;
    let server = Server::says(b"\x15\x03\x03\x00\x02\x02\x28").await;
    all_give(server.port, &authority.trusted(), fail("tls: no TLS version or cipher in common")).await;
}

#[tokio::test]
async fn files_that_cannot_be_used_are_our_own_fault() {
    let authority = Authority::new();
    let server = serve(&authority.sign(&["127.0.0.1"])).await;
    let folder = authority.folder();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (one, two) = (authority.sign(&["client"]), authority.sign(&["client"]));
    let (empty, garbage) = (write("empty", ""), write("garbage", "-----BEGIN CERTIFICATE-----\n!!\n"));
    let missing = folder.join("missing");
    let ca = |path: &std::path::Path| Tls { ca_file: Some(path.into()), ..Tls::default() };
    let client = |cert: &std::path::Path, key: &std::path::Path| Tls {
        cert_file: Some(cert.into()),
        key_file: Some(key.into()),
        ..authority.trusted()
    };
    let table = [
        (ca(&missing), format!("cannot read caFile {}: no such file", missing.display())),
        (ca(folder), format!("cannot read caFile {}: it is a directory", folder.display())),
        (ca(&empty), format!("caFile {} holds no PEM certificate", empty.display())),
        (ca(&garbage), format!("caFile {} is broken PEM", garbage.display())),
        (client(&missing, &one.key), format!("cannot read certFile {}: no such file", missing.display())),
        (client(&one.cert, &missing), format!("cannot read keyFile {}: no such file", missing.display())),
        (client(&one.cert, &empty), format!("keyFile {} holds no PEM private key", empty.display())),
        (
            client(&one.cert, &two.key),
            format!("keyFile {} does not belong to certFile {}", two.key.display(), one.cert.display()),
        ),
    ];
    for (tls, reason) in table {
        all_give(server.port, &tls, inconclusive(format!("tls: {reason}"))).await;
    }
    assert_eq!(server.accepted(), 0, "nobody was bothered with what could not work");
}

#[tokio::test]
async fn a_rotated_file_is_used_at_the_next_try() {
    let (old, new) = (Authority::new(), Authority::new());
    let server = serve(&new.sign(&["127.0.0.1"])).await;
    let probers = kinds(server.port, &old.trusted()).map(|kind| prober(kind, PATIENT));
    for prober in &probers {
        let unknown = fail("tls: certificate signed by an unknown authority");
        assert_eq!(prober.probe().await, unknown);
    }
    std::fs::copy(new.file(), old.file()).unwrap();
    for prober in &probers {
        assert_eq!(prober.probe().await, pass());
    }
    // As the kubelet swaps a Secret: another file under the same name.
    let next = old.folder().join("next");
    std::fs::write(&next, "no certificate\n").unwrap();
    std::fs::rename(&next, old.file()).unwrap();
    for prober in &probers {
        let reason = format!("tls: caFile {} holds no PEM certificate", old.file().display());
        assert_eq!(prober.probe().await, inconclusive(reason));
    }
}

#[tokio::test]
async fn every_handshake_is_a_full_one() {
    let authority = Authority::new();
    let acceptor = acceptor(&authority.sign(&["127.0.0.1"]), Clients::All, ALL, &[]);
    let kinds_seen = Arc::new(Mutex::new(Vec::new()));
    let keep = kinds_seen.clone();
    let server = Server::start(move |stream| {
        let (acceptor, seen) = (acceptor.clone(), keep.clone());
        async move {
            let mut tls = acceptor.accept(stream).await.unwrap();
            seen.lock().unwrap().push(tls.get_ref().1.handshake_kind());
            let _ = tls.read(&mut [0; 65536]).await;
            let _ = tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            let _ = tls.flush().await;
            let _ = tls.read(&mut [0; 65536]).await;
        }
    })
    .await;
    let [_, talking, https] = kinds(server.port, &authority.trusted());
    for kind in [talking, https] {
        let prober = prober(kind, PATIENT);
        for _ in 0..3 {
            assert_eq!(prober.probe().await, pass());
        }
        assert_eq!(std::mem::take(&mut *kinds_seen.lock().unwrap()), [Some(HandshakeKind::Full); 3]);
    }
}
