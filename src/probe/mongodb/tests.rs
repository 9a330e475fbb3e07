//! The answers of real servers and of hostile ones, in one piece and in every split.

use proptest::prelude::*;

use super::*;
use crate::clock;
use crate::probe::conversation::{Exchange, is_expected};

fn check() -> MongodbCheck {
    MongodbCheck { port: 27017, role: Role::Any, max_lag: None, tls: None }
}

fn of_role(role: Role) -> MongodbCheck {
    MongodbCheck { role, ..check() }
}

fn with_lag() -> MongodbCheck {
    MongodbCheck { max_lag: Some(Duration::from_secs(30)), ..check() }
}

fn mongodb(check: &MongodbCheck) -> Arc<Mongodb> {
    Arc::new(Mongodb::new(check))
}

fn exchange(mongodb: &Arc<Mongodb>, now: Instant) -> Exchange {
    Exchange::new(mongodb.clone().start(Transport::Plain, now).unwrap())
}

/// Returns the result after an answer in pieces, and the verdict of a close if there is none.
fn run(check: &MongodbCheck, pieces: &[&[u8]]) -> ProbeResult<()> {
    let mut exchange = exchange(&mongodb(check), clock::now());
    for piece in pieces {
        if let Some(result) = exchange.receive(piece) {
            return result;
        }
    }
    Err(exchange.on_close())
}

/// A value as the reference writer takes it.
#[derive(Debug, Clone)]
enum Written {
    Double(f64),
    Int(i32),
    Long(i64),
    Bool(bool),
    Time(i64),
    Text(String),
    Inner(Vec<(String, Written)>),
    List(Vec<(String, Written)>),
    Raw(u8, Vec<u8>),
}

use Written::*;

fn yes(name: &str) -> (String, Written) {
    (name.to_owned(), Bool(true))
}

fn ok() -> (String, Written) {
    ("ok".to_owned(), Double(1.0))
}

fn sized(content: &[u8], extra: usize) -> Vec<u8> {
    let mut bytes = ((content.len() + extra) as i32).to_le_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes
}

fn document(fields: &[(String, Written)]) -> Vec<u8> {
    let mut content = Vec::new();
    for (name, value) in fields {
        let (kind, bytes) = match value {
            Double(number) => (1, number.to_le_bytes().to_vec()),
            Int(number) => (0x10, number.to_le_bytes().to_vec()),
            Long(number) => (0x12, number.to_le_bytes().to_vec()),
            Bool(value) => (8, vec![u8::from(*value)]),
            Time(time) => (9, time.to_le_bytes().to_vec()),
            Text(text) => (2, sized(&[text.as_bytes(), &[0]].concat(), 0)),
            Inner(inner) => (3, document(inner)),
            List(inner) => (4, document(inner)),
            Raw(kind, bytes) => (*kind, bytes.clone()),
        };
        content.push(kind);
        content.extend_from_slice(name.as_bytes());
        content.push(0);
        content.extend_from_slice(&bytes);
    }
    content.push(0);
    sized(&content, 4)
}

/// Returns the message that answers a request.
fn answer_to(request: i32, document: &[u8]) -> Vec<u8> {
    let header = [(21 + document.len()) as i32, 7, request, OP_MSG, 0];
    let mut message: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    message.push(0);
    message.extend_from_slice(document);
    message
}

const OP_MSG: i32 = 2013;

fn answer(fields: &[(String, Written)]) -> Vec<u8> {
    answer_to(1, &document(fields))
}

/// Returns the answer of a secondary that is so many seconds behind.
fn secondary(behind: i64) -> Vec<u8> {
    let now = 1_700_000_000_000;
    let last_write = vec![
        ("opTime".into(), Inner(vec![("t".into(), Long(4))])),
        ("lastWriteDate".into(), Time(now - behind * 1000)),
    ];
    answer(&[
        ("ismaster".into(), Bool(false)),
        yes("secondary"),
        ("lastWrite".into(), Inner(last_write)),
        ("localTime".into(), Time(now)),
        ok(),
    ])
}

fn error(code: i32, text: &str) -> Vec<u8> {
    let (code, text) = (("code".into(), Int(code)), ("errmsg".into(), Text(text.into())));
    answer(&[("ok".into(), Double(0.0)), text, code])
}

/// The answer of FerretDB 1.24 to `hello`, as it came.
const FERRETDB: &[u8] = b"\xfb\0\0\0\x01\0\0\0\x01\0\0\0\xdd\x07\0\0\0\0\0\0\0\xe6\0\0\0\
    \x08isWritablePrimary\0\x01\x10maxBsonObjectSize\0\0\0\0\x01\x10maxMessageSizeBytes\0\0l\xdc\
    \x02\x10maxWriteBatchSize\0\xa0\x86\x01\0\x09localTime\0\x13\x89\xa0#\xa2\x01\0\0\
    \x10logicalSessionTimeoutMinutes\0\x1e\0\0\0\x10connectionId\0*\0\0\0\x10minWireVersion\0\
    \0\0\0\0\x10maxWireVersion\0\x15\0\0\0\x08readOnly\0\0\x01ok\0\0\0\0\0\0\0\xf0?\0";

const AUTH: &str = "?auth: the server asks for a login before it tells its role; use `exec` or \
                    `tcp`";

/// Returns checks with an answer and the reason of a failure or, after `?`, of an inconclusive
/// verdict. Empty is a pass.
fn rows() -> Vec<(MongodbCheck, Vec<u8>, &'static str)> {
    let (primary, replica) = (|| of_role(Role::Primary), || of_role(Role::Replica));
    let mut rows = Vec::new();
    let mut state = |fields: &[(String, Written)],
                     [any, as_primary, as_replica]: [&'static str; 3]| {
        let answer = answer(&[fields, &[ok()]].concat());
        rows.push((check(), answer.clone(), any));
        rows.push((primary(), answer.clone(), as_primary));
        rows.push((replica(), answer, as_replica));
    };
    let isdbgrid = ("msg".to_owned(), Text("isdbgrid".into()));
    let secondary_too = || yes("secondary");
    state(&[yes("ismaster")], ["", "", "role: primary, not replica"]);
    state(&[yes("isWritablePrimary")], ["", "", "role: primary, not replica"]);
    state(&[("ismaster".into(), Int(1))], ["", "", "role: primary, not replica"]);
    state(&[secondary_too()], ["", "role: replica, not primary", ""]);
    state(&[yes("ismaster"), isdbgrid], ["", "", "role: mongos, not replica"]);
    state(&[yes("arbiterOnly"), secondary_too()], ["role: arbiter"; 3]);
    state(&[yes("hidden"), secondary_too()], ["role: hidden"; 3]);
    state(&[yes("isreplicaset"), secondary_too()], ["role: not yet in a replica set"; 3]);
    state(&[("secondary".into(), Bool(false))], ["role: neither primary nor secondary"; 3]);
    state(&[], ["role: neither primary nor secondary"; 3]);
    let read_only = ["", "role: primary, but read-only", "role: primary, not replica"];
    state(&[yes("ismaster"), yes("readOnly")], read_only);
    rows.extend([
        (primary(), FERRETDB.to_vec(), ""),
        (with_lag(), secondary(30), ""),
        (with_lag(), secondary(31), "lag: 31s, more than 30s"),
        (with_lag(), secondary(-5), ""),
        (with_lag(), FERRETDB.to_vec(), ""),
        (check(), error(13, "command hello requires authentication"), AUTH),
        (check(), error(18, "no"), AUTH),
        (check(), error(91, "shutdown in progress"), "hello: stopping: \"shutdown in progress\""),
        (check(), error(8, "a\r\n\x1b[31m"), "hello: 8 \"a\\r\\n\\u{1b}[31m\""),
        (check(), answer(&[]), "hello: an error without a code and a text"),
        (check(), answer(&[("code".into(), Long(8))]), "hello: error 8"),
        (check(), answer(&[("errmsg".into(), Text("why".into()))]), "hello: \"why\""),
        (check(), Vec::new(), "hello: connection closed"),
        (check(), FERRETDB[..20].to_vec(), "hello: connection closed"),
    ]);
    rows.extend(nonsense_answers().map(|answer| (check(), answer, NONSENSE)));
    rows
}

const NONSENSE: &str = "hello: not MongoDB: the answer begins …";

/// Returns bytes that are no answer.
fn nonsense_answers() -> impl Iterator<Item = Vec<u8>> {
    let edited = |at: usize, bytes: &[u8]| {
        let mut answer = FERRETDB.to_vec();
        answer[at..at + bytes.len()].copy_from_slice(bytes);
        answer
    };
    let field = |kind: u8, bytes: &[u8]| answer(&[("a".into(), Raw(kind, bytes.to_vec())), ok()]);
    let truncated = document(&[yes("ismaster"), ok()]);
    let without_end = [&truncated[..truncated.len() - 1], b"x"].concat();
    [
        b"HTTP/1.1 400 Bad Request\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec(),
        b"\0\0\0\0\0\0\0\0".to_vec(),
        // The length of the message: negative, too short, too long, and shorter than what follows.
        edited(0, &[0xff; 4]),
        edited(0, &[25, 0, 0, 0]),
        edited(0, &[0, 0, 0, 0x7f]),
        edited(0, &[0xfa, 0, 0, 0]),
        // Another request, another kind of message, a flag that must be known, another section.
        edited(8, &[2]),
        edited(12, &[1, 0, 0, 0]),
        edited(16, &[4]),
        edited(20, &[2]),
        edited(20, &[1]),
        // The length of the document.
        edited(21, &[0xff; 4]),
        edited(21, &[4, 0, 0, 0]),
        edited(21, &[0xe5, 0, 0, 0]),
        edited(21, &[0xe7, 0, 0, 0]),
        answer_to(1, &without_end),
        field(0x02, &[0, 0, 0, 0]),
        field(0x02, &[0xff; 4]),
        field(0x02, &[2, 0, 0, 0, b'a', b'b']),
        field(0x02, &[0xff, 0xff, 0xff, 0x7f, 0]),
        field(0x03, &[0xff, 0xff, 0xff, 0x7f, 0]),
        field(0x05, &[0xff, 0xff, 0xff, 0x7f, 0]),
        field(0x20, &[]),
    ]
    .into_iter()
}

/// Returns whether two results are equal but for the quote of nonsense, which shows what has come.
fn are_alike(one: &ProbeResult<()>, other: &ProbeResult<()>) -> bool {
    let begins = |result: &ProbeResult<()>| format!("{result:?}").contains("not MongoDB");
    one == other || (begins(one) && begins(other))
}

#[test]
fn each_answer_has_its_verdict_in_every_split() {
    for (check, answer, expected) in rows() {
        let whole = run(&check, &[&answer]);
        assert!(is_expected(&whole, expected), "{check:?} {answer:?}: {whole:?}, not {expected}");
        for at in 0..=answer.len() {
            let (first, second) = answer.split_at(at);
            let split = run(&check, &[first, second]);
            assert!(are_alike(&split, &whole), "{answer:?} at {at}: {split:?}, not {whole:?}");
        }
        let bytes: Vec<&[u8]> = answer.chunks(1).collect();
        assert!(are_alike(&run(&check, &bytes), &whole), "{answer:?}");
    }
}

#[test]
fn the_command_is_as_the_protocol_has_it() {
    let exchange = exchange(&mongodb(&check()), clock::now());
    let expected = b"\x34\0\0\0\x01\0\0\0\0\0\0\0\xdd\x07\0\0\0\0\0\0\0\
                     \x1f\0\0\0\x10hello\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0";
    assert_eq!(exchange.output(), expected);
}

#[test]
fn an_old_server_is_asked_by_the_old_name_from_then_on() {
    let mongodb = mongodb(&of_role(Role::Primary));
    let sent = |exchange: &Exchange, name: &str| {
        let output = String::from_utf8_lossy(exchange.output()).into_owned();
        output.contains(&format!("\x10{name}\0"))
    };
    let unknown = |request| {
        let fields = [("ok".into(), Double(0.0)), ("code".into(), Int(59))];
        answer_to(request, &document(&fields))
    };
    let good = |request| answer_to(request, &document(&[yes("ismaster"), ok()]));
    for (first, second) in [("hello", "isMaster"), ("isMaster", "hello")] {
        let mut exchange = exchange(&mongodb, clock::now());
        assert!(sent(&exchange, first));
        exchange.consume_output(exchange.output().len());
        assert_eq!(exchange.receive(&unknown(1)), None);
        assert!(sent(&exchange, second));
        assert_eq!(exchange.receive(&good(2)), Some(Ok(())));
    }
    // The other way round is a server that has been upgraded. Neither name is asked twice.
    let mut exchange = exchange(&mongodb, clock::now());
    assert!(sent(&exchange, "hello"));
    let both = [unknown(1), unknown(2)].concat();
    let result = exchange.receive(&both);
    assert_eq!(result, Some(Err(Verdict::Fail("hello: error 59".into()))));
}

#[test]
fn the_lag_is_shown_and_one_that_is_not_known_ages() {
    let mongodb = mongodb(&with_lag());
    let start = clock::now();
    let probe = |answer: &[u8], after: u64| {
        exchange(&mongodb, start + Duration::from_secs(after)).receive(answer).expect("a result")
    };
    assert_eq!(probe(&secondary(4), 100), Ok(()));
    assert_eq!(mongodb.observed().unwrap().observation.to_string(), "replica, 4 s behind");
    let silent = answer(&[yes("secondary"), ok()]);
    assert_eq!(probe(&silent, 126), Ok(()));
    let reason = "lag: unknown for 31s, more than 30s: the server does not say when it last wrote";
    assert_eq!(probe(&silent, 127), Err(Verdict::Fail(reason.into())));
    assert_eq!(probe(FERRETDB, 130), Ok(()));
    let shown = mongodb.observed().unwrap().observation.to_string();
    assert_eq!(shown, "primary, MongoDB 7.0 protocol");

    let unlimited = self::mongodb(&check());
    assert_eq!(exchange(&unlimited, start).receive(&secondary(99)), Some(Ok(())));
    let shown = unlimited.observed().unwrap().observation.to_string();
    assert_eq!(shown, "replica, 99 s behind");
}

#[test]
fn a_message_may_have_more_sections_and_a_checksum() {
    let mut message = FERRETDB.to_vec();
    message.splice(20..20, [1, 8, 0, 0, 0, b'a', 0, 0, 0]);
    message.extend_from_slice(&[0; 4]);
    message[16] = 1;
    assert_eq!(run(&check(), &[&with_length(message)]), Ok(()));
    // Two documents, and a section of no or too great a length, are no answer.
    for section in [&[0, 5, 0, 0, 0, 0][..], &[1, 0, 0, 0, 0], &[1, 9, 0, 0, 0]] {
        let message = with_length([FERRETDB, section].concat());
        assert!(is_expected(&run(&check(), &[&message]), NONSENSE), "{section:?}");
    }
}

/// Returns a message whose length is right.
fn with_length(mut message: Vec<u8>) -> Vec<u8> {
    let length = message.len() as i32;
    message[..4].copy_from_slice(&length.to_le_bytes());
    message
}

#[test]
fn an_endless_or_deep_answer_ends() {
    let deep = (0..10_000).fold(vec![5, 0, 0, 0, 0], |inner, _| {
        // Deeper ones would not fit into a message.
        if inner.len() > 12_000 { inner } else { document(&[("a".into(), Raw(3, inner))]) }
    });
    let deep = answer(&[("a".into(), Raw(3, deep)), yes("ismaster"), ok()]);
    assert_eq!(run(&check(), &[&deep]), Ok(()));

    let mut long = FERRETDB.to_vec();
    long[..4].copy_from_slice(&40_000_000_i32.to_le_bytes());
    let more = [0; 1000];
    let pieces: Vec<&[u8]> =
        std::iter::once(&long[..]).chain(std::iter::repeat_n(&more[..], 100_000)).collect();
    let result = run(&check(), &pieces);
    assert_eq!(result, Err(Verdict::Fail("hello: a message is over 16 KiB".into())));
}

fn written() -> impl Strategy<Value = Written> {
    let leaf = prop_oneof![
        any::<f64>().prop_map(Double),
        any::<i32>().prop_map(Int),
        any::<i64>().prop_map(Long),
        any::<bool>().prop_map(Bool),
        any::<i64>().prop_map(Time),
        "[a-z\u{e9}\0]{0,9}".prop_map(Text),
        // A pattern, an identifier, bytes, a pointer, a timestamp, a decimal number, nothing.
        Just(Raw(0x0b, b"^a\0i\0".to_vec())),
        Just(Raw(0x07, vec![7; 12])),
        Just(Raw(0x05, vec![2, 0, 0, 0, 0, 1, 2])),
        Just(Raw(0x0c, [&[2, 0, 0, 0, b'a', 0][..], &[7; 12]].concat())),
        Just(Raw(0x11, vec![7; 8])),
        Just(Raw(0x13, vec![7; 16])),
        Just(Raw(0x0a, vec![])),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        let fields = || proptest::collection::vec(("[a-z]{0,5}", inner.clone()), 0..5);
        prop_oneof![fields().prop_map(Inner), fields().prop_map(List)]
    })
}

proptest! {
    #[test]
    fn each_document_is_read_as_it_was_written(
        fields in proptest::collection::vec(("[a-z]{0,5}", written()), 0..8),
    ) {
        let bytes = document(&fields);
        let read: Vec<_> = Fields::new(&bytes).unwrap().collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(read.len(), fields.len());
        for ((name, value), (expected, written)) in read.into_iter().zip(&fields) {
            prop_assert_eq!(name, expected.as_bytes());
            match (value, written) {
                (Value::Number(number), Double(expected)) => {
                    prop_assert_eq!(number.to_bits(), expected.to_bits());
                }
                (Value::Number(number), Int(expected)) => {
                    prop_assert_eq!(number as i32, *expected);
                }
                (Value::Number(number), Long(expected)) => {
                    prop_assert_eq!(number, *expected as f64);
                }
                (Value::Bool(value), Bool(expected)) => prop_assert_eq!(value, *expected),
                (Value::Time(time), Time(expected)) => prop_assert_eq!(time, *expected),
                (Value::Text(text), Text(expected)) => {
                    prop_assert_eq!(text, expected.as_bytes());
                }
                (Value::Document(inner), Inner(fields) | List(fields)) => {
                    prop_assert_eq!(inner, document(fields));
                }
                (Value::Other, Raw(..)) => {}
                (value, written) => prop_assert!(false, "{value:?} for {written:?}"),
            }
        }
    }

    #[test]
    fn any_bytes_have_a_result_in_any_split(
        edits in proptest::collection::vec((0..FERRETDB.len(), any::<u8>()), 0..6),
        tail in proptest::collection::vec(any::<u8>(), 0..40),
        keep in 0..=FERRETDB.len(),
        at in 0..300_usize,
    ) {
        let mut answer = FERRETDB.to_vec();
        edits.into_iter().for_each(|(at, byte)| answer[at] = byte);
        answer.truncate(keep);
        answer.extend(tail);
        let whole = run(&with_lag(), &[&answer]);
        let (first, second) = answer.split_at(at.min(answer.len()));
        let split = run(&with_lag(), &[first, second]);
        prop_assert!(are_alike(&whole, &split), "{:?}, {:?}", whole, split);
        if let Err(verdict) = whole {
            let reason = verdict.reason().unwrap_or_default();
            prop_assert!(!reason.contains(char::is_control) && reason.len() < 2000);
        }
    }
}
