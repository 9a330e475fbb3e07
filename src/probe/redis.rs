//! The check of Redis and Valkey: PING, and on demand login, role and lag, in one packet.
//!
//! ```text
//!  AUTH user password   with `password`
//!  PING
//!  INFO replication     with `maxLag`
//!  ROLE                 with `role`, `maxLag` or `password`
//! ```
//!
//! All are sent at once, and the answers come in their order. PING and ROLE are both needed: a
//! server that still loads its data says `master` to ROLE and `-LOADING` to PING. ROLE comes last,
//! so that the list of replicas at its end need not be read.
//!
//! | answer                | `any`          | `primary`      | `replica`         |
//! | ---                   | ---            | ---            | ---               |
//! | an error to PING      | fail           | fail           | fail              |
//! | `-NOAUTH`, not asked  | pass           | inconclusive   | inconclusive      |
//! | `-WRONGPASS`          | inconclusive   | inconclusive   | inconclusive      |
//! | ROLE: `master`        | pass           | pass           | fail              |
//! | ROLE: `slave`         | pass, with lag | fail           | pass, with lag    |
//! | ROLE: `sentinel`      | pass           | fail           | fail              |
//!
//! The connection ends with a reset, of which Redis logs nothing.

mod resp;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::resp::Reply;
use super::conversation::{Conversation, Ending, Protocol, Transport};
use super::credentials::Credentials;
use super::kind::{CheckProber, NewProber};
use super::native::NativeProber;
use super::observation::{Lag, Observation, Observed, Observer, ServerRole};
use super::phase::{Phase, ProbeResult};
use super::server_text::{Secrets, not_of_protocol, quote_server};
use super::target::Target;
use crate::config::{RedisCheck, Role};
use crate::health::Verdict;

const PRODUCT: &str = "Redis";

/// The room for commands without a password.
const COMMANDS_CAPACITY: usize = 64;

/// The protocol of one Redis.
struct Redis {
    role: Role,
    max_lag: Option<Duration>,
    credentials: Credentials,
    observer: Mutex<Observer>,
}

/// One conversation.
struct Dialog {
    redis: Arc<Redis>,
    user: Option<Arc<[u8]>>,
    password: Option<Arc<[u8]>>,
    commands: Vec<u8>,
    now: Instant,
    phase: Phase,
    lag: Lag,
}

/// The state of a conversation after a reply.
enum Turn {
    /// The reply is not complete yet.
    Incomplete,
    /// The reply to the next command is awaited.
    Next(Phase),
    End(ProbeResult<()>),
}

impl NewProber for RedisCheck {
    fn new_prober(&self, target: &Target) -> Box<dyn CheckProber> {
        let redis = Redis::new(self);
        let address = SocketAddr::new(target.ip, self.port);
        Box::new(NativeProber::new(address, Arc::new(redis), self.tls.as_ref(), target))
    }
}

impl Protocol for Redis {
    fn credentials(&self) -> Option<&Credentials> {
        Some(&self.credentials)
    }

    fn start(self: Arc<Self>, _: Transport, now: Instant) -> ProbeResult<Box<dyn Conversation>> {
        let (user, password) = (self.credentials.user()?, self.credentials.password()?);
        let mut commands = Vec::with_capacity(COMMANDS_CAPACITY);
        let phase = if password.is_some() { Phase::Auth } else { Phase::Ping };
        if let Some(password) = &password {
            let words = [Some(&b"AUTH"[..]), user.as_deref(), Some(password)];
            resp::write_command(&mut commands, words.into_iter().flatten());
        }
        resp::write_command(&mut commands, [&b"PING"[..]]);
        if self.max_lag.is_some() {
            resp::write_command(&mut commands, [&b"INFO"[..], b"replication"]);
        }
        if self.asks_role() {
            resp::write_command(&mut commands, [&b"ROLE"[..]]);
        }
        Ok(Box::new(Dialog {
            redis: self,
            user,
            password,
            commands,
            now,
            phase,
            lag: Lag::NO_LINK,
        }))
    }

    fn observed(&self) -> Option<Observed> {
        self.observer().newest()
    }
}

impl Redis {
    fn new(check: &RedisCheck) -> Self {
        Self {
            role: check.role,
            max_lag: check.max_lag,
            credentials: Credentials::new(check.user.as_ref(), check.password.as_ref()),
            observer: Mutex::default(),
        }
    }

    /// Returns whether ROLE is asked for. After a login it costs nothing, and people see the role.
    fn asks_role(&self) -> bool {
        self.role != Role::Any || self.max_lag.is_some() || self.credentials.has_password()
    }

    /// Checks the role and, of a replica, the lag.
    fn check(&self, role: ServerRole, lag: Lag, now: Instant) -> ProbeResult<()> {
        let observation = Observation { role: Some(role), ..Observation::default() };
        let role_verdict = role.check(self.role);
        self.observer().check(observation, role_verdict, (lag, self.max_lag), now)
    }

    fn observer(&self) -> MutexGuard<'_, Observer> {
        self.observer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Conversation for Dialog {
    fn begin(&mut self, output: &mut Vec<u8>) {
        output.append(&mut self.commands);
    }

    fn advance(&mut self, input: &mut &[u8], _: &mut Vec<u8>) -> Option<ProbeResult<()>> {
        loop {
            let before = *input;
            let turn = match self.phase {
                Phase::Auth => self.on_auth(input),
                Phase::Ping => self.on_ping(input),
                Phase::Lag => self.on_info(input),
                _ => self.on_role(input),
            };
            match turn {
                Ok(Turn::Incomplete) => return None,
                Ok(Turn::Next(phase)) => self.phase = phase,
                Ok(Turn::End(result)) => return Some(result),
                Err(resp::NotResp) => {
                    return Some(Err(not_of_protocol(
                        self.phase,
                        PRODUCT,
                        before,
                        &self.secrets(),
                    )));
                }
            }
        }
    }

    fn phase(&self) -> Phase {
        self.phase
    }

    fn ending(&self) -> Ending {
        Ending::Reset
    }
}

impl Dialog {
    fn on_auth(&mut self, input: &mut &[u8]) -> Result<Turn, resp::NotResp> {
        let Some(reply) = resp::take_reply(input)? else { return Ok(Turn::Incomplete) };
        Ok(match reply {
            Reply::Status(_) => Turn::Next(Phase::Ping),
            Reply::Error(error) => Turn::End(Err(self.refused(error))),
            _ => return Err(resp::NotResp),
        })
    }

    /// Returns the verdict on an error to AUTH, which shows nothing of the server's text but its
    /// code.
    fn refused(&self, error: &[u8]) -> Verdict {
        if let Some(verdict) = unavailable(error) {
            return verdict;
        }
        self.redis.credentials.expire();
        if error.starts_with(b"ERR AUTH <password> called without any password")
            || error.starts_with(b"ERR Client sent AUTH, but no password is set")
        {
            return Phase::Auth.inconclusive("the server has no password; remove `password`");
        }
        // Redis before version 6 has no users.
        if error.starts_with(b"ERR wrong number of arguments for 'auth' command") {
            return Phase::Auth.inconclusive("the server has no users; remove `user`");
        }
        let code = match self.secrets().are_in(error) {
            true => "a text with the user or the password".into(),
            false => String::from_utf8_lossy(resp::code(error)),
        };
        Phase::Auth.inconclusive(format_args!("refused ({code}): is the password right?"))
    }

    fn on_ping(&mut self, input: &mut &[u8]) -> Result<Turn, resp::NotResp> {
        let Some(reply) = resp::take_reply(input)? else { return Ok(Turn::Incomplete) };
        let error = match reply {
            Reply::Status(b"PONG") if self.redis.max_lag.is_some() => {
                return Ok(Turn::Next(Phase::Lag));
            }
            // What follows is the reply to ROLE, if that was asked for.
            Reply::Status(b"PONG") => return Ok(self.after_ping()),
            Reply::Error(error) => error,
            _ => return Err(resp::NotResp),
        };
        let asks_nothing = self.redis.role == Role::Any && self.redis.max_lag.is_none();
        Ok(Turn::End(match resp::code(error) {
            b"NOAUTH" if asks_nothing => Ok(()),
            b"NOAUTH" => Err(no_password()),
            b"NOPERM" => Err(Phase::Ping.inconclusive("the user may not run PING")),
            _ => Err(unavailable(error)
                .unwrap_or_else(|| Phase::Ping.fail(quote_server(error, &self.secrets())))),
        }))
    }

    fn after_ping(&self) -> Turn {
        match self.redis.asks_role() {
            true => Turn::Next(Phase::Role),
            false => Turn::End(Ok(())),
        }
    }

    fn on_info(&mut self, input: &mut &[u8]) -> Result<Turn, resp::NotResp> {
        let Some(reply) = resp::take_reply(input)? else { return Ok(Turn::Incomplete) };
        match reply {
            Reply::Bulk(Some(info)) => self.lag = read_lag(info),
            // The role comes first: a wrong one is the better reason.
            Reply::Error(error) => match resp::code(error) {
                b"NOPERM" => {
                    let why = "the user may not run INFO";
                    return Ok(Turn::End(Err(Phase::Lag.inconclusive(why))));
                }
                _ => return Ok(Turn::End(Err(self.error_verdict("INFO", error)))),
            },
            _ => return Err(resp::NotResp),
        }
        Ok(Turn::Next(Phase::Role))
    }

    fn on_role(&mut self, input: &mut &[u8]) -> Result<Turn, resp::NotResp> {
        let Some(reply) = resp::take_role(input)? else { return Ok(Turn::Incomplete) };
        let role = match reply {
            Reply::Bulk(Some(b"master")) => ServerRole::Primary,
            Reply::Bulk(Some(b"slave")) => ServerRole::Replica,
            Reply::Bulk(Some(b"sentinel")) => ServerRole::Sentinel,
            // It was asked for only to be shown.
            Reply::Error(_) if self.redis.role == Role::Any && self.redis.max_lag.is_none() => {
                return Ok(Turn::End(Ok(())));
            }
            Reply::Error(error) => {
                return Ok(Turn::End(Err(self.error_verdict("ROLE", error))));
            }
            _ => return Err(resp::NotResp),
        };
        Ok(Turn::End(self.redis.check(role, self.lag, self.now)))
    }

    /// Returns the verdict on an error to the command of this phase.
    fn error_verdict(&self, command: &str, error: &[u8]) -> Verdict {
        let phase = self.phase;
        match resp::code(error) {
            b"NOAUTH" => no_password(),
            b"NOPERM" => phase.inconclusive(format_args!("the user may not run {command}")),
            // Some installations rename commands.
            _ if error.starts_with(b"ERR unknown command") => {
                phase.inconclusive(format_args!("the server has no command {command}"))
            }
            _ => unavailable(error)
                .unwrap_or_else(|| phase.fail(quote_server(error, &self.secrets()))),
        }
    }

    fn secrets(&self) -> Secrets<'_> {
        Secrets { user: self.user.as_deref(), password: self.password.as_deref() }
    }
}

/// Returns the verdict on an error that says that the server can't serve, whatever it was asked.
fn unavailable(error: &[u8]) -> Option<Verdict> {
    Some(match resp::code(error) {
        b"LOADING" => Phase::Ping.fail("loading"),
        b"MASTERDOWN" => Phase::Ping.fail("no link to its primary"),
        b"BUSY" => Phase::Ping.fail("busy with a script"),
        b"MISCONF" => Phase::Ping.fail("can't save, and takes no writes"),
        b"DENIED" => {
            Phase::Ping.inconclusive("protected mode: Redis takes no clients from other hosts")
        }
        _ if error.starts_with(b"ERR max number of clients reached") => Phase::Ping.fail("full"),
        _ => return None,
    })
}

fn no_password() -> Verdict {
    Phase::Auth.inconclusive("the server asks for a password, and none is given")
}

/// Reads the lag from the reply to `INFO replication`.
fn read_lag(info: &[u8]) -> Lag {
    let info = String::from_utf8_lossy(info);
    let field = |name: &str| {
        info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
    };
    // The time is -1 as long as nothing has come.
    let seconds = field("master_last_io_seconds_ago").and_then(|text| text.parse().ok());
    match (field("master_link_status"), seconds) {
        (Some("up"), Some(seconds)) => Lag::Known(Duration::from_secs(seconds)),
        _ => Lag::NO_LINK,
    }
}

#[cfg(test)]
mod tests;
