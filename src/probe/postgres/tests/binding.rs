//! The login that is bound to the server's certificate.

use super::*;

const PROXY: &str = "auth: refused (28000): does a proxy or an attacker end TLS before the server?";

fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
    let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
    let params = rcgen::CertificateParams::new(vec!["a.example".into()]).unwrap();
    params.self_signed(&key).unwrap().der().to_vec()
}

fn ecdsa() -> Vec<u8> {
    certificate(&rcgen::PKCS_ECDSA_P256_SHA256)
}

fn hash(certificate: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, certificate).as_ref().to_vec()
}

/// Returns a conversation behind TLS with this certificate, to which the startup has been sent.
fn behind_tls(postgres: &Arc<Postgres>, certificate: &[u8]) -> Exchange {
    let mut exchange = exchange(postgres, Transport::Tls);
    sent(&mut exchange);
    assert!(exchange.receive(b"S").is_none() && exchange.awaits_handshake());
    exchange.on_certificate(certificate);
    exchange.on_handshake();
    sent(&mut exchange);
    exchange
}

/// Logs in through TLS with this certificate. Returns the result, or none if the query comes.
fn log_in_behind_tls(
    postgres: &Arc<Postgres>,
    server: &mut ScramServer,
    certificate: &[u8],
    mechanisms: &[u8],
) -> Option<ProbeResult<()>> {
    let mut exchange = behind_tls(postgres, certificate);
    assert_eq!(exchange.receive(&authentication(10, mechanisms)), None);
    let challenge = server.challenge(&sent(&mut exchange)[5..]);
    assert_eq!(exchange.receive(&authentication(11, challenge.as_bytes())), None);
    if let Some(work) = exchange.take_work() {
        work();
        assert_eq!(exchange.resume(), None);
    }
    let Some(last) = server.verify(b"secret", &sent(&mut exchange)[5..]) else {
        return exchange.receive(&error("28000", "SCRAM channel binding check failed"));
    };
    let end = [authentication(12, last.as_bytes()), authentication(0, b""), ready()].concat();
    exchange.receive(&end)
}

#[test]
fn a_login_over_tls_is_bound_to_the_certificate() {
    let postgres = postgres(&with_password());
    let (own, foreign) = (ecdsa(), ecdsa());
    let mut server = ScramServer { end_point: hash(&own), ..ScramServer::new(b"salt") };
    assert_eq!(log_in_behind_tls(&postgres, &mut server, &own, SASL), None);
    assert_eq!(server.mechanism, "SCRAM-SHA-256-PLUS");
    assert_eq!(server.header, "p=tls-server-end-point,,");

    let refused = Some(Err(Verdict::Inconclusive(PROXY.into())));
    assert_eq!(log_in_behind_tls(&postgres, &mut server, &foreign, SASL), refused);

    // Somebody in the middle hides that the server takes a binding. The server sees it by the `y`.
    let plain = b"SCRAM-SHA-256\0\0";
    assert_eq!(log_in_behind_tls(&postgres, &mut server, &foreign, plain), None);
    assert_eq!((&*server.mechanism, &*server.header), ("SCRAM-SHA-256", "y,,"));
    let mut exchange = behind_tls(&postgres, &foreign);
    assert_eq!(exchange.receive(&authentication(10, plain)), None);
    assert_eq!(exchange.receive(&error("28000", "negotiation error")), refused);
}

#[test]
fn a_certificate_without_a_binding_binds_nothing() {
    let postgres = postgres(&with_password());
    let mut server = ScramServer::new(b"salt");
    for certificate in [certificate(&rcgen::PKCS_ED25519), b"no certificate".to_vec()] {
        assert_eq!(log_in_behind_tls(&postgres, &mut server, &certificate, SASL), None);
        assert_eq!((&*server.mechanism, &*server.header), ("SCRAM-SHA-256", "n,,"));
    }
    let mut exchange = behind_tls(&postgres, &certificate(&rcgen::PKCS_ED25519));
    let bound = authentication(10, b"SCRAM-SHA-256-PLUS\0\0");
    let result = exchange.receive(&bound);
    assert_eq!(result, Some(Err(Verdict::Inconclusive(MECHANISM[1..].into()))));
    // Without a binding the words are those for any refusal.
    let mut exchange = behind_tls(&postgres, b"");
    assert_eq!(exchange.receive(&authentication(10, SASL)), None);
    let result = exchange.receive(&error("28000", "no"));
    let reason = "auth: refused (28000): does pg_hba.conf let the user in from this host?";
    assert_eq!(result, Some(Err(Verdict::Inconclusive(reason.into()))));
}

#[test]
fn the_kept_keys_are_those_of_each_binding() {
    let postgres = postgres(&with_password());
    let own = ecdsa();
    let mut server = ScramServer { end_point: hash(&own), ..ScramServer::new(b"salt") };
    assert_eq!(log_in(&postgres, &mut server, b"secret", 1000), (Ok(()), true));
    assert_eq!(server.header, "n,,", "there is no TLS");
    assert_eq!(log_in_behind_tls(&postgres, &mut server, &own, SASL), None);
    assert!(postgres.is_ready(clock::now()), "the keys of the login before were used");
}
