//! The answers of real servers and of hostile ones, in one piece and in every split.

mod lag;
mod rows;

use proptest::prelude::*;

use self::rows::{MALFORMED, rows};
use super::auth::Scramble;
use super::*;
use crate::clock;
use crate::config::ValueSource;
use crate::health::Verdict;
use crate::probe::conversation::{Ending, Exchange, is_expected};

const SCRAMBLE: &Scramble = b"12345678901234567890";

/// A result, the ending, and the last bytes that were sent.
type Outcome = (ProbeResult<()>, Ending, Vec<u8>);

fn check() -> MysqlCheck {
    MysqlCheck {
        port: 3306,
        role: Role::Any,
        max_lag: None,
        user: ValueSource::Literal("checker".into()),
        password: Some(ValueSource::Literal("secret".into())),
        donor: true,
        fetch_public_key: false,
        tls: None,
    }
}

fn of_role(role: Role) -> MysqlCheck {
    MysqlCheck { role, ..check() }
}

fn with_lag() -> MysqlCheck {
    MysqlCheck { max_lag: Some(Duration::from_secs(30)), ..of_role(Role::Replica) }
}

fn packet(sequence: u8, body: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    wire::write_packet(&mut wire, sequence, &[body]);
    wire
}

fn greeting_of(version: &str, capabilities: u32, plugin: &str) -> Vec<u8> {
    let [a, b, c, d] = capabilities.to_le_bytes();
    let body = [
        &[10],
        version.as_bytes(),
        b"\0\x07\0\0\0",
        &SCRAMBLE[..8],
        &[0, a, b, 33, 2, 0, c, d, 21],
        &[0; 10],
        &SCRAMBLE[8..],
        b"\0",
        plugin.as_bytes(),
        b"\0",
    ];
    packet(0, &body.concat())
}

const MARIADB: &str = "5.5.5-10.11.19-MariaDB-0+deb12u1";

fn greeting() -> Vec<u8> {
    greeting_of(MARIADB, 0x81ff_ffff, "mysql_native_password")
}

fn sha2_greeting() -> Vec<u8> {
    greeting_of("8.0.12", 0x81ff_ffff, "caching_sha2_password")
}

fn ok() -> Vec<u8> {
    packet(2, b"\0\0\0\x02\0\0\0")
}

fn error(code: u16, text: &str) -> Vec<u8> {
    let [low, high] = code.to_le_bytes();
    packet(2, &[&[0xff, low, high], &b"#28000"[..], text.as_bytes()].concat())
}

/// Returns an error in place of the greeting, which has no SQLSTATE.
fn early(code: u16, text: &str) -> Vec<u8> {
    let [low, high] = code.to_le_bytes();
    packet(0, &[&[0xff, low, high], text.as_bytes()].concat())
}

fn switch(plugin: &str) -> Vec<u8> {
    packet(2, &[b"\xfe", plugin.as_bytes(), b"\0", SCRAMBLE, b"\0"].concat())
}

fn more(data: &[u8]) -> Vec<u8> {
    packet(4, &[&[1], data].concat())
}

fn text(value: &str) -> Vec<u8> {
    if value == "NULL" {
        return vec![0xfb];
    }
    let length = value.len() as u32;
    let head = match length {
        0..251 => vec![length as u8],
        251..0x1_0000 => [&[0xfc], &length.to_le_bytes()[..2]].concat(),
        _ => [&[0xfd], &length.to_le_bytes()[..3]].concat(),
    };
    [&head, value.as_bytes()].concat()
}

fn table(names: &[&str], rows: &[&[&str]]) -> Vec<u8> {
    let end = packet(9, b"\xfe\0\0\x02\0");
    let mut wire = packet(1, &[names.len() as u8]);
    for name in names {
        let head = ["def", "", "", ""].map(text).concat();
        let tail = [&text(""), &b"\x0c\x3f\0\x01\0\0\0\x08\x80\0\0\0\0"[..]].concat();
        wire.extend(packet(2, &[head, text(name), tail].concat()));
    }
    wire.extend(&end);
    for row in rows {
        let values: Vec<Vec<u8>> = row.iter().map(|value| text(value)).collect();
        wire.extend(packet(3, &values.concat()));
    }
    wire.extend(end);
    wire
}

fn writable(values: &[&str]) -> Vec<u8> {
    table(&["a", "b", "c", "d"][..values.len()], &[values])
}

fn galera(state: &str) -> Vec<u8> {
    table(&["Variable_name", "Value"], &[&["wsrep_local_state", state]])
}

fn replication(receiver: &str, applier: &str, seconds: &str) -> Vec<u8> {
    let names = ["Slave_IO_Running", "Slave_SQL_Running", "Seconds_Behind_Master"];
    table(&names, &[&[receiver, applier, seconds]])
}

/// Returns all that a server says that lets the user log in at once.
fn session(rest: &[Vec<u8>]) -> Vec<u8> {
    [greeting(), ok(), rest.concat()].concat()
}

fn mysql(check: &MysqlCheck) -> Arc<Mysql> {
    Arc::new(Mysql::new(check, ([10, 0, 0, 1], 3306).into(), Arc::default()))
}

fn exchange(mysql: &Arc<Mysql>, transport: Transport) -> Exchange {
    Exchange::new(mysql.clone().start(transport, clock::now()).unwrap())
}

/// Returns the details of the newest probe in words.
fn shown(mysql: &Mysql) -> String {
    mysql.observed().expect("an observation").observation.to_string()
}

fn run_of(mysql: &Arc<Mysql>, pieces: &[&[u8]]) -> Outcome {
    let mut exchange = exchange(mysql, Transport::Plain);
    for piece in pieces {
        if let Some(result) = exchange.receive(piece) {
            exchange.on_result(&result);
            return (result, exchange.ending(), exchange.output().to_vec());
        }
    }
    let result = Err(exchange.on_close());
    exchange.on_result(&result);
    (result, exchange.ending(), exchange.output().to_vec())
}

fn run(check: &MysqlCheck, pieces: &[&[u8]]) -> Outcome {
    run_of(&mysql(check), pieces)
}

/// Returns whether two results are the same but for a quote, which shows what has come so far.
fn are_alike(one: &ProbeResult<()>, other: &ProbeResult<()>) -> bool {
    let quotes = |result: &ProbeResult<()>| format!("{result:?}").contains("begins");
    one == other || (quotes(one) && quotes(other))
}

#[test]
fn each_answer_has_its_verdict_in_every_split() {
    for (check, answer, expected) in rows() {
        let (whole, ending, _) = run(&check, &[&answer]);
        let shown = String::from_utf8_lossy(&answer).into_owned();
        assert!(is_expected(&whole, expected), "{shown:?}: {whole:?}, not {expected}");
        for at in 0..=answer.len() {
            let (first, second) = answer.split_at(at);
            let (split, split_ending, _) = run(&check, &[first, second]);
            assert!(are_alike(&split, &whole), "{shown:?} at {at}: {split:?}, not {whole:?}");
            assert_eq!(split_ending, ending, "{shown:?} at {at}");
        }
        let bytes: Vec<&[u8]> = answer.chunks(1).collect();
        assert!(are_alike(&run(&check, &bytes).0, &whole), "{shown:?}");
    }
}

#[test]
fn only_a_session_ends_with_quit() {
    for (wire, ending) in [
        (greeting(), Ending::Reset),
        ([greeting(), error(1045, "")].concat(), Ending::Reset),
        (session(&[]), Ending::Farewell(wire::QUIT)),
        (session(&[packet(1, &[1])]), Ending::Farewell(wire::QUIT)),
        (session(&[writable(&["0", "0", "0"])]), Ending::Farewell(wire::QUIT)),
        (session(&[error(1053, "")]), Ending::Farewell(wire::QUIT)),
        (early(1129, ""), Ending::Reset),
    ] {
        assert_eq!(run(&check(), &[&wire]).1, ending, "{wire:?}");
    }
}

#[test]
fn a_login_that_cannot_be_finished_gets_a_wrong_answer() {
    for (plugin, answer) in [
        ("client_ed25519", &[0; 64][..]),
        ("dialog", &[0]),
        ("mysql_clear_password", &[0]),
        ("sha256_password", &[0]),
    ] {
        let wire = [greeting(), switch(plugin)].concat();
        let (_, _, sent) = run(&check(), &[&wire]);
        assert!(sent.ends_with(&packet(3, answer)), "{plugin}: {sent:?}");
        assert!(!contains(&sent, b"secret"), "{plugin}");
    }
    let cold = [sha2_greeting(), more(&[4])].concat();
    let (_, _, sent) = run(&check(), &[&cold]);
    assert!(sent.ends_with(&packet(5, &[0])) && !contains(&sent, b"secret"));
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

// The values were computed with Python's hashlib by the formulas of MySQL's manual.
#[test]
fn the_answers_to_a_scramble_are_those_of_other_clients() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&auth::native(b"secret", SCRAMBLE)), NATIVE_ANSWER);
    assert_eq!(hex(&auth::caching_sha2(b"secret", SCRAMBLE)), SHA2_ANSWER);
    assert!(auth::native(b"", SCRAMBLE).is_empty());
    assert!(auth::caching_sha2(b"", SCRAMBLE).is_empty());
}

const NATIVE_ANSWER: &str = "0f8b9033e0897c0a8338ebe3dea9010dda47ab56";
const SHA2_ANSWER: &str = "51ecd6dedbd34d5445c0a190d4f51acf0d23b94db66c91f3f789faa9193751cd";

#[test]
fn the_password_is_encrypted_with_the_servers_key() {
    use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
    use aws_lc_rs::rsa::{
        KeySize, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, PrivateDecryptingKey,
    };
    use base64::Engine as _;
    let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
    let der: PublicKeyX509Der<'_> = private.public_key().as_der().unwrap();
    let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n");
    let check = MysqlCheck { fetch_public_key: true, ..check() };
    let start = [sha2_greeting(), more(&[4])].concat();
    let mut exchange = exchange(&mysql(&check), Transport::Plain);
    assert_eq!(exchange.receive(&start), None);
    assert!(exchange.output().ends_with(&packet(5, &[2])));
    exchange.consume_output(exchange.output().len());
    assert_eq!(exchange.receive(&packet(6, &[b"\x01", pem.as_bytes()].concat())), None);
    let encrypted = exchange.output()[4..].to_vec();
    let private = OaepPrivateDecryptingKey::new(private).unwrap();
    let mut clear = vec![0; private.min_output_size()];
    let clear = private.decrypt(&OAEP_SHA1_MGF1SHA1, &encrypted, &mut clear, None).unwrap();
    let masked: Vec<u8> = b"secret\0".iter().zip(SCRAMBLE).map(|(a, b)| a ^ b).collect();
    assert_eq!(clear, masked);
    assert_eq!(exchange.receive(&[ok(), writable(&["0", "0", "0"])].concat()), Some(Ok(())));

    let unusable = "auth: the server's public key is not usable";
    for key in [&b"no key"[..], b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"]
    {
        let wire = [start.clone(), more(key), error(1045, "")].concat();
        let result = run(&check, &[&wire]).0;
        assert!(is_expected(&result, unusable), "{key:?}: {result:?}");
    }
    let huge = [start, more(&vec![b'-'; 256 << 10])].concat();
    let result = run(&check, &[&huge]).0;
    assert!(is_expected(&result, MALFORMED), "{result:?}");
}

#[test]
fn over_tls_the_password_may_be_in_clear() {
    let mysql = mysql(&check());
    let mut exchange = exchange(&mysql, Transport::Tls);
    assert_eq!(exchange.receive(&sha2_greeting()), None);
    assert!(exchange.awaits_handshake() && exchange.check_nothing_unread().is_ok());
    // The request has the properties of the login, and no user.
    assert_eq!(exchange.output()[..4], [32, 0, 0, 1]);
    assert_eq!(exchange.output().len(), 36);
    exchange.consume_output(36);
    exchange.on_handshake();
    assert_eq!(exchange.output()[3], 2);
    assert!(contains(exchange.output(), b"checker\0"));
    assert_eq!(exchange.receive(&more(&[4])), None);
    assert!(exchange.output().ends_with(&packet(5, b"secret\0")));
    assert_eq!(exchange.receive(&[ok(), writable(&["0", "0", "0"])].concat()), Some(Ok(())));
    assert_eq!(shown(&mysql), "primary, MySQL 8.0.12");

    let plain = greeting_of(MARIADB, 0x81ff_f7ff, "mysql_native_password");
    let mut exchange = self::exchange(&mysql, Transport::Tls);
    let no_tls = Phase::Tls.fail("the server does not speak TLS");
    assert_eq!(exchange.receive(&plain), Some(Err(no_tls)));
    assert!(exchange.output().is_empty());

    let mut exchange = self::exchange(&mysql, Transport::Tls);
    assert_eq!(exchange.receive(&[greeting(), ok()].concat()), None);
    let early = Phase::Tls.fail("bytes before the handshake");
    assert_eq!(exchange.check_nothing_unread(), Err(early));
}

#[test]
fn pam_may_ask_for_the_password_alone() {
    let outcome = |answer: &[u8]| {
        let mut exchange = exchange(&mysql(&check()), Transport::Tls);
        assert_eq!(exchange.receive(&greeting()), None);
        exchange.on_handshake();
        assert_eq!(exchange.receive(&switch("mysql_clear_password")), None);
        assert!(exchange.output().ends_with(&packet(3, b"secret\0")));
        exchange.receive(answer)
    };
    assert_eq!(outcome(&[ok(), writable(&["0", "0", "0"])].concat()), Some(Ok(())));
    let another = packet(4, b"\x02Code: ");
    let verdict = outcome(&[another, error(1045, "Access denied")].concat());
    assert_eq!(verdict, Some(Err(Phase::Auth.inconclusive(verdicts::MORE))));
}

#[test]
fn the_variables_of_a_version_are_remembered() {
    let mysql = mysql(&check());
    let unknown = || error(1193, "Unknown system variable 'wsrep_on'");
    let first = session(&[unknown(), unknown(), writable(&["0", "0"])]);
    assert_eq!(run_of(&mysql, &[&first]).0, Ok(()));
    let (_, _, sent) = run_of(&mysql, &[&session(&[])]);
    assert!(sent.ends_with(b"SELECT @@global.read_only, @@global.innodb_read_only"));
    assert_eq!(run_of(&mysql, &[&session(&[writable(&["0", "0"])])]).0, Ok(()));
    // Another version may have all of them.
    let other = greeting_of("8.0.36", 0x81ff_ffff, "mysql_native_password");
    let (_, _, sent) = run_of(&mysql, &[&[other, ok()].concat()]);
    assert!(sent.ends_with(b", @@global.wsrep_reject_queries"));
}

#[test]
fn versions_have_their_names_and_their_words() {
    for (version, shown, word) in [
        (MARIADB, "MariaDB 10.11.19", ReplicaWord::AllSlaves),
        ("11.4.5-MariaDB-log", "MariaDB 11.4.5", ReplicaWord::AllSlaves),
        ("5.5.68-MariaDB", "MariaDB 5.5.68", ReplicaWord::Slave),
        ("8.0.12", "MySQL 8.0.12", ReplicaWord::Slave),
        ("8.0.22-commercial", "MySQL 8.0.22", ReplicaWord::Replica),
        ("8.4.0", "MySQL 8.4.0", ReplicaWord::Replica),
        ("9.1.0", "MySQL 9.1.0", ReplicaWord::Replica),
        ("5.5.5-x", "MySQL 5.5.5", ReplicaWord::Slave),
        ("10", "MySQL 10", ReplicaWord::Replica),
    ] {
        assert_eq!(product(version).as_deref(), Some(shown));
        assert_eq!(replica_word(version), word, "{version}");
    }
    assert_eq!(product("x\x1b[31m"), None);
    assert_eq!(product(&"1".repeat(200)).unwrap().len(), "MySQL ".len() + MAX_VERSION_LENGTH);
}

#[test]
fn what_mysql_counts_holds_the_brake() {
    let held = |wire: &[u8]| {
        let mysql = mysql(&check());
        for _ in 0..10 {
            drop(run_of(&mysql, &[wire]));
        }
        !mysql.server_speaks_first(clock::now())
    };
    assert!(held(&greeting()));
    assert!(held(&[greeting(), switch("mysql_native_password")].concat()));
    assert!(held(&[sha2_greeting(), more(&[4]), more(&[4])].concat()));
    // Greetings of old versions, which cannot be read.
    assert!(held(&packet(0, b"\x0a4.0.1\0\x01\0\0\x0012345678\0")));
    assert!(held(&packet(0, b"\x093.20\0\x01\0\0\x0012345678\0")));
    assert!(!held(&packet(0, b"SSH-2.0-x")));
    assert!(!held(b""));
    assert!(!held(&greeting()[..20]));
    assert!(!held(&early(1040, "")));
    assert!(!held(&[greeting(), error(1045, "")].concat()));
    assert!(!held(&[greeting(), switch("client_ed25519"), error(1045, "")].concat()));
    assert!(!held(&[sha2_greeting(), more(&[4]), error(1045, "")].concat()));
    assert!(!held(&session(&[])));

    let mysql = mysql(&check());
    (0..10).for_each(|_| drop(run_of(&mysql, &[&greeting()])));
    let started = mysql.clone().start(Transport::Plain, clock::now());
    let Err(Verdict::Fail(reason)) = started.map(drop) else { panic!("the brake does not hold") };
    let note = "(asked again in 1m, as MySQL blocks hosts that do not finish)";
    assert_eq!(reason, format!("auth: connection closed {note}"));
    mysql.on_connect_failure(ConnectFailure::Refused, clock::now());
    assert!(mysql.server_speaks_first(clock::now()));
}

#[test]
fn without_a_login_no_server_is_made_to_greet() {
    let long = "x".repeat(10_000);
    for (user, password) in [("", ""), ("a\0b", ""), (&long[..], ""), ("checker", &long[..])] {
        let value = |text: &str| ValueSource::Literal(text.into());
        let mysql =
            mysql(&MysqlCheck { user: value(user), password: Some(value(password)), ..check() });
        assert!(!mysql.server_speaks_first(clock::now()), "{user}");
        let started = mysql.clone().start(Transport::Plain, clock::now()).map(drop);
        let Err(Verdict::Inconclusive(reason)) = started else { panic!("{started:?}") };
        assert!(reason.starts_with("files: the "), "{reason}");
    }
}

#[test]
fn no_user_and_no_password_is_shown() {
    for (check, answer, _) in rows() {
        let shown = format!("{:?}", run(&check, &[&answer]).0);
        assert!(!shown.contains("checker") && !shown.contains("secret"), "{shown}");
    }
}

proptest! {
    #[test]
    fn any_bytes_have_a_result_in_any_split(
        head in 0..5_usize,
        tail in proptest::collection::vec(any::<u8>(), 0..200),
        at in 0..400_usize,
    ) {
        let heads = [
            Vec::new(),
            greeting(),
            session(&[]),
            session(&[packet(1, &[1])]),
            session(&[writable(&["1", "0", "0"])]),
        ];
        let answer = [&heads[head][..], &tail].concat();
        let (whole, ..) = run(&with_lag(), &[&answer]);
        let (first, second) = answer.split_at(at.min(answer.len()));
        let (split, ..) = run(&with_lag(), &[first, second]);
        prop_assert!(are_alike(&whole, &split), "{whole:?}, {split:?}");
        if let Err(verdict) = whole {
            let reason = verdict.reason().unwrap_or_default();
            prop_assert!(!reason.contains(char::is_control) && reason.len() < 2000);
        }
    }

    // A reference reader of packets, written after the protocol's description.
    #[test]
    fn packets_are_read_as_they_were_written(
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..5),
        rest in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        let mut wire = Vec::new();
        for (sequence, body) in bodies.iter().enumerate() {
            wire.extend([body.len() as u8, (body.len() >> 8) as u8, 0, sequence as u8]);
            wire.extend(body);
        }
        wire.extend(&rest);
        let mut input = &wire[..];
        for (sequence, body) in bodies.iter().enumerate() {
            let packet = wire::take_packet(&mut input).unwrap().unwrap();
            prop_assert_eq!((packet.sequence, packet.body), (sequence as u8, &body[..]));
        }
        prop_assert_eq!(input, &rest[..]);
    }
}
