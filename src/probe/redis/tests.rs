//! The replies of real servers and of hostile ones, in one piece and in every split.

use proptest::prelude::*;

use super::*;
use crate::clock;
use crate::config::ValueSource;
use crate::probe::conversation::{Exchange, is_expected};

fn check() -> RedisCheck {
    RedisCheck { port: 6379, role: Role::Any, max_lag: None, user: None, password: None, tls: None }
}

fn of_role(role: Role) -> RedisCheck {
    RedisCheck { role, ..check() }
}

fn with_password() -> RedisCheck {
    RedisCheck { password: Some(ValueSource::Literal("secret".into())), ..check() }
}

fn with_lag() -> RedisCheck {
    RedisCheck { max_lag: Some(Duration::from_secs(30)), ..check() }
}

fn redis(check: &RedisCheck) -> Arc<Redis> {
    Arc::new(Redis::new(check))
}

/// Returns the result after an answer in pieces, and the verdict of a close if there is none.
fn run(redis: &Arc<Redis>, pieces: &[&[u8]]) -> ProbeResult<()> {
    let mut exchange = Exchange::new(redis.clone().start(Transport::Plain, clock::now()).unwrap());
    for piece in pieces {
        if let Some(result) = exchange.receive(piece) {
            return result;
        }
    }
    Err(exchange.on_close())
}

fn commands(check: &RedisCheck) -> String {
    let exchange = Exchange::new(redis(check).start(Transport::Plain, clock::now()).unwrap());
    String::from_utf8(exchange.output().to_vec()).unwrap()
}

const MASTER: &str = "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";
const SLAVE: &str = "*5\r\n$5\r\nslave\r\n$9\r\n10.0.0.31\r\n:6379\r\n$9\r\nconnected\r\n:14\r\n";
const SENTINEL: &str = "*2\r\n$8\r\nsentinel\r\n*1\r\n$8\r\nmymaster\r\n";

/// Returns the reply to `INFO replication` of a replica.
fn info(link: &str, seconds: i64) -> String {
    let text = format!(
        "# Replication\r\nrole:slave\r\nmaster_host:10.0.0.31\r\nmaster_link_status:{link}\r\n\
         master_last_io_seconds_ago:{seconds}\r\nmaster_sync_in_progress:0\r\n"
    );
    format!("${}\r\n{text}\r\n", text.len())
}

/// Returns checks with an answer and the reason of a failure or, after `?`, of an inconclusive
/// verdict. Empty is a pass.
fn rows() -> Vec<(RedisCheck, String, &'static str)> {
    let pong = |rest: &str| format!("+PONG\r\n{rest}");
    let ok = |rest: &str| format!("+OK\r\n+PONG\r\n{rest}");
    let no_auth = "-NOAUTH Authentication required.\r\n";
    let both = format!("{no_auth}{no_auth}");
    let (primary, replica) = (|| of_role(Role::Primary), || of_role(Role::Replica));
    let none_given = "?auth: the server asks for a password, and none is given";
    let nonsense = |answer: &str| (check(), answer.to_owned());
    let mut rows = vec![
        (check(), pong(""), ""),
        (check(), no_auth.into(), ""),
        (primary(), pong(MASTER), ""),
        (primary(), pong(SLAVE), "role: replica, not primary"),
        (primary(), pong(SENTINEL), "role: sentinel, not primary"),
        (replica(), pong(SLAVE), ""),
        (replica(), pong(MASTER), "role: primary, not replica"),
        (replica(), pong(SENTINEL), "role: sentinel, not replica"),
        (primary(), both.clone(), none_given),
        (primary(), format!("-LOADING Redis is loading\r\n{MASTER}"), "ping: loading"),
        (primary(), pong("-NOPERM this user has no permissions\r\n"), NO_ROLE),
        (primary(), pong("-ERR unknown command 'ROLE', with args\r\n"), NO_COMMAND),
        (primary(), pong("$-1\r\n"), "role: not Redis: the answer begins \"$-1\\r\\n\""),
        (primary(), pong("*1\r\n*1\r\n"), NESTED),
        (primary(), pong("*1\r\n$5\r\nother\r\n"), OTHER),
        (primary(), pong("*-1\r\n"), "role: not Redis: the answer begins \"*-1\\r\\n\""),
        (primary(), pong("*0\r\n"), "role: not Redis: the answer begins \"*0\\r\\n\""),
        (with_password(), ok(MASTER), ""),
        (with_password(), ok(SENTINEL), ""),
        (with_password(), ok("-NOPERM no\r\n"), ""),
        (with_password(), ok("-LOADING no\r\n").replace("+PONG", "-LOADING"), "ping: loading"),
        (with_password(), "-WRONGPASS invalid for alice\r\n".into(), REFUSED),
        (with_password(), "-ERR invalid password\r\n".into(), REFUSED_ERR),
        (with_password(), "-ERR Client sent AUTH, but no password is set\r\n".into(), NO_NEED),
        (with_password(), "-ERR wrong number of arguments for 'auth' command\r\n".into(), NO_USERS),
        (with_password(), "-DENIED Redis is running in protected mode\r\n".into(), PROTECTED),
        (with_password(), "-\x1b[31malice hunter2\r\n".into(), REFUSED_NONE),
        (with_password(), "-NO secret\r\n".into(), REFUSED_TEXT),
        (with_password(), "+OK\r\n-ERR what is `secret`?\r\n".into(), HIDDEN),
        (with_password(), "*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n".into(), ECHO),
        (with_lag(), pong(&(info("up", 3) + SLAVE)), ""),
        (with_lag(), pong(&(info("up", 31) + SLAVE)), "lag: 31s, more than 30s"),
        (with_lag(), pong(&(info("down", 31) + SLAVE)), ""),
        (with_lag(), pong(&(info("down", -1) + MASTER)), ""),
        (with_lag(), pong("-NOPERM no\r\n"), "?lag: the user may not run INFO"),
        (with_lag(), both, none_given),
        (check(), "-MASTERDOWN Link with MASTER is down\r\n".into(), NO_LINK),
        (check(), "-BUSY Redis is busy\r\n".into(), "ping: busy with a script"),
        (check(), "-MISCONF Redis\r\n".into(), "ping: can't save, and takes no writes"),
        (check(), "-DENIED Redis is running in protected mode\r\n".into(), PROTECTED),
        (check(), "-ERR max number of clients reached\r\n".into(), "ping: full"),
        (check(), "-NOPERM no\r\n".into(), "?ping: the user may not run PING"),
        (check(), "-ERR \x1b[31mred\u{202e}\r\n".into(), "ping: \"ERR \\u{1b}[31mred\\u{202e}\""),
        (check(), "-\r\n".into(), "ping: \"\""),
        (check(), String::new(), "ping: connection closed"),
        (check(), "+PON".into(), "ping: connection closed"),
    ];
    rows.extend(
        [
            nonsense("HTTP/1.1 400 Bad Request\r\n"),
            nonsense("SSH-2.0-OpenSSH_9.2p1\r\n"),
            nonsense("+OK POP3 ready\r\n"),
            nonsense("$99999999999\r\n"),
            nonsense("$2147483648\r\n"),
            nonsense("$-2\r\n"),
            nonsense("$3\r\nabcde"),
            nonsense("*1\r\n*1\r\n*1\r\n"),
            nonsense(":1\r\n"),
            nonsense("\0\0\0"),
        ]
        .map(|(check, answer)| (check, answer, "ping: not Redis: the answer begins …")),
    );
    rows
}

const NESTED: &str = "role: not Redis: the answer begins \"*1\\r\\n*1\\r\\n\"";
const OTHER: &str = "role: not Redis: the answer begins \"*1\\r\\n$5\\r\\not…\"";
const REFUSED_TEXT: &str =
    "?auth: refused (a text with the user or the password): is the password right?";
const HIDDEN: &str = "ping: (its text names the user or the password)";
const ECHO: &str = "auth: not Redis: the answer begins \"*2\\r\\n$4\\r\\nAU…\"";
const NO_LINK: &str = "ping: no link to its primary";
const NO_ROLE: &str = "?role: the user may not run ROLE";
const NO_COMMAND: &str = "?role: the server has no command ROLE";
const REFUSED: &str = "?auth: refused (WRONGPASS): is the password right?";
const REFUSED_ERR: &str = "?auth: refused (ERR): is the password right?";
const REFUSED_NONE: &str = "?auth: refused (): is the password right?";
const NO_NEED: &str = "?auth: the server has no password; remove `password`";
const NO_USERS: &str = "?auth: the server has no users; remove `user`";
const PROTECTED: &str = "?ping: protected mode: Redis takes no clients from other hosts";

#[test]
fn each_answer_has_its_verdict_in_every_split() {
    for (check, answer, expected) in rows() {
        let answer = answer.as_bytes();
        let whole = run(&redis(&check), &[answer]);
        assert!(is_expected(&whole, expected), "{answer:?}: {whole:?}, not {expected}");
        for at in 0..=answer.len() {
            let (first, second) = answer.split_at(at);
            let split = run(&redis(&check), &[first, second]);
            // The quote of nonsense shows what has come so far.
            let begins = |result: &ProbeResult<()>| format!("{result:?}").contains("begins");
            let same = split == whole || (begins(&split) && begins(&whole));
            assert!(same, "{answer:?} at {at}: {split:?}, not {whole:?}");
        }
        let bytes: Vec<&[u8]> = answer.chunks(1).collect();
        let single = run(&redis(&check), &bytes);
        assert!(single == whole || format!("{single:?}").contains("begins"), "{answer:?}");
    }
}

#[test]
fn all_commands_are_sent_at_once() {
    assert_eq!(commands(&check()), "*1\r\n$4\r\nPING\r\n");
    assert_eq!(commands(&of_role(Role::Primary)), "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nROLE\r\n");
    let login = RedisCheck { user: Some(ValueSource::Literal("ann".into())), ..with_password() };
    assert_eq!(
        commands(&RedisCheck { max_lag: with_lag().max_lag, ..login }),
        "*3\r\n$4\r\nAUTH\r\n$3\r\nann\r\n$6\r\nsecret\r\n*1\r\n$4\r\nPING\r\n\
         *2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n*1\r\n$4\r\nROLE\r\n"
    );
}

#[test]
fn a_lost_primary_ages_its_replicas() {
    let redis = redis(&with_lag());
    let start = clock::now();
    let probe = |answer: String, after: u64| {
        let now = start + Duration::from_secs(after);
        let mut exchange = Exchange::new(redis.clone().start(Transport::Plain, now).unwrap());
        exchange.receive(answer.as_bytes()).expect("a result")
    };
    let linked = |seconds| format!("+PONG\r\n{}{SLAVE}", info("up", seconds));
    let lost = || format!("+PONG\r\n{}{SLAVE}", info("down", -1));
    assert_eq!(probe(linked(8), 100), Ok(()));
    assert_eq!(redis.observed().unwrap().observation.to_string(), "replica, 8 s behind");
    assert_eq!(probe(lost(), 122), Ok(()));
    let reason = "lag: unknown for 31s, more than 30s: no link to its primary";
    assert_eq!(probe(lost(), 123), Err(Verdict::Fail(reason.into())));
    assert_eq!(probe(format!("+PONG\r\n{}{MASTER}", info("down", -1)), 130), Ok(()));
    assert_eq!(redis.observed().unwrap().observation.to_string(), "primary");
    assert_eq!(probe(lost(), 160), Ok(()));
}

#[test]
fn an_endless_answer_ends() {
    for (start, more, expected) in [
        ("+", "P", "ping: a message is over 16 KiB"),
        ("-ERR ", "x", "ping: a message is over 16 KiB"),
        ("$16384\r\n", "x", "ping: a message is over 16 KiB"),
        ("", "*1\r\n", "ping: not Redis: the answer begins \"*1\\r\\n"),
    ] {
        let pieces: Vec<&[u8]> = std::iter::once(start.as_bytes())
            .chain(std::iter::repeat_n(more.as_bytes(), 100_000))
            .collect();
        let result = run(&redis(&check()), &pieces);
        let is_right =
            matches!(&result, Err(Verdict::Fail(reason)) if reason.starts_with(expected));
        assert!(is_right, "{start:?}: {result:?}");
    }
}

#[test]
fn no_text_of_a_refusal_and_no_password_is_shown() {
    let redis = redis(&with_password());
    let result = run(&redis, &[b"-WRONGPASS invalid username-password pair or alice secret\r\n"]);
    let shown = format!("{result:?}");
    assert!(!shown.contains("alice") && !shown.contains("secret"), "{shown}");
}

proptest! {
    // A reference reader of the first reply: the split at CR LF, and nothing else.
    #[test]
    fn any_bytes_have_a_result_in_any_split(
        head in prop_oneof![Just(""), Just("+PONG\r\n"), Just("+"), Just("-"), Just("$3\r\n")],
        tail in proptest::collection::vec(any::<u8>(), 0..200),
        at in 0..200_usize,
        lag in any::<bool>(),
    ) {
        let answer = [head.as_bytes(), &tail].concat();
        let check = if lag { with_lag() } else { of_role(Role::Replica) };
        let whole = run(&redis(&check), &[&answer]);
        let (first, second) = answer.split_at(at.min(answer.len()));
        let split = run(&redis(&check), &[first, second]);
        let begins = |result: &ProbeResult<()>| format!("{result:?}").contains("begins");
        prop_assert!(whole == split || (begins(&whole) && begins(&split)));
        if let Err(verdict) = whole {
            let reason = verdict.reason().unwrap_or_default();
            prop_assert!(!reason.contains(char::is_control) && reason.len() < 2000);
        }
    }

    #[test]
    fn a_bulk_string_is_read_as_it_was_written(
        content in proptest::collection::vec(any::<u8>(), 0..300),
        after in proptest::collection::vec(any::<u8>(), 0..5),
    ) {
        let header = format!("${}\r\n", content.len());
        let wire = [header.as_bytes(), &content, b"\r\n", &after].concat();
        let mut input = &wire[..];
        let reply = resp::take_reply(&mut input);
        prop_assert_eq!(reply, Ok(Some(Reply::Bulk(Some(&content)))));
        prop_assert_eq!(input, &after[..]);
    }
}
