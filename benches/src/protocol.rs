//! The protocols of databases, as far as a check speaks them: the messages of a client that does
//! nothing else, and the answers of a server that answers at once.

use std::sync::LazyLock;

use crate::scram::{self, Answer};

/// A protocol of a database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protocol {
    Redis,
    Mysql,
    Postgres,
    Mongodb,
}

/// The end of a client's connection. All have a reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    None,
    /// A FIN, whose answer causes the reset.
    Fin,
    Farewell(&'static [u8]),
}

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const PONG: &[u8] = b"+PONG\r\n";

/// The messages of MySQL.
struct Mysql {
    greeting: Vec<u8>,
    /// The login of a user without a password.
    login: Vec<u8>,
    ok: Vec<u8>,
    query: Vec<u8>,
    table: Vec<u8>,
}

static MYSQL: LazyLock<Mysql> = LazyLock::new(|| {
    let head = b"\x0a8.0.12\0\x01\0\0\0abcdefgh\0\xff\xf7\x21\x02\0\xff\x81\x15".as_slice();
    let tail = b"ijklmnopqrst\0mysql_native_password\0".as_slice();
    let user = b"\0\x82\x08\0\0\0\0\x01\x21".as_slice();
    Mysql {
        greeting: packet(0, &[head, &[0; 10], tail].concat()),
        login: packet(1, &[user, &[0; 23], b"checker\0\0mysql_native_password\0"].concat()),
        ok: packet(2, b"\0\0\0\x02\0\0\0"),
        query: packet(
            0,
            b"\x03SELECT @@global.read_only, @@global.innodb_read_only, @@global.wsrep_on",
        ),
        table: table(3),
    }
});

const QUIT: &[u8] = b"\x01\0\0\0\x01";

/// Returns a packet of MySQL.
fn packet(sequence: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a short packet").to_le_bytes();
    [&length[..3], &[sequence], body].concat()
}

/// Returns a table of one row with a zero in each column.
fn table(columns: u8) -> Vec<u8> {
    let column = b"\x03def\0\0\0\x01a\0\x0c\x3f\0\x01\0\0\0\x08\x80\0\0\0\0";
    let end = b"\xfe\0\0\x02\0";
    let bodies = std::iter::once(vec![columns])
        .chain((0..columns).map(|_| column.to_vec()))
        .chain([end.to_vec(), b"\x010".repeat(columns.into()), end.to_vec()]);
    (1..).zip(bodies).flat_map(|(sequence, body)| packet(sequence, &body)).collect()
}

/// The messages of PostgreSQL.
struct Postgres {
    /// The begin of a session of a user that need not exist.
    startup: Vec<u8>,
    asks_for_scram: Vec<u8>,
    /// The parameters after a login, and ready.
    ready: Vec<u8>,
    /// A row with `f` and `off`, and ready.
    row: Vec<u8>,
}

static POSTGRES: LazyLock<Postgres> = LazyLock::new(|| {
    let startup = b"\0\x03\0\0user\0external-endpoints\0database\0postgres\0\0";
    let length = u32::try_from(startup.len() + 4).expect("a short message").to_be_bytes();
    let waits = message(b'Z', b"I");
    let column = |name: &[u8]| [name, &[0; 19]].concat();
    let columns = [&[0, 2], &*column(b"a"), &*column(b"b")].concat();
    Postgres {
        startup: [&length[..], startup].concat(),
        asks_for_scram: message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"),
        ready: [
            message(b'R', &[0; 4]),
            message(b'S', b"server_version\x0015.18\0"),
            message(b'K', &[0; 8]),
            waits.clone(),
        ]
        .concat(),
        row: [
            message(b'T', &columns),
            message(b'D', b"\0\x02\0\0\0\x01f\0\0\0\x03off"),
            message(b'C', b"SELECT 1\0"),
            waits,
        ]
        .concat(),
    }
});

/// Returns a message of PostgreSQL.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a short message").to_be_bytes();
    [&[kind], &length[..], body].concat()
}

/// The messages of MongoDB.
struct Mongodb {
    hello: Vec<u8>,
    primary: Vec<u8>,
}

static MONGODB: LazyLock<Mongodb> = LazyLock::new(|| Mongodb {
    hello: op_msg(1, 0, b"\x10hello\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0"),
    primary: op_msg(
        2,
        1,
        b"\x08isWritablePrimary\0\x01\x10maxWireVersion\0\x15\0\0\0\x01ok\0\0\0\0\0\0\0\xf0\x3f",
    ),
});

/// Returns a message of MongoDB with these fields.
fn op_msg(number: i32, answered: i32, fields: &[u8]) -> Vec<u8> {
    let length = i32::try_from(fields.len()).expect("a short message");
    let head = [length + 26, number, answered, 2013, 0].map(i32::to_le_bytes).concat();
    [&head, &[0][..], &(length + 5).to_le_bytes(), fields, &[0]].concat()
}

impl Protocol {
    /// Returns the first word of the server; empty if the client has it.
    pub(crate) fn greeting(self) -> &'static [u8] {
        if self == Self::Mysql { &MYSQL.greeting } else { b"" }
    }

    /// Returns the messages of the bare client, each of which has an answer.
    pub(crate) fn requests(self) -> Vec<&'static [u8]> {
        match self {
            Self::Redis => vec![PING],
            Self::Mysql => vec![&MYSQL.login, &MYSQL.query],
            Self::Postgres => vec![&POSTGRES.startup],
            Self::Mongodb => vec![&MONGODB.hello],
        }
    }

    /// Returns whether the bare client has read a good answer. The server sends it in one piece.
    pub(crate) fn is_answer(self, answer: &[u8]) -> bool {
        match self {
            Self::Redis => answer == PONG,
            Self::Mysql => {
                [&MYSQL.greeting, &MYSQL.ok, &MYSQL.table].iter().any(|it| *it == answer)
            }
            Self::Postgres => answer == POSTGRES.asks_for_scram,
            Self::Mongodb => answer == MONGODB.primary,
        }
    }

    /// Returns the end of the bare client's connection, which is that of the daemon's.
    pub(crate) fn ending(self) -> Ending {
        match self {
            Self::Redis => Ending::None,
            Self::Mysql => Ending::Farewell(QUIT),
            Self::Postgres | Self::Mongodb => Ending::Fin,
        }
    }

    /// Returns the server's answer to a message. None if the session is over, or if no checker
    /// sends that.
    pub(crate) fn answer(self, message: &[u8]) -> Option<Vec<u8>> {
        match (self, message) {
            (Self::Redis, _) if message == PING => Some(PONG.to_vec()),
            (Self::Redis, _) => None,
            (Self::Mysql, [_, _, _, 1, ..]) => Some(MYSQL.ok.clone()),
            (Self::Mysql, [_, _, _, 0, 3, ..]) => Some(MYSQL.table.clone()),
            (Self::Mysql, _) => None,
            (Self::Postgres, [0, ..]) => Some(POSTGRES.asks_for_scram.clone()),
            (Self::Postgres, [b'p', _, _, _, _, body @ ..]) => scram_answer(body),
            (Self::Postgres, [b'Q', ..]) => Some(POSTGRES.row.clone()),
            (Self::Postgres, _) => None,
            (Self::Mongodb, _) if message == MONGODB.hello => Some(MONGODB.primary.clone()),
            (Self::Mongodb, _) => None,
        }
    }
}

/// Returns the answer of PostgreSQL to a message of SCRAM.
fn scram_answer(body: &[u8]) -> Option<Vec<u8>> {
    // The first one has the name of the mechanism and a length before it.
    let first = body.strip_prefix(b"SCRAM-SHA-256\0").and_then(|rest| rest.get(4..));
    Some(match scram::answer(first.unwrap_or(body))? {
        Answer::Challenge(text) => message(b'R', &[&[0, 0, 0, 11], text.as_bytes()].concat()),
        Answer::Final(text) => {
            let last = message(b'R', &[&[0, 0, 0, 12], text.as_bytes()].concat());
            [&*last, &POSTGRES.ready].concat()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bare_client_and_the_server_understand_each_other() {
        for protocol in [Protocol::Redis, Protocol::Mysql, Protocol::Postgres, Protocol::Mongodb] {
            let greeting = protocol.greeting();
            assert!(greeting.is_empty() || protocol.is_answer(greeting), "{protocol:?}");
            for request in protocol.requests() {
                let answer = protocol.answer(request).expect("an answer");
                assert!(protocol.is_answer(&answer), "{protocol:?}: {answer:?}");
            }
            assert!(!protocol.is_answer(b"other") && protocol.answer(b"other").is_none());
        }
        assert!(Protocol::Mysql.answer(QUIT).is_none());
    }

    #[test]
    fn postgres_lets_a_client_log_in_and_ask() {
        let first = message(b'p', b"SCRAM-SHA-256\0\0\0\0\x0bn,,n=,r=abc");
        let challenge = Protocol::Postgres.answer(&first).expect("a challenge");
        assert!(challenge.ends_with(b",i=4096"));
        let last = message(b'p', b"c=biws,r=abcbench,p=cHJvb2Y=");
        let end = Protocol::Postgres.answer(&last).expect("an end");
        assert!(end.ends_with(b"Z\0\0\0\x05I"));
        let row = Protocol::Postgres.answer(&message(b'Q', b"SELECT 1\0")).expect("a row");
        assert!(row.starts_with(b"T") && row.ends_with(b"Z\0\0\0\x05I"));
        assert!(Protocol::Postgres.answer(&message(b'X', b"")).is_none());
    }
}
