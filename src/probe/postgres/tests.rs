//! The answers of real servers and of hostile ones, in one piece and in every split.

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use proptest::prelude::*;

use super::*;
use crate::clock;
use crate::config::ValueSource;
use crate::health::Verdict;
use crate::probe::conversation::{Ending, Exchange, is_expected};

fn check() -> PostgresCheck {
    PostgresCheck {
        port: 5432,
        role: Role::Any,
        max_lag: None,
        user: None,
        password: None,
        database: "postgres".into(),
        tls: None,
    }
}

fn of_role(role: Role) -> PostgresCheck {
    PostgresCheck { role, ..check() }
}

fn with_password() -> PostgresCheck {
    PostgresCheck { password: Some(ValueSource::Literal("secret".into())), ..check() }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    wire::write_message(&mut wire, kind, &[body]);
    wire
}

fn authentication(method: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&method.to_be_bytes()[..], rest].concat())
}

fn error(code: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0VFATAL\0C{code}\0M{text}\0\0").as_bytes())
}

fn row(columns: &[&str]) -> Vec<u8> {
    let mut body = (columns.len() as u16).to_be_bytes().to_vec();
    for column in columns {
        if *column == "NULL" {
            body.extend_from_slice(&u32::MAX.to_be_bytes());
            continue;
        }
        body.extend_from_slice(&(column.len() as u32).to_be_bytes());
        body.extend_from_slice(column.as_bytes());
    }
    message(b'D', &body)
}

fn ready() -> Vec<u8> {
    let version = message(b'S', b"server_version\x0015.18 (Debian 15.18-0+deb12u1)\0");
    [version, message(b'K', b"12345678"), message(b'Z', b"I")].concat()
}

/// Returns the answer to the query.
fn answer(columns: &[&str]) -> Vec<u8> {
    let (head, tag) = (message(b'T', b"\0\0"), message(b'C', b"SELECT 1\0"));
    [head, row(columns), tag, message(b'Z', b"I")].concat()
}

/// Returns all that a server without passwords says.
fn trusting(columns: &[&str]) -> Vec<u8> {
    [authentication(0, b""), ready(), answer(columns)].concat()
}

fn postgres(check: &PostgresCheck) -> Arc<Postgres> {
    Arc::new(Postgres::new(check))
}

fn exchange(postgres: &Arc<Postgres>, transport: Transport) -> Exchange {
    Exchange::new(postgres.clone().start(transport, clock::now()).unwrap())
}

/// Returns the result after an answer in pieces, or that of a close, and the ending before it.
fn run(check: &PostgresCheck, pieces: &[&[u8]]) -> (ProbeResult<()>, Ending) {
    let mut exchange = exchange(&postgres(check), Transport::Plain);
    for piece in pieces {
        if let Some(result) = exchange.receive(piece) {
            return (result, exchange.ending());
        }
    }
    let ending = exchange.ending();
    (Err(exchange.on_close()), ending)
}

const SASL: &[u8] = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
const NO_PROCESS: &str = "startup: \"could not fork new process\"";
const KERBEROS: &str = "?auth: the server asks for Kerberos, which is not spoken";
const METHOD: &str = "?auth: the server asks for method 99, which is not spoken";
const CLEAR: &str = "?auth: the server asks for the password in clear; add tls: {}";
const MECHANISM: &str = "?auth: the server asks for a mechanism that is not spoken";
const NO_RIGHT: &str = "?role: the user lacks a right (42501): \"no\"";
const NO_CONNECT: &str = "?auth: refused (42501): may the user connect to the database?";
const HIDDEN: &str = "role: 42883 (its text names the user or the password)";
const EARLY: &str = "auth: not PostgreSQL: the answer begins …";
const NONCE: &str = "auth: the server answered to another login";
const MALFORMED: &str = "auth: the server's SCRAM message is malformed";
const NONE_GIVEN: &str = "?auth: the server asks for a password, and none is given";
const REFUSED: &str =
    "?auth: refused (28000): does pg_hba.conf let the user in from this host, without TLS?";
const FOREIGN: &str = "startup: not PostgreSQL: the answer begins …";
const MD5_ENDS: &str = "?auth: refused (28P01): is the password right?";

/// Returns checks with an answer and the reason of a failure or, after `?`, of an inconclusive
/// verdict. Empty is a pass.
fn rows() -> Vec<(PostgresCheck, Vec<u8>, &'static str)> {
    let (primary, replica) = (|| of_role(Role::Primary), || of_role(Role::Replica));
    let sasl = || authentication(10, SASL);
    let md5 = || authentication(5, b"salt");
    let ok = || authentication(0, b"");
    let challenge = |text: &[u8]| [sasl(), authentication(11, text)].concat();
    let late = |check, error: Vec<u8>| (check, [authentication(0, b""), error].concat());
    let lag = || PostgresCheck { max_lag: Some(Duration::from_secs(30)), ..replica() };
    let with_lag = |rest: &[&str]| trusting(&[&["t", "on"], rest].concat());
    let mut rows = vec![
        (check(), sasl(), ""),
        (check(), md5(), ""),
        (check(), authentication(3, b""), ""),
        (check(), authentication(7, b""), ""),
        (check(), [message(b'v', b"\0\0\0\0\0\0\0\0"), sasl()].concat(), ""),
        (check(), [message(b'N', b"SNOTICE\0\0"), sasl()].concat(), ""),
        (check(), [authentication(0, b""), ready()].concat(), ""),
        (check(), error("28000", "no pg_hba.conf entry"), ""),
        (check(), error("3D000", "no database"), ""),
        (check(), error("57P03", "starting up"), "startup: not ready: \"starting up\""),
        (check(), error("57P01", "ended\x1b"), "startup: stopping: \"ended\\u{1b}\""),
        (check(), error("53300", "too many"), "startup: full: \"too many\""),
        (check(), error("42501", "no"), "startup: 42501 \"no\""),
        (check(), error("", "no code"), "startup: \"no code\""),
        (check(), message(b'E', b""), "startup: \"\""),
        (check(), b"Ecould not fork new process\n\0".to_vec(), NO_PROCESS),
        (primary(), sasl(), NONE_GIVEN),
        (primary(), authentication(7, b""), KERBEROS),
        (primary(), authentication(99, b""), METHOD),
        (primary(), error("28000", "no entry for \"alice\""), REFUSED),
        (primary(), error("3D000", "no db"), "startup: 3D000 \"no db\""),
        (primary(), trusting(&["f", "off"]), ""),
        (primary(), trusting(&["t", "on"]), "role: replica, not primary"),
        (primary(), trusting(&["f", "on"]), "role: primary, but read-only"),
        (replica(), trusting(&["t", "on"]), ""),
        (replica(), trusting(&["f", "on"]), "role: primary, not replica"),
        (replica(), trusting(&["f", "off"]), "role: primary, not replica"),
        (replica(), trusting(&["x", "off"]), "role: the server answered with no role"),
        (lag(), with_lag(&["99", "t", "f", "t"]), ""),
        (lag(), with_lag(&["31.5", "f", "f", "t"]), "lag: 32s, more than 30s"),
        (lag(), with_lag(&["99", "f", "f", "f"]), ""),
        (with_password(), trusting(&["f", "off"]), ""),
        (with_password(), trusting(&["f", "on"]), ""),
        (with_password(), authentication(3, b""), CLEAR),
        (with_password(), authentication(10, b"OTHER\0\0"), MECHANISM),
        (with_password(), authentication(5, b"s"), "auth: the server's salt is malformed"),
        (with_password(), [md5(), error("28P01", "for \"alice\"")].concat(), MD5_ENDS),
        (with_password(), [md5(), error("53300", "for \"alice\"")].concat(), "auth: full"),
        (with_password(), [md5(), error("XX000", "for \"alice\"")].concat(), "auth: error XX000"),
        (with_password(), [md5(), trusting(&["t", "on"])].concat(), ""),
        (with_password(), [sasl(), authentication(0, b"")].concat(), EARLY),
        (with_password(), challenge(b"r=x,s=W22Z,i=1"), NONCE),
        (with_password(), challenge(b"x"), MALFORMED),
        (with_password(), [ok(), ready(), error("42883", "no")].concat(), "role: 42883 \"no\""),
        (with_password(), [ok(), ready(), error("42883", "of secret")].concat(), HIDDEN),
        (with_password(), [ok(), ready(), error("42501", "no")].concat(), NO_RIGHT),
        (with_password(), [ok(), error("42501", "no")].concat(), NO_CONNECT),
        (with_password(), [ok(), error("3D000", "no")].concat(), "auth: no such database (3D000)"),
        (check(), Vec::new(), "startup: connection closed"),
        (check(), b"R\0\0".to_vec(), "startup: connection closed"),
    ];
    let (refused, text) = late(primary(), error("28000", "role \"alice\" does not exist"));
    rows.push((refused, text, REFUSED));
    let (full, text) = late(primary(), error("53300", "slots are reserved for \"alice\""));
    rows.push((full, text, "auth: full"));
    for foreign in [
        &b"HTTP/1.1 400 Bad Request\r\n"[..],
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"J\0\0\0\x0a5.5.5-10.11.19-MariaDB",
        b"R\0\0\0\x03",
        b"R\0\0\0\x04",
        b"R\xff\xff\xff\xff",
        b"R\x80\0\0\0",
        b"R\0\0\x40\x01",
        b"v\0\0\0\0",
        b"Z\0\0\0\x05I",
        b"\0\0\0\0\0",
    ] {
        rows.push((check(), foreign.to_vec(), FOREIGN));
    }
    rows
}

fn begins(result: &ProbeResult<()>) -> bool {
    let shown = format!("{result:?}");
    // The quote of nonsense shows what has come so far.
    shown.contains("begins")
}

#[test]
fn each_answer_has_its_verdict_in_every_split() {
    for (check, answer, expected) in rows() {
        let (whole, ending) = run(&check, &[&answer]);
        let text = String::from_utf8_lossy(&answer);
        assert!(is_expected(&whole, expected), "{text:?}: {whole:?}, not {expected}");
        assert!(!format!("{whole:?}").contains("alice"), "{whole:?}");
        for at in 0..=answer.len() {
            let (first, second) = answer.split_at(at);
            let split = run(&check, &[first, second]);
            let same = split == (whole.clone(), ending) || (begins(&split.0) && begins(&whole));
            assert!(same, "{text:?} at {at}: {split:?}, not {whole:?}");
        }
        let bytes: Vec<&[u8]> = answer.chunks(1).collect();
        let (single, _) = run(&check, &bytes);
        assert!(single == whole || (begins(&single) && begins(&whole)), "{text:?}: {single:?}");
    }
}

#[test]
fn the_end_is_the_one_that_no_server_logs() {
    let farewell = Ending::Farewell(b"X\0\0\0\x04");
    for (check, answer, ending) in [
        (check(), authentication(10, SASL), Ending::FinReset),
        (check(), [authentication(0, b""), ready()].concat(), farewell),
        (check(), authentication(0, b""), Ending::FinReset),
        (check(), Vec::new(), Ending::FinReset),
        (check(), error("57P03", "starting up"), Ending::Reset),
        (of_role(Role::Primary), trusting(&["f", "off"]), farewell),
        (of_role(Role::Primary), [authentication(0, b""), ready()].concat(), farewell),
        (of_role(Role::Primary), authentication(5, b"salt"), Ending::FinReset),
    ] {
        assert_eq!(run(&check, &[&answer]).1, ending, "{answer:?}");
    }
    let mut closed = exchange(&postgres(&check()), Transport::Plain);
    closed.on_close();
    assert_eq!(closed.ending(), Ending::Reset);
}

#[test]
fn the_first_message_is_that_of_the_protocol() {
    let exchange = exchange(&postgres(&check()), Transport::Plain);
    let expected = b"\0\0\0\x33\0\x03\0\0user\0external-endpoints\0database\0postgres\0\0";
    assert_eq!(exchange.output(), expected);
    let user = Some(ValueSource::Literal("a\0b".into()));
    let started = postgres(&PostgresCheck { user, ..check() }).start(Transport::Tls, clock::now());
    let reason = "files: the user has a NUL character";
    assert_eq!(started.err(), Some(Verdict::Inconclusive(reason.into())));
}

/// The server's side of SCRAM, written anew from the RFC.
struct ScramServer {
    salt: Vec<u8>,
    rounds: u32,
    /// The hash of its own certificate.
    end_point: Vec<u8>,
    mechanism: String,
    /// The client's channel binding header.
    header: String,
    first: String,
}

impl ScramServer {
    fn new(salt: &[u8]) -> Self {
        let (mechanism, header, first) = (String::new(), String::new(), String::new());
        Self { salt: salt.to_vec(), rounds: 16, end_point: Vec::new(), mechanism, header, first }
    }

    /// Returns the server's first message for the client's.
    fn challenge(&mut self, client_first: &[u8]) -> String {
        let text = String::from_utf8(client_first.to_vec()).unwrap();
        let (mechanism, rest) = text.split_once('\0').unwrap();
        let (header, bare) = rest[4..].split_once(",,").unwrap();
        (self.mechanism, self.header) = (mechanism.to_owned(), format!("{header},,"));
        let nonce = bare.split("r=").nth(1).unwrap();
        let salt = BASE64.encode(&self.salt);
        let challenge = format!("r={nonce}more,s={salt},i={}", self.rounds);
        self.first = format!("{bare},{challenge}");
        challenge
    }

    /// Returns whether the client's last message has the channel binding of this server.
    fn is_bound(&self, client_last: &str) -> bool {
        let is_wanted = self.header.starts_with("p=");
        let hash = if is_wanted { &self.end_point[..] } else { &[] };
        let binding = BASE64.encode([self.header.as_bytes(), hash].concat());
        client_last.starts_with(&format!("c={binding},r="))
    }

    /// Returns the server's last message, or none if the client's proof is wrong.
    fn verify(&self, password: &[u8], client_last: &[u8]) -> Option<String> {
        let text = String::from_utf8(client_last.to_vec()).unwrap();
        let (bare, proof) = text.split_once(",p=").unwrap();
        let transcript = format!("{},{bare}", self.first);
        let mut salted = [0; 32];
        let rounds = self.rounds.try_into().unwrap();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &self.salt, password, &mut salted);
        let sign = |key: &[u8], text: &[u8]| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
        };
        let stored = digest::digest(&digest::SHA256, &sign(&salted, b"Client Key"));
        let signature = sign(stored.as_ref(), transcript.as_bytes());
        let proof = BASE64.decode(proof).unwrap();
        let key: Vec<u8> = proof.iter().zip(&signature).map(|(one, other)| one ^ other).collect();
        let is_right = digest::digest(&digest::SHA256, &key).as_ref() == stored.as_ref();
        let proof = sign(&sign(&salted, b"Server Key"), transcript.as_bytes());
        (is_right && self.is_bound(bare)).then(|| format!("v={}", BASE64.encode(proof)))
    }
}

/// Takes the message that the client has sent.
fn sent(exchange: &mut Exchange) -> Vec<u8> {
    let output = exchange.output().to_vec();
    exchange.consume_output(output.len());
    output
}

/// Logs in by SCRAM, where the messages come in pieces of this size. Returns the result and
/// whether keys were computed.
fn log_in(
    postgres: &Arc<Postgres>,
    server: &mut ScramServer,
    password: &[u8],
    size: usize,
) -> (ProbeResult<()>, bool) {
    let mut exchange = exchange(postgres, Transport::Plain);
    sent(&mut exchange);
    let mut computed = false;
    let mut receive = |exchange: &mut Exchange, bytes: Vec<u8>| {
        let mut result = None;
        for piece in bytes.chunks(size) {
            assert!(result.is_none(), "an early {result:?}");
            result = exchange.receive(piece);
            if let Some(work) = exchange.take_work() {
                computed = true;
                work();
                result = exchange.resume();
            }
        }
        result
    };
    assert!(receive(&mut exchange, authentication(10, SASL)).is_none());
    let challenge = server.challenge(&sent(&mut exchange)[5..]);
    assert!(receive(&mut exchange, authentication(11, challenge.as_bytes())).is_none());
    let Some(last) = server.verify(password, &sent(&mut exchange)[5..]) else {
        let result = receive(&mut exchange, error("28P01", "no"));
        return (result.unwrap(), computed);
    };
    let end = [authentication(12, last.as_bytes()), authentication(0, b""), ready()].concat();
    if let Some(result) = receive(&mut exchange, end) {
        return (result, computed);
    }
    assert!(String::from_utf8_lossy(&sent(&mut exchange)).contains("pg_is_in_recovery"));
    let result = receive(&mut exchange, answer(&["f", "off"])).unwrap();
    (result, computed)
}

#[test]
fn a_login_by_scram_computes_the_keys_of_one_salt_once() {
    let postgres = postgres(&with_password());
    let is_ready = || postgres.is_ready(clock::now());
    assert!(!is_ready(), "nothing is known yet");
    let mut server = ScramServer::new(b"salt");
    assert_eq!(log_in(&postgres, &mut server, b"secret", 1), (Ok(()), true));
    assert!(!is_ready(), "the salt may be another one in the next login");
    assert_eq!(log_in(&postgres, &mut server, b"secret", 3), (Ok(()), false));
    assert!(is_ready());
    assert_eq!(postgres.observed().unwrap().observation.to_string(), "primary, PostgreSQL 15.18");

    let mut changed = ScramServer::new(b"other");
    assert_eq!(log_in(&postgres, &mut changed, b"secret", 1000), (Ok(()), true));
    assert!(!is_ready());
    let refused = Err(Verdict::Inconclusive(MD5_ENDS[1..].into()));
    assert_eq!(log_in(&postgres, &mut changed, b"else", 1000), (refused, false));
}

#[test]
fn a_server_that_does_not_know_the_password_fails() {
    let postgres = postgres(&with_password());
    let mut exchange = exchange(&postgres, Transport::Plain);
    sent(&mut exchange);
    assert!(exchange.receive(&authentication(10, SASL)).is_none());
    let challenge = ScramServer::new(b"salt").challenge(&sent(&mut exchange)[5..]);
    assert!(exchange.receive(&authentication(11, challenge.as_bytes())).is_none());
    exchange.take_work().unwrap()();
    assert!(exchange.resume().is_none());
    let result = exchange.receive(&authentication(12, b"v=AAAA"));
    let reason = "auth: the server does not know the password either";
    assert_eq!(result, Some(Err(Verdict::Fail(reason.into()))));
}

#[test]
fn a_clear_password_goes_through_tls_alone() {
    let mut exchange = exchange(&postgres(&with_password()), Transport::Tls);
    sent(&mut exchange);
    assert!(exchange.receive(b"S").is_none() && exchange.awaits_handshake());
    exchange.on_handshake();
    sent(&mut exchange);
    assert!(exchange.receive(&authentication(3, b"")).is_none());
    assert_eq!(exchange.output(), b"p\0\0\0\x0bsecret\0");
    let end = [authentication(0, b""), ready(), answer(&["f", "off"])].concat();
    assert_eq!(exchange.receive(&end), Some(Ok(())));
}

// The example is the answer of a real PostgreSQL 15 and its client.
#[test]
fn the_answer_to_md5_is_that_of_the_protocol() {
    let user = Some(ValueSource::Literal("checker".into()));
    let mut exchange =
        exchange(&postgres(&PostgresCheck { user, ..with_password() }), Transport::Plain);
    sent(&mut exchange);
    assert!(exchange.receive(&authentication(5, &[1, 2, 3, 4])).is_none());
    let output = exchange.output();
    assert_eq!(&output[..5], b"p\0\0\0\x28");
    assert!(output[5..].starts_with(b"md5") && output.len() == 41 && output.ends_with(b"\0"));
}

#[test]
fn an_endless_answer_ends() {
    for (start, more) in [
        (authentication(0, b""), message(b'S', b"a\0b\0")),
        (Vec::new(), message(b'N', b"SNOTICE\0\0")),
        (Vec::new(), b"E".to_vec()),
        (b"N\0\0\x3f\0".to_vec(), b"x".to_vec()),
        ([authentication(0, b""), ready()].concat(), row(&["f", "off"])),
    ] {
        let pieces: Vec<&[u8]> =
            std::iter::once(&start[..]).chain(std::iter::repeat_n(&more[..], 30_000)).collect();
        let (result, _) = run(&of_role(Role::Primary), &pieces);
        assert!(matches!(&result, Err(Verdict::Fail(_))), "{start:?}: {result:?}");
        assert!(!format!("{result:?}").contains("closed"), "{start:?}: {result:?}");
    }
}

mod binding;

proptest! {
    #[test]
    fn any_bytes_have_a_result_in_any_split(
        whole in any::<bool>(),
        tail in proptest::collection::vec(any::<u8>(), 0..200),
        at in 0..300_usize,
    ) {
        let head = if whole { [authentication(0, b""), ready()].concat() } else { Vec::new() };
        let answer = [head, tail].concat();
        let check = of_role(Role::Replica);
        let (whole, _) = run(&check, &[&answer]);
        let (first, second) = answer.split_at(at.min(answer.len()));
        let (split, _) = run(&check, &[first, second]);
        let same = whole == split || (begins(&whole) && begins(&split));
        prop_assert!(same, "{whole:?} {split:?}");
        if let Err(verdict) = whole {
            let reason = verdict.reason().unwrap_or_default();
            prop_assert!(!reason.contains(char::is_control) && reason.len() < 2000);
        }
    }

    #[test]
    fn a_row_is_read_as_it_was_written(
        columns in proptest::collection::vec("[a-z]{0,9}", 0..9),
        cut in 0..20_usize,
    ) {
        let written: Vec<&str> = columns.iter().map(String::as_str).collect();
        let wire = row(&written);
        let mut input = &wire[..];
        let message = wire::take_message(&mut input).unwrap().unwrap();
        let expected: Vec<_> = columns.iter().map(|column| Some(column.as_bytes())).collect();
        prop_assert_eq!(wire::columns(message.body), Some(expected));
        let cut = message.body.len().saturating_sub(cut);
        if cut < message.body.len() {
            prop_assert_eq!(wire::columns(&message.body[..cut]), None);
        }
    }
}
