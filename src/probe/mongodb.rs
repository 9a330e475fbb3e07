//! The check of MongoDB: one `hello`, which a server answers before any login.
//!
//! ```text
//!  hello     -->
//!            <--  role, times, versions; or error 59 from a server older than 4.4.2
//!  isMaster  -->  after error 59, and first from then on
//! ```
//!
//! The first row that fits an answer without an error, as the drivers' specification orders them:
//!
//! | answer                          | server                    | `any`  | `primary` | `replica` |
//! | ---                             | ---                       | ---    | ---       | ---       |
//! | `isreplicaset`                  | not yet in a replica set  | fail   | fail      | fail      |
//! | `msg: "isdbgrid"`               | mongos                    | pass   | pass      | fail      |
//! | `arbiterOnly`                   | arbiter                   | fail   | fail      | fail      |
//! | `hidden`                        | hidden member             | fail   | fail      | fail      |
//! | `isWritablePrimary`, `ismaster` | primary or standalone     | pass   | pass      | fail      |
//! | `secondary`                     | secondary                 | by lag | fail      | by lag    |
//! | none of these                   | starts, recovers, removed | fail   | fail      | fail      |
//!
//! The lag is the time between the newest write that the member has applied and its own clock. It
//! grows by itself when the primary dies.
//!
//! mongod logs each connection, however it ends. FerretDB also logs a warning for each reset, but
//! not for a FIN and a reset.

mod bson;
mod message;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::bson::{Fields, Malformed, Value};
use super::conversation::{Conversation, Ending, Protocol, Transport};
use super::kind::{CheckProber, NewProber};
use super::native::NativeProber;
use super::observation::{Lag, Observation, Observed, Observer, ServerRole};
use super::phase::{Phase, ProbeResult};
use super::server_text::{Secrets, not_of_protocol, quote_server};
use super::target::Target;
use crate::config::{MongodbCheck, Role};
use crate::health::Verdict;

const PRODUCT: &str = "MongoDB";

/// The note about a check of a server that is up.
const NOTE: &str = "MongoDB logs two lines for each check, unless `systemLog.quiet` is on; see \
                    docs/guides/native-checks.md";

/// The errors that decide.
const UNAUTHORIZED: [i64; 2] = [13, 18];
const COMMAND_NOT_FOUND: i64 = 59;
const STOPPING: [i64; 2] = [91, 11_600];

/// The versions of MongoDB by the version of the protocol that they say.
const VERSIONS: [(i64, &str); 9] = [
    (6, "3.6"),
    (7, "4.0"),
    (8, "4.2"),
    (9, "4.4"),
    (13, "5.0"),
    (17, "6.0"),
    (21, "7.0"),
    (25, "8.0"),
    (27, "8.2"),
];

/// The protocol of one MongoDB.
struct Mongodb {
    role: Role,
    max_lag: Option<Duration>,
    memory: Mutex<Memory>,
}

/// The part of earlier probes that the next one needs, or that people want to see.
#[derive(Default)]
struct Memory {
    observer: Observer,
    command: Command,
}

/// The command that asks for the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Command {
    #[default]
    Hello,
    /// The name of the same before MongoDB 4.4.2.
    IsMaster,
}

/// One conversation.
struct Dialog {
    mongodb: Arc<Mongodb>,
    now: Instant,
    command: Command,
    /// The number of the request that was sent last.
    request: i32,
}

/// The answer to a command, as far as a check reads it.
#[derive(Debug, Default)]
struct Answer<'a> {
    is_ok: bool,
    code: Option<i64>,
    error: Option<&'a [u8]>,
    is_uninitiated: bool,
    is_router: bool,
    is_arbiter: bool,
    is_hidden: bool,
    is_primary: bool,
    is_secondary: bool,
    is_read_only: bool,
    wire_version: Option<i64>,
    local_time: Option<i64>,
    last_write: Option<i64>,
}

impl NewProber for MongodbCheck {
    fn new_prober(&self, target: &Target) -> Box<dyn CheckProber> {
        let address = SocketAddr::new(target.ip, self.port);
        let protocol = Arc::new(Mongodb::new(self));
        Box::new(NativeProber::new(address, protocol, self.tls.as_ref(), target))
    }
}

impl Protocol for Mongodb {
    fn start(self: Arc<Self>, _: Transport, now: Instant) -> ProbeResult<Box<dyn Conversation>> {
        let command = self.memory().command;
        Ok(Box::new(Dialog { mongodb: self, now, command, request: 1 }))
    }

    fn observed(&self) -> Option<Observed> {
        self.memory().observer.newest()
    }
}

impl Mongodb {
    fn new(check: &MongodbCheck) -> Self {
        Self { role: check.role, max_lag: check.max_lag, memory: Mutex::default() }
    }

    /// Checks the role and, of a secondary, the lag.
    fn check(&self, answer: &Answer<'_>, now: Instant) -> ProbeResult<()> {
        let product = answer.wire_version.map(product);
        let observation = Observation { product, note: Some(NOTE), ..Observation::default() };
        let observer = &mut self.memory().observer;
        let role = match answer.role() {
            Ok(role) => role,
            Err(state) => {
                observer.record(observation, now);
                return Err(Phase::Role.fail(state));
            }
        };
        let role_verdict = role.check(self.role).and_then(|()| match self.role {
            Role::Primary if answer.is_read_only => Err(Phase::Role.fail("primary, but read-only")),
            _ => Ok(()),
        });
        // Without a limit the lag is only shown.
        let lag = match answer.lag() {
            Lag::Known(lag) if role == ServerRole::Replica => Some(lag),
            _ => None,
        };
        let observation = Observation { role: Some(role), lag, ..observation };
        observer.check(observation, role_verdict, (answer.lag(), self.max_lag), now)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Conversation for Dialog {
    fn begin(&mut self, output: &mut Vec<u8>) {
        message::write_command(output, self.request, self.command.as_str());
    }

    fn advance(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> Option<ProbeResult<()>> {
        loop {
            let before = *input;
            let document = match message::take_document(input, self.request) {
                Ok(Some(document)) => document,
                Ok(None) => return None,
                Err(message::NotMessage) => return Some(Err(nonsense(before))),
            };
            let Ok(answer) = Answer::read(document) else {
                return Some(Err(nonsense(before)));
            };
            if answer.is_ok {
                return Some(self.mongodb.check(&answer, self.now));
            }
            // One of the two names is right, and is the first to be asked from then on.
            if answer.code != Some(COMMAND_NOT_FOUND) || self.request > 1 {
                return Some(Err(answer.error_verdict()));
            }
            self.command = self.command.other();
            self.mongodb.memory().command = self.command;
            self.request += 1;
            self.begin(output);
        }
    }

    fn phase(&self) -> Phase {
        Phase::Hello
    }

    fn ending(&self) -> Ending {
        Ending::FinReset
    }
}

impl Command {
    fn as_str(self) -> &'static str {
        match self {
            Command::Hello => "hello",
            Command::IsMaster => "isMaster",
        }
    }

    fn other(self) -> Self {
        match self {
            Command::Hello => Command::IsMaster,
            Command::IsMaster => Command::Hello,
        }
    }
}

impl<'a> Answer<'a> {
    fn read(document: &'a [u8]) -> Result<Self, Malformed> {
        let mut answer = Self::default();
        for field in Fields::new(document)? {
            let (name, value) = field?;
            match (name, value) {
                (b"ok", value) => answer.is_ok = is_true(value),
                (b"code", Value::Number(code)) => answer.code = Some(code as i64),
                (b"errmsg", Value::Text(text)) => answer.error = Some(text),
                (b"isreplicaset", value) => answer.is_uninitiated = is_true(value),
                (b"msg", Value::Text(text)) => answer.is_router = text == b"isdbgrid",
                (b"arbiterOnly", value) => answer.is_arbiter = is_true(value),
                (b"hidden", value) => answer.is_hidden = is_true(value),
                (b"isWritablePrimary" | b"ismaster", value) => answer.is_primary = is_true(value),
                (b"secondary", value) => answer.is_secondary = is_true(value),
                (b"readOnly", value) => answer.is_read_only = is_true(value),
                (b"maxWireVersion", Value::Number(version)) => {
                    answer.wire_version = Some(version as i64);
                }
                (b"localTime", Value::Time(time)) => answer.local_time = Some(time),
                (b"lastWrite", Value::Document(inner)) => {
                    answer.last_write = last_write(inner)?;
                }
                _ => {}
            }
        }
        Ok(answer)
    }

    /// Returns the role of a server that clients may use, or the state of any other.
    fn role(&self) -> Result<ServerRole, &'static str> {
        match () {
            () if self.is_uninitiated => Err("not yet in a replica set"),
            () if self.is_router => Ok(ServerRole::Router),
            () if self.is_arbiter => Err("arbiter"),
            () if self.is_hidden => Err("hidden"),
            () if self.is_primary => Ok(ServerRole::Primary),
            () if self.is_secondary => Ok(ServerRole::Replica),
            () => Err("neither primary nor secondary"),
        }
    }

    /// Returns how far a secondary is behind. Its clock may be a little behind that of the primary.
    fn lag(&self) -> Lag {
        let (Some(now), Some(written)) = (self.local_time, self.last_write) else {
            return Lag::Unknown("the server does not say when it last wrote");
        };
        let behind = u64::try_from(now.saturating_sub(written)).unwrap_or(0);
        Lag::Known(Duration::from_millis(behind))
    }

    fn error_verdict(&self) -> Verdict {
        let text = self.error.map(|error| quote_server(error, &Secrets::NONE));
        match (self.code, text) {
            (Some(code), _) if UNAUTHORIZED.contains(&code) => Phase::Auth.inconclusive(
                "the server asks for a login before it tells its role; use `exec` or `tcp`",
            ),
            (Some(code), Some(text)) if STOPPING.contains(&code) => {
                Phase::Hello.fail(format_args!("stopping: {text}"))
            }
            (Some(code), Some(text)) => Phase::Hello.fail(format_args!("{code} {text}")),
            (Some(code), None) => Phase::Hello.fail(format_args!("error {code}")),
            (None, Some(text)) => Phase::Hello.fail(text),
            (None, None) => Phase::Hello.fail("an error without a code and a text"),
        }
    }
}

/// Reads the time of the newest write from the field `lastWrite`.
fn last_write(document: &[u8]) -> Result<Option<i64>, Malformed> {
    let mut time = None;
    for field in Fields::new(document)? {
        if let (b"lastWriteDate", Value::Time(date)) = field? {
            time = Some(date);
        }
    }
    Ok(time)
}

/// Returns whether a value means yes. Servers use numbers of all kinds for that too.
fn is_true(value: Value<'_>) -> bool {
    match value {
        Value::Bool(value) => value,
        Value::Number(value) => value != 0.0,
        _ => false,
    }
}

/// Returns the words for a version of the protocol. Other products speak it too.
fn product(wire_version: i64) -> Box<str> {
    match VERSIONS.iter().find(|(version, _)| *version == wire_version) {
        Some((_, version)) => format!("{PRODUCT} {version} protocol").into(),
        None => format!("{PRODUCT} wire version {wire_version}").into(),
    }
}

fn nonsense(answer: &[u8]) -> Verdict {
    not_of_protocol(Phase::Hello, PRODUCT, answer, &Secrets::NONE)
}

#[cfg(test)]
mod tests;
