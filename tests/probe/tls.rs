//! TLS in the TCP check and in the HTTP check: both must give the same reason in each case.

use std::sync::{Arc, Mutex};

use external_endpoints::config::{CheckKind, HttpCheck, Scheme, TcpCheck, Tls};
use external_endpoints::health::Verdict;
use rcgen::{BasicConstraints, CertificateParams, IsCa, date_time_ymd};
use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::certificates::*;
use crate::fixtures::*;

fn kinds(port: u16, tls: &Tls) -> [CheckKind; 3] {
    let bare = TcpCheck { tls: Some(tls.clone()), ..tcp(port) };
    let talking = TcpCheck {
        send: Some(literal("GET / HTTP/1.1\r\n\r\n")),
        expect: Some("200 OK".into()),
        ..bare.clone()
    };
    let https = HttpCheck { scheme: Scheme::Https, tls: tls.clone(), ..http(port) };
    [CheckKind::Tcp(bare), CheckKind::Tcp(talking), CheckKind::Http(https)]
}

async fn all_give(port: u16, tls: &Tls, expected: Verdict) {
    for kind in kinds(port, tls) {
        assert_eq!(probe_once(kind.clone(), PATIENT).await, expected, "{kind:?}");
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
async fn a_certificate_may_be_for_a_name_that_is_another_ip() {
    let authority = Authority::new();
    let server = serve(&authority.sign(&["192.0.2.7"])).await;
    let named = |name: &str| Tls { server_name: Some(name.into()), ..authority.trusted() };
    all_give(server.port, &named("192.0.2.7"), pass()).await;
    let reason = "tls: certificate is not valid for name 192.0.2.8 (it is for 192.0.2.7)";
    all_give(server.port, &named("192.0.2.8"), fail(reason)).await;
}

#[tokio::test]
async fn each_fault_of_a_certificate_has_its_reason() {
    let authority = Authority::new();
    let trusted = authority.trusted();
    let server = serve(&authority.sign(&["a.example", "b.example", "10.0.0.1"])).await;
    let reason = "tls: certificate is not valid for name 127.0.0.1 \
         (it is for a.example, b.example, 10.0.0.1)";
    all_give(server.port, &trusted, fail(reason)).await;
    let by_name = Tls { server_name: Some("c.example".into()), ..trusted.clone() };
    let reason = "tls: certificate is not valid for name c.example \
         (it is for a.example, b.example, 10.0.0.1)";
    all_give(server.port, &by_name, fail(reason)).await;

    let expired =
        authority.sign_with(&["127.0.0.1"], |params| params.not_after = date_time_ymd(2026, 1, 2));
    let server = serve(&expired).await;
    all_give(server.port, &trusted, fail("tls: certificate expired on 2026-01-02")).await;

    let early =
        authority.sign_with(&["127.0.0.1"], |params| params.not_before = date_time_ymd(2090, 3, 4));
    let server = serve(&early).await;
    all_give(server.port, &trusted, fail("tls: certificate is not valid before 2090-03-04")).await;

    let server = serve(&authority.self_signed(&["127.0.0.1"])).await;
    let unknown = fail("tls: certificate signed by an unknown authority");
    all_give(server.port, &trusted, unknown.clone()).await;
    // The system's roots, if there are any, do not include the test's CA either.
    for kind in kinds(server.port, &Tls::default()) {
        let verdict = probe_once(kind, PATIENT).await;
        let rootless = "tls: this host has no root certificates; set caFile";
        assert!(verdict == unknown || verdict == inconclusive(rootless), "{verdict:?}");
    }
    let skipping = Tls { insecure_skip_verify: true, ..Tls::default() };
    all_give(server.port, &skipping, pass()).await;
}

#[tokio::test]
async fn without_verification_any_certificate_passes() {
    let authority = Authority::new();
    let skipping = Tls { insecure_skip_verify: true, ..Tls::default() };
    let made: [&[&str]; 5] = [
        // X.509 version 1.
        &["-newkey", "rsa:2048"],
        &["-newkey", "rsa:1024"],
        &["-x509", "-newkey", "rsa:1024"],
        &["-x509", "-newkey", "rsa:3072", "-sha1"],
        &["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
    ];
    for arguments in made {
        let pair = openssl_pair(authority.folder(), arguments);
        for version in ["-tls1_2", "-tls1_3"] {
            openssl_passes(&pair, version, &skipping).await;
        }
    }
    let expired =
        authority.sign_with(&["a.example"], |params| params.not_after = date_time_ymd(2026, 1, 2));
    all_give(serve(&expired).await.port, &skipping, pass()).await;
    // rustls has no Ed448 in TLS 1.2.
    let pair = openssl_pair(authority.folder(), &["-x509", "-newkey", "ed448"]);
    openssl_passes(&pair, "-tls1_3", &skipping).await;
}

async fn openssl_passes(pair: &Pair, version: &str, tls: &Tls) {
    let server = OpenSsl::start(pair, &[version]).await;
    for kind in kinds(server.port, tls) {
        let verdict = probe_once(expecting(kind.clone(), "200 ok"), PATIENT).await;
        assert_eq!(verdict, pass(), "{pair:?} {version} {kind:?}");
    }
}

/// Returns the check with these words expected in the answer, if there are any.
fn expecting(mut kind: CheckKind, words: &str) -> CheckKind {
    if let CheckKind::Tcp(TcpCheck { expect: Some(expect), .. }) = &mut kind {
        *expect = words.into();
    }
    kind
}

#[tokio::test]
async fn without_verification_the_server_still_holds_its_key() {
    let authority = Authority::new();
    let (one, other) = (authority.sign(&["127.0.0.1"]), authority.sign(&["127.0.0.1"]));
    let mixed = Pair { cert: one.cert, key: other.key };
    let skipping = Tls { insecure_skip_verify: true, ..Tls::default() };
    for versions in [ALL, OLD] {
        let server = tls_server(unchecked_acceptor(&mixed, versions)).await;
        all_give(server.port, &skipping, fail("tls: certificate signed by an unknown authority"))
            .await;
    }
}

#[tokio::test]
async fn a_certificate_in_its_own_ca_file_is_trusted() {
    let authority = Authority::new();
    let is_ca =
        |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = |pair: &Pair| Tls { ca_file: Some(pair.cert.clone()), ..Tls::default() };
    let names = ["127.0.0.1", "pg.corp.example"];
    // With CA:TRUE, as `openssl req -x509` makes it; without; and one signed by another CA.
    let (root, leaf) = (authority.self_signed_with(&names, is_ca), authority.self_signed(&names));
    for pair in [&root, &leaf, &authority.sign(&names)] {
        let server = serve(pair).await;
        all_give(server.port, &own(pair), pass()).await;
        let named = |name: &str| Tls { server_name: Some(name.into()), ..own(pair) };
        all_give(server.port, &named("pg.corp.example"), pass()).await;
        let reason = "tls: certificate is not valid for name a.example \
             (it is for 127.0.0.1, pg.corp.example)";
        all_give(server.port, &named("a.example"), fail(reason)).await;
    }
    let expired = authority.self_signed_with(&names, |params| {
        is_ca(params);
        params.not_after = date_time_ymd(2026, 1, 2);
    });
    let server = serve(&expired).await;
    all_give(server.port, &own(&expired), fail("tls: certificate expired on 2026-01-02")).await;
    // Another certificate of the same name and kind is not trusted.
    let server = serve(&authority.self_signed_with(&names, is_ca)).await;
    all_give(server.port, &own(&root), fail("tls: certificate is a CA's, not a server's")).await;
    let server =
        OpenSsl::start(&openssl_pair(authority.folder(), &["-newkey", "rsa:2048"]), &[]).await;
    let reason = "tls: certificate has no names because it is X.509 version 1; \
         reissue it with a subjectAltName";
    all_give(server.port, &own(&root), fail(reason)).await;
}

#[tokio::test]
async fn a_client_certificate_is_required_in_both_versions() {
    let authority = Authority::new();
    let other = Authority::new();
    let pair = authority.sign(&["127.0.0.1"]);
    for versions in [ALL, OLD] {
        let server = tls_server(acceptor(&pair, Clients::Known(&authority), versions, &[])).await;
        let asks = fail("tls: the server requires a client certificate");
        all_give(server.port, &authority.trusted(), asks).await;

        let with = |pair: Pair| Tls {
            cert_file: Some(pair.cert),
            key_file: Some(pair.key),
            ..authority.trusted()
        };
        all_give(server.port, &with(authority.sign(&["client"])), pass()).await;

        for kind in kinds(server.port, &with(other.sign(&["client"]))) {
            let Verdict::Fail(reason) = probe_once(kind.clone(), PATIENT).await else {
                panic!("{kind:?} did not fail");
            };
            assert!(
                reason.starts_with("tls: the server refused the client certificate ("),
                "{kind:?}: {reason}"
            );
        }
    }
    // A server that requires a certificate.
    let server = tls_server(acceptor(&pair, Clients::Asked(&authority), ALL, &[])).await;
    all_give(server.port, &authority.trusted(), pass()).await;
}

#[tokio::test]
async fn no_version_in_common_is_reported() {
    let authority = Authority::new();
    let server = Server::says(b"\x15\x03\x01\x00\x02\x02\x46").await;
    all_give(server.port, &authority.trusted(), fail("tls: no TLS version in common")).await;
    let server = Server::says(b"\x15\x03\x03\x00\x02\x02\x28").await;
    let named = Tls { server_name: Some("pg.corp.example".into()), ..authority.trusted() };
    all_give(server.port, &named, fail("tls: no TLS version or cipher in common")).await;
}

#[tokio::test]
async fn a_server_that_needs_a_name_says_so() {
    let authority = Authority::new();
    let needed = "the server needs a server name, and none was sent; set `tls.serverName`";
    // The alerts of HAProxy, nginx and Caddy for a client without a known server name.
    let table = [
        (
            40,
            format!("no TLS version or cipher in common, or {needed}"),
            "no TLS version or cipher in common",
        ),
        (112, needed.into(), "the server does not know the server name"),
        (
            80,
            format!("the server aborted TLS (InternalError), maybe because {needed}"),
            "the server aborted TLS (InternalError)",
        ),
    ];
    for (alert, unnamed, named) in table {
        let server = Server::says([0x15, 3, 3, 0, 2, 2, alert]).await;
        // A client does not send an IP as server name.
        for name in [None, Some("192.0.2.7".into())] {
            let tls = Tls { server_name: name, ..authority.trusted() };
            all_give(server.port, &tls, fail(format!("tls: {unnamed}"))).await;
        }
        let tls = Tls { server_name: Some("pg.corp.example".into()), ..authority.trusted() };
        all_give(server.port, &tls, fail(format!("tls: {named}"))).await;
    }
}

#[tokio::test]
async fn unusable_files_are_inconclusive() {
    let authority = Authority::new();
    let server = serve(&authority.sign(&["127.0.0.1"])).await;
    let folder = authority.folder();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (one, two) = (authority.sign(&["client"]), authority.sign(&["client"]));
    let (empty, garbage) =
        (write("empty", ""), write("garbage", "-----BEGIN CERTIFICATE-----\n!!\n"));
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
        (ca(&garbage), format!("caFile {} is not valid PEM", garbage.display())),
        (
            client(&missing, &one.key),
            format!("cannot read certFile {}: no such file", missing.display()),
        ),
        (
            client(&one.cert, &missing),
            format!("cannot read keyFile {}: no such file", missing.display()),
        ),
        (
            client(&one.cert, &empty),
            format!("keyFile {} holds no PEM private key", empty.display()),
        ),
        (
            client(&one.cert, &two.key),
            format!(
                "keyFile {} does not belong to certFile {}",
                two.key.display(),
                one.cert.display()
            ),
        ),
    ];
    for (tls, reason) in table {
        all_give(server.port, &tls, inconclusive(format!("tls: {reason}"))).await;
    }
    assert_eq!(server.accepted(), 0, "nobody was bothered with what could not work");
}

#[tokio::test]
async fn a_rotated_file_is_used_at_the_next_probe() {
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
    // The kubelet replaces a Secret this way: another file under the same name.
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
        assert_eq!(
            std::mem::take(&mut *kinds_seen.lock().unwrap()),
            [Some(HandshakeKind::Full); 3]
        );
    }
}

#[tokio::test]
async fn session_tickets_without_end_fail_a_check() {
    let authority = Authority::new();
    let pair = authority.sign(&["127.0.0.1"]);
    for (alpn, http2) in [("http/1.1", false), ("h2", true)] {
        let acceptor = acceptor_with_tickets(&pair, &[alpn], 60_000);
        let server = Server::start(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(mut tls) = acceptor.accept(stream).await else {
                    return;
                };
                let mut buffer = vec![0; 4096];
                while tls.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
            }
        })
        .await;
        let tls = authority.trusted();
        let check =
            HttpCheck { scheme: Scheme::Https, http2, tls: tls.clone(), ..http(server.port) };
        let talking = TcpCheck { tls: Some(tls), expect: Some("never".into()), ..tcp(server.port) };
        for kind in [CheckKind::Http(check), CheckKind::Tcp(talking)] {
            let verdict = probe_once(kind.clone(), PATIENT).await;
            assert_eq!(
                verdict,
                fail("tls: the server has sent over 4 MiB, more than a check reads"),
                "{kind:?}"
            );
        }
    }
}
