//! The check of PostgreSQL over TLS, and the binding of its login to the server's certificate.

use std::sync::Arc;

use external_endpoints::config::{CheckKind, PostgresCheck, Role, Tls};
use external_endpoints::probe::Prober;
use futures::future::join_all;

use crate::certificates::{ALL, Authority, Clients, Pair, acceptor, openssl_pair};
use crate::fixtures::*;
use crate::postgres_servers::*;
use crate::servers::{Database, find, folder_for, time_waits};
use crate::tls_proxy::TlsProxy;

#[tokio::test]
async fn over_tls_the_words_are_the_same_and_the_log_is_silent() {
    for product in Product::all() {
        let (folder, authority) = (product.new_data(), Authority::new());
        set_certificate(folder.path(), &authority.sign(&["127.0.0.1"]));
        let server = product.primary_in(folder, "-c ssl=on -c max_connections=100").await;
        probe_over_tls(&server, authority.trusted()).await;
    }
    let plain = Product::debian().primary("").await;
    let check = PostgresCheck { tls: Some(Tls::default()), ..postgres(plain.port) };
    assert_eq!(probe(&check).await, fail("tls: the server does not speak TLS"));
}

async fn probe_over_tls(server: &Database, tls: Tls) {
    let secure = |check: PostgresCheck| PostgresCheck { tls: Some(tls.clone()), ..check };
    let (port, log) = (server.port, server.log());
    let logins = ["checker", "md5user", "clear", "trusted"]
        .map(|user| PostgresCheck { role: Role::Primary, ..login(port, user, "secret") });
    for check in std::iter::once(postgres(port)).chain(logins) {
        let kind = CheckKind::Postgres(secure(check));
        let probers: Vec<Prober> = (0..16).map(|_| prober(kind.clone(), PATIENT)).collect();
        for _ in 0..16 {
            let verdicts = join_all(probers.iter().map(Prober::probe)).await;
            assert!(verdicts.iter().all(|verdict| *verdict == pass()), "{kind:?}: {verdicts:?}");
        }
    }
    assert_eq!(time_waits(port), 0);
    let replica = PostgresCheck { role: Role::Replica, ..login(port, "checker", "secret") };
    assert_eq!(probe(&secure(replica)).await, fail("role: primary, not replica"));
    assert_eq!(server.log(), log);
    // A certificate that the check does not trust is a line each time.
    let untrusted = PostgresCheck { tls: Some(Tls::default()), ..postgres(port) };
    let reason = "tls: certificate signed by an unknown authority";
    assert_eq!(probe(&untrusted).await, fail(reason));
    eventually("it is logged", || server.log().lines().count() == log.lines().count() + 1).await;
    let wrong = secure(login(port, "checker", "wrong"));
    let refused = inconclusive("auth: refused (28P01): is the password right?");
    assert_eq!(probe(&wrong).await, refused);
}

#[tokio::test]
async fn a_client_certificate_logs_in_without_a_password() {
    let (product, authority) = (Product::debian(), Authority::new());
    let folder = product.new_data();
    let data = folder.path().join("data");
    set_certificate(folder.path(), &authority.sign(&["127.0.0.1"]));
    std::fs::copy(authority.file(), data.join("ca.crt")).unwrap();
    own(&data.join("ca.crt"));
    let rules = std::fs::read_to_string(data.join("pg_hba.conf")).unwrap();
    let rules = format!("hostssl all certified 127.0.0.1/32 cert\n{rules}");
    std::fs::write(data.join("pg_hba.conf"), rules).unwrap();
    let server = product.primary_in(folder, "-c ssl=on -c ssl_ca_file=ca.crt").await;
    sql(&server, "CREATE ROLE certified LOGIN; CREATE ROLE other LOGIN");
    let named = |name: &str| {
        authority.sign_with(&[name], |params| {
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
        })
    };
    let check = |pair: Option<Pair>| {
        let (cert_file, key_file) = pair.map(|pair| (pair.cert, pair.key)).unzip();
        let tls = Some(Tls { cert_file, key_file, ..authority.trusted() });
        let user = Some(literal("certified"));
        PostgresCheck { tls, user, role: Role::Primary, ..postgres(server.port) }
    };
    let log = server.log();
    assert_eq!(probe(&check(Some(named("certified")))).await, pass());
    assert_eq!(server.log(), log);
    let reason = "auth: refused (28000): does pg_hba.conf let the user in from this host?";
    for wrong in [None, Some(named("other"))] {
        assert_eq!(probe(&check(wrong)).await, inconclusive(reason));
    }
}

#[tokio::test]
async fn the_protocol_is_named_in_the_handshake() {
    let authority = Authority::new();
    let pair = authority.sign(&["127.0.0.1"]);
    let good = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";
    let server = Arc::new(Server::says(&good[..]).await);
    for (alpn, expected) in [
        (&["postgresql"][..], pass()),
        (&[], pass()),
        (&["h2"], fail("tls: the server does not support the protocol `postgresql` (ALPN)")),
    ] {
        let acceptor = acceptor(&pair, Clients::All, ALL, alpn);
        let front = Server::in_tls_of(&server, b"", 8, b"S", acceptor).await;
        let check = PostgresCheck { tls: Some(authority.trusted()), ..postgres(front.port) };
        assert_eq!(probe(&check).await, expected, "{alpn:?}");
    }
}

/// Returns the ways to trust a certificate: by its own file, and without verification.
fn trust(pair: &Pair) -> [Tls; 2] {
    let pinned = Tls { ca_file: Some(pair.cert.clone()), ..Tls::default() };
    [pinned, Tls { insecure_skip_verify: true, ..Tls::default() }]
}

fn self_signed(authority: &Authority, arguments: &[&str]) -> Pair {
    let named = ["-x509", "-addext", "subjectAltName=IP:127.0.0.1"];
    openssl_pair(authority.folder(), &[&named, arguments].concat())
}

/// The options of openssl for a certificate, and the beginning of a login over it.
const CERTIFICATES: &[(&[&str], &str)] = &[
    (&["-newkey", "rsa:2048", "-sha256"], BOUND),
    (&["-newkey", "rsa:2048", "-sha512"], BOUND),
    (&["-newkey", "rsa:2048", "-sha224"], BOUND),
    (&["-newkey", "rsa:2048", "-sha1"], BOUND),
    (&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-sha256"], BOUND),
    (&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-sha384"], BOUND),
    (&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-sha1"], BOUND),
    (&["-newkey", "rsa:2048", "-sha384", "-sigopt", "rsa_padding_mode:pss"], BOUND),
    // RFC 5929 defines no binding for it.
    (&["-newkey", "ed25519"], UNBOUND),
];

const BOUND: &str = "SCRAM-SHA-256-PLUS p=tls-server-end-point,,";
const UNBOUND: &str = "SCRAM-SHA-256 n,,";

#[tokio::test]
async fn a_login_is_bound_to_each_kind_of_certificate() {
    let (product, authority) = (Product::debian(), Authority::new());
    let (first, _) = CERTIFICATES[0];
    let folder = product.new_data();
    set_certificate(folder.path(), &self_signed(&authority, first));
    let server = product.primary_in(folder, "-c ssl=on").await;
    let log = server.log();
    for (arguments, begins) in CERTIFICATES {
        let pair = self_signed(&authority, arguments);
        set_certificate(server.folder.path(), &pair);
        sql(&server, "SELECT pg_reload_conf()");
        // A proxy with the certificate of the server is the server, for a login.
        let proxy = TlsProxy::start(server.port, &pair).await;
        for tls in trust(&pair) {
            let check = |port| PostgresCheck {
                tls: Some(tls.clone()),
                role: Role::Primary,
                ..login(port, "checker", "secret")
            };
            becomes(&check(server.port), pass()).await;
            assert_eq!(probe(&check(proxy.port())).await, pass(), "{arguments:?}");
            assert_eq!(proxy.login(), *begins, "{arguments:?}");
        }
    }
    assert!(!server.log().strip_prefix(&log).unwrap().contains("FATAL"), "{}", server.log());
}

#[tokio::test]
async fn a_login_through_a_proxy_of_tls_is_refused() {
    let (product, authority) = (Product::debian(), Authority::new());
    let folder = product.new_data();
    set_certificate(folder.path(), &authority.sign(&["127.0.0.1"]));
    let server = product.primary_in(folder, "-c ssl=on").await;
    let pair = authority.sign(&["127.0.0.1"]);
    let refused = inconclusive(
        "auth: refused (28000): does a proxy or an attacker end TLS before the server?",
    );
    for (hidden, begins) in [("nothing", BOUND), ("SCRAM-SHA-256-PLUS\0", "SCRAM-SHA-256 y,,")] {
        let proxy = TlsProxy::start_hiding(server.port, &pair, hidden).await;
        for tls in [authority.trusted(), trust(&pair)[1].clone()] {
            let check = PostgresCheck {
                tls: Some(tls.clone()),
                ..login(proxy.port(), "checker", "secret")
            };
            assert_eq!(probe(&check).await, refused);
            assert_eq!(proxy.login(), begins);
            // Without a login there is nothing to protect.
            let check = PostgresCheck { tls: Some(tls), ..postgres(proxy.port()) };
            assert_eq!(probe(&check).await, pass());
        }
    }
}

#[tokio::test]
async fn a_login_to_a_pooler_without_a_binding_passes() {
    let (product, authority) = (Product::debian(), Authority::new());
    let server = product.primary("").await;
    let folder = folder_for("postgres");
    let pair = authority.sign(&["127.0.0.1"]);
    let path = |name: &str| folder.path().join(name);
    std::fs::copy(&pair.cert, path("server.crt")).unwrap();
    std::fs::copy(&pair.key, path("server.key")).unwrap();
    own(&path("server.key"));
    std::fs::write(path("users.txt"), "\"checker\" \"secret\"\n").unwrap();
    let port = server.port;
    let pooler = Database::start(&find("pgbouncer"), "postgres", folder, |folder, listen_port| {
        let place = folder.display();
        let settings = format!(
            "[databases]\npostgres = host=127.0.0.1 port={port}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {listen_port}\nunix_socket_dir = {place}\n\
             auth_type = scram-sha-256\nauth_file = {place}/users.txt\n\
             client_tls_sslmode = require\nclient_tls_cert_file = {place}/server.crt\n\
             client_tls_key_file = {place}/server.key\n"
        );
        std::fs::write(folder.join("pgbouncer.ini"), settings).unwrap();
        vec![format!("{place}/pgbouncer.ini")]
    })
    .await;
    let secure = |port, password| PostgresCheck {
        tls: Some(authority.trusted()),
        role: Role::Primary,
        ..login(port, "checker", password)
    };
    for _ in 0..20 {
        assert_eq!(probe(&secure(pooler.port, "secret")).await, pass(), "{}", pooler.log());
    }
    let refused = probe(&secure(pooler.port, "wrong")).await;
    let reason = format!("{refused:?}");
    assert!(reason.starts_with("Inconclusive(\"auth: refused ("), "{reason}");
    assert!(reason.contains("is the password right?"), "{reason}");
    let proxy = TlsProxy::start(pooler.port, &pair).await;
    assert_eq!(probe(&secure(proxy.port(), "secret")).await, pass());
    assert_eq!(proxy.login(), "SCRAM-SHA-256 y,,");
}

#[tokio::test]
async fn plain_text_behind_the_request_for_tls_is_refused() {
    let authority = Authority::new();
    let tls = Some(authority.trusted());
    for (answer, reason) in [
        ("S\x16\x03\x03", "tls: bytes before the handshake"),
        ("N", "tls: the server does not speak TLS"),
        ("E\0\0\0\x08", "tls: the server answered neither yes nor no to the request for TLS"),
        ("HTTP/1.1 400", "tls: the server answered neither yes nor no to the request for TLS"),
    ] {
        let server = Server::says(answer).await;
        let check = PostgresCheck { tls: tls.clone(), ..postgres(server.port) };
        assert_eq!(probe(&check).await, fail(reason), "{answer:?}");
    }
    let closes = Server::closes().await;
    let check = PostgresCheck { tls, ..postgres(closes.port) };
    let verdict = probe(&check).await;
    assert_eq!(verdict, fail("tls: connection closed in the handshake"));
}
